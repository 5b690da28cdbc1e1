"""T5's prefix language model: the single stack that Raffel et al. 2020 compare with T5's two (section 3.2.1).

One decoder reads inputs and answer as one text; every token sees all of the inputs, and of the answer only what precedes
it. Half of T5's parameters, and about as much work. The paper finds it a little worse than an encoder and a decoder, and
far better than a decoder that sees no input ahead.

Layers, noise, loss and training are T5's. As in seqio, the prefix is one place longer than the inputs: the symbol that
begins the text and all of the inputs; targets are the answer alone. `base` leaves out spans (the paper's "denoising"),
`base_lm` a random ending ("prefix language modelling"), which is written from what precedes it.
"""

import dataclasses

from elision.data.noise import TextToText
from elision.data.noise.text_to_text import Ending
from elision.model.encoder_decoder import EncoderDecoder
from elision.recipe import Recipe
from elision.recipes import t5


def tiny() -> Recipe:
    """Ours, for small machines: 2 layers of width 128."""
    return _prefix_lm("t5-prefix-lm-tiny", t5.tiny())


def tiny_lm() -> Recipe:
    """`tiny` that writes the second part of a text from the first."""
    return _of_endings("t5-prefix-lm-tiny-lm", tiny())


def base() -> Recipe:
    """The paper's: 12 layers of width 768, 110 M parameters; spans of 15 % are left out."""
    return _prefix_lm("t5-prefix-lm-base", t5.base())


def base_lm() -> Recipe:
    """The paper's: `base` that writes the second part of a text from the first."""
    return _of_endings("t5-prefix-lm-base-lm", base())


def _prefix_lm(name: str, like: Recipe) -> Recipe:
    assert isinstance(like.backbone, EncoderDecoder)
    backbone = dataclasses.replace(like.backbone.decoder, visibility="prefix", frame="causal")
    # The study's models read 2^16 tokens a step, 2^19 times; only the released ones more.
    train = dataclasses.replace(
        like.train, batch_size=min(like.train.batch_size, 128), steps=min(like.train.steps, 1 << 19)
    )
    return dataclasses.replace(like, name=name, backbone=backbone, train=train)


def _of_endings(name: str, like: Recipe) -> Recipe:
    # As many tokens in all as T5 reads.
    segmenter = dataclasses.replace(like.segmenter, max_length=like.noise.lengths(like.segmenter.max_length)[0])
    noise = TextToText(Ending(), read="dropped", write="left out")
    return dataclasses.replace(like, name=name, segmenter=segmenter, noise=noise)
