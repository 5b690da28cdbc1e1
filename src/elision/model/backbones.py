"""The closed union of backbones that a recipe accepts. A mechanism with a file of its own joins it here."""

from elision.model.elmo import Elmo
from elision.model.transformer import Transformer

Backbone = Transformer | Elmo
