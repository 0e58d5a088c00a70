"""status.json: honest about processes that are gone, and never half written."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import RunError
from engine.events import Progress, from_dict
from engine.run import Status, files, strict_json
from tests.engine.processes import until

WRITTEN = {
    "state", "pid", "process_started", "host", "heartbeat", "step", "epoch", "epochs", "best", "monitor", "mode", "started",
    "seconds", "reason", "progress",
}  # fmt: skip


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


@pytest.mark.parametrize("state", ["starting", "running", "paused"])
def test_long_silence_on_another_host_is_death(tmp_path: Path, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "status.json"
    Status(path).write(state)
    now = time.time()
    monkeypatch.setattr("engine.run.status.time", SimpleNamespace(time=lambda: now))
    change(path, host="node7", heartbeat=now - 119)
    assert Status.read(path)["state"] == state
    change(path, heartbeat=now - 130)
    values = Status.read(path)
    assert values["state"] == "died"
    assert values["reason"] == "no sign of life from node7 for 130 s"
    change(path, host=platform.node())  # here the process itself is asked, and it is this one
    assert Status.read(path)["state"] == state


def test_the_last_progress_is_kept(tmp_path: Path) -> None:
    progress = Progress(
        phase="train", step=3, epoch=1, batch=3, batches=None, loss=math.nan, lr=0.1, steps_per_second=2.0,
        samples_per_second=math.inf, elapsed=1.0, left=None,
    )  # fmt: skip
    path = tmp_path / "status.json"
    Status(path).write("running", progress=progress)
    json.loads(path.read_bytes(), parse_constant=pytest.fail)
    assert repr(from_dict(Status.read(path)["progress"])) == repr(progress)
    Status(path).write("running")
    assert Status.read(path)["progress"] is None
    values = strict_json.decode(path.read_bytes())
    del values["progress"]  # as older ones are
    path.write_bytes(strict_json.encode(values))
    assert Status.read(path)["progress"] is None
    for rubbish in (5, {}, {"event": "message", "text": "t"}, {"event": "progress", "step": 1}, {"event": ["progress"]}):
        change(path, progress=rubbish)
        with pytest.raises(RunError, match="damaged: 'progress' is "):
            Status.read(path)


def test_a_heartbeat_does_not_wait_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    status = Status(tmp_path / "status.json")
    original = files.sync
    monkeypatch.setattr(files, "sync", lambda path: synced.append(state) or original(path))
    for state in ("starting", "running", "running", "paused", "paused", "paused", "running", "finished"):
        status.write(state)
    assert list(dict.fromkeys(synced)) == ["starting", "paused", "finished"] and synced.count("paused") == 2


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


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pid", True), ("step", -1), ("step", 2**80), ("step", 1.5), ("epochs", True), ("state", "at work"), ("state", "died"),
        ("started", math.inf), ("seconds", math.nan), ("heartbeat", 1e300), ("best", {"epoch": 1, "val/loss": "0.1"}),
        ("best", {"val/loss": 0.1}), ("best", {"epoch": math.nan}), ("host", None), ("reason", 5),
    ],
)  # fmt: skip
def test_a_value_that_no_run_has_is_damage(tmp_path: Path, key: str, value: object) -> None:
    path = tmp_path / "status.json"
    Status(path).write("running")
    change(path, **{key: value})
    with pytest.raises(RunError, match=rf"damaged: '{key}' is ") as caught:
        Status.read(path)
    assert str(caught.value).isprintable()


def test_no_terminal_obeys_what_a_status_says(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    Status(path).write("failed", reason="\x1b[2Jgone\n", monitor="\x07")
    values = Status.read(path)
    assert values["reason"] == "\\x1b[2Jgone\\n" and values["monitor"].isprintable()


@settings(deadline=None, max_examples=150)
@given(
    st.binary(max_size=60)
    | st.dictionaries(
        st.sampled_from(sorted(WRITTEN)),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.integers(), max_size=2)
        | st.dictionaries(st.text(max_size=3) | st.just("__float__"), st.integers(), max_size=2),
        max_size=4,
    )
)  # fmt: skip
def test_rubbish_is_one_sentence(tmp_path_factory: pytest.TempPathFactory, rubbish: bytes | dict[str, Any]) -> None:
    path = tmp_path_factory.mktemp("status") / "status.json"
    Status(path).write("running")
    if isinstance(rubbish, bytes):
        path.write_bytes(rubbish)
    else:  # written as plain JSON, where what is reserved means something else
        path.write_text(json.dumps({**json.loads(path.read_text()), **rubbish}))
    try:
        values = Status.read(path)
    except RunError as error:
        assert str(error).startswith(f"{path} is damaged: ") and str(error).isprintable()
    else:
        assert values.keys() == WRITTEN


def test_a_missing_status(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"status\.json is missing"):
        Status.read(tmp_path / "status.json")


def test_a_killed_process_that_nobody_waited_for_is_gone(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from engine.run import Status\n"
    code += "Status(Path(sys.argv[1])).write('running'); print('written', flush=True); sys.stdin.read()"
    path = tmp_path / "status.json"
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"written\n"
        assert Status.read(path)["state"] == "running"
        process.kill()
        until(lambda: Status.read(path)["state"] == "died", "it is a zombie: this process has not waited for it")
