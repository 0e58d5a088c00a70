"""Event files and CSV in the console."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from textual.widgets import DataTable

from engine.track import event_files, foreign
from tests.tui.conftest import until
from tui.__main__ import main
from tui.app import Console
from tui.door import Engine
from tui.screens.overlay import OverlayScreen
from tui.screens.runs import RunsScreen
from tui.screens.train import TrainScreen
from tui.widgets.chart import Chart
from tui.widgets.epochs import EpochLog


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    foreign._known.clear()
    for name, factor in (("one/version_0", 1), ("two/version_0", 2)):
        (tmp_path / name).mkdir(parents=True)
        records = [event_files.scalars(1e9 + step, step, {"Loss/train": factor / step}) for step in range(1, 9)]
        (tmp_path / name / "events.out.tfevents.1").write_bytes(event_files.beginning(1e9, 0) + b"".join(records))
    (tmp_path / "log.csv").write_text("epoch,loss,val_loss\n0,1.0,1.5\n1,0.5,1.25\n")
    os.utime(tmp_path / "log.csv", (1e9, 1e9))  # nobody writes to it any more
    return tmp_path


async def test_runs_of_other_tools_are_listed_drawn_and_only_looked_at(gallery: Path) -> None:
    app = Console(Engine(gallery), {}, lists=True)
    async with app.run_test(size=(120, 40)) as pilot:
        await until(lambda: isinstance(app.screen, RunsScreen) and app.screen.query_one(DataTable).row_count == 3)
        table = app.screen.query_one(DataTable)

        def names() -> list[str]:  # what is known of a run may come later, and with it its place
            return [str(table.get_row_at(row)[1]) for row in range(table.row_count)]

        def marked() -> list[str]:
            return [name for row, name in enumerate(names()) if "◆" in str(table.get_row_at(row)[0])]

        assert sorted(names()) == ["log.csv", "one/version_0", "two/version_0"]
        for name in ("one/version_0", "two/version_0"):
            table.move_cursor(row=names().index(name))
            app.screen.action_mark()
            assert name in marked()
        await pilot.press("v")
        await until(lambda: isinstance(app.screen, OverlayScreen) and len(app.screen.query_one(Chart).others) == 1)
        chart = app.screen.query_one(Chart)
        both = [chart.run, *(name for name, _ in chart.others)]
        assert sorted(both) == ["one/version_0", "two/version_0"]
        await pilot.press("escape", "escape")
        table.move_cursor(row=names().index("log.csv"))
        app.screen.action_open()
        await until(lambda: isinstance(app.screen, TrainScreen) and len(app.screen.query_one(EpochLog)._rows) > 2)
        rows = ["".join(text for text, _ in row) for row in app.screen.query_one(EpochLog)._rows]
        assert "0.5000" in rows[2] and "1.250" in rows[2] and "best" in rows[2]
        await pilot.press("space")
        sentence = "another tool wrote this run: it can be looked at, and nothing else"
        await until(lambda: [notification.message for notification in app._notifications][-1:] == [sentence])


def test_without_a_terminal_they_are_listed(gallery: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["view", str(gallery)]) == 0
    assert capsys.readouterr().out.count("recorded") == 3
    assert main(["plot", "log.csv", "--runs", str(gallery), "--height", "10"]) == 0
    drawn = capsys.readouterr().out
    assert "train 0.5" in drawn and "val 1.25" in drawn
