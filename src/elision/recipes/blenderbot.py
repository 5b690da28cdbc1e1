"""BlenderBot: Roller, Dinan, Goyal et al. 2021, "Recipes for Building an Open-Domain Chatbot".

Nothing is noised: what is left out is the reply. An encoder reads what was said, a decoder writes what is said next, first
over a billion and a half comments of a forum, then over small sets of good talk.

The data are pairs, context and reply (`elision prepare --parallel`); turns of a context lie in one text, two spaces
between them. Most layers stand in the decoder. The decoder begins with <s>. How it is decoded matters as much as how it
is trained: the paper's beam of 10 writes at least 20 tokens and repeats no three.

The paper gives sizes, batch (half a million tokens of replies) and steps; learning rates and warm-up here are ours. What is
too long is cut at its end (there, a context loses its beginning). `small` is an older system (norms after each layer,
trained positions, 54,944 symbols), whose decoder normalises tokens before it adds positions; this one normalises the sum,
and its positions count from 2, so that it is a BART to Hugging Face's library.
"""

from elision.data.noise import GivenAnswer
from elision.data.segment import SourceTarget
from elision.model.encoder_decoder import EncoderDecoder
from elision.model.init import WidthInit
from elision.model.position import LearnedPositions, SinusoidalPositions
from elision.model.transformer import Transformer
from elision.objectives import SequenceLM
from elision.recipe import Recipe
from elision.text.tokenizer import ByteLevelBPE
from elision.train.optim import AdamW
from elision.train.schedule import Linear
from elision.train.settings import Train

# Half a million tokens of replies, which have 38 each on average (56.8 of 1.5 thousand million).
BATCH_SIZE = 13_000


def tiny() -> Recipe:
    """Ours, for small machines: 1 + 4 layers of width 128, 4,096 symbols, 64 tokens."""
    stacks = _stacks(1, 4, hidden_size=128, num_heads=2, num_positions=64)
    return _blenderbot("blenderbot-tiny", stacks, _training(64, 20_000, 1e-3), vocab_size=4096, max_length=64)


def small() -> Recipe:
    """87.5 M parameters, released as "90M": 8 + 8 layers of width 512, norms after each, 512 tokens."""
    encoder, decoder = (
        Transformer(
            num_layers=8,
            hidden_size=512,
            num_heads=16,
            feedforward_size=2048,
            visibility=visibility,
            norm="post",
            activation="gelu",
            positions=LearnedPositions(512, offset=2),
            scale_embeddings=True,
            embedding_norm=True,
            norm_eps=1e-5,
            init=WidthInit(),
        )
        for visibility in ("bidirectional", "causal")
    )
    stacks = EncoderDecoder(encoder, decoder, start="bos", frame="causal", classifier="none")
    return _blenderbot("blenderbot-small", stacks, _training(4096, 200_000, 5e-4), vocab_size=54_944, max_length=512)


def large() -> Recipe:
    """2.70 G parameters: 2 + 24 layers of width 2560 (the paper's 2.7B)."""
    stacks = _stacks(2, 24, hidden_size=2560, num_heads=32)
    return _blenderbot("blenderbot-large", stacks, _training(BATCH_SIZE, 200_000, 2e-4))


def xl() -> Recipe:
    """9.43 G parameters: 4 + 32 layers of width 4096 (the paper's 9.4B)."""
    stacks = _stacks(4, 32, hidden_size=4096, num_heads=32)
    return _blenderbot("blenderbot-xl", stacks, _training(BATCH_SIZE, 200_000, 1e-4))


def _stacks(
    num_encoder_layers: int, num_decoder_layers: int, hidden_size: int, num_heads: int, num_positions: int = 128
) -> EncoderDecoder:
    encoder, decoder = (
        Transformer(
            num_layers=num_layers,
            hidden_size=hidden_size,
            num_heads=num_heads,
            feedforward_size=4 * hidden_size,
            visibility=visibility,
            norm="pre",
            activation="gelu",
            positions=SinusoidalPositions(num_positions, layout="interleaved"),
            scale_embeddings=True,
            final_norm=True,
            norm_eps=1e-5,
            dropout=0.1,
            attention_dropout=0.0,
            init=WidthInit(),
        )
        for num_layers, visibility in ((num_encoder_layers, "bidirectional"), (num_decoder_layers, "causal"))
    )
    return EncoderDecoder(encoder, decoder, start="bos", frame="causal", classifier="none")


def _training(batch_size: int, steps: int, learning_rate: float) -> Train:
    return Train(
        batch_size=batch_size,
        steps=steps,
        optimizer=AdamW(learning_rate=learning_rate, beta2=0.98, weight_decay=0.0, clip_norm=0.1),
        schedule=Linear(warmup=0.01),
    )


def _blenderbot(
    name: str, backbone: EncoderDecoder, train: Train, vocab_size: int = 8008, max_length: int = 128
) -> Recipe:
    return Recipe(
        name=name,
        tokenizer=ByteLevelBPE(vocab_size=vocab_size, layout="blenderbot"),
        segmenter=SourceTarget(max_length=max_length, too_long="cut", frame="causal"),
        noise=GivenAnswer(),
        backbone=backbone,
        objectives=(SequenceLM(),),
        train=train,
    )
