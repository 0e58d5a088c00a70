"""Ctrl-Z in a shell with job control: the screen goes, the training goes on, `fg` brings the screen back whole."""

from __future__ import annotations

import os
import shlex
import signal
import time
from pathlib import Path

import pytest

from engine.run import Run
from tests.terminal.conftest import LONG, PATIENCE, Tmux, only_run, recipe, trainer_of

SHELLS = ["bash --norc --noprofile -i", "sh -i"]


def step_of(run: Run) -> int:
    return int(run.status.read(run.status.path)["step"])


def goes_on(tmux: Tmux, run: Run) -> None:
    """Wait until it took more steps than by now."""
    now = step_of(run)
    tmux.until(lambda: step_of(run) > now, "the training to go on")


def processes_of(tmux: Tmux) -> tuple[int, int]:
    """The launcher and the console that trains."""
    console = trainer_of(only_run(tmux.where))
    return int(stat(console)[1]), console


def stat(process: int) -> list[str]:
    """State, parent, group, session, terminal, group in the foreground of that, and more: proc(5)."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()


def stopped(process: int) -> bool:
    return stat(process)[0] == "T"


def suspended(process: int) -> bool:
    """Whether it is stopped and the shell has the terminal: the shell's words on the screen may be those of an earlier time."""
    return stopped(process) and stat(process)[2] != stat(process)[5]


@pytest.fixture
def shell(tmux: Tmux, epochal: str, request: pytest.FixtureRequest) -> Tmux:
    """An interactive shell in which a long run is on the screen."""
    tmux.open(f"env PS1='PROMPT> ' {getattr(request, 'param', SHELLS[0])}")
    tmux.wait("PROMPT>")
    tmux.type(f"{epochal} {recipe(tmux.where, LONG)}\n")
    tmux.wait("ready")
    tmux.press("r")
    tmux.wait("● running", "1 Chart")
    return tmux


@pytest.mark.slow
@pytest.mark.parametrize("shell", SHELLS, indirect=True)
def test_ctrl_z_and_fg(shell: Tmux):
    run, (launcher, console) = only_run(shell.where), processes_of(shell)
    for _ in range(2):
        shell.press("C-z")
        shell.until(lambda: suspended(launcher), "the launcher to be stopped")
        screen = shell.wait("Stopped", "PROMPT>")
        assert "1 Chart" not in screen and not stopped(console)
        shell.type("stty -a | grep -c -- ' icanon'; echo said it\n")
        shell.wait("\n1\nsaid it\n")
        goes_on(shell, run)
        assert "Chart" not in shell.screen()
        shell.type("fg\n")
        screen = shell.wait("● running", "1 Chart", "3 Epochs", "space pause")
        assert "PROMPT" not in screen and "said it" not in screen
    shell.press("Space")
    shell.wait("‖ paused")
    shell.press("s")
    shell.wait("■ stopped")
    shell.press("q")
    shell.wait("PROMPT>")


@pytest.mark.slow
def test_a_signal_suspends_as_well_and_bg_lets_it_be_looked_at_later(shell: Tmux):
    run, (launcher, console) = only_run(shell.where), processes_of(shell)
    os.kill(launcher, signal.SIGTSTP)
    shell.wait("Stopped", "PROMPT>")
    shell.type("bg\n")
    shell.until(lambda: not stopped(launcher), "bg")
    time.sleep(0.5)  # nothing may come to the screen: there is nothing to wait for
    assert "Chart" not in shell.screen() and not stopped(console)
    goes_on(shell, run)
    shell.type("fg\n")
    shell.wait("● running", "1 Chart", "space pause")
    os.kill(launcher, signal.SIGTSTP)
    shell.until(lambda: suspended(launcher), "the launcher to be stopped")
    os.kill(launcher, signal.SIGCONT)
    time.sleep(0.5)
    assert "Chart" not in shell.screen(), "the shell has the terminal"
    shell.type("kill %1; wait\n")
    shell.until(lambda: Run.list(shell.where / "runs")[0].state == "stopped", "the run to be saved")


@pytest.mark.slow
def test_started_in_the_background_and_brought_to_the_front(tmux: Tmux, epochal: str):
    tmux.open(f"env PS1='PROMPT> ' {SHELLS[0]}")
    tmux.wait("PROMPT>")
    tmux.type(f"{epochal} {recipe(tmux.where, LONG)} &\n")
    tmux.type("\n\n")
    tmux.until(lambda: "Stopped" in tmux.screen() or tmux.type("\n"), "the shell to say that it wants the terminal")
    tmux.type("fg\n")
    tmux.wait("ready", "r start")
    tmux.press("q")
    tmux.wait("PROMPT>")


@pytest.mark.slow
def test_where_nothing_could_bring_it_back_it_stays(tmux: Tmux, epochal: str):
    tmux.open(f"{epochal} {recipe(tmux.where, LONG)}")
    tmux.wait("ready")
    tmux.press("C-z")
    tmux.wait("nothing is suspended", "ready", "r start")


@pytest.mark.slow
def test_a_shell_script_around_it_stops_with_it(tmux: Tmux, epochal: str):
    """As with any program: the interactive shell has its prompt, though it knows of the script alone."""
    tmux.open(f"env PS1='PROMPT> ' {SHELLS[0]}")
    tmux.wait("PROMPT>")
    tmux.type(f"sh -c {shlex.quote(f'{epochal} {recipe(tmux.where, LONG)}; echo over')}\n")
    tmux.wait("ready")
    tmux.press("C-z")
    tmux.wait("Stopped", "PROMPT>")
    tmux.type("fg\n")
    tmux.wait("ready", "r start")
    tmux.press("q")
    tmux.wait("over", "PROMPT>")


@pytest.mark.slow
def test_the_shell_goes_while_it_is_suspended(shell: Tmux):
    run, (launcher, console) = only_run(shell.where), processes_of(shell)
    shell.press("C-z")
    shell.wait("Stopped", "PROMPT>")
    shell.run("kill-server")
    deadline = time.monotonic() + PATIENCE
    while Path(f"/proc/{launcher}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    now = step_of(run)
    while step_of(run) == now:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(console, signal.SIGTERM)
