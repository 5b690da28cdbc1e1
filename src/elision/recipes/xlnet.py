"""XLNet: Yang, Dai, Yang, Carbonell, Salakhutdinov & Le 2019, "XLNet: Generalized Autoregressive Pretraining for Language
Understanding".

Mask nothing: draw an order, and restore a sixth of the tokens one by one, each from what comes before it in that order,
on whichever side that lies; remember the text that came before.

Where the paper and the released code differ, this follows the code: spans of targets have so many tokens, not words
(`noise.whole_words`); the label that says whether B follows A is not asked for (`segmenter.labels` with NextSentence);
the biases u, v and b are decayed like weights. GELU is the tanh approximation, as in that code.

The data are those of the paper's section 3.1: rows of one stream, 256 tokens that go into the memory and two segments of
the other 256; the next row begins 256 tokens on. A batch is as many streams as it has rows, in their order, and nothing is
packed. Without memory any segmenter will do: `segmenter.type Chunks`, `backbone.memory_length 0`.

Departures: half of the paper's rows are read backwards (`bi_data` of the code), here all are read forwards; documents are
parted by </s>, the code's <eod>; the memory is empty at the start of a run, where the code has zeros that can be seen.
Batch, rate and warm-up are the paper's. Fine-tuning SQuAD, the authors let the rate fall by 0.75 from layer to layer
(`elision finetune --layer-decay 0.75`).
"""

from elision.data.noise import PermutationMask
from elision.data.segment import MemoryStreams
from elision.model.init import NormalInit
from elision.model.xlnet import XLNet
from elision.objectives import PermutationLM
from elision.recipe import Recipe
from elision.text.tokenizer import Unigram
from elision.train.optim import AdamW
from elision.train.schedule import Linear
from elision.train.settings import Train


def tiny() -> Recipe:
    """Ours, for small machines: 2 layers of width 128, rows of 256 tokens."""
    return _xlnet(
        "xlnet-tiny", num_layers=2, hidden_size=128, num_heads=2, length=256, batch_size=32, learning_rate=1e-3
    )


def base() -> Recipe:
    """12 layers of width 768: 117 M parameters."""
    return _xlnet("xlnet-base", num_layers=12, hidden_size=768, num_heads=12)


def large() -> Recipe:
    """24 layers of width 1024: 360 M parameters."""
    return _xlnet("xlnet-large", num_layers=24, hidden_size=1024, num_heads=16)


def _xlnet(
    name: str,
    num_layers: int,
    hidden_size: int,
    num_heads: int,
    length: int = 512,
    batch_size: int = 8192,
    learning_rate: float = 4e-4,
) -> Recipe:
    return Recipe(
        name=name,
        tokenizer=Unigram(vocab_size=32000, layout="xlnet"),
        segmenter=MemoryStreams(max_length=length, reuse_length=length // 2),
        noise=PermutationMask(rate=85 / 512, max_span=5, context=6, permute_length=length // 2),
        backbone=XLNet(
            num_layers=num_layers,
            hidden_size=hidden_size,
            num_heads=num_heads,
            feedforward_size=4 * hidden_size,
            memory_length=length * 3 // 4,
            reuse_length=length // 2,
            activation="gelu_tanh",
            norm_eps=1e-12,
            dropout=0.1,
            attention_dropout=0.1,
            init=NormalInit(std=0.02),
        ),
        objectives=(PermutationLM(),),
        train=Train(
            batch_size=batch_size,
            steps=500_000,
            optimizer=AdamW(
                learning_rate=learning_rate, eps=1e-6, weight_decay=0.01, bias_correction=False, clip_norm=1.0
            ),
            schedule=Linear(warmup=0.08, kink=False, final_share=0.001),
        ),
    )
