"""A run's values as TensorBoard reads them: one event file below the run's directory, of what its journal says."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Mapping
from typing import TYPE_CHECKING

from engine.events import Event, Rewound, RunEnded, RunStarted
from engine.run import Journal, files
from engine.track import event_files
from engine.track.sinks import Points

if TYPE_CHECKING:
    from engine.run import Run

FOLDER = "tensorboard"


class EventFile:
    """A run that goes on begins a new file with all that its journal kept: so no step is in it twice, and nothing is torn."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._folder = run.path / FOLDER
        self._descriptor: int | None = None
        self._waiting: list[bytes] = []

    def begin(self, started: RunStarted) -> None:
        """Make the file, and take the place of those that were there."""
        before = list(self._folder.glob("*tfevents*")) if self._folder.exists() else []
        with contextlib.suppress(FileExistsError):
            files.make_directory(self._folder)
        name = f"events.out.tfevents.{started.time:.6f}.{platform.node()}.{os.getpid()}"
        self._descriptor = os.open(self._folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        self._waiting.append(event_files.beginning(started.time, 0))
        if started.step:
            points = Points()
            for event in Journal.read(self._run.journal.path)[0]:
                if isinstance(event, RunStarted) and event.time >= started.time:
                    break
                for step, values in points.of(event):
                    self.log(step, values, event.time)
                if isinstance(event, Rewound):
                    self._waiting.append(event_files.restart(event.time, event.to + 1))
        self._write()
        for path in before:
            files.remove(path)

    def log(self, step: int, values: Mapping[str, float], at: float) -> None:
        """Keep the record until the event that it is of is whole."""
        tags = {name.replace(" ", "_"): value for name, value in values.items()}
        self._waiting.append(event_files.scalars(at, step, tags))

    def take(self, event: Event) -> None:
        """Write what is of this event; after a step back readers forget what came later."""
        if isinstance(event, Rewound):
            self._waiting.append(event_files.restart(event.time, event.to + 1))
        self._write()

    def end(self, ended: RunEnded) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _write(self) -> None:
        if self._waiting and self._descriptor is not None:
            files.append(self._descriptor, b"".join(self._waiting))
            self._waiting = []
