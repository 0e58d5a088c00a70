"""status.json: honest about processes that are gone, and never half written."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from engine.errors import RunError
from engine.run import Status, strict_json


def change(path: Path, **values: Any) -> None:
    path.write_bytes(strict_json.encode({**strict_json.decode(path.read_bytes()), **values}))


def gone_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    best = {"epoch": 2, "val/loss": 0.1, "val/other": math.inf}
    Status(path).write(
        "running", step=7, epoch=2, epochs=5, best=best, monitor="val/loss", mode="min", started=12.5, seconds=3.0, reason=""
    )
    values = Status.read(path)
    expected = {"state": "running", "step": 7, "epoch": 2, "epochs": 5, "best": best, "monitor": "val/loss", "mode": "min"}
    assert values.items() >= {**expected, "started": 12.5, "seconds": 3.0, "reason": ""}.items()
    assert values["pid"] == os.getpid() and values["heartbeat"] >= values["process_started"] > 0
    assert list(tmp_path.iterdir()) == [path]
    json.loads(path.read_bytes(), parse_constant=pytest.fail)


@pytest.mark.parametrize("state", ["starting", "running", "paused"])
def test_a_process_that_is_gone_died(tmp_path: Path, state: str) -> None:
    path = tmp_path / "status.json"
    Status(path).write(state)
    assert Status.read(path)["state"] == state
    change(path, pid=gone_pid())
    assert Status.read(path)["state"] == "died"


def test_a_number_taken_by_another_process_does_not_keep_a_run_alive(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    Status(path).write("running")
    change(path, process_started=Status.read(path)["process_started"] - 60)
    assert Status.read(path)["state"] == "died"
    change(path, pid=-1)
    assert Status.read(path)["state"] == "died"
    change(path, pid=10**30)
    assert Status.read(path)["state"] == "died"


def test_nothing_is_known_of_processes_of_another_host(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    Status(path).write("running")
    change(path, host="elsewhere", pid=gone_pid())
    assert Status.read(path)["state"] == "running"


@pytest.mark.parametrize("state", ["finished", "stopped", "failed"])
def test_an_ended_run_does_not_die(tmp_path: Path, state: str) -> None:
    path = tmp_path / "status.json"
    Status(path).write(state, reason="because")
    change(path, pid=gone_pid())
    assert (Status.read(path)["state"], Status.read(path)["reason"]) == (state, "because")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"{}", b"\xff", b'{"state": "running"}', b"[" * 100_000])
def test_a_damaged_status_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "status.json"
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"status\.json is damaged: ") as caught:
        Status.read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["pid", "started", "best", "epochs", "state"])
def test_a_value_of_the_wrong_kind_is_damage(tmp_path: Path, key: str) -> None:
    path = tmp_path / "status.json"
    Status(path).write("running")
    change(path, **{key: [1]})
    with pytest.raises(RunError, match=rf"damaged: '{key}' is \[1\]"):
        Status.read(path)


def test_a_missing_status(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"status\.json is missing"):
        Status.read(tmp_path / "status.json")


def test_a_killed_process_that_nobody_waited_for_is_gone(tmp_path: Path) -> None:
    code = "import sys, time; from pathlib import Path; from engine.run import Status\n"
    code += "Status(Path(sys.argv[1])).write('running'); print('written', flush=True); time.sleep(60)"
    path = tmp_path / "status.json"
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"written\n"
        assert Status.read(path)["state"] == "running"
        process.kill()
        deadline = time.monotonic() + 30
        while Status.read(path)["state"] != "died":  # a zombie by now: this process has not waited for it
            assert time.monotonic() < deadline
            time.sleep(0.01)
