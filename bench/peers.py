"""The same system in `transformers`, trained as one would there: the other side of a comparison.

`build(recipe)` returns a module with random weights and a function that lays a padded batch out for it; the module's output
has a `loss`. The configuration is the one that our export writes, so both sides have the same shape. Where no class computes
the loss of a system, a small module puts theirs together as the usual script would: all logits at all places, boolean
masks, samples with `torch.distributions`.
"""

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elision.data.batch import Batch
from elision.data.example import NO_TARGET
from elision.data.noise import NextToken
from elision.export import families
from elision.model.encoder_decoder import EncoderDecoder
from elision.model.visibility import permuted
from elision.objectives import MaskedLM
from elision.recipe import Recipe
from elision.text.vocabulary import ROLES, Vocabulary

Arrays = dict[str, Tensor]


@dataclasses.dataclass(frozen=True)
class Peer:
    """A module of theirs, and how a padded batch of ours becomes its arguments."""

    module: nn.Module
    arguments: Callable[[Batch], Arrays]


def build(recipe: Recipe) -> Peer:
    """Return the counterpart of a recipe. Raises: InputError when its backbone has none."""
    names = {objective.name for objective in recipe.objectives}
    kinds = {type(objective).__name__ for objective in recipe.objectives}
    if "rtd" in names:
        return Peer(ReplacedTokens(recipe), plain_arguments)
    if "plm" in names:
        return Peer(hugging_face(recipe), permuted_arguments)
    if "Distillation" in kinds:
        return Peer(Distilled(recipe), plain_arguments)
    if isinstance(recipe.backbone, EncoderDecoder):
        return Peer(hugging_face(recipe), written_arguments)
    if isinstance(recipe.noise, NextToken):
        return Peer(hugging_face(recipe), causal_arguments)
    if "sbo" in names:
        # No class has the span boundary objective: the other side does less.
        recipe = dataclasses.replace(recipe, objectives=(MaskedLM(),))
    return Peer(hugging_face(recipe), plain_arguments)


def hugging_face(recipe: Recipe, heads: tuple[str, ...] | None = None) -> nn.Module:
    """Return the class that a recipe exports as, with random weights, the same dropout, and its fastest attention."""
    import transformers

    transformers.logging.set_verbosity_error()
    if heads is None:
        heads = tuple(objective.name for objective in recipe.objectives)
    family = families.of_recipe(recipe, heads)
    ids = {role: number for number, role in enumerate(ROLES)}
    # Where positions have an offset, theirs is read off the id of the padding.
    ids["pad"] = max(0, getattr(getattr(recipe.backbone, "positions", None), "offset", 0) - 1)
    ids["eos"] = ids["bos"] = 1
    size = recipe.tokenizer.vocab_size
    nothing = np.zeros(size, bool)
    values = family.write_config(recipe.backbone, heads, size, Vocabulary(size, nothing, nothing, **ids))
    values |= {"use_cache": False, "bos_token_id": None, "eos_token_id": None}
    kind = getattr(transformers, values["architectures"][0])
    # Some families have no fused attention there.
    attention = "sdpa" if kind._supports_sdpa else "eager"
    config = transformers.CONFIG_MAPPING[values["model_type"]](**values)
    return kind._from_config(config, attn_implementation=attention)


def plain_arguments(batch: Batch) -> Arrays:
    """Return what their collators make: ids, mask, labels, and what else the batch has."""
    arguments = {
        "input_ids": batch.inputs,
        "attention_mask": (batch.doc_ids > 0).long(),
        "labels": batch.targets,
    }
    if batch.type_ids is not None:
        arguments["token_type_ids"] = batch.type_ids
    if batch.labels is not None:
        arguments["next_sentence_label"] = arguments["sentence_order_label"] = batch.labels
    if batch.languages is not None:
        arguments["langs"] = batch.languages
    return arguments


def written_arguments(batch: Batch) -> Arrays:
    """Return both sides with their masks, and what is to be written as labels."""
    return {
        "input_ids": batch.inputs,
        "attention_mask": (batch.doc_ids > 0).long(),
        "decoder_input_ids": batch.decoder_inputs,
        "decoder_attention_mask": (batch.decoder_doc_ids > 0).long(),
        "labels": batch.targets,
    }


def causal_arguments(batch: Batch) -> Arrays:
    """Return ids, mask and labels; their loss shifts the labels by itself."""
    arguments = plain_arguments(batch)
    seen = arguments["attention_mask"] > 0
    return {**arguments, "labels": torch.where(seen, batch.inputs, torch.tensor(NO_TARGET))}


