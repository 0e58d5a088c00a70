"""A sample of `make torture`."""

from __future__ import annotations

from pathlib import Path

from tests.torture.cycles import Torture


def test_e1_f1_f2_f9_killed_at_random_moments_and_resumed(tmp_path: Path) -> None:
    tally = Torture(tmp_path, seed=0).go(25)
    assert tally.mismatches == [], str(tally)
    assert tally.damaged == 0 and tally.ended >= 3
    assert len(tally.kills) >= 3, f"killed in too few kinds of moment\n{tally}"
