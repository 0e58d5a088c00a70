"""The folder of a search, `runs/searches/NAME`: its recipe, Optuna's storage, the best recipe, and who works on it."""

from __future__ import annotations

import contextlib
import tomllib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from engine.errors import RunError, nearest
from engine.recipe import Recipe
from engine.recipe_text import differences, to_toml
from engine.run import control_file, files, runs_root, strict_json
from engine.run.choose import smaller_is_better
from engine.run.lock import one_at_a_time
from engine.run.queue import Process
from engine.search import optunas
from engine.search.plan import Plan, plan_of, without

SEARCHES = "searches"
MAY_CHANGE = ("trials", "minutes", "sampler", "pruner", "workers", "batch")  # from one start of a search to the next


class Folder:
    """A search on the disk. The runs of its trials lie beside the others, in the directory that `searches` is in."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path).absolute()
        self.name = self.path.name
        self.root = self.path.parent.parent
        self.recipe_path = self.path / "recipe.toml"
        self.storage_path = self.path / "optuna.journal"
        self.best_path = self.path / "best.toml"
        self.control_path = self.path / "control.jsonl"
        self.log_path = self.path / "output.log"
        self.workers_path = self.path / "workers"

    @classmethod
    def create(cls, values: Mapping[str, Any], root: Path | str | None = None) -> Folder:
        """The folder of this recipe's search, which is gone on with where it is there already.

        RecipeError with every mistake there is, before anything is written; RunError where another recipe is searched there.
        """

        plan = plan_of(values)
        recipe = Recipe.from_dict(values)
        optunas.sampler_of(plan, recipe.seed, 0)
        optunas.pruner_of(plan, recipe.training.epochs)
        # Without the defaults of its parts: what a trial puts in the place of an optimizer has defaults of its own.
        given = {**recipe.to_dict(complete=False), "search": dict(values["search"])}
        folder = cls(runs_root(root) / SEARCHES / recipe.name)
        try:
            folder.workers_path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{folder.path} can't be made: {error.strerror}") from error
        with folder.locked():
            if folder.recipe_path.exists():
                folder._refuse_another(given)
            folder.write(given)
        return folder

    @classmethod
    def open(cls, which: Path | str, root: Path | str | None = None) -> Folder:
        """The search at a path, of that name, or that the run of one of its trials belongs to. RunError where there is none."""
        top = runs_root(root)
        for path in (Path(which), top / SEARCHES / which):
            if is_search(path):
                return cls(path)
        for path in (Path(which), top / which):
            if (found := search_of(path)) is not None:
                return cls(found)
        there = [folder.name for folder in cls.all(top)]
        said = f"; there are {', '.join(there)}" if there else f" in {top / SEARCHES}"
        raise RunError(f"there is no search {str(which)!r}{nearest(str(which), there) or said}")

    @classmethod
    def all(cls, root: Path | str | None = None) -> list[Folder]:
        """All searches of a runs directory, the newest first."""
        try:
            found = [path for path in (runs_root(root) / SEARCHES).iterdir() if is_search(path)]
        except OSError:
            return []
        return [cls(path) for path in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)]

    @property
    def values(self) -> dict[str, Any]:
        """The recipe's values, [search] among them. RunError where they can't be read."""
        try:
            return tomllib.loads(self.recipe_path.read_text(encoding="utf-8"))
        except OSError as error:
            raise RunError(f"{self.recipe_path} can't be read: {error.strerror}") from error
        except ValueError as error:
            raise RunError(f"{self.recipe_path} is damaged: {error}") from error

    @cached_property
    def plan(self) -> Plan:
        """What is searched, and how."""
        return plan_of(self.values)

    @cached_property
    def recipe(self) -> Recipe:
        """What every trial begins with: the recipe, judged by what the search judges by."""

        recipe = Recipe.from_dict(without(self.values))
        return recipe if self.plan.metric is None else recipe.replace(**{"training.monitor": self.plan.metric})

    @property
    def direction(self) -> str:
        """ "minimize" or "maximize"."""

        metric = self.recipe.training.monitor
        return self.plan.direction or ("minimize" if metric == "auto" or smaller_is_better(metric) else "maximize")

    def write(self, values: Mapping[str, Any]) -> None:
        """Replace the recipe."""

        self._put(self.recipe_path, to_toml(values).encode())
        self.__dict__.pop("plan", None)
        self.__dict__.pop("recipe", None)

    def write_best(self, recipe: Recipe) -> None:
        """Keep the best recipe so far."""
        self._put(self.best_path, recipe.to_toml().encode())

    def _put(self, path: Path, data: bytes) -> None:
        try:
            files.write_atomically(path, data)
        except OSError as error:
            raise RunError(f"{path} can't be written: {error.strerror}") from error

    def _refuse_another(self, values: Mapping[str, Any]) -> None:

        mine, theirs = (
            {
                **Recipe.from_dict(without(each)).to_dict(),
                "search": {k: v for k, v in each["search"].items() if k not in MAY_CHANGE},
            }
            for each in (self.values, values)
        )
        if found := [key for key, *_ in differences(mine, theirs)]:
            raise RunError(
                f"{self.path} holds a search of another recipe, which differs in {', '.join(found[:5])}: give this one another "
                f"name (--name), or delete that folder"
            )

    def locked(self) -> AbstractContextManager[None]:
        """One at a time: who asks for a trial sees what the others have asked for.

        Without locks two may now and then ask for one trial too many.
        """
        return one_at_a_time(self.path / ".lock")

    # who works on it

    def sign(self, process: Process) -> str:
        """Say that this process is at work; the name by which the others know it."""
        name = f"{process.host}-{process.pid}"
        with contextlib.suppress(OSError):  # the next one is near
            files.write_atomically(self.workers_path / f"{name}.json", strict_json.encode(asdict(process)), durable=False)
        return name

    def tidy(self) -> None:
        """Forget those that were killed."""
        for path in self.workers_path.glob("*.json"):
            if not _alive(path):
                path.unlink(missing_ok=True)

    def leave(self, name: str) -> None:
        """That process is at work no more."""
        (self.workers_path / f"{name}.json").unlink(missing_ok=True)

    def stop(self) -> str:
        """Have all who work on it stop, after the step under way and with a checkpoint; who they are: "2 workers". RunError
        where there is nobody."""
        count = len(self.at_work())
        if not count:
            raise RunError(f"nobody works on {self.path}")
        control_file.tell(self.control_path, "stop", reason="the search was stopped")
        return f"{count} worker{'s' * (count > 1)}"

    def at_work(self) -> list[str]:
        """Who is."""
        try:
            return sorted(path.stem for path in self.workers_path.glob("*.json") if _alive(path))
        except OSError:
            return []


def is_search(path: Path) -> bool:
    """Whether a search is kept there."""
    return (path / "recipe.toml").is_file() and (path / "workers").is_dir()


def trial_of(run: Path) -> tuple[str, int] | None:
    """The search that a run is a trial of, and the trial's number; None where it is none."""
    try:
        values = strict_json.decode((run / "environment.json").read_bytes())
        return str(values["search"]["name"]), int(values["search"]["trial"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def search_of(run: Path) -> Path | None:
    """The folder of the search that a run is a trial of."""
    of = trial_of(run)
    path = run.absolute().parent / SEARCHES / of[0] if of is not None else None
    return path if path is not None and is_search(path) else None


def _alive(path: Path) -> bool:
    try:
        return Process(**strict_json.decode(path.read_bytes())).alive
    except (OSError, ValueError, TypeError, RecursionError):
        return False
