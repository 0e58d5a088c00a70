"""Kill, look, resume, again and again; at the end of each run, compare it with one that was left alone."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from engine import CheckpointError, Run, RunEnded
from engine.run import Journal
from tests.torture import disk, life, record
from tests.torture.life import Board

PLANS: dict[str, dict[str, Any]] = {
    "average, accumulation": {},
    "validation on the way": {"training.validate_steps": 7, "training.clip_norm": 0.5, "optimizer.name": "SGD"},
    "plateau": {"scheduler": {"name": "ReduceLROnPlateau", "patience": 0}, "training.ema": None, "training.accumulate": 1},
}
AIMS = ("resuming", "stepping", "validating", "saving", "any", "any")
HOWS = ("kill", "kill", "kill", "term", "term", "term, term", "term, kill")


@dataclass
class Tally:
    """What was done and what was found."""

    cycles: int = 0  # lives that were killed
    resumes: int = 0
    fresh: int = 0  # runs that were killed before there was anything to resume
    ended: int = 0  # runs that were brought to their end and compared
    damaged: int = 0  # checkpoints that could not be read
    kills: Counter[str] = field(default_factory=Counter)  # by what was under way
    ways: Counter[str] = field(default_factory=Counter)
    operations: Counter[str] = field(default_factory=Counter)  # of files, by those that were under way at a SIGKILL
    mismatches: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        def told(counts: Counter[str]) -> str:
            return ", ".join(f"{name} {count}" for name, count in counts.most_common())

        lines = [
            f"cycles       {self.cycles}: {told(self.ways)}",
            f"killed while {told(self.kills)}",
            f"in the midst {told(self.operations)}",
            f"resumes      {self.resumes}, begun afresh {self.fresh}, runs ended and compared {self.ended}",
            f"damaged      {self.damaged} checkpoints",
            f"mismatches   {len(self.mismatches)}",
        ]
        return "\n".join([*lines, *(f"  {mismatch}" for mismatch in self.mismatches)])


class Reference:
    """A training that nobody disturbed."""

    def __init__(self, where: Path, plan: dict[str, Any]) -> None:
        where.mkdir(parents=True)
        self.recipe = where / "recipe.toml"
        life.recipe(**plan).save(self.recipe)
        arguments = ["train", str(self.recipe), "--runs", str(where), "--quiet"]
        process = life.begin(life.command, where / "log", life.new_board(), arguments)
        process.join(180)
        assert process.exitcode == 0, (where / "log").read_text()
        run = Run.open("last", where)
        self.steps, self.validations = record.steps(run), record.validations(run)
        self.last, self.best = (record.digests(run.path / "checkpoints" / name) for name in ("last", "best"))


class Torture:
    """Runs of all plans in turn, each killed until it ends."""

    def __init__(self, where: Path, seed: int) -> None:
        self.where = where
        self.random = random.Random(seed)
        self.tally = Tally()
        self.references = {name: Reference(where / name, plan) for name, plan in PLANS.items()}
        self._number = 0

    def go(self, cycles: int) -> Tally:
        """That many cycles, and the runs under way brought to their end."""
        while self.tally.cycles < cycles:
            for name in PLANS:
                self._number += 1
                Case(self, f"run {self._number} ({name})", self.references[name], cycles).go()
        return self.tally


class Case:
    """One run, from its first life to its end."""

    def __init__(self, torture: Torture, name: str, reference: Reference, cycles: int) -> None:
        self.tally, self.random = torture.tally, torture.random
        self.where = torture.where / name
        self.where.mkdir()
        self.name, self.reference, self.cycles = name, reference, cycles
        self.saved = 0  # the step of the last checkpoint: it never falls

    @property
    def run(self) -> Run | None:
        """What can be resumed."""
        found = [path for path in self.where.glob("*-torture*") if (path / "recipe.toml").exists()]
        return Run(max(found)) if found else None

    def go(self) -> None:
        ended = False
        while not ended:
            before = self.run
            command = (
                ["resume", str(before.path)] if before else ["train", str(self.reference.recipe), "--runs", str(self.where)]
            )
            self.tally.resumes += before is not None
            self.tally.fresh += before is None and any(self.where.glob("*-torture*"))
            board = life.new_board(every=self.random.choice((0, 7, 13, 29)))
            log = self.where / "log"
            log.unlink(missing_ok=True)
            begun = time.time()
            process = life.begin(life.command, log, board, [*command, "--quiet"])
            how, doing = "", ""
            if self.tally.cycles < self.cycles:
                how, doing = self._kill(process, board)
            process.join(180)
            if process.exitcode is None:
                self._wrong(f"did not end within three minutes after {how or 'its start'} while {doing}")
                process.kill()
                return
            ended = process.exitcode == 0
            allowed = {
                "": [0],
                "kill": [0, -9],
                "term": [0, -15, 143],
                "term, term": [0, -15, 143],
                "term, kill": [0, -9, -15, 143],
            }
            if process.exitcode not in allowed[how]:
                self._wrong(f"exit status {process.exitcode} after {how} while {doing}: {log.read_text()[-2000:]}")
                return
            if not ended:
                self.tally.cycles += 1
                self.tally.ways[how] += 1
                self.tally.kills[doing] += 1
            status = process.exitcode
            self._look(begun, status)
        self._compare(status)

    def _kill(self, process: ForkServerProcess, board: Board) -> tuple[str, str]:
        """Wait for the moment and kill: by what, and what was under way. Nothing of both where the life ended before."""
        aim, how = self.random.choice(AIMS), self.random.choice(HOWS)
        if wait([process.sentinel], self.random.uniform(0.005, 0.3)):
            return "", ""
        deadline = time.monotonic() + 10.0
        while aim != "any" and board.doing != aim and process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.0002)
        time.sleep(self.random.choice((0, self.random.uniform(0, 0.005))))
        doing = board.doing
        if how != "kill":
            process.terminate()
            if how != "term":
                time.sleep(self.random.uniform(0, 0.02))
        if how == "term, term":
            process.terminate()
        elif how != "term":
            process.kill()
            process.join()
            if process.exitcode == -signal.SIGKILL:
                doing = board.doing
                self.tally.operations[("none", *disk.OPERATIONS)[board.operation]] += 1
        return how, doing

    def _look(self, begun: float, status: int) -> None:
        """What the life that was begun then left is whole, and a beginning of the undisturbed training."""
        run = self.run
        if run is None:
            return
        steps, validations = record.steps(run), record.validations(run)
        if steps != self.reference.steps[: len(steps)] or validations != self.reference.validations[: len(validations)]:
            self._wrong("the journal is no beginning of the undisturbed one")
        saved = 0
        if run.checkpoints.list():
            try:
                last = run.checkpoints.read("last")
            except CheckpointError as error:
                self.tally.damaged += 1
                self._wrong(str(error))
                return
            self.tally.damaged += len(last.passed_over)
            for sentence in last.passed_over:
                self._wrong(sentence)
            saved = last.step
        if saved < self.saved:
            self._wrong(f"the checkpoint of step {self.saved} is lost, the last one is of step {saved}")
        if saved > len(steps):
            self._wrong(f"there is a checkpoint of step {saved}, but the journal ends at step {len(steps)}")
        self.saved = saved
        for event in Journal.read(run.journal.path)[0]:
            if isinstance(event, RunEnded) and event.time >= begun:
                if event.state == "failed" or event.step != saved:
                    self._wrong(f"{event.state} at step {event.step}, saved at step {saved}")
                if status >= 0 and record.litter(run):
                    self._wrong(f"{event.state}, and left {record.litter(run)}")

    def _compare(self, status: int) -> None:
        run, same = self.run, self.reference
        assert run is not None
        self.tally.ended += 1
        if record.steps(run) != same.steps:
            self._wrong("the journal's steps are not those of the undisturbed run")
        if record.validations(run) != same.validations:
            self._wrong("the journal's validations are not those of the undisturbed run")
        for name, digests in (("last", same.last), ("best", same.best)):
            found = record.digests(run.path / "checkpoints" / name)
            differ = [key for key in digests if digests[key] != found.get(key)]
            if differ:
                self._wrong(f"{name}: {', '.join(differ)} differ from those of the undisturbed run")
        if status >= 0 and record.litter(run):  # of one killed after its last line an unfinished status stays
            self._wrong(f"litter: {record.litter(run)}")

    def _wrong(self, sentence: str) -> None:
        self.tally.mismatches.append(f"{self.name}: {sentence}")
