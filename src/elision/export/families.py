"""Which file of this room speaks for a model."""

from types import ModuleType

from elision.errors import InputError
from elision.export import bert, gpt2
from elision.export.config import Config
from elision.model.transformer import Backbone

FAMILIES = (bert, gpt2)


def of_config(config: Config) -> ModuleType:
    """Return the family that a config.json names. Raises: InputError when it is none of ours."""
    given = config.values.get("model_type")
    for family in FAMILIES:
        if given == family.MODEL_TYPE:
            return family
    known = ", ".join(family.MODEL_TYPE for family in FAMILIES)
    raise InputError(f"{config.path}: model_type is {given!r}; the families that can be read are: {known}")


def of_backbone(backbone: Backbone) -> ModuleType:
    """Return the family that a model is exported as. Raises: InputError when a setting has no counterpart there."""
    family = gpt2 if backbone.visibility == "causal" else bert
    family.check(backbone)
    return family
