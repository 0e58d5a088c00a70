"""Fitting: one training from its start to its end; what goes wrong, going back, going on, and the last checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from engine import execution
from engine.changes import EXECUTIONS, Change
from engine.control import StopWaiting
from engine.data.batches import ResidentBatches, StreamedBatches
from engine.data.order import order
from engine.data.workers import only_while_waiting
from engine.distributed import writes
from engine.errors import EpochalError, RunError
from engine.events import Rewound, RunEnded, RunStarted, Trained
from engine.loop import NonFiniteLoss
from engine.track.attach import attach
from engine.training import failures, snapshot, steering
from engine.training.epochs import Epochs
from engine.training.failures import Failure
from engine.training.pace import Pace
from engine.training.trainer_state import REPORT_SECONDS

if TYPE_CHECKING:
    from engine.history import History
    from engine.recipe import Track
    from engine.run import Run, Saved

WORTH_A_WORD = 10.0  # seconds of a run from which its waiting is measured well enough to say what would end it
RETRY_SECONDS = 2.0  # between two attempts to write the last checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a run ended. `history` has one dict an epoch: "epoch", "train/loss", "val/loss", "val/…", "lr", "seconds".

    Of more than 20,000 epochs the older ones are thinned out; the run's journal has them all.
    """

    state: str  # "finished", "stopped" or "failed"
    reason: str
    best: dict[str, float]  # the best epoch's row, empty when none ended
    history: list[dict[str, float]] = field(repr=False)
    model: nn.Module = field(repr=False)
    average: nn.Module | None = field(repr=False)  # the model with the averaged weights, where `ema` is set
    run: Run | None


