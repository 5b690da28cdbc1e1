"""Learning-rate schedules at literal steps."""

import math

import pytest

from elision import recipes
from elision.errors import InputError
from elision.train.schedule import (
    Constant,
    Cosine,
    InverseSquareRoot,
    Linear,
    ReciprocalSquareRoot,
    Schedule,
    TokenCosine,
)


def test_berts_rate_jumps_down_when_warm_up_ends() -> None:
    schedule = Linear(warmup=0.1, kink=True)
    assert [schedule.share(step, 100) for step in (0, 1, 5, 9)] == pytest.approx([0, 0.1, 0.5, 0.9])
    # The decay has been counting from step 0: 1 - 10/100.
    assert [schedule.share(step, 100) for step in (10, 11, 50, 99, 100)] == pytest.approx([0.9, 0.89, 0.5, 0.01, 0.0])


def test_berts_kink_at_its_published_length() -> None:
    recipe = recipes.get("bert-base")
    rate = [
        recipe.train.optimizer.learning_rate * recipe.train.schedule.share(step, recipe.train.steps)
        for step in (0, 9_999, 10_000, 500_000, 999_999)
    ]
    assert rate == pytest.approx([0, 0.9999e-4, 0.99e-4, 0.5e-4, 1e-10])


def test_without_the_kink_the_rate_is_continuous_and_ends_at_zero() -> None:
    schedule = Linear(warmup=10)
    assert [schedule.share(step, 110) for step in (0, 4, 9, 10, 60, 109, 110)] == pytest.approx(
        [0.1, 0.5, 1.0, 1.0, 0.5, 0.01, 0.0]
    )


def test_electras_factors_are_multiplied_and_both_count_from_step_0() -> None:
    schedule = Linear(warmup=10, product=True)
    assert [schedule.share(step, 100) for step in (0, 5, 10, 50, 100)] == pytest.approx([0, 0.5 * 0.95, 0.9, 0.5, 0.0])
    # Continuous, unlike the kink.
    assert abs(schedule.share(10, 100) - schedule.share(9, 100)) < 0.1


def test_the_two_forms_of_counting_from_step_0_exclude_each_other() -> None:
    with pytest.raises(InputError, match="kink and product"):
        Linear(kink=True, product=True)


def test_the_decay_ends_at_its_final_share() -> None:
    schedule = Linear(warmup=10, final_share=0.001)
    assert [schedule.share(step, 110) for step in (9, 10, 60, 110, 200)] == pytest.approx(
        [1.0, 1.0, 0.5005, 0.001, 0.001]
    )
    with pytest.raises(InputError, match="final_share is 2"):
        Linear(final_share=2)


def test_inverse_square_root_climbs_from_its_first_rate_and_then_quarters_when_steps_grow_sixteenfold() -> None:
    schedule = InverseSquareRoot(warmup=100, initial_share=1e-3)
    assert [schedule.share(step, 10) for step in (0, 50, 100, 400, 1600)] == pytest.approx(
        [1e-3, 0.5005, 1.0, 0.5, 0.25]
    )
    # XLM: 1e-7 + step * (peak - 1e-7) / warmup, then peak * sqrt(warmup / step).
    peak, first = 1e-4, 1e-7
    for step in (0, 1, 99):
        assert peak * schedule.share(step, 10) == pytest.approx(first + step * (peak - first) / 100)


def test_constant_stays_at_the_peak_once_warm() -> None:
    assert [Constant().share(step, 10) for step in (0, 9, 99)] == [1.0, 1.0, 1.0]
    assert [Constant(warmup=4).share(step, 10) for step in (0, 1, 3, 9)] == [0.25, 0.5, 1.0, 1.0]


def test_cosine_starts_peaks_and_ends_where_it_should() -> None:
    schedule = Cosine(warmup=10, final_share=0.1)
    assert [schedule.share(step, 110) for step in (0, 9, 10, 60, 110, 500)] == pytest.approx(
        [0.1, 1.0, 1.0, 0.55, 0.1, 0.1]
    )
    assert schedule.share(35, 110) == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 4)))


