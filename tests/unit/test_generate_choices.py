"""What changes scores and what is drawn: written-out cases."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from elision.errors import InputError
from elision.generation.constraints import Constraints, Written, ban_ngrams
from elision.generation.decoding import Decoding, Symbols
from elision.generation.sampling import Choice, generator, likely

SCORES = [2.0, 1.0, 0.5, -1.0, -2.0, 0.1]
NO = float("-inf")


def written(*rows: list[int]) -> Written:
    """Lay rows side by side, padded on the left with 0."""
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    return Written(ids, torch.tensor([width - len(row) for row in rows]))


def constrained(
    decoding: Decoding, rows: Written, num_new: int = 3, read: Written | None = None, **symbols: object
) -> list[list[float]]:
    scores = torch.tensor([SCORES] * len(rows.ids), dtype=torch.float64)
    constraints = Constraints(decoding, Symbols(6, **symbols))
    assert constraints.any
    return constraints(scores, rows, num_new, read).tolist()


def banned(scores: list[float]) -> set[int]:
    return {token for token, score in enumerate(scores) if score == NO}


def test_the_penalty_by_sign_makes_every_repeated_token_less_likely_and_ctrls_own_division_raises_negative_ones() -> (
    None
):
    rows = written([1, 3, 3])
    assert constrained(Decoding(repetition_penalty=2.0), rows) == [[2.0, 0.5, 0.5, -2.0, -2.0, 0.1]]
    divided = Decoding(repetition_penalty=2.0, penalty_rule="divide")
    assert constrained(divided, rows) == [[2.0, 0.5, 0.5, -0.5, -2.0, 0.1]]


def test_exempt_tokens_padding_and_what_cannot_be_written_are_not_penalised() -> None:
    penalised = Decoding(repetition_penalty=2.0)
    assert constrained(penalised, written([1, 3]), exempt=(3,)) == [[2.0, 0.5, 0.5, -1.0, -2.0, 0.1]]
    # Token 0 fills up the second row, and 9 is a start symbol beyond what can be written.
    rows = constrained(penalised, written([1, 2, 4], [9, 5]))
    assert rows == [[2.0, 0.5, 0.25, -1.0, -4.0, 0.1], [2.0, 1.0, 0.5, -1.0, -2.0, 0.05]]


def test_no_ngram_is_written_twice() -> None:
    rows = written([4, 1, 2, 5, 1, 2])
    assert [banned(row) for row in constrained(Decoding(no_repeat_ngram=3), rows)] == [{5}]
    assert [banned(row) for row in constrained(Decoding(no_repeat_ngram=1), rows)] == [{1, 2, 4, 5}]
    assert [banned(row) for row in constrained(Decoding(no_repeat_ngram=2), written([3, 2, 1, 2]))] == [{1}]
    assert [banned(row) for row in constrained(Decoding(no_repeat_ngram=4), written([1, 2]))] == [set()]


def test_padding_makes_no_ngrams() -> None:
    rows = written([1, 2, 3, 4, 5], [0, 3])
    assert [banned(row) for row in constrained(Decoding(no_repeat_ngram=2), rows)] == [set(), set()]
    scores = torch.zeros(2, 6)
    ban_ngrams(scores, written([0, 1], [0, 1]), written([2, 0, 1, 5], [1]), 3)
    assert [banned(row) for row in scores.tolist()] == [{5}, set()]


def test_ngrams_of_the_source_are_not_copied() -> None:
    asked = Decoding(no_repeat_source_ngram=2)
    assert banned(constrained(asked, written([5, 1]), read=written([1, 2, 1, 3]))[0]) == {2, 3}
    assert banned(constrained(asked, written([5, 4]), read=written([1, 2, 1, 3]))[0]) == set()


def test_bad_words_the_least_length_and_forced_tokens() -> None:
    asked = Decoding(num_tokens=5, min_tokens=4)
    rows = written([1, 2], [4])
    assert [banned(row) for row in constrained(asked, rows, 3, ends=(3, 5))] == [{3, 5}, {3, 5}]
    assert [banned(row) for row in constrained(asked, rows, 4, ends=(3, 5))] == [set(), set()]
    bad = constrained(Decoding(), rows, bad=((0,), (1, 2, 3), (2, 4)))
    assert [banned(row) for row in bad] == [{0, 3, 4}, {0}]
    # An end that is a bad word by itself stays: a text must be able to end.
    assert banned(constrained(Decoding(), rows, bad=((3,), (5,)), ends=(5,))[0]) == {3}
    assert [banned(row) for row in constrained(asked, rows, 0, first=2)] == [{0, 1, 3, 4, 5}] * 2
    assert [banned(row) for row in constrained(asked, rows, 4, last=3)] == [{0, 1, 2, 4, 5}] * 2
    assert banned(constrained(asked, rows, 3, first=2, last=3)[0]) == set()


def shares(decoding: Decoding) -> list[float]:
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]], dtype=torch.float64).log()
    drawn: Tensor = likely(logits, decoding)
    return (drawn / drawn.sum()).tolist()[0]


def test_top_p_keeps_the_token_that_crosses_it() -> None:
    # GPT-2's released code would leave out the second token at 0.7, and at 0.4 the first would be all there is in both.
    assert shares(Decoding(temperature=1.0, top_p=0.7)) == pytest.approx([0.625, 0.375, 0, 0])
    assert shares(Decoding(temperature=1.0, top_p=0.4)) == pytest.approx([1, 0, 0, 0])
    assert shares(Decoding(temperature=1.0, top_p=0.81)) == pytest.approx([0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0])


def test_min_p_is_a_share_of_the_likeliest_after_temperature() -> None:
    assert shares(Decoding(temperature=1.0, min_p=0.29)) == pytest.approx([0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0])
    assert shares(Decoding(temperature=0.5, min_p=0.29)) == pytest.approx([0.25 / 0.34, 0.09 / 0.34, 0, 0])


def test_top_p_speaks_of_what_top_k_leaves() -> None:
    assert shares(Decoding(temperature=1.0, top_k=2, top_p=0.63)) == pytest.approx([0.625, 0.375, 0, 0])
    assert shares(Decoding(temperature=1.0, top_k=2, top_p=0.62)) == pytest.approx([1, 0, 0, 0])


def test_draws_depend_on_seed_prompt_and_sample_and_on_nothing_else() -> None:
    scores = torch.zeros(1, 1000)
    decoding = Decoding(temperature=1.0, seed=4)
    alone = Choice(decoding, [[7, 8]])
    among = Choice(decoding, [[1], [7, 8], [9]])
    first = [(int(alone(scores)), int(among(scores.expand(3, -1))[1])) for _ in range(5)]
    assert all(one == other for one, other in first) and len(set(first)) > 1
    values = {generator(*key).random() for key in ((4, [7, 8], 0), (5, [7, 8], 0), (4, [7, 8], 1), (4, [8, 7], 0))}
    assert len(values) == 4
    assert isinstance(generator(4, [7], 0), np.random.Generator)


def test_wilder_draws_are_more_diverse() -> None:
    scores = torch.linspace(0, 8, 200).expand(500, -1)
    kinds = [
        len(set(Choice(Decoding(temperature=temperature, seed=1), [[row] for row in range(500)])(scores).tolist()))
        for temperature in (0.3, 0.88, 2.0)
    ]
    assert kinds == sorted(kinds) and kinds[0] < kinds[2] / 2


def test_length_is_penalised_by_its_power_or_as_in_gnmt() -> None:
    assert Decoding(length_penalty=2.0).normaliser(3) == 9
    assert Decoding(length_penalty=0.0).normaliser(7) == 1
    assert Decoding(length_penalty=0.6, length_rule="gnmt").normaliser(7) == pytest.approx(math.pow(2, 0.6))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"min_tokens": 9, "num_tokens": 5}, "min_tokens is 9, more than num_tokens"),
        ({"min_p": 1.5}, r"min_p is 1\.5"),
        ({"repetition_penalty": 0.0}, r"repetition_penalty is 0\.0"),
        ({"num_beams": 0}, "num_beams is 0"),
        ({"num_beams": 2, "temperature": 1.0}, "a search draws nothing"),
        ({"num_samples": 3}, "temperature is 0"),
        ({"num_beams": 2, "num_texts": 3}, "num_texts is 3: give 1 to 2"),
        ({"no_repeat_ngram": -1}, "no_repeat_ngram is -1"),
        ({"stop": ("",)}, "an empty text in stop"),
        ({"seed": -1}, "seed is -1"),
        ({"length_penalty": float("nan")}, "length_penalty is nan"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Decoding(**settings)
