import functools

import pytest

from elision import recipes
from elision.data.segment import SourceTarget
from elision.errors import InputError
from elision.show.explain import Fate
from elision.show.source import explain_texts, small_tokenizer

TEXT = "The cat sat on the mat. It was a cold morning, and nobody had lit the fire yet. Then the door opened."


OTHER = "Die Katze saß auf der Matte. Es war ein kalter Morgen."


@functools.cache
def tokenizer_of(spec):
    return small_tokenizer(spec, [TEXT])


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_can_be_shown(name):
    recipe = recipes.get(name)
    texts = [TEXT, OTHER] if isinstance(recipe.segmenter, SourceTarget) else [TEXT]
    shown = explain_texts(recipe, texts, tokenizer_of(recipe.tokenizer))
    assert shown.recipe == name and shown.idea
    assert shown.num_targets > 0
    assert shown.visible.shape == (len(shown.tokens), len(shown.tokens)) and len(shown.visible)
    # Every place sees itself, but for one that is asked what stands there.
    queries = [recipe.noise.restores == "permuted" and token.target is not None for token in shown.tokens]
    assert (shown.visible.diagonal() != queries).all()
    assert {part.role for part in shown.parts} >= {"tokenizer", "segmenter", "noise", "backbone", "objectives"}
    assert all(part.summary for part in shown.parts)


@pytest.mark.parametrize("name", ["bert-tiny", "gpt2-tiny"])
@pytest.mark.parametrize("text", ["Hello", "Hello there, world."])
def test_a_text_of_one_sentence_or_word_is_enough(name, text):
    recipe = recipes.get(name)
    shown = explain_texts(recipe, [text], tokenizer_of(recipe.tokenizer))
    assert shown.num_targets > 0


@pytest.mark.parametrize("texts", [[], [""], [" \n\t"], ["", "  "]])
@pytest.mark.parametrize("given", [True, False])
def test_an_empty_text_is_refused(texts, given):
    recipe = recipes.get("bert-tiny")
    with pytest.raises(InputError, match="text is empty"):
        explain_texts(recipe, texts, tokenizer_of(recipe.tokenizer) if given else None)


def test_an_index_beyond_the_examples_is_refused_with_their_number():
    recipe = recipes.get("gpt2-tiny")
    with pytest.raises(InputError, match="--index is 5: this text makes 1 examples"):
        explain_texts(recipe, [TEXT], tokenizer_of(recipe.tokenizer), index=5)


def test_the_same_seed_shows_the_same_and_another_seed_another():
    recipe = recipes.get("bert-tiny")
    tokenizer = tokenizer_of(recipe.tokenizer)
    one, same, other = (explain_texts(recipe, [TEXT], tokenizer, seed=seed, index=0) for seed in (1, 1, 2))
    assert one.tokens == same.tokens
    assert one.tokens != other.tokens


def test_each_text_is_a_document_of_its_own():
    recipe = recipes.get("gpt2-tiny")
    shown = explain_texts(recipe, ["The cat.", "The cat."], tokenizer_of(recipe.tokenizer))
    pieces = [token.piece for token in shown.tokens]
    assert pieces.count("<|endoftext|>") == 2
    assert [token.special for token in shown.tokens] == [piece == "<|endoftext|>" for piece in pieces]


def test_the_spot_tokenizer_knows_every_character_of_a_text_in_another_script_and_is_mentioned():
    shown = explain_texts(recipes.get("bert-tiny"), ["고양이가 매트 위에 앉았다. 아침은 추웠다."])
    assert not any("[UNK]" in token.original for token in shown.tokens)
    assert any("trained just now" in note for note in shown.notes)


def test_several_examples_share_a_row_and_count_together():
    recipe = recipes.get("bert-tiny")
    shown = explain_texts(recipe, [TEXT], tokenizer_of(recipe.tokenizer), index=0, num_examples=3)
    assert shown.num_examples == 3 and len(shown.labels) == 3
    changed = shown.count(Fate.MASKED) + shown.count(Fate.REPLACED) + shown.count(Fate.KEPT)
    assert changed == shown.num_targets


def test_making_the_small_store_prints_nothing(capfd):
    recipe = recipes.get("bert-tiny")
    explain_texts(recipe, [TEXT], tokenizer_of(recipe.tokenizer))
    assert capfd.readouterr() == ("", "")
