"""Control: what other threads ask reaches the trainer once, and wakes it where it waits."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from engine.control import Control


def test_nothing_is_asked_at_first() -> None:
    control = Control()
    assert not control.pending and not control.paused and control.stopping is None
    assert not control.take_checkpoint() and not control.take_validate()


def test_pause_lasts_until_resume() -> None:
    control = Control()
    control.pause()
    control.pause()
    assert control.pending and control.paused
    assert control.wait_while_paused(0) and control.pending
    control.resume()
    assert not control.pending and not control.paused and not control.wait_while_paused(0)


def test_a_stop_stays() -> None:
    control = Control()
    control.stop()
    assert control.stopping == "stopped by the user"
    control.stop("patience is over")
    assert control.pending and control.stopping == "patience is over"
    control.pause()
    control.resume()
    assert control.pending and control.stopping == "patience is over"


@pytest.mark.parametrize("name", ["checkpoint", "validate"])
def test_a_request_is_taken_once(name: str) -> None:
    control = Control()
    ask, take = getattr(control, name), getattr(control, f"take_{name}")
    ask()
    ask()
    assert control.pending
    assert take() and not take()
    assert not control.pending
    ask()
    assert take()


def test_requests_do_not_take_each_other() -> None:
    control = Control()
    control.checkpoint()
    control.validate()
    control.pause()
    assert control.take_checkpoint() and control.pending
    assert control.take_validate() and control.pending
    control.resume()
    assert not control.pending


def test_waiting_without_a_pause_returns_at_once() -> None:
    assert not Control().wait_while_paused(3600)


@pytest.mark.parametrize(
    ("ask", "still"),
    [
        (Control.resume, False),
        (Control.stop, False),
        (Control.checkpoint, True),
        (Control.validate, True),
    ],
)
def test_a_request_wakes_a_trainer_that_is_paused(ask: Callable[[Control], None], still: bool) -> None:
    control = Control()
    control.pause()
    results: list[bool] = []
    trainer = threading.Thread(target=lambda: results.append(control.wait_while_paused(3600)), daemon=True)
    trainer.start()
    ask(control)
    trainer.join(60)
    assert results == [still]


def test_no_request_is_lost_between_threads() -> None:
    control = Control()
    asked, taken = 50, 0
    free = threading.Semaphore(0)

    def ask() -> None:
        for _ in range(asked):
            control.checkpoint()
            free.acquire()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    while taken < asked:
        if control.pending and control.take_checkpoint():
            taken += 1
            free.release()
    thread.join(60)
    assert not thread.is_alive() and not control.pending
