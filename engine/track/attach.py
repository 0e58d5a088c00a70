"""Who else is told what a run states: the tools that a recipe names under [track]."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from engine.errors import Problem, RecipeError, named
from engine.events import Event, Message, RunStarted
from engine.run.about import flat

if TYPE_CHECKING:
    from engine.recipe import Track
    from engine.run import Run
    from engine.track.sinks import Tool

_EXTRAS = {"mlflow": "MLflow", "wandb": "Weights & Biases"}


def refuse_missing(track: Track) -> None:
    """Raise RecipeError where a tool is named that is not installed."""
    from engine.recipe import Track

    if not isinstance(track, Track):
        raise RecipeError(
            [Problem("track", f'track is {named(track)}; it must be a Track, such as Track(mlflow="experiment")')]
        )
    if found := [Problem(f"track.{key}", text) for key, text in _missing(track).items()]:
        raise RecipeError(found)


def _missing(track: Track) -> dict[str, str]:
    named = [key for key in _EXTRAS if getattr(track, key) is not None and find_spec(key) is None]
    return {key: f'track.{key} needs {_EXTRAS[key]}, which is not installed: pip install "epochal[{key}]"' for key in named}


def attach(
    on: Callable[[type, Callable[[Any], None]], object],
    emit: Callable[[Event], None],
    run: Run | None,
    track: Track,
    config: Mapping[str, Any],
) -> None:
    """Tell them what comes by `on`, from the run's start to its end; `emit` is for what goes wrong with them.

    One that is not installed is a warning here: a run can be gone on with where it is missing.
    """
    from engine.track.sinks import Sink

    missing = _missing(track)

    def warn(started: RunStarted) -> None:
        for key, text in missing.items():
            emit(Message(text=f"{text}; {_EXTRAS[key]} is told nothing of this run", level="warning"))

    on(RunStarted, warn)
    for key, name, tool in _tools(run, track, flat(config)):
        if key not in missing:
            on(Event, Sink(name, tool, emit).take)


def _tools(run: Run | None, track: Track, config: Mapping[str, Any]) -> Iterator[tuple[str, str, Tool]]:
    if track.tensorboard and run is not None:
        from engine.track.tensorboard import EventFile

        yield "tensorboard", "TensorBoard", EventFile(run)
    if track.mlflow is not None:
        from engine.track.mlflow import MLflow

        yield "mlflow", "MLflow", MLflow(track.mlflow, run, config)
    if track.wandb is not None:
        from engine.track.wandb import WandB

        yield "wandb", "W&B", WandB(track.wandb, run, config)
