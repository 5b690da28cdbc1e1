"""BERT's pairs: the invariants of the released code, on 10^5 examples of a text whose every token is unique.

Token ids count up through the text, so a token tells its document, its sentence and its place.
"""

import dataclasses
import math

import numpy as np
import pytest

from elision.data.example import NO_TARGET, Example
from elision.data.noise import TokenMask
from elision.data.order import generator
from elision.data.segment import pairs as segment
from elision.data.segment.pairs import SentencePairPlan, SentencePairs, cut_pair
from elision.data.store import Split
from elision.errors import InputError
from elision.text.vocabulary import Vocabulary
from tests import tiny

FIRST_TOKEN = 10
LENGTH = 32
NUM_SAMPLES = 100_000


@dataclasses.dataclass(frozen=True)
class Text:
    """A split and, for each token id, the document and the sentence that hold it."""

    split: Split
    vocabulary: Vocabulary
    document_of: np.ndarray
    sentence_of: np.ndarray

    def sentence_lengths(self, document: int) -> list[int]:
        bounds = self.split.document_sentences
        return np.diff(self.split.sentence_starts[bounds[document] : bounds[document + 1] + 1]).tolist()


def counting_text(path, num_documents: int, max_sentences: int, max_tokens: int) -> Text:
    rng = np.random.default_rng(0)
    next_token, documents, document_of, sentence_of = FIRST_TOKEN, [], [-1] * FIRST_TOKEN, [-1] * FIRST_TOKEN
    num_sentences = 0
    for document in range(num_documents):
        sentences = []
        for _ in range(rng.integers(1, max_sentences + 1)):
            length = int(rng.integers(1, max_tokens + 1))
            sentences.append(range(next_token, next_token + length))
            document_of += [document] * length
            sentence_of += [num_sentences] * length
            next_token, num_sentences = next_token + length, num_sentences + 1
        documents.append(sentences)
    store = tiny.id_store(path, tiny.tokenizer(tiny.WORDPIECE), documents)
    # Words of one to three pieces.
    continues = rng.random(next_token) < 0.4
    continues[:FIRST_TOKEN] = False
    vocabulary = tiny.vocabulary(next_token, continues)
    return Text(store.split("train"), vocabulary, np.array(document_of), np.array(sentence_of))


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Text:
    return counting_text(tmp_path_factory.mktemp("pairs") / "store", num_documents=150, max_sentences=14, max_tokens=15)


@dataclasses.dataclass(frozen=True)
class Samples:
    """Many noised examples, flat: offsets [n + 1] and, for each token, what it was and what became of it."""

    lengths: np.ndarray
    starts: np.ndarray
    original: np.ndarray
    inputs: np.ndarray
    targets: np.ndarray
    special: np.ndarray
    types: np.ndarray
    labels: np.ndarray

    def first(self) -> np.ndarray:
        """Index of each example's first token."""
        return self.starts[:-1]

    def last(self) -> np.ndarray:
        """Index of each example's last token."""
        return self.starts[1:] - 1

    def middle(self) -> np.ndarray:
        """Index of the separator after A."""
        return self.starts[1:] - 1 - np.add.reduceat(self.types, self.starts[:-1])


def gather(plan: SentencePairPlan, vocabulary: Vocabulary, noise: TokenMask, count: int) -> Samples:
    before = [plan.example(index) for index in range(count)]
    after = [noise(example, vocabulary, generator(1, "noise", 0, index)) for index, example in enumerate(before)]
    lengths = np.array([len(example) for example in before])
    return Samples(
        lengths,
        np.concatenate([[0], np.cumsum(lengths)]),
        np.concatenate([example.inputs for example in before]),
        np.concatenate([example.inputs for example in after]),
        np.concatenate([example.targets for example in after]),
        np.concatenate([example.special for example in before]),
        np.concatenate([example.type_ids for example in before]),
        np.array([example.label for example in before]),
    )


@pytest.fixture(scope="module")
def samples(text: Text) -> Samples:
    plan = SentencePairs(max_length=LENGTH, passes=210).plan(text.split, text.vocabulary, seed=1)
    assert len(plan) >= NUM_SAMPLES
    return gather(plan, text.vocabulary, TokenMask(max_targets=4), NUM_SAMPLES)


def test_no_example_exceeds_the_length_and_many_reach_it(samples: Samples) -> None:
    assert samples.lengths.max() == LENGTH
    assert samples.lengths.min() >= 5
    assert (samples.lengths == LENGTH).mean() > 0.5


