"""Searches: what [search] may say, and that Optuna's own view of the storage is what was trained and what is shown."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

optuna = pytest.importorskip("optuna", reason="the extra 'search' is not installed")

from engine import EpochalError, EpochEnded, Recipe, RecipeError, RunStarted, Search, Trainer  # noqa: E402
from engine.catalog import problems  # noqa: E402
from engine.run import Run, load_history  # noqa: E402
from engine.search.board import Watch  # noqa: E402
from engine.search.plan import plan_of  # noqa: E402

BASE = {
    "name": "flowers",
    "data": {"name": "iris"},
    "model": {"name": "mlp", "hidden": [8]},
    "training": {"epochs": 3, "device": "cpu"},
    "checkpoint": {"min_seconds": 0.0},
}
LR = {"low": 1e-4, "high": 1e-1, "log": True}
SPACE = {"optimizer.lr": LR, "model.hidden": [[8], [16], [16, 8]], "training.accumulate": {"low": 1, "high": 3}}


def values(space: Mapping[str, Any] = SPACE, **search: Any) -> dict[str, Any]:
    return {**BASE, "search": {"trials": 6, **search, "space": dict(space)}}


def as_optuna_reads_it(search: Search) -> Any:
    """The study, by Optuna alone."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    path = search.folder.path / "optuna.journal"
    return optuna.load_study(study_name=search.folder.name, storage=JournalStorage(JournalFileBackend(str(path))))


def told(search: Search) -> list[tuple[Any, ...]]:
    return [(t.number, t.state.name, t.params, t.values, t.intermediate_values) for t in as_optuna_reads_it(search).trials]


def run_of(search: Search, trial: Any) -> Run:
    return Run(search.folder.root / trial.user_attrs["run"])


