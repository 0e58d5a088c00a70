"""Run directories: made once each, found by what a person remembers, listed whatever state they are in."""

from __future__ import annotations

import errno
import json
import os
import platform
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from engine.errors import RunError
from engine.events import EpochEnded, RunEnded
from engine.run import Run, environment, files, load_history, runs_root, strict_json


def make(root: Path, name: str, started: float, state: str = "finished") -> Run:
    """A run whose directory tells of another start than the clock."""
    made = Run.create(root, name, None, {})
    run = Run(made.path.rename(root / f"{time.strftime('%Y%m%d-%H%M%S', time.localtime(started))}-{name}"))
    run.status.write(state, step=3, epoch=1, epochs=2, best={"epoch": 1, "val/loss": 0.5}, started=started, seconds=9.0)
    return run


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


# Making


def test_a_new_run_has_its_recipe_and_environment(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "deep" / "runs", "digits-mlp", 'name = "größe"\n', {"python": "3.x", "number": float("nan")})
    assert run.path.parent == tmp_path / "deep" / "runs"
    time.strptime(run.path.name[:15], "%Y%m%d-%H%M%S")
    assert run.path.name[15:] == "-digits-mlp"
    assert run.recipe_path.read_text(encoding="utf-8") == 'name = "größe"\n'
    assert strict_json.decode((run.path / "environment.json").read_bytes())["python"] == "3.x"
    assert run.status.read(run.path / "status.json")["state"] == "starting"
    assert not run.output_path.exists()
    assert names_in(run.path) == ["environment.json", "recipe.toml", "status.json"]


def test_a_run_without_a_recipe(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "own")
    assert not run.recipe_path.exists()
    assert "python" in json.loads((run.path / "environment.json").read_text())


@pytest.mark.parametrize(
    ("name", "ending"),
    [("a/b\\c:d", "a-b-c-d"), ("../..", "run"), ("", "run"), ("größe 2", "größe-2"), ("x" * 500, "x" * 50), ("\0\n", "run")],
)
def test_any_name_makes_a_directory_below_the_root(tmp_path: Path, name: str, ending: str) -> None:
    run = Run.create(tmp_path, name, None, {})
    assert run.path.parent == tmp_path and run.path.name[16:] == ending


def test_many_at_once_get_directories_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "strftime", lambda *_: "20261122-140312")
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda number: Run.create(tmp_path, "n", str(number), {}), range(16)))
    names = {f"20261122-140312-n{suffix}" for suffix in ["", *(f"-{number}" for number in range(2, 17))]}
    assert {run.path.name for run in runs} == names == set(names_in(tmp_path))
    assert {run.recipe_path.read_text() for run in runs} == {str(number) for number in range(16)}


