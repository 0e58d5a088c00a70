"""The terminal goes, in every way that terminals go; the run does not."""

from __future__ import annotations

import fcntl
import os
import pty
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.engine.processes import alive
from tests.terminal.conftest import LONG, PATIENCE, REPOSITORY, Tmux, held, only_run, recipe, the_end_of, trainer_of

pytestmark = pytest.mark.slow  # ten seconds and more each

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"


class Pty:
    """A process at a terminal of which this end is in the test's hand."""

    def __init__(self, command: list[str], where: Path, **environment: str) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        environment = {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": str(REPOSITORY), **environment}
        self.process = subprocess.Popen(
            command, cwd=where, env=environment, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
        )  # fmt: skip
        os.close(slave)
        self.shown = b""

    def wait(self, *texts: str, seconds: float = PATIENCE) -> None:
        """Read until all these texts have come. Words that move as wholes only: the rest of a frame is not painted again."""
        os.set_blocking(self.master, False)
        deadline = time.monotonic() + seconds
        while not all(text.encode() in self.shown for text in texts):
            assert time.monotonic() < deadline, f"waited in vain for {texts}\n{self.shown[-3000:]!r}"
            try:
                self.shown += os.read(self.master, 65536)
            except BlockingIOError:
                time.sleep(0.05)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())


@pytest.fixture
def at_pty(tmp_path: Path) -> Iterator[Callable[..., Pty]]:
    """Opens processes at ptys; what is left of them afterwards is ended."""
    opened: list[Pty] = []

    def open_pty(*command: str, **environment: str) -> Pty:
        opened.append(Pty(list(command), tmp_path, **environment))
        return opened[-1]

    yield open_pty
    for terminal in opened:
        terminal.process.kill()
        terminal.process.wait()


@pytest.mark.parametrize("how", ["detached", "hung up"])
def test_f3_the_run_ends_by_itself_after_tmux_was_killed(tmux: Tmux, epochal: str, how: str):
    tmux.open(f"{epochal} {held(tmux.where)}")
    tmux.wait("ready")
    tmux.press("r")
    tmux.wait("● running")
    if how == "detached":
        tmux.press("d")
        tmux.wait("epochal attach", "status 0")
    tmux.run("kill-server")
    (tmux.where / "go").touch()
    end = the_end_of(only_run(tmux.where))
    assert end.state == "finished" and end.epoch == 4


def test_f3_a_pty_that_stood_still_and_was_closed(at_pty: Callable[..., Pty], tmp_path: Path):
    """A connection that hangs takes no more output long before it breaks."""
    terminal = at_pty(sys.executable, "-m", "tui", held(tmp_path), TEXTUAL_FPS="60")
    terminal.wait("ready")
    terminal.type("r")
    terminal.wait("running")
    run = only_run(tmp_path)
    for _ in range(40):  # more than a pty holds
        terminal.type("?\x1b")
        time.sleep(0.05)
    assert alive(trainer_of(run))
    os.close(terminal.master)
    (tmp_path / "go").touch()
    end = the_end_of(run)
    assert end.state == "finished" and end.epoch == 4


def test_a_paused_run_whose_terminal_goes_is_saved_and_waits_for_who_attaches(tmux: Tmux, epochal: str):
    tmux.open(f"{epochal} {recipe(tmux.where, LONG)}")
    tmux.wait("ready")
    tmux.press("r")
    tmux.wait("● running")
    tmux.press("Space")
    tmux.wait("‖ paused")
    run = only_run(tmux.where)
    step = run.status.read(run.status.path)["step"]
    os.kill(tmux.process(), signal.SIGUSR1)
    tmux.until((run.path / f"checkpoints/step-{step:08}").exists, "the checkpoint that the signal asked for")
    os.kill(trainer_of(run), signal.SIGHUP)
    tmux.wait("is paused in process", "status 0")
    tmux.open(f"{epochal} attach", name="again")
    tmux.wait("‖ paused")
    tmux.press("Space")
    tmux.wait("● running")
    tmux.press("s")
    tmux.wait("■ stopped")
    assert the_end_of(run).state == "stopped"