def permuted_arguments(batch: Batch) -> Arrays:
    """Return the masks of a permutation and a one-hot place for every target, as XLNetLMHeadModel wants them."""
    rows, length = batch.inputs.shape
    asked_BT = batch.targets != NO_TARGET
    most = int(asked_BT.sum(1).max())
    mapping_BGT, labels_BG = torch.zeros(rows, most, length), torch.full((rows, most), NO_TARGET)
    for row in range(rows):
        places = asked_BT[row].nonzero()[:, 0]
        mapping_BGT[row, torch.arange(len(places)), places] = 1.0
        labels_BG[row, : len(places)] = batch.targets[row, places]
    hidden_BTT = ~permuted(batch, itself=False).mask[:, 0]
    arguments = plain_arguments(batch)
    return {**arguments, "perm_mask": hidden_BTT.float(), "target_mapping": mapping_BGT, "labels": labels_BG}


class ReplacedTokens(nn.Module):
    """ELECTRA, and DeBERTa-v3 with it: their generator and discriminator with one token table, as the usual script."""

    def __init__(self, recipe: Recipe):
        super().__init__()
        (objective,) = (each for each in recipe.objectives if each.name == "rtd")
        smaller = dataclasses.replace(
            recipe, backbone=objective.generator.settings(recipe.backbone), objectives=(MaskedLM(),)
        )
        self.weight = objective.weight
        self.generator = hugging_face(smaller, ("mlm",))
        family = families.of_recipe(recipe, ("rtd",))
        self.is_whole = ("rtd",) in family.ARCHITECTURES
        self.discriminator = hugging_face(recipe, ("rtd",) if self.is_whole else ())
        width = recipe.backbone.hidden_size
        self.head = None if self.is_whole else nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1))
        self.generator.set_input_embeddings(self.discriminator.get_input_embeddings())
        self.generator.tie_weights()

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, **others: Tensor) -> SimpleNamespace:
        """Return the joint loss."""
        restored = self.generator(input_ids=input_ids, attention_mask=attention_mask, labels=labels, **others)
        masked = labels != NO_TARGET
        with torch.no_grad():
            sampled = torch.distributions.Categorical(logits=restored.logits[masked]).sample()
        filled = input_ids.clone()
        filled[masked] = sampled
        replaced = (masked & (filled != labels)).long()
        if self.is_whole:
            found = self.discriminator(input_ids=filled, attention_mask=attention_mask, labels=replaced, **others).loss
        else:
            hidden = self.discriminator(input_ids=filled, attention_mask=attention_mask).last_hidden_state
            seen = attention_mask.bool()
            found = F.binary_cross_entropy_with_logits(self.head(hidden)[..., 0][seen], replaced[seen].float())
        return SimpleNamespace(loss=restored.loss + self.weight * found)


class Distilled(nn.Module):
    """DistilBERT beside a BERT of twice its depth: soft targets, masked tokens and the cosine of the states."""

    def __init__(self, recipe: Recipe):
        super().__init__()
        (self.objective,) = recipe.objectives
        teacher = dataclasses.replace(
            recipe,
            backbone=dataclasses.replace(recipe.backbone, num_layers=2 * recipe.backbone.num_layers),
            objectives=(MaskedLM(),),
        )
        self.student = hugging_face(recipe, ("mlm",))
        # In a tuple: neither trained nor counted.
        self.teacher = (hugging_face(teacher, ("mlm",)).eval(),)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, **others: Tensor) -> SimpleNamespace:
        """Return the sum of the three losses."""
        learned = self.student(
            input_ids=input_ids, attention_mask=attention_mask, labels=labels, output_hidden_states=True
        )
        with torch.no_grad():
            taught = self.teacher[0](input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True)
        seen, heat = attention_mask.bool(), self.objective.temperature
        soft = heat**2 * F.kl_div(
            F.log_softmax(learned.logits[seen] / heat, -1),
            F.softmax(taught.logits[seen] / heat, -1),
            reduction="batchmean",
        )
        mine, other = learned.hidden_states[-1][seen], taught.hidden_states[-1][seen]
        cosine = F.cosine_embedding_loss(mine, other, mine.new_ones(len(mine)))
        weights = self.objective
        return SimpleNamespace(
            loss=weights.weight * learned.loss + weights.soft_weight * soft + weights.cosine_weight * cosine
        )
