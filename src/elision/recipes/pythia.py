"""Pythia: Biderman, Schoelkopf, Anthony, Bradley, O'Brien, Hallahan, Khan, Purohit, Prashanth, Raff, Skowron, Sutawika & van
der Wal 2023, "Pythia: A Suite for Analyzing Large Language Models Across Training and Scaling".

One recipe at ten sizes, all reading the same text in the same order, with 154 checkpoints each, so that what changes with
size and with training can be told apart. The model is GPT-NeoX (Black et al. 2022): GPT-2's block, but attention and
feed-forward layer read the same states, each through a norm of its own, and are added together; a quarter of each head turns
with position (rotary) and the rest carries none; biases everywhere; an output table of its own.

This follows the configuration files that the models were trained by. They give the 1B model a rate of 2.5e-4, where the
README prints 3e-4. They fuse the bias with GELU in its tanh form, though the released files say "gelu", the exact one, and
are read so by Hugging Face: here "gelu_tanh", which exports as "gelu_pytorch_tanh". The 6.9B and 12B files leave out the
initialisation of the others and so got GPT-2's. The released tokenizer has 50,277 symbols, byte-level BPE with runs of
spaces, and tables padded to 50,304 rows; here it is GPT-2's kind with that many symbols.
"""

from elision.data.noise import NextToken
from elision.data.segment import Chunks
from elision.model.init import Init, NormalInit, SmallInit
from elision.model.position import RotaryPositions
from elision.model.transformer import Transformer
from elision.objectives import CausalLM
from elision.recipe import Recipe
from elision.text.tokenizer import ByteLevelBPE
from elision.train.optim import AdamW
from elision.train.schedule import Cosine
from elision.train.settings import Train


def tiny() -> Recipe:
    """Ours, for small machines: 2 layers of width 128, context 256."""
    return _pythia("pythia-tiny", num_layers=2, hidden_size=128, num_heads=2, **_SMALL)


def mini() -> Recipe:
    """Ours, for small machines: 4 layers of width 256, context 256."""
    return _pythia("pythia-mini", num_layers=4, hidden_size=256, num_heads=4, **_SMALL | {"vocab_size": 16384})


def size_14m() -> Recipe:
    """14.1 M parameters: 6 layers of width 128."""
    return _pythia("pythia-14m", num_layers=6, hidden_size=128, num_heads=4, learning_rate=1e-3)


def size_31m() -> Recipe:
    """30.5 M parameters: 6 layers of width 256."""
    return _pythia("pythia-31m", num_layers=6, hidden_size=256, num_heads=8, learning_rate=1e-3)


def size_70m() -> Recipe:
    """70.4 M parameters: 6 layers of width 512."""
    return _pythia("pythia-70m", num_layers=6, hidden_size=512, num_heads=8, learning_rate=1e-3)


def size_160m() -> Recipe:
    """162 M parameters: 12 layers of width 768."""
    return _pythia("pythia-160m", num_layers=12, hidden_size=768, num_heads=12, learning_rate=6e-4)


def size_410m() -> Recipe:
    """405 M parameters: 24 layers of width 1024."""
    return _pythia("pythia-410m", num_layers=24, hidden_size=1024, num_heads=16, learning_rate=3e-4)


def size_1b() -> Recipe:
    """1.01 G parameters: 16 layers of width 2048 with 8 heads of 256."""
    return _pythia("pythia-1b", num_layers=16, hidden_size=2048, num_heads=8, learning_rate=2.5e-4)


def size_1_4b() -> Recipe:
    """1.41 G parameters: 24 layers of width 2048."""
    return _pythia("pythia-1-4b", num_layers=24, hidden_size=2048, num_heads=16, learning_rate=2e-4)


def size_2_8b() -> Recipe:
    """2.78 G parameters: 32 layers of width 2560."""
    return _pythia("pythia-2-8b", num_layers=32, hidden_size=2560, num_heads=32, learning_rate=1.6e-4)


def size_6_9b() -> Recipe:
    """6.86 G parameters: 32 layers of width 4096."""
    return _pythia("pythia-6-9b", 32, 4096, 32, learning_rate=1.2e-4, vocab_size=50432, init=_GPT2_INIT)


def size_12b() -> Recipe:
    """11.8 G parameters: 36 layers of width 5120."""
    return _pythia("pythia-12b", 36, 5120, 40, learning_rate=1.2e-4, vocab_size=50688, init=_GPT2_INIT)


_GPT2_INIT = NormalInit(std=0.02, scale_residual=True)
_SMALL = {"learning_rate": 1e-3, "length": 256, "batch_size": 64, "vocab_size": 8192, "steps": 10_000}


def _pythia(
    name: str,
    num_layers: int,
    hidden_size: int,
    num_heads: int,
    learning_rate: float,
    *,
    length: int = 2048,
    batch_size: int = 1024,
    vocab_size: int = 50304,
    steps: int = 143_000,
    init: Init = SmallInit(),
) -> Recipe:
    return Recipe(
        name=name,
        tokenizer=ByteLevelBPE(vocab_size=vocab_size),
        segmenter=Chunks(max_length=length, cross_documents=True),
        noise=NextToken(),
        backbone=neox(num_layers, hidden_size, num_heads, share=0.25, length=length, init=init),
        objectives=(CausalLM(tied=False),),
        train=training(learning_rate, batch_size, steps),
    )


def neox(
    num_layers: int, hidden_size: int, num_heads: int, *, share: float, length: int, init: Init = SmallInit()
) -> Transformer:
    """Return a GPT-NeoX; share: how much of each head turns with position."""
    return Transformer(
        num_layers=num_layers,
        hidden_size=hidden_size,
        num_heads=num_heads,
        feedforward_size=4 * hidden_size,
        visibility="causal",
        norm="pre",
        parallel=True,
        activation="gelu_tanh",
        positions=RotaryPositions(theta=10000.0, share=share, num_positions=length),
        final_norm=True,
        frame="causal",
        classifier="none",
        norm_eps=1e-5,
        dropout=0.0,
        attention_dropout=0.0,
        init=init,
    )


def training(learning_rate: float, batch_size: int, steps: int) -> Train:
    """Return how GPT-NeoX's models are optimised."""
    return Train(
        batch_size=batch_size,
        steps=steps,
        optimizer=AdamW(learning_rate=learning_rate, beta2=0.95, weight_decay=0.1, clip_norm=1.0),
        schedule=Cosine(warmup=0.01, final_share=0.1),
        seed=1234,
    )
