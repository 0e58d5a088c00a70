"""Epochs: what stands around the loop; validation, schedule, early stopping, budgets, checkpoints, control, events."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from engine import execution, snapshot
from engine.best import Best
from engine.control import Control
from engine.data.batches import ResidentBatches, StreamedBatches
from engine.data.order import order
from engine.errors import EpochalError
from engine.events import EpochEnded, Event, Progress, RunContinued, RunEnded, RunPaused, RunStarted, Trained, Validated
from engine.history import History
from engine.loop import Loop, NonFiniteLoss, windows
from engine.measure import LossMeter, ValidationMeter
from engine.metrics import monitored
from engine.pace import Pace
from engine.parts import Parts
from engine.plan import length
from engine.recipe import Checkpoint, Training
from engine.reporter import Reporter
from engine.snapshot import Saver, Snapshot

if TYPE_CHECKING:
    from engine.run import Run

REPORT_SECONDS = 0.25  # between two looks at the device's sums: what screens get, and what a GPU is waited for
POINTS = 10_000  # of the training curve in a run of known length


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a run ended. `history` has one dict an epoch: "epoch", "train/loss", "val/loss", "val/…", "lr", "seconds"."""

    state: str  # "finished", "stopped" or "failed"
    reason: str
    best: dict[str, float]  # the best epoch's row, empty when none ended
    history: list[dict[str, float]] = field(repr=False)
    model: nn.Module = field(repr=False)
    average: nn.Module | None = field(repr=False)  # the model with the averaged weights, where `ema` is set
    run: Run | None


