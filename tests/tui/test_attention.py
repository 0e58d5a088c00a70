"""When a person is called, how, and when not: read from what goes to the terminal, to a command and to a webhook."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field

import pytest

from engine.events import Rewound, RunPaused, Trained
from engine.history import History
from engine.notify import STALL, Call
from tests.tui import scripted
from tests.tui.conftest import ScriptedEngine, ready, until
from tui.app import Console
from tui.attention import Attention, escapes

CALL = Call("end", "digits", "digits finished; all done\x1b]0;evil\x07")


@dataclass(eq=False)
class Run:
    """What a screen shows of a run."""

    history: History = field(default_factory=scripted.running_history)
    alive: bool = True


@dataclass
class Rig:
    """An attention whose clock, keyboard and terminal are in the test's hand."""

    environment: dict[str, str] = field(default_factory=dict)
    now: float = 0.0
    present: bool = False

    def __post_init__(self) -> None:
        self.written: list[str] = []
        self.attention = Attention(
            self.written.append, lambda: self.present, {"TERM": "xterm-256color", **self.environment}, lambda: self.now
        )

    def heard(self, run: Run) -> str:
        """What the terminal gets at the next look, all of it."""
        self.written.clear()
        self.attention.look(run)
        return "".join(self.written)


def nan_event() -> Trained:
    return Trained(epoch=7, first=2579, step=2588, every=10, loss=(math.nan,), low=(), high=(), lr=(1e-3,))


def test_the_end_is_told_once_with_the_best():
    rig, run = Rig(), Run()
    assert rig.heard(run) == ""
    run.history.apply(scripted.ended(run.history, "finished", "all epochs done"))
    run.alive = False
    assert rig.heard(run) == "\x1b]9;digits-mlp finished: all epochs done; best val/loss 0.4165 at epoch 6\x07\x07"
    assert rig.heard(run) == ""


def test_a_failure_says_why():
    rig, run = Rig(), Run()
    rig.heard(run)
    run.history.apply(scripted.ended(run.history, "failed", "out of memory"))
    assert "digits-mlp failed: out of memory" in rig.heard(run)


def test_not_a_number_is_told_once_and_each_rewind():
    rig, run = Rig(), Run()
    rig.heard(run)
    run.history.apply(nan_event())
    assert "the loss is not a finite number" in rig.heard(run)
    run.history.apply(nan_event())
    assert rig.heard(run) == ""
    for _ in range(2):
        run.history.apply(Rewound(step=2600, to=2340, reason="the loss was nan"))
        assert "the loss was nan at step 2,600; it goes on from step 2,340" in rig.heard(run)


def test_a_run_that_says_nothing_is_told_once_until_it_goes_on():
    rig, run = Rig(), Run()
    rig.heard(run)
    rig.now = STALL - 1
    assert rig.heard(run) == ""
    rig.now = STALL + 1
    assert "has not said a word for 2:01" in rig.heard(run)
    rig.now += 1000
    assert rig.heard(run) == ""
    run.history.apply(scripted.progress(7, 300))
    assert rig.heard(run) == ""
    rig.now += STALL + 1
    assert "has not said a word" in rig.heard(run)


def test_a_run_that_is_slow_by_nature_or_paused_or_over_does_not_stall():
    rig, run = Rig(), Run()
    for batch in range(240, 244):  # a step takes a minute and a half
        rig.heard(run)
        rig.now += 90
        run.history.apply(scripted.progress(7, batch))
    rig.heard(run)
    rig.now += 5 * STALL
    assert rig.heard(run) == ""
    run.history.apply(RunPaused(step=10))
    rig.heard(run)
    rig.now += 1e6
    assert rig.heard(run) == ""
    run.history.paused, run.alive = False, False
    rig.now += 1e6
    assert rig.heard(run) == ""


def test_what_was_over_before_is_no_news():
    rig, run = Rig(), Run(History(), alive=False)
    rig.heard(run)  # nothing is read yet
    run.history = scripted.failed_history()
    assert rig.heard(run) == ""


def test_a_run_that_is_over_before_the_first_look_is_told():
    rig, run = Rig(), Run(History(), alive=False)
    rig.attention.expect(run)
    run.history = scripted.running_history()
    run.history.apply(scripted.ended(run.history, "finished", "all epochs done"))
    assert "digits-mlp finished: all epochs done" in rig.heard(run)


@pytest.mark.parametrize(
    ("setting", "present", "told"),
    [("", True, False), ("", False, True), ("always", True, True), ("off", False, False), ("auto", False, True)],
)
def test_who_is_at_the_keyboard_is_left_alone(setting, present, told):
    rig = Rig({"EPOCHAL_ATTENTION": setting} if setting else {}, present=present)
    rig.attention.call(CALL)
    assert bool(rig.written) == told


