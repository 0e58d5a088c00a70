"""Live: a run whose loop is somebody else's. It logs; a thread of ours writes, and listens to what is asked of the run."""

from __future__ import annotations

import atexit
import contextlib
import math
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from engine.control import Control
from engine.errors import RunError, named, plain
from engine.events import Event, Progress, RunContinued, RunEnded, RunPaused, RunStarted
from engine.notify import Notifier
from engine.run import files, strict_json
from engine.run.about import CONFIG
from engine.run.choose import smaller_is_better
from engine.run.control_file import Inbox, deliver
from engine.track.attach import attach, refuse_missing
from engine.track.book import Book
from engine.track.names import canonical
from engine.training.recorder import Recorder
from engine.training.reporter import Reporter

if TYPE_CHECKING:
    from engine.history import History
    from engine.recipe import Track
    from engine.run import Run
    from engine.track.again import Earlier

SECONDS = 0.25  # between two looks of the thread
MOST = 10_000  # values that wait for the thread; the one who logs helps it out beyond that
SPAN = 10.0  # seconds over which the rate is told
_LOST = "a loop of its own has no {}: it can be paused and stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is known of a loop before it begins. None and "": not known."""

    name: str
    epochs: int | None = None
    steps: int | None = None
    monitor: str = "val/loss"
    mode: str = ""  # "min" or "max"; "": by the metric's name
    config: Mapping[str, Any] = field(default_factory=dict)
    track: Track | None = None
    earlier: Earlier | None = None  # what the run did before, where it is gone on with

    def __post_init__(self) -> None:
        for key, text in (("name", self.name), ("monitor", self.monitor)):
            if not isinstance(text, str):
                raise RunError(f"{key} is {named(text)} and must be text")
        for key, value in (("epochs", self.epochs), ("steps", self.steps)):
            if value is not None and (type(value) is not int or value < 1):
                raise RunError(f"{key} is {named(value)} and must be a whole number of 1 or more, or None")
        if not isinstance(self.mode, str) or self.mode not in ("", "min", "max"):
            raise RunError(f"mode is {named(self.mode)} and must be min or max")
        if self.track is not None:
            refuse_missing(self.track)