def test_directories_follow_the_umask(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    run = Run.create(tmp_path / "runs", "n", "", {})
    assert stat.S_IMODE(run.path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_where_no_run_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(RunError, match=r"can't make a run directory in .*runs: "):
        Run.create(tmp_path / "runs", "n", None, {})


def full_disk(monkeypatch: pytest.MonkeyPatch, call: int) -> list[str]:
    """From file operation `call` on, nothing more can be written. The operations done are listed."""
    done: list[str] = []

    def wrap(name: str) -> Callable[..., Any]:
        original = getattr(files, name)

        def operation(*arguments: Any) -> Any:
            done.append(name)
            if len(done) > call and name != "remove":
                if name == "write":
                    original(arguments[0], arguments[1][:5])
                raise OSError(errno.ENOSPC, "No space left on device")
            return original(*arguments)

        return operation

    for name in ("make_directory", "write", "sync", "replace", "remove"):
        monkeypatch.setattr(files, name, wrap(name))
    return done


def test_e2_a_run_that_a_full_disk_does_not_take_leaves_no_litter(tmp_path: Path) -> None:
    call, made = 0, False
    while not made:
        with pytest.MonkeyPatch.context() as patch:
            full_disk(patch, call)
            try:
                Run.create(tmp_path / "runs", "n", "recipe", {})
                made = True
            except RunError as error:
                assert str(error) == f"can't make a run directory in {tmp_path / 'runs'}: No space left on device"
                assert names_in(tmp_path / "runs") == []
        call += 1
    assert call > 8 and len(names_in(tmp_path / "runs")) == 1


@pytest.mark.parametrize("there", [False, True])
def test_e2_nor_does_one_of_ones_own_objects(tmp_path: Path, there: bool) -> None:
    path = tmp_path / "run"
    if there:
        path.mkdir()
    call, made = 0, False
    while not made:
        with pytest.MonkeyPatch.context() as patch:
            full_disk(patch, call)
            try:
                Run.at(path)
                made = True
            except RunError as error:
                assert str(error) == f"can't make the run directory {path}: No space left on device"
                assert names_in(tmp_path) == (["run"] if there else []) and (not there or names_in(path) == [])
        call += 1
    assert call > 5


def test_at_makes_and_finds_exactly_this_directory(tmp_path: Path) -> None:
    run, there = Run.at(tmp_path / "mine" / "run")
    assert run.path == tmp_path / "mine" / "run" and not there
    again, there = Run.at(tmp_path / "mine" / "run")
    assert again.path == run.path and there
    (tmp_path / "empty").mkdir()
    assert Run.at(tmp_path / "empty")[1] is False
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(RunError, match="other is not empty and not a run directory"):
        Run.at(tmp_path / "other")
    assert names_in(tmp_path / "other") == ["thesis.tex"]
    with pytest.raises(RunError, match="can't make the run directory"):
        Run.at(tmp_path / "other" / "thesis.tex")


def test_environment_tells_of_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    values = environment()
    assert values["python"] == ".".join(map(str, sys.version_info[:3]))
    assert values["command"] == sys.argv
    assert values["torch"].startswith("2.")
    assert {"platform", "hostname", "started"} <= values.keys()
    assert "git_commit" not in values
    assert strict_json.decode(strict_json.encode(values)) == values
    git = ["git", "-c", "user.name=n", "-c", "user.email=e"]
    subprocess.run(["git", "init", "-q"], check=True)
    assert "git_commit" not in environment()
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "m"], check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert environment()["git_commit"] == head
    monkeypatch.setenv("PATH", "")
    assert "git_commit" not in environment()


# Finding


def test_runs_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EPOCHAL_RUNS", raising=False)
    assert runs_root() == Path("runs")
    monkeypatch.setenv("EPOCHAL_RUNS", "/somewhere")
    assert runs_root() == Path("/somewhere")
    assert runs_root("here") == runs_root(Path("here")) == Path("here")


def test_open_by_path_name_part_and_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPOCHAL_RUNS", str(tmp_path))
    old, new = make(tmp_path, "digits-mlp", 1e9), make(tmp_path, "iris", 1e9 + 5000)
    for which in (old.path, str(old.path), old.path.name, "digits-mlp", "digits", old.path.name[:15]):
        assert Run.open(which).path == old.path
        assert Run.open(which, tmp_path).path == old.path
    assert Run.open("last").path == new.path
    old.status.write("running", started=1e9 + 9000)
    assert Run.open("last").path == old.path
    monkeypatch.chdir(new.path)
    assert Run.open(".").name == new.path.name
    (tmp_path / "digits").mkdir()  # a directory that is no run stands in nobody's way
    monkeypatch.chdir(tmp_path)
    assert Run.open("digits").path == old.path


def test_open_says_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"there is no run in .*none"):
        Run.open("last", tmp_path / "none")
    with pytest.raises(RunError, match=r"there is no run 'x' in .*none"):
        Run.open("x", tmp_path / "none")
    first, second = make(tmp_path, "digits-mlp", 1e9), make(tmp_path, "digits-cnn", 1e9 + 5000)
    with pytest.raises(RunError, match=f"'digits' fits 2 runs in .*: {first.path.name}, {second.path.name}$"):
        Run.open("digits", tmp_path)
    with pytest.raises(RunError, match=r"no run 'digit-cnn' in .*; the nearest is 'digits-cnn'$"):
        Run.open("digit-cnn", tmp_path)
    other = tmp_path / "elsewhere"
    other.mkdir()
    with pytest.raises(RunError, match="elsewhere is not a run directory"):
        Run.open(other, tmp_path)


# Listing


def test_list_is_newest_first_and_complete(tmp_path: Path) -> None:
    assert Run.list(tmp_path / "none") == []
    (tmp_path / "notes.txt").touch()
    (tmp_path / "not a run").mkdir()
    runs = [make(tmp_path, name, 1e9 + 5000 * i) for i, name in enumerate("abc")]
    summaries = Run.list(tmp_path)
    assert [summary.path for summary in summaries] == [run.path for run in reversed(runs)]
    newest = summaries[0]
    assert (newest.name, newest.state, newest.step, newest.epoch, newest.epochs) == (runs[2].path.name, "finished", 3, 1, 2)
    assert (newest.best, newest.started, newest.seconds) == ({"epoch": 1, "val/loss": 0.5}, 1e9 + 10_000, 9.0)


