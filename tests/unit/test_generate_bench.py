"""The bench of generation at toy size: both sides write the same."""

import pytest
from bench.generation import Ours, Settings, Theirs, cells


@pytest.mark.parametrize("recipe, start", [("gpt2-tiny", None), ("t5-tiny", 0)])
@pytest.mark.parametrize("num_rows, draft_tokens", [(1, 0), (1, 8), (4, 0)])
def test_both_sides_write_the_same(recipe: str, start: int | None, num_rows: int, draft_tokens: int) -> None:
    settings = Settings(recipe, start, num_rows, 7, 12, 1, draft_tokens)
    sides = (Ours(settings), Theirs(settings))
    for side in sides:
        side.step()
    written = [side.facts()["written"] for side in sides]
    assert written[0] == written[1] and len(written[0]) > 12 * num_rows


def test_a_line_of_the_table_has_a_cell_for_each_column() -> None:
    from bench.generation import COLUMNS

    row = {
        "recipe": "gpt2-small", "num_rows": 8, "draft_tokens": 0, "ratio": 1.5, "ratio_min": 1.4, "ratio_max": 1.6,
        "our_tokens_per_second": 100.0, "their_tokens_per_second": 66.0, "our_peak_bytes": 1e9, "their_peak_bytes": 2e9,
        "equal": True,
    }  # fmt: skip
    assert len(cells(row)) == len(COLUMNS)