def test_examples_are_framed_as_cls_a_sep_b_sep(samples: Samples, text: Text) -> None:
    cls, sep = text.vocabulary.cls, text.vocabulary.sep
    frame = np.concatenate([samples.first(), samples.middle(), samples.last()])
    assert np.array_equal(np.sort(frame), np.flatnonzero(samples.special))
    assert (samples.original[samples.first()] == cls).all()
    assert (samples.original[samples.middle()] == sep).all()
    assert (samples.original[samples.last()] == sep).all()
    assert (samples.original[~samples.special] >= FIRST_TOKEN).all()
    # Neither side is ever empty.
    assert (samples.middle() - samples.first() > 1).all() and (samples.last() - samples.middle() > 1).all()


def test_segment_ids_are_zeros_up_to_the_first_separator_then_ones(samples: Samples) -> None:
    place = np.arange(len(samples.types))
    assert np.array_equal(samples.types, (place > np.repeat(samples.middle(), samples.lengths)).astype(int))


def test_each_side_is_a_stretch_of_one_document(samples: Samples, text: Text) -> None:
    inside = ~samples.special
    pairs = np.flatnonzero(inside[:-1] & inside[1:])
    assert (samples.original[pairs + 1] == samples.original[pairs] + 1).all()
    assert (text.document_of[samples.original[pairs + 1]] == text.document_of[samples.original[pairs]]).all()


def test_a_random_b_never_comes_from_the_document_of_a_and_a_true_one_always_does(samples: Samples, text: Text) -> None:
    a_last, b_first = samples.original[samples.middle() - 1], samples.original[samples.middle() + 1]
    same = text.document_of[a_last] == text.document_of[b_first]
    assert np.array_equal(same, samples.labels == 0)
    # Cutting may take tokens away where A and B meet, so a true B follows, perhaps at a distance.
    gap = b_first - a_last
    assert (gap[samples.labels == 0] >= 1).all()
    assert (gap[samples.labels == 0] == 1).mean() > 0.3


def test_random_pairs_are_more_than_half_by_what_lone_sentences_add(samples: Samples) -> None:
    assert 0.5 + 3 * 0.5 / math.sqrt(NUM_SAMPLES) < samples.labels.mean() < 0.7


def test_random_bs_come_from_every_document_and_begin_at_sentences(samples: Samples, text: Text) -> None:
    random = samples.labels == 1
    b_first = samples.original[samples.middle() + 1][random]
    assert len(np.unique(text.document_of[b_first])) == text.split.num_documents
    begins = np.isin(b_first - FIRST_TOKEN, text.split.sentence_starts)
    # Those that do not had their front cut.
    assert begins.mean() > 0.5


def test_targets_fill_the_budget_and_never_fall_on_special_symbols(samples: Samples) -> None:
    chosen = samples.targets != NO_TARGET
    counts = np.add.reduceat(chosen, samples.first())
    expected = [min(4, max(1, round(0.15 * length))) for length in samples.lengths.tolist()]
    assert np.array_equal(counts, expected)
    assert not (chosen & samples.special).any()
    assert np.array_equal(samples.targets[chosen], samples.original[chosen])


def test_targets_become_mask_random_or_stay_80_10_10_and_nothing_else_changes(samples: Samples, text: Text) -> None:
    chosen = samples.targets != NO_TARGET
    assert np.array_equal(samples.inputs[~chosen], samples.original[~chosen])
    became, was = samples.inputs[chosen], samples.original[chosen]
    masked, kept = became == text.vocabulary.mask, became == was
    assert abs(masked.mean() - 0.8) < 0.01
    assert abs(kept.mean() - 0.1) < 0.01
    assert abs((~masked & ~kept).mean() - 0.1) < 0.01
    # Random tokens come from the whole vocabulary, far from the original too.
    assert np.abs(became - was)[~masked & ~kept].mean() > text.vocabulary.size / 5


def test_targets_are_spread_evenly_over_an_example(samples: Samples) -> None:
    full = np.flatnonzero(samples.lengths == LENGTH)
    chosen = (samples.targets != NO_TARGET)[samples.starts[full][:, None] + np.arange(LENGTH)]
    open_place = ~samples.special[samples.starts[full][:, None] + np.arange(LENGTH)]
    share = chosen.sum(0)[1:-1] / open_place.sum(0)[1:-1]
    assert np.abs(share - 4 / 29).max() < 4 * math.sqrt(4 / 29 / len(full))


def test_whole_word_targets_take_all_pieces_of_a_word_within_the_budget(text: Text) -> None:
    plan = SentencePairs(max_length=LENGTH, passes=25).plan(text.split, text.vocabulary, seed=2)
    samples = gather(plan, text.vocabulary, TokenMask(max_targets=4, whole_words=True), 10_000)
    chosen = samples.targets != NO_TARGET
    counts = np.add.reduceat(chosen, samples.first())
    budget = [min(4, max(1, round(0.15 * length))) for length in samples.lengths.tolist()]
    assert (counts <= budget).all() and (counts == budget).mean() > 0.7
    # A piece that continues the word of the token before it shares its fate of being chosen.
    follows = text.vocabulary.continues_word[samples.original]
    follows[1:] &= ~samples.special[:-1]
    at = np.flatnonzero(follows & ~samples.special)
    assert len(at) > 10_000
    assert np.array_equal(chosen[at], chosen[at - 1])
    # Its pieces draw their own 80/10/10.
    words = at[chosen[at]]
    both_masked = (samples.inputs[words] == 4) & (samples.inputs[words - 1] == 4)
    assert abs(both_masked.mean() - 0.64) < 0.03