def test_runs_at_work_come_first(tmp_path: Path) -> None:
    runs = [make(tmp_path, name, 1e9 + 5000 * i, state) for i, (name, state) in enumerate(
        {"a": "paused", "b": "finished", "c": "running", "d": "stopped", "e": "starting", "f": "failed"}.items())]  # fmt: skip
    assert [summary.state for summary in Run.list(tmp_path)] == [
        "starting", "running", "paused", "failed", "stopped", "finished"
    ]  # fmt: skip
    assert Run.open("last", tmp_path).path == runs[-1].path  # the newest, at work or not
    summary = Run.list(tmp_path)[0]
    assert (summary.host, summary.pid) == (platform.node(), os.getpid()) and summary.heartbeat > 1e9


def test_one_damaged_run_never_breaks_the_list(tmp_path: Path) -> None:
    for number, content in enumerate([b"", b"\0" * 50, b"[]", b'{"state": 3}']):
        (make(tmp_path, f"damaged{number}", 1e9).path / "status.json").write_bytes(content)
    (make(tmp_path, "missing", 1e9).path / "status.json").unlink()
    (tmp_path / "99999999-999999-odd").mkdir()
    sound = make(tmp_path, "sound", 1e9 - 5000)
    summaries = Run.list(tmp_path)
    assert len(summaries) == 7
    by_state = {state: [summary for summary in summaries if summary.state == state] for state in ("finished", "unreadable")}
    assert [summary.path for summary in by_state["finished"]] == [sound.path]
    assert len(by_state["unreadable"]) == 6
    assert all("status.json" in summary.reason for summary in by_state["unreadable"])
    assert {summary.started for summary in by_state["unreadable"] if "odd" not in summary.name} == {1e9}


def test_a_root_that_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    with pytest.raises(RunError, match="runs can't be read: Not a directory"):
        Run.list(tmp_path / "runs")


def test_a_run_whose_process_was_killed_is_listed_as_died(tmp_path: Path) -> None:
    code = "import sys; from engine.run import Run; Run.create(sys.argv[1], 'n', None, {}).status.write('running', step=4)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    (summary,) = Run.list(tmp_path)
    assert (summary.state, summary.step) == ("died", 4)


def test_a_run_that_was_killed_after_its_last_line_has_ended(tmp_path: Path) -> None:
    """Its journal has the end, its status does not yet."""
    code = "import sys; from engine.run import Run; Run.create(sys.argv[1], 'n', None, {}).status.write('running', step=4)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    run = Run.open("last", tmp_path)
    for event in (
        EpochEnded(epoch=1, step=5, metrics={"val/loss": 0.25}, lr=0.1, seconds=1.0, best=True),
        RunEnded(state="finished", reason="all 1 epochs done", epoch=1, step=5, seconds=1.0, best={"epoch": 1.0}),
    ):
        assert Run.list(tmp_path)[0].state == "died"
        run.journal.append(event)
        run.journal.close()
    (summary,) = Run.list(tmp_path)
    assert (summary.state, summary.step, summary.best, summary.reason) == ("finished", 5, {"epoch": 1.0}, "all 1 epochs done")
    assert run.status.read(run.status.path)["state"] == "died"
    (run.path / ".status.json.new").write_text("what the process was about to write")
    run.conclude()
    assert run.status.read(run.status.path)["state"] == "finished"
    assert Run.list(tmp_path)[0].best == summary.best
    assert not (run.path / ".status.json.new").exists()


# History and weight


def test_history_comes_from_the_journal(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "n", None, {})
    run.journal.append(EpochEnded(epoch=1, step=5, metrics={"val/loss": 0.25}, lr=0.1, seconds=1.0, best=True))
    run.journal.append(RunEnded(state="stopped", reason="r", epoch=1, step=5, seconds=1.0, best={}))
    run.journal.close()
    with (run.path / "journal.jsonl").open("ab") as file:
        file.write(b"rubbish\n")
    history = load_history(run)
    assert history.state == "stopped" and [row.epoch for row in history.epochs] == [1]
    assert list(history.curve("val/loss")) == [(5, 0.25, 0.25, 0.25)]
    (warning,) = history.messages
    assert warning.level == "warning" and "journal.jsonl, line 3" in warning.text


def test_runs_are_listed_without_torch(tmp_path: Path) -> None:
    make(tmp_path, "n", 1e9)
    code = (
        "import sys; from engine.run import Run, load_history\n"
        "(summary,) = Run.list(sys.argv[1]); load_history(Run.open('last', sys.argv[1]))\n"
        "heavy = {'torch', 'numpy', 'pandas', 'sklearn', 'safetensors', 'textual', 'plotext', 'tui'} & sys.modules.keys()\n"
        "assert not heavy, heavy\n"
        "from engine.run import Checkpoints; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
