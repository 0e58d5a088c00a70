"""The list of epochs, drawn from scripted histories and read from the screen."""

import contextlib

import pytest
from textual.actions import SkipAction
from textual.app import App, ComposeResult

from engine.events import EpochEnded, RunStarted
from tests.tui import scripted
from tests.tui.scripted import line_with, screen_lines, screen_text
from tui.widgets.epochs import EpochLog
from tui.widgets.rows import length


class TestEpochLog:
    @staticmethod
    def app() -> App:
        class One(App):
            def compose(self) -> ComposeResult:
                yield EpochLog()

        return One()

    async def test_one_row_an_epoch_and_one_star(self):
        app = self.app()
        async with app.run_test(size=(80, 24)) as pilot:
            history = scripted.history_of(scripted.started(7))
            noise = scripted.random.Random(1)
            for epoch in range(1, 8):
                for event in scripted.epoch_events(epoch, noise):
                    history.apply(event)
                app.query_one(EpochLog).show(history)
                await pilot.pause()
            rows = [line for line in screen_lines(app) if "0:09" in line]
            assert [int(row.strip("│ ").split()[0]) for row in rows] == [1, 2, 3, 4, 5, 6, 7]
            assert [row for row in rows if "★" in row] == [rows[5]]
            assert "lr x0.5 · best" in rows[5]
            assert rows[6].split()[1:6] == ["7", "0.3706", "0.4224", "0.9135", "3.0e-4"]

    async def test_a_note_that_has_no_room_ends_in_dots(self):
        app = self.app()
        async with app.run_test(size=(52, 24)) as pilot:
            log = app.query_one(EpochLog)
            log.show(scripted.finished_history())
            await pilot.pause()
            assert "lr x0…" in line_with(app, "★") and not log.show_horizontal_scrollbar
            await pilot.resize_terminal(80, 24)
            await pilot.pause()
            assert "lr x0.5 · best" in line_with(app, "★")

    async def test_columns_are_aligned(self):
        app = self.app()
        async with app.run_test(size=(80, 24)) as pilot:
            app.query_one(EpochLog).show(scripted.finished_history())
            await pilot.pause()
            lines = screen_lines(app)[1:9]
            for head, value in (("train", "0.3706"), ("accuracy", "0.9135"), ("time", "0:09")):
                assert lines[0].index(head) + len(head) == lines[7].index(value) + len(value)

    async def test_another_metric_in_a_later_epoch_gets_a_column(self):
        history = scripted.running_history()
        app = self.app()
        async with app.run_test(size=(80, 24)) as pilot:
            app.query_one(EpochLog).show(history)
            history.apply(
                EpochEnded(
                    epoch=7, step=2730, metrics={"train/loss": 123.4, "val/mae": 0.25}, lr=0.1, seconds=4000.0, best=False
                )
            )
            app.query_one(EpochLog).show(history)
            await pilot.pause()
            assert "mae" in screen_text(app)
            assert line_with(app, "0.2500").strip("│ ").split() == ["7", "123.4", "–", "–", "0.2500", "0.1", "1:06:40"]
            assert line_with(app, "0.4165").strip("│ ").split()[:6] == ["6", "0.3895", "0.4165", "★", "0.9332", "–"]

    async def test_without_validation_the_training_loss_has_the_star(self):
        started = scripted.started(3)
        history = scripted.history_of(
            RunStarted(**{name: getattr(started, name) for name in started.__slots__} | {"monitor": "train/loss", "time": 0.0}),
            EpochEnded(epoch=1, step=10, metrics={"train/loss": 0.5}, lr=0.1, seconds=1.0, best=True),
        )
        app = self.app()
        async with app.run_test(size=(80, 24)) as pilot:
            app.query_one(EpochLog).show(history)
            await pilot.pause()
            assert "0.5000 ★" in screen_text(app)

    async def test_it_follows_its_end_unless_scrolled_away(self):
        app = self.app()
        async with app.run_test(size=(80, 10)) as pilot:
            log, history = app.query_one(EpochLog), scripted.history_of(scripted.started(40))
            noise = scripted.random.Random(1)

            async def grow(first: int, last: int) -> None:
                for epoch in range(first, last + 1):
                    for event in scripted.epoch_events(epoch, noise):
                        history.apply(event)
                log.show(history)
                await pilot.pause()

            await grow(1, 20)
            assert " 20 " in screen_lines(app)[-2]
            await grow(21, 22)
            assert " 22 " in screen_lines(app)[-2]
            log.focus()
            await pilot.press("home")
            await grow(23, 25)
            assert "epoch" in screen_lines(app)[1]
            assert " 1 " in screen_lines(app)[2]
            await pilot.press("end")
            await grow(26, 27)
            assert " 27 " in screen_lines(app)[-2]

    @pytest.mark.parametrize("laid_out", [True, False])
    async def test_home_holds_where_an_epoch_comes_in_before_the_next_frame(self, laid_out):
        app = self.app()
        async with app.run_test(size=(80, 10)) as pilot:
            log, history = app.query_one(EpochLog), scripted.history_of(scripted.started(40))
            if not laid_out:  # a tab that was not looked at yet
                await log.remove()
                log = EpochLog()
                log.display = False
                await app.mount(log)
                log.display = True
            for epoch in range(1, 31):
                for event in scripted.epoch_events(epoch, scripted.random.Random(1)):
                    history.apply(event)
                if epoch == 25:
                    log.show(history)
                    with contextlib.suppress(SkipAction):
                        log.action_scroll_home()
            log.show(history)
            await pilot.pause()
            assert " 1 " in screen_lines(app)[2]

    async def test_another_history_begins_anew(self):
        app = self.app()
        async with app.run_test(size=(80, 24)) as pilot:
            log = app.query_one(EpochLog)
            log.show(scripted.finished_history())
            log.show(scripted.history_of(scripted.started(), *scripted.epoch_events(1, scripted.random.Random(1))))
            await pilot.pause()
            assert sum("0:09" in line for line in screen_lines(app)) == 1

    async def test_columns_close_up_where_room_is_scarce(self):
        app = self.app()
        async with app.run_test(size=(80, 24)) as pilot:
            app.query_one(EpochLog).show(scripted.finished_history())
            await pilot.pause()
            wide = line_with(app, "accuracy")
            await pilot.resize_terminal(52, 24)
            await pilot.pause()
            assert len(line_with(app, "accuracy").rstrip("│ ")) < len(wide.rstrip("│ ")) - 6
            assert "0.4165 ★" in screen_text(app)
            await pilot.resize_terminal(80, 24)
            await pilot.pause()
            assert line_with(app, "accuracy") == wide

    @pytest.mark.parametrize("size", [(80, 24), (120, 40)])
    async def test_an_epochs_notes_are_in_its_row(self, size):
        app = self.app()
        async with app.run_test(size=size) as pilot:
            metrics, notes = scripted.metrics_at(1), ("3 steps left out",)
            epoch = EpochEnded(epoch=1, step=390, metrics=metrics, lr=6e-4, seconds=9.0, best=True, notes=notes)
            app.query_one(EpochLog).show(scripted.history_of(scripted.started(), epoch))
            await pilot.pause()
            assert "3 steps left out · best" in screen_text(app)

    async def test_wide_heads_stand_over_their_columns(self):
        app = self.app()
        async with app.run_test(size=(80, 12)):
            log = app.query_one(EpochLog)
            log.show(scripted.wide_history())
            heads, row = log._rows[0], log._rows[1]
            ends = [[length(cells[: i + 1]) for i, (text, _) in enumerate(cells) if text.strip()] for cells in (heads, row)]
            assert ends[0][:4] == [end for end in ends[1] if end in ends[0]][:4]