@pytest.mark.parametrize(
    ("space", "says"),
    [
        ({}, "search.space is missing or empty"),
        ({"optimizer.lr": 3}, "must be a list of values, or { low"),
        ({"optimizer.lrr": [1e-3]}, "no field of the recipe; the nearest is 'optimizer.lr'"),
        ({"optimizer.lr": {"low": 1.0, "high": 1.0}}, "low must be less than high"),
        ({"optimizer.lr": {"low": 0, "high": 1, "log": True}}, "on a logarithmic scale it must be above 0"),
        ({"optimizer.lr": {"low": 0.1, "high": 1, "log": True, "step": 0.1}}, "a logarithmic scale has no step"),
        ({"optimizer.lr": {"lo": 0.1, "high": 1}}, "has 'lo'; a range has low, high, step, log"),
        ({"optimizer.lr": {"low": 0.1}}, "high is missing"),
        ({"optimizer.lr": {"low": -1.0, "high": 1.0}}, "optimizer.lr is -1.0; it must be a number of at least 0"),
        ({"optimizer.lr": [1e-3, "fast"]}, "optimizer.lr is 'fast'; it must be a number"),
        ({"optimizer.lr": [1e-3, 1e-3]}, "has 0.001 twice"),
        ({"optimizer.name": ["Adam", "Adamm"]}, "no optimizer of the catalog; the nearest is 'Adam'"),
        ({"model.hidden": {"low": 8, "high": 16}}, "so list the values to choose from"),
        ({"training.accumulate": {"low": 1, "high": 2.5}}, "training.accumulate is 2.5; it must be an integer"),
        ({"name": ["a", "b"]}, "can't be searched"),
        ({"optimizer.momentum": [0.0, 0.9]}, "no field of the recipe"),  # of Adam
    ],
)
def test_a_mistake_in_the_space_is_one_sentence(space: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as error:
        Search.create(values(space), runs=tmp_path)
    assert len(error.value.problems) == 1 and says in str(error.value)
    assert not any(tmp_path.iterdir()), "nothing is written"


@pytest.mark.parametrize(
    ("search", "says"),
    [
        ({"trial": 3}, "the nearest is 'trials'"),
        ({"trials": 0}, "search.trials is 0; it must be an integer of at least 1"),
        ({"direction": "up"}, "one of minimize, maximize"),
        ({"sampler": 3}, "search.sampler is 3"),
        ({"sampler": "tpf"}, "the nearest is 'tpe'"),
        ({"sampler": {"name": "tpe", "startup": 3}}, "search.sampler.startup is no argument of tpe"),
        ({"sampler": "grid"}, "optimizer.lr has no end of values"),
        ({"pruner": {"name": "threshold"}}, "search.pruner 'threshold': Either lower or upper"),
        ({"pruner": "patient"}, 'can\'t do without patience: pruner = { name = "patient", patience = … }'),
        ({"pruner": "medium"}, "the nearest is 'median'"),
    ],
)
def test_a_mistake_in_how_to_search_is_one_sentence(search: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as error:
        Search.create(values(**search), runs=tmp_path)
    assert says in str(error.value)
    assert not any(tmp_path.iterdir())


def test_a_recipe_with_a_search_is_a_recipe(tmp_path: Path) -> None:
    assert not problems(values())
    assert Recipe.from_dict(values()) == Recipe.from_dict(BASE)
    with pytest.raises(RecipeError, match=r"the recipe has no \[search\]"):
        plan_of(BASE)


def test_a_rate_that_the_scheduler_sets_is_not_searched(tmp_path: Path) -> None:
    made = values({"optimizer.lr": {"low": 1e-4, "high": 1e-1, "log": True}})
    Search.create({**made, "scheduler": {"name": "OneCycleLR"}}, runs=tmp_path / "follows")  # max_lr is optimizer.lr
    with pytest.raises(RecipeError, match=r"'optimizer.lr' makes no difference: OneCycleLR takes .* scheduler.max_lr"):
        Search.create({**made, "scheduler": {"name": "OneCycleLR", "max_lr": 0.1}}, runs=tmp_path)


def test_a_trial_is_one_process(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"training.processes must be 1 in a search: .* search.workers"):
        Search.create({**values(), "training": {"processes": 2}}, runs=tmp_path)


def test_without_optuna_one_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(EpochalError, match=r'pip install "epochal\[search\]"'):
        Search.create(values(), runs=tmp_path)


def test_optuna_finds_what_was_trained(tmp_path: Path) -> None:
    search = Search.create(values(trials=8, pruner="none"), runs=tmp_path)
    search.fit()
    study = as_optuna_reads_it(search)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 8
    for trial in study.trials:
        run = run_of(search, trial)
        history, recipe = load_history(run), Recipe.load(run.recipe_path)
        assert trial.intermediate_values == {row.epoch: row.metrics["val/loss"] for row in history.epochs}
        assert trial.value == min(trial.intermediate_values.values())
        assert trial.params["optimizer.lr"] == recipe.optimizer.arguments["lr"]
        assert json.loads(trial.params["model.hidden"]) == recipe.model.arguments["hidden"]
        assert trial.params["training.accumulate"] == recipe.training.accumulate
    board = Watch(search.folder).read()
    assert board.best is not None and board.best.number == study.best_trial.number == board.rows[0].number
    assert board.curve[-1] == (8, study.trials[-1].value, study.best_value) and board.state == "finished"
    assert board.importance == pytest.approx(optuna.importance.get_param_importances(study))
    best = search.best
    assert best is not None and best.name == "flowers"
    assert best.optimizer.arguments["lr"] == study.best_params["optimizer.lr"]
    again = Trainer.from_recipe(best, runs=None).fit()
    assert again.best["val/loss"] == study.best_value
    runs = {run.name: run for run in Run.list(tmp_path)}
    shown = runs[run_of(search, study.trials[0]).name]
    assert len(runs) == 8 and shown.tag == "flowers", "in the list, and nothing else"
    assert list(shown.differs)[:3] == list(study.trials[0].params), "its parameters are the first that is said of it"


def test_one_worker_finds_the_same_also_when_it_is_interrupted(tmp_path: Path) -> None:
    whole = Search.create(values(), runs=tmp_path / "whole")
    whole.fit()
    stopped = Search.create(values(), runs=tmp_path / "stopped")

    def stop(taken: Any, event: EpochEnded) -> None:
        if taken.number == 3 and event.epoch == 2:
            stopped.control.stop("enough for today")

    stopped.on(EpochEnded, stop)
    stopped.fit()
    board = Watch(stopped.folder).read()
    assert board.state == "stopped" and [row.number for row in board.rows if row.state == "interrupted"] == [3]
    Search.open("flowers", runs=tmp_path / "stopped").fit()
    assert told(stopped) == told(whole)
    assert len(Run.list(tmp_path / "stopped")) == 6, "the run went on"


def _die(where: Path) -> None:
    search = Search.open("flowers", runs=where)
    search.on(EpochEnded, lambda taken, event: os._exit(9) if (taken.number, event.epoch) == (2, 2) else None)
    search.fit()


def test_who_comes_later_goes_on_with_the_trial_of_a_killed_worker(tmp_path: Path) -> None:
    whole = Search.create(values(trials=4), runs=tmp_path / "whole")
    whole.fit()
    search = Search.create(values(trials=4), runs=tmp_path / "killed")
    process = multiprocessing.get_context("fork").Process(target=_die, args=(tmp_path / "killed",))
    process.start()
    process.join()
    assert process.exitcode == 9
    dead = as_optuna_reads_it(search).trials[-1]
    assert (dead.number, dead.state.name) == (2, "RUNNING")
    assert Watch(search.folder).read().count("interrupted") == 1
    with (search.folder.path / "optuna.journal").open("ab") as journal:
        journal.write(b'{"op_code":7,"tri')  # and the power went
    begun: list[int] = []
    search.on(RunStarted, lambda taken, event: begun.append(taken.number))
    search.fit()
    assert begun == [2, 3] and told(search) == told(whole)
    assert as_optuna_reads_it(search).trials[2].user_attrs["run"] == dead.user_attrs["run"]


def test_pruning_ends_a_run_early_with_a_checkpoint_and_says_why(tmp_path: Path) -> None:
    search = Search.create(values(trials=2, pruner={"name": "threshold", "upper": 0.0, "n_warmup_steps": 2}), runs=tmp_path)
    search.fit()
    for trial in as_optuna_reads_it(search).trials:
        assert trial.state.name == "PRUNED" and list(trial.intermediate_values) == [1, 2]
        run = run_of(search, trial)
        assert len(load_history(run).epochs) == 2, "of 3"
        assert Trainer.resume(run.path).fit().state == "finished", "by hand it can be gone on with"
    board = Watch(search.folder).read()
    assert all(row.reason.startswith("pruned by ThresholdPruner after epoch 2: val/loss") for row in board.rows)
    assert board.best is None and search.best is None


def test_a_pruned_run_is_one_in_the_list(tmp_path: Path) -> None:
    Search.create(values(trials=1, pruner={"name": "threshold", "upper": 0.0}), runs=tmp_path).fit()
    (run,) = Run.list(tmp_path)
    assert (run.state, run.epoch) == ("pruned", 1) and "pruned by ThresholdPruner" in run.reason
    assert Run(run.path).checkpoints.list()


def test_a_grid_is_covered_once(tmp_path: Path) -> None:
    space = {
        "optimizer.lr": [1e-3, 1e-2],
        "training.accumulate": {"low": 1, "high": 3, "step": 2},
        "seed": {"low": 0, "high": 1},
    }
    made = {**values(space, sampler="grid", pruner="none", trials=99), "training": {"epochs": 1, "device": "cpu"}}
    search = Search.create(made, runs=tmp_path)
    search.fit()
    search.fit()  # there is nothing more to do
    found = [tuple(trial.params[key] for key in space) for trial in as_optuna_reads_it(search).trials]
    assert sorted(found) == [(lr, n, seed) for lr in (1e-3, 1e-2) for n in (1, 3) for seed in (0, 1)]


def test_a_field_that_only_some_names_know_is_searched_with_those(tmp_path: Path) -> None:
    space = {"optimizer.momentum": [0.0, 0.5, 0.9], "optimizer.name": ["Adam", "SGD"]}
    search = Search.create(
        {**values(space, sampler="brute_force", pruner="none", trials=50), "training": {"epochs": 1, "device": "cpu"}},
        runs=tmp_path,
    )
    assert search.folder.plan.limit == 4
    search.fit()
    found = sorted(str(sorted(trial.params.items())) for trial in as_optuna_reads_it(search).trials)
    assert len(set(found)) == len(found) == 4
    assert sum("momentum" in each for each in found) == 3


def test_what_differs_in_numbers_trains_as_one_population(tmp_path: Path) -> None:
    space = {"optimizer.lr": LR, "seed": {"low": 0, "high": 9}}
    ways = {}
    for execution in ("auto", "eager"):
        made = values(space, trials=8, sampler="random", pruner="none")
        made["training"] = {**BASE["training"], "execution": execution}
        search = Search.create(made, runs=tmp_path / execution)
        how: set[str] = set()
        search.on(RunStarted, lambda taken, event, how=how: how.add(event.execution))
        search.fit()
        ways[execution] = as_optuna_reads_it(search).trials, how
    assert ways["auto"][1] == {"population of 8"} and ways["eager"][1] == {"eager"}
    for one, other in zip(ways["auto"][0], ways["eager"][0], strict=True):
        assert one.params == other.params
        assert list(one.intermediate_values.values()) == pytest.approx(list(other.intermediate_values.values()), rel=1e-4)


def test_a_metric_that_is_to_be_large(tmp_path: Path) -> None:
    search = Search.create(values(metric="val/accuracy", trials=3), runs=tmp_path)
    search.fit()
    study = as_optuna_reads_it(search)
    assert study.direction.name == "MAXIMIZE"
    best = max(trial.value for trial in study.trials if trial.state.name == "COMPLETE")
    assert study.best_value == best
    assert search.best is not None and search.best.training.monitor == "val/accuracy"


def test_a_trial_that_diverges_is_one_to_learn_from(tmp_path: Path) -> None:
    space = {"optimizer.lr": [1e30, 1e-2]}
    search = Search.create(
        {**values(space, sampler="grid", pruner="none"), "optimizer": {"name": "SGD", "momentum": 0.9}}, runs=tmp_path
    )
    search.fit()
    trials = {trial.params["optimizer.lr"]: trial for trial in as_optuna_reads_it(search).trials}
    assert trials[1e30].state.name == "PRUNED" and trials[1e30].user_attrs["reason"].startswith("diverged: ")
    assert trials[1e-2].state.name == "COMPLETE"


def test_a_search_whose_trials_all_fail_ends_with_the_reason(tmp_path: Path) -> None:
    search = Search.create(values(metric="val/accurazy"), runs=tmp_path)
    with pytest.raises(EpochalError, match=r"the first 3 trials failed; .*'val/accurazy'; this recipe measures"):
        search.fit()
    assert len(as_optuna_reads_it(search).trials) == 3