@pytest.mark.parametrize(
    ("environment", "ways", "codes"),
    [({"TERM": "xterm-256color"}, {"auto"}, "\x1b]9;TEXT\x07\x07"),
     ({"TERM": "xterm-256color", "VTE_VERSION": "7600"}, {"auto"}, "\x1b]777;notify;epochal;TEXT\x07\x07"),
     ({"TERM": "foot"}, {"auto"}, "\x1b]777;notify;epochal;TEXT\x07\x07"),
     ({"TERM": "linux"}, {"auto"}, "\x07"), ({}, {"auto"}, "\x07"),
     ({"TERM": "xterm"}, {"bell"}, "\x07"), ({"TERM": "xterm"}, {"osc777"}, "\x1b]777;notify;epochal;TEXT\x07"),
     ({"TERM": "tmux-256color", "TMUX": "/tmp/x"}, {"auto"}, "\x1bPtmux;\x1b\x1b]9;TEXT\x07\x1b\\\x07"),
     ({"TERM": "screen", "STY": "1.x"}, {"osc9"}, "\x1bP\x1b]9;TEXT\x07\x1b\\")],
)  # fmt: skip
def test_each_terminal_gets_the_codes_that_it_knows(environment, ways, codes):
    told = escapes(CALL, ways, environment)
    text = "digits finished, all done]0,evil" if "777" in codes else "digits finished; all done]0;evil"
    assert told == codes.replace("TEXT", text), "and no control character of a run's own name or reason"


def test_a_setting_that_means_nothing_is_named():
    (sentence,) = Rig({"EPOCHAL_ATTENTION": "bell,loud"}).attention.problems
    assert "loud" in sentence and "osc777" in sentence


async def test_the_console_calls_when_nobody_is_there(console: Console, engine: ScriptedEngine, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("TMUX", "STY", "VTE_VERSION", "EPOCHAL_ATTENTION", "EPOCHAL_NOTIFY"):
        monkeypatch.delenv(name, raising=False)
    written: list[str] = []
    async with console.run_test(size=(80, 24)) as pilot:
        monkeypatch.setattr(console._driver, "write", written.append)
        await ready(console)
        await pilot.press("r")
        await until(lambda: console.session and console.session.history.progress)
        console._attend()
        assert console._present(), "a key was just pressed"
        console.app_focus = False  # another window has the keyboard
        engine.finish.set()
        await until(lambda: console.session.history.ended and not console.session.alive)
        console._attend()
        await until(lambda: any("\x1b]9;digits-mlp finished: all epochs done\x07\x07" in text for text in written))


def told_by(tmp_path) -> dict[str, str]:
    """The setting of a command that keeps what it is told in the file `told`."""
    (tmp_path / "tell.py").write_text(f"import sys; open({str(tmp_path / 'told')!r}, 'a').write(sys.argv[1] + chr(10))")
    return {"EPOCHAL_NOTIFY": f"{sys.executable} {tmp_path / 'tell.py'}", "EPOCHAL_ATTENTION": "always"}


def test_of_another_process_s_run_the_command_is_told_by_that_process(tmp_path):
    rig, run = Rig(told_by(tmp_path)), Run()
    rig.heard(run)
    run.history.apply(nan_event())
    assert "not a finite number" in rig.heard(run)
    run.history.apply(scripted.ended(run.history, "failed", "out of memory"))
    assert "out of memory" in rig.heard(run), "the terminal rings"
    rig.attention.finish()
    assert not (tmp_path / "told").exists()


def test_of_a_run_that_died_nobody_else_can_tell(tmp_path):
    rig, run = Rig(told_by(tmp_path)), Run()
    rig.heard(run)
    run.history.apply(scripted.ended(run.history, "died", "its process is gone"))
    assert "its process is gone" in rig.heard(run)
    rig.attention.finish()
    assert (tmp_path / "told").read_text() == "digits-mlp failed: its process is gone\n"


async def test_the_console_tells_the_command_of_its_own_run_once(engine: ScriptedEngine, tmp_path, monkeypatch):
    for name, value in told_by(tmp_path).items():
        monkeypatch.setenv(name, value)
    console = Console(engine, {"name": "digits-mlp"})
    async with console.run_test(size=(80, 24)) as pilot:
        await ready(console)
        await pilot.press("r")
        await until(lambda: console.session and console.session.history.progress)
        console._attend()
        engine.finish.set()
        await until(lambda: console.session.history.ended and not console.session.alive)
        console._attend()
        console.attention.finish()
    assert (tmp_path / "told").read_text().splitlines() == ["digits-mlp finished: all epochs done"]


def test_the_settings_say_how_long_silence_may_last():
    now, written = [0.0], []
    attention = Attention(written.append, lambda: False, {"TERM": "xterm"}, lambda: now[0], {"stall_seconds": 5.0})
    run = Run()
    attention.look(run)
    now[0] = 6.0
    attention.look(run)
    assert "has not said a word for 0:06" in "".join(written)
