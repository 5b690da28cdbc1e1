"""T5: Raffel, Shazeer, Roberts, Lee, Narang, Matena, Zhou, Li & Liu 2020, "Exploring the Limits of Transfer Learning with a
Unified Text-to-Text Transformer".

Leave out 15 % of the tokens in spans of 3, put a sentinel in the place of each, and write the spans, each after its
sentinel. Every task is text in, text out, so the same model and loss serve all of them.

The paper and the released code differ, and this follows the code: a text always begins with what stays and ends with what
is left out, so no sentinel closes the answer; z-loss, and 568 tokens of raw text that become exactly 512 to read and 114 to
write. Layers have no biases, norms no mean; scores are not divided, which the start of the queries makes up for; a bias for
each distance, shared by all layers, stands for positions, so there is no longest text. The token table is the output layer
too, over states that are first made hidden_size^-1/2 as large.

Departures: documents follow each other whole (the code shuffles pieces of at most 65,536 tokens), dropout is drawn for
every place (the code's masks are the same along a text), the table has no spare rows (the released one has 28: 32,128),
and the text is composed with NFC (NFKC there). The 2^20 tokens of a step are 2048 texts of 512 to read.
"""

from elision.data.noise import SpanCorruption
from elision.data.segment import Chunks
from elision.model.encoder_decoder import EncoderDecoder
from elision.model.init import T5Init
from elision.model.position import RelativePositions
from elision.model.transformer import Transformer
from elision.objectives import SequenceLM
from elision.recipe import Recipe
from elision.text.tokenizer import Unigram
from elision.train.adafactor import Adafactor
from elision.train.schedule import ReciprocalSquareRoot
from elision.train.settings import Train


def tiny() -> Recipe:
    """Ours, for small machines: 2 + 2 layers of width 128, 128 tokens to read."""
    return _t5("t5-tiny", **TINY)


def small() -> Recipe:
    """60.5 M parameters: 6 + 6 layers of width 512."""
    return _t5("t5-small", num_layers=6, hidden_size=512, feedforward_size=2048, num_heads=8)


def base() -> Recipe:
    """223 M parameters: 12 + 12 layers of width 768."""
    return _t5("t5-base", num_layers=12, hidden_size=768, feedforward_size=3072, num_heads=12)


def large() -> Recipe:
    """738 M parameters: 24 + 24 layers of width 1024."""
    return _t5("t5-large", num_layers=24, hidden_size=1024, feedforward_size=4096, num_heads=16)


def xl() -> Recipe:
    """2.85 G parameters, released as "3B": `large` with wider layers inside, 32 heads of 128."""
    return _t5("t5-xl", num_layers=24, hidden_size=1024, feedforward_size=16384, num_heads=32, head_size=128)


def xxl() -> Recipe:
    """11.3 G parameters, released as "11B": `large` with layers four times as wide again, 128 heads of 128."""
    return _t5("t5-xxl", num_layers=24, hidden_size=1024, feedforward_size=65536, num_heads=128, head_size=128)


TINY = {
    "num_layers": 2, "hidden_size": 128, "feedforward_size": 512, "num_heads": 2, "vocab_size": 8192,
    "max_length": 141, "batch_size": 64, "steps": 20_000, "hold": 1000,
}  # fmt: skip


def _t5(
    name: str,
    num_layers: int,
    hidden_size: int,
    feedforward_size: int,
    num_heads: int,
    *,
    head_size: int = 64,
    vocab_size: int = 32_100,
    max_length: int = 568,
    batch_size: int = 2048,
    steps: int = 1_000_000,
    hold: int = 10_000,
) -> Recipe:
    encoder, decoder = (
        Transformer(
            num_layers=num_layers,
            hidden_size=hidden_size,
            num_heads=num_heads,
            head_size=head_size,
            feedforward_size=feedforward_size,
            visibility=visibility,
            norm="pre",
            norm_kind="rms",
            activation="relu",
            biases="none",
            scale_attention=False,
            positions=RelativePositions(num_buckets=32, max_distance=128),
            final_norm=True,
            norm_eps=1e-6,
            dropout=0.1,
            attention_dropout=0.1,
            activation_dropout=0.1,
            final_dropout=True,
            init=T5Init(),
        )
        for visibility in ("bidirectional", "causal")
    )
    return Recipe(
        name=name,
        tokenizer=Unigram(vocab_size=vocab_size, layout="t5", num_sentinels=100),
        segmenter=Chunks(max_length=max_length, separated=False),
        noise=SpanCorruption(rate=0.15, mean_length=3.0),
        backbone=EncoderDecoder(encoder, decoder, start="pad", frame="causal", classifier="tanh"),
        objectives=(SequenceLM(tied=True, scale_hidden=True, z_loss=1e-4),),
        train=Train(
            batch_size=batch_size,
            steps=steps,
            optimizer=Adafactor(learning_rate=1.0),
            schedule=ReciprocalSquareRoot(hold=hold),
        ),
    )
