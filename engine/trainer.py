"""Trainer: epochs around the loop; validation, schedule, early stopping, checkpoints, control, events."""

from __future__ import annotations

import math
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from engine import execution, state
from engine.best import Best
from engine.control import Control
from engine.errors import EpochalError
from engine.events import (
    EpochEnded,
    Event,
    Message,
    Progress,
    RunContinued,
    RunEnded,
    RunPaused,
    RunStarted,
    Trained,
    Validated,
)
from engine.history import History
from engine.loop import Loop, NonFiniteLoss, windows
from engine.measure import LossMeter, ValidationMeter
from engine.metrics import Metric, monitored
from engine.pace import Pace
from engine.parts import Parts
from engine.recipe import Checkpoint, Recipe, Training
from engine.snapshot import Saver, Snapshot

if TYPE_CHECKING:
    from engine.run import Run
    from engine.run.checkpoints import Saved

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
    run: Run | None


class Trainer:
    """Trains parts. Three ways to one: `Trainer(...)` with one's own objects, `from_recipe`, `resume`.

    `on(EpochEnded, listener)` calls `listener(event)` in the training thread. `control` takes requests from any thread.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        loss: Callable[[Any, Tensor], Tensor],
        optimizer: torch.optim.Optimizer,
        train: Any,
        validation: Any = None,
        scheduler: Any = None,
        epochs: int = 1,
        device: str = "auto",
        batch_size: int = 32,
        seed: int = 0,
        metrics: dict[str, Metric] | None = None,
        run_dir: str | Path | None = None,
        checkpoint: Checkpoint | None = None,
        control: Control | None = None,
        name: str | None = None,
        **plan: Any,
    ) -> None:
        """Bring one's own objects; they are used as they are and nothing is reseeded.

        `loss(output, targets)` returns a mean over the batch. `train` and `validation` are DataLoaders (or other iterables
        of `(inputs, targets)`), Datasets, or `(inputs, targets)` tensors, which are batched by `batch_size` in an order
        that follows from `seed`. `scheduler` is torch's; it steps as torch's documentation steps its class. `plan` takes the
        other fields of `engine.recipe.Training` by name (precision, execution, accumulate, clip_norm, monitor, patience, …).
        With `run_dir` the run is written there, and a run that is already there is continued.
        """
        from engine.own import own_parts

        training = Training(epochs=epochs, device=device, **plan)
        parts = own_parts(model, loss, optimizer, train, validation, scheduler, metrics, training, batch_size, seed)
        run, continued = None, False
        if run_dir is not None:
            from engine.run import Run

            run, continued = Run.at(run_dir)
            if continued:
                run.refuse_if_training()
        self._set_up(parts, training, checkpoint or Checkpoint(), name or type(model).__name__, run, control)
        if continued:
            self._restore_last()

    @classmethod
    def from_recipe(cls, recipe: Recipe, *, runs: str | Path | None = "runs", control: Control | None = None) -> Trainer:
        """Assemble a recipe. Its run directory is made below `runs`, none with None.

        Raises RecipeError, one sentence a mistake, before anything is written.
        """
        from engine.assemble import assemble

        parts = assemble(recipe)
        run = None
        if runs is not None:
            from engine.run import Run, environment

            run = Run.create(runs, recipe.name, recipe.to_toml(), environment())
        return cls._made(parts, recipe, run, control)

    @classmethod
    def resume(cls, run: str | Path, *, epochs: int | None = None, control: Control | None = None) -> Trainer:
        """Continue a run from its last whole checkpoint, with more `epochs` if given, from the start if it has none.

        Raises RunError, RecipeError or CheckpointError when it can't be continued.
        """
        from engine.assemble import assemble
        from engine.run import Run

        opened = Run.open(run)
        opened.refuse_if_training()
        recipe = Recipe.load(opened.recipe_path)
        if epochs is not None and epochs != recipe.training.epochs:
            recipe = recipe.replace(**{"training.epochs": epochs})
            recipe.save(opened.recipe_path)
        trainer = cls._made(assemble(recipe), recipe, opened, control)
        trainer._restore_last()
        if epochs is not None:  # asked for: patience that had run out starts again
            trainer.best.waited = 0
        return trainer

    @classmethod
    def _made(cls, parts: Parts, recipe: Recipe, run: Run | None, control: Control | None) -> Trainer:
        trainer = cls.__new__(cls)
        trainer._set_up(parts, recipe.training, recipe.checkpoint, recipe.name, run, control)
        return trainer

    def _set_up(
        self, parts: Parts, plan: Training, checkpoint: Checkpoint, name: str, run: Run | None, control: Control | None
    ) -> None:
        self.parts, self.plan, self.name, self.run = parts, plan, name, run
        self.control = control or Control()
        self.history = History()
        self._listeners: list[tuple[type[Event], Callable[[Any], None]]] = []
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
            clip_norm=plan.clip_norm,
            check_loss=parts.device.type == "cpu",
        )
        length = parts.train.length
        self.steps_per_epoch = None if length is None else math.ceil(length / plan.accumulate)
        total = self.total_steps
        self.step = 0  # steps taken
        self.epoch = 0  # epochs ended
        self.batch = 0  # batches of the epoch under way that were used
        self.meter = LossMeter(every=100 if total is None else max(1, math.ceil(total / POINTS)))
        self.best = Best(*monitored(plan.monitor, parts.validation is not None, parts.metrics), plan.patience, plan.min_delta)
        self.pace = Pace()
        self._epoch_seconds = 0.0  # of the epoch under way, in an earlier process
        self._next_report = 0.0
        self._warnings: tuple[str, ...] = ()  # of damaged checkpoints that were passed over

    @property
    def total_steps(self) -> int | None:
        """Steps of the whole run, None when an epoch's length is not known."""
        return None if self.steps_per_epoch is None else self.steps_per_epoch * self.plan.epochs

    def on(self, kind: type[Event], listener: Callable[[Any], None]) -> None:
        """Call `listener(event)` for each event of that class; `Event` itself stands for all."""
        self._listeners.append((kind, listener))

    # The run

    def fit(self) -> Result:
        """Train to the end of the plan, or until stopped. An error in the user's code is raised as it is."""
        with execution.Arithmetic(self.plan.precision, self.plan.threads):
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
        self._emit(
            RunStarted(
                name=self.name,
                path=None if self.run is None else str(self.run.path),
                device=str(self.parts.device),
                device_name=execution.device_name(self.parts.device),
                precision=self.plan.precision,
                execution=self.execution,
                epochs=self.plan.epochs,
                steps_per_epoch=self.steps_per_epoch,
                total_steps=self.total_steps,
                parameters=self.parts.parameters,
                step=self.step,
                epoch=self.epoch,
                monitor=self.best.monitor,
                mode=self.best.mode,
            )
        )
        self._emit_all(Message(text=text, level="warning") for text in self._warnings)

    def _train(self) -> tuple[str, str]:
        """Epoch after epoch; how and why it ended."""
        while self.epoch < self.plan.epochs:
            if self.best.exhausted:
                return "finished", f"no better {self.best.monitor} for {self.best.waited} epochs"
            if not self._train_epoch() or not self._end_epoch():
                return "stopped", self.control.stopping or "stopped"
        return "finished", f"all {self.plan.epochs} epochs done"

    def _train_epoch(self) -> bool:
        """The steps of an epoch, from where it was left; whether to go on with its validation."""
        self._epoch_started = time.perf_counter() - self._epoch_seconds
        self.pace.begin()
        if self.batch == 0:
            self.meter.start_epoch(self.step)
        batches = self.parts.train.epoch(self.epoch + 1, self.batch)
        if self.control.stopping:
            return self._attend()
        for taken in self.loop.train_epoch(windows(batches, self.plan.accumulate)):
            self.meter.add(taken)
            self.step += 1
            self.batch += taken.batches
            if self.control.pending or time.perf_counter() >= self._next_report:
                self._report()
                if self.control.pending and not self._attend():
                    return False
        self._report()
        return True

    def _end_epoch(self) -> bool:
        """Validate, move the schedule, judge, save; whether to go on."""
        measured = self._validate() if self.parts.validation is not None else {}
        if measured is None:  # stopped on the way: a resume validates again
            return self._attend()
        self.meter.end_epoch()
        self._emit_points()
        metrics = {"train/loss": self.meter.mean, **measured}
        if self.best.monitor not in metrics:
            raise EpochalError(f"training.monitor is {self.best.monitor!r}; this run measures: {', '.join(metrics)}")
        lr = self.meter.lr
        if self.parts.schedule is not None:
            self.parts.schedule.after_epoch(metrics[self.best.monitor])
        self.epoch += 1
        self.batch = 0
        seconds = time.perf_counter() - self._epoch_started
        self._epoch_seconds = 0.0
        best = self.best.update({"epoch": self.epoch, **metrics, "lr": lr, "seconds": seconds})
        self._emit(EpochEnded(epoch=self.epoch, step=self.step, metrics=metrics, lr=lr, seconds=seconds, best=best))
        if self._saver is not None:
            last = self.epoch == self.plan.epochs or self.best.exhausted
            if last:
                self._save(best=best)
            else:
                self._emit_all(self._saver.epoch_ended(self.epoch, best, self._snapshot))
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
            if control.take_checkpoint() and self._saver is not None:
                self._save()
            if control.take_validate() and self.parts.validation is not None:
                measured = self._validate()
                if measured is not None:
                    self._emit(Validated(epoch=self.epoch + 1, step=self.step, metrics=measured))
            if control.stopping:
                self._save()
                return False
            if not control.paused:
                break
            if not self.history.paused:
                self._emit(RunPaused(step=self.step))
            paused = time.perf_counter()
            control.wait_while_paused(1.0)
            self._leave_out(time.perf_counter() - paused)
            self._progress("paused", self.batch, self.parts.train.length)
        if self.history.paused:
            self._emit(RunContinued(step=self.step))
        return True

    def _leave_out(self, seconds: float) -> None:
        self.pace.leave_out(seconds)
        self._epoch_started += seconds

    def _not_finite(self, error: NonFiniteLoss) -> str:
        """Put the broken step on the record and save what is sound; the reason of the end."""
        if error.reached is not None:
            self._emit_points()
            return f"{error} at step {error.reached}; weights from there on are not saved"
        self._report()
        step, nan = self.step + 1, (error.value,)
        lr = (self.parts.optimizer.param_groups[0]["lr"],)
        self._emit(Trained(epoch=self.epoch + 1, first=step, step=step, every=1, loss=nan, low=(), high=(), lr=lr))
        self._save()
        return f"{error} at step {step}; that step was not taken, the weights are those of step {self.step}"

    def _end(self, ended: str, reason: str) -> Result:
        if self._saver is not None and ended == "failed":
            try:
                self._emit_all(self._saver.flush())
            except OSError as error:
                self._emit(Message(text=f"the best checkpoint could not be written: {error}", level="error"))
        self._emit(
            RunEnded(
                state=ended, reason=reason, epoch=self.epoch, step=self.step, seconds=self.pace.elapsed, best=self.best.row
            )
        )
        rows = [{"epoch": e.epoch, **e.metrics, "lr": e.lr, "seconds": e.seconds} for e in self.history.epochs]
        return Result(state=ended, reason=reason, best=self.best.row, history=rows, model=self.parts.model, run=self.run)

    # What it states

    def _report(self) -> None:
        """Read what the device summed up since the last time and state it."""
        read = self.meter.read()
        if read is None:
            return
        self.pace.took(read.steps, read.samples)
        self._emit_points()
        self._progress("train", self.batch, self.parts.train.length, read.loss)

    def _emit_points(self) -> None:
        points = self.meter.take_points(self.epoch + 1)
        if points is not None:
            self._emit(points)

    def _progress(self, phase: str, batch: int, batches: int | None, loss: float | None = None) -> None:
        self._next_report = time.perf_counter() + REPORT_SECONDS
        total = self.total_steps
        validations = self.plan.epochs - self.epoch if self.parts.validation is not None else 0
        self._emit(
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
                left=self.pace.left(None if total is None else total - self.step, validations),
            )
        )

    def _emit_all(self, events: Iterable[Event]) -> None:
        for event in events:
            self._emit(event)

    def _emit(self, event: Event) -> None:
        self.history.apply(event)
        for entry in list(self._listeners):
            kind, listener = entry
            if isinstance(event, kind):
                try:
                    listener(event)
                except Exception as error:  # a listener's bug ends the listener, not the training
                    self._listeners.remove(entry)
                    traceback.print_exc(file=sys.stderr)
                    self._emit(Message(text=f"a listener failed and is switched off: {error}", level="error"))

    # What it saves

    def _save(self, best: bool = False) -> None:
        if self._saver is not None:
            self._progress("save", self.batch, self.parts.train.length)
            self._emit_all(self._saver.write(self._snapshot(), best=best))
            self.pace.begin()

    def _snapshot(self) -> Snapshot:
        """Everything that a resume needs, copied to host memory."""
        self._report()
        parts = self.parts
        tensors: dict[str, Tensor] = {}
        packed = state.pack_optimizer(parts.optimizer, parts.model, tensors)
        return Snapshot(
            step=self.step,
            epoch=self.epoch,
            model=state.copied(parts.model.state_dict()),
            state={
                "step": self.step,
                "epoch": self.epoch,
                "batch": self.batch,
                "epoch_seconds": time.perf_counter() - self._epoch_started if self.batch else 0.0,
                "elapsed": self.pace.elapsed,
                "meter": self.meter.state_dict(),
                "best": self.best.state_dict(),
                "schedule": parts.schedule and state.pack(parts.schedule.state_dict(), tensors, "$schedule"),
                "optimizer": packed,
                "random": state.random_state(parts.device),
            },
            optimizer=state.copied(tensors),
        )

    def _restore_last(self) -> None:
        """Continue from the last whole checkpoint; what the journal says of later steps is cut off."""
        from engine.run import load_history

        assert self.run is not None
        if self.run.checkpoints.list():
            saved = self.run.checkpoints.read("last")
            self._restore(saved)
            self._warnings = saved.passed_over
        self.run.journal.truncate_after(self.step, self.epoch)
        self.history = load_history(self.run)

    def _restore(self, saved: Saved) -> None:
        parts, held, tensors = self.parts, saved.state, saved.tensors
        state.load_model(parts.model, tensors["model"])
        state.load_optimizer(parts.optimizer, parts.model, held["optimizer"], tensors["optimizer"])
        if parts.schedule is not None and held["schedule"]:
            parts.schedule.load_state_dict(state.unpack(held["schedule"], tensors["optimizer"]))
        self.meter.load_state_dict(held["meter"])
        self.best.load_state_dict(held["best"])
        self.step, self.epoch, self.batch = held["step"], held["epoch"], held["batch"]
        self._epoch_seconds = held["epoch_seconds"]
        self.pace = Pace(held["elapsed"])
        state.set_random_state(held["random"], parts.device)
