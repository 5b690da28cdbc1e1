"""Which file of this room speaks for a model."""

from types import ModuleType

from elision.errors import InputError
from elision.export import (
    albert,
    bart,
    bert,
    blenderbot,
    ctrl,
    deberta,
    deberta_v2,
    distilbert,
    electra,
    gpt2,
    gpt_neo,
    gpt_neox,
    llama,
    marian,
    mbart,
    mistral,
    mt5,
    openai_gpt,
    roberta,
    t5,
    xlm,
    xlm_roberta,
    xlnet,
)
from elision.export.config import Config
from elision.model.elmo import Elmo
from elision.model.transformer_xl import TransformerXL
from elision.objectives.adaptive_lm import AdaptiveLM
from elision.recipe import Recipe

# The particular before the general: `fits` of the last ones takes what no other wants.
FAMILIES = (
    mt5,
    t5,
    xlnet,
    xlm,
    deberta,
    deberta_v2,
    openai_gpt,
    gpt_neo,
    ctrl,
    llama,
    mistral,
    gpt_neox,
    gpt2,
    mbart,
    blenderbot,
    marian,
    bart,
    xlm_roberta,
    roberta,
    distilbert,
    electra,
    albert,
    bert,
)


def of_config(config: Config) -> ModuleType:
    """Return the family that a config.json names. Raises: InputError when it is none of ours."""
    given = config.values.get("model_type")
    for family in FAMILIES:
        if given == family.MODEL_TYPE:
            return family
    known = ", ".join(family.MODEL_TYPE for family in FAMILIES)
    raise InputError(f"{config.path}: model_type is {given!r}; the families that can be read are: {known}")


def of_recipe(recipe: Recipe, heads: tuple[str, ...]) -> ModuleType:
    """Return the family that a model with these heads is exported as: the first that it fits.

    Raises: InputError when a setting has no counterpart there.
    """
    if isinstance(recipe.backbone, Elmo):
        raise InputError("Hugging Face has no class for ELMo: `elision export` writes its own files instead")
    if isinstance(recipe.backbone, TransformerXL):
        raise InputError(
            "Hugging Face has no class for Transformer-XL (transformers removed its own): use the run's folder as it is, "
            "elision.load reads it"
        )
    if any(isinstance(objective, AdaptiveLM) for objective in recipe.objectives):
        raise InputError("Hugging Face has no class with an adaptive softmax: pretrain with CausalLM to export")
    family = next((family for family in FAMILIES if family.fits(recipe, heads)), None)
    if family is None:
        raise InputError(
            f"Hugging Face has no class for a model like {recipe.name} ({type(recipe.backbone).__name__}, visibility "
            f"{recipe.backbone.visibility!r}, with its positions and its output layer): use the run's folder as it is, "
            f"elision.load reads it"
        )
    family.check(recipe.backbone)
    return family
