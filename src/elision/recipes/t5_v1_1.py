"""T5 v1.1: the second release of Raffel et al. 2020's models, with what Shazeer 2020 ("GLU Variants Improve Transformer")
found better.

T5's noise, layers and training, but: the feed-forward layer is gated by a GELU (tanh approximation), the output layer is a
table of its own over states as they are, nothing is dropped out, and `xl` and `xxl` are wider rather than having more and
larger heads. No paper describes this release; the released settings do.

The same departures as in T5. The output table starts with a spread of hidden_size^-1/2, like every layer that reads
states.
"""

import dataclasses

from elision.model.encoder_decoder import EncoderDecoder
from elision.objectives import SequenceLM
from elision.recipe import Recipe
from elision.recipes import t5


def tiny() -> Recipe:
    """Ours, for small machines: 2 + 2 layers of width 128, 128 tokens to read."""
    return _t5_v1_1("t5-v1-1-tiny", num_layers=2, hidden_size=128, feedforward_size=320, num_heads=2, like=t5.tiny())


def small() -> Recipe:
    """77 M parameters: 8 + 8 layers of width 512."""
    return _t5_v1_1("t5-v1-1-small", num_layers=8, hidden_size=512, feedforward_size=1024, num_heads=6)


def base() -> Recipe:
    """248 M parameters: 12 + 12 layers of width 768."""
    return _t5_v1_1("t5-v1-1-base", num_layers=12, hidden_size=768, feedforward_size=2048, num_heads=12)


def large() -> Recipe:
    """783 M parameters: 24 + 24 layers of width 1024."""
    return _t5_v1_1("t5-v1-1-large", num_layers=24, hidden_size=1024, feedforward_size=2816, num_heads=16)


def xl() -> Recipe:
    """2.85 G parameters: 24 + 24 layers of width 2048."""
    return _t5_v1_1("t5-v1-1-xl", num_layers=24, hidden_size=2048, feedforward_size=5120, num_heads=32)


def xxl() -> Recipe:
    """11.1 G parameters: 24 + 24 layers of width 4096."""
    return _t5_v1_1("t5-v1-1-xxl", num_layers=24, hidden_size=4096, feedforward_size=10240, num_heads=64)


def _t5_v1_1(
    name: str,
    num_layers: int,
    hidden_size: int,
    feedforward_size: int,
    num_heads: int,
    like: Recipe = t5.base(),
) -> Recipe:
    backbone = like.backbone
    assert isinstance(backbone, EncoderDecoder)
    encoder, decoder = (
        dataclasses.replace(
            side,
            num_layers=num_layers,
            hidden_size=hidden_size,
            feedforward_size=feedforward_size,
            num_heads=num_heads,
            activation="gelu_tanh",
            gated=True,
            dropout=0.0,
            attention_dropout=0.0,
            activation_dropout=0.0,
        )
        for side in (backbone.encoder, backbone.decoder)
    )
    return dataclasses.replace(
        like,
        name=name,
        backbone=dataclasses.replace(backbone, encoder=encoder, decoder=decoder),
        objectives=(SequenceLM(tied=False, scale_hidden=False, z_loss=1e-4),),
    )
