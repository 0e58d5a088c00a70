"""A console whose engine is scripted: no torch, no files, and every step is taken when the test says so."""

from __future__ import annotations

import asyncio
import contextlib
import platform
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from textual.css.query import NoMatches
from textual.widgets import DataTable

from engine.catalog.fields import Field, Section
from engine.control import Control
from engine.errors import Problem, RecipeError, RunError
from engine.events import CheckpointWritten, Event, Progress, RunContinued, RunEnded, RunPaused, Validated
from engine.history import History
from tests.tui import scripted
from tui.app import Console
from tui.background import Begun
from tui.door import Engine
from tui.pacing import FAST, pace
from tui.screens.train import TrainScreen

LR = Field(key="lr", kind="number", default=1e-3, minimum=0.0, help="learning rate")
BETAS = Field(key="betas", kind="list", item="number", default=[0.9, 0.999], help="decay of the means")
MOMENTUM = Field(key="momentum", kind="number", default=0.0, help="weight of the steps before")
FIELDS: dict[str, dict[str, tuple[Field, ...]]] = {
    "data": {
        "digits": (),
        "csv": (Field(key="path", kind="text", help="the file"), Field(key="target", kind="text", help="its target column")),
    },
    "model": {
        "mlp": (Field(key="hidden", kind="list", item="integer", default=[128], help="widths of the hidden layers"),),
        "linear": (),
    },
    "loss": {"CrossEntropyLoss": (), "MSELoss": ()},
    "optimizer": {
        "Adam": (LR, BETAS, Field(key="amsgrad", kind="boolean", default=False, help="its variant")),
        "SGD": (LR, MOMENTUM),
        "Rprop": (replace(LR, kind="integer", default=1),),
    },
    "scheduler": {"StepLR": (Field(key="step_size", kind="integer", minimum=1, help="steps between two changes"),)},
}
FRAME = 2 / 60  # seconds that Textual lays out and paints after
BATCH = Field(key="batch_size", kind="integer", default=32, minimum=1, help="samples a step")
PLANS = {
    "training": (
        Field(key="epochs", kind="integer", default=20, minimum=1, help="passes over the training data"),
        Field(key="precision", kind="text", default="float32", choices=("float32", "bf16"), help="the arithmetic"),
        Field(key="patience", kind="integer", default=None, optional=True, derived="never", minimum=1, help="early stopping"),
    ),
    "checkpoint": (Field(key="keep", kind="integer", default=3, minimum=2, help="the newest so many stay"),),
}
OWN = (
    Field(key="name", kind="text", default="digits-mlp", help="of the run"),
    Field(key="seed", kind="integer", default=0, minimum=0, help="where randomness starts"),
)

SMALL, WIDE = (80, 24), (120, 40)


class ScriptedTrainer:
    """Emits events by hand: an epoch at once, then it obeys its control until told to finish."""

    def __init__(self, engine: ScriptedEngine, control: Control, epochs: int) -> None:
        self.history = History()
        self.run = None
        self._engine, self._control, self._epochs = engine, control, epochs
        self._listeners: list[tuple[type, Callable[[Any], None]]] = []

    def on(self, kind: type, listener: Callable[[Any], None]) -> None:
        self._listeners.append((kind, listener))

    def emit(self, event: Event) -> None:
        self.history.apply(event)
        for kind, listener in self._listeners:
            if isinstance(event, kind):
                listener(event)

    def fit(self) -> None:
        self.emit(scripted.started(self._epochs))
        self.emit(
            Progress(
                phase="train", step=10, epoch=1, batch=10, batches=390, loss=2.0, lr=1e-3, steps_per_second=40.0,
                samples_per_second=1280.0, elapsed=1.0, left=9.0,
            )
        )  # fmt: skip
        for event in self._engine.events:
            self.emit(event)
        self._engine.stated.set()
        while not (self._control.stopping or self._engine.finish.is_set()):
            if self._engine.failure:
                raise self._engine.failure
            if self._control.take_checkpoint():
                self.emit(CheckpointWritten(step=10, epoch=1, path="step-00000010", best=False, seconds=0.1))
            if self._control.take_validate():
                self.emit(Validated(epoch=1, step=10, metrics={"val/loss": 1.0}))
            if self._control.paused != self.history.paused:
                self.emit(RunPaused(step=10) if self._control.paused else RunContinued(step=10))
            time.sleep(0.002)
        state = "finished" if self._engine.finish.is_set() else "stopped"
        reason = self._control.stopping or "all epochs done"
        self.emit(RunEnded(state=state, reason=reason, epoch=1, step=10, seconds=1.0, best={}))