class Fitting(Epochs):
    """Epochs with a beginning and an end."""

    def fit(self) -> Result:
        """Train to the end of the plan, or until stopped. An error in the user's code is raised as it is.

        RunError when another process is at work on the run's directory.
        """
        with execution.arithmetic(self.plan, self.parts.threads), only_while_waiting(self.control):
            self._lock()
            try:
                return self._conclude(*self._outcome(self._begin_and_train))
            finally:  # not when this object is: each run of a sweep, of a queue or of a console would leave its workers
                for batches in (self.parts.train, self.parts.validation):
                    if isinstance(batches, StreamedBatches):
                        batches.rest()

    def _begin_and_train(self) -> tuple[str, str]:
        self._start()
        return self._train_on()

    def _conclude(self, ended: str, reason: str, failure: Failure | None) -> Result:
        """The last checkpoint and the end, however that came about."""
        if failure is not None:
            ended, reason = "failed", failure.reason
            self.parts.optimizer.zero_grad()
            if self.parts.device.type == "cuda":
                torch.cuda.empty_cache()
        if ended == "stopped" or (failure is not None and failure.sound):
            self._last_snapshot = self._snapshot(), False
        unsaved = self._save_last()
        if unsaved:
            ended, reason = "failed", f"{reason}; {unsaved}"
        return self._end(ended, reason, failure)

    def _lock(self) -> None:
        if self.run is not None and (warning := self.run.lock.acquire()):
            self._warnings = (*self._warnings, warning)

    def _outcome(self, train: Callable[[], tuple[str, str]]) -> tuple[str, str, Failure | None]:
        """Train; how and why it ended. What an error still holds, batches and activations, is let go on return."""
        try:
            return *train(), None
        except StopWaiting:
            return "stopped", self.control.stopping or "stopped", None
        except NonFiniteLoss as error:
            return "failed", "", self._not_finite(error)
        except BaseException as error:
            together = self.together
            alone = together is None or isinstance(error, failures.Refused)  # or all ranks fail alike
            failure = failures.explain(error, self) if isinstance(error, Exception) and alone else None
            if failure is not None:
                return "failed", "", failure
            if together is not None:
                error = together.ranks.failed(error)
            stopped = isinstance(error, KeyboardInterrupt)
            says = str(error) if isinstance(error, EpochalError) else f"{type(error).__name__}: {error}"
            ended, reason = ("stopped", "interrupted") if stopped else ("failed", says)
            self._save_last()
            self._end(ended, reason, None)
            raise error

    def _start(self) -> None:
        self.pace.begin()
        self.reporter.emit(
            RunStarted(
                name=self.name,
                path=None if self.run is None else str(self.run.path),
                device=str(self.parts.device),
                device_name=execution.device_name(self.parts.device),
                precision=self.plan.precision,
                execution=self.execution if self.taking == "eager" else self.taking,
                epochs=self.length.epochs,
                steps_per_epoch=self.length.steps_per_epoch,
                total_steps=self.length.steps,
                parameters=self.parts.parameters,
                frozen=self.parts.frozen,
                freeze_epochs=self.parts.freezing.epochs or 0,
                step=self.step,
                epoch=self.epoch,
                monitor=self.best.monitor,
                mode=self.best.mode,
                processes=1 if self.together is None else self.together.ranks.count,
                strategy="" if self.together is None else self.together.strategy,
            )
        )
        self.reporter.messages(self._notes, "info")
        self.reporter.messages(self._warnings, "warning")
        self._repeat_changes()
        if self.plan.non_finite == "rewind" and not self._has_checkpoints:
            self._save()  # something to go back to

    @property
    def _has_checkpoints(self) -> bool:
        held = self.run is not None and bool(self.run.checkpoints.list())
        return held if self.together is None else bool(self.together.ranks.first(held))

    def _train_on(self) -> tuple[str, str]:
        """Train to the end, going back where a step is not finite and the plan says so."""
        while True:
            try:
                return self._train()
            except NonFiniteLoss as error:
                if self.plan.non_finite != "rewind" or self._rewinds >= self.plan.non_finite_limit:
                    raise
                at, reason = error.step or self.step + 1, str(error)
            self._rewind(at, reason)

    def _rewind(self, at: int, reason: str) -> None:
        """Go on from the last checkpoint with a lower learning rate, and put that on the record."""
        assert self.saver is not None
        self.saver.forget()
        self._collect()
        rewinds = self._rewinds + 1
        self.restore()
        self._rewinds = rewinds
        self.reporter.emit(Rewound(step=at, to=self.step, reason=reason))
        self._change(Change("optimizer.lr", self.plan.rewind_factor, times=True), "rewind")
        self._save()

    # How it ends

    def _not_finite(self, error: NonFiniteLoss) -> Failure:
        """Put the broken step on the record."""
        if error.step is not None:  # seen late: the counters have gone on, the weights have not
            self._emit_points()
            return Failure(f"{error} at step {error.step}; it did not reach the weights", sound=False)
        self._report()
        step, loss = self.step + 1, (error.loss,)
        lr = (self.parts.optimizer.param_groups[0]["lr"],)
        self.reporter.emit(Trained(epoch=self.epoch + 1, first=step, step=step, every=1, loss=loss, low=(), high=(), lr=lr))
        where = f"epoch {self.epoch + 1}, batch {self.batch + 1}{self._samples()}"
        return Failure(f"{error} at step {step} ({where}); that step was not taken, the weights are those of step {self.step}")

    def _samples(self) -> str:
        """Which samples the next window holds, where the order is ours to know."""
        train = self.parts.train
        if not isinstance(train, ResidentBatches | StreamedBatches):
            return ""
        first = self.batch * train.batch_size
        indices = order(train.samples, train.seed, self.epoch + 1, train.shuffle)
        held = indices[first : first + self.plan.accumulate * train.batch_size].tolist()
        return f", samples {', '.join(map(str, held[:8]))}{', …' if len(held) > 8 else ''}"

    def _save_last(self) -> str:
        """Write what is still to be written, and try again while the disk does not take it; a sentence where it never did."""
        saver = self.saver
        if saver is None:
            return ""
        deadline = time.monotonic() + self.checkpoint.retry_minutes * 60
        while True:
            if self._last_snapshot is None:
                saver.write_best()
            else:
                saver.write(self._last_snapshot[0], best=self._last_snapshot[1])
            while not saver.wait(REPORT_SECONDS):
                self._progress("save", self.batch, self.parts.train.length)
            self._collect()
            failed = self.history.failed_save
            if failed is None or self._last_snapshot is None:
                return ""
            if time.monotonic() >= deadline:
                return f"the last checkpoint, of step {failed.step}, could not be written: {failed.reason}"
            self._progress("save", self.batch, self.parts.train.length)
            time.sleep(min(RETRY_SECONDS, max(0.0, deadline - time.monotonic())))

    def _end(self, ended: str, reason: str, failure: Failure | None) -> Result:
        proposal = self._workers_proposal() if failure is None else failure.proposal
        self.reporter.emit(
            RunEnded(
                state=ended,
                reason=reason,
                epoch=self.epoch,
                step=self.step,
                seconds=self.pace.elapsed,
                best=self.best.row,
                proposal=proposal,
            )
        )
        if self.run is not None:
            self.run.lock.release()
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

    def _workers_proposal(self) -> dict[str, float]:
        """What would have ended the waiting for samples, and a word about it; nothing where there was little."""
        waited = self.pace.waited_in_all
        wanted = self._workers_wanted(waited)
        if wanted is None or self.pace.elapsed < WORTH_A_WORD:
            return {}
        text = f"{waited:.0%} of the training went to waiting for samples: data.workers = {wanted} would load them in parallel"
        self.reporter.messages([text], "info")
        return {"data.workers": wanted}

    # Going on

    def restore(self, *, except_for: tuple[str, ...] = ()) -> None:
        """Go on from the run's last whole checkpoint; what the journal says of later steps is cut off.

        Live changes hold, and those that came after the checkpoint are made again at their steps; but not of the fields
        in `except_for`, which the caller has decided.
        RunError when another process is at work on the run, or the disk fails; CheckpointError when a checkpoint does not fit.
        """
        self._lock()
        try:
            self._read_last(self.run, except_for)
        except BaseException as error:
            if self.run is None:
                raise
            self.run.lock.release()
            if isinstance(error, OSError):
                raise RunError(f"{self.run.path} can't be continued: {error.strerror}") from error
            raise

    def _read_last(self, run: Run | None, except_for: tuple[str, ...]) -> None:
        """`run` is None in a process that writes nothing; the first one reads for all."""
        from engine.run import load_history

        applied: list[float] = []
        saved = None
        if run is not None:
            run.checkpoints.tidy()
            saved = run.checkpoints.read("last") if run.checkpoints.list() else None
        if self.together is not None:
            saved = self.together.read(saved)
        if saved is not None:
            snapshot.restore(saved, self.parts, self.loop)
            self._warnings = (*self._warnings, *saved.passed_over)
            state = saved.state
            self._stand_at(state, except_for)
            self.best.load_state_dict(state["best"])
            if self.whole is not None:
                self.whole.take(EXECUTIONS[int(state.get("whole", 0))])
            self.pace = Pace(state["elapsed"])
            self._rewinds, applied = state["rewinds"], state["applied"]
        self._guard_from_here()
        settings = []
        if run is not None:
            run.journal.truncate_after(self.step, self.epoch, self._mid_epoch_validation_is_due)
            self.history.become(load_history(run))
            settings = list(self.history.settings)
        if self.together is not None:
            settings = self.together.ranks.first(settings)
        later = [event for event in settings if event.time not in applied and event.field not in except_for]
        self._applied_changes = list(applied)
        self._due_changes = [(event.step, event.time, Change(event.field, event.value)) for event in later]

    def _stand_at(self, state: Mapping[str, Any], except_for: tuple[str, ...]) -> None:
        """Take over a checkpoint's place in the data and what was changed live, but for these fields."""
        self.step, self.epoch, self.batch, self._refused = (state[key] for key in ("step", "epoch", "batch", "refused"))
        self._freeze_as_planned(self.epoch if self.batch else self.epoch - 1)  # as in the steps before
        self.meter.load_state_dict(state["meter"])
        self._epoch_seconds, self._validated = state["epoch_seconds"], state["validated"]
        for key, value in state["changed"].items():
            if key not in except_for:
                steering.put(self, key, value)

    def _guard_from_here(self) -> None:
        self._guarded_from = self.step
        if self.loop.guard is not None:
            self.loop.guard.reset()
        if self.whole is not None:
            self.whole.reset()

    # Beginning where another run was

    def repeat_execution(self, history: History) -> None:
        """Switch to a faster execution at the steps at which that run did by itself, not where the clock would have it."""
        switches = [event for event in history.settings if event.field == "training.execution"]
        if self.whole is not None and self.plan.execution == "auto":
            self._due_changes = [(event.step, None, Change(event.field, event.value)) for event in switches]

    def tell_others(self, track: Track, config: Mapping[str, Any]) -> None:
        """Tell the tools that `track` names as well; `config` is what they show of the run. Once, before the start."""
        if writes():
            attach(self.on, self.reporter.emit, self.run, track, config)

    def note(self, text: str, *warnings: str) -> None:
        """Say this when the run begins."""
        self._notes, self._warnings = (*self._notes, text), (*self._warnings, *warnings)

    def begin_at(self, saved: Saved, *, except_for: tuple[str, ...] = ()) -> None:
        """Stand where a checkpoint of another run is. What was changed live there holds, but for these fields of the recipe.

        The best epochs of that run are not this one's. Raises CheckpointError when it does not fit.
        """
        snapshot.restore(saved, self.parts, self.loop)
        self._stand_at(saved.state, except_for)
        self._guard_from_here()

    def save_beginning(self) -> None:
        """Write the checkpoint that a resume begins with before there is another. RunError when the disk does not take it."""
        assert self.saver is not None
        self.saver.write(self._copy())  # nothing is stated before the run has begun
        self.saver.wait()
        self._collect()
        if (failed := self.history.failed_save) is not None:
            raise RunError(f"the checkpoint that the run begins with could not be written: {failed.reason}")
