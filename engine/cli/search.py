"""`search`: trials of a recipe chosen by Optuna, in this process or several, and the leaderboard of them."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

from engine.cli.leaderboard import Leaderboard, table
from engine.cli.output import Stream
from engine.cli.recipes import recipe_values
from engine.cli.signals import Signals
from engine.errors import EpochalError
from engine.events import Event
from engine.notify import Call, Notifier
from engine.run.children import child_environment, command
from engine.run.root import as_given, runs_root
from engine.search import optunas
from engine.search.board import Board, Watch
from engine.search.folder import Folder
from engine.search.team import Team, devices

LOOK_SECONDS = 0.25
BEGIN_SECONDS = 60.0
# What torchrun tells a rank: a trial is one process, and must not take itself for one of several.
RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK", "ROLE_WORLD_SIZE", "MASTER_ADDR")


def search(arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    """Search, join, show or stop. Returns 0 when it is done, 1 when no trial came to its end, 130 and 143 stopped by a
    signal."""
    optunas.load()
    rank = _as_worker()
    folder = _folder(arguments)
    if arguments.show:
        return _told(Watch(folder).read(at_once=True), arguments, out)
    if arguments.stop:
        out.line(f"{folder.stop()} asked to stop after the step under way, with a checkpoint")
        return 0
    if arguments.background:
        return _in_background(folder, arguments, out, err)
    arguments.quiet = arguments.quiet or bool(rank)  # one of many speaks
    workers = 1 if rank is not None else (arguments.workers or 1) if arguments.join else folder.plan.workers
    work = _lead(folder, workers, arguments, out, err) if workers > 1 else _work(folder, arguments, out, err, rank == 0)
    if rank or (arguments.join and arguments.quiet):
        return work
    board = Watch(folder).read(at_once=True)
    if board.state != "searching":
        _notify(board, err)
    told = _told(board, arguments, out)
    return work or told


def _folder(arguments: argparse.Namespace) -> Folder:
    """The search that is meant; one of a recipe is made where there is none."""
    what = arguments.what
    short = {key: getattr(arguments, key) for key in ("trials", "minutes", "workers", "sampler", "pruner")}
    if arguments.join:
        del short["workers"]
    arguments.settings += [f"search.{key}={value}" for key, value in short.items() if value is not None]
    looks = arguments.show or arguments.join or arguments.stop
    if what is None and looks:
        there = Folder.all(arguments.runs)
        if not there:
            raise EpochalError(f"there is no search in {runs_root(arguments.runs)}")
        what = str(there[0].path)
    if what is not None and not Path(what).is_file() and not what.endswith(".toml"):
        folder = Folder.open(what, arguments.runs)
        others = [key for key in ("model", "data", "epochs", "device", "name", "tensorboard") if getattr(arguments, key)]
        if others:
            raise EpochalError(f"--{others[0]} changes the recipe: a search that is there keeps its own")
        if not arguments.settings or looks:
            return folder
        from engine.recipe_text import apply_settings

        return Folder.create(apply_settings(folder.values, arguments.settings), folder.root)
    arguments.recipe = what
    values = recipe_values(arguments)
    return Folder.open(str(values.get("name", "")), arguments.runs) if looks else Folder.create(values, arguments.runs)


def _work(folder: Folder, arguments: argparse.Namespace, out: Stream, err: Stream, last: bool) -> int:
    """Train trials in this process; as the `last`, wait for the others."""
    from engine.search.searching import Search

    with ExitStack() as stack:
        signals = stack.enter_context(Signals())
        made = Search(folder)
        shown = Leaderboard(Watch(folder, made.study), out, err, quiet=arguments.quiet or arguments.json)
        stack.callback(out.live.clear)
        made.on(Event, shown.hear)
        signals.watch(made.control)
        made.fit()
        while last and not signals.status and folder.at_work():
            shown.refresh()
            time.sleep(LOOK_SECONDS)
        return signals.status


def _lead(folder: Folder, workers: int, arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    """Have several processes train, and show what they do."""
    with ExitStack() as stack:
        signals = stack.enter_context(Signals())
        team = Team(folder, workers)
        signals.watch(team)
        shown = Leaderboard(Watch(folder), out, err, quiet=arguments.quiet or arguments.json)
        stack.callback(out.live.clear)
        while team.working:
            shown.refresh()
            time.sleep(LOOK_SECONDS)
        shown.refresh(at_once=True)
        out.live.clear()
        failures = team.failures()
        for said in failures:
            err.line(f"epochal: {said}; the others go on with its trial, or the next start does")
        return signals.status or (2 if len(failures) == workers else 0)


def _in_background(folder: Folder, arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    """The same in a process and a session of its own."""
    before = {*folder.at_work()}
    with folder.log_path.open("ab") as log:
        child = subprocess.Popen(
            command("search", str(folder.path)),
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=child_environment(),
        )  # fmt: skip
    until = time.monotonic() + BEGIN_SECONDS
    while child.poll() is None and not {*folder.at_work()} - before and time.monotonic() < until:
        time.sleep(LOOK_SECONDS / 4)
    if child.poll() not in (None, 0):
        last = folder.log_path.read_text("utf-8", "replace").strip().splitlines()[-1:] or ["it printed nothing"]
        raise EpochalError(f"the search could not begin: {last[0].removeprefix('epochal: ')}")
    path = as_given(folder.path, arguments.runs)
    if arguments.json:
        out.line(json.dumps({"search": path, "pid": child.pid}))
        return 0
    name = _named(folder.name, arguments)
    for label, text in (
        ("search", path),
        ("process", f"{child.pid}, in the background"),
        ("look", f"{arguments.prog} search {name} --show"),
        ("stop", f"{arguments.prog} search {name} --stop"),
    ):
        out.line(f"{label:<8}  {text}")
    return 0


def _named(name: str, arguments: argparse.Namespace) -> str:
    """What a command calls it."""
    return shlex.quote(name) + ("" if arguments.runs is None else f" --runs {shlex.quote(arguments.runs)}")


def _told(board: Board, arguments: argparse.Namespace, out: Stream) -> int:
    """The leaderboard, and what can be done with it."""
    if arguments.json:
        out.line(json.dumps(board.as_dict(), ensure_ascii=False))
        return int(board.best is None)
    out.lines(table(board, rows=20))
    name, path = _named(board.name, arguments), as_given(board.path, arguments.runs)
    facts = [("search", f"{path}: {board.summary}")]
    if board.best is not None:
        best = f"{path}/best.toml"
        facts += [("best", f"trial {board.best.number}: {best}"), ("train it", f"{arguments.prog} train {shlex.quote(best)}")]
    if board.state == "stopped":
        facts.append(("go on", f"{arguments.prog} search {name}"))
    elif board.state == "finished" and board.limit is not None and board.sampler not in ("grid", "bruteforce"):
        facts.append(("more", f"{arguments.prog} search {name} --trials {2 * board.limit}"))
    for label, text in facts:
        out.line(f"{label:<8}  {text}")
    return int(board.best is None)


def _notify(board: Board, err: Stream) -> None:
    with Notifier.of_user(lambda sentence: err.line(f"epochal: {sentence}")) as notifier:
        notifier.call(Call("end" if board.best else "failure", board.name, board.outcome))


def _as_worker() -> int | None:
    """This process's number among those of torchrun, each of which is a worker; None where it is not torchrun's."""
    rank, local = os.environ.get("RANK"), os.environ.get("LOCAL_RANK", "0")
    if rank is None or os.environ.get("WORLD_SIZE") is None:
        return None
    for key in [key for key in os.environ if key in (*RANKS, "MASTER_PORT") or key.startswith("TORCHELASTIC_")]:
        del os.environ[key]
    if len(cuda := devices()) > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = cuda[int(local) % len(cuda)]
    return int(rank)
