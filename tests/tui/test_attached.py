"""Runs of other processes on the screen: followed, steered, started, listed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from textual.widgets import Static

from engine.events import CheckpointFailed, CheckpointWritten, Message, Rewound, RunEnded, RunPaused, SettingChanged
from engine.history import History
from tests.tui import scripted
from tests.tui.conftest import SMALL, WIDE, ScriptedEngine, ScriptedFollower, cells, drawn, ready, run_summary, until
from tests.tui.scripted import screen_lines, screen_text
from tests.tui.test_app import training
from tui.app import Console
from tui.background import Begun, Starting
from tui.screens.runs import RunsScreen
from tui.screens.train import TrainScreen
from tui.widgets.chart import Chart
from tui.widgets.epochs import EpochLog
from tui.widgets.output import OutputPane

NAME = "20261122-140312-digits-mlp"
RUN = Path("runs") / NAME


@pytest.fixture
def follower(engine: ScriptedEngine) -> ScriptedFollower:
    """A run of another process, at work."""
    engine.runs_there = [
        run_summary(NAME, "running", host="gpu3"),
        run_summary("20261121-140312-iris", "died", best={}, epoch=0, epochs=None),
    ]
    engine.followers[NAME] = ScriptedFollower(alive=True)
    engine.followers[NAME].events = [scripted.started(20), scripted.progress(1, 100)]
    return engine.followers[NAME]


@pytest.fixture
def attached(engine: ScriptedEngine, follower: ScriptedFollower) -> Console:
    """A console that is opened on it."""
    return Console(engine, {"name": "digits-mlp"}, attach=RUN)


async def watching(console: Console, pilot) -> TrainScreen:
    await until(lambda: isinstance(console.screen, TrainScreen) and console.screen.shown.history.progress)
    return await drawn(console)


async def test_an_attached_run_is_shown_and_steered_through_its_directory(attached: Console, engine: ScriptedEngine, follower):
    async with attached.run_test(size=WIDE) as pilot:
        await watching(attached, pilot)
        await until(
            lambda: "● running" in screen_text(attached) and "attached to process 4321 on gpu3" in screen_text(attached)
        )
        await pilot.press("c", "v", "space")
        await until(lambda: [ask for _, ask, _ in engine.told] == ["checkpoint", "validate", "pause"])
        await until(lambda: "◌ pausing" in screen_text(attached))  # a step may be long, and the notice goes
        follower.events.append(RunPaused(step=100))
        await until(lambda: "‖ paused" in screen_text(attached))
        await pilot.press("space", "s")
        await until(lambda: "◌ stopping" in screen_text(attached))
        await until(lambda: engine.told[3:] == [(NAME, "resume", {}), (NAME, "stop", {"reason": "stopped by the user"})])
        assert not attached.preload.ready.is_set(), "to look on needs no torch"
        assert not attached.form.query("Group"), "nor the form's fields"
        follower.events.append(RunEnded(state="stopped", reason="stopped by the user", epoch=0, step=100, seconds=1.0, best={}))
        await until(lambda: "■ stopped" in screen_text(attached) and "6 Summary" in screen_text(attached))
        await pilot.press("space")
        assert len(engine.told) == 5, "a run that is over is told nothing"
        await pilot.press("n")
        await until(lambda: attached.form.takes_keys and attached.form.query("Group"))


@pytest.mark.parametrize("key", ["q", "d"])
async def test_q_and_d_just_leave_an_attached_run(attached: Console, engine: ScriptedEngine, key: str):
    async with attached.run_test(size=SMALL) as pilot:
        await watching(attached, pilot)
        await pilot.press(key)
    assert attached.return_value == "quit" and not engine.told
    assert attached.left == f"{NAME} goes on: epochal attach {NAME}"


async def test_a_run_that_died_says_how_to_go_on_and_lives_again_when_it_is_resumed(attached: Console, follower):
    async with attached.run_test(size=WIDE) as pilot:
        await watching(attached, pilot)
        reason = f"its process is gone; epochal resume {NAME} goes on from step 60"
        follower.events.append(RunEnded(state="died", reason=reason, epoch=0, step=100, seconds=1.0, best={}))
        await until(lambda: "✗ died" in screen_text(attached) and f"epochal resume {NAME}" in screen_text(attached))
        follower.history = History()
        follower.alive = True
        follower.events += [scripted.started(20), scripted.progress(2, 7)]
        await until(lambda: "● running" in screen_text(attached) and "6 Summary" not in screen_text(attached))


async def test_a_request_that_can_not_be_made_is_one_sentence(attached: Console, engine: ScriptedEngine, monkeypatch):
    from engine.errors import RunError

    def refuse(*_, **__):
        raise RunError("it is not being trained")

    async with attached.run_test(size=SMALL) as pilot:
        await watching(attached, pilot)
        monkeypatch.setattr(engine, "tell", refuse)
        await pilot.press("c")
        await until(lambda: "it is not being trained" in [n.message for n in attached._notifications])


async def test_the_output_of_an_attached_run_follows_its_log(attached: Console, follower, tmp_path: Path):
    console = Console(attached.engine, {}, attach=tmp_path)
    attached.engine.followers[tmp_path.name] = follower
    follower.events.append(Message(text="a word of before", level="warning"))
    (tmp_path / "output.log").write_text("printed before\n")
    async with console.run_test(size=WIDE) as pilot:
        await watching(console, pilot)
        pane = console.screen.query_one(OutputPane)
        await until(lambda: any("warning: a word of before" in pane.render_line(y).text for y in range(3)))
        with (tmp_path / "output.log").open("a") as log:
            log.write("printed now\nwarning: told now\n")
        follower.events.append(Message(text="told now", level="warning"))
        await until(lambda: any("told now" in pane.render_line(y).text for y in range(3)))
        assert console.screen.shown.output.since(0).count("told now") == 1, "a console's run has its messages in its log"
        await until(lambda: [n.message for n in console._notifications] == ["told now"])


# the list of runs


async def test_enter_attaches_and_r_refuses(console: Console, engine: ScriptedEngine, follower):
    async with console.run_test(size=WIDE) as pilot:
        await ready(console)
        await pilot.press("a", "r")
        (told,) = [n.message for n in console._notifications]
        assert told == f"{NAME} is being trained by process 4321 on gpu3: Enter attaches to it"
        await pilot.press("enter")
        await watching(console, pilot)
        assert not engine.resumed


async def test_the_list_is_kept_up_without_losing_the_cursor(console: Console, engine: ScriptedEngine, follower, monkeypatch):
    monkeypatch.setattr(RunsScreen, "SECONDS", 0.1)
    async with console.run_test(size=WIDE) as pilot:
        await pilot.press("a", "down")
        assert isinstance(console.screen, RunsScreen)
        assert cells(console)[0][6] == "gpu3" and cells(console)[1][6] == ""
        assert "1 at work" in str(console.screen.query_one("#title", Static).render())
        new = run_summary("20261123-140312-new", "running", epoch=0)
        engine.runs_there = [new, engine.runs_there[0], engine.runs_there[1]]
        await until(lambda: len(cells(console)) == 3)
        await until(lambda: console.screen._at().endswith("iris"))
        engine.runs_there = [run_summary("20261123-140312-new", "running", epoch=1), *engine.runs_there[1:]]
        await until(lambda: cells(console)[0][3] == "1/2")
        await until(lambda: console.screen._at().endswith("iris"))
        engine.runs_there = engine.runs_there[2:]
        await until(lambda: len(cells(console)) == 1)
        assert len(cells(console)[0]) == 7, "no host, when all is here"


# started in the background


async def test_a_run_is_started_beside_the_one_of_this_console(console: Console, engine: ScriptedEngine, follower):
    async with console.run_test(size=WIDE) as pilot:
        await training(console, pilot)
        await pilot.press("n", "B")
        await until(lambda: "starting in the background" in str(console.form.query_one("#title", Static).render()))
        await pilot.press("B")
        assert len(engine.started) == 2, "one at a time"
        engine.begun = Begun(path=RUN)
        await until(lambda: isinstance(console.screen, TrainScreen) and console.screen.shown.path == RUN)
        assert console.training
        await pilot.press("n", "t")
        assert console.screen.shown is console.session


async def test_a_start_that_fails_says_why(console: Console, engine: ScriptedEngine):
    async with console.run_test(size=WIDE) as pilot:
        await ready(console)
        engine.begun = Begun(failure="cuda:7 is not there")
        await pilot.press("B")
        await until(lambda: "not started: cuda:7 is not there" in str(console.form.query_one("#banner", Static).render()))
        assert console.screen is console.form


@pytest.mark.parametrize(
    ("code", "begun"),
    [
        ("print('warming up'); print('{\"run\": \"runs/a\", \"pid\": 7}')", Begun(path=Path("runs/a"))),
        ("import sys; sys.stderr.write('epochal: it is wrong\\n'); sys.exit(2)",
         Begun(failure="it is wrong", printed="epochal: it is wrong\n")),
        ("raise KeyError('column')", Begun(failure="KeyError: 'column'")),
        ("import os; os.kill(os.getpid(), 9)", Begun(failure="the process was ended by SIGKILL, perhaps for want of memory")),
        ("pass", Begun(failure="the process said '' instead of where the run is")),
    ],
)  # fmt: skip
async def test_what_comes_of_starting(tmp_path: Path, code: str, begun: Begun):
    import sys

    starting = Starting([sys.executable, "-c", code], {"name": "x"}, tmp_path)
    found: list[Begun] = []
    await until(lambda: found.append(result) or True if (result := starting.poll()) is not None else False)
    assert (found[0].path, found[0].failure) == (begun.path, begun.failure)
    if begun.printed:
        assert found[0].printed == begun.printed


# what befell a run


async def test_a_checkpoint_that_the_disk_did_not_take_is_a_red_line(attached: Console, follower):
    async with attached.run_test(size=SMALL) as pilot:
        await watching(attached, pilot)
        said = "✗ checkpoint of step 1,200 not written: No space left on device"
        assert said not in screen_text(attached)
        follower.events.append(CheckpointFailed(step=1200, reason="No space left on device"))
        await until(lambda: said in screen_lines(attached)[3])
        follower.events.append(
            replace(follower.history.progress, phase="save")
        )  # it was stopped, and its last one has no place
        await until(lambda: "gives that up" in screen_text(attached))
        follower.events.append(CheckpointWritten(step=1300, epoch=3, path="step-00001300", best=False, seconds=0.1))
        await until(lambda: said not in screen_text(attached))


async def test_why_a_run_failed_is_on_every_page_of_a_small_screen(attached: Console, follower):
    async with attached.run_test(size=SMALL) as pilot:
        await watching(attached, pilot)
        why = "✗ ValueError: one too many   6 says more"
        follower.events.append(
            RunEnded(state="failed", reason="ValueError: one too many", epoch=1, step=9, seconds=1.0, best={})
        )
        await until(lambda: why in screen_lines(attached)[3])
        await pilot.resize_terminal(120, 40)
        await until(lambda: "6 Summary" in screen_text(attached))
        await until(lambda: why not in screen_text(attached))


async def test_changes_and_rewinds_are_noted_in_their_epoch_and_marked(attached: Console, follower):
    def changed(step: int, before: float | None, value: float | None, field: str = "optimizer.lr") -> SettingChanged:
        return SettingChanged(step=step, field=field, before=before, value=value)

    at = scripted.STEPS
    follower.events[1:] = [
        *scripted.running_history_events(3),
        changed(at + 5, 1e-3, 5e-4),
        changed(at + 9, None, 3.0, "training.patience"),
        changed(2 * at, 5e-4, 3e-4),
        Rewound(step=2 * at + 90, to=2 * at + 40, reason="the loss is not finite"),
    ]
    async with attached.run_test(size=(140, 40)) as pilot:
        await watching(attached, pilot)
        log = attached.screen.query_one(EpochLog)
        await until(lambda: len(log._rows) == 4)
        rows = [log.render_line(y).text.rstrip() for y in range(4)]
        assert rows[2].endswith("lr x0.5 · patience 3 · best") and not rows[1].endswith("0.5")
        assert rows[3].endswith("· lr 3.0e-4 · rewound to 820")
        chart = attached.screen.query_one(Chart)
        lines = [chart.render_line(y).text for y in range(chart.size.height)]
        assert "▲ rewound to 820" in lines[0] and any("▲" in line for line in lines[1:])


async def test_a_proposal_is_shown_and_opens_the_form_with_it(attached: Console, follower, engine: ScriptedEngine):
    async with attached.run_test(size=WIDE) as pilot:
        await watching(attached, pilot)
        await pilot.press("o")
        assert isinstance(attached.screen, TrainScreen)
        proposal = {"data.batch_size": 16, "training.epochs": 3}
        over = RunEnded(state="failed", reason="out of memory", epoch=0, step=9, seconds=1.0, best={}, proposal=proposal)
        follower.events.append(over)
        await until(lambda: "data.batch_size 16, training.epochs 3" in screen_text(attached))
        assert "o opens the form" in screen_text(attached)
        await pilot.press("o")
        await until(lambda: attached.screen is attached.form and attached.form.complete)
        assert attached.form.model.values["data"]["batch_size"] == 16 and attached.form.model.values["training"]["epochs"] == 3
        assert "but data.batch_size 16" in str(attached.form.query_one("#title", Static).render())
        assert not engine.started


# a part of the screen that fails


def boom(*_, **__):
    raise ZeroDivisionError("in my pane")


@pytest.mark.parametrize("where", ["_make", "draw_line", "on_resize"])
async def test_f7_a_pane_that_fails_is_out_of_use_and_the_rest_goes_on(
    console: Console, engine: ScriptedEngine, monkeypatch, where: str
):
    async with console.run_test(size=WIDE) as pilot:
        screen = await training(console, pilot)
        monkeypatch.setattr(Chart, where, boom)
        engine.events = []
        if where == "on_resize":
            await pilot.resize_terminal(130, 40)
        else:
            await pilot.press("m")
        await until(lambda: "this part failed: ZeroDivisionError: in my pane" in screen_text(console))
        await until(lambda: "Traceback" in console.output.since(0) and "in my pane" in console.output.since(0))
        await pilot.press("m", "y", "plus", "1", "3", "v")
        await until(lambda: "val/loss" in console.session.history.series)
        assert console.training and screen.query_one(EpochLog).has_focus
        engine.finish.set()
        await until(lambda: "✓ finished" in screen_text(console))
        assert console.output.since(0).count("Traceback") == 1


# leaving and being left


async def test_d_detaches_once_the_run_has_a_directory(console: Console):
    async with console.run_test(size=SMALL) as pilot:
        await training(console, pilot)
        await pilot.press("d")
    assert console.return_value == "detach" and console.training


async def test_d_after_the_end_says_that_there_is_nothing_to_leave(console: Console, engine: ScriptedEngine):
    async with console.run_test(size=SMALL) as pilot:
        await training(console, pilot)
        engine.finish.set()
        await until(lambda: not console.training)
        await pilot.press("d")
        assert console.return_value is None and isinstance(console.screen, TrainScreen)


async def test_a_paused_run_that_is_left_is_saved_and_stays_paused(engine: ScriptedEngine):
    from types import SimpleNamespace

    from tui.after import outlive
    from tui.session import Session
    from tui.terminal import Output

    session = Session(engine, Output())
    session.control.pause()
    session.start({})
    await until(lambda: session.history.paused)
    joined = []

    def join(seconds: float) -> bool:
        joined.append(seconds)
        done = bool(session.history.checkpoints)
        if done:
            assert session.history.paused and session.control.paused
            session.control.stop()
            return Session.join(session, 10)
        return Session.join(session, seconds)

    nobody = SimpleNamespace(look=lambda run: None, finish=lambda: None, problems=())
    outlive(SimpleNamespace(control=session.control, path=None, join=join), SimpleNamespace(), nobody)
    assert session.history.state == "stopped" and session.history.checkpoints
