"""A run in this process: a daemon thread that assembles and trains, and what the screens may read of it.

The thread never calls into Textual. Screens poll `history`, `state`, `problems`; keys go in through `control`.
"""

from __future__ import annotations

import threading
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import EpochalError, Problem, RecipeError
from tui.door import Engine, Trains
from tui.terminal import Output

if TYPE_CHECKING:
    from engine.events import Message
    from engine.notify import Notifier


class Session:
    """One run. `history` is there at once and becomes the trainer's own; `problems` and `failure` say why there is none."""

    def __init__(self, engine: Engine, output: Output, notifier: Notifier | None = None) -> None:
        from engine.control import Control
        from engine.history import History

        self.history = History()
        self.control = Control()
        self.values: Mapping[str, Any] = {}
        self.output = output
        self.output_start = output.end  # where this run's printed text begins
        self.path: Path | None = None  # the run directory, once there is one
        self.problems: tuple[Problem, ...] = ()  # mistakes of the person, found while assembling or resuming
        self.failure = ""  # the traceback of anything else
        self.news: deque[Message] = deque()  # warnings that no screen has told yet
        self._engine = engine
        self._notifier = notifier  # tells of it beyond this screen
        self._thread: threading.Thread | None = None

    def start(self, values: Mapping[str, Any]) -> None:
        """Assemble and train this recipe in the session's thread."""
        self.values = values
        self._begin(lambda: self._engine.train(self.values, self.control))

    def resume(self, path: Path, epochs: int | None = None, values: Mapping[str, Any] | None = None) -> None:
        """Go on with a run; `values` is its recipe, for the screen."""
        self.values = values or {}
        self._begin(lambda: self._engine.resume(path, epochs, self.control))

    def fork(self, path: Path, step: int, values: Mapping[str, Any]) -> None:
        """Begin a new run, with this recipe, at a checkpoint of another."""
        self.values = values
        self._begin(lambda: self._engine.fork(path, step, values, self.control))

    @property
    def alive(self) -> bool:
        """Whether the thread works."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def exit_status(self) -> int:
        """0 when it ended as asked (a stop that saved is one), 1 when it failed or never began."""
        return 1 if self.failure or self.problems or self.history.state == "failed" else 0

    def join(self, seconds: float | None = None) -> bool:
        """Wait for the thread, at most so long. Returns whether it has ended."""
        if self._thread is not None:
            self._thread.join(seconds)
        return not self.alive

    def _begin(self, build: Callable[[], Trains]) -> None:
        if self._thread is not None:
            raise RuntimeError("a session trains once")
        self.output.begin()
        self.output_start = self.output.end
        self._thread = threading.Thread(target=self._work, args=(build,), name="epochal-training", daemon=True)
        self._thread.start()

    def _work(self, build: Callable[[], Trains]) -> None:
        from engine.events import Message, RunEnded, RunStarted

        try:
            trainer = build()
            trainer.on(RunStarted, lambda _: self._started(trainer))
            trainer.on(Message, self._said)
            if self._notifier is not None:
                self._notifier.watch(trainer)
            self.history = trainer.history
            trainer.fit()
        except RecipeError as error:
            self.problems = error.problems
        except EpochalError as error:
            self.problems = (Problem("", str(error)),)
        except BaseException as error:  # the person's own code: its traceback is theirs to read
            self.failure = traceback.format_exc()
            self.output.feed(self.failure)
            if self.history.ended is None:
                reason = f"{type(error).__name__}: {error}"
                self.history.apply(RunEnded(state="failed", reason=reason, epoch=0, step=0, seconds=0.0, best={}))

    def _started(self, trainer: Trains) -> None:
        if trainer.run is not None:
            self.path = trainer.run.path
            self.output.log_to(trainer.run.output_path)

    def _said(self, message: Message) -> None:
        self.output.feed(f"{message.level}: {message.text}\n")
        if message.level != "info":
            self.news.append(message)
