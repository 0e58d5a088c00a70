"""The profile of a step accounts for all of it."""

from __future__ import annotations

import pytest

from tests.benchmarks.cases import cases
from tests.benchmarks.profile import PARTS, profile, table
from tests.benchmarks.start import first_step


def test_every_part_of_both_loops_has_its_row() -> None:
    case = cases("cpu", tiny=True)["digits"]
    found = profile(case, 2)
    assert set(found["epochal eager"]) == {*PARTS, "the whole step"}
    assert set(found["tutorial's loop"]) == {*PARTS, "the whole step"} - {"look for NaN"}
    lines = list(table(case, found))
    assert len(lines) == 2 + len(PARTS) + 2 and "the whole step" in lines[-1]


def test_the_first_step_is_reached_and_its_clocks_are_read() -> None:
    seconds, processor = first_step("--data", "line", "--model", "linear")
    assert seconds > 0 and processor == pytest.approx(seconds, abs=60)
