"""Events written by hand, for tests of what keeps and reads them."""

from __future__ import annotations

from engine.events import RunStarted


def started(step: int = 0, epoch: int = 0) -> RunStarted:
    """A run of three epochs of ten steps, that begins or goes on there."""
    return RunStarted(
        name="n", path=None, device="cpu", device_name="CPU", precision="float32", execution="eager", epochs=3,
        steps_per_epoch=10, total_steps=30, parameters=5, step=step, epoch=epoch, monitor="val/loss", mode="min",
    )  # fmt: skip
