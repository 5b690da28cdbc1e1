"""Any part goes with any other that fits it: every masking noise, detection and pair label over every encoder."""

import dataclasses
import typing
from collections.abc import Callable

import pytest
import torch

from elision import recipes
from elision.data.mixing import LanguageMix
from elision.data.noise import DynamicMask, NextToken, Noise, PermutationMask, SpanMask, TokenMask
from elision.data.segment import Chunks, FullSentences, SentencePairs, SwappedPairs, TranslationPairs
from elision.data.store import Store
from elision.errors import InputError
from elision.objectives import (
    CausalLM,
    MaskedLM,
    NextSentence,
    PermutationLM,
    ReplacedTokens,
    SentenceOrder,
    SpanBoundary,
)
from elision.objectives.generator import Generator
from elision.recipe import Recipe
from tests import tiny

# One for each shape that an encoder's backbone has; ELMo's parts go together only.
ENCODERS = (
    "bert-tiny", "roberta-tiny", "albert-tiny", "electra-small", "deberta-tiny", "deberta-v2-tiny", "deberta-v3-tiny",
    "xlnet-tiny",
)  # fmt: skip
MASKS = tuple(noise for noise in typing.get_args(Noise) if noise.restores == "masked")
BERT = tiny.recipe("bert-tiny", dropout=0.0, attention_dropout=0.0)


def over(encoder: str, **parts: object) -> Recipe:
    """Return BERT's recipe over another encoder, with other parts; every encoder can tell two segments apart."""
    backbone = tiny.without_memory(tiny.recipe(encoder, dropout=0.0, attention_dropout=0.0)).backbone
    backbone = dataclasses.replace(backbone, num_types=max(2, backbone.num_types))
    return dataclasses.replace(BERT, backbone=backbone, **parts)


def trains(recipe: Recipe, store: Store) -> dict[str, float]:
    """Run one step; returns the terms. Every parameter of the backbone that is trained must be reached."""
    torch.manual_seed(0)
    model = tiny.model(recipe, store)
    (batch,) = tiny.loader(recipe, store).microbatches(0)
    terms, _ = model(batch)
    counts = model.counts(batch)
    sum(term.sum / max(1, term.count) for term in terms.values()).backward()
    assert {name: term.count for name, term in terms.items()} == {name: counts[name] for name in terms}
    assert all(torch.isfinite(term.sum) for term in terms.values())
    assert sum(parameter.grad is not None for parameter in model.backbone.parameters()) > 4
    return {name: float(term.sum.detach()) / max(1, term.count) for name, term in terms.items()}


@pytest.mark.parametrize("noise", MASKS, ids=lambda noise: noise.__name__)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_masking_noise_goes_under_masked_language_modelling_on_every_encoder(
    encoder: str, noise: type, wordpiece_store: Store
) -> None:
    recipe = over(encoder, noise=noise(), segmenter=FullSentences(max_length=24), objectives=(MaskedLM(),))
    assert 2 < trains(recipe, wordpiece_store)["mlm"] < 20


@pytest.mark.parametrize("encoder", ENCODERS)
def test_replaced_tokens_are_detected_on_every_encoder(encoder: str, wordpiece_store: Store) -> None:
    recipe = over(encoder, objectives=(ReplacedTokens(generator=Generator(width=1.0)),), segmenter=FullSentences(24))
    terms = trains(recipe, wordpiece_store)
    assert terms.keys() == {"generator", "rtd"} and 0.3 < terms["rtd"] < 2


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize(
    ("segmenter", "objective"), [(SentencePairs(24), NextSentence()), (SwappedPairs(24), SentenceOrder())]
)
@pytest.mark.parametrize("main", [MaskedLM(), ReplacedTokens(generator=Generator(width=1.0))], ids=["mlm", "rtd"])
def test_sentence_labels_stand_beside_any_of_them(
    encoder: str, segmenter: object, objective: object, main: object, wordpiece_store: Store
) -> None:
    terms = trains(over(encoder, segmenter=segmenter, objectives=(main, objective)), wordpiece_store)
    assert objective.name in terms and 0.2 < terms[objective.name] < 3


@pytest.mark.parametrize("encoder", ["bert-tiny", "roberta-tiny", "deberta-tiny"])
def test_boundaries_restore_spans_on_every_encoder(encoder: str, wordpiece_store: Store) -> None:
    recipe = over(encoder, noise=SpanMask(), segmenter=FullSentences(24), objectives=(MaskedLM(), SpanBoundary()))
    assert trains(recipe, wordpiece_store).keys() == {"mlm", "sbo"}


def test_translations_are_masked_over_roberta_which_has_no_language_embeddings(
    store_of: Callable[[Recipe], Store],
) -> None:
    roberta = tiny.recipe("roberta-tiny", dropout=0.0, attention_dropout=0.0)
    recipe = dataclasses.replace(roberta, segmenter=TranslationPairs(max_length=24))
    assert trains(recipe, store_of(recipe)).keys() == {"mlm"}


MADE_OF: dict[str, Callable[[], Recipe]] = {
    "MaskedLM restores masked tokens, but NextToken": lambda: dataclasses.replace(
        BERT, noise=NextToken(), segmenter=Chunks(24), objectives=(MaskedLM(),)
    ),
    "CausalLM needs backbone.visibility 'causal'": lambda: dataclasses.replace(
        BERT, noise=NextToken(), segmenter=Chunks(24), objectives=(CausalLM(),)
    ),
    "NextSentence asks whether B follows A, but the labels of SwappedPairs": lambda: dataclasses.replace(
        BERT, segmenter=SwappedPairs(24)
    ),
    "NextSentence needs 2 labels for each example, but FullSentences gives none": lambda: dataclasses.replace(
        BERT, segmenter=FullSentences(24)
    ),
    "MaskedLM cannot stand beside ReplacedTokens": lambda: dataclasses.replace(
        BERT, objectives=(ReplacedTokens(), MaskedLM())
    ),
    "PermutationLM restores permuted tokens, but TokenMask": lambda: over("xlnet-tiny", objectives=(PermutationLM(),)),
    "PermutationMask": lambda: dataclasses.replace(
        BERT, noise=PermutationMask(), segmenter=FullSentences(24), objectives=(PermutationLM(),)
    ),
    "SpanBoundary": lambda: dataclasses.replace(BERT, noise=TokenMask(), objectives=(MaskedLM(), SpanBoundary())),
    "num_types": lambda: dataclasses.replace(recipes.get("roberta-tiny"), segmenter=SentencePairs(128)),
    "num_languages": lambda: dataclasses.replace(recipes.get("xlm-tiny-mlm"), mixing=None),
    "alpha": lambda: dataclasses.replace(BERT, mixing=LanguageMix(alpha=2.0)),
    "Elmo": lambda: dataclasses.replace(recipes.get("elmo-tiny"), noise=DynamicMask(), objectives=(MaskedLM(),)),
}


@pytest.mark.parametrize("reason", MADE_OF)
def test_what_cannot_combine_is_refused_with_the_reason(reason: str) -> None:
    with pytest.raises(InputError) as refusal:
        MADE_OF[reason]()
    assert reason in str(refusal.value)
