"""A command and a webhook are told of runs without a console, once; what is wrong with them disturbs no training."""

from __future__ import annotations

import json
import os
import shlex
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from engine import notify
from engine.cli import main
from engine.events import Progress, RunEnded, RunStarted, Trained
from engine.notify import Call, Notifier
from engine.run import Run
from engine.run.status import Status
from engine.training.reporter import Reporter
from tests.engine.processes import PATIENCE, SMALL, alive, ended, started, until

pytestmark = pytest.mark.usefixtures("in_a_shell")
CALL = Call("end", "digits", "digits finished; all done")
# Of a shell, which is there at once also where there is little time: nobody waits for a command for long.
TELL = """#!/bin/sh
printf '%s|%s|%s|%s|%s\\n' "$EPOCHAL_EVENT" "$EPOCHAL_RUN" "$@" >> {told}
"""
# The loss of the third training batch is not a number.
NET = """
import math
from torch import nn

class Net(nn.Linear):
    calls = 0

    def __init__(self, input_shape, output_size):
        super().__init__(input_shape[0], output_size)

    def forward(self, x):
        self.calls += self.training
        return super().forward(x) * (math.nan if self.calls == 3 else 1)

class Broken(Net):
    def forward(self, x):
        if self.calls == 2:
            raise ArithmeticError("mine")
        return super().forward(x)
"""


@pytest.fixture
def command(in_a_shell: Path) -> str:
    (in_a_shell / "tell.sh").write_text(TELL.format(told=shlex.quote(str(in_a_shell / "told"))))
    (in_a_shell / "net.py").write_text(NET)
    return f"sh {shlex.quote(str(in_a_shell / 'tell.sh'))} --to me"


def told(where: Path) -> list[list[str]]:
    path = where / "told"
    return [line.split("|") for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture(autouse=True)
def _however_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "PATIENCE", float(PATIENCE))


@pytest.fixture
def hook() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A webhook's address, and what it got."""
    got: list[dict[str, str]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Hook) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/hook", got
        server.shutdown()


