"""Meena: Adiwardana, Luong, So et al. 2020, "Towards a Human-like Open-Domain Chatbot".

Nothing is noised: what is left out is the reply to up to seven turns of talk. That one model, trained end to end to lower
its perplexity alone, sounds sensible and specific is the finding; what it says is drawn at random 20 times at temperature
0.88, and the likeliest is said.

The published shape, not the published model: Meena has 1 block of the Evolved Transformer (So et al. 2019) in its encoder
and 13 in its decoder, whose layers (gated units, convolutions side by side) nobody wrote down in full for this size, and
neither code nor weights were released. Here two blocks of a plain Transformer, norms before each layer, stand for each of
them, which is about their depth; width 2560, 32 heads, 8K symbols, 128 tokens to read and 128 to write, and the optimiser
(Adafactor, 0.01 for 10,000 steps, then the reciprocal of the root of the step) are the paper's. Batch and steps are ours.

The data are pairs, context and reply (`elision prepare --parallel`).
"""

from elision.data.noise import GivenAnswer
from elision.data.segment import SourceTarget
from elision.model.encoder_decoder import EncoderDecoder
from elision.model.init import WidthInit
from elision.model.position import SinusoidalPositions
from elision.model.transformer import Transformer
from elision.objectives import SequenceLM
from elision.recipe import Recipe
from elision.text.tokenizer import ByteLevelBPE
from elision.train.adafactor import Adafactor
from elision.train.schedule import ReciprocalSquareRoot
from elision.train.settings import Train


def tiny() -> Recipe:
    """Ours, for small machines: 1 + 4 layers of width 128, 4,096 symbols, 64 tokens."""
    return _meena("meena-tiny", 1, 4, 128, 2, vocab_size=4096, max_length=64, batch_size=64, steps=20_000, hold=1000)


def large() -> Recipe:
    """2.91 G parameters (the paper's 2.6 G in blocks of the Evolved Transformer): 2 + 26 layers of width 2560."""
    return _meena("meena-large", 2, 26, 2560, 32)


def _meena(
    name: str,
    num_encoder_layers: int,
    num_decoder_layers: int,
    hidden_size: int,
    num_heads: int,
    *,
    vocab_size: int = 8192,
    max_length: int = 128,
    batch_size: int = 4096,
    steps: int = 750_000,
    hold: int = 10_000,
) -> Recipe:
    encoder, decoder = (
        Transformer(
            num_layers=num_layers,
            hidden_size=hidden_size,
            num_heads=num_heads,
            feedforward_size=4 * hidden_size,
            visibility=visibility,
            norm="pre",
            activation="gelu",
            positions=SinusoidalPositions(max_length, layout="halves", divisor="half_minus_one"),
            scale_embeddings=True,
            final_norm=True,
            norm_eps=1e-5,
            init=WidthInit(),
        )
        for num_layers, visibility in ((num_encoder_layers, "bidirectional"), (num_decoder_layers, "causal"))
    )
    return Recipe(
        name=name,
        tokenizer=ByteLevelBPE(vocab_size=vocab_size, layout="blenderbot"),
        segmenter=SourceTarget(max_length=max_length, too_long="cut", frame="causal"),
        noise=GivenAnswer(),
        backbone=EncoderDecoder(encoder, decoder, start="bos", frame="causal", classifier="none"),
        objectives=(SequenceLM(),),
        train=Train(
            batch_size=batch_size,
            steps=steps,
            optimizer=Adafactor(learning_rate=1.0),
            schedule=ReciprocalSquareRoot(hold=hold),
        ),
    )
