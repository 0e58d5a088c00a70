"""The panes of a run, drawn from scripted histories and read from the screen."""

import math
from dataclasses import replace

import pytest
from textual.app import App, ComposeResult
from textual.containers import Vertical

from engine.events import Progress, Trained
from engine.history import History
from tests.tui import scripted
from tests.tui.scripted import line_with, screen_lines, screen_text
from tui.widgets.chart import Chart
from tui.widgets.epochs import EpochLog
from tui.widgets.progress import RunProgress, TitleLine, progress_rows, title_row
from tui.widgets.rows import length
from tui.widgets.summary import Summary, summary_rows

SIZES = [(80, 24), (120, 40)]


class Stage(App):
    """The panes one below the other."""

    CSS = "Chart { height: 1fr; } EpochLog { height: 11; }"

    def compose(self) -> ComposeResult:
        yield TitleLine(clock=lambda: scripted.START + 78)
        yield RunProgress()
        with Vertical():
            yield Chart()
            yield EpochLog()

    def show(self, history: History) -> None:
        for pane in (TitleLine, RunProgress, Chart, EpochLog):
            self.query_one(pane).show(history)


@pytest.fixture(params=["color", "no color", "ascii"])
def look(request, monkeypatch):
    """Run the test in colour, without, and in ASCII."""
    monkeypatch.delenv("EPOCHAL_ASCII", raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    if request.param != "color":
        monkeypatch.setenv("NO_COLOR" if request.param == "no color" else "EPOCHAL_ASCII", "1")
    return request.param


@pytest.mark.parametrize("size", SIZES)
def test_a_long_name_does_not_push_away_what_the_run_does(size):
    history = scripted.history_of(replace(scripted.started(3), name="very-long-" * 20))
    row = "".join(text for text, _ in title_row(history, size[0], scripted.START))
    assert len(row) == size[0] and "very-long-" in row and "… ─" in row and row.endswith("starting ")


@pytest.mark.parametrize("size", SIZES)
async def test_a_running_run(size, look):
    app = Stage()
    async with app.run_test(size=size) as pilot:
        app.show(scripted.running_history())
        await pilot.pause()
        text = screen_text(app)
        title, run, epoch = screen_lines(app)[:3]
        assert "digits-mlp" in title and "running" in title and "ckpt 0:22 ago" in title
        assert "33%" in run and "epoch 7/20" in run and "left 2:03" in run and "elapsed 1:01" in run
        assert "61%" in epoch and "12.0k steps/s" in epoch and "best val loss 0.4165 at epoch 6" in epoch
        assert "loss" in text and "smoothing 0.6" in text and "log y" in text and "whole run" in text
        assert "train" in line_with(app, "best 0.4165") and "val" in line_with(app, "best 0.4165")
        star = "*" if look == "ascii" else "★"
        assert f"0.4165 {star}" in line_with(app, "lr x0.5")
        assert "61%" in line_with(app, "> 7" if look == "ascii" else "▸ 7")
        assert look == "ascii" or any(0x2800 < ord(character) < 0x2900 for character in text)
        assert look != "ascii" or all(line.isascii() for line in screen_lines(app)[:12])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("name", "state"),
    [("empty", "◌ starting"), ("paused", "‖ paused"), ("continued", "● running"), ("finished", "✓ finished"),
     ("stopped", "■ stopped"), ("failed", "✗ failed")],
)  # fmt: skip
async def test_every_state_is_a_word_and_a_symbol(name, state, size):
    app = Stage()
    async with app.run_test(size=size) as pilot:
        app.show(getattr(scripted, f"{name}_history")())
        await pilot.pause()
        assert state in screen_lines(app)[0]
        assert all(len(line) <= size[0] for line in screen_lines(app))


@pytest.mark.parametrize("size", [(20, 10), (8, 5), (1, 1), (300, 80)])
@pytest.mark.parametrize("name", ["empty", "running", "finished", "failed"])
async def test_no_size_is_too_small(name, size):
    app = Stage()
    async with app.run_test(size=size) as pilot:
        app.show(getattr(scripted, f"{name}_history")())
        await pilot.pause()
        assert len(screen_lines(app)) == size[1]


