"""The objectives of T5's study: each literally, with a mask written out, and what all of them promise."""

import dataclasses
import itertools

import numpy as np
import pytest

from elision.data.example import Example
from elision.data.noise import SpanCorruption, TextToText
from elision.data.noise.text_to_text import Ending, RandomSpans, RandomTokens
from elision.data.order import generator
from elision.errors import InputError
from tests import tiny

SENTINELS = np.arange(199, 99, -1)
VOCABULARY = dataclasses.replace(
    tiny.vocabulary(200), special=(np.arange(200) < 6) | (np.arange(200) >= 100), sentinels=SENTINELS
)
READ, WRITE = ("marked", "hidden", "replaced", "dropped", "shuffled"), ("marked", "left out", "whole")
PICKED = (RandomSpans(), RandomTokens(), RandomTokens(0.5), RandomTokens(1.0), RandomTokens(0.0), Ending())


@dataclasses.dataclass(frozen=True)
class Written(RandomSpans):
    """A mask written out: 0 1 1 0 1."""

    def __call__(self, length: int, rng: np.random.Generator) -> np.ndarray:
        return np.array([False, True, True, False, True])


def text(length: int) -> Example:
    return Example(10 + np.arange(length) % 90, np.zeros(length, bool))


def noised(noise: TextToText, length: int = 5, index: int = 0) -> Example:
    return noise(text(length), VOCABULARY, generator(1, "noise", index))


@pytest.mark.parametrize(
    ("read", "write", "inputs", "answer"),
    [
        ("marked", "marked", [10, 199, 13, 198, 5], [199, 11, 12, 198, 14, 5]),
        ("hidden", "whole", [10, 199, 199, 13, 199, 5], [10, 11, 12, 13, 14, 5]),
        ("dropped", "left out", [10, 13, 5], [11, 12, 14, 5]),
    ],
)
def test_a_mask_written_out_gives_exactly_this(read: str, write: str, inputs: list[int], answer: list[int]) -> None:
    after = noised(TextToText(Written(), read, write))
    assert after.inputs.tolist() == inputs and after.answer.tolist() == answer


def test_shuffled_tokens_trade_places_among_themselves() -> None:
    seen = {tuple(noised(TextToText(Written(), "shuffled", "whole"), index=index).inputs) for index in range(100)}
    assert seen == {(10, a, b, 13, c, 5) for a, b, c in itertools.permutations([11, 12, 14])}


def test_bert_style_hides_nine_tenths_behind_one_symbol_and_makes_one_tenth_random() -> None:
    noise, hidden, random = TextToText(RandomTokens(), "replaced", "whole"), 0, 0
    for index in range(300):
        after = noised(noise, 90, index)
        assert after.answer.tolist() == [*text(90).inputs.tolist(), 5]
        hidden += (after.inputs == 199).sum()
        random += ((after.inputs[:-1] != 199) & (after.inputs[:-1] != text(90).inputs)).sum()
        assert not (after.special[:-1] & (after.inputs[:-1] != 199)).any()
    picked = 300 * 90 * 0.15
    assert abs(hidden / picked - 0.9) < 0.05 and abs(random / picked - 0.1) < 0.02


def test_runs_of_random_tokens_share_a_sentinel_and_tokens_are_picked_one_by_one() -> None:
    share, runs = [], []
    for index in range(300):
        after = noised(TextToText(), 90, index)
        num_runs = (after.inputs >= 100).sum()
        left_out = (after.answer < 100).sum() - 1
        assert after.inputs[after.inputs >= 100].tolist() == SENTINELS[:num_runs].tolist()
        share.append(left_out / 90)
        runs.append(num_runs)
    assert abs(np.mean(share) - 0.15) < 0.01
    # A run begins at a picked token whose predecessor is not.
    assert abs(np.mean(runs) - (0.15 + 89 * 0.15 * 0.85)) < 0.4


