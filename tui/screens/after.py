"""What the screens with a run have in common once there is a model: its evaluation, its export."""

from __future__ import annotations

from pathlib import Path

from tui.screens.base import Base


class AfterKeys(Base):
    """Keys for the run that `run_path` names."""

    @property
    def run_path(self) -> Path | None:
        """Where the run is kept; None where there is none, of which the person has been told."""
        raise NotImplementedError

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