def test_gpt2_warms_up_for_half_a_percent_and_ends_at_a_tenth() -> None:
    train = recipes.get("gpt2-small").train
    assert train.schedule.share(2999, 600_000) == 1.0
    assert train.schedule.share(599_999, 600_000) == pytest.approx(0.1, abs=1e-6)


@pytest.mark.parametrize(
    ("share", "steps", "warmup_steps"), [(0.07, 100, 7), (0.01, 1000, 10), (0.1, 7, 1), (0.5, 3, 2)]
)
def test_a_share_of_the_steps_is_rounded_up_without_being_fooled_by_floats(
    share: float, steps: int, warmup_steps: int
) -> None:
    schedule = Linear(warmup=share)
    assert schedule.share(warmup_steps - 1, steps) == 1.0
    if warmup_steps > 1:
        assert schedule.share(warmup_steps - 2, steps) < 1.0


@pytest.mark.parametrize(
    "schedule",
    [
        Linear(warmup=0),
        Linear(warmup=0, kink=True),
        Linear(warmup=0, product=True),
        Cosine(warmup=0),
        Constant(),
    ],
)
def test_no_warm_up_starts_at_the_peak(schedule: Schedule) -> None:
    assert schedule.share(0, 100) == 1.0


@pytest.mark.parametrize(
    "schedule",
    [
        Linear(warmup=500),
        Linear(warmup=500, kink=True),
        Cosine(warmup=500),
        InverseSquareRoot(warmup=500),
        Constant(warmup=500),
    ],
)
def test_a_warm_up_longer_than_the_run_only_climbs(schedule: Schedule) -> None:
    shares = [schedule.share(step, 100) for step in range(100)]
    assert shares == sorted(shares) and shares[0] >= 0 and shares[-1] <= 0.2


@pytest.mark.parametrize("kind", [Linear, Cosine, InverseSquareRoot, Constant])
def test_a_negative_warm_up_is_refused(kind: type) -> None:
    with pytest.raises(InputError, match="warmup is -1"):
        kind(warmup=-1)


def test_t5s_rate_is_the_reciprocal_root_of_the_step_in_absolute_terms() -> None:
    schedule = ReciprocalSquareRoot(hold=10_000)
    for steps in (100, 10**6):
        rates = [schedule.share(step, steps) for step in (0, 9_999, 10_000, 40_000, 10**6)]
        assert rates == pytest.approx([0.01, 0.01, 0.01, 0.005, 0.001])
    with pytest.raises(InputError, match="hold is 0"):
        ReciprocalSquareRoot(hold=0)


def test_gpt3s_rate_at_260_billion_tokens_is_a_tenth_of_the_peak_and_stays_there() -> None:
    schedule = TokenCosine()

    def share(tokens: float) -> float:
        # One step that ends at so many tokens, of a run that goes on to 300 billion.
        return schedule.share(0, 2, lambda step: [0, int(tokens), int(300e9)][step])

    assert [share(tokens) for tokens in (0, 187.5e6, 375e6)] == pytest.approx([0, 0.5, 1.0])
    assert share((260e9 + 375e6) / 2) == pytest.approx(0.55)
    assert [share(tokens) for tokens in (260e9, 280e9, 300e9)] == pytest.approx([0.1, 0.1, 0.1])
    assert share(259e9) > 0.1


def test_tokens_can_be_shares_of_all_tokens_of_a_run() -> None:
    schedule, tokens_by = TokenCosine(warmup=0.25, decay=0.75, final_share=0.2), lambda step: 10 * step * step
    # The steps end at 10, 40, 90 and 160 of 160 tokens; the cosine spans 40 to 120.
    assert [schedule.share(step, 4, tokens_by) for step in range(4)] == pytest.approx(
        [0.25, 1.0, 0.2 + 0.8 * (1 + math.cos(math.pi * 50 / 80)) / 2, 0.2]
    )
    with pytest.raises(InputError, match="decay is 0"):
        TokenCosine(decay=0)
