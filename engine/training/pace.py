"""Pace: rates and the time that is left, from what was measured in this process."""

from __future__ import annotations

import time
from collections.abc import Callable


class Pace:
    """Clocks of a run. `elapsed` leaves out pauses and includes the earlier processes of a resumed run."""

    def __init__(self, elapsed: float = 0.0, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._started = clock() - elapsed
        self._mark = clock()
        self.train_seconds = 0.0  # and steps, of training alone
        self.train_steps = 0
        self.waited_seconds = 0.0  # of these, waiting for samples
        self.validating_seconds = 0.0  # all whole passes
        self.steps_per_second: float | None = None
        self.samples_per_second: float | None = None
        self.validation_seconds: float | None = None  # the last whole pass
        self.waited: float | None = None  # share of the time that went to loading samples; None where none are loaded
        self._waited = 0.0

    @property
    def elapsed(self) -> float:
        return self._clock() - self._started

    def leave_out(self, seconds: float) -> None:
        """A pause of that length ended just now."""
        self._started += seconds
        self._mark = self._clock()

    def begin(self) -> None:
        """Training goes on from here: what passed since the last mark was something else."""
        self._mark = self._clock()
        self._waited = 0.0

    def waited_for(self, seconds: float) -> None:
        """Nothing was done for so long, because samples were being loaded."""
        self._waited += seconds
        self.waited = self.waited or 0.0

    def took(self, steps: int, samples: int) -> None:
        """So many steps were taken since the last mark."""
        now = self._clock()
        seconds, self._mark = now - self._mark, now
        if steps and seconds > 0:
            self.steps_per_second, self.samples_per_second = steps / seconds, samples / seconds
            self.train_seconds += seconds
            self.train_steps += steps
            self.waited_seconds += min(self._waited, seconds)
            if self.waited is not None:
                self.waited, self._waited = min(self._waited / seconds, 1.0), 0.0

    def validated_in(self, seconds: float) -> None:
        """A whole pass over the validation data took so long."""
        self.validation_seconds = seconds
        self.validating_seconds += seconds
        self.begin()

    @property
    def waited_in_all(self) -> float | None:
        """As `waited`, of all the training of this process."""
        return None if self.waited is None or not self.train_seconds else self.waited_seconds / self.train_seconds

    def left(self, steps: int | None, validations: int) -> float | None:
        """Seconds for so many more steps and validations, by the mean step so far; None before the first."""
        if steps is None or not self.train_steps:
            return None
        return steps * self.train_seconds / self.train_steps + validations * (self.validation_seconds or 0.0)
