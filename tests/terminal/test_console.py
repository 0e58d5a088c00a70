"""The console as a person uses it: a real terminal, real keys, the real engine."""

from __future__ import annotations

import os
import signal

import pytest

from engine.events import CheckpointWritten, RunEnded, RunPaused
from engine.run import Journal, Run
from tests.terminal.conftest import LONG, QUICK, Tmux, held, only_run, recipe, the_end_of


@pytest.mark.slow
def test_the_whole_way_by_keyboard(tmux: Tmux, epochal: str):
    """Survive an old mouse report, fill in a field, train, pause, resume, stop, see chart and log, quit."""
    tmux.open(epochal)
    tmux.wait("epochal", "default recipe", "ready")
    tmux.run("send-keys", "-t", "s", "-H", "1b", "5b", "4d", "20", "c8", "ff")  # bytes that are no UTF-8
    tmux.press("Escape")  # alone: read together with the next key it would be Alt and that key
    tmux.until(lambda: "First steps" not in tmux.screen(), "the first steps to close")
    tmux.press("/")
    tmux.wait("part of a key")
    tmux.type("passes over")
    tmux.press("Enter")
    tmux.wait("training.epochs", "default 20")
    tmux.type("100000")
    tmux.wait("100000", "• epochs")
    tmux.press("Escape", "Escape")
    tmux.wait("digits-mlp")
    tmux.press("r")
    tmux.wait("1 Chart", "3 Epochs", "/100000", "best val loss")
    tmux.press("Space")
    tmux.wait("paused")
    tmux.press("Space")
    tmux.until(lambda: "paused" not in tmux.screen(), "it to go on")
    tmux.press("4")
    tmux.wait("4 Device", "mem")
    tmux.press("1")
    tmux.wait("1 Chart", "┤")
    tmux.press("s")
    tmux.wait("stopped")
    tmux.press("6")
    tmux.wait("stopped by the user", "epochal resume")
    tmux.press("q")
    tmux.wait("status 0", "go on")
    events, problems = Journal.read(only_run(tmux.where).journal.path)
    assert not problems and isinstance(events[-1], RunEnded) and events[-1].state == "stopped"
    for kind in (RunPaused, CheckpointWritten):
        assert any(isinstance(event, kind) for event in events)


@pytest.mark.slow
def test_to_the_end_resumed_another_run_left_and_attached(tmux: Tmux, epochal: str):
    """A run to its end and beyond; a second one with its recipe, which is left, attached to and stopped."""
    tmux.open(f"{epochal} {recipe(tmux.where, QUICK)}", 120, 40)
    tmux.wait("recipe.toml", "ready")
    tmux.press("r")
    screen = tmux.wait("finished", "all 2 epochs done", "Summary")
    assert all(pane in screen for pane in ("1 Chart", "2 Recipe", "3 Epochs", "4 Device", "5 Output"))
    tmux.press("a")
    tmux.wait("runs · 1", "quick", "finished", "2/2")
    tmux.press("r")
    tmux.wait("How many in all?")
    tmux.press("Enter")
    tmux.wait("all 4 epochs done")
    tmux.press("n")
    tmux.wait("as in ")
    tmux.press("/")
    tmux.wait("part of a key")
    tmux.type("passes over")
    tmux.press("Enter")
    tmux.wait("training.epochs")
    tmux.type("100000")
    tmux.press("C-r")
    tmux.wait("/100000", "best val loss")
    tmux.press("q")
    tmux.wait("A run is training", "kill now")
    tmux.press("d")
    tmux.wait("status 0", "epochal attach")
    tmux.open(f"{epochal} attach", name="again")
    tmux.wait("1 Chart", "/100000", "attached to process")
    tmux.press("a")
    tmux.wait("runs · 2", "1 at work")
    tmux.press("r")
    tmux.wait("Enter attaches")
    tmux.press("Enter")
    tmux.wait("3 Epochs")
    tmux.press("s")
    tmux.wait("■ stopped")
    tmux.press("q")
    tmux.wait("status 0")
    assert sorted(run.state for run in Run.list(tmux.where / "runs")) == ["finished", "stopped"]


def test_killing_leaves_the_last_checkpoint(tmux: Tmux, epochal: str):
    tmux.open(f"{epochal} {recipe(tmux.where, LONG)}")
    tmux.wait("ready")
    tmux.press("r")
    tmux.wait("best val loss")
    tmux.press("q")
    tmux.wait("kill now")
    tmux.press("k")
    tmux.wait("status 130", "killed without saving")
    assert Run.list(tmux.where / "runs")[0].state == "died"


def test_a_termination_saves_and_restores_the_terminal(tmux: Tmux, epochal: str):
    tmux.open(f"{epochal} {recipe(tmux.where, LONG)}")
    tmux.wait("ready")
    tmux.press("r")
    tmux.wait("best val loss")
    os.kill(tmux.process(), signal.SIGTERM)
    tmux.wait("status 143")
    assert Run.list(tmux.where / "runs")[0].state == "stopped"


@pytest.mark.parametrize("name", ["bad.toml", "missing.toml"])
def test_a_recipe_that_can_not_be_read_is_one_sentence(tmux: Tmux, epochal: str, name: str):
    (tmux.where / "bad.toml").write_text("epochs = = 3")
    tmux.open(f"{epochal} {name}")
    screen = tmux.wait("status 2")
    assert name in screen and "Traceback" not in screen


def test_a_bug_of_the_console_does_not_end_the_training(tmux: Tmux, epochal: str):
    """The traceback is on the terminal, the shell has its prompt back, and the run goes on to its end, all on the record."""
    (tmux.where / "broken.py").write_text(
        "import sys\n"
        "from tui.__main__ import main\n"
        "from tui.screens.train import TrainScreen\n"
        "TrainScreen.action_log = lambda self: 1 / 0\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    tmux.open(f"{epochal.removesuffix('-m tui')} broken.py {held(tmux.where)}")
    tmux.wait("ready")
    tmux.press("r")
    tmux.wait("● running")
    tmux.press("y")
    tmux.wait("trains on in process", "epochal attach", "status 1")
    assert "ZeroDivisionError" in tmux.run("capture-pane", "-t", "s", "-p", "-S", "-500")
    (tmux.where / "go").touch()
    end = the_end_of(only_run(tmux.where))
    assert end.state == "finished" and end.epoch == 4
