"""Schedule: when a torch scheduler steps, and where it ends."""

from __future__ import annotations

from typing import Any

from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR, ReduceLROnPlateau


def usual_unit(scheduler: LRScheduler) -> str:
    """When torch's documentation steps a scheduler of this class: "step", "epoch" or "plateau"."""
    if isinstance(scheduler, ReduceLROnPlateau):
        return "plateau"
    return "step" if isinstance(scheduler, (OneCycleLR, CyclicLR)) else "epoch"


class Schedule:
    """A torch scheduler with its unit.

    `unit` is "step" (after each optimizer step), "epoch" (after each epoch's validation) or "plateau" (the same, with the
    monitored metric). `length` is the number of units after which the learning rate stays where it is: a schedule made for
    the planned length of a run neither starts again nor fails when the run is resumed for longer.
    """

    def __init__(self, scheduler: LRScheduler, unit: str | None = None, length: int | None = None) -> None:
        self.scheduler = scheduler
        self.unit = unit or usual_unit(scheduler)
        self.length = length
        if length is None and isinstance(scheduler, OneCycleLR):
            self.length = scheduler.total_steps - 1  # its own count includes the rate that the first step uses
        self.taken = 0
        self.factor = 1.0  # of a live change: what the scheduled learning rates are multiplied by
        self._scheduled: list[float] = []  # without the factor, where there is one

    def after_step(self) -> None:
        """To be called after each optimizer step; a schedule that counts epochs does nothing here."""
        if self.unit == "step":
            self.advance()

    def after_epoch(self, metric: float | None) -> None:
        """To be called after each epoch and its validation; a schedule that counts steps does nothing here.

        `metric` is the monitored one, None when this epoch had no validation: a plateau schedule then waits.
        """
        if self.unit != "step":
            self.advance(metric)

    def advance(self, metric: float | None = None) -> None:
        """One unit is over; `metric` is for a plateau schedule."""
        if self.unit == "plateau" and metric is None:
            return
        if self.length is None or self.taken < self.length:
            self._put(self._scheduled)
            if self.unit == "plateau":
                self.scheduler.step(metric)  # type: ignore[arg-type]  # ReduceLROnPlateau's own argument
            else:
                self.scheduler.step()
            self.taken += 1
            if self._scheduled:
                self._scheduled = self._rates()
                self._put([rate * self.factor for rate in self._scheduled])

    def scale(self, factor: float) -> None:
        """From here on all learning rates are those of the schedule times `factor`, on top of earlier factors."""
        self._scheduled = self._scheduled or self._rates()
        self.factor *= factor
        self._put([rate * self.factor for rate in self._scheduled])

    def _rates(self) -> list[float]:
        return [group["lr"] for group in self.scheduler.optimizer.param_groups]

    def _put(self, rates: list[float]) -> None:
        for group, rate in zip(self.scheduler.optimizer.param_groups, rates, strict=False):
            group["lr"] = rate

    def state_dict(self) -> dict[str, Any]:
        return {
            "scheduler": self.scheduler.state_dict(),
            "length": self.length,
            "taken": self.taken,
            "factor": self.factor,
            "scheduled": list(self._scheduled),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.scheduler.load_state_dict(state["scheduler"])
        self.length, self.taken = state["length"], state["taken"]
        self.factor, self._scheduled = state["factor"], list(state["scheduled"])
        # Steps were taken, by an earlier process; torch would warn of a schedule that moves before the first step.
        self.scheduler.optimizer._opt_called = True  # type: ignore[attr-defined]
