"""Tag, rename, delete; what a run differs in; the list chosen and sorted."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from engine import Recipe, Run, Trainer
from engine.cli import main
from engine.errors import RunError
from engine.events import EpochEnded
from engine.recipe_text import differences
from engine.run import files, manage
from engine.run.about import in_short
from engine.run.choose import arranged, smaller_is_better
from engine.run.scores import Scores


def made(root: Path, name: str = "a", state: str = "finished", **status: object) -> Run:
    run = Run.create(root, name, environment={"python": "3.x"})
    run.status.write(state, **status)
    return run


def names(root: Path) -> list[str]:
    return [summary.name.partition("-")[2].partition("-")[2] for summary in Run.list(root)]


def test_a_tag_is_kept_replaced_and_taken_away(tmp_path: Path) -> None:
    run = made(tmp_path)
    for text, kept in (("  good\nstart ", "good start"), ("é" * 100, "é" * 100), ("\x1b[31m", "\\x1b[31m"), ("", "")):
        manage.tag(run, text)
        assert Run.list(tmp_path)[0].tag == kept
    with pytest.raises(RunError, match="at most 100 characters, not 101"):
        manage.tag(run, "x" * 101)


def test_a_renamed_run_keeps_its_time_and_all_that_is_in_it(tmp_path: Path) -> None:
    run, other = made(tmp_path, "a"), made(tmp_path, "b")
    stamp = run.name.removesuffix("-a")
    moved = manage.rename(run, "better")
    assert moved.name == f"{stamp}-better" and sorted(names(tmp_path)) == ["b", "better"]
    assert manage.rename(moved, moved.name).path == moved.path, "the whole name is taken as well"
    for wrong in ("", "a/b", "../c", ".hidden", "x" * 51):
        with pytest.raises(RunError, match="can't be a run's name"):
            manage.rename(moved, wrong)
    if other.name.removesuffix("-b") == stamp:
        with pytest.raises(RunError, match="already"):
            manage.rename(moved, "b")


def test_a_deleted_run_is_gone_and_no_other(tmp_path: Path) -> None:
    run, _ = made(tmp_path, "a"), made(tmp_path, "b")
    manage.delete(run)
    assert names(tmp_path) == ["b"] and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("act", [manage.delete, lambda run: manage.rename(run, "c")])
def test_a_live_run_is_left_alone(tmp_path: Path, act, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made(tmp_path, state="running")
    with pytest.raises(RunError, match="is being trained by this process"):
        act(run)
    monkeypatch.setattr("engine.run.directory.os.getpid", lambda: 1)  # as another process sees it
    with pytest.raises(RunError, match="is being trained by process"):
        act(run)
    ended = made(tmp_path, "ended")
    ended.lock.acquire()
    with pytest.raises(RunError, match="is being trained by this process already"):
        act(Run(ended.path))
    assert len(names(tmp_path)) == 2


def test_a_run_that_the_disk_half_deletes_is_in_no_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made(tmp_path)

    def fails(path: Path) -> None:
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr(files, "remove", fails)
    with pytest.raises(RunError, match=r"can't be deleted: Input/output error; what is left is in .*\.gone-"):
        manage.delete(run)
    assert names(tmp_path) == []


def test_what_a_search_tried_is_said_as_the_recipe_has_it(tmp_path: Path) -> None:
    run = Trainer.from_recipe(Recipe().replace(**{"training.device": "cpu"}), runs=tmp_path).run
    environment = json.loads((run.path / "environment.json").read_text())
    environment["search"] = {"params": {"model.hidden": "[128]", "optimizer.lr": 0.001}}  # a list is Optuna's text
    (run.path / "environment.json").write_text(json.dumps(environment))
    assert in_short(Run.list(tmp_path)[0].differs) == "hidden 128 · lr 0.001 · device cpu"


def test_what_differs_is_read_from_the_recipe_and_follows_a_resume(tmp_path: Path) -> None:
    changes = {
        "data.batch_size": 64, "data.validation": 0.5, "model.hidden": [8], "optimizer.name": "SGD", "optimizer.lr": 0.1,
        "training.epochs": 1, "training.device": "cpu", "name": "x", "seed": 3,
    }  # fmt: skip
    run = Trainer.from_recipe(Recipe().replace(**changes), runs=tmp_path).run
    expected = {key: value for key, value in changes.items() if key != "name"}
    assert Run.list(tmp_path)[0].differs == expected == Recipe.load(run.recipe_path).differs()
    assert (
        in_short(Run.list(tmp_path)[0].differs)
        == "hidden 8 · SGD · lr 0.1 · batch_size 64 · validation 0.5 · device cpu · seed 3"
    )
    Recipe.load(run.recipe_path).replace(**{"training.epochs": 22}).save(run.recipe_path)
    assert Run.list(tmp_path)[0].differs == expected | {"training.epochs": 22}
    environment = json.loads((run.path / "environment.json").read_text())
    (run.path / "environment.json").write_text(json.dumps({**environment, "differs": None}))
    older = Run.list(tmp_path)[0].differs
    assert older == {key: value for key, value in expected.items() if key not in ("model.hidden", "optimizer.lr")} | {
        "training.epochs": 22
    }


def test_two_recipes_differ_where_either_has_another_value() -> None:
    one = {"name": "a", "data": {"name": "digits", "x": 1}, "scheduler": {"name": "StepLR"}}
    other = {"name": "b", "data": {"name": "digits", "x": 2}, "training": {"epochs": 3}}
    found = [("name", "a", "b"), ("data.x", 1, 2), ("scheduler.name", "StepLR", None), ("training.epochs", None, 3)]
    assert differences(one, other) == found and differences(one, one) == []


def test_a_list_is_chosen_and_sorted(tmp_path: Path) -> None:
    for name, value, mode in (("low", 0.2, "min"), ("high", 0.9, "min"), ("none", None, "min")):
        best = {} if value is None else {"epoch": 1, "val/loss": value}
        made(tmp_path, name, best=best, monitor="val/loss", mode=mode, seconds=value or 0.0)
    manage.tag(Run.open("high", tmp_path), "keep")
    runs = Run.list(tmp_path)

    def order(**how: object) -> list[str]:
        return [run.name.rpartition("-")[2] for run in arranged(runs, **how)]  # type: ignore[arg-type]

    assert order(sort="best") == ["low", "high", "none"] and order(sort="time", reverse=True) == ["high", "low", "none"]
    assert order(text="HIGH fin") == ["high"] and order(tag="keep") == ["high"] and order(text="nothing") == []
    with pytest.raises(RunError, match="can't be sorted by 'bets'.*nearest is 'best'"):
        order(sort="bets")
    assert smaller_is_better("val/loss") and not smaller_is_better("val/accuracy")
    assert not smaller_is_better("val/loss", [made_up(runs[0])])


def made_up(summary):
    """One that is judged the other way round."""
    from dataclasses import replace

    return replace(summary, mode="max")


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(tmp_path, "first"), made(tmp_path, "second")
    root = ["--runs", str(tmp_path)]
    assert main(["tag", "first", "baseline run", *root]) == 0
    assert main(["runs", "--tag", "baseline run", *root]) == 0
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 3 and "first" in out[2] and "baseline run" in out[2]
    assert main(["tag", "first", *root]) == main(["tag", "first", "", *root]) == main(["tag", "first", *root]) == 0
    tags = [line.partition(" has ")[2] for line in capsys.readouterr().out.splitlines()]
    assert tags == ["the tag 'baseline run'", "no tag", "no tag"], "asking for it leaves it"
    assert main(["runs", "--sort", "run", "--reverse", *root]) == 0
    assert ["second" in line for line in capsys.readouterr().out.splitlines()] == [False, True, False]
    assert main(["runs", "--filter", "third", *root]) == 0
    assert f"none of the 2 runs in {tmp_path} fits" in capsys.readouterr().out


def test_the_best_of_any_metric_is_read_from_the_journal_as_it_grows(tmp_path: Path) -> None:
    run = made(tmp_path, state="running")
    scores = Scores()
    assert scores.best(run.path, "val/accuracy", smaller=False) is None

    def ended(epoch: int, loss: float, accuracy: float) -> None:
        metrics = {"train/loss": 1.0, "val/loss": loss, "val/accuracy": accuracy}
        run.journal.append(EpochEnded(epoch=epoch, step=epoch, metrics=metrics, lr=0.1, seconds=1.0, best=True))

    ended(1, 0.5, 0.7)
    ended(2, math.nan, 0.9)
    assert scores.best(run.path, "val/accuracy", smaller=False) == (0.9, 2)
    assert scores.best(run.path, "val/loss", smaller=True) == (0.5, 1)
    ended(3, 0.4, 0.8)
    run.journal.close()
    assert scores.best(run.path, "val/accuracy", smaller=False) == (0.9, 2)
    assert scores.best(run.path, "val/loss", smaller=True) == (0.4, 3)
    files.replace(run.journal.path, run.path / "old")
    ended(1, 0.6, 0.6)
    assert scores.best(run.path, "val/accuracy", smaller=False) == (0.6, 1), "another journal: what was read does not count"
