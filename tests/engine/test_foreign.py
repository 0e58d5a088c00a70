"""Runs that other tools wrote: event files and CSV."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from engine import Run, RunError, Trainer
from engine.cli import main
from engine.run import load_history, manage
from engine.run.follow import following
from engine.track import event_files, foreign
from engine.track.foreign import Foreign

LIGHTNING = """epoch,step,train_loss,val_acc,val_loss
0,49,0.5,,
0,99,0.4,,
0,99,,0.75,0.45
1,149,0.3,,
1,199,,0.875,0.35
"""
KERAS = """epoch,accuracy,loss,val_accuracy,val_loss
0,0.5,1.0,0.4,1.1
1,0.75,0.5,0.7,0.6
2,0.9,0.25,0.6,0.7
"""
OTHER = "iteration;Loss;speed\n10;1.5;fast\n20;nan;fast\n30;0.5;slow\n"


@pytest.fixture(autouse=True)
def _forget() -> None:
    foreign._known.clear()


def events(folder: Path, *rows: tuple[int, dict[str, float]], name: str = "events.out.tfevents.1.host", step: int = 0) -> Path:
    """An event file with these values, of ten seconds each."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    records = [event_files.scalars(1e9 + 10 * at, at, values) for at, values in rows]
    path.write_bytes(event_files.beginning(1e9, step) + b"".join(records))
    return path


def old(path: Path) -> Path:
    """As nobody has written to it for an hour."""
    for item in [path, *path.glob("*")]:
        os.utime(item, (time.time() - 3600, time.time() - 3600))
    return path


