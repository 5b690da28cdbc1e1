"""Polyglot-Ko: Ko, Yang, Ryu, Choi, Yang, Hyun, Park & Park 2023, "A Technical Report for Polyglot-Ko: Open-Source
Large-Scale Korean Language Models".

GPT-NeoX on 863 GB of Korean: one language read well instead of many read a little. As in Pythia, attention and feed-forward
layer read the same states; 64 channels of each head turn with position.

Only weights and model cards were released. Sizes are those of the cards; all that they do not say, batch, learning rates (at
the sizes nearest to Pythia's) and schedule among it, is as in Pythia's recipe. The released tokenizer first cuts words into
morphemes (MeCab) and has 30,003 symbols, tables padded to 30,080 rows; here it is byte-level BPE with that many symbols,
without MeCab.
"""

from elision.data.noise import NextToken
from elision.data.segment import Chunks
from elision.objectives import CausalLM
from elision.recipe import Recipe
from elision.recipes.pythia import neox, training
from elision.text.tokenizer import ByteLevelBPE


def tiny() -> Recipe:
    """Ours, for small machines: 2 layers of width 128, context 256."""
    return _polyglot("polyglot-tiny", 2, 128, 2, **_SMALL)


def mini() -> Recipe:
    """Ours, for small machines: 4 layers of width 256, context 256."""
    return _polyglot("polyglot-mini", 4, 256, 4, **_SMALL | {"vocab_size": 16384})


def size_1_3b() -> Recipe:
    """1.33 G parameters: 24 layers of width 2048; 213 G tokens."""
    return _polyglot("polyglot-1-3b", 24, 2048, 16, learning_rate=2e-4)


def size_3_8b() -> Recipe:
    """3.81 G parameters: 32 layers of width 3072."""
    return _polyglot("polyglot-3-8b", 32, 3072, 24, learning_rate=1.6e-4)


def size_5_8b() -> Recipe:
    """5.89 G parameters: 28 layers of width 4096, 16 heads of 256."""
    return _polyglot("polyglot-5-8b", 28, 4096, 16, learning_rate=1.2e-4, share=0.25)


def size_12_8b() -> Recipe:
    """12.9 G parameters: 40 layers of width 5120; 167 G tokens."""
    return _polyglot("polyglot-12-8b", 40, 5120, 40, learning_rate=1.2e-4, steps=79_632)


_SMALL = {"learning_rate": 1e-3, "length": 256, "batch_size": 64, "vocab_size": 8192, "steps": 10_000}


def _polyglot(
    name: str,
    num_layers: int,
    hidden_size: int,
    num_heads: int,
    *,
    learning_rate: float,
    share: float = 0.5,
    length: int = 2048,
    batch_size: int = 1024,
    vocab_size: int = 30080,
    # 213 G tokens.
    steps: int = 101_566,
) -> Recipe:
    return Recipe(
        name=name,
        tokenizer=ByteLevelBPE(vocab_size=vocab_size),
        segmenter=Chunks(max_length=length, cross_documents=True),
        noise=NextToken(),
        backbone=neox(num_layers, hidden_size, num_heads, share=share, length=length),
        objectives=(CausalLM(tied=False),),
        train=training(learning_rate, batch_size, steps),
    )