class Live:
    """One such run, from `begin` to `end`. `log` and `should_stop` are for the loop's thread."""

    def __init__(self, run: Run, plan: Plan) -> None:
        self.ended = False
        self._run, self._plan = run, plan
        self._control = Control()
        self._reporter = Reporter()
        self._pending: deque[tuple[int, float | None, float, dict[str, Any]]] = deque()
        self._folding = threading.Lock()
        self._begun = False
        self._held: float | None = None  # when the loop was held, while it is
        self._left_out = 0.0  # seconds of earlier pauses
        self._wake = threading.Event()
        self._done = False
        self._told: set[str] = set()
        self._rates: deque[tuple[float, int]] = deque()

    def begin(self) -> None:
        """Begin, once. RunError where another process writes the run."""
        if self._begun:
            return

        self._begun = True
        earlier = self._plan.earlier
        warning = self._run.lock.acquire()
        monitor = canonical(self._plan.monitor)
        mode = self._plan.mode or ("min" if smaller_is_better(monitor) else "max")
        self._book = Book(monitor, mode)
        try:
            if earlier is None:
                files.write_atomically(self._run.path / CONFIG, strict_json.encode(self._plan.config, indent=1))
            else:
                self._book.go_on(earlier)
                earlier.rewind(self._run)
        except OSError as error:
            raise RunError(f"{self._run.path} can't be written: {error.strerror}") from error
        self._reporter.on(Event, Recorder(self._run, self._reporter.emit).take)
        self._notifier = Notifier.of_user()
        self._notifier.watch(self)
        if self._plan.track is not None:
            attach(self._reporter.on, self._reporter.emit, self._run, self._plan.track, self._plan.config)
        self._inbox = Inbox(self._run.path / "control.jsonl")
        self._start = time.monotonic() - (earlier.seconds if earlier else 0.0)
        device, name = _device()
        self._reporter.emit(
            RunStarted(
                name=self._plan.name,
                path=str(self._run.path),
                device=device,
                device_name=name,
                precision="",
                execution="",
                epochs=self._plan.epochs or 0,
                steps_per_epoch=None,
                total_steps=self._plan.steps,
                parameters=0,
                step=self._book.step,
                epoch=self._book.epochs,
                monitor=monitor,
                mode=mode,
            )
        )
        self._reporter.messages([warning] if warning else [], "warning")
        atexit.register(self._left)
        self._thread = threading.Thread(target=self._work, name="epochal-log", daemon=True)
        self._thread.start()

    @property
    def history(self) -> History:
        """What was stated so far."""
        return self._reporter.history

    def on(self, kind: type[Event], listener: Callable[[Any], None]) -> None:
        """Call `listener(event)` for each event of that class, in the run's own thread."""
        self._reporter.on(kind, listener)

    # for the loop

    def log(self, step: int, values: Mapping[str, Any], epoch: float | None = None) -> None:
        """Keep the values; nothing is written and no device is waited for. Blocks while the run is paused."""
        if not self._begun:
            self.begin()
        if type(step) is not int or step < 0:
            step = _whole(step)
        if epoch is not None and (type(epoch) is not int or epoch < 0):
            epoch = _epoch(epoch)
        try:
            "".join(values)  # the quickest way to tell that all names are text
            named_values = values.items()
        except (TypeError, AttributeError):
            raise RunError(
                f'the values are {named(values)}: a run logs numbers by name, such as {{"train/loss": 0.5}}'
            ) from None
        kept = {name: value if type(value) is float else _kept(name, value) for name, value in named_values}
        self._pending.append((step, epoch, time.monotonic(), kept))
        if self._control.pending or len(self._pending) >= MOST:
            self._attend()

    @property
    def should_stop(self) -> bool:
        """Whether somebody asked for the end. Blocks while the run is paused."""
        if not self._begun:
            self.begin()
        if self._control.pending:
            self._attend()
        return self._control.stopping is not None

    def _attend(self) -> None:
        if len(self._pending) >= MOST:
            self._fold()
        if not self._control.paused or self._control.stopping:
            return
        self._held = time.monotonic()
        self._wake.set()
        while self._control.wait_while_paused(1.0):
            pass
        self._left_out += time.monotonic() - self._held
        self._held = None
        self._wake.set()

    def end(self, state: str, reason: str, printed: str = "") -> None:
        """The last points and the end; a second call does nothing. `printed` goes into output.log."""
        if self.ended or not self._begun:
            return
        self.ended = self._done = True
        atexit.unregister(self._left)
        self._wake.set()
        self._thread.join()
        self._guarded(self._fold)
        if printed:
            self._print(printed)
        book = self._book
        book.close()
        self._report()
        seconds = self._elapsed()
        self._reporter.emit(
            RunEnded(state=state, reason=plain(reason), epoch=book.epochs, step=book.step, seconds=seconds, best=book.best)
        )
        self._run.lock.release()
        self._notifier.finish()

    def leave(self, error: BaseException | None) -> None:
        """The end of the `with` block: as it was asked for, by itself, or by an error, whose traceback is kept."""
        match error:
            case None:
                asked = self._control.stopping
                self.end("stopped" if asked else "finished", asked or "the loop came to its end")
            case KeyboardInterrupt():
                self.end("stopped", "interrupted")
            case SystemExit(code=None | 0):
                self.end("stopped", "the program was left on the way")
            case _:
                trace = "".join(traceback.format_exception(error))
                self.end("failed", f"{type(error).__name__}: {error}", trace)

    def _left(self) -> None:
        """The program ends, and nobody has said how the run did."""
        error = getattr(sys, "last_value", None)
        if error is not None:
            self.leave(error)
        else:
            self.end("stopped", "the program ended without a word on the run: a with block, or Run.finish, has it")

    def _print(self, text: str) -> None:
        try:
            with self._run.output_path.open("a", encoding="utf-8", errors="replace") as file:
                file.write(text)
        except OSError as error:
            self._reporter.messages([f"output.log can't be written: {error.strerror}"], "error")

    def _guarded(self, work: Callable[[], None]) -> None:
        """What fails here is told and ends nothing: the loop is not ours."""
        try:
            work()
        except Exception as error:
            text = f"what was logged could not be kept: {type(error).__name__}: {error}"
            if text not in self._told:
                self._told.add(text)
                self._print(traceback.format_exc())
                self._reporter.messages([plain(text)], "error")

    # the thread

    def _work(self) -> None:
        while not self._done:
            self._wake.wait(SECONDS)
            self._wake.clear()
            for work in (self._hear, self._fold, self._report):
                self._guarded(work)

    def _hear(self) -> None:
        control = self._control
        problems = deliver(self._inbox, control)
        asked = [("checkpoint", control.take_checkpoint()), ("validation", control.take_validate())]
        problems += [_LOST.format(f"{what} that could be asked for") for what, wanted in asked if wanted]
        problems += [f"{change.field}: {_LOST.format('values that we could change')}" for change in control.take_changes()]
        self._reporter.messages(problems, "warning")
        held, history = self._held is not None, self._reporter.history
        if held != history.paused:
            self._fold()
            self._reporter.emit(RunPaused(step=self._book.step) if held else RunContinued(step=self._book.step))

    def _fold(self) -> None:
        """Take in what was logged. What lies on a device is waited for here, all of it at once."""
        with self._folding:
            pending = [self._pending.popleft() for _ in range(len(self._pending))]  # more may come meanwhile
            late = [value for *_, values in pending for value in values.values() if not isinstance(value, float)]
            known = dict(zip(map(id, late), _read(late), strict=True)) if late else {}
            for step, epoch, at, values in pending:
                plain_values = {n: v if isinstance(v, float) else known[id(v)] for n, v in values.items()} if late else values
                self._book.add(step, epoch, plain_values, at - self._left_out)
            self._book.settle()

    def _report(self) -> None:
        self._reporter.emit(*self._book.take())
        book, now = self._book, self._elapsed()
        if self._held is None:
            self._rates.append((now, book.step))
            while len(self._rates) > 2 and self._rates[1][0] < now - SPAN:
                self._rates.popleft()
        (then, before), rate = self._rates[0] if self._rates else (now, book.step), None
        if now > then:
            rate = (book.step - before) / (now - then)
        epochs, each = self._plan.epochs, book.length
        total = self._plan.steps or (epochs * each if epochs and each else None)
        lr = book.last("lr")
        self._reporter.emit(
            Progress(
                phase="train" if self._held is None else "paused",
                step=book.step,
                epoch=book.epoch,
                batch=max(0, book.step - book.first) if book.epoch else 0,
                batches=each,
                loss=book.last("train/loss"),
                lr=math.nan if lr is None else lr,
                steps_per_second=rate,
                samples_per_second=None,
                elapsed=now,
                left=max(0, total - book.step) / rate if total and rate else None,
            )
        )

    def _elapsed(self) -> float:
        held = self._held
        return (time.monotonic() if held is None else held) - self._start - self._left_out


