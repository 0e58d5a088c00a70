"""The training engine of epochal: recipes, the loop, runs. Torch loads with the first name that needs it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Control": "control",
    "History": "history",
    "Series": "history",
    "EpochalError": "errors",
    "RecipeError": "errors",
    "RunError": "errors",
    "CheckpointError": "errors",
    "Recipe": "recipe",
    "Component": "recipe",
    "Loading": "recipe",
    "Track": "recipe",
    "Training": "recipe",
    "Checkpoint": "recipe",
    "Trainer": "trainer",
    "Result": "trainer",
    "Run": "run",
    "Samples": "data.samples",
    "Search": "search.searching",
    "Sweep": "sweep.sweeping",
    "load_model": "inference.trained",
    "export_model": "export.model",
    "evaluate": "inference.evaluating",
    "Evaluation": "inference.evaluation",
    "predict": "inference.prediction",
    "Predictions": "inference.prediction",
} | dict.fromkeys(
    (
        "CheckpointWritten",
        "EpochEnded",
        "Event",
        "Logged",
        "Message",
        "Progress",
        "RanksMeasured",
        "RunContinued",
        "RunEnded",
        "RunPaused",
        "RunStarted",
        "Sampled",
        "Trained",
        "Validated",
    ),
    "events",
)

__all__ = [*_HOME]  # noqa: PLE0604  # all of them are text

if TYPE_CHECKING:
    from engine.control import Control as Control
    from engine.data.samples import Samples as Samples
    from engine.errors import CheckpointError as CheckpointError
    from engine.errors import EpochalError as EpochalError
    from engine.errors import RecipeError as RecipeError
    from engine.errors import RunError as RunError
    from engine.events import CheckpointWritten as CheckpointWritten
    from engine.events import EpochEnded as EpochEnded
    from engine.events import Event as Event
    from engine.events import Logged as Logged
    from engine.events import Message as Message
    from engine.events import Progress as Progress
    from engine.events import RanksMeasured as RanksMeasured
    from engine.events import RunContinued as RunContinued
    from engine.events import RunEnded as RunEnded
    from engine.events import RunPaused as RunPaused
    from engine.events import RunStarted as RunStarted
    from engine.events import Sampled as Sampled
    from engine.events import Trained as Trained
    from engine.events import Validated as Validated
    from engine.export.model import export_model as export_model
    from engine.history import History as History
    from engine.history import Series as Series
    from engine.inference.evaluating import evaluate as evaluate
    from engine.inference.evaluation import Evaluation as Evaluation
    from engine.inference.prediction import Predictions as Predictions
    from engine.inference.prediction import predict as predict
    from engine.inference.trained import load_model as load_model
    from engine.recipe import Checkpoint as Checkpoint
    from engine.recipe import Component as Component
    from engine.recipe import Loading as Loading
    from engine.recipe import Recipe as Recipe
    from engine.recipe import Track as Track
    from engine.recipe import Training as Training
    from engine.run import Run as Run
    from engine.search.searching import Search as Search
    from engine.sweep.sweeping import Sweep as Sweep
    from engine.trainer import Result as Result
    from engine.trainer import Trainer as Trainer


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"engine.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
