"""ELMo: Peters, Neumann, Iyyer, Gardner, Clark, Lee & Zettlemoyer 2018, "Deep Contextualized Word Representations".

Read a text letter by letter, predict each word from all before it, and, with LSTMs of their own, from all after it. What
is passed on is no word vector but all layers of the whole sentence, mixed by weights that each task learns.

Sizes are those of AllenNLP's published models; the paper describes the largest. What the paper leaves out follows the
released code (bilm): clipping of memory and projected state at 3, highway gates that start nearly closed, 8192
log-uniform negatives, Adagrad from an accumulator of 1, a gradient of the loss times the unroll of 20, states carried
from batch to batch, and forward and backward text that come from streams shuffled apart. A step's batch of 384 is the
released code's 128 on each of three GPUs; a million steps are its ten epochs over the 1 Billion Word Benchmark.

Different here: whole documents are shuffled, not sentences, so that states are carried over what belongs together; and
the lexicon, words with an id, may be larger than the 793,471 words that can be predicted.
"""

from elision.data.noise import Neighbours
from elision.data.segment import TokenStreams
from elision.model.elmo import Elmo
from elision.objectives import BidirectionalLM
from elision.recipe import Recipe
from elision.text.tokenizer import Words
from elision.train.optim import Adagrad
from elision.train.schedule import Constant
from elision.train.settings import Train


def tiny() -> Recipe:
    """Ours, for small machines: cells of 512 projected to 64, 240 filters, 30,000 words."""
    return _elmo(
        "elmo-tiny",
        Elmo(
            hidden_size=128,
            cell_size=512,
            filters=((1, 16), (2, 16), (3, 48), (4, 80), (5, 80)),
            num_highways=1,
        ),
        num_words=100_000,
        num_targets=30_000,
        num_samples=1024,
        batch_size=32,
        steps=20_000,
    )


def small() -> Recipe:
    """13.6 M parameters before the softmax: cells of 1024 projected to 128, one highway layer."""
    return _elmo("elmo-small", Elmo(hidden_size=256, cell_size=1024, num_highways=1))


def medium() -> Recipe:
    """28.0 M parameters before the softmax: cells of 2048 projected to 256, one highway layer."""
    return _elmo("elmo-medium", Elmo(hidden_size=512, cell_size=2048, num_highways=1))


def original() -> Recipe:
    """93.6 M parameters before the softmax: cells of 4096 projected to 512, two highway layers."""
    return _elmo("elmo-original", Elmo())


def _elmo(
    name: str,
    backbone: Elmo,
    num_words: int = 2_400_000,
    num_targets: int = 793_471,
    num_samples: int = 8192,
    batch_size: int = 384,
    steps: int = 1_000_000,
) -> Recipe:
    return Recipe(
        name=name,
        tokenizer=Words(vocab_size=num_words),
        segmenter=TokenStreams(max_length=40),
        noise=Neighbours(),
        backbone=backbone,
        objectives=(BidirectionalLM(num_targets=num_targets, num_samples=num_samples, gradient_scale=20.0),),
        train=Train(
            batch_size=batch_size,
            steps=steps,
            optimizer=Adagrad(learning_rate=0.2, initial_accumulator=1.0, clip_norm=10.0),
            schedule=Constant(),
            packing=False,
        ),
    )
