"""Transformer-XL: Dai, Yang, Yang, Carbonell, Le & Salakhutdinov 2019, "Transformer-XL: Attentive Language Models Beyond a
Fixed-Length Context".

Predict each token from all before it, with no start over: every layer also looks at what it read in the segments before,
which is remembered without gradient, and knows of any token only how far back it is.

The sizes are those of the released code. The paper's numbers come from its TensorFlow scripts for TPUs, which the large sizes
follow: on words, u and v of each layer's own, and weights that start at 0.005 (one billion words, WikiText-103). The base sizes
follow the PyTorch scripts: one u and one v for all layers, weights that start at 0.02. Longer memories, the same number of
tokens for each and clamped distances belong to evaluation: `elision evaluate --memory-length 640 --same-length
--clamp-distance 400`.

enwik8 and text8 are read byte by byte: `ByteLevelBPE` with 257 symbols has the 256 bytes and the end of a text (the released
code counts 204 different bytes in enwik8). WikiText-103 and one billion words have whole words, cut by how frequent they are.

Different here: a symbol stands before each document, where the released code ends every line of words with one; words are cut
off punctuation; the scores of the rarer clusters come in their order, as in the TensorFlow code; and on one billion words the
most frequent words are projected, too, as in the PyTorch code.
"""

from elision.data.noise import NextToken
from elision.data.segment import Streams
from elision.model.transformer_xl import TransformerXL, TransformerXLInit
from elision.objectives import AdaptiveLM, CausalLM
from elision.recipe import Recipe
from elision.text.tokenizer import ByteLevelBPE, Words
from elision.train.optim import AdamW
from elision.train.schedule import Cosine
from elision.train.settings import Train


def tiny() -> Recipe:
    """Ours, for small machines: bytes, 4 layers of width 128, segments and memory of 128."""
    return _bytes(
        "transformer-xl-tiny",
        TransformerXL(num_layers=4, hidden_size=128, num_heads=2, feedforward_size=512, memory_length=128, dropout=0.0),
        batch_size=16,
        steps=20_000,
        learning_rate=1e-3,
        warmup=300,
    )


def tiny_words() -> Recipe:
    """Ours, for small machines: words in four clusters, 2 layers of width 128, segments and memory of 64."""
    backbone = TransformerXL(
        num_layers=2,
        hidden_size=128,
        num_heads=2,
        feedforward_size=512,
        memory_length=64,
        cutoffs=(2_000, 8_000, 20_000),
        embedding_divisor=4,
    )
    return _words(
        "transformer-xl-tiny-words",
        backbone,
        vocab_size=50_000,
        tied_projections="tails",
        batch_size=32,
        steps=20_000,
        learning_rate=1e-3,
        warmup=300,
    )


def enwik8_base() -> Recipe:
    """Bytes: 12 layers of width 512, segments and memory of 512; 41 M parameters. Evaluated: segments of 80, memory 2100,
    clamped at 820."""
    backbone = TransformerXL(
        num_layers=12, hidden_size=512, num_heads=8, feedforward_size=2048, memory_length=512, dropout=0.1
    )
    return _bytes("transformer-xl-enwik8-base", backbone, batch_size=22, steps=400_000)


def enwik8_large() -> Recipe:
    """Bytes: 24 layers of width 1024, segments and memory of 768; 277 M parameters. Also for text8. Evaluated: segments of
    128, memory 3800, clamped at 1000."""
    backbone = TransformerXL(
        num_layers=24,
        hidden_size=1024,
        num_heads=8,
        feedforward_size=3072,
        memory_length=768,
        dropout=0.15,
        attention_dropout=0.15,
    )
    return _bytes("transformer-xl-enwik8-large", backbone, batch_size=64, steps=400_000, warmup=4000)


def wt103_base() -> Recipe:
    """WikiText-103: 16 layers of width 410, segments and memory of 150; 151 M parameters at 267,735 words. Evaluated:
    segments of 64, memory 640, clamped at 400."""
    backbone = TransformerXL(
        num_layers=16,
        hidden_size=410,
        num_heads=10,
        feedforward_size=2100,
        memory_length=150,
        cutoffs=WT103,
        dropout=0.1,
    )
    return _words("transformer-xl-wt103-base", backbone, vocab_size=267_735, batch_size=60, steps=200_000)


def wt103_large() -> Recipe:
    """WikiText-103: 18 layers of width 1024, segments and memory of 384; 285 M parameters at 267,735 words (the paper says
    257 M). Evaluated: segments of 128, memory 1600, clamped at 1000."""
    backbone = TransformerXL(
        num_layers=18,
        hidden_size=1024,
        num_heads=16,
        feedforward_size=4096,
        memory_length=384,
        share_biases=False,
        cutoffs=WT103,
        embedding_divisor=4,
        dropout=0.2,
        attention_dropout=0.2,
        init=TransformerXLInit(std=0.005),
    )
    return _words(
        "transformer-xl-wt103-large",
        backbone,
        vocab_size=267_735,
        tied_projections="tails",
        batch_size=128,
        steps=4_000_000,
        warmup=16_000,
    )


def lm1b_large() -> Recipe:
    """One billion words: 24 layers of width 1280, segments and memory of 32; 0.8 G parameters at 793,471 words. Evaluated:
    memory 128."""
    backbone = TransformerXL(
        num_layers=24,
        hidden_size=1280,
        num_heads=16,
        feedforward_size=8192,
        memory_length=32,
        share_biases=False,
        cutoffs=LM1B,
        embedding_divisor=4,
        dropout=0.05,
        attention_dropout=0.05,
        init=TransformerXLInit(std=0.005),
    )
    return _words(
        "transformer-xl-lm1b-large",
        backbone,
        vocab_size=793_471,
        batch_size=512,
        steps=1_200_000,
        learning_rate=1e-4,
        warmup=30_000,
    )


# Where rarer words begin in the two corpora of words.
WT103 = (20_000, 40_000, 200_000)
LM1B = (60_000, 100_000, 640_000)


def _bytes(
    name: str,
    backbone: TransformerXL,
    batch_size: int,
    steps: int,
    learning_rate: float = 2.5e-4,
    warmup: float = 0,
) -> Recipe:
    return Recipe(
        name=name,
        tokenizer=ByteLevelBPE(vocab_size=257),
        segmenter=Streams(max_length=backbone.memory_length),
        noise=NextToken(),
        backbone=backbone,
        objectives=(CausalLM(bias=True),),
        train=_train(batch_size, steps, learning_rate, warmup),
    )


def _words(
    name: str,
    backbone: TransformerXL,
    vocab_size: int,
    batch_size: int,
    steps: int,
    tied_projections: str = "none",
    learning_rate: float = 2.5e-4,
    warmup: float = 0,
) -> Recipe:
    return Recipe(
        name=name,
        tokenizer=Words(vocab_size=vocab_size),
        segmenter=Streams(max_length=backbone.memory_length),
        noise=NextToken(),
        backbone=backbone,
        objectives=(AdaptiveLM(tied_projections=tied_projections),),
        train=_train(batch_size, steps, learning_rate, warmup),
    )


def _train(batch_size: int, steps: int, learning_rate: float, warmup: float) -> Train:
    return Train(
        batch_size=batch_size,
        steps=steps,
        optimizer=AdamW(learning_rate=learning_rate, weight_decay=0.0, clip_norm=0.25),
        schedule=Cosine(warmup=warmup, final_share=0.0),
        packing=False,
    )