class Epochs:
    """One training of `Parts` by a plan. `Trainer` is its public face."""

    def __init__(
        self, parts: Parts, plan: Training, checkpoint: Checkpoint, name: str, run: Run | None, control: Control | None
    ) -> None:
        self.parts, self.plan, self.name, self.run = parts, plan, name, run
        self.control = control or Control()
        self.reporter = Reporter()
        self._saver: Saver | None = None
        if run is not None:
            from engine.recorder import Recorder

            self.on(Event, Recorder(run).take)
            self._saver = Saver(run, checkpoint)

        call, self.execution = execution.prepare_call(parts.model, plan.execution)
        self.loop = Loop(
            model=call,
            module=parts.model,
            loss=parts.loss,
            optimizer=parts.optimizer,
            count=parts.count,
            after_step=parts.schedule.after_step if parts.schedule and parts.schedule.unit == "step" else None,
            precision=execution.precision_context(plan.precision, parts.device),
            scaler=execution.gradient_scaler(plan.precision, parts.device),
            average=AveragedModel(parts.model, multi_avg_fn=get_ema_multi_avg_fn(plan.ema)) if plan.ema else None,
            closure=parts.needs_closure,
            clip_norm=plan.clip_norm,
            clip_value=plan.clip_value,
            measure_norm=plan.gradient_norm,
            check=parts.device.type == "cpu" or plan.non_finite == "skip",
            skip=plan.non_finite == "skip",
        )
        self.length = length(plan, parts.train.length)
        self.step = 0  # steps taken
        self.epoch = 0  # epochs ended
        self.batch = 0  # batches of the epoch under way that were used
        steps = self.length.steps
        self.meter = LossMeter(every=100 if steps is None else max(1, math.ceil(steps / POINTS)))
        self.best = Best(*monitored(plan.monitor, parts.validation is not None, parts.metrics), plan.patience, plan.min_delta)
        self.pace = Pace()
        self._refused = 0  # windows of the epoch under way that changed nothing
        self._epoch_seconds = 0.0  # of the epoch under way, in an earlier process
        self._epoch_started = time.perf_counter()
        self._next_report = 0.0
        self._warnings = parts.warnings

    @property
    def history(self) -> History:
        """What was stated so far."""
        return self.reporter.history

    def on(self, kind: type[Event], listener: Callable[[Any], None]) -> None:
        """Call `listener(event)` for each event of that class; `Event` itself stands for all."""
        self.reporter.on(kind, listener)

    # The run

    def fit(self) -> Result:
        """Train to the end of the plan, or until stopped. An error in the user's code is raised as it is."""
        with execution.Arithmetic(self.plan, self.parts.threads):
            try:
                self._start()
                ended, reason = self._train()
            except NonFiniteLoss as error:
                ended, reason = "failed", self._not_finite(error)
            except BaseException as error:
                stopped = isinstance(error, KeyboardInterrupt)
                self._end("stopped" if stopped else "failed", "interrupted" if stopped else f"{type(error).__name__}: {error}")
                raise
            return self._end(ended, reason)

    def _start(self) -> None:
        self.pace.begin()
        self.reporter.state(
            RunStarted(
                name=self.name,
                path=None if self.run is None else str(self.run.path),
                device=str(self.parts.device),
                device_name=execution.device_name(self.parts.device),
                precision=self.plan.precision,
                execution=self.execution,
                epochs=self.length.epochs,
                steps_per_epoch=self.length.steps_per_epoch,
                total_steps=self.length.steps,
                parameters=self.parts.parameters,
                step=self.step,
                epoch=self.epoch,
                monitor=self.best.monitor,
                mode=self.best.mode,
            )
        )
        self.reporter.messages(self._warnings, "warning")

    def _train(self) -> tuple[str, str]:
        """Epoch after epoch; how and why it ended."""
        while self.epoch < self.length.epochs:
            if self.best.exhausted:
                return "finished", f"no better {self.best.monitor} in {self.best.waited} validations"
            if self._spent:
                break
            if not self._train_epoch() or not self._end_epoch():
                return "stopped", self.control.stopping or "stopped"
        if self.plan.max_steps is None and not self._spent:
            return "finished", f"all {self.length.epochs} epochs done"
        return "finished", f"the budget of {self._budget} is used"

    @property
    def _spent(self) -> bool:
        """Whether a budget of steps or minutes is used up."""
        plan = self.plan
        steps = plan.max_steps is not None and self.step >= plan.max_steps
        return steps or (plan.max_minutes is not None and self.pace.elapsed >= plan.max_minutes * 60)

    @property
    def _budget(self) -> str:
        plan = self.plan
        if plan.max_steps is not None and self.step >= plan.max_steps:
            return f"{plan.max_steps} steps"
        return f"{plan.max_minutes:g} minutes"

    def _train_epoch(self) -> bool:
        """The steps of an epoch, from where it was left; whether to go on with its end."""
        self._epoch_started = time.perf_counter() - self._epoch_seconds
        self.pace.begin()
        if self.batch == 0:
            self.meter.start_epoch(self.step)
            self._refused = 0
        if self.control.stopping:
            return self._attend()
        batches = self.parts.train.epoch(self.epoch + 1, self.batch)
        halt = self._next_halt()
        for taken in self.loop.train_epoch(windows(batches, self.plan.accumulate)):
            self.batch += taken.batches
            if taken.refused:
                self._refused += 1
            else:
                self.meter.add(taken)
                self.step += 1
            if self.control.pending or self.step >= halt or time.perf_counter() >= self._next_report:
                self._report()
                if self.control.pending and not self._attend():
                    return False
                if self._spent:
                    return True
                if self.step >= halt:
                    if self.step % (self.plan.validate_steps or 1) == 0 and not self._validate_on_the_way():
                        return False
                    halt = self._next_halt()
        self._report()
        return True

    def _next_halt(self) -> float:
        """The step at which something is due in the middle of an epoch."""
        each, last = self.plan.validate_steps, self.plan.max_steps
        due = math.inf if each is None or self.parts.validation is None else self.step - self.step % each + each
        return min(due, math.inf if last is None else last)

    def _end_epoch(self) -> bool:
        """Validate, move the schedule, judge, save; whether to go on.

        Where a budget ends an epoch early, the checkpoint is of the moment before: a resume with a larger budget goes on in the
        middle of the epoch, as if it had not been interrupted.
        """
        cut = self._snapshot() if self._saver is not None and self._spent and self._in_the_middle else None
        measured = {}
        if self.parts.validation is not None and self._validation_is_due:
            validated = self._validate()
            if validated is None:  # stopped on the way: a resume validates again
                return self._attend()
            measured = validated
        self.meter.end_epoch()
        self._state_points()
        metrics = {"train/loss": self.meter.mean, **measured}
        if self.best.monitor not in metrics and (measured or self.parts.validation is None):
            raise EpochalError(f"training.monitor is {self.best.monitor!r}; this run measures: {', '.join(metrics)}")
        lr = self.meter.lr
        if self.parts.schedule is not None:
            self.parts.schedule.after_epoch(metrics.get(self.best.monitor))
        self.epoch += 1
        self.batch = 0
        seconds = time.perf_counter() - self._epoch_started
        self._epoch_seconds = 0.0
        row = {"epoch": self.epoch, **metrics, "lr": lr, "seconds": seconds}
        best = self.best.monitor in metrics and self.best.update(row)
        notes = (f"{self._refused} steps left out",) if self._refused else ()
        self.reporter.state(
            EpochEnded(epoch=self.epoch, step=self.step, metrics=metrics, lr=lr, seconds=seconds, best=best, notes=notes)
        )
        if cut is not None:
            self._write(cut, best)
        elif self.epoch == self.length.epochs or self.best.exhausted or self._spent:
            self._save(best)
        elif self._saver is not None:
            self.reporter.state(*self._saver.epoch_ended(self.epoch, best, self._snapshot))
        return True

    @property
    def _in_the_middle(self) -> bool:
        return self.parts.train.length is None or self.batch < self.parts.train.length

    @property
    def _validation_is_due(self) -> bool:
        epoch = self.epoch + 1
        return epoch % self.plan.validate_every == 0 or epoch == self.length.epochs or self._spent

    def _validate_on_the_way(self) -> bool:
        """A validation that the plan has in the middle of an epoch; whether to go on."""
        measured = self._validate()
        if measured is None:
            return self._attend()
        best = False
        if self.best.monitor in measured:
            best = self.best.update({"epoch": self.epoch + 1, "step": self.step, **measured, "lr": self.meter.lr})
        self.reporter.state(Validated(epoch=self.epoch + 1, step=self.step, metrics=measured, best=best))
        if best and self._saver is not None:
            self._saver.keep_best(self._snapshot())
        return True

    def _validate(self) -> dict[str, float] | None:
        """ "val/…" values of one pass over the validation data; None when a stop was asked for on the way."""
        batches = self.parts.validation
        assert batches is not None
        meter = ValidationMeter(self.parts.count, self.parts.metrics)
        started, done = time.perf_counter(), 0

        def seen(output: Any, targets: Tensor, loss: Tensor) -> bool:
            nonlocal done
            meter.update(output, targets, loss)
            done += 1
            if time.perf_counter() >= self._next_report:
                self._progress("validate", done, batches.length)
            return not (self.control.pending and self.control.stopping)

        if not self.loop.validate(batches.epoch(1), seen):
            return None
        values = meter.compute()
        self.pace.validation_seconds = time.perf_counter() - started
        self.pace.begin()
        return values

    def _attend(self) -> bool:
        """Do what `control` asks for; whether to go on training."""
        control = self.control
        while True:
            if control.take_checkpoint():
                self._save()
            if control.take_validate() and self.parts.validation is not None:
                measured = self._validate()
                if measured is not None:
                    self.reporter.state(Validated(epoch=self.epoch + 1, step=self.step, metrics=measured))
            if control.stopping:
                self._save()
                return False
            if not control.paused:
                break
            if not self.history.paused:
                self.reporter.state(RunPaused(step=self.step))
            paused = time.perf_counter()
            control.wait_while_paused(1.0)
            self._leave_out(time.perf_counter() - paused)
            self._progress("paused", self.batch, self.parts.train.length)
        if self.history.paused:
            self.reporter.state(RunContinued(step=self.step))
        return True

    def _leave_out(self, seconds: float) -> None:
        self.pace.leave_out(seconds)
        self._epoch_started += seconds

    def _not_finite(self, error: NonFiniteLoss) -> str:
        """Put the broken step on the record and save what is sound; the reason of the end."""
        if error.reached is not None:
            self._state_points()
            return f"{error} at step {error.reached}; weights from there on are not saved"
        self._report()
        step, loss = self.step + 1, (error.loss,)
        lr = (self.parts.optimizer.param_groups[0]["lr"],)
        self.reporter.state(Trained(epoch=self.epoch + 1, first=step, step=step, every=1, loss=loss, low=(), high=(), lr=lr))
        self._save()
        where = f"epoch {self.epoch + 1}, batch {self.batch + 1}{self._samples()}"
        return f"{error} at step {step} ({where}); that step was not taken, the weights are those of step {self.step}"

    def _samples(self) -> str:
        """Which samples the next window holds, where the order is ours to know."""
        train = self.parts.train
        if not isinstance(train, ResidentBatches | StreamedBatches):
            return ""
        first = self.batch * train.batch_size
        indices = order(train.samples, train.seed, self.epoch + 1, train.shuffle)
        held = indices[first : first + self.plan.accumulate * train.batch_size].tolist()
        return f", samples {', '.join(map(str, held[:8]))}{', …' if len(held) > 8 else ''}"

    def _end(self, ended: str, reason: str) -> Result:
        if self._saver is not None and ended == "failed":
            try:
                self.reporter.state(*self._saver.flush())
            except OSError as error:
                self.reporter.messages([f"the best checkpoint could not be written: {error}"], "error")
        self.reporter.state(
            RunEnded(
                state=ended, reason=reason, epoch=self.epoch, step=self.step, seconds=self.pace.elapsed, best=self.best.row
            )
        )
        average = self.loop.average
        return Result(
            state=ended,
            reason=reason,
            best=self.best.row,
            history=[{"epoch": e.epoch, **e.metrics, "lr": e.lr, "seconds": e.seconds} for e in self.history.epochs],
            model=self.parts.model,
            average=None if average is None else average.module,
            run=self.run,
        )

    # What it states

    def _report(self) -> None:
        """Read what the device summed up since the last time and state it."""
        read = self.meter.read()
        if read is None:
            return
        self.pace.took(read.steps, read.samples)
        self._state_points()
        self._progress("train", self.batch, self.parts.train.length, read.loss)

    def _state_points(self) -> None:
        points = self.meter.take_points(self.epoch + 1)
        if points is not None:
            self.reporter.state(points)

    def _progress(self, phase: str, batch: int, batches: int | None, loss: float | None = None) -> None:
        self._next_report = time.perf_counter() + REPORT_SECONDS
        steps = self.length.steps
        validations = (self.length.epochs - self.epoch) // self.plan.validate_every if self.parts.validation is not None else 0
        self.reporter.state(
            Progress(
                phase=phase,
                step=self.step,
                epoch=self.epoch + 1,
                batch=batch,
                batches=batches,
                loss=loss,
                lr=self.meter.lr,
                steps_per_second=self.pace.steps_per_second,
                samples_per_second=self.pace.samples_per_second,
                elapsed=self.pace.elapsed,
                left=self.pace.left(None if steps is None else steps - self.step, validations),
            )
        )

    # What it saves

    def _save(self, best: bool = False) -> None:
        if self._saver is not None:
            self._progress("save", self.batch, self.parts.train.length)
            self._write(self._snapshot(), best)

    def _write(self, taken: Snapshot, best: bool) -> None:
        assert self._saver is not None
        self.reporter.state(*self._saver.write(taken, best=best))
        self.pace.begin()

    def _snapshot(self) -> Snapshot:
        """Everything that a resume needs, copied to host memory."""
        self._report()
        return snapshot.take(
            self.parts,
            self.loop,
            {
                "step": self.step,
                "epoch": self.epoch,
                "batch": self.batch,
                "refused": self._refused,
                "epoch_seconds": time.perf_counter() - self._epoch_started if self.batch else 0.0,
                "elapsed": self.pace.elapsed,
                "meter": self.meter.state_dict(),
                "best": self.best.state_dict(),
            },
        )

    def _restore_last(self) -> None:
        """Continue from the last whole checkpoint; what the journal says of later steps is cut off."""
        from engine.run import load_history

        assert self.run is not None
        if self.run.checkpoints.list():
            saved = self.run.checkpoints.read("last")
            snapshot.restore(saved, self.parts, self.loop)
            self._warnings = (*self._warnings, *saved.passed_over)
            held = saved.state
            self.step, self.epoch, self.batch, self._refused = (held[key] for key in ("step", "epoch", "batch", "refused"))
            self.meter.load_state_dict(held["meter"])
            self.best.load_state_dict(held["best"])
            self._epoch_seconds = held["epoch_seconds"]
            self.pace = Pace(held["elapsed"])
        self.run.journal.truncate_after(self.step, self.epoch)
        self.reporter.history = load_history(self.run)