def test_a_prefix_has_every_length_from_one_to_all_but_one_token() -> None:
    noise = TextToText(Ending(), "dropped", "left out")
    sizes = np.zeros(6)
    for index in range(2000):
        after = noised(noise, 5, index)
        assert [*after.inputs[:-1], *after.answer[:-1]] == text(5).inputs.tolist()
        sizes[len(after.inputs) - 1] += 1
    assert sizes[[0, 5]].sum() == 0
    np.testing.assert_allclose(sizes[1:5] / 2000, 0.25, atol=0.04)


def test_deshuffling_permutes_the_whole_text_and_writes_it_in_order() -> None:
    after = noised(TextToText(RandomTokens(1.0), "shuffled", "whole"), 50)
    assert (
        sorted(after.inputs[:-1]) == sorted(text(50).inputs) and after.inputs[:-1].tolist() != text(50).inputs.tolist()
    )
    assert after.answer[:-1].tolist() == text(50).inputs.tolist()


def test_a_language_model_reads_nothing_but_the_end_and_writes_the_text() -> None:
    noise = TextToText(RandomTokens(1.0), "dropped", "left out")
    after = noised(noise, 50)
    assert after.inputs.tolist() == [5] and after.answer.tolist() == [*text(50).inputs.tolist(), 5]
    assert noise.lengths(50) == (1, 51)


def test_with_random_spans_marked_on_both_sides_it_is_span_corruption() -> None:
    for index in range(20):
        ours = SpanCorruption()(text(80), VOCABULARY, generator(1, "noise", index))
        same = noised(TextToText(RandomSpans()), 80, index)
        assert same.inputs.tolist() == ours.inputs.tolist() and same.answer.tolist() == ours.answer.tolist()
    assert TextToText(RandomSpans()).lengths(568) == SpanCorruption().lengths(568) == (512, 114)


@pytest.mark.parametrize("write", WRITE)
@pytest.mark.parametrize("read", READ)
def test_every_combination_keeps_within_its_lengths_and_ends_both_sides(read: str, write: str) -> None:
    for picked in PICKED:
        noise = TextToText(picked, read, write)
        noise.check(VOCABULARY)
        for length in (1, 2, 3, 10, 89):
            longest = noise.lengths(length)
            for index in range(10):
                after = noised(noise, length, index)
                assert (len(after.inputs), len(after.answer)) <= longest
                assert len(after.inputs) <= longest[0] and len(after.answer) <= longest[1]
                assert after.inputs[-1] == after.answer[-1] == 5
                assert after.summary == len(after.answer) - 1


def test_runs_past_the_last_sentinel_stay_in_the_text() -> None:
    few = dataclasses.replace(VOCABULARY, sentinels=SENTINELS[:4])
    for index in range(50):
        after = TextToText(RandomTokens(0.5))(text(90), few, generator(1, "noise", index))
        assert after.inputs[after.inputs >= 100].tolist() == [199, 198, 197]
        assert after.answer[after.answer >= 100].tolist() in ([199, 198, 197, 196], [199, 198, 197])
        last = after.inputs.tolist().index(197)
        assert after.inputs[last + 1 : -1].tolist() == text(90).inputs[-(len(after.inputs) - last - 2) :].tolist()


def test_sentinels_are_asked_for_where_they_are_used() -> None:
    bare = tiny.vocabulary(200)
    TextToText(Ending(), "dropped", "left out").check(bare)
    for noise in (TextToText(), TextToText(Ending(), "hidden", "whole"), TextToText(Ending(), "dropped", "marked")):
        with pytest.raises(InputError, match="sentinel"):
            noise.check(bare)
    two = dataclasses.replace(VOCABULARY, sentinels=SENTINELS[:2])
    with pytest.raises(InputError, match="an example of 80 tokens needs 4 sentinels, but the tokenizer has 2"):
        TextToText(RandomSpans())(text(80), two, generator(1, "noise", 0))


def test_shares_beyond_one_are_refused() -> None:
    with pytest.raises(InputError, match=r"rate is 1\.5"):
        RandomTokens(1.5)
    with pytest.raises(InputError, match="random_share is -1"):
        TextToText(random_share=-1)
