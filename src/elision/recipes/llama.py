"""LLaMA: Touvron, Lavril, Izacard, Martinet, Lachaux, Lacroix, Roziere, Goyal, Hambro, Azhar, Rodriguez, Joulin, Grave &
Lample 2023, "LLaMA: Open and Efficient Foundation Language Models".

Nothing is left out but the future, as in GPT-3; what differs is that a small model reads far more text than is cheapest to
train, since it is cheap to use ever after. The block is GPT-2's with what others had found better: root-mean-square norms
(GPT-3, Zhang & Sennrich 2019), SwiGLU in the feed-forward layer (PaLM, Shazeer 2020), rotary positions (GPT-NeoX, Su et al.
2021), no biases anywhere, an output table of its own. The feed-forward width is two thirds of 4 D, rounded up to a multiple
of 256, so that three matrices cost what two did.

The paper gives sizes, rates, batch (4 M tokens: 2048 texts of 2048) and the optimiser; only inference code was released. It
turns neighbouring channels (positions.layout "pairs"); this follows Hugging Face's order of the same weights, "halves", and
`elision.export.rotary.with_halves` brings one into the other. The norm's epsilon is that of the released weights, 1e-6 (the
code's own default is 1e-5). Of the start of the weights neither says anything: ours is GPT-2's. Between documents stand
</s> and <s>; the paper does not say whether tokens see across, and here they do, as in GPT-2 and GPT-3.
"""

from elision.data.noise import NextToken
from elision.data.segment import Chunks
from elision.model.init import NormalInit
from elision.model.position import RotaryPositions
from elision.model.transformer import Transformer
from elision.objectives import CausalLM
from elision.recipe import Recipe
from elision.text.tokenizer import SentencePieceBPE
from elision.train.optim import AdamW
from elision.train.schedule import Cosine
from elision.train.settings import Train


def tiny() -> Recipe:
    """Ours, for small machines: 2 layers of width 128, context 256."""
    return _llama("llama-tiny", 2, 128, 2, 1e-3, length=256, batch_size=64, vocab_size=8192, steps=10_000, warmup=200)


def mini() -> Recipe:
    """Ours, for small machines: 4 layers of width 256, context 256."""
    return _llama("llama-mini", 4, 256, 4, 1e-3, length=256, batch_size=64, vocab_size=16384, steps=20_000, warmup=200)


def size_7b() -> Recipe:
    """6.74 G parameters: 32 layers of width 4096, 1.0 T tokens."""
    return _llama("llama-7b", num_layers=32, hidden_size=4096, num_heads=32, learning_rate=3e-4)


def size_13b() -> Recipe:
    """13.0 G parameters: 40 layers of width 5120, 1.0 T tokens."""
    return _llama("llama-13b", num_layers=40, hidden_size=5120, num_heads=40, learning_rate=3e-4)


def size_33b() -> Recipe:
    """32.5 G parameters: 60 layers of width 6656, 1.4 T tokens."""
    return _llama("llama-33b", num_layers=60, hidden_size=6656, num_heads=52, learning_rate=1.5e-4, steps=333_786)


def size_65b() -> Recipe:
    """65.3 G parameters: 80 layers of width 8192, 1.4 T tokens."""
    return _llama("llama-65b", num_layers=80, hidden_size=8192, num_heads=64, learning_rate=1.5e-4, steps=333_786)


def _llama(
    name: str,
    num_layers: int,
    hidden_size: int,
    num_heads: int,
    learning_rate: float,
    *,
    length: int = 2048,
    batch_size: int = 2048,
    vocab_size: int = 32000,
    steps: int = 238_419,
    warmup: int = 2000,
) -> Recipe:
    return Recipe(
        name=name,
        tokenizer=SentencePieceBPE(vocab_size=vocab_size),
        segmenter=Chunks(max_length=length, cross_documents=True, begun=True),
        noise=NextToken(),
        backbone=Transformer(
            num_layers=num_layers,
            hidden_size=hidden_size,
            num_heads=num_heads,
            feedforward_size=_feedforward_size(hidden_size),
            visibility="causal",
            norm="pre",
            norm_kind="rms",
            activation="silu",
            gated=True,
            biases="none",
            positions=RotaryPositions(theta=10000.0, num_positions=length),
            final_norm=True,
            frame="causal",
            classifier="none",
            norm_eps=1e-6,
            dropout=0.0,
            attention_dropout=0.0,
            init=NormalInit(std=0.02, scale_residual=True),
        ),
        objectives=(CausalLM(tied=False),),
        train=Train(
            batch_size=batch_size,
            steps=steps,
            optimizer=AdamW(learning_rate=learning_rate, beta2=0.95, weight_decay=0.1, clip_norm=1.0),
            schedule=Cosine(warmup=warmup, final_share=0.1),
        ),
    )


def _feedforward_size(hidden_size: int) -> int:
    # Two thirds of 4 D, rounded up to a multiple of 256.
    return -(-int(2 * 4 * hidden_size / 3) // 256) * 256