def _whole(step: Any) -> int:
    """The step of who counts with numpy or torch."""
    try:
        number = int(step)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        number = -1
    if isinstance(step, str) or number < 0 or number != step:
        raise RunError(f"the step is {named(step)}: a run logs at whole steps of 0 or more")
    return number


def _epoch(epoch: Any) -> Any:
    """The epoch of who counts with numpy or torch, or in parts of one."""
    number = _kept("epoch", epoch)
    if isinstance(number, float) and not 0 <= number < math.inf:
        raise RunError(f"the epoch is {named(epoch)}: epochs are counted from 1")
    return number


def _kept(name: str, value: Any) -> Any:
    """A number as it is; what lies on a device as a copy that can be read late."""
    if isinstance(value, float):
        return float(value)
    if (item := getattr(value, "item", None)) is not None:  # of torch, numpy and the like
        if getattr(value, "is_cpu", True):
            try:
                return float(item())
            except (TypeError, ValueError, RuntimeError):  # several values, or a text
                pass
        elif value.numel() == 1 and not value.is_meta:
            return value.detach().clone().reshape(())  # one that is added to later must not change what was logged
    elif isinstance(value, int):
        with contextlib.suppress(OverflowError):
            return float(value)
    shown = f"a tensor of {value.numel()} values" if hasattr(value, "numel") else named(value)
    raise RunError(f"{name!r} is {shown}: a run logs numbers, such as a float or a tensor of one value")


def _read(late: list[Any]) -> list[float]:
    import torch

    devices = {value.device for value in late}
    if len(devices) == 1:
        found: list[float] = torch.stack([value.to(torch.float64, non_blocking=True) for value in late]).tolist()
        return found
    return [float(value) for value in late]


def _device() -> tuple[str, str]:
    """Where the loop most likely trains: torch is not loaded to learn that."""
    torch = sys.modules.get("torch")
    try:
        if torch is not None and torch.cuda.is_available():
            return f"cuda:{torch.cuda.current_device()}", str(torch.cuda.get_device_name())
    except (AttributeError, RuntimeError):  # half loaded, or a driver that does not fit
        pass
    return "cpu", ""
