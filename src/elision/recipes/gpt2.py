"""GPT-2: Radford, Wu, Child, Luan, Amodei & Sutskever 2019, "Language Models are Unsupervised Multitask Learners".

Nothing is left out but the future: predict each token from all before it, over documents laid end to end.

The paper gives sizes, context and batch, but neither learning rate nor schedule, and only inference code was released:
rates, betas and warm-up here follow GPT-3's table for the sizes that match (Brown et al. 2020, table 2.1), decay and
clipping likewise. Initialisation: 0.02, positions 0.01 (released code), residual projections divided by
sqrt(2 * num_layers) (the paper's "1/sqrt(N)"; two residual layers to a block).
"""

from elision.data.noise import NextToken
from elision.data.segment import Chunks
from elision.model.init import NormalInit
from elision.model.position import LearnedPositions
from elision.model.transformer import Transformer
from elision.objectives import CausalLM
from elision.recipe import Recipe
from elision.text.tokenizer import ByteLevelBPE
from elision.train.optim import AdamW
from elision.train.schedule import Cosine
from elision.train.settings import Train


def tiny() -> Recipe:
    """Ours, for small machines: 2 layers of width 128, context 256."""
    return _gpt2("gpt2-tiny", num_layers=2, hidden_size=128, num_heads=2, learning_rate=1e-3, length=256, batch_size=64)


def mini() -> Recipe:
    """Ours, for small machines: 4 layers of width 256, context 256."""
    return _gpt2("gpt2-mini", num_layers=4, hidden_size=256, num_heads=4, learning_rate=1e-3, length=256, batch_size=64)


def small() -> Recipe:
    """124 M parameters: 12 layers of width 768 (the paper's 117M, miscounted there)."""
    return _gpt2("gpt2-small", num_layers=12, hidden_size=768, num_heads=12, learning_rate=6e-4)


def medium() -> Recipe:
    """355 M parameters: 24 layers of width 1024 (the paper's 345M)."""
    return _gpt2("gpt2-medium", num_layers=24, hidden_size=1024, num_heads=16, learning_rate=3e-4)


def large() -> Recipe:
    """774 M parameters: 36 layers of width 1280."""
    return _gpt2("gpt2-large", num_layers=36, hidden_size=1280, num_heads=20, learning_rate=2.5e-4)


def xl() -> Recipe:
    """1.56 G parameters: 48 layers of width 1600."""
    return _gpt2("gpt2-xl", num_layers=48, hidden_size=1600, num_heads=25, learning_rate=2e-4)


def _gpt2(
    name: str,
    num_layers: int,
    hidden_size: int,
    num_heads: int,
    learning_rate: float,
    length: int = 1024,
    batch_size: int = 512,
) -> Recipe:
    return Recipe(
        name=name,
        tokenizer=ByteLevelBPE(vocab_size=50257),
        segmenter=Chunks(max_length=length, cross_documents=True),
        noise=NextToken(),
        backbone=Transformer(
            num_layers=num_layers,
            hidden_size=hidden_size,
            num_heads=num_heads,
            feedforward_size=4 * hidden_size,
            visibility="causal",
            norm="pre",
            activation="gelu_tanh",
            positions=LearnedPositions(length),
            final_norm=True,
            norm_eps=1e-5,
            dropout=0.1,
            attention_dropout=0.1,
            init=NormalInit(std=0.02, position_std=0.01, scale_residual=True),
        ),
        objectives=(CausalLM(),),
        train=Train(
            batch_size=batch_size,
            steps=600_000,
            optimizer=AdamW(learning_rate=learning_rate, beta2=0.95, weight_decay=0.1, clip_norm=1.0),
            schedule=Cosine(warmup=0.005, final_share=0.1),
        ),
    )
