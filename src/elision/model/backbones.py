"""The closed union of backbones that a recipe accepts. A mechanism with a file of its own joins it here."""

from elision.model.deberta import Deberta
from elision.model.elmo import Elmo
from elision.model.encoder_decoder import EncoderDecoder
from elision.model.transformer import Transformer
from elision.model.transformer_xl import TransformerXL
from elision.model.xlnet import XLNet

Backbone = Transformer | EncoderDecoder | Deberta | Elmo | XLNet | TransformerXL
