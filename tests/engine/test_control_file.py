"""control.jsonl: what another process asks arrives once and in order; rubbish is named by its line and obeyed by nobody."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.changes import Change
from engine.control import Control
from engine.errors import RunError
from engine.run import Run, files, strict_json
from engine.run.control_file import AT_ONCE, LONGEST, Inbox, Request, deliver, tell

NAME = "control.jsonl"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / NAME


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def all_of(inbox: Inbox) -> tuple[list[Request], list[str]]:
    """Everything, however many times one must ask for it."""
    requests: list[Request] = []
    problems: list[str] = []
    for _ in range(5):
        more, wrong = inbox.take()
        requests += more
        problems += wrong
    return requests, problems


# What is asked arrives


def test_what_is_told_is_taken_once_and_in_order(path: Path) -> None:
    inbox = Inbox(path)
    assert inbox.take() == ([], [])
    tell(path, "pause")
    tell(path, "stop", reason="enough, größer")
    assert inbox.take() == ([Request(ask="pause"), Request(ask="stop", reason="enough, größer")], [])
    assert inbox.take() == ([], [])
    tell(path, "set", field="optimizer.lr", value=0.5, times=True)
    tell(path, "set", field="training.patience", value=None)
    assert inbox.take()[0] == [
        Request(ask="set", change=Change("optimizer.lr", 0.5, True)),
        Request(ask="set", change=Change("training.patience", None)),
    ]
    assert all(json.loads(line)["time"] > 0 for line in path.read_bytes().splitlines())


def test_what_was_asked_of_an_earlier_process_is_void(path: Path) -> None:
    tell(path, "stop")
    inbox = Inbox(path)
    assert inbox.take() == ([], [])
    tell(path, "pause")
    assert inbox.take() == ([Request(ask="pause")], [])


def test_requests_reach_the_control(path: Path) -> None:
    inbox, control = Inbox(path), Control()
    for ask in ("checkpoint", "validate", "pause"):
        tell(path, ask)
    tell(path, "set", field="lr", value=1e-4)
    append(path, b"rubbish\n")
    (problem,) = deliver(inbox, control)
    assert problem.startswith("control.jsonl, line 5: ")
    assert control.pending and control.paused and control.stopping is None
    assert control.take_checkpoint() and control.take_validate()
    assert control.take_changes() == (Change("optimizer.lr", 1e-4),)
    tell(path, "resume")
    tell(path, "stop", reason="out of time")
    assert deliver(inbox, control) == [] and not control.paused and control.stopping == "out of time"
    tell(path, "stop")
    assert deliver(inbox, control) == [] and control.stopping == "stopped from another process"


def test_many_may_steer_at_once(path: Path) -> None:
    inbox = Inbox(path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: tell(path, "stop", reason=str(number)), range(200)))
    requests, problems = all_of(inbox)
    assert problems == [] and sorted(int(request.reason) for request in requests) == list(range(200))


def test_looking_for_what_is_not_there_is_cheap(path: Path) -> None:
    for _ in range(1000):
        tell(path, "pause")
    inbox, size = Inbox(path), path.stat().st_size

    def blocks() -> int:
        return int(Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0])

    before = blocks()
    for _ in range(100):
        assert inbox.take() == ([], [])
    assert blocks() - before < size  # nothing of it was read again


# Torn, cut, gone


def test_a_torn_last_line_waits_for_its_end(path: Path) -> None:
    inbox = Inbox(path)
    line = strict_json.encode({"ask": "pause"}) + b"\n"
    for byte in line[:-1]:
        append(path, bytes([byte]))
        assert inbox.take() == ([], [])
    append(path, b"\n")
    assert inbox.take() == ([Request(ask="pause")], [])


def test_a_line_that_was_never_finished_takes_no_other_with_it(path: Path) -> None:
    inbox = Inbox(path)
    append(path, b'{"ask": "st')
    tell(path, "pause")
    requests, (problem,) = inbox.take()
    assert requests == [Request(ask="pause")] and problem.startswith("control.jsonl, line 1: ")
    append(path, b'{"ask": "st')
    later = Inbox(path)
    append(path, b'op"}\n')  # begun before this reader
    tell(path, "resume")
    assert later.take() == ([Request(ask="resume")], [])


def test_a_full_disk_is_one_sentence_and_spoils_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = files.append

    def half(descriptor: int, data: bytes) -> None:
        original(descriptor, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    inbox = Inbox(path)
    with monkeypatch.context() as patch:
        patch.setattr(files, "append", half)
        with pytest.raises(RunError, match=r"control\.jsonl can't be written: No space left on device$"):
            tell(path, "stop")
    tell(path, "pause")
    requests, problems = inbox.take()
    assert requests == [Request(ask="pause")] and len(problems) == 1


def test_a_file_that_is_gone_or_cut_is_never_carried_out_again(path: Path) -> None:
    inbox = Inbox(path)
    for ask in ("pause", "resume", "stop"):
        tell(path, ask)
    assert len(inbox.take()[0]) == 3
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[2])  # only the stop is left, which was done
    requests, (problem,) = inbox.take()
    assert requests == [] and problem.startswith("control.jsonl was cut from ")
    tell(path, "pause")
    append(path, b"rubbish\n")
    requests, (problem,) = inbox.take()
    assert requests == [Request(ask="pause")] and problem.startswith("control.jsonl, line 3: ")
    path.unlink()
    assert inbox.take() == ([], [])
    tell(path, "validate")
    assert inbox.take() == ([Request(ask="validate")], [])


def test_a_directory_in_its_place_is_a_problem(path: Path) -> None:
    inbox = Inbox(path)
    path.mkdir()
    (path / "file").touch()
    requests, (problem,) = inbox.take()
    assert requests == [] and problem == "control.jsonl can't be read: Is a directory"
    with pytest.raises(RunError, match="Is a directory"):
        tell(path, "pause")


# Rubbish

RUBBISH = {
    b"nonsense": "Expecting value",
    b"[1]": "not a request",
    b'"stop"': "not a request",
    b"null": "not a request",
    b"{}": "it does not say what is asked",
    b'{"ask": 5}': "it does not say what is asked",
    b'{"ask": "Stop"}': "the nearest is 'stop'",
    b'{"ask": "quit"}': "'quit' can't be asked of a run: pause, resume, stop, checkpoint, validate, set",
    b'{"ask": "take_changes"}': "can't be asked",
    b'{"ask": "stop", "reason": 7}': "the reason is 7",
    b'{"ask": "set"}': "no change",
    b'{"ask": "set", "field": "optimizer.lt", "value": 1}': "the nearest is 'optimizer.lr'",
    b'{"ask": "set", "field": "lr", "value": "1"}': "no change",
    b'{"ask": "set", "field": "lr", "value": true}': "no change",
    b'{"ask": "set", "field": "lr", "value": -1}': "not allowed",
    b'{"ask": "set", "field": "lr", "value": 1e999}': "not allowed",
    b'{"ask": "set", "field": "lr", "value": NaN}': "NaN is not JSON",
    b'{"ask": "set", "field": "lr", "value": 1' + b"0" * 5000 + b"}": "digits",
    b'{"ask": "set", "field": "lr", "value": null}': "not allowed",
    b'{"ask": "set", "field": "lr", "value": 2, "times": 1}': "no change",
    b'{"ask": "set", "field": "\\u001b[31m", "value": 2}': "can't be changed",
    b"\xff\xfe\0\0": "utf-8",
    b"[" * 8000: "",
    b'{"a":' * 1600: "",
    b"x" * (LONGEST + 1): "longer than any request",
}


def test_rubbish_is_named_by_line_and_the_rest_obeyed(path: Path) -> None:
    for number, (line, sentence) in enumerate(RUBBISH.items()):
        inbox = Inbox(path)
        append(path, line + b"\n\n")
        tell(path, "pause")
        requests, (problem,) = inbox.take()
        assert requests == [Request(ask="pause")]
        assert problem.startswith(f"control.jsonl, line {3 * number + 1}: ") and sentence in problem
        assert problem.isprintable() and len(problem) < 500


def test_a_line_of_ten_megabytes_is_named_once_and_not_kept(path: Path) -> None:
    inbox = Inbox(path)
    append(path, b"x" * 10_000_000)
    requests, (problem,) = all_of(inbox)
    assert requests == [] and problem == "control.jsonl, line 1: longer than any request"
    append(path, b"x" * 3 + b"\n")
    tell(path, "pause")
    append(path, b"rubbish\n")
    requests, (problem,) = all_of(inbox)
    assert requests == [Request(ask="pause")] and problem.startswith("control.jsonl, line 3: ")


def test_a_flood_of_rubbish_is_a_few_sentences(path: Path) -> None:
    inbox = Inbox(path)
    append(path, b"?\n" * (AT_ONCE // 2))
    tell(path, "pause")
    requests, problems = inbox.take()
    assert requests == [] and len(problems) == 11
    assert problems[-1] == f"control.jsonl: {AT_ONCE // 2 - 10} more lines that are no requests"
    assert inbox.take() == ([Request(ask="pause")], [])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
    | st.sampled_from(["pause", "stop", "set", "lr", "optimizer.lr", "none", "x0.5"]),
    lambda values: st.lists(values, max_size=3)
    | st.dictionaries(st.sampled_from(["ask", "reason", "field", "value", "times", "time"]), values, max_size=6),
    max_leaves=8,
)  # fmt: skip
rubbish = st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode())


@settings(deadline=None, max_examples=150)
@given(st.lists(rubbish, max_size=6), st.lists(st.integers(1, 200), max_size=5))
def test_whatever_is_in_it_nothing_is_raised_and_what_comes_after_is_heard(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], cuts: list[int]
) -> None:
    path = tmp_path_factory.mktemp("control") / NAME
    inbox, control = Inbox(path), Control()
    data = b"\n".join(lines)
    problems: list[str] = []
    for cut in cuts:  # however it arrives
        append(path, data[:cut])
        data = data[cut:]
        problems += deliver(inbox, control)
    append(path, data)
    tell(path, "stop", reason="the last word")
    problems += deliver(inbox, control)
    assert control.stopping == "the last word"
    assert all(problem.startswith("control.jsonl, line ") and problem.isprintable() for problem in problems)


# The public door


@pytest.mark.parametrize("values", [{"ask": "quit"}, {"ask": "set"}, {"ask": "set", "field": "lr", "value": -1}])
def test_what_is_no_request_is_refused_where_it_is_made(path: Path, values: dict[str, Any]) -> None:
    with pytest.raises(RunError):
        tell(path, **values)
    with pytest.raises(RunError, match="too long"):
        tell(path, "stop", reason="x" * 9000)
    assert not path.exists()


def test_a_run_is_told_while_it_is_being_trained(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "n", None, {})
    for state in ("starting", "running", "paused"):
        run.status.write(state)
        inbox = Inbox(run.path / NAME)
        run.tell("set", field="optimizer.lr", value=0.5, times=True)
        assert inbox.take() == ([Request(ask="set", change=Change("optimizer.lr", 0.5, True))], [])


def test_a_run_that_nobody_trains_is_told_nothing(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "n", None, {})
    for state, why in {"finished": "it has finished", "stopped": "it was stopped", "failed": "it has failed"}.items():
        run.status.write(state)
        with pytest.raises(RunError, match=f"{run.name} is not being trained: {why}$"):
            run.tell("pause")
    code = "import sys; from engine.run import Run; Run(sys.argv[1]).status.write('running')"
    subprocess.run([sys.executable, "-c", code, str(run.path)], check=True)
    with pytest.raises(RunError, match=f"{run.name} is not being trained: its process is gone$"):
        run.tell("pause")
    run.status.path.unlink()
    with pytest.raises(RunError, match="missing"):
        run.tell("pause")
    assert not (run.path / NAME).exists()
