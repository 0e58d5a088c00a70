"""Epochs: what stands around the loop; validation, schedule, early stopping, budgets, control, live changes."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from engine.changes import EXECUTIONS, Change
from engine.data import workers
from engine.data.batches import Batch, Batches, ResidentBatches
from engine.data.share import Share
from engine.errors import EpochalError, RecipeError
from engine.events import (
    EpochEnded,
    RunContinued,
    RunPaused,
    SettingChanged,
    Validated,
)
from engine.loop import windows
from engine.measure import ValidationMeter
from engine.training import failures, steering
from engine.training.snapshot import Snapshot
from engine.training.trainer_state import REPORT_SECONDS, TrainerState

FP16_REFUSALS = 50  # in a row: the scaler's factor is at its end then


class Epochs(TrainerState):
    """A trainer as it takes its epochs; `Fitting` begins and ends it."""

    def _train(self) -> tuple[str, str]:
        """Epoch after epoch; how and why it ended."""
        while (over := self._over) is None:
            if not self._train_epoch() or not self._end_epoch():
                return "stopped", self.control.stopping or "stopped"
        return over

    @property
    def _over(self) -> tuple[str, str] | None:
        """Between two epochs: how and why the run has ended, None while it has not."""
        if self.epoch < self.length.epochs and self.best.exhausted:
            return "finished", f"no better {self.best.monitor} in {self.best.waited} validations"
        if self.epoch < self.length.epochs and not self._spent:
            return None
        if self.plan.max_steps is None and not self._spent:
            return "finished", f"all {self.length.epochs} epochs done"
        return "finished", f"the budget of {self._budget} is used"

    @property
    def _spent(self) -> bool:
        """Whether a budget of steps or minutes is used up."""
        plan = self.plan
        if plan.max_steps is not None and self.step >= plan.max_steps:
            return True
        if plan.max_minutes is None:
            return False
        over = self.pace.elapsed >= plan.max_minutes * 60
        return over if self.together is None else self.together.ranks.first(over)

    @property
    def _budget(self) -> str:
        plan = self.plan
        if plan.max_steps is not None and self.step >= plan.max_steps:
            return f"{plan.max_steps} steps"
        return f"{plan.max_minutes:g} minutes"

    def _train_epoch(self) -> bool:
        """The steps of an epoch, from where it was left; whether to go on with its end."""
        self._begin_epoch()
        if self.control.stopping:
            return self._attend()
        if self._mid_epoch_validation_is_due and not self._validate_mid_epoch():  # a checkpoint may be from before it
            return False
        batches = self._batches()
        halt = self._next_halt()
        self.loop.room = halt - self.step
        for taken in self.loop.train_epoch(windows(batches, self.plan.accumulate)):
            self.batch += taken.batches
            if taken.refused:
                self._refuse()
            else:
                self.meter.add(taken)
                self.step += taken.steps
                self._refused_in_a_row = 0
            if self.control.pending or self.step >= halt or time.perf_counter() >= self._next_report:
                self._report()
                self._repeat_changes()
                if self.control.pending and not self._attend():
                    return False
                if self._spent:
                    return True
                if self.step >= halt and self._mid_epoch_validation_is_due and not self._validate_mid_epoch():
                    return False
                halt = self._next_halt()
            self.loop.room = halt - self.step
        self._report()
        return True

    def _batches(self) -> Iterator[Any]:
        """Of the epoch under way, from where it was left; their places where those who take the steps gather them."""
        train, epoch = self.parts.train, self.epoch + 1
        if self.whole is not None and self.whole.places and isinstance(train, ResidentBatches) and not train.augment:
            return train.places(epoch, self.batch)
        return self._awaited(train, epoch, self.batch)

    def _begin_epoch(self) -> None:
        self._epoch_started = time.perf_counter() - self._epoch_seconds
        self.pace.begin()
        if self.batch == 0:
            self._freeze_as_planned(self.epoch)
            self.meter.start_epoch(self.step)
            self._refused = 0

    def _next_halt(self) -> float:
        """The step at which something is due in the middle of an epoch."""
        each, last = self.plan.validate_steps, self.plan.max_steps
        due = math.inf if each is None or self.parts.validation is None else self.step - self.step % each + each
        changed = min((step for step, _, _ in self._due_changes), default=math.inf)
        looked = math.inf if self.sampler is None else self.sampler.halt
        return min(due, changed, looked, math.inf if last is None else last)

    def _awaited(self, batches: Batches, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches; while one is loaded, a signal may cut the waiting short."""
        if isinstance(batches, ResidentBatches):
            yield from batches.epoch(epoch, start)
            return
        control, loaded = self.control, batches.epoch(epoch, start)
        try:
            while True:
                control.waiting = True
                began, idle = time.perf_counter(), self._idle()
                batch = next(loaded, None)
                control.waiting = False
                self.pace.waited_for((time.perf_counter() - began) * (idle + self._idle()) / 2)
                workers.tame()
                if batch is None:
                    return
                yield batch
        finally:
            control.waiting = False

    def _refuse(self) -> None:
        """A window changed nothing. In fp16 that happens now and then; otherwise so many in a row are no accident."""
        self._refused += 1
        self._refused_in_a_row += 1
        limit = max(self.plan.non_finite_limit, 0 if self.loop.skip else FP16_REFUSALS)
        if self._refused_in_a_row > limit:
            raise failures.Refused(f"{self._refused_in_a_row} steps in a row after step {self.step} were not finite")

    def _end_epoch(self) -> bool:
        """Validate, move the schedule, judge, save; whether to go on.

        Where a budget ends an epoch early, the checkpoint is of the moment before: a resume with a larger budget goes on in the
        middle of the epoch, as if it had not been interrupted.
        """
        cut = self._snapshot() if self.saver is not None and self._spent and self._in_the_middle else None
        measured = {}
        if self.parts.validation is not None and self._epoch_validation_is_due:
            validated = self._validate()
            if validated is None:  # stopped on the way: a resume validates again
                return self._attend()
            measured = validated
        self.meter.end_epoch()
        self._emit_points()
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
        said = {f"{self._refused} steps left out": self._refused, "unfrozen": self.parts.freezing.epochs == self.epoch - 1}
        notes = tuple(note for note, counts in said.items() if counts)
        self.reporter.emit(
            EpochEnded(epoch=self.epoch, step=self.step, metrics=metrics, lr=lr, seconds=seconds, best=best, notes=notes)
        )
        self.meter.start_epoch(self.step)  # a checkpoint of this step is the same, made now or at the next epoch's beginning
        if self.saver is None:
            return True
        if cut is not None or self.epoch == self.length.epochs or self.best.exhausted or self._spent:
            self._last_snapshot = cut or self._snapshot(), best
        else:
            self.saver.epoch_ended(self.epoch, best, self._snapshot)
        self._collect()
        return True

    @property
    def _in_the_middle(self) -> bool:
        return self.parts.train.length is None or self.batch < self.parts.train.length

    @property
    def _epoch_validation_is_due(self) -> bool:
        epoch = self.epoch + 1
        return epoch % self.plan.validate_every == 0 or epoch == self.length.epochs or self._spent

    @property
    def _mid_epoch_validation_is_due(self) -> bool:
        """Whether the plan has a validation after the last step taken, and it was not made yet."""
        each = self.plan.validate_steps
        due = each is not None and self.parts.validation is not None and self.step % each == 0
        return due and self._validated < self.step

    def _validate_mid_epoch(self) -> bool:
        """A validation that the plan has in the middle of an epoch; whether to go on."""
        measured = self._validate()
        if measured is None:
            return self._attend()
        self._validated = self.step
        best = False
        if self.best.monitor in measured:
            best = self.best.update({"epoch": self.epoch + 1, "step": self.step, **measured, "lr": self.meter.lr})
        self.reporter.emit(Validated(epoch=self.epoch + 1, step=self.step, metrics=measured, best=best))
        if best and self.saver is not None:
            self.saver.keep_best(self._snapshot())
        return True

    def _validate(self) -> dict[str, float] | None:
        """ "val/…" values of one pass over the validation data; None when a stop was asked for on the way."""
        batches = self.parts.validation
        assert batches is not None
        together = self.together
        gather = None if together is None else together.ranks.gather
        if together is not None:
            together.level(self.loop)
        meter = ValidationMeter(self.parts.count, self.parts.metrics, self._failed_metrics, gather)
        started, done = time.perf_counter(), 0
        counts = True

        def shown() -> Iterator[Batch]:
            nonlocal counts
            for batch in self._awaited(batches, 1):
                counts = not isinstance(batch, Share) or batch.mine > 0
                yield batch

        def seen(output: Any, targets: Tensor, loss: Tensor) -> bool:
            nonlocal done
            meter.update(output, targets, loss, counts)
            done += 1
            if together is not None:
                together.listen()
            if time.perf_counter() >= (self._next_report if together is None else together.report_at):
                self._progress("validate", done, batches.length)
            return not (self.control.pending and self.control.stopping)

        if not self.loop.validate(shown(), seen):
            return None
        values: dict[str, float] = meter.compute()
        if together is not None:
            values = together.ranks.first(values)  # by which all judge, whatever a metric may have said elsewhere
        self.reporter.messages(meter.problems, "error")
        self.pace.validated_in(time.perf_counter() - started)
        return values

    def _attend(self) -> bool:
        """Do what `control` asks for; whether to go on training."""
        control = self.control
        while True:
            for change in control.take_changes():
                self._change(change)
            if control.take_checkpoint():
                self._save()
            if control.take_validate():
                self._validate_as_asked()
            if control.stopping:
                return False
            if not control.paused:
                break
            if not self.history.paused:
                self.reporter.emit(RunPaused(step=self.step))
            paused = time.perf_counter()
            control.wait_while_paused(REPORT_SECONDS)
            self._leave_out(time.perf_counter() - paused)
            self._progress("paused", self.batch, self.parts.train.length)
            self._collect()
        if self.history.paused:
            self.reporter.emit(RunContinued(step=self.step))
        return True

    def _validate_as_asked(self) -> None:
        if self.parts.validation is None:
            self.reporter.messages(["there is no validation data in this run"], "warning")
        elif (measured := self._validate()) is not None:
            self.reporter.emit(Validated(epoch=self.epoch + 1, step=self.step, metrics=measured))

    def _change(self, change: Change, cause: str = "asked") -> None:
        """Change a value of the plan from the next step on, and put it on the record."""
        try:
            before, value = steering.apply(self, change)
        except RecipeError as error:
            self.reporter.messages([str(error)], "warning")
            return
        event = SettingChanged(step=self.step, field=change.field, before=before, value=value, cause=cause)
        self._applied_changes.append(event.time)
        self.reporter.emit(event)

    def _repeat_changes(self) -> None:
        """Make the changes that are due after this step. Those of this run before it was interrupted are on its record."""
        while self._due_changes and self._due_changes[0][0] <= self.step:
            _, time_stated, change = self._due_changes.pop(0)
            if time_stated is None:
                self._change(change, "auto")
            else:
                steering.apply(self, change)
                self._applied_changes.append(time_stated)

    def _leave_out(self, seconds: float) -> None:
        self.pace.leave_out(seconds)
        self._epoch_started += seconds

    # What it states and saves

    def _report(self) -> None:
        """Read what the device summed up since the last time and state it."""
        read = self.meter.read(self._last_sound_step())
        if read is not None:
            self.pace.took(read.steps, read.samples)
            self._emit_points()
        if self.sampler is not None and (sampled := self.sampler.report(self.step, self.pace)) is not None:
            self.reporter.emit(sampled)
        if self.together is not None:
            ranks = self.together.measured(self.step, self.pace.steps_per_second, self.sampler)
            self.reporter.emit(*([] if ranks is None else [ranks]))
        self._progress("train", self.batch, self.parts.train.length, None if read is None else read.loss)
        decided = any(change.field == "training.execution" for _, _, change in self._due_changes)  # before it was interrupted
        if (
            not decided
            and self.whole is not None
            and (quicker := self.whole.ready(self.history.progress.left if self.history.progress else None))
        ):
            self._change(Change("training.execution", float(EXECUTIONS.index(quicker))), "auto")
        self._collect()

    def _save(self) -> None:
        """Write a checkpoint of this step while the training goes on."""
        if self.saver is not None:
            self._progress("save", self.batch, self.parts.train.length)
            self.saver.write(self._snapshot())
            self.pace.begin()

    def _snapshot(self) -> Snapshot:
        """Everything that a resume needs, copied to host memory."""
        self._report()
        return self._copy()
