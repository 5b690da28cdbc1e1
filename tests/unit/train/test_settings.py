"""Budgets and the limits of training settings."""

import pytest

from elision.errors import InputError
from elision.train.settings import Budget, Train, parse_budget


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [
        ("2000 steps", 2000, "steps"),
        ("1 step", 1, "steps"),
        ("5k steps", 5000, "steps"),
        ("1e9 tokens", 1e9, "tokens"),
        ("300M tokens", 3e8, "tokens"),
        ("1.5 B tokens", 1.5e9, "tokens"),
        ("2G tok", 2e9, "tokens"),
        ("1e18 flops", 1e18, "flops"),
        ("1e18flops", 1e18, "flops"),
        ("3T flops", 3e12, "flops"),
        ("20min", 1200, "seconds"),
        ("20 minutes", 1200, "seconds"),
        ("20m", 1200, "seconds"),
        ("90s", 90, "seconds"),
        ("2h", 7200, "seconds"),
        ("1.5h", 5400, "seconds"),
        (".5h", 1800, "seconds"),
        ("1 d", 86400, "seconds"),
        ("  3e2  sec ", 300, "seconds"),
    ],
)
def test_a_budget_is_a_number_and_a_unit(text: str, amount: float, unit: str) -> None:
    assert parse_budget(text) == Budget(pytest.approx(amount), unit)


@pytest.mark.parametrize(
    "text",
    ["", "steps", "100", "20 parsecs", "-5min", "0 steps", "0.0h", "1.2.3 steps", ". steps", "1e999 steps", "20M", "5 k",
     "min 20", "20min 30s", "1e steps", "nan steps", "inf tokens", "20MIN"],
)  # fmt: skip
def test_anything_else_is_refused_with_examples(text: str) -> None:
    with pytest.raises(InputError, match="write a number and a unit, such as '2000 steps'"):
        parse_budget(text)
    with pytest.raises(InputError, match=r"train\.budget is"):
        Train(budget=text)


@pytest.mark.parametrize(
    "field",
    ["batch_size", "steps", "log_every", "eval_examples", "keep_checkpoints", "microbatch_size", "eval_every",
     "checkpoint_every", "keep_every"],
)  # fmt: skip
def test_counts_below_one_are_named(field: str) -> None:
    with pytest.raises(InputError, match=f"train.{field} is 0: it must be at least 1"):
        Train(**{field: 0})