def uncut(plan: SentencePairPlan, monkeypatch: pytest.MonkeyPatch) -> list[tuple[np.ndarray, np.ndarray, int]]:
    """Return A, B and label of every example as they are before they are cut to length."""
    monkeypatch.setattr(segment, "cut_pair", lambda *offsets_room_rng: offsets_room_rng[:4])
    pairs = []
    for index in range(len(plan)):
        example = plan.example(index)
        inside = ~example.special
        a, b = example.inputs[inside & (example.type_ids == 0)], example.inputs[inside & (example.type_ids == 1)]
        pairs.append((a, b, example.label))
    return pairs


def test_the_walk_replays_as_the_literal_algorithm(text: Text, monkeypatch: pytest.MonkeyPatch) -> None:
    """Walk each document sentence by sentence with the draws that the plan made, and meet the same examples."""
    room = LENGTH - 3
    plan = SentencePairs(max_length=LENGTH, short_probability=0, passes=1).plan(text.split, text.vocabulary, seed=3)
    by_document: dict[int, list] = {}
    for a, b, label in uncut(plan, monkeypatch):
        by_document.setdefault(int(text.document_of[a[0]]), []).append((a, b, label))
    assert len(by_document) == text.split.num_documents
    shares_of_a, drawn_random = [], []
    for document, pairs in by_document.items():
        lengths = text.sentence_lengths(document)
        offset = FIRST_TOKEN + int(text.split.document_starts[document])
        at = np.concatenate([[0], np.cumsum(lengths)]) + offset
        position = 0
        for a, b, label in pairs:
            end, total = position, 0
            while end < len(lengths) and total < room:
                total += lengths[end]
                end += 1
            num_a = 1 + int(text.sentence_of[a[-1]] - text.sentence_of[a[0]])
            assert a.tolist() == list(range(at[position], at[position + num_a]))
            assert 1 <= num_a <= max(1, end - position - 1)
            if end - position == 1:
                assert label == 1
            else:
                drawn_random.append(label)
                if end - position > 2:
                    shares_of_a.append((num_a - 1) / (end - position - 2))
            if label == 0:
                assert b.tolist() == list(range(at[position + num_a], at[end]))
                position = end
            else:
                other = int(text.document_of[b[0]])
                assert other != document
                position += num_a
                # Whole sentences from a random start, the fewest that fill what A leaves, or the document's end.
                starts = FIRST_TOKEN + text.split.sentence_starts
                assert b[0] in starts and b[-1] + 1 in starts
                wanted = room - len(a)
                last = int(text.sentence_of[b[-1]])
                last_length = int(text.split.sentence_starts[last + 1] - text.split.sentence_starts[last])
                assert len(b) - last_length < max(wanted, 1)
                ends_document = last + 1 == text.split.document_sentences[other + 1]
                assert len(b) >= wanted or ends_document
        assert position == len(lengths), "every sentence is used"
    assert abs(np.mean(drawn_random) - 0.5) < 3 * 0.5 / math.sqrt(len(drawn_random))
    assert abs(np.mean(shares_of_a) - 0.5) < 0.05


