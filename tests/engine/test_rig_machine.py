"""Any story of requests, changes, stops and kills ends where a run ends that was never cut off and got the same changes."""

from __future__ import annotations

import math
import shutil
import signal
import tempfile
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from engine import Run
from engine.events import RunEnded, SettingChanged
from engine.run import Journal
from tests.torture import life, record

PLAN = {"data.samples": 200, "training.epochs": 3, "training.accumulate": 1, "training.validate_every": 2}
EACH = 5
HALFWAY = {"optimizer.name": "SGD", "scheduler": {"name": "StepLR", "step_size": 1}, "training.validate_steps": EACH}
PLANS: list[dict[str, Any]] = [PLAN, {**PLAN, **HALFWAY}]
CHANGES = ["lr=x0.5", "lr=0.003", "weight_decay=0.1", "clip_norm=0.2", "clip_norm=none", "epochs=4", "validate_every=1"]


def live(plan: int, runs: Path, run: Path | None, acts: list[life.Act]) -> int | None:
    """One life's exit status."""
    log = runs / "log"
    process = life.begin(life.scripted, log, PLANS[plan], runs, run, acts)
    process.join(180)
    assert process.exitcode in (0, -signal.SIGKILL), log.read_text()
    return process.exitcode


def claimed(run: Run) -> list[SettingChanged]:
    """The changes that the journal tells of."""
    return [event for event in Journal.read(run.journal.path)[0] if isinstance(event, SettingChanged)]


@cache
def undisturbed(plan: int, acts: tuple[life.Act, ...]) -> tuple[Any, ...]:
    """Steps, validations and digests of a run in one life with these changes."""
    runs = Path(tempfile.mkdtemp(prefix="undisturbed-"))
    assert live(plan, runs, None, list(acts)) == 0
    found = summary(Run.open("last", runs), plan)
    shutil.rmtree(runs)
    return found


def summary(run: Run, plan: int) -> tuple[Any, ...]:
    validations = record.validations(run)
    epochs = [entry for entry in validations if entry[0] == "EpochEnded"]
    planned = PLANS[plan].get("training.validate_steps", math.inf)  # others were asked for
    halfway = [entry[2:4] for entry in validations if entry[0] == "Validated" and entry[2] % planned == 0]
    once = [entry for number, entry in enumerate(halfway) if entry not in halfway[:number]]  # and these by both
    return record.steps(run), epochs, once, record.digests(run.path / "checkpoints" / "last")


class Story(RuleBasedStateMachine):
    """Rules write the script of the life under way; it is lived when a rule ends it. After a run's end comes another run."""

    @initialize(plan=st.sampled_from(range(len(PLANS))))
    def begin(self, plan: int) -> None:
        self.plan = plan
        self.runs = Path(tempfile.mkdtemp(prefix="story-"))
        self.acts: list[life.Act] = []
        self.sure: Counter[int] = Counter()  # steps of the changes that were made
        self.possible: Counter[int] = Counter()  # and of those that the kill may have come before
        self.step = self.saved = 0

    @property
    def run(self) -> Run | None:
        found = [path for path in self.runs.glob("*-torture") if (path / "recipe.toml").exists()]
        return Run(found[0]) if found else None

    @rule(count=st.integers(1, 14))
    def steps(self, count: int) -> None:
        self.step += count

    @precondition(lambda self: self.step > self.saved)
    @rule(name=st.sampled_from(["checkpoint", "validate"]))
    def ask(self, name: str) -> None:
        self.acts.append((self.step, name, ""))

    @precondition(lambda self: self.step > self.saved)
    @rule(text=st.sampled_from(CHANGES))
    def change(self, text: str) -> None:
        self.acts.append((self.step, "change", text))

    @precondition(lambda self: self.step > self.saved)
    @rule()
    def stop(self) -> None:
        self.live("stop", "")

    @precondition(lambda self: self.step > self.saved)
    @rule(operations=st.sampled_from([0, 0, *range(1, 40)]))
    def kill(self, operations: int) -> None:
        self.live("kill", str(operations))

    def live(self, *end: str) -> None:
        before, acts = self.run, [*self.acts, *([(self.step, *end)] if end else [])]
        live(self.plan, self.runs, before and before.path, acts)
        run = self.run
        assert run is not None
        saved = run.checkpoints.read("last") if run.checkpoints.list() else None
        assert saved is None or not saved.passed_over
        step = 0 if saved is None else saved.step
        assert step >= self.saved
        last = [event for event in Journal.read(run.journal.path)[0] if isinstance(event, RunEnded)][-1:]
        ended = bool(last) and last[0].state == "finished"
        assert step == self.step if "stop" in end and not ended else True
        made = Counter(at for at, name, _ in self.acts if name == "change" and not (ended and at > step))
        self.possible += made
        self.sure += Counter({at: count for at, count in made.items() if at < self.step or "kill" not in end})
        self.saved = self.step = step
        self.acts = []
        if ended:
            self.compare(run, tidy="kill" not in end)
            self.begin(self.plan)

    def compare(self, run: Run, tidy: bool) -> None:
        changes = claimed(run)
        steps = Counter(event.step for event in changes)
        assert self.sure <= steps <= self.possible
        values = ["none" if event.value is None else repr(event.value) for event in changes]
        script = [(event.step, "change", f"{event.field}={value}") for event, value in zip(changes, values, strict=True)]
        assert summary(run, self.plan) == undisturbed(self.plan, tuple(script))
        assert record.litter(run) == [] or not tidy
        shutil.rmtree(self.runs)

    def teardown(self) -> None:
        if self.runs.exists() and (self.acts or self.step or self.run):
            self.live()
        shutil.rmtree(self.runs, ignore_errors=True)  # after an end there is one for the next run


Story.TestCase.settings = settings(
    max_examples=15,
    stateful_step_count=12,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.generate],  # a story takes a second: shrinking one would take minutes
)
test_e1_f9_any_story_ends_where_an_undisturbed_run_ends = Story.TestCase
