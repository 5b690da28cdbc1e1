"""GPT-3: Brown et al. 2020, "Language Models are Few-Shot Learners".

GPT-2 with layers that in turn see all of the text and only a band of it, twice the context, and a hundred times the size;
trained on 300 G tokens with batches that grow and a rate that is counted in tokens.

Followed: the paper's table 2.1 and appendix B. Where the table contradicts itself (24 heads of 128 in a width of 2048, a
width of 5140 for 40 heads of 128), the sizes are those that reproductions use: 16 heads, and 5120. No code was released.
What the paper leaves open is ours: the band is 256 tokens, the first layer sees everything (as in GPT-Neo), batches reach
their full size after 4 to 12 G tokens by size (the paper's range), nothing is dropped out in what is less than one epoch,
and initialisation is GPT-2's.

One departure, so that `elision export` can write GPT-Neo, the one layout of Hugging Face's with such layers: queries, keys
and values have no biases (`backbone.biases all` brings them back; `backbone.windows` left empty makes all layers see
everything).

The schedule is given in shares of the run, which at its full length are 375 M tokens of warm-up and a cosine that ends at
260 G; a shorter run (`train.budget`) keeps the shape. The ramp is counted in examples and does not shrink with it: shorten
`train.ramp.num_examples`, or set `train.ramp` to null.
"""

from elision.data.noise import NextToken
from elision.data.ramp import BatchRamp, BatchSizes
from elision.data.segment import Chunks
from elision.model.init import NormalInit
from elision.model.position import LearnedPositions
from elision.model.transformer import Transformer
from elision.objectives import CausalLM
from elision.recipe import Recipe
from elision.text.tokenizer import ByteLevelBPE
from elision.train.optim import AdamW
from elision.train.schedule import TokenCosine
from elision.train.settings import Train

LENGTH = 2048
TOKENS = 300e9


def tiny() -> Recipe:
    """Ours, for small machines: 2 layers of width 128, context 256, a band of 64."""
    return _gpt3(
        "gpt3-tiny", 2, 128, 2, batch_size=64, learning_rate=1e-3, ramp=BatchRamp(8, 10_000), length=256, window=64,
        tokens=300e6,
    )  # fmt: skip


def size_125m() -> Recipe:
    """125 M parameters: 12 layers of width 768."""
    return _gpt3("gpt3-125m", 12, 768, 12, batch_size=256, learning_rate=6e-4)


def size_350m() -> Recipe:
    """356 M parameters: 24 layers of width 1024."""
    return _gpt3("gpt3-350m", 24, 1024, 16, batch_size=256, learning_rate=3e-4)


def size_760m() -> Recipe:
    """760 M parameters: 24 layers of width 1536."""
    return _gpt3("gpt3-760m", 24, 1536, 16, batch_size=256, learning_rate=2.5e-4)


def size_1_3b() -> Recipe:
    """1.3 G parameters: 24 layers of width 2048."""
    return _gpt3("gpt3-1-3b", 24, 2048, 16, batch_size=512, learning_rate=2e-4)


def size_2_7b() -> Recipe:
    """2.7 G parameters: 32 layers of width 2560."""
    return _gpt3("gpt3-2-7b", 32, 2560, 32, batch_size=512, learning_rate=1.6e-4, ramp=_over(8e9))


def size_6_7b() -> Recipe:
    """6.7 G parameters: 32 layers of width 4096."""
    return _gpt3("gpt3-6-7b", 32, 4096, 32, batch_size=1024, learning_rate=1.2e-4, ramp=_over(8e9))


def size_13b() -> Recipe:
    """13 G parameters: 40 layers of width 5120."""
    return _gpt3("gpt3-13b", 40, 5120, 40, batch_size=1024, learning_rate=1e-4, ramp=_over(12e9))


def size_175b() -> Recipe:
    """175 G parameters: 96 layers of width 12 288."""
    return _gpt3("gpt3-175b", 96, 12288, 96, batch_size=1600, learning_rate=0.6e-4, ramp=_over(12e9))


def _over(tokens: float) -> BatchRamp:
    """Return the ramp from 32 k tokens in a batch, over so many."""
    return BatchRamp(initial_size=16, num_examples=round(tokens / LENGTH))


def _gpt3(
    name: str,
    num_layers: int,
    hidden_size: int,
    num_heads: int,
    *,
    batch_size: int,
    learning_rate: float,
    ramp: BatchRamp = _over(4e9),
    length: int = LENGTH,
    window: int = 256,
    tokens: float = TOKENS,
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
            biases="output",
            windows=(None, window),
            positions=LearnedPositions(length),
            final_norm=True,
            norm_eps=1e-5,
            dropout=0.0,
            attention_dropout=0.0,
            init=NormalInit(std=0.02, position_std=0.01, scale_residual=True),
        ),
        objectives=(CausalLM(),),
        train=Train(
            batch_size=batch_size,
            ramp=ramp,
            steps=round(BatchSizes(batch_size, ramp).steps_reading(tokens / length)),
            optimizer=AdamW(learning_rate=learning_rate, beta2=0.95, eps=1e-8, weight_decay=0.1, clip_norm=1.0),
            schedule=TokenCosine(warmup=375e6 / TOKENS, decay=260e9 / TOKENS, final_share=0.1),
        ),
    )
