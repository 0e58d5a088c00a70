"""What the screens with a run have in common once there is a model: its evaluation, its export, and how it goes on."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any

from engine.errors import EpochalError
from tui.background import Starting
from tui.screens.base import Base

LOOK = 0.1  # seconds between two looks at a process that begins


class AfterKeys(Base):
    """Keys for the run that `run_path` names."""

    _starting: Starting | None = None  # a run that goes on in processes of its own

    @property
    @abstractmethod
    def run_path(self) -> Path | None:
        """Where the run is kept; None where there is none, of which the person has been told."""

    def action_evaluate(self) -> None:
        """How good the run's model is, by its best checkpoint so far."""
        from tui.screens.evaluation import EvaluationScreen

        if path := self.run_path:
            self.app.push_screen(EvaluationScreen(path))

    def action_export(self) -> None:
        """Write the run's model to a file."""
        from tui.screens.export import ExportScreen

        if path := self.run_path:
            self.app.push_screen(ExportScreen(self.console_app.engine, path))

    def _go_on(self, path: Path, finished: int | None) -> None:
        """Go on with a run from its last checkpoint; one that `finished` so many epochs has more of them from now on."""
        from tui.screens.quit import AskEpochs

        if finished is None:
            self._resume(path, None)
        else:
            self.app.push_screen(AskEpochs(finished), lambda epochs: self._resume(path, epochs) if epochs else None)

    def _resume(self, path: Path, epochs: int | None) -> None:
        if (values := self._values_of(path)) is None:
            return
        if epochs is not None:
            values.setdefault("training", {})["epochs"] = epochs
        if values.get("training", {}).get("processes", 1) == 1:
            self.console_app.resume_run(path, epochs, values)
        elif self._starting is None:  # begun by a process of their own, and attached to
            self._starting = self.console_app.engine.resume_in_background(path, epochs)
            self._waiting = self.set_interval(LOOK, self._look_at_start)
            self.notify(f"{path.name} goes on …", markup=False)

    def _look_at_start(self) -> None:
        if not self.is_current or self._starting is None or (begun := self._starting.poll()) is None:
            return
        self._starting = None
        if begun.path is None:
            self.notify(begun.failure, severity="error", markup=False)
        else:
            self.console_app.follow(begun.path)
        self._waiting.stop()  # cancels the task that this runs in: last

    def _busy(self) -> bool:
        if self.console_app.training:
            self.notify("a run is training: t goes back to it, s there stops it", severity="warning")
        return self.console_app.training

    def _values_of(self, path: Path) -> dict[str, Any] | None:
        """Its recipe's values; None, and the person is told, where there is none."""
        try:
            values = self.console_app.engine.recipe_of(path)
        except (EpochalError, OSError, ValueError) as error:
            self.notify(f"{path.name} can't be read: {error}", severity="error", markup=False)
            return None
        if not values:
            said = f"{path.name} has no recipe: it was made by a program, and only that can go on with it"
            self.notify(said, severity="warning", markup=False)
        return values or None