async def test_panes_follow_a_new_size():
    app = Stage()
    async with app.run_test(size=(120, 40)) as pilot:
        app.show(scripted.running_history())
        await pilot.resize_terminal(80, 24)
        await pilot.pause()
        assert "epoch 7/20" in screen_lines(app)[1]
        assert "▸ 7" in screen_text(app)  # the log still shows its end
        assert len(line_with(app, "└┬").rstrip("│")) <= 79


async def test_an_unknown_total_has_counts_and_no_bar():
    history = scripted.history_of(scripted.started(20, steps=None), scripted.progress(1, 40, batches=None))
    app = Stage()
    async with app.run_test(size=(80, 24)) as pilot:
        app.show(history)
        await pilot.pause()
        run, epoch = screen_lines(app)[1:3]
        assert "step 40" in run and "%" not in run and "█" not in run
        assert "batch 40" in epoch and "%" not in epoch and "█" not in epoch


async def test_validation_is_named_in_the_bars():
    history = scripted.running_history()
    history.apply(scripted.progress(7, 2, phase="validate", batches=12))
    app = Stage()
    async with app.run_test(size=(80, 24)) as pilot:
        app.show(history)
        await pilot.pause()
        assert "● validating" in screen_lines(app)[0]
        assert "valid." in screen_lines(app)[2] and "17%" in screen_lines(app)[2]
        assert "validating 16%" in line_with(app, "▸ 7")


@pytest.mark.parametrize("pane", [Chart, EpochLog])
async def test_what_did_not_change_is_not_painted_again(pane, monkeypatch):
    history = scripted.running_history()
    painted = []
    paint = pane.render_line
    monkeypatch.setattr(pane, "render_line", lambda self, y: painted.append(y) or paint(self, y))

    class One(App):
        def compose(self) -> ComposeResult:
            yield pane()

    app = One()
    async with app.run_test(size=(80, 24)) as pilot:
        app.query_one(pane).show(history)
        await pilot.pause()
        assert len(painted) > 5
        painted.clear()
        history.apply(scripted.progress(7, 238, epochs=20))  # nothing that these panes draw
        app.query_one(pane).show(history)
        await pilot.pause()
        assert painted == []
        history.apply(scripted.progress(7, 300))
        app.query_one(pane).show(history)
        await pilot.pause()
        assert painted == ([7] if pane is EpochLog else [])  # the row of the epoch under way


class TestSummary:
    class One(App):
        def compose(self) -> ComposeResult:
            yield Summary()

    async def test_a_finished_run(self):
        app = self.One()
        async with app.run_test(size=(80, 24)) as pilot:
            app.query_one(Summary).show(scripted.finished_history())
            await pilot.pause()
            text = screen_text(app)
            assert "✓ finished  all epochs done" in text
            assert "1:04" in text and "42.2 steps/s" in text
            assert line_with(app, "val/loss").strip("│ ").split()[:4] == ["val/loss", "0.4165", "★", "6"]
            assert line_with(app, "val/accuracy").strip("│ ").split()[:4] == ["val/accuracy", "0.9332", "6", "0.9135"]
            assert scripted.PATH in text
            assert "epochal resume 20261122-140312-digits-mlp --epochs 14" in text

    async def test_a_stopped_run_goes_on_as_it_was_planned(self):
        app = self.One()
        async with app.run_test(size=(80, 24)) as pilot:
            app.query_one(Summary).show(scripted.stopped_history())
            await pilot.pause()
            assert "■ stopped  stopped by the user" in screen_text(app)
            assert line_with(app, "epochal resume").strip("│ ").endswith("digits-mlp")

    async def test_a_resumed_run_counts_the_epochs_that_it_knows(self):
        noise = scripted.random.Random(1)
        history = scripted.history_of(
            scripted.started(4, step=2 * scripted.STEPS), *scripted.epoch_events(3, noise), *scripted.epoch_events(4, noise)
        )
        history.apply(scripted.ended(history, "finished", "all epochs done"))
        app = self.One()
        async with app.run_test(size=(80, 24)) as pilot:
            app.query_one(Summary).show(history)
            await pilot.pause()
            assert "42.2 steps/s, val included" in screen_text(app)

    async def test_nothing_before_the_end(self):
        app = self.One()
        async with app.run_test(size=(80, 24)) as pilot:
            app.query_one(Summary).show(scripted.running_history())
            await pilot.pause()
            assert "0.4165" not in screen_text(app)

    async def test_a_run_that_failed_before_its_first_epoch(self):
        history = scripted.history_of(scripted.started())
        history.apply(scripted.ended(history, "failed", "out of memory"))
        app = self.One()
        async with app.run_test(size=(80, 24)) as pilot:
            app.query_one(Summary).show(history)
            await pilot.pause()
            assert "✗ failed  out of memory" in screen_text(app)