def test_short_targets_are_drawn_for_a_tenth_of_the_document_passes_over_the_whole_range(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Sentences of one token: without a cut, A and a true B fill the target exactly.
    path = tmp_path_factory.mktemp("short") / "store"
    text = counting_text(path, num_documents=40, max_sentences=80, max_tokens=1)
    plan = SentencePairs(max_length=23, random_probability=0, passes=60).plan(text.split, text.vocabulary, seed=4)
    sizes: dict[tuple[int, int], int] = {}
    starts = [int(start) for start in text.split.document_starts]
    pass_of: dict[int, int] = {}
    for a, b, label in uncut(plan, monkeypatch):
        first = int(a[0]) - FIRST_TOKEN
        document = int(text.document_of[a[0]])
        if label == 0 and first == starts[document] and starts[document + 1] - first >= 20:
            pass_of[document] = pass_of.get(document, 0) + 1
            sizes[document, pass_of[document]] = len(a) + len(b)
    drawn = np.array(list(sizes.values()))
    assert len(drawn) > 1000
    short = drawn[drawn < 20]
    # The full target of 20 is itself drawn once in 19 times.
    assert abs(len(short) / len(drawn) - 0.1 * 18 / 19) < 3 * math.sqrt(0.09 / len(drawn))
    assert set(short) == set(range(2, 20))


@pytest.mark.parametrize("seed", range(3))
def test_cutting_agrees_with_dropping_one_token_at_a_time(seed: int) -> None:
    rng = np.random.default_rng(seed)
    fronts = drops = 0
    for _ in range(2000):
        size_a, size_b, room = (int(rng.integers(low, 40)) for low in (1, 1, 2))
        left_a, left_b = size_a, size_b
        while left_a + left_b > room:
            if left_a > left_b:
                left_a -= 1
            else:
                left_b -= 1
        a_begin, a_end, b_begin, b_end = cut_pair(100, 100 + size_a, 500, 500 + size_b, room, rng)
        assert (a_end - a_begin, b_end - b_begin) == (left_a, left_b)
        assert 100 <= a_begin <= a_end <= 100 + size_a and 500 <= b_begin <= b_end <= 500 + size_b
        assert left_a >= 1 and left_b >= 1
        fronts += a_begin - 100 + b_begin - 500
        drops += size_a + size_b - left_a - left_b
    assert abs(fronts / drops - 0.5) < 3 * 0.5 / math.sqrt(drops)


def test_cutting_literally() -> None:
    rng = np.random.default_rng(0)
    assert cut_pair(0, 3, 10, 12, 5, rng) == (0, 3, 10, 12)
    begin, end, *b = cut_pair(0, 5, 10, 12, 5, rng)
    assert end - begin == 3 and b == [10, 12]


def test_a_plan_is_a_function_of_its_seed(text: Text) -> None:
    settings = SentencePairs(max_length=LENGTH, passes=2)
    first, again, other = (settings.plan(text.split, text.vocabulary, seed) for seed in (5, 5, 6))
    assert len(first) == len(again)

    def same(one: Example, two: Example) -> bool:
        return one.label == two.label and np.array_equal(one.inputs, two.inputs)

    assert all(same(first.example(index), again.example(index)) for index in range(0, len(first), 7))
    # Any order of asking gives the same example.
    assert same(first.example(3), again.example(3))
    count = min(len(first), len(other))
    assert sum(same(first.example(index), other.example(index)) for index in range(count)) < count / 10


def test_an_epoch_holds_as_many_passes_as_asked_each_over_the_whole_text(text: Text) -> None:
    plan = SentencePairs(max_length=LENGTH, passes=3, random_probability=0).plan(text.split, text.vocabulary, seed=1)
    seen = np.zeros(text.vocabulary.size, int)
    for index in range(len(plan)):
        example = plan.example(index)
        a = example.inputs[(example.type_ids == 0) & ~example.special]
        seen[text.split.sentence_starts[np.unique(text.sentence_of[a])] + FIRST_TOKEN] += 1
    firsts = FIRST_TOKEN + text.split.document_starts[:-1]
    # A document's first sentence begins an A once in each pass; a cut can take all of it away now and then.
    assert seen[firsts].max() == 3
    assert seen[firsts].mean() > 2.5


def test_a_document_longer_than_a_section_is_read_whole(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segment, "SECTION_SENTENCES", 8)
    text = counting_text(tmp_path_factory.mktemp("long") / "store", num_documents=3, max_sentences=60, max_tokens=4)
    settings = SentencePairs(max_length=16, passes=1, short_probability=0)
    used = np.zeros(text.split.num_sentences, int)
    for a, b, label in uncut(settings.plan(text.split, text.vocabulary, seed=1), monkeypatch):
        used[np.unique(text.sentence_of[a])] += 1
        if label == 0:
            used[np.unique(text.sentence_of[b])] += 1
    assert (used == 1).all()


def test_a_corpus_of_one_document_still_gives_random_pairs_that_do_not_follow(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = counting_text(tmp_path_factory.mktemp("one") / "store", num_documents=1, max_sentences=40, max_tokens=5)
    plan = SentencePairs(max_length=16, passes=40).plan(text.split, text.vocabulary, seed=1)
    pairs = uncut(plan, monkeypatch)
    random = [(a, b) for a, b, label in pairs if label == 1]
    assert len(random) > 100
    assert all(b[0] != a[-1] + 1 for a, b in random)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_length": 4}, "max_length is 4"),
        ({"passes": 0}, "passes is 0"),
        ({"short_probability": 1.2}, "short_probability is 1.2"),
        ({"random_probability": -1}, "random_probability is -1"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        SentencePairs(**settings)


def test_a_vocabulary_without_frame_symbols_is_refused(text: Text) -> None:
    bare = Vocabulary(10, np.zeros(10, bool), np.zeros(10, bool), eos=0)
    with pytest.raises(InputError, match="no 'cls' token"):
        SentencePairs().plan(text.split, bare, seed=1)