class ScriptedEngine(Engine):
    """The engine's door with a small catalog behind it. `torch` is set when torch "is loaded"."""

    def __init__(self) -> None:
        super().__init__()
        self.torch = threading.Event()
        self.torch.set()
        self.finish = threading.Event()
        self.stated = threading.Event()  # whether the run has stated all that it states by itself
        self.failure: Exception | None = None
        self.refusal: Sequence[Problem] = ()  # what assembling finds
        self.started: list[Mapping[str, Any]] = []
        self.resumed: list[tuple[Path, int | None]] = []
        self.runs_there: list[Any] = []
        self.followers: dict[str, ScriptedFollower] = {}
        self.told: list[tuple[str, str, dict[str, Any]]] = []
        self.begun: Begun | None = None  # what came of a start in the background
        self.unfit: dict[str, dict[str, str]] = {}
        self.measures = False  # whether the rail begins a dry run by itself
        self.events: list[Event] = []  # that a run states at its start

    def load(self) -> None:
        self.torch.wait()

    def sections(self, values: Mapping[str, Any], *, light: bool) -> tuple[Section, ...]:
        groups = [Section(key="", title="Recipe", fields=OWN)]
        for kind, parts in FIELDS.items():
            present = light and kind != "data"
            name = values.get(kind, {}).get("name")
            groups.append(
                Section(
                    key=kind,
                    title=kind.title(),
                    names=() if present else tuple(part for part in parts if part not in self.unfit.get(kind, {})),
                    unfit={} if present else self.unfit.get(kind, {}),
                    optional=kind == "scheduler",
                    fields=(() if present else parts.get(name, ())) + ((BATCH,) if kind == "data" else ()),
                )
            )
        return (*groups, *(Section(key=key, title=key.title(), fields=fields) for key, fields in PLANS.items()))

    def problems(self, values: Mapping[str, Any]) -> tuple[Problem, ...]:
        found = []
        for group in self.sections(values, light=False):
            given = values if group.key == "" else values.get(group.key, {})
            known = {"name", *(field.key for field in group.fields), *FIELDS, *PLANS}
            found += [Problem(f"{group.key}.{key}", f"{group.key}.{key} is unknown") for key in given if key not in known]
            if group.names and given.get("name") and given["name"] not in group.names:
                found.append(Problem(f"{group.key}.name", f"{group.key}.name is {given['name']!r}, which is not known"))
        return tuple(found)

    def complete(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return dict(values)

    def summary(self, kind: str, name: str) -> str:
        return f"what {name} is"

    def train(self, values: Mapping[str, Any], control: Control) -> ScriptedTrainer:
        self.stated.clear()
        self.started.append(values)
        if self.refusal:
            raise RecipeError(self.refusal)
        return ScriptedTrainer(self, control, values.get("training", {}).get("epochs", 20))

    def resume(self, path: Path, epochs: int | None, control: Control) -> ScriptedTrainer:
        self.stated.clear()
        self.resumed.append((path, epochs))
        return ScriptedTrainer(self, control, epochs or 20)

    @property
    def root(self) -> Path:
        return Path("runs")

    def list_runs(self) -> list[Any]:
        return self.runs_there

    def recipe_of(self, path: Path) -> dict[str, Any]:
        return {"name": "digits-mlp", "training": {"epochs": 2}}

    def config_of(self, path: Path) -> dict[str, Any]:
        return {}

    def unmeasured(self, values: Mapping[str, Any]) -> str:
        return "" if self.measures else "this engine is scripted"

    def follower(self, path: Path) -> ScriptedFollower:
        return self.followers.setdefault(path.name, ScriptedFollower())

    def place_of(self, path: Path) -> tuple[str, int]:
        return "gpu3", 4321

    def tell(self, path: Path, ask: str, **values: Any) -> None:
        if not self.followers[path.name].alive:
            raise RunError(f"{path.name} is not being trained")
        self.told.append((path.name, ask, values))

    def start_in_background(self, values: Mapping[str, Any]) -> SimpleNamespace:
        self.started.append(values)
        return SimpleNamespace(poll=lambda: self.begun)


class ScriptedFollower:
    """Follows a run that is over, or with events of the test's own one that is at work: what is put into `events` is seen at
    the next look."""

    def __init__(self, *events: Event, alive: bool = False) -> None:
        over = RunEnded(state="finished", reason="all 2 epochs done", epoch=2, step=780, seconds=18.0, best={})
        self.events = list(events) or [scripted.started(2), over]
        self.alive = alive
        self.history = History()
        self._polling = threading.Lock()  # the list's preview and the screen that follows ask the same one

    def poll(self) -> None:
        with self._polling:
            while self.events:
                self.history.apply(self.events.pop(0))
            if self.history.ended is not None:
                self.alive = False


def run_summary(name: str, state: str, **values: Any) -> Any:
    """A line of the list of runs."""
    usual = {
        "path": Path("runs") / name, "step": 780, "epoch": 2, "epochs": 2, "monitor": "val/loss", "mode": "min",
        "started": 1.79e9, "best": {"epoch": 2, "val/loss": 0.4}, "seconds": 18.0, "reason": "",
        "host": platform.node(), "pid": 4321, "tag": "", "parent": "", "parent_step": 0, "parent_path": "", "differs": {},
        "recipe": True,
    }  # fmt: skip
    return SimpleNamespace(name=name, state=state, **{**usual, **values})


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    """What a test began has ended before the next one begins, and before what the test patched is as it was."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + 120.0
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith("asyncio_"):  # the event loop's own, which ends with it
            continue
        thread.join(max(0.0, deadline - time.monotonic()))
        assert not thread.is_alive(), f"{thread.name} is still at work"


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits for the clock: a key is done with when nothing is left to do, runs are looked at often, notices stay."""
    monkeypatch.setattr("textual.notifications.Notification.time_left", 1e6)
    monkeypatch.setattr("textual.app.wait_for_idle", idle)
    monkeypatch.setattr("textual.pilot.wait_for_idle", idle)
    quick = replace(FAST, least=0.05, most=0.08)
    monkeypatch.setattr("tui.app.pace", lambda link: (quick, found[1]) if (found := pace(link))[0] is FAST else found)


async def idle(_: float = 0.0, max_sleep: float = 1.0) -> None:
    """Wait until the event loop has nothing to do, and no timer of a frame is running; for so many frames where one always is.

    Textual's own waits until the process has computed little for a while, which a busy thread beside it delays by a second.
    """
    loop: Any = asyncio.get_running_loop()
    end, frames = loop.time() + 60.0, 0.0
    while frames < max_sleep / FRAME and loop.time() < end:  # frames and not seconds: those of a busy machine are nothing
        await asyncio.sleep(0)
        if not loop._ready:
            soon = [timer.when() for timer in loop._scheduled if not timer.cancelled()]
            wait = min(soon, default=end) - loop.time()
            if wait > FRAME:
                return
            frames += 1
            await asyncio.sleep(max(0.0, wait))


@pytest.fixture
def engine() -> Any:
    """A scripted engine; a training that a test leaves behind ends with it."""
    engine = ScriptedEngine()
    yield engine
    engine.torch.set()
    engine.finish.set()


@pytest.fixture
def console(engine: ScriptedEngine) -> Console:
    """A console on it, with the default recipe."""
    return Console(engine, {"name": "digits-mlp"})


@pytest.fixture
def with_runs(engine: ScriptedEngine) -> ScriptedEngine:
    engine.runs_there = [
        run_summary("20261122-140312-digits-mlp", "finished"),
        run_summary("20261121-140312-iris", "died", best={}, epoch=0, epochs=None),
    ]
    return engine


async def until(condition: Callable[[], object], seconds: float = 120.0) -> None:
    """Wait until it holds; it does not while a widget that it asks for is not there."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(NoMatches):
            if condition():
                return
        assert time.monotonic() < deadline, "it never came to hold"
        await asyncio.sleep(0.01)


async def drawn(console: Console) -> TrainScreen:
    """Wait until a run is on the screen, with all that it has stated by now; one of this console's states all that it will."""

    def holds() -> bool:
        screen = console.screen
        if not isinstance(screen, TrainScreen) or not (screen.session is None or console.engine.stated.is_set()):
            return False
        return screen.shown.history.started is not None and screen._seen == screen._sight()

    await until(holds)
    assert isinstance(console.screen, TrainScreen)
    return console.screen


async def ready(console: Console) -> None:
    """Wait until the form has all its fields."""
    await until(lambda: console.form.complete)


def cells(console: Console) -> list[list[str]]:
    """What the screen's table shows, by row."""
    table = console.screen.query_one(DataTable)
    return [[str(cell) for cell in table.get_row_at(row)] for row in range(table.row_count)]
