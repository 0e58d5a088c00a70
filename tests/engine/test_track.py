"""What a run states, told to other tools, and read back by them."""

from __future__ import annotations

import math
import struct
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from engine import Control, EpochEnded, Event, Progress, Recipe, RecipeError, Run, Track, Trainer
from engine.events import Message, RunEnded, RunStarted, Trained
from engine.run import load_history
from engine.track import event_files, sinks
from engine.track.event_files import Reader, Scalars
from engine.track.sinks import Sink

IRIS = {
    "data.name": "iris", "model.hidden": [8], "training.epochs": 4, "training.execution": "eager",
    "checkpoint.min_seconds": 0.0,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _nobody_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EPOCHAL_CONFIG", str(tmp_path / "settings"))


def recipe(**more: Any) -> Recipe:
    return Recipe().replace(**{**IRIS, **more})


def curves(run: Run) -> dict[str, list[tuple[int, float]]]:
    return {
        name.replace(" ", "_"): [(step, struct.unpack("f", struct.pack("f", mean))[0]) for step, mean, _, _ in series]
        for name, series in load_history(run).series.items()
    }


def tensorboard_reads(run: Run) -> dict[str, list[tuple[int, float]]]:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    accumulator = accumulators.EventAccumulator(str(run.path / "tensorboard"), size_guidance={"scalars": 0})
    accumulator.Reload()
    tags = accumulator.Tags()["scalars"]
    return {tag: [(item.step, item.value) for item in accumulator.Scalars(tag)] for tag in tags}


def test_tensorboard_reads_what_the_journal_has(tmp_path: Path) -> None:
    run = Trainer.from_recipe(recipe(**{"track.tensorboard": True}), runs=tmp_path).fit().run
    assert run is not None
    found = tensorboard_reads(run)
    assert found.pop("epoch") == [(step, (step + 3) // 4) for step in range(1, 17)]
    assert found == curves(run) and len(found["train/loss"]) == 16


def test_a_resumed_run_has_no_step_twice(tmp_path: Path) -> None:
    control = Control()
    trainer = Trainer.from_recipe(recipe(**{"track.tensorboard": True}), runs=tmp_path, control=control)
    trainer.on(EpochEnded, lambda event: control.stop() if event.epoch == 2 else None)
    run = trainer.fit().run
    assert run is not None
    # As a killed process leaves it: values of steps that no checkpoint has, and half a record.
    (file,) = (run.path / "tensorboard").iterdir()
    with file.open("ab") as more:
        more.write(event_files.scalars(0.0, 9, {"train/loss": 77.0}) + event_files.scalars(0.0, 10, {"train/loss": 77.0})[:9])
    Trainer.resume(run.path).fit()
    found = tensorboard_reads(run)
    assert [step for step, _ in found["train/loss"]] == list(range(1, 17))
    assert {name: found[name] for name in curves(run)} == curves(run)


def test_a_loop_of_ones_own_writes_event_files_as_well(tmp_path: Path) -> None:
    with Run.create(tmp_path, "mine", track=Track(tensorboard=True)) as run:
        for step in range(1, 6):
            run.log(step, {"train/loss": 1 / step, "grad_norm": math.nan if step == 3 else 2.0}, epoch=1)
    found = tensorboard_reads(run)
    assert found["train/loss"] == curves(run)["train/loss"]
    assert [math.isnan(value) for _, value in found["grad_norm"]] == [False, False, True, False, False]


def test_event_files_of_tensorboard_are_read(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_text("about", "words")
        for step in range(3):
            writer.add_scalar("Loss/train", step / 2, step)
            writer.add_scalar("as tensor", step, step, new_style=True)
            writer.add_scalar("double", step, step, new_style=True, double_precision=True)
        writer.add_histogram("weights", torch.ones(3), 2)
    (file,) = tmp_path.glob("*tfevents*")
    found = list(Reader(file).read())
    assert [(item.step, dict(item.values)) for item in found if "Loss/train" in item.values] == [
        (step, {"Loss/train": step / 2}) for step in range(3)
    ]
    for name in ("as tensor", "double"):
        assert [item.values[name] for item in found if name in item.values] == [0.0, 1.0, 2.0]


def test_records_that_are_being_written_are_read_when_they_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "events.out.tfevents.1"
    whole = event_files.beginning(1.0, 0) + b"".join(
        event_files.scalars(2.0, step, {"x": step, "y": -step}) for step in range(20)
    )
    reader, found = Reader(path), []
    for end in range(0, len(whole) + 1, 7):
        path.write_bytes(whole[:end])
        found += reader.read(most=50)
    path.write_bytes(whole)
    for _ in range(40):
        found += reader.read(most=50)
    assert [item.step for item in found if not item.restart] == list(range(20)) and found[0].restart
    assert found[-1] == Scalars(2.0, 19, {"x": 19.0, "y": -19.0}) and not reader.problem


@pytest.mark.parametrize("at", [3, 9, 30, 75, 90])
def test_a_damaged_file_is_read_up_to_there(tmp_path: Path, at: int) -> None:
    path = tmp_path / "events.out.tfevents.1"
    whole = bytearray(b"".join(event_files.scalars(2.0, step, {"x": step}) for step in range(5)))
    size = len(whole) // 5
    whole[at] ^= 4
    path.write_bytes(whole)
    reader = Reader(path)
    assert [item.step for item in reader.read()] == list(range(at // size))
    assert "is damaged at byte" in reader.problem and not list(reader.read())


def ended(name: str) -> None:
    """Wait for a thread."""
    for thread in threading.enumerate():
        if thread.name == name:
            thread.join(60)


class Tool:
    """One that fails at a value, or never comes to an end."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.fails_at, self.logged = fails_at, list[tuple[int, Mapping[str, float]]]()

    def begin(self, started: RunStarted) -> None: ...

    def log(self, step: int, values: Mapping[str, float], at: float) -> None:
        if step == self.fails_at:
            raise OSError("the server\nis gone")
        self.logged.append((step, values))

    def take(self, event: Event) -> None: ...

    def end(self, ended: RunEnded) -> None: ...


def test_a_tool_that_fails_is_told_of_once_and_the_training_goes_on(tmp_path: Path) -> None:
    tool, told = Tool(fails_at=5), []
    trainer = Trainer.from_recipe(recipe(), runs=tmp_path)
    sink = Sink("Theirs", tool, trainer.reporter.emit)
    trainer.on(Event, sink.take)
    trainer.on(EpochEnded, lambda event: event.epoch == 2 and ended("epochal-theirs"))
    trainer.on(Message, told.append)
    assert trainer.fit().state == "finished"
    assert [step for step, _ in tool.logged] == [1, 2, 3, 4, 4]
    assert [(event.level, event.text) for event in told] == [
        ("warning", "Theirs is told nothing more of this run: OSError: the server is gone")
    ]


def test_a_tool_that_hangs_is_left_alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sinks, "PATIENCE", 0.05)
    monkeypatch.setattr(sinks, "WAITING", 3)
    free, told = threading.Event(), list[Event]()
    tool = Tool()
    tool.begin = lambda started: free.wait(60) and None  # type: ignore[method-assign]
    sink = Sink("Theirs", tool, told.append)
    sink.take(RunStarted(
        name="n", path=None, device="cpu", device_name="", precision="", execution="", epochs=1, steps_per_epoch=None,
        total_steps=None, parameters=0, step=0, epoch=0, monitor="val/loss", mode="min",
    ))  # fmt: skip
    for step in range(1, 9):
        sink.take(Trained(epoch=1, first=step, step=step, every=1, loss=(1.0,), low=(), high=(), lr=(0.1,)))
    assert [event.text for event in told if isinstance(event, Message)] == [
        "Theirs is told nothing more of this run: it is 3 events behind"
    ]
    sink.take(RunEnded(state="finished", reason="", epoch=1, step=8, seconds=1.0, best={}))
    free.set()
    assert not [event for event in told if isinstance(event, Progress)]


@pytest.mark.parametrize("key", ["mlflow", "wandb"])
def test_a_tool_that_is_not_installed_is_one_sentence(tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.track import attach

    monkeypatch.setattr(attach, "find_spec", lambda name: None)
    sentence = rf'^track.{key} needs .*, which is not installed: pip install "epochal\[{key}\]"$'
    with pytest.raises(RecipeError, match=sentence):
        Trainer.from_recipe(recipe(**{f"track.{key}": "x"}), runs=tmp_path)
    with pytest.raises(RecipeError, match=sentence):
        Run.create(tmp_path, "mine", track=Track(**{key: "x"}))
    assert not list(tmp_path.glob("2*"))


def test_mlflow_reads_what_the_journal_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    uri = str(tmp_path / "theirs")
    control = Control()
    trainer = Trainer.from_recipe(recipe(**{"track.mlflow": uri}), runs=tmp_path / "runs", control=control)
    trainer.on(EpochEnded, lambda event: control.stop() if event.epoch == 2 else None)
    run = trainer.fit().run
    assert run is not None
    Trainer.resume(run.path).fit()
    client = MlflowClient(tracking_uri=(tmp_path / "theirs").as_uri())
    (there,) = client.search_runs([client.get_experiment_by_name("epochal").experiment_id])
    assert (there.info.status, there.info.run_name) == ("FINISHED", run.name)
    assert there.data.params["optimizer.lr"] == "0.001" and there.data.params["data.name"] == "iris"
    history = {
        name: [(m.step, m.value) for m in client.get_metric_history(there.info.run_id, name)] for name in there.data.metrics
    }
    series = {name: [(step, mean) for step, mean, _, _ in curve] for name, curve in load_history(run).series.items()}
    assert {name: history[name] for name in series} == series


def test_wandb_writes_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    run = Trainer.from_recipe(recipe(**{"track.wandb": "mine"}), runs=tmp_path / "runs").fit().run
    assert run is not None
    (file,) = run.path.glob("wandb/offline-run-*/*.wandb")
    losses: dict[int, float] = {}
    for data in leveldb_records(file.read_bytes()[7:]):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        row = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
        if "train/loss" in row:
            losses[int(row["_step"])] = float(row["train/loss"])
    assert losses == {step: mean for step, mean, _, _ in load_history(run).series["train/loss"]}


def leveldb_records(data: bytes) -> Iterator[bytes]:
    """The records of a log as W&B writes it: in blocks of 32 KiB, of which the first has a header before it."""
    at, held = 7, b""
    data = bytes(7) + data
    while at + 7 <= len(data):
        room = 32768 - at % 32768
        if room < 7:
            at += room
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        held = data[at + 7 : at + 7 + length] if kind in (1, 2) else held + data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield held