def table(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def curve(run: Path, name: str) -> list[tuple[int, float]]:
    return [(step, mean) for step, mean, _, _ in load_history(Run(run)).series[name]]


def test_lightnings_csv_with_holes(tmp_path: Path) -> None:
    path = old(table(tmp_path / "version_0" / "metrics.csv", LIGHTNING).parent)
    history = load_history(Run(path))
    assert curve(path, "train/loss") == [(49, 0.5), (99, 0.4), (149, 0.3)]
    assert curve(path, "val/acc") == [(99, 0.75), (199, 0.875)]
    assert [(row.epoch, row.step, row.metrics) for row in history.epochs] == [
        (1, 99, {"train/loss": pytest.approx(0.45), "val/acc": 0.75, "val/loss": 0.45}),
        (2, 199, {"train/loss": 0.3, "val/acc": 0.875, "val/loss": 0.35}),
    ]
    assert history.state == "recorded" and history.best is history.epochs[1]


def test_keras_counts_epochs_alone(tmp_path: Path) -> None:
    path = old(table(tmp_path / "log.csv", KERAS))
    history = load_history(Run(path))
    assert [row.metrics["train/loss"] for row in history.epochs] == [1.0, 0.5, 0.25]
    assert [row.epoch for row in history.epochs] == [1, 2, 3] and history.epochs[1].best and not history.epochs[2].best
    assert curve(path, "val/accuracy") == [(1, 0.4), (2, 0.7), (3, 0.6)]
    assert curve(path, "train/accuracy") == [(1, 0.5), (2, 0.75), (3, 0.9)]


def test_any_table_with_steps(tmp_path: Path) -> None:
    path = table(tmp_path / "mine.csv", OTHER)
    loss = curve(path, "Loss")
    assert [step for step, _ in loss] == [10, 20, 30] and loss[0][1] == 1.5 and math.isnan(loss[1][1])
    for text in ("name,age\nx,3\n", "step,name\n1,x\n", "1,2\n3,4\n", ""):
        assert not Run(table(tmp_path / "data.csv", text)).foreign


def test_event_files_have_epochs_as_well(tmp_path: Path) -> None:
    rows = [
        *((step, {"train_loss": 1 / step}) for step in range(1, 4)), (3, {"epoch": 0}), (3, {"val_loss": 0.5}),
        *((step, {"train_loss": 1 / step}) for step in range(4, 7)), (6, {"epoch": 1}), (6, {"val_loss": 0.25}),
    ]  # fmt: skip
    history = load_history(Run(old(events(tmp_path / "a", *rows).parent)))
    assert [(row.epoch, row.metrics["val/loss"]) for row in history.epochs] == [(1, 0.5), (2, 0.25)]
    seconds = [point[3] for point in history.clock]
    assert seconds == sorted(seconds) and seconds[-1] == pytest.approx(50.0)


def test_what_a_later_file_takes_back_is_not_there_twice(tmp_path: Path) -> None:
    events(tmp_path, *((step, {"x": 1.0}) for step in range(1, 11)))
    theirs = Foreign(tmp_path)
    theirs.poll()
    events(tmp_path, *((step, {"x": 2.0}) for step in range(6, 9)), name="events.out.tfevents.2.host", step=6)
    theirs.poll()
    expected = [(step, 1.0 if step < 6 else 2.0) for step in range(1, 9)]
    assert [(step, mean) for step, mean, _, _ in theirs.history.series["x"]] == expected
    assert curve(tmp_path, "x") == expected


def test_it_is_followed_as_it_grows(tmp_path: Path) -> None:
    path = events(tmp_path / "tb", *((step, {"loss": 1.0}) for step in range(1, 4)))
    csv = table(tmp_path / "mine.csv", "step,loss\n1,1.0\n")
    followers = following(Run(path.parent)), following(Run(csv))
    for follower in followers:
        follower.poll()
        assert follower.alive and follower.history.state == "running"
    whole = event_files.scalars(1e9, 4, {"loss": 0.5})
    with path.open("ab") as file, csv.open("a") as rows:
        file.write(whole[:10])
        file.flush()
        rows.write("2,0.5\n3,0.")
        rows.flush()
        for follower in followers:
            follower.poll()
        assert [len(follower.history.series["train/loss"]) for follower in followers] == [3, 2]
        file.write(whole[10:])
        rows.write("25\n")
    for follower in followers:
        follower.poll()
    assert [list(follower.history.series["train/loss"])[-1][1] for follower in followers] == [0.5, 0.25]
    # Lightning writes the whole file anew when a column is added.
    csv.write_text("step,loss,lr\n1,1.0,0.1\n2,0.5,0.1\n3,0.25,0.1\n4,0.125,0.1\n")
    followers[1].poll()
    assert len(followers[1].history.series["train/loss"]) == len(followers[1].history.series["lr"]) == 4
    old(path.parent)
    followers[0].poll()
    assert followers[0].history.state == "running"  # what was seen of it is not that old
    followers[0].modified -= 3600  # type: ignore[union-attr]
    followers[0].poll()
    assert followers[0].history.state == "recorded" and not followers[0].alive


def test_a_damaged_file_is_a_warning(tmp_path: Path) -> None:
    path = events(tmp_path, *((step, {"x": 1.0}) for step in range(1, 11)))
    data = bytearray(path.read_bytes())
    data[-40] ^= 1
    path.write_bytes(data)
    history = load_history(Run(tmp_path))
    assert 7 < len(history.series["x"]) < 10
    (message,) = history.messages
    assert "is damaged at byte" in message.text


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    """A folder as people have them."""
    old(events(tmp_path / "tb" / "one", *((step, {"val_loss": 1 / step}) for step in range(1, 6))).parent)
    old(events(tmp_path / "tb" / "two", *((step, {"val_loss": 2 / step}) for step in range(1, 6))).parent)
    old(table(tmp_path / "lightning_logs" / "version_0" / "metrics.csv", LIGHTNING).parent)
    old(table(tmp_path / "keras.csv", KERAS))
    table(tmp_path / "data.csv", "height,weight\n1,2\n")
    with Run.create(tmp_path, "ours") as run:
        run.log(1, {"val/loss": 3.0})
    events(run.path / "tensorboard", (1, {"val/loss": 3.0}))
    return tmp_path


def test_a_folder_is_listed_with_our_own_runs(gallery: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = {summary.name: summary for summary in Run.list(gallery)}
    ours = next(name for name in names if name.endswith("ours"))
    assert set(names) == {ours, "tb/one", "tb/two", "lightning_logs/version_0", "keras.csv"}
    assert names["tb/one"].best["val/loss"] == pytest.approx(0.2) and names["keras.csv"].epoch == 3
    assert main(["runs", "--runs", str(gallery), "--sort", "best", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [run["name"] for run in listed][:2] == ["tb/one", "lightning_logs/version_0"]
    assert main(["view", str(gallery)]) == 0 and "recorded" in capsys.readouterr().out
    assert main(["view", str(gallery / "keras.csv")]) == 0 and "epoch 3" in capsys.readouterr().out
    assert Run.open("two", gallery).path == gallery / "tb" / "two"
    assert main(["show", "version_0", "--runs", str(gallery)]) == 0 and "val loss 0.3500" in capsys.readouterr().out
    assert main(["attach", "two", "--runs", str(gallery)]) == 0 and "recorded" in capsys.readouterr().out


def test_a_place_with_nothing_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = table(tmp_path / "data.csv", "height,weight\n1,2\n")
    for where, said in ((tmp_path, "nothing to look at"), (data, "no CSV file of metrics"), (tmp_path / "no", "no folder")):
        assert main(["view", str(where)]) == 2
        told = capsys.readouterr().err
        assert said in told and told.count("\n") == 1


@pytest.mark.parametrize(
    "act",
    [
        lambda run: run.tell("pause"),
        lambda run: run.tell("stop"),
        lambda run: manage.rename(run, "other"),
        manage.delete,
        lambda run: manage.tag(run, "good"),
        lambda run: Trainer.resume(run.path),
    ],
    ids=["pause", "stop", "rename", "delete", "tag", "resume"],
)
def test_it_is_only_looked_at(gallery: Path, act: Callable[[Run], object]) -> None:
    before = sorted((path, path.stat().st_mtime) for path in gallery.rglob("*"))
    for path in (gallery / "tb" / "one", gallery / "keras.csv", gallery / "lightning_logs" / "version_0"):
        with pytest.raises(RunError, match=r"^\S+ was written by another tool: it can be looked at, and nothing else$"):
            act(Run(path))
    assert sorted((path, path.stat().st_mtime) for path in gallery.rglob("*")) == before


def test_the_command_line_refuses_as_well(gallery: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["pause", "one"], ["resume", "one"], ["fork", "one"], ["delete", "one", "--yes"], ["set", "one", "lr=1"],
                    ["queue", "add", "--resume", "one"], ["export", "one", "--script"], ["diff", "one"],
                    ["evaluate", "one"], ["predict", "one", str(gallery / "data.csv")]):  # fmt: skip
        assert main([*command, "--runs", str(gallery)]) == 2
        told = capsys.readouterr().err
        assert told.count("\n") == 1 and ("another tool" in told or "no recipe" in told), told


def test_a_list_in_a_hurry_reads_on_the_next_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        old(events(tmp_path / name, *((step, {"val_loss": 1.0}) for step in range(1, 6))).parent)
    assert {summary.step for summary in Run.list(tmp_path, patience=0.0)} == {0}
    assert {summary.step for summary in Run.list(tmp_path)} == {5}
