"""`show` and `view`: one run, or a folder of them, as far as the disk tells; and nothing is changed."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from engine.cli import format
from engine.cli.output import Stream
from engine.cli.rows import best_place, metric_values
from engine.cli.show import print_json, runs
from engine.distributed.standing import rate as ranks_rate
from engine.distributed.standing import straggler
from engine.events import RanksMeasured, Sampled, to_dict
from engine.health import words
from engine.history import History
from engine.phases import a_step, in_short, phases
from engine.verdict import verdict


def show(arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    """Print where a run is, what its history says of it, and the newest of its samples."""
    from engine.run import Run, runs_root
    from engine.run.follow import following

    run = Run.open(arguments.run, runs_root(arguments.runs))
    follower = following(run)
    follower.poll()
    history = follower.history
    found = verdict(history)
    if arguments.json:
        values: dict[str, Any] = {"run": run.name, "path": str(run.path), "state": history.state}
        values |= {"epoch": len(history.epochs), "best": dict(history.best.metrics) if history.best else {}}
        values["verdict"] = None if found is None else dataclasses.asdict(found)
        values["ranks"] = to_dict(history.ranks) if history.ranks else None
        values["sampled"] = to_dict(history.samples[-1]) if history.samples else None
        print_json(out, values)
        return 0
    ended = f"{history.state}: {history.ended.reason}" if history.ended else history.state
    rows = [("run", str(run.path)), ("state", ended), *_facts(history), *([("verdict", found.text)] if found else [])]
    out.lines(format.table(rows))
    if history.ranks is not None:
        _print_ranks(history.ranks, out)
    if history.samples:
        _print_phases(history, out)
        _print_layers(history.samples[-1], out)
    return 0


def view(arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    """List what is in a folder; show the one run that a file is."""
    from engine.run.choose import runs_in

    at = Path(arguments.where)
    found = runs_in(at)
    if at.is_file():
        return show(argparse.Namespace(run=str(found[0]), runs=None, json=False), out, err)
    return runs(argparse.Namespace(runs=str(at), filter="", tag=None, sort=None, reverse=False, json=False), out, err)


def _facts(history: History) -> list[tuple[str, str]]:
    started, ended = history.started, history.ended
    if started is None:
        return []
    now = ended or history.progress or started
    total = f" of {started.total_steps:,}" if started.total_steps else ""
    of = f" of {started.epochs:,}" if started.epochs else ""
    epoch = f"epoch {now.epoch:,}{of}, " if of or now.epoch else ""
    facts = [("at", f"{epoch}step {now.step:,}{total}")]
    device = f"{started.device} ({started.device_name})" if started.device_name else started.device
    several = f"{started.processes} processes ({started.strategy})" if started.processes > 1 else ""
    if on := ", ".join(filter(None, [device, started.precision, started.execution, several])):
        facts.append(("on", on))
    if history.best is not None:
        best = history.best
        facts.append(("best", f"{best_place({'epoch': best.epoch, 'step': best.step})}: {metric_values(best.metrics)}"))
    return facts


def _print_phases(history: History, out: Stream) -> None:
    out.line("")
    rows = [("phase", "time", "share", "what it is")]
    rows += [(phase.name, in_short(phase.seconds), f"{phase.share:.0%}", phase.words) for phase in phases(history.samples)]
    out.lines(format.table([*rows, ("a step", in_short(a_step(history.samples)), "", "validation left out")], "time,share"))


def _print_layers(sample: Sampled, out: Stream) -> None:
    if not sample.layers:
        return
    out.line("")
    rows: list[tuple[str, ...]] = [("layer", "kind", "parameters", "gradient", "update/weights", f"at step {sample.step:,}")]
    for i, name in enumerate(sample.layers):
        measured = [format.lr(column[i]) for column in (sample.gradient, sample.ratio)]
        rows.append((name, sample.kinds[i], f"{sample.sizes[i]:,}", *measured, words(sample, i)))
    out.lines(format.table(rows, "parameters,gradient,update/weights"))


def _print_ranks(measured: RanksMeasured, out: Stream) -> None:
    out.line("")
    slowest = straggler(measured)
    rows: list[tuple[str, ...]] = [("rank", "host", "steps/s alone", "waits", "memory", f"at step {measured.step:,}")]
    for rank, wait in enumerate(measured.waits):
        said = "the others wait for it" if rank == slowest else ""
        memory = f"{measured.memories[rank] / 2**30:.2f} GiB"
        rows.append((str(rank), measured.hosts[rank], ranks_rate(measured, rank), f"{wait:.0%}", memory, said))
    out.lines(format.table(rows, "rank,steps/s alone,waits,memory"))
