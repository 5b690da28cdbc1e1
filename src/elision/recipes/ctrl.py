"""CTRL: Keskar, McCann, Varshney, Xiong & Socher 2019, "CTRL: A Conditional Transformer Language Model for Controllable
Generation".

Every stretch of text is read behind a code that says what kind of text it is (its source, its genre), so that the model
learns to write each kind when it is told the code; and, read the other way, which kind a text most likely is.

Followed: the released code. A window reads the code and all but the last of its tokens and predicts every one of them, the
first from the code alone; windows with more than one unknown symbol are dropped. Norms before each sublayer and after the
last (eps 1e-6), ReLU, positions of all sines before all cosines, token embeddings times the root of their width, the token
table as the output layer with a bias for each token. Adagrad warmed up to 0.05 over 25 000 steps, clipping at 0.25, batches
of 1024. The released code leaves attention weights without dropout. It does not say how weights start: normal with 0.02
here, and 0.1 for Adagrad's sums of squares, which is what TensorFlow begins with.

Codes come from a field of the corpus (`elision prepare --reading.code-field FIELD`, or code:NAME=INPUT), and each has a
symbol of its own, <|NAME|>; in the paper a code is an ordinary word of the vocabulary. The tokenizer is byte-level BPE of
the same size instead of fastBPE, so nothing is unknown in it, and a symbol ends texts inside a window.

Decode with a penalty on what was written already (`elision generate --repetition-penalty 1.2`), as the paper does.
"""

from elision.data.noise import NextToken
from elision.data.segment import CodedChunks
from elision.model.init import NormalInit
from elision.model.position import SinusoidalPositions
from elision.model.transformer import Transformer
from elision.objectives import CausalLM
from elision.recipe import Recipe
from elision.text.tokenizer import ByteLevelBPE
from elision.train.adagrad import Adagrad
from elision.train.schedule import Constant
from elision.train.settings import Train


def tiny() -> Recipe:
    """Ours, for small machines: 2 layers of width 128."""
    # Sums that begin at 0.1 dwarf the squares of a gradient that is clipped to 0.25: too slow a start for a short run.
    return _ctrl(
        "ctrl-tiny", 2, 128, 2, feedforward_size=512, vocab_size=16_384, batch_size=64, steps=20_000, accumulator=1e-4
    )


def seqlen256() -> Recipe:
    """1.64 G parameters: 48 layers of width 1280, windows of 256 tokens."""
    return _ctrl("ctrl-seqlen256", 48, 1280, 16)


def seqlen512() -> Recipe:
    """1.64 G parameters: 48 layers of width 1280, windows of 512 tokens."""
    return _ctrl("ctrl-seqlen512", 48, 1280, 16, length=512)


def _ctrl(
    name: str,
    num_layers: int,
    hidden_size: int,
    num_heads: int,
    *,
    feedforward_size: int = 8192,
    vocab_size: int = 246_534,
    length: int = 256,
    batch_size: int = 1024,
    steps: int = 800_000,
    accumulator: float = 0.1,
) -> Recipe:
    return Recipe(
        name=name,
        tokenizer=ByteLevelBPE(vocab_size=vocab_size),
        segmenter=CodedChunks(max_length=length),
        noise=NextToken(),
        backbone=Transformer(
            num_layers=num_layers,
            hidden_size=hidden_size,
            num_heads=num_heads,
            feedforward_size=feedforward_size,
            visibility="causal",
            norm="pre",
            activation="relu",
            scale_embeddings=True,
            positions=SinusoidalPositions(length, layout="halves"),
            final_norm=True,
            norm_eps=1e-6,
            dropout=0.1,
            attention_dropout=0.0,
            init=NormalInit(std=0.02),
        ),
        objectives=(CausalLM(bias=True),),
        train=Train(
            batch_size=batch_size,
            steps=steps,
            optimizer=Adagrad(learning_rate=0.05, initial_accumulator=accumulator, clip_norm=0.25),
            schedule=Constant(warmup=25_000 / 800_000),
        ),
    )
