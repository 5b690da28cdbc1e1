"""Mixing languages: frequencies, epochs within a language, and views of some documents of a split."""

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest

from elision.data.loader import Loader
from elision.data.mixing import MIN_SLOTS, LanguageMix, MixedPlan
from elision.data.segment import Chunks
from elision.data.selection import Selection
from elision.data.shards import Documents, StoreWriter
from elision.data.store import Split, Store
from elision.errors import InputError
from tests import tiny

SIZES = {"de": 300, "en": 900, "ne": 30, None: 12}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Documents of one to three sentences in an order in which languages alternate, over several shards.

    The first token of a document's language is 10 (de), 11 (en), 12 (ne) or 13 (none); all its tokens are the same.
    """
    path = tmp_path_factory.mktemp("languages") / "store"
    tokenizer = tiny.tokenizer(tiny.WORDPIECE)
    tokenizer.save(path / "tokenizer")
    writer = StoreWriter(path, tokenizer, 0.0, 1 << 8)
    rng = np.random.default_rng(0)
    languages = [language for language, count in SIZES.items() for _ in range(count)]
    # Runs of neighbours and lone documents alike.
    order = np.argsort(rng.random(len(languages)) + np.arange(len(languages)) / 300)
    for number, at in enumerate(order):
        language, lengths = languages[at], rng.integers(1, 6, rng.integers(1, 4))
        ids = np.full(int(lengths.sum()), 10 + list(SIZES).index(language))
        writer.append(
            Documents(
                ids=ids,
                num_tokens=np.array([len(ids)]),
                sentence_lengths=lengths.astype(np.uint32),
                num_sentences=np.array([len(lengths)]),
                num_bytes=np.array([number + 1]),
                hashes=np.array([number], np.uint64),
                languages=[language],
                identifiers=[str(number)],
            )
        )
    return writer.finish({})


@pytest.fixture(scope="module")
def split(store: Store) -> Split:
    return store.split("train")


def plan_of(split: Split, alpha: float) -> MixedPlan:
    return LanguageMix(alpha).plan(Chunks(max_length=4), split, tiny.vocabulary(20), seed=3)


def test_a_selection_answers_as_a_split_of_its_documents_alone(split: Split) -> None:
    chosen = np.flatnonzero(split.language_codes == split.languages.index("de"))
    selection = Selection(split, chosen)
    assert selection.num_documents == SIZES["de"]
    whole = [split.document(int(index)) for index in chosen]
    sentences = [
        split.tokens(int(split.sentence_starts[s]), int(split.sentence_starts[s + 1]))
        for d in chosen
        for s in range(split.document_sentences[d], split.document_sentences[d + 1])
    ]
    assert selection.num_tokens == sum(map(len, whole)) and selection.num_sentences == len(sentences)
    for number, document in enumerate(whole):
        assert np.array_equal(selection.document(number), document)
        assert selection.language(number) == "de"
        assert selection.column("id", number) == split.column("id", int(chosen[number]))
    for number, sentence in enumerate(sentences):
        begin, end = selection.sentence_starts[number : number + 2]
        assert np.array_equal(selection.tokens(int(begin), int(end)), sentence)
    bounds = selection.document_sentences
    assert np.array_equal(selection.sentence_starts[bounds], selection.document_starts)
    assert selection.num_bytes == sum(split.column("num_bytes", int(index)) for index in chosen)
    stream = np.concatenate(whole)
    rng = np.random.default_rng(1)
    for start, stop in np.sort(rng.integers(0, len(stream) + 1, (50, 2))):
        assert np.array_equal(selection.tokens(int(start), int(stop)), stream[start:stop])
    again = pickle.loads(pickle.dumps(selection))
    assert np.array_equal(again.tokens(0, again.num_tokens), stream)


def test_an_example_holds_one_language(split: Split) -> None:
    plan = plan_of(split, 0.5)
    assert plan.languages == (None, "de", "en", "ne")
    for index in range(len(plan)):
        tokens = set(plan.example(index).inputs.tolist()) - {tiny.vocabulary(20).eos}
        assert tokens == {10 + list(SIZES).index(plan.languages[plan.part_of(index)])}


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.7, 1.0])
def test_languages_are_read_as_often_as_their_share_to_the_power_of_alpha(split: Split, alpha: float) -> None:
    plan = plan_of(split, alpha)
    sizes = np.array([len(part) for part in plan.parts])
    expected = (sizes / sizes.sum()) ** alpha
    expected /= expected.sum()
    np.testing.assert_allclose(plan.shares, expected)
    assert plan.num_slots >= MIN_SLOTS
    _, indices = plan.order(np.arange(plan.num_slots), 1)
    read = np.bincount(np.searchsorted(np.cumsum(sizes), indices, side="right"), minlength=len(sizes)) / len(indices)
    np.testing.assert_allclose(read, expected, atol=2e-5)
    # Within a short stretch as well, up to chance: 4 standard deviations.
    _, few = plan.order(np.arange(4000), 1)
    read = np.bincount(np.searchsorted(np.cumsum(sizes), few, side="right"), minlength=len(sizes)) / len(few)
    assert (abs(read - expected) < 4 * np.sqrt(expected * (1 - expected) / len(few))).all()


def test_with_alpha_one_every_example_is_read_equally_often(split: Split) -> None:
    plan = plan_of(split, 1.0)
    _, indices = plan.order(np.arange(plan.num_slots), 1)
    assert (np.bincount(indices) == plan.num_slots // len(plan)).all()


def test_each_language_goes_through_epochs_of_its_own(split: Split) -> None:
    plan = plan_of(split, 0.3)
    epochs, indices = plan.order(np.arange(3 * plan.num_slots), 1)
    assert len(np.unique(np.stack([epochs, indices]), axis=1).T) == len(epochs), "no example twice in an epoch"
    for part in range(len(plan.parts)):
        mine = np.array([plan.part_of(index) for index in range(len(plan))])[indices] == part
        size = len(plan.parts[part])
        counts = np.bincount(epochs[mine])
        assert (counts[:-1] == size).all() and counts[-1] <= size, "every epoch but the last one is whole"


def test_the_order_depends_on_place_and_seed_alone(split: Split) -> None:
    plan, other = plan_of(split, 0.3), plan_of(split, 0.3)
    places = np.random.default_rng(0).integers(0, 10 * MIN_SLOTS, 500)
    for one, again in zip(plan.order(places, 1), other.order(places, 1)):
        assert np.array_equal(one, again)
    alone = [plan.order(places[i : i + 1], 1)[1][0] for i in range(100)]
    assert alone == plan.order(places, 1)[1][:100].tolist()
    assert not np.array_equal(plan.order(places, 1)[1], plan.order(places, 2)[1])


def test_ranks_together_read_what_one_would(split: Split, store: Store) -> None:
    recipe = tiny.recipe("gpt2-tiny")
    loader = Loader(plan_of(split, 0.3), recipe.noise, tiny.vocabulary(20), 1, 12, 12, 4)
    _, whole = loader.examples_of(70000)
    shares = [dataclasses.replace(loader, rank=rank, num_ranks=3).examples_of(70000)[1] for rank in range(3)]
    assert np.array_equal(np.stack(shares, 1).ravel(), whole)


@pytest.mark.parametrize("alpha", [-0.1, 1.5, float("nan")])
def test_an_alpha_outside_0_to_1_is_refused(alpha: float) -> None:
    with pytest.raises(InputError, match=r"mixing\.alpha is .* from 0 .* to 1"):
        LanguageMix(alpha)


def test_a_store_without_languages_is_refused_saying_what_to_do(tmp_path: Path) -> None:
    store = tiny.id_store(tmp_path / "store", tiny.tokenizer(tiny.WORDPIECE), [[[10, 11]]])
    with pytest.raises(InputError, match=r"declares its language: prepare it with .* `--reading\.language-field"):
        LanguageMix().plan(Chunks(max_length=2), store.split("train"), tiny.vocabulary(20), seed=1)
