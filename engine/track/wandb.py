"""A run in Weights & Biases: online where somebody is logged in, else offline, in files that `wandb sync` sends later."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.events import Event, RunEnded, RunStarted

if TYPE_CHECKING:
    from engine.run import Run


class WandB:
    """`WANDB_MODE`, `WANDB_DIR` and the like hold as ever; without WANDB_DIR its files go into the run's directory."""

    def __init__(self, project: str, run: Run | None, config: Mapping[str, Any]) -> None:
        self._project, self._run, self._config = project, run, config

    def begin(self, started: RunStarted) -> None:
        """Make the run there; one that goes on keeps its identity."""
        import wandb

        name = self._run.name if self._run is not None else None
        folder = os.environ.get("WANDB_DIR") or (str(self._run.path) if self._run is not None else None)
        self._live: Any = wandb.init(
            project=self._project,
            name=name or started.name,
            id=name,
            resume="allow" if name else None,
            dir=folder,
            config={**self._config, "device": started.device, "execution": started.execution},
            mode=os.environ.get("WANDB_MODE") or ("online" if _logged_in() else "offline"),  # type: ignore[arg-type]
            reinit="create_new",
            settings=wandb.Settings(console="off", silent=True, disable_git=True),
        )

    def log(self, step: int, values: Mapping[str, float], at: float) -> None:
        """Send a step's values; those of steps that are there already are left out by W&B itself."""
        self._live.log(dict(values), step=step)

    def take(self, event: Event) -> None:
        """Nothing but values is told."""

    def end(self, ended: RunEnded) -> None:
        """Say how the run ended, and wait until all is sent."""
        self._live.summary["reason"] = ended.reason
        self._live.summary.update({f"best/{name}": value for name, value in ended.best.items()})
        self._live.finish(exit_code=int(ended.state == "failed"))


def _logged_in() -> bool:
    """Whether W&B would go on without a question."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return "api.wandb.ai" in (Path.home() / ".netrc").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