def test_train_tells_command_and_webhook_of_the_settings(
    in_a_shell: Path, command: str, hook: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url, got = hook
    (in_a_shell / "settings.toml").write_text(f"theme = 3\n[attention]\ncommand = {json.dumps(command)}\nwebhook = '{url}'\n")
    monkeypatch.setenv("EPOCHAL_CONFIG", str(in_a_shell))
    assert main([*SMALL, "--epochs", "2", "--set", "name=net"]) == 0
    assert capsys.readouterr().err == "", "a mistake that is about screens is none of its business"
    (item,) = told(in_a_shell)
    assert item[:4] == ["end", "net", "--to", "me"]
    assert item[4].startswith("net finished: all 2 epochs done; best val/loss ")
    assert got == [{"text": item[4], "event": "end", "run": "net"}]


def test_a_failure_is_told_with_its_reason(in_a_shell: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPOCHAL_NOTIFY", command)
    assert main([*SMALL, "--set", "name=net", "--set", "model={name='net.py:Broken'}"]) == 1
    assert told(in_a_shell) == [["failure", "net", "--to", "me", "net failed: ArithmeticError: mine"]]


def test_a_loss_that_is_not_a_number_is_told(in_a_shell: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPOCHAL_NOTIFY", command)
    own = [*SMALL, "--epochs", "1", "--set", "name=net", "--set", "model={name='net.py:Net'}"]
    own += ["--set", "training.execution=eager"]
    assert main([*own, "--set", "training.non_finite=rewind"]) == 0
    (kind, _, _, _, text), (end, *_) = told(in_a_shell)
    assert (kind, end) == ("nan", "end") and text.endswith("at step 3; it goes on from step 0")
    (in_a_shell / "told").unlink()
    assert main(own) == 1
    ((kind, _, _, _, text),) = told(in_a_shell)
    assert kind == "failure" and "at step 3" in text, "once, and with the reason"


def test_in_the_background_and_resumed_each_end_is_told_once(in_a_shell: Path, command: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("EPOCHAL_NOTIFY", command)
    with started(*SMALL, "--epochs", "1", "--background") as process:
        assert ended(process)[0] == 0
    until(lambda: told(in_a_shell), "the command was told")
    (run,) = Run.list("runs")
    trainer = Status.read(run.path / "status.json")["pid"]
    until(lambda: not alive(trainer), "its process has ended: until then the run is its")
    assert main(["resume", "last", "--epochs", "2"]) == 0
    reasons = [text.partition(": ")[2].partition(";")[0] for *_, text in told(in_a_shell)]
    assert reasons == ["all 1 epochs done", "all 2 epochs done"]


def test_each_run_of_a_sweep_is_told(in_a_shell: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPOCHAL_NOTIFY", command)
    assert main(["sweep", "optimizer.lr=1e-3,1e-2", *SMALL[1:], "--set", "training.epochs=1"]) == 0
    assert [item[0] for item in told(in_a_shell)] == ["end", "end"]


def test_jobs_are_told_also_one_that_never_became_a_run(in_a_shell: Path, command: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("EPOCHAL_NOTIFY", command)
    add = ["queue", "add", "--hold", *SMALL[1:], "--set", "training.epochs=1", "--set"]
    assert main([*add, "name=good"]) == main([*add, "name=gone", "--set", "model={name='net.py:Net'}"]) == 0
    (in_a_shell / "net.py").unlink()
    assert main(["queue", "start", "--foreground"]) == 1
    assert [item[:2] for item in told(in_a_shell)] == [["end", "good"], ["failure", "gone"]]


@pytest.mark.parametrize("wrong", ["false", "/nowhere/at/all", "unbalanced 'quote", "http://127.0.0.1:9/"])
def test_what_fails_is_one_line(wrong: str) -> None:
    said: list[str] = []
    with Notifier(environment={"EPOCHAL_NOTIFY": wrong}, say=said.append) as notifier:
        notifier.call(CALL)
        notifier.call(CALL)
    (sentence,) = said
    assert sentence.startswith("EPOCHAL_NOTIFY failed: ") and "\n" not in sentence


def test_a_training_is_not_disturbed_by_a_command_that_fails(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("EPOCHAL_NOTIFY", "/nowhere/at/all")
    assert main([*SMALL, "--epochs", "1"]) == 0
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert "finished" in out
    assert line.startswith("epochal: EPOCHAL_NOTIFY failed: ")


def test_the_process_does_not_wait_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "PATIENCE", 0.05)
    done, said = threading.Event(), list[str]()
    monkeypatch.setattr(notify, "_run", lambda *_: done.wait(PATIENCE))
    notifier = Notifier(environment={"EPOCHAL_NOTIFY": "slow"}, say=said.append)
    notifier.call(CALL)
    notifier.finish()
    done.set()
    assert said == ["EPOCHAL_NOTIFY was not done after 0.05 seconds; nobody waits for it any longer"]


def test_silence_is_seen_while_the_training_says_nothing(in_a_shell: Path, command: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(notify, "LOOK_SECONDS", 0.01)
    reporter = Reporter()
    notifier = Notifier({"stall_seconds": 0.05}, {**os.environ, "EPOCHAL_NOTIFY": command})
    notifier.watch(reporter)
    reporter.emit(
        RunStarted(
            name="net", path=None, device="cpu", device_name="", precision="fp32", execution="eager", epochs=1,
            steps_per_epoch=9, total_steps=9, parameters=1, step=0, epoch=0, monitor="val/loss", mode="min",
        ),
        Progress(
            phase="train", step=1, epoch=1, batch=1, batches=9, loss=1.0, lr=0.1, steps_per_second=None,
            samples_per_second=None, elapsed=0.1, left=None,
        ),
        Trained(epoch=1, first=1, step=1, every=1, loss=(1.0,), low=(), high=(), lr=(0.1,)),
    )  # fmt: skip
    until(lambda: told(in_a_shell), "the silence was told")
    reporter.emit(RunEnded(state="finished", reason="all 1 epochs done", epoch=1, step=9, seconds=1.0, best={}))
    notifier.finish()
    assert [item[0] for item in told(in_a_shell)] == ["stall", "end"]