def test_a_launcher_that_is_killed_gives_the_terminal_back_and_the_run_goes_on(tmux: Tmux, epochal: str):
    tmux.open(f"{epochal} {held(tmux.where)}")
    tmux.wait("ready")
    tmux.press("r")
    tmux.wait("● running")
    os.kill(tmux.process(), signal.SIGKILL)
    tmux.wait("status 137")
    tmux.until(lambda: "1 Chart" not in tmux.screen(), "the screen to be gone")
    (tmux.where / "go").touch()
    assert the_end_of(only_run(tmux.where)).state == "finished"


# a real ssh connection


@dataclass
class Server:
    """sshd on this machine, with keys of its own."""

    process: subprocess.Popen[bytes]
    client: list[str]


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Server]:
    if not (shutil.which("ssh") and shutil.which("ssh-keygen") and Path(SSHD).exists()):
        pytest.skip("needs ssh, ssh-keygen and sshd")
    keys = tmp_path / "keys"
    keys.mkdir(mode=0o700)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(keys / name)], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (keys / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {keys}/host\nAuthorizedKeysFile {keys}/user.pub\nPidFile none\n"
        "StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # that of privilege separation, without which it does not start
    server = subprocess.Popen([SSHD, "-D", "-e", "-f", str(keys / "config")], stderr=subprocess.PIPE)
    options = ["StrictHostKeyChecking=no", "BatchMode=yes", f"UserKnownHostsFile={keys}/known", "LogLevel=ERROR"]
    client = ["ssh", "-F", "none", "-i", f"{keys}/user", "-p", str(port), *(f"-o{option}" for option in options), "127.0.0.1"]
    deadline = time.monotonic() + 60
    while (tried := subprocess.run([*client, "true"], check=False, capture_output=True, text=True)).returncode:
        if server.poll() is not None or time.monotonic() > deadline:
            server.kill()
            said = tried.stderr + (server.stderr.read().decode() if server.stderr else "")
            pytest.skip(f"sshd takes no connection here: {said.strip()[-300:]}")
        time.sleep(0.1)
    yield Server(server, client)
    server.kill()
    server.wait()


@pytest.mark.parametrize("cut", ["client", "server"])
def test_f3_an_ssh_connection_is_cut(sshd: Server, at_pty: Callable[..., Pty], tmux: Tmux, epochal: str, cut: str):
    """The run goes on; from a second terminal `attach` shows all of it, and stops it."""
    where = tmux.where
    there = f"cd {where}; env PYTHONPATH={REPOSITORY} TERM=xterm-256color {epochal} {recipe(where, LONG)}"
    terminal = at_pty(*sshd.client[:1], "-tt", *sshd.client[1:], there)
    terminal.wait("ready")
    terminal.type("r")
    terminal.wait("running")
    run = only_run(where)
    trainer = trainer_of(run)
    if cut == "client":
        terminal.process.kill()
    else:  # the process that serves this connection, and with it the terminal
        children = ["pgrep", "-P", str(sshd.process.pid)]
        for child in subprocess.run(children, check=True, capture_output=True, text=True).stdout.split():
            serving = subprocess.run(["pgrep", "-P", child], check=False, capture_output=True, text=True).stdout.split()
            for process in [child, *serving]:
                os.kill(int(process), signal.SIGKILL)
    terminal.process.wait(60)
    tmux.open(f"{epochal} attach {shlex.quote(run.name)}")
    tmux.wait("● running", f"attached to process {trainer}")
    tmux.until(lambda: os.getsid(trainer) == trainer, "the trainer to be in a session of its own")
    tmux.press("3")
    tmux.wait("─ 3 Epochs ─", "1.0e-3")

    def first() -> bool:  # a key that comes while the pane is laid out for the first time is lost: as a person would, once more
        tmux.press("Home")
        time.sleep(1)
        return "\n│     1 " in tmux.screen()

    tmux.until(first, "the first epoch to be shown")
    tmux.press("s")
    tmux.wait("■ stopped")
    assert the_end_of(run).state == "stopped"