def test_histories_are_what_they_say():
    assert scripted.finished_history().best.epoch == 6
    assert scripted.running_history().state == "running"
    assert isinstance(scripted.running_history().progress, Progress)
    assert math.isnan(list(scripted.failed_history().curve("train/loss"))[-1][1])


async def test_the_gradient_norm_is_one_of_the_metrics():
    history = scripted.history_of(scripted.started())
    history.apply(
        Trained(epoch=1, first=1, step=3, every=1, loss=(2.0, 1.9, 1.8), low=(), high=(), lr=(1e-3,) * 3, norm=(5.0, 4.0, 3.0))
    )
    app = Stage()
    async with app.run_test(size=(120, 40)) as pilot:
        app.show(history)
        chart = app.query_one(Chart)
        chart.cycle_metric()
        await pilot.pause()
        assert (
            chart.metric == "gradient norm"
            and "gradient norm" in screen_text(app)
            and "gradient norm 3.000" in screen_text(app)
        )
        app.show(scripted.running_history())
        await pilot.pause()
        assert chart.metric == "loss", "a run without it shows its loss"


@pytest.mark.parametrize("width", [24, 40, 80, 120])
def test_wide_characters_push_nothing_off_the_title(width: int):
    row = title_row(scripted.wide_history(), width, scripted.START)
    assert length(row) == width and row[-2][0] == "finished"


def test_wide_characters_keep_the_columns():
    rows = ["".join(text for text, _ in row) for row in summary_rows(scripted.wide_history(), 66)]
    table = rows[next(i for i, row in enumerate(rows) if row.startswith(" metric")) :][: 1 + len(scripted.WIDE)]
    assert len({length([(row.rstrip(), "")]) for row in table}) == 1, table


def test_the_summary_says_how_many_parameters_were_trained_of_how_many():
    history = scripted.wide_history()
    history.apply(replace(history.started, parameters=650, frozen=8960, freeze_epochs=3))
    history.apply(scripted.ended(history, "finished", "all epochs done"))
    rows = ["".join(text for text, _ in row) for row in summary_rows(history, 66)]
    assert " trained 650 of 9,610 parameters, all after 3 epochs" in rows


@pytest.mark.parametrize("width", [40, 48, 60, 71, 72, 80])
@pytest.mark.parametrize("history", [scripted.running_history(), scripted.finished_history()], ids=["running", "finished"])
def test_the_best_is_whole_on_a_narrow_screen(width: int, history: History):
    row = progress_rows(history, width)[1]
    assert length(row) <= width and row[-1][0] == "★"


@pytest.mark.parametrize("width", [80, 100, 120])
def test_the_bars_keep_their_length_while_the_numbers_beside_them_grow(width: int):
    def cells(rate: float, left: float) -> set[int]:
        history = scripted.running_history()
        now = replace(scripted.progress(7, 9), steps_per_second=rate, samples_per_second=32 * rate, left=left)
        history.apply(now)
        return {length(row[1:3]) for row in progress_rows(history, width)}

    assert len(set.union(*(cells(rate, 59.0) for rate in (8, 47.5, 950, 12_000)), cells(8, 599.0))) == 1


def test_the_command_that_goes_on_is_in_sight_whole():
    text = ["".join(text for text, _ in row) for row in summary_rows(scripted.finished_history(), 60)]
    assert [line.strip() for line in text[-2:]] == ["go on   epochal resume 20261122-140312-digits-mlp \\", "--epochs 14"]
    assert summary_rows(scripted.finished_history(), 66)[-1][1][0].endswith("digits-mlp --epochs 14")


def test_saving_after_an_epoch_has_no_share_of_one():
    history = scripted.running_history()
    history.apply(replace(scripted.progress(7, 0), phase="save"))
    text = "".join(text for text, _ in progress_rows(history, 120)[1])
    assert text.startswith(" save") and "%" not in text and "best val loss" in text
