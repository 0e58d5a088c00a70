"""Files of a run that somebody else wrote: what is no event is named by its line, and what is read can be worked with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.events import (
    KINDS,
    CheckpointFailed,
    CheckpointWritten,
    EpochEnded,
    Event,
    Logged,
    Message,
    Progress,
    RanksMeasured,
    Rewound,
    RunContinued,
    RunEnded,
    RunPaused,
    RunStarted,
    Sampled,
    SettingChanged,
    Trained,
    Validated,
    to_dict,
)
from engine.run import Journal, Run, load_history
from engine.run.follow import Follower

SOUND: list[Event] = [
    RunStarted(
        name="n", path=None, device="cpu", device_name="CPU", precision="float32", execution="eager", epochs=3,
        steps_per_epoch=10, total_steps=30, parameters=5, step=0, epoch=0, monitor="val/loss", mode="min",
    ),
    Trained(epoch=1, first=1, step=4, every=2, loss=(1.0, 0.5), low=(0.9, 0.4), high=(1.1, 0.6), lr=(0.1, 0.1), norm=(1.0, 2)),
    Logged(
        epoch=1, step=4, steps={"x": (2, 4)}, values={"x": (1.0, 2.0)}, low={"x": (0.5, 2.0)}, high={"x": (1.5, 2.0)},
        best={"epoch": 0.0, "step": 2.0, "x": 1.0},
    ),
    Progress(
        phase="train", step=3, epoch=1, batch=3, batches=None, loss=1.0, lr=0.1, steps_per_second=2.0, samples_per_second=1.0,
        elapsed=1.0, left=None,
    ),
    Sampled(
        step=5, each=0.1, seconds={"data": 0.01, "step": 0.09}, whole=False, cost=0.001, layers=("0",), kinds=("Linear",),
        sizes=(6,), gradient=(1.0,), weight=(2.0,), ratio=(1e-3,), silent=(0.0,),
    ),
    Validated(epoch=1, step=4, metrics={"val/loss": 0.5}, best=True),
    EpochEnded(epoch=1, step=10, metrics={"train/loss": 1.0, "val/loss": 0.4}, lr=0.1, seconds=1.0, best=True, notes=("n",)),
    CheckpointWritten(step=10, epoch=1, path="p", best=False, seconds=0.1),
    CheckpointFailed(step=10, reason="no space"),
    SettingChanged(step=10, field="optimizer.lr", before=0.1, value=0.05),
    Rewound(step=12, to=10, reason="the loss is nan"),
    RanksMeasured(step=10, rates=(1.0, 2.0), waits=(0.1, 0.5), memories=(1, 2), hosts=("a", "b")),
    RunPaused(step=10),
    RunContinued(step=10),
    Message(text="m"),
    RunEnded(state="stopped", reason="r", epoch=1, step=10, seconds=1.0, best={"epoch": 1, "val/loss": 0.4}),
]  # fmt: skip

numbers = st.integers(-3, 20) | st.integers() | st.floats() | st.sampled_from([2**63, 10**400, 1e300, "NaN", "Infinity"])
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=4) | st.sampled_from(["\x1b[2J", "train", "lr", "val/loss"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["val/loss", "epoch", "x"]), inner, max_size=2),
    max_leaves=5,
)


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    """A line as it is written, with some of its values replaced, added or left out; or bytes."""
    line: dict[str, Any] = to_dict(draw(st.sampled_from(SOUND)))
    for key in draw(st.lists(st.sampled_from(sorted(line)), max_size=3)):
        line[key] = draw(values)
    for key in draw(st.lists(st.sampled_from(sorted(line)), max_size=1)):
        del line[key]
    if draw(st.booleans()):
        line = to_dict(draw(st.sampled_from(SOUND)))
    data = json.dumps(line).encode()
    kind = draw(st.integers(0, 9))
    return draw(st.binary(max_size=30)) if kind == 0 else data[: draw(st.integers(0, len(data)))] if kind == 1 else data


def test_every_event_has_a_sound_line(tmp_path: Path) -> None:
    assert {type(event) for event in SOUND} == set(KINDS.values())
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b"".join(json.dumps(to_dict(event)).encode() + b"\n" for event in SOUND))
    assert Journal.read(path) == (SOUND, [])


@settings(deadline=None, max_examples=60)
@given(st.lists(lines(), max_size=8), st.integers(0, 20), st.integers(0, 3))
def test_a_journal_with_anything_in_it_is_read_cut_and_followed(
    tmp_path_factory: pytest.TempPathFactory, content: list[bytes], step: int, epochs: int
) -> None:
    run = Run(tmp_path_factory.mktemp("run"))
    path = run.journal.path
    path.write_bytes(b"".join(line + b"\n" for line in content))
    events, problems = Journal.read(path)
    assert len(events) + len(problems) == path.read_bytes().count(b"\n")
    assert all(problem.startswith("journal.jsonl, line ") and problem.isprintable() for problem in problems)
    history = load_history(run)
    assert history.version == len(events) + len(problems)
    assert all(len(points) == 4 for series in history.series.values() for points in series)
    assert isinstance(history.state, str)
    follower = Follower(run)
    follower.poll()
    run.journal.truncate_after(step, epochs)
    left, _ = Journal.read(path)
    assert all(event.step <= step for event in left if isinstance(event, Trained))
    run.journal.append(SOUND[0])
    assert Journal.read(path)[0][-1] == SOUND[0]
    assert follower.poll() and follower.history.started is not None


statuses = st.dictionaries(
    st.sampled_from(
        ["state", "pid", "host", "heartbeat", "step", "epochs", "best", "started", "seconds", "reason", "progress"]
    ),
    values | st.sampled_from(["running", "died", {"event": "progress"}, to_dict(SOUND[3]), to_dict(SOUND[6])]),
    max_size=3,
)


@settings(deadline=None, max_examples=60)
@given(statuses | st.binary(max_size=40))
def test_a_status_with_anything_in_it_is_listed_and_followed(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any] | bytes
) -> None:
    run = Run(tmp_path_factory.mktemp("runs") / "run")
    run.path.mkdir()
    run.status.write("running", step=3)
    run.journal.append(SOUND[0])
    good = json.loads(run.status.path.read_text())
    run.status.path.write_bytes(content if isinstance(content, bytes) else json.dumps({**good, **content}).encode())
    (summary,) = Run.list(run.path.parent)
    assert summary.state in ("starting", "running", "paused", "finished", "stopped", "failed", "died", "unreadable")
    assert summary.reason.isprintable()
    follower = Follower(run)
    follower.poll()
    assert follower.history.started == SOUND[0]
    assert follower.alive == (summary.state in ("starting", "running", "paused"))
    assert bool(follower.history.messages) == (summary.state == "unreadable")
