"""The queue: what waits, what is under way and what came of the rest; sweeps with each of their runs; searches."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.content import Content
from textual.widgets import Static

from engine.errors import EpochalError
from engine.run.queue import Contents, Job, Part
from engine.run.status import ENDED
from engine.sweep import Axis, count, shortened
from tui.keys import bindings
from tui.listing import SYMBOLS
from tui.screens.ask import Confirm
from tui.screens.base import KeyLine
from tui.screens.preview import Preview
from tui.screens.previewing import Previewing
from tui.screens.table import Table, fit_columns
from tui.widgets.formats import cut, number, took

HEADS = ["", "job", "state", "what", "epoch", "best", "trained", "how"]
WHAT, LEAST = 3, 20  # the column that is cut, and what it keeps
FEW = 5  # runs of a sweep on the chart below, the best
SIGNS = {**SYMBOLS, "waiting": "·", "training": "●"}
Row = tuple[str, list[str]]  # its key: "3", or "3/0" for the first run of a sweep; and its cells


class QueueScreen(Previewing):
    """Jobs in their order; a sweep unfolds into its runs, a search has a screen of its own."""

    NAME = "queue"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings("queue")]

    def __init__(self, at: int | None = None) -> None:
        super().__init__()
        self._contents = Contents()
        self._runs: Mapping[str, Any] = {}  # summaries by path
        self._unfolded: set[int] = set() if at is None else {at}
        self._goal = "" if at is None else str(at)  # the row that the cursor is to be on

    def compose(self) -> ComposeResult:
        yield Static(id="title", markup=False)
        yield Table()
        yield Static(
            "\nNothing is queued. A in the form or on a run puts it here, and trains it when its turn comes. Esc goes back.",
            id="empty",
            markup=False,
        )
        yield Preview(self.console_app.engine, self.console_app.view)
        yield Static("", id="about", markup=False)
        yield KeyLine("queue")

    def on_screen_resume(self) -> None:
        self._show()

    def _read(self) -> tuple[Contents, Mapping[str, Any]]:
        engine = self.engine
        return engine.queue.read(), {str(Path(run.path).absolute()): run for run in engine.list_runs()}

    def _take(self, found: tuple[Contents, Mapping[str, Any]]) -> None:
        self._contents, self._runs = found
        self._show()

    # showing

    def _show(self) -> None:
        rows = dict(row for job in self._contents.jobs for row in self._rows(job.shown))
        if self._draw(*self._fitted(rows), self._goal) and self._goal in rows:
            self._goal = ""
        self._entitle()
        self._tell()

    def on_resize(self, event: events.Resize) -> None:
        super().on_resize(event)
        self._show()

    def _fitted(self, rows: dict[str, list[str]]) -> tuple[list[str], dict[str, list[str]]]:
        """What has no room is said below the table: how it is trained, on a small screen, and the end of a long name."""
        heads = HEADS[:-1] if self.has_class("-small") else HEADS
        shown = {key: cells[: len(heads)] for key, cells in rows.items()}
        fit_columns(heads, shown, self.size.width, [(WHAT, LEAST, cut)])
        return heads, shown

    def _rows(self, job: Job) -> list[Row]:
        run = self._runs.get(job.run)
        if job.search:
            of = f"{job.trials}{f'/{job.limit}' if job.limit else ''}"
            cells = [str(job.id), job.state, job.name, of, job.best.replace("/", " "), "", "a search"]
            return [(str(job.id), [SIGNS.get(job.state, "?"), *cells])]
        if not job.axes:
            return [(str(job.id), [SIGNS.get(job.state, "?"), str(job.id), job.state, job.name, *_reached(run), ""])]
        over = sum(part.state in ENDED for part in job.parts)
        members = len(job.parts) or count([Axis.parse(axis) for axis in job.axes])
        fold = "▾" if job.id in self._unfolded else "▸"
        sign = SIGNS.get(job.state, "?")
        cells = [sign, str(job.id), job.state, f"{fold} {_short(job)}", f"{over}/{members}"]
        rows = [(str(job.id), [*cells, self._best_of(job), "", "a sweep"])]
        if job.id in self._unfolded:
            rows += [(f"{job.id}/{i}", self._part(part)) for i, part in enumerate(job.parts)]
        return rows

    def _part(self, part: Part) -> list[str]:
        run = self._runs.get(part.run)
        state = run.state if part.state == "training" and run is not None else part.state
        return [SIGNS.get(state, "?"), "", state, f"    {part.label}", *_reached(run), part.how]

    def _ranked(self, job: Job) -> list[tuple[str, Any]]:
        """The runs of a sweep that have begun, each with its label, the best first."""
        found = [(part.label, run) for part in job.parts if (run := self._runs.get(part.run)) is not None]
        return sorted(found, key=lambda labelled: _worth(labelled[1]))

    def _best_of(self, job: Job) -> str:
        label, run = next(iter(self._ranked(job)), ("", None))
        value = run.best.get(run.monitor) if run is not None else None
        return "" if value is None else f"{number(value)} {label}"

    def _draw_below(self, preview: Preview) -> bool:
        """The run; of a sweep the best ones on one chart; of what has not begun its recipe."""
        job, part, metric = self._job(), self._member(), self.console_app.listing.metric
        if job is None:
            return False
        run = self._runs.get(part.run if part is not None and part.run else job.run)
        ranked = self._ranked(job)[:FEW] if run is None else []
        if run is not None:
            preview.of(run, metric)
        elif ranked:
            (label, best), *others = ranked
            preview.of(best, metric, label, [(label, Path(run.path)) for label, run in others])
        else:
            stage = "has not begun" if job.state == "waiting" else job.state
            preview.plan(f"{job.name} ── {stage}", planned := _planned(job))
            return bool(planned)
        return True

    def _entitle(self) -> None:
        contents = self._contents
        jobs = [job.shown for job in contents.jobs]
        waiting = sum(job.state in ("waiting", "died") and not job.direct for job in jobs)
        words, colour = "nothing waits" if jobs else "nothing is queued", "$text-muted"
        if contents.working:
            words, colour = "at work", "$text-success"
        elif waiting:
            words, colour = "nobody works on it: r starts it", "$text-warning"
        if contents.held and (waiting or contents.working):
            words += ", held: r lets it go on" if contents.working else ", held"
        self.query_one("#title", Static).update(
            Content.assemble(
                (" epochal", "bold $primary"),
                ("  queue", "bold"),
                (f" · {len(jobs)} job{'s' * (len(jobs) > 1)}, {waiting} waiting" if jobs else "", "$text-muted"),
                (f" · {words}", colour),
                (f" · in {self.engine.root}" if jobs else "", "$text-muted"),
            )
        )

    def _about(self) -> tuple[str, str]:
        job, part = self._job(), self._member()
        if job is None:
            return "", ""
        if part is not None:
            return part.reason or part.run or "has not begun", part.how
        if job.axes:
            notes = " · ".join(job.notes) or "what trains together is known when it has begun"
            stops = ", s stops it" if job.state not in ENDED else ""
            return f"{_short(job)} · {notes}", job.reason or f"Enter shows its runs, v draws them on one chart{stops}"
        if job.search:
            stops = ", s stops it" if job.state not in ENDED else ""
            return job.reason or f"Enter shows its trials, v draws those under way{stops}", f"in {job.search}"
        return job.reason or job.run or "frozen as it was queued", f"in {job.directory}"

    def _none(self) -> str:
        return "the queue is empty: A in the form, or on a run, puts something here"

    # what is under the cursor

    def _job(self) -> Job | None:
        number = self._at().partition("/")[0]
        return next((job.shown for job in self._contents.jobs if str(job.id) == number), None)

    def _member(self) -> Part | None:
        job, place = self._job(), self._at().partition("/")[2]
        return job.parts[int(place)] if job is not None and place and int(place) < len(job.parts) else None

    # looking

    def action_open(self) -> None:
        """Look at the run under the cursor, or at a search; a sweep unfolds, or folds."""
        job, part = self._meant(self._job()), self._member()
        if job is None:
            return
        if job.search:
            self.console_app.action_searches(Path(job.search))
            return
        if job.axes and part is None:
            self._unfolded ^= {job.id}
            self._show()
            return
        run = part.run if part is not None else job.run
        if run:
            self.console_app.follow(Path(run))
        else:
            self.notify("it has not begun yet")

    def action_overlay(self) -> None:
        """Draw the runs of the sweep, or the trials under way, on one chart."""
        from tui.screens.overlay import OverlayScreen

        job, part = self._meant(self._job()), self._member()
        if job is None:
            return
        paths = [Path(part.run)] if part is not None and part.run else list(job.runs)
        if paths:
            self.app.push_screen(OverlayScreen(paths))
        else:
            self.notify("it has not begun yet")

    async def action_recipe(self) -> None:
        """Open the form with its recipe."""
        job = self._meant(self._job())
        if job is None:
            return
        try:
            run = job.search or job.run or next((part.run for part in job.parts if part.run), "")
            values = tomllib.loads(job.recipe) if job.recipe else self.engine.recipe_of(Path(run))
        except (EpochalError, OSError, ValueError) as error:
            self.notify(f"its recipe can't be read: {error}", severity="error", markup=False)
            return
        await self.console_app.propose(values, f"as in job {job.id}")

    # working

    def action_start(self) -> None:
        """Have a worker train what waits."""
        self._do(self.engine.work_on_queue)

    def action_hold(self) -> None:
        """Begin nothing else; what is under way goes on."""
        self._do(self.engine.queue.hold, said="held: what is under way goes on, nothing else is begun; r lets it go on")

    def action_stop(self) -> None:
        """Stop the job under the cursor, or one run of a sweep, with a checkpoint; the queue goes on with the next."""
        job, part = self._meant(self._job()), self._member()
        if job is None:
            return
        if part is not None:
            stop = partial(self.engine.tell, Path(part.run), "stop", reason="stopped by the user")
            self._do(stop, said=f"{part.label} is asked to stop")
        else:
            self._tell_job(job, "stop", f"job {job.id} is asked to stop", reason="stopped by the user")

    def action_stop_all(self) -> None:
        """Stop what is under way, to go on with it at the next start."""
        self._do(self._stop_all)

    def _stop_all(self) -> str:
        stopped = self.engine.queue.stop()
        return "stopping with a checkpoint, from which r goes on" if stopped else "nothing is under way; r begins what waits"

    def action_pause(self) -> None:
        """Pause the job under the cursor, or let it go on."""
        job = self._meant(self._job())
        if job is not None:
            paused = any(run is not None and run.state == "paused" for run in (self._runs.get(str(path)) for path in job.runs))
            asked = "resume" if paused else "pause"
            self._tell_job(job, asked, f"job {job.id} {'goes on' if paused else 'is held after its step'}")

    def _tell_job(self, job: Job, ask: str, said: str, **values: Any) -> None:
        self._do(partial(self.engine.queue.tell, job.id, ask, **values), said=said)

    # order

    def action_move(self, step: int) -> None:
        """Begin the job earlier or later."""
        if (job := self._meant(self._job())) is not None:
            self._goal = str(job.id)
            self._do(partial(self.engine.queue.move, job.id, step))

    def action_remove(self) -> None:
        """Take the job out; its runs stay."""
        job = self._meant(self._job())
        if job is None:
            return
        remove = partial(self.engine.queue.remove, [job.id])
        if job.state == "waiting":
            title = f"Take job {job.id} out of the queue?"
            lines = [job.name, "", "What it has trained stays."]
            self.app.push_screen(Confirm(title, lines), lambda sure: self._do(remove) if sure else None)
        else:
            self._do(remove)

    def action_retry(self) -> None:
        """Have a stopped or failed job wait again."""
        if (job := self._meant(self._job())) is not None:
            self._goal = str(job.id)
            self._do(partial(self._retry, job.id))

    def _retry(self, job: int) -> str:
        self.engine.queue.retry([job])
        return self.engine.work_on_queue(again=False)

    def action_clear(self) -> None:
        """Take out all that have ended."""
        self._do(self._clear)

    def _clear(self) -> str:
        gone = len(self.engine.queue.clear())
        return f"{gone} job{'s' * (gone > 1)} taken out; the runs stay" if gone else "nothing here has ended"


def _short(job: Job) -> str:
    """A sweep's name and values: "digits-mlp  lr=1e-4..1e-1 x 4"."""
    values = {field: text for field, _, text in (axis.partition("=") for axis in job.axes)}
    return f"{job.name}  {' '.join(f'{name}={text}' for name, text in zip(shortened(values), values.values(), strict=True))}"


def _planned(job: Job) -> dict[str, Any]:
    """The recipe that it was queued with; empty where there is none, or nobody can read it: what begins it will say so."""
    try:
        return tomllib.loads(job.recipe)
    except tomllib.TOMLDecodeError:
        return {}


def _worth(run: Any) -> float:
    """The smaller the better."""
    value = run.best.get(run.monitor)
    return math.inf if value is None else -value if run.mode == "max" else value


def _reached(run: Any) -> list[str]:
    """How far a run is, its best and its time."""
    if run is None:
        return ["", "", ""]
    value = run.best.get(run.monitor)
    best = f"{run.monitor.replace('/', ' ')} {number(value)}" if value is not None else ""
    return [f"{run.epoch}{f'/{run.epochs}' if run.epochs else ''}", best, took(run.seconds)]
