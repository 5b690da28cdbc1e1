"""DeBERTa-v2: the authors' release of February 2021 with He, Liu, Gao & Chen 2020, which reached 90 on SuperGLUE.

DeBERTa, larger: relative positions fall into buckets, logarithmic beyond 128, and are projected by the same weights as
content; a convolution over the embeddings joins the first layer; 128,100 pieces of a Unigram tokenizer.

What it changes in DeBERTa: 256 buckets to each side instead of 512 distances, a layer norm on their table, biases on
keys, no projections for positions alone, a convolution of width 3 whose output is added to that of the first layer. All
of this is known from the released code and weights alone; batch, steps and rates are those of the paper's `large`, as
no others were published.
"""

from elision.data.noise import ContextNgramMask
from elision.data.segment import FullSentences
from elision.model.deberta import Deberta
from elision.model.init import NormalInit
from elision.model.position import LearnedPositions
from elision.objectives import MaskedLM
from elision.recipe import Recipe
from elision.text.tokenizer import Unigram
from elision.train.optim import AdamW
from elision.train.schedule import Linear
from elision.train.settings import Train


def tiny() -> Recipe:
    """2 layers of width 128, 8,192 symbols, length 128: 1.7 M parameters."""
    return _deberta_v2(
        "deberta-v2-tiny",
        encoder(num_layers=2, hidden_size=128, num_heads=2, convolution=3),
        training(batch_size=256, steps=20_000, warmup=0.01, learning_rate=1e-3),
        vocab_size=8192,
        length=128,
    )


def xlarge() -> Recipe:
    """24 layers of width 1536: 888 M parameters."""
    return _deberta_v2(
        "deberta-v2-xlarge",
        encoder(num_layers=24, hidden_size=1536, num_heads=24, convolution=3),
        training(batch_size=2048, steps=1_000_000, warmup=0.01, learning_rate=2e-4),
    )


def xxlarge() -> Recipe:
    """48 layers of width 1536: 1.57 G parameters."""
    return _deberta_v2(
        "deberta-v2-xxlarge",
        encoder(num_layers=48, hidden_size=1536, num_heads=24, convolution=3),
        training(batch_size=2048, steps=1_000_000, warmup=0.01, learning_rate=2e-4),
    )


def encoder(
    num_layers: int, hidden_size: int, num_heads: int, convolution: int = 0, mask_decoder: bool = True
) -> Deberta:
    """Return the backbone; without the convolution it is that of version 3."""
    return Deberta(
        num_layers=num_layers,
        hidden_size=hidden_size,
        num_heads=num_heads,
        feedforward_size=4 * hidden_size,
        max_distance=512,
        num_buckets=256,
        share_projections=True,
        distance_norm=True,
        key_bias=True,
        convolution=convolution,
        convolution_activation="gelu",
        mask_decoder=mask_decoder,
        positions=LearnedPositions(512),
        activation="gelu",
        frame="bert",
        classifier="gelu",
        norm_eps=1e-7,
        dropout=0.1,
        attention_dropout=0.1,
        init=NormalInit(std=0.02),
    )


def training(batch_size: int, steps: int, warmup: float, learning_rate: float, beta2: float = 0.999) -> Train:
    """Return how it is optimised; version 3 is too. warmup: share of the steps."""
    return Train(
        batch_size=batch_size,
        steps=steps,
        optimizer=AdamW(
            learning_rate=learning_rate,
            beta2=beta2,
            eps=1e-6,
            weight_decay=0.01,
            bias_correction=False,
            clip_norm=1.0,
        ),
        schedule=Linear(warmup=warmup),
    )


def _deberta_v2(name: str, backbone: Deberta, train: Train, vocab_size: int = 128_100, length: int = 512) -> Recipe:
    return Recipe(
        name=name,
        tokenizer=Unigram(vocab_size=vocab_size, layout="albert"),
        segmenter=FullSentences(max_length=length, cross_documents=True),
        noise=ContextNgramMask(rate=0.15, max_targets=80, max_words=3, mask_share=0.8, random_share=0.1),
        backbone=backbone,
        objectives=(MaskedLM(),),
        train=train,
    )
