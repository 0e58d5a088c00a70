"""`runs`, `check` and `catalog`: what they print, in this process."""

from __future__ import annotations

import json
import os
import platform
from collections import Counter
from pathlib import Path

import pytest

from engine.run import Run
from tests.engine.called import QUICK, Capture, called

pytestmark = pytest.mark.usefixtures("in_a_shell")


def test_runs(capsys: Capture) -> None:
    assert called(capsys, "runs") == (0, "no runs in runs\n", "")
    assert called(capsys, "runs", "--json") == (0, "[]\n", "")
    called(capsys, "train", *QUICK, "--name", "a")
    called(capsys, "train", *QUICK, "--name", "a-longer-name", "--set", "training.epochs=12")
    status, out, _ = called(capsys, "runs")
    lines = out.splitlines()
    assert status == 0
    assert lines[0].split() == ["run", "state", "epoch", "step", "time", "best", "recipe"]
    assert all(line.index("finished") == lines[0].index("state") for line in lines[1:])
    assert all("val loss" in line for line in lines[1:])
    listed = json.loads(called(capsys, "runs", "--json")[1])
    assert sorted(run["name"].split("-", 2)[2] for run in listed) == ["a", "a-longer-name"]
    assert all(run["state"] == "finished" and run["best"]["val/loss"] > 0 for run in listed)


def test_runs_at_work_say_where(capsys: Capture) -> None:
    called(capsys, "train", *QUICK, "--name", "done")
    run = Run.create("runs", "busy", "")
    run.status.write("paused")
    lines = [line.split() for line in called(capsys, "runs")[1].splitlines()]
    assert lines[0] == ["run", "state", "process", "epoch", "step", "time", "best", "recipe"]
    assert lines[1][:5] == [run.name, "paused", str(os.getpid()), "on", platform.node()]
    assert lines[2][1:3] == ["finished", "2/2"]
    assert json.loads(called(capsys, "runs", "--json")[1])[0]["pid"] == os.getpid()


def test_runs_root_from_the_environment(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPOCHAL_RUNS", "other")
    assert called(capsys, "runs")[1] == "no runs in other\n"


def test_check(capsys: Capture) -> None:
    Path("net.py").write_text(
        "from torch import nn\n\nclass Net(nn.Linear):\n    def __init__(self, input_shape, output_size):\n"
        "        super().__init__(input_shape[0], output_size)\n"
    )
    status, out, err = called(capsys, "check", "--set", "model.name=net.py:Net")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["OK", "digits-Net"]
    assert any(line.split() == ["own", "code", "model", "net.py:Net"] for line in lines)
    assert any("650 parameters" in line for line in lines)
    assert not Path("runs").exists()


def test_a_trace_of_the_dry_run_counts_what_it_prints(capsys: Capture) -> None:
    status, out, err = called(capsys, "check", *QUICK, "--set", "model.hidden=[8,8]", "--trace", "trace.json")
    assert (status, err) == (0, "")
    assert "trace.json, for ui.perfetto.dev" in out and "10 steps, eager (with which auto begins): " in out
    calls = Counter(event["name"] for event in json.loads(Path("trace.json").read_text())["traceEvents"] if "name" in event)
    assert (calls["training step"], calls["aten::addmm"]) == (10, 30)  # three layers
    rows = [line.split() for line in out.partition("operation  ")[2].splitlines()[1:]]
    printed = {row[0]: int(row[-1]) for row in rows if row[0].startswith("aten::")}
    assert len(rows) == 10 and printed.items() <= calls.items()
    shares = [float(row[-2].rstrip("%")) for row in rows]
    assert shares == sorted(shares, reverse=True) and 0 < sum(shares) < 100.5
    assert list(Path().iterdir()) == [Path("trace.json")]


def test_catalog(capsys: Capture) -> None:
    status, out, _ = called(capsys, "catalog")
    assert status == 0
    counts = {line.split()[0]: int(line.split()[1]) for line in out.splitlines()[1:-1]}
    assert set(counts) == {"data", "model", "loss", "optimizer", "scheduler"}
    by_kind = json.loads(called(capsys, "catalog", "--json")[1])
    assert {kind: len(names) for kind, names in by_kind.items()} == counts
    for kind, names in by_kind.items():
        status, out, _ = called(capsys, "catalog", kind)
        assert status == 0
        heads = [line.split()[0] for line in out.splitlines() if line]
        assert set(names) <= set(heads)
        listed = json.loads(called(capsys, "catalog", kind, "--json")[1])
        assert [entry["name"] for entry in listed if not entry["refusal"]] == names
        for name in names:
            assert called(capsys, "catalog", kind, name)[0] == 0


def test_catalog_says_why_one_is_refused(capsys: Capture) -> None:
    refused = called(capsys, "catalog", "scheduler")[1].partition("not for a recipe:")[2]
    assert "SequentialLR" in refused
    assert "name a chain" in refused
    assert "name a chain" in called(capsys, "catalog", "scheduler", "SequentialLR")[1]


def test_catalog_shows_the_fields(capsys: Capture) -> None:
    out = called(capsys, "catalog", "optimizer", "Adam")[1]
    assert "lr " in out
    assert "default 0.001" in out
    assert "default [0.9, 0.999]" in out
    fields = {
        field["key"]: field for field in json.loads(called(capsys, "catalog", "optimizer", "Adam", "--json")[1])["fields"]
    }
    assert fields["lr"]["default"] == 0.001
    assert fields["amsgrad"]["kind"] == "boolean"
    assert "batch_size" in called(capsys, "catalog", "data", "csv")[1]
