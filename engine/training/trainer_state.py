"""TrainerState: a training between two steps."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from engine import execution
from engine.changes import EXECUTIONS, Change
from engine.control import Control
from engine.data import workers
from engine.data.batches import StreamedBatches
from engine.distributed import processes
from engine.errors import Problem, RecipeError
from engine.events import Event, Progress
from engine.execution.average import Average
from engine.execution.guard import Guard
from engine.execution.sampled import Sampler
from engine.history import History
from engine.loop import Loop
from engine.measure import LossMeter
from engine.metrics import monitored
from engine.parts import Parts
from engine.recipe import Checkpoint, Training
from engine.training import snapshot
from engine.training.best import Best
from engine.training.pace import Pace
from engine.training.reporter import Reporter
from engine.training.saver import Saver
from engine.training.snapshot import Snapshot

if TYPE_CHECKING:
    from engine.distributed.elsewhere import Elsewhere
    from engine.distributed.together import Together
    from engine.run import Run

REPORT_SECONDS = 0.25  # between two looks at the device's sums: what screens get, and what a GPU is waited for
POINTS = 10_000  # of the training curve, roughly


class TrainerState:
    """The parts and the loop over them, the counters, and what is emitted and saved of them.

    `Epochs` moves it from step to step, `Fitting` begins, resumes and ends it, `Trainer` is what a person calls.
    """

    def __init__(
        self, parts: Parts, plan: Training, checkpoint: Checkpoint, name: str, run: Run | None, control: Control | None
    ) -> None:
        self.parts, self.plan, self.checkpoint, self.name, self.run = parts, plan, checkpoint, name, run
        self.control = control or Control()
        self.reporter = Reporter()
        self.together = self._join()
        self.saver: Saver | Elsewhere | None = None
        if run is not None:
            self.saver = self._record(run)
        if self.together is not None and self.together.ranks.first(run is not None):
            self.saver = self.saver or self.together.elsewhere(checkpoint)
        if self.saver is None and plan.non_finite == "rewind":
            message = "training.non_finite = 'rewind' needs a run directory: without one there is no checkpoint to go back to"
            raise RecipeError([Problem("training.non_finite", message)])

        self.execution = execution.chosen(plan.execution)
        self.loop = self._loop()
        wanted = plan.execution if self.together is None else "eager"
        self.whole = execution.whole_step(
            self.loop, wanted, parts.device, lambda text: self.reporter.messages([text], "warning")
        )
        if self.together is not None:
            self.together.join(self.loop, parts)
        self.sampler: Sampler | None = None
        if plan.health:
            self.sampler = Sampler(
                self.loop, self.whole, parts.device, lambda text: self.reporter.messages([text], "warning"), parts.train
            )
        self.length = plan.length(parts.train.length)
        self.step = 0  # steps taken
        self.epoch = 0  # epochs ended
        self.batch = 0  # batches of the epoch under way that were used
        steps = self.length.steps
        self.meter = LossMeter(100, POINTS) if steps is None else LossMeter(max(1, math.ceil(steps / POINTS)))
        self.best = Best(*monitored(plan.monitor, parts.validation is not None, parts.metrics), plan.patience, plan.min_delta)
        self.pace = Pace()
        self.changed: dict[str, float | None] = {}  # fields of the plan that were changed live
        self._applied_changes: list[float] = []  # when each live change was stated: those that a checkpoint holds
        # Step, time where it is on the record, and change, to be repeated.
        self._due_changes: list[tuple[int, float | None, Change]] = []
        self._rewinds = 0
        self._validated = 0  # the step after which the plan's last validation in the middle of an epoch was
        self._guarded_from = 0  # the step from which the guard counts
        self._refused = 0  # windows of the epoch under way that changed nothing
        self._refused_in_a_row = 0
        self._failed_metrics: set[str] = set()
        self._last_snapshot: tuple[Snapshot, bool] | None = (
            None  # the run's last checkpoint, not yet written; whether it is the best
        )
        self._epoch_seconds = 0.0  # of the epoch under way, in an earlier process
        self._epoch_started = time.perf_counter()
        self._next_report = 0.0 if self.together is None else math.inf  # of several processes the first one's clock decides
        self._idle = execution.idle(parts.device)
        self._warnings = parts.warnings
        if run is not None and parts.preprocessing is not None:
            self._warnings += parts.preprocessing.keep(run.path)
        self._notes: tuple[str, ...] = ()  # said at the beginning

    def _loop(self) -> Loop:
        """The loop over the parts, on their device, as the plan has it."""
        parts, plan = self.parts, self.plan
        execution.arrange(parts.model, parts.optimizer, plan.precision, parts.device)
        guarded = parts.device.type == "cuda" and plan.non_finite != "skip" and Guard.fits(parts.optimizer)
        guarded = guarded and (self.together is None or self.together.strategy == "ddp")
        guard = Guard(parts.optimizer, parts.device).obeyed() if guarded else None
        loop = parts.loop(plan)
        loop.after_step = parts.schedule.after_step if parts.schedule and parts.schedule.unit == "step" else None
        loop.average = Average(parts.model, plan.ema) if plan.ema else None
        loop.guard, loop.check, loop.skip = guard, guard is None, plan.non_finite == "skip"
        return loop

    def _freeze_as_planned(self, ended: int) -> None:
        """Freeze what is frozen after so many epochs. Who takes the steps is made anew where that is other than before."""
        if self.parts.freezing.begin(ended) and self.whole is not None:
            self.whole.renew(self.parts.freezing.parameters)

    @property
    def history(self) -> History:
        """What was stated so far."""
        return self.reporter.history

    @property
    def taking(self) -> str:
        """The execution of the steps from now on."""
        return "eager" if self.whole is None else self.whole.taking

    def on(self, kind: type[Event], listener: Callable[[Any], None]) -> None:
        """Call `listener(event)` for each event of that class; `Event` itself stands for all."""
        self.reporter.on(kind, listener)

    def _join(self) -> Together | None:
        """One of several processes that train together, where there are others."""
        ranks = processes()
        if ranks is None:
            return None
        from engine.distributed.together import Together

        together = Together(ranks, self.control, self.plan, self.parts)
        self.control = together.control
        if self.plan.execution in ("compiled", "captured"):
            said = f"training.execution = {self.plan.execution!r} is for one process: the steps of several are taken eagerly"
            self.parts.warnings = (*self.parts.warnings, said)
            self.plan = dataclasses.replace(self.plan, execution="eager")
        return together

    def _record(self, run: Run) -> Saver:
        """Lead all events into the run's directory, and what is asked there to the control."""
        from engine.run.control_file import Inbox, deliver
        from engine.training.recorder import Recorder

        recorder = Recorder(run, self.reporter.emit)
        inbox = Inbox(run.path / "control.jsonl")
        self.on(Event, recorder.take)
        self.on(Progress, lambda _: self.reporter.messages(deliver(inbox, self.control), "warning"))
        return Saver(run, self.checkpoint, recorder.flush, *([] if self.together is None else [self.together.ranks.first]))

    def _last_sound_step(self) -> int | None:
        """The last step that was taken, where the device decided that."""
        if self.loop.guard is not None:
            return self._guarded_from + self.loop.guard.steps()
        missed = 0 if self.whole is None else self.whole.missed()
        return self.step - missed if missed else None

    def _emit_points(self) -> None:
        """The points of the training curve that are whole."""
        points = self.meter.take_points(self.epoch + 1)
        if points is not None:
            self.reporter.emit(points)

    def _progress(self, phase: str, batch: int, batches: int | None, loss: float | None = None) -> None:
        report_at = time.perf_counter() + REPORT_SECONDS
        if self.together is None:
            self._next_report = report_at
        else:
            self.together.report_at = report_at
        steps = self.length.steps
        validations = (self.length.epochs - self.epoch) // self.plan.validate_every if self.parts.validation is not None else 0
        self.reporter.emit(
            Progress(
                phase=phase,
                step=self.step,
                epoch=min(self.epoch + 1, max(self.length.epochs, 1)),  # the last one's checkpoint may take long
                batch=batch,
                batches=batches,
                loss=loss,
                lr=self.meter.lr,
                steps_per_second=self.pace.steps_per_second,
                samples_per_second=self.pace.samples_per_second,
                elapsed=self.pace.elapsed,
                left=self.pace.left(None if steps is None else steps - self.step, validations),
                waited=self.pace.waited,
                workers=self._workers_wanted(self.pace.waited),
            )
        )

    def _workers_wanted(self, waited: float | None) -> int | None:
        """How many data.workers would end the waiting for samples; None where it is short, or they are not ours to start."""
        train = self.parts.train
        return workers.proposed(waited, train.workers) if isinstance(train, StreamedBatches) else None

    def _collect(self) -> None:
        """State what came of the checkpoints that were written meanwhile."""
        if self.saver is not None:
            self.reporter.emit(*self.saver.collect())

    def _copy(self) -> Snapshot:
        """Everything that a resume needs. Of what the device has summed up nothing may be unread: see `Epochs._snapshot`."""
        return snapshot.take(
            self.parts,
            self.loop,
            {
                "step": self.step,
                "epoch": self.epoch,
                "batch": self.batch,
                "whole": EXECUTIONS.index(self.taking),
                "refused": self._refused,
                "epoch_seconds": time.perf_counter() - self._epoch_started if self.batch else 0.0,
                "elapsed": self.pace.elapsed,
                "meter": self.meter.state_dict(),
                "best": self.best.state_dict(),
                "changed": dict(self.changed),
                "applied": list(self._applied_changes),
                "rewinds": self._rewinds,
                "validated": self._validated,
            },
        )
