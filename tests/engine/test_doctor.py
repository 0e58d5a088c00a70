"""`epochal doctor`: what it finds here, and what it would say elsewhere."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest

import engine
from engine.cli import main
from engine.doctor import Finding, devices, disk, software, terminal
from engine.doctor.devices import Driver, Gpu
from engine.run import files

TORCH = {"version": "2.13.0", "built": "12.6", "hip": "", "threads": 8, "mps": False, "failure": "", "devices": []}
H100 = Gpu("NVIDIA H100", 80 << 30, 79 << 30)


def levels(found: Iterable[Finding]) -> list[str]:
    return [each.level for each in found]


def test_this_machine_can_train(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json", "--runs", str(tmp_path)]) == 0
    found = [Finding(**each) for each in json.loads(capsys.readouterr().out)]
    assert {"versions", "devices", "compiler", "terminal", "runs", "extras"} <= {each.area for each in found}
    assert any("torch" in each.text and "2." in each.text for each in found if each.area == "devices")
    assert not list(tmp_path.iterdir())


def test_a_line_each_and_status_1_for_a_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = [sys.executable, "-c", "raise ImportError('libcudart.so.12: cannot open shared object file')"]
    monkeypatch.setattr(devices, "ask_torch", lambda: ask(*broken))
    assert main(["doctor", "--runs", str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert all(line.split()[0] in ("ok", "warning", "problem") for line in lines)
    (problem,) = (line for line in lines if line.startswith("problem"))
    assert "torch can't be imported: ImportError: libcudart.so.12" in problem and " → pip install" in problem


def ask(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_torch_that_brings_its_process_down() -> None:
    found = list(devices.findings(ask("/bin/sh", "-c", "kill -SEGV $$")))
    assert [each.text for each in found if each.level == "problem"] == [
        "torch can't be imported: its process was ended by SIGSEGV"
    ]


@pytest.mark.parametrize(
    ("told", "driver", "level", "words"),
    [
        ({}, None, "ok", "there is no GPU"),
        (
            {"devices": [["NVIDIA H100", "sm_90"]]},
            Driver("560.1", (12, 6), (H100,)),
            "ok",
            "computes on cuda:0 NVIDIA H100 (sm_90)",
        ),
        ({"built": ""}, Driver("560.1", (12, 6), (H100,)), "problem", "is built without CUDA"),
        (
            {},
            Driver("470.1", (11, 4), (H100,)),
            "problem",
            "built for CUDA 12.6, and driver 470.1 carries out CUDA 11.4 at most",
        ),
        ({}, Driver("560.1", (12, 6), (H100,)), "problem", "finds no GPU"),
        (
            {"devices": [["X", "sm_35"]], "failure": "cuda:0: no kernel image"},
            None,
            "problem",
            "can't compute on cuda:0: no kernel",
        ),
        ({"mps": True}, None, "ok", "Apple's GPU"),
    ],
)
def test_torch_and_driver_are_compared(
    told: dict, driver: Driver | None, level: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    *gpus, last = devices.compare(TORCH | told, driver)
    assert last.level == level and words in last.text
    assert levels(gpus) == ["ok"] * (len(driver.gpus) if driver else 0)


def test_hidden_and_occupied_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    full = Gpu("NVIDIA H100", 80 << 30, 2 << 30)
    occupied, hidden = devices.compare(TORCH, Driver("560.1", (12, 6), (full,)))
    assert levels([occupied, hidden]) == ["warning", "warning"]
    assert "80.0 GiB, 2.0 free" in occupied.text and "CUDA_VISIBLE_DEVICES is ''" in hidden.text


def test_the_quota_of_a_container(tmp_path: Path) -> None:
    quota = tmp_path / "cpu.max"
    quota.write_text("150000 100000\n")
    assert devices._quota(quota) == 1.5
    quota.write_text("max 100000\n")
    assert devices._quota(quota) is None and devices._quota(tmp_path / "none") is None


@pytest.mark.parametrize("found", ["2.9.1", "2.10", "2.10.0+cu126", "2.13.0", "8.2.8", "9.0", "10.1"])
@pytest.mark.parametrize("bounds", [">=2.10", "<9,>=8.0", "==8.2.8", "!=9.0", ">2.9,<=2.13"])
def test_versions_fit_as_packaging_has_it(found: str, bounds: str) -> None:
    specifiers = pytest.importorskip("packaging.specifiers")
    assert software.fits(found, bounds) == specifiers.SpecifierSet(bounds).contains(found)


def test_what_is_missing_or_too_old_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = ["torch>=99", "nothing-of-that-name>=1", 'mlflow>=2; extra == "mlflow"']
    monkeypatch.setattr(software, "requires", lambda name: needed)
    ok, old, missing = software.versions()
    assert levels([ok, old, missing]) == ["ok", "problem", "problem"]
    assert "and epochal needs >=99" in old.text and old.remedy == 'pip install "torch>=99"'
    assert missing.text == "nothing-of-that-name is not installed"
    (extra,) = (each for each in software.extras() if "mlflow" in each.text)
    assert extra.remedy == 'pip install "epochal[mlflow]"'


def test_every_extra_has_its_purpose() -> None:
    project = Path(engine.__file__).parents[1] / "pyproject.toml"
    declared = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert set(declared) == set(software.PURPOSES)
    every = {extra for extra in declared if extra not in software.INNER}
    assert set(declared["all"][0].removeprefix("epochal[").removesuffix("]").split(",")) == every
    readme = (project.parent / "README.md").read_text(encoding="utf-8")
    assert not [extra for extra in every if f"| `{extra}` |" not in readme]


def test_no_compiler_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    (found,) = software.compiler()
    assert found.level == "warning" and "CXX names, no-such-compiler, is not found" in found.text


def test_a_disk_that_does_all(tmp_path: Path) -> None:
    (found,) = (each for each in disk.findings(tmp_path / "new" / "runs") if each.level != "warning")
    assert found.level == "ok" and f"to be made in {tmp_path}" in found.text and "MiB/s" in found.text
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("operation", "words"),
    [("sync", "can't be synced and renamed"), ("replace", "can't be synced and renamed"), ("link", "no symbolic link")],
)
def test_a_disk_that_lacks_something(operation: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(files, operation, fail)
    assert [each for each in disk.findings(tmp_path) if each.level == "problem" and words in each.text]


def test_a_disk_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("engine.run.lock.fcntl.lockf", fail)
    (problem,) = (each for each in disk.findings(tmp_path) if each.level == "problem")
    assert problem.text.startswith("a run here can't be locked (No locks available)")
    monkeypatch.setattr("engine.run.lock.fcntl.lockf", lambda *_: None)  # says yes to everybody
    (problem,) = (each for each in disk.findings(tmp_path) if each.level == "problem")
    assert "two processes may train the same run" in problem.text


def test_room_and_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "free", lambda path: 50 << 20)
    monkeypatch.setattr(disk, "file_system", lambda path: "nfs4")
    full, network = disk.findings(tmp_path)
    assert levels([full, network]) == ["problem", "warning"] and "network file system (nfs4)" in network.text
    (tmp_path / "file").write_text("")
    (found,) = disk.findings(tmp_path / "file" / "runs")
    assert found.level == "problem" and "is not a directory" in found.text


@pytest.mark.parametrize(
    ("variables", "level", "words"),
    [
        ({"TERM": "xterm-256color", "COLORTERM": "truecolor"}, "ok", "16 million"),
        ({"TERM": "xterm-256color"}, "ok", "256 colours"),
        ({"TERM": "screen"}, "warning", "16 colours"),
        ({"TERM": "xterm", "NO_COLOR": "1"}, "ok", "without colours"),
    ],
)
def test_colours_by_the_environment(variables: dict[str, str], level: str, words: str) -> None:
    found = terminal.colours(variables)
    assert found.level == level and words in found.text


def test_the_clipboard_by_what_stands_between(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"set-clipboard": "external", "allow-passthrough": "off"}
    monkeypatch.setattr(terminal, "_tmux", told.__getitem__)
    assert "set-clipboard external" in terminal.clipboard({"TMUX": "x"}).text
    told["set-clipboard"] = "on"
    assert terminal.clipboard({"TMUX": "x"}).level == "ok"
    assert terminal.clipboard({"TERM_PROGRAM": "Apple_Terminal"}).level == "warning"
    assert "short texts" in terminal.clipboard({"STY": "x"}).text and terminal.clipboard({}).level == "ok"


@pytest.mark.parametrize(("answer", "width"), [(b"\x1b[7;3R", 2), (b"garbage\x1b[1;7R", 6), (b"", None)])
def test_the_terminal_itself_is_asked_how_wide_braille_is(
    answer: bytes, width: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, theirs = pty.openpty()
    monkeypatch.setattr(terminal, "SECONDS", 60.0 if answer else 0.05)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(os.fdopen(os.dup(theirs), "rb")))
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(os.fdopen(theirs, "wb"), encoding="utf-8"))

    def answers() -> None:
        said = b""
        while b"\x1b[6n" not in said:
            said += os.read(mine, 64)
        os.write(mine, answer)

    thread = threading.Thread(target=answers)
    thread.start()
    assert terminal.drawn_width() == width
    thread.join()
    assert [each.level for each in terminal.findings({"TERM": "dumb"})] == ["problem"]
    os.close(mine)
