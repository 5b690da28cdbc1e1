"""ALBERT's pairs: the stretches of SentencePairs, half of them swapped."""

import numpy as np
import pytest

from elision.data.segment.pairs import SentencePairs
from elision.data.segment.swapped import SwappedPairs
from elision.errors import InputError
from tests.unit.data.test_sentence_pairs import LENGTH, Text, counting_text


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Text:
    return counting_text(tmp_path_factory.mktemp("order") / "store", num_documents=60, max_sentences=14, max_tokens=15)


def examples(text: Text, settings: SwappedPairs | SentencePairs, seed: int = 1) -> list:
    plan = settings.plan(text.split, text.vocabulary, seed)
    return [plan.example(index) for index in range(len(plan))]


def halves(example) -> tuple[list[int], list[int]]:
    """Return the tokens of A and of B."""
    inputs, types = example.inputs[~example.special], example.type_ids[~example.special]
    return inputs[types == 0].tolist(), inputs[types == 1].tolist()


def settings(**changed: object) -> SwappedPairs:
    return SwappedPairs(**{"max_length": LENGTH, "passes": 20, **changed})


def test_swapping_keeps_the_tokens_and_changes_their_places(text: Text) -> None:
    """The pair that would have been made without swapping has the same tokens, A and B exchanged."""
    swapped = examples(text, settings(swap_probability=1.0, lone_sentences="drop"))
    straight = examples(text, settings(swap_probability=0.0, lone_sentences="drop"))
    assert len(swapped) == len(straight) > 500
    whole = 0
    for one, other in zip(swapped, straight, strict=True):
        assert (one.label, other.label) == (1, 0)
        (a, b), (first, second) = halves(one), halves(other)
        if len(a) + len(b) < LENGTH - 3:
            # Nothing had to be cut.
            assert (a, b) == (second, first)
            assert sorted(one.inputs.tolist()) == sorted(other.inputs.tolist())
            whole += 1
        assert min(a) > max(second[0], 0) or a[0] > b[-1]
    assert whole > 100


def test_both_halves_lie_side_by_side_in_one_document_in_either_order(text: Text) -> None:
    found = examples(text, settings(lone_sentences="drop"))
    for example in found:
        a, b = halves(example)
        assert len({*text.document_of[a], *text.document_of[b]}) == 1
        earlier, later = (b, a) if example.label else (a, b)
        assert earlier[-1] < later[0]
        # At most the fronts and backs that were cut lie between them.
        assert text.sentence_of[later[0]] - text.sentence_of[earlier[-1]] in (0, 1) or len(a) + len(b) == LENGTH - 3
    share = np.mean([example.label for example in found])
    assert share == pytest.approx(0.5, abs=3 * 0.5 / np.sqrt(len(found)))


def test_a_lone_sentence_is_paired_with_another_document_under_label_1_as_in_the_code(text: Text) -> None:
    kept, dropped = (examples(text, settings(lone_sentences=choice)) for choice in ("random", "drop"))
    foreign = [e for e in kept if text.document_of[halves(e)[0][0]] != text.document_of[halves(e)[1][0]]]
    assert len(kept) - len(foreign) == len(dropped)
    assert len(foreign) > 100 and all(example.label == 1 for example in foreign)
    for example in foreign:
        assert len(set(text.sentence_of[halves(example)[0]])) == 1


def test_stretches_are_those_of_sentence_pairs_without_random_ones(text: Text) -> None:
    ours = examples(text, settings(swap_probability=0.0, short_probability=0.3))
    theirs = examples(text, SentencePairs(max_length=LENGTH, short_probability=0.3, random_probability=0.0, passes=20))
    assert all((one.inputs == other.inputs).all() for one, other in zip(ours, theirs, strict=True))
    assert [one.label for one in ours] == [other.label for other in theirs]


def test_a_text_without_two_sentences_together_is_refused_when_lone_ones_are_dropped(tmp_path) -> None:
    lone = counting_text(tmp_path / "store", num_documents=20, max_sentences=1, max_tokens=9)
    assert len(examples(lone, settings())) == 20 * 20
    with pytest.raises(InputError, match="has no document from which two sentences fit"):
        examples(lone, settings(lone_sentences="drop"))


def test_settings_out_of_range_are_named() -> None:
    with pytest.raises(InputError, match=r"swap_probability is 1\.5"):
        SwappedPairs(swap_probability=1.5)
    with pytest.raises(InputError, match="max_length is 4"):
        SwappedPairs(max_length=4)
