"""`python -m tests.benchmarks.console`: what the console costs, as a Markdown table. Needs Linux.

Everything is measured on the real program in a pseudo-terminal of 120x40 that answers as xterm does. What it costs the training
is a ratio: a console and a headless trainer of the same recipe take turns (one is stopped while the other works), so that what
else the machine does befalls both; the table shows the median of the ratios of neighbours.
"""

from __future__ import annotations

import argparse
import atexit
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.pty import Terminal, descendants, kill
from tests.benchmarks.race import ROOT, machine

EMPTY = """
import os
os.environ["TEXTUAL_FPS"], os.environ["TEXTUAL_ANIMATIONS"] = "15", "none"
from textual.app import App
from textual.widgets import Static
class Empty(App):
    def compose(self):
        yield Static("an empty app")
Empty().run(mouse=False)
"""
RECIPE = """
name = "flat-out"
[training]
epochs = 1000000
threads = 1
execution = "eager"
"""
CONSOLE = [sys.executable, "-m", "tui"]
HEADLESS = [sys.executable, "-m", "engine", "train"]
FORM = ("new run", "batch_size", "quit")  # title, a field, the line of keys
HELP = "Keys"  # the title of the help
KEYS = [("+", "0.8 ·"), ("-", "0.6 ·"), ("x", "by epoch"), ("x", "by t"), ("x", "by step"), ("\x1b[D", "cursor step"),
        ("z", " to "), ("f", "whole run")]  # fmt: skip
DIALOG = [("?", HELP), ("?", "1 Chart")]  # of which the second is of the screen under it, whatever its chart shows
WARM = 4.0  # seconds of training before anything is counted
LONG = 30.0  # over which the slow link is measured
SETTLE = 0.5  # and of a turn


def environment(where: Path) -> dict[str, str]:
    (where / "settings.toml").write_text("[guide]\nwelcome = false\ntour = false\n")  # that only greet a newcomer
    return {
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "",  # a start that compiles all of it anew is no start that a person sees
        "OMP_NUM_THREADS": "1",
        "EPOCHAL_CONFIG": str(where),
        "CUDA_VISIBLE_DEVICES": "",
    }


class Start:
    """First frames, one of each kind after the other, and the keys pressed while torch loads."""

    def __init__(self, where: Path, rounds: int) -> None:
        (where / "empty.py").write_text(EMPTY)
        self.empty: list[float] = []
        self.console: list[float] = []
        self.empty_worked: list[float] = []  # processor time, which what else the machine does hardly touches
        self.console_worked: list[float] = []
        self.ready: list[float] = []
        self.keys: list[float] = []
        self.torch = 0  # first frames at which libtorch was there
        for _ in range(rounds):
            terminal = Terminal([sys.executable, "empty.py"], where, **environment(where))
            self.empty.append(terminal.wait("an empty app") - terminal.began)
            self.empty_worked.append(cpu(terminal.process))
            terminal.close()
            terminal = Terminal(CONSOLE, where, **environment(where))
            frame = terminal.wait(*FORM)
            self.console.append(frame - terminal.began)
            self.console_worked.append(sum(map(cpu, (terminal.process, *descendants(terminal.process)))))
            self.torch += any("libtorch" in maps(child) for child in descendants(terminal.process))
            self.keys += list(self._while_it_loads(terminal, frame))
            self.ready.append(terminal.wait("● ready") - terminal.began)
            terminal.close()

    @staticmethod
    def _while_it_loads(terminal: Terminal, frame: float) -> Iterator[float]:
        """Help, opened and closed until torch is there."""
        time.sleep(max(0.0, frame + 0.5 - time.perf_counter()))
        while not terminal.shows("● ready"):
            place = terminal.now
            pressed = terminal.press("?")
            yield terminal.wait(HELP, place=place) - pressed
            terminal.press("?")
            time.sleep(0.2)


class Trainer:
    """A training under way, headless or in a console, stopped between its turns."""

    def __init__(self, where: Path, terminal: Terminal | None, process: int) -> None:
        self.terminal = terminal
        self.process = process
        (run,) = (where / "runs").iterdir()
        self._journal = run / "journal.jsonl"

    def turn(self, seconds: float) -> tuple[float, float, float]:
        """Steps a second, steps a second of processor time, and the share of time that the main thread computed."""
        kill(self.process, signal.SIGCONT)
        time.sleep(SETTLE)
        read = self._journal.stat().st_size
        began, used, main = time.perf_counter(), cpu(self.process), cpu(self.process, self.process)
        time.sleep(seconds)
        took, used, main = time.perf_counter() - began, cpu(self.process) - used, cpu(self.process, self.process) - main
        kill(self.process, signal.SIGSTOP)
        with self._journal.open() as journal:
            journal.seek(read)
            lines = [line for line in journal if line.startswith('{"event": "epoch_ended"') and line.endswith("\n")]
        first, last = json.loads(lines[0]), json.loads(lines[-1])
        rate = (last["step"] - first["step"]) / (last["time"] - first["time"])
        return rate, rate * took / used, main / took

    def close(self) -> None:
        if self.terminal is not None:
            self.terminal.close()
        kill(self.process, signal.SIGCONT)
        kill(self.process, signal.SIGKILL)


def cpu(process: int, thread: int | None = None) -> float:
    """Seconds that a process or one of its threads has computed."""
    where = Path(f"/proc/{process}/task")
    threads = [thread] if thread else [int(entry.name) for entry in where.iterdir()]
    return sum(int((where / str(number) / "schedstat").read_text().split()[0]) for number in threads) / 1e9


def maps(process: int) -> str:
    return Path(f"/proc/{process}/maps").read_text()


def in_console(where: Path, **more: str) -> Trainer:
    """A console in which the recipe trains."""
    where.mkdir()
    (where / "recipe.toml").write_text(RECIPE)
    terminal = Terminal([*CONSOLE, "recipe.toml"], where, **environment(where), **more)
    terminal.wait("● ready")
    terminal.press("r")
    terminal.wait("● running", "best val loss")
    time.sleep(WARM)
    child, *_ = descendants(terminal.process)
    return Trainer(where, terminal, child)


def headless(where: Path) -> Trainer:
    """The same recipe without a console."""
    where.mkdir()
    (where / "recipe.toml").write_text(RECIPE)
    process = subprocess.Popen(
        [*HEADLESS, "recipe.toml"],
        cwd=where,
        env={**os.environ, **environment(where)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not list((where / "runs").glob("*/journal.jsonl")):
        time.sleep(0.1)
    time.sleep(WARM)
    return Trainer(where, None, process.pid)


def turns(
    shown: Trainer, bare: Trainer, rounds: int, seconds: float
) -> tuple[list[float], list[float], list[float], list[float]]:
    """Loss of the step rate by the clock and by processor time, the main thread's share of time, bytes a second."""
    clock, work, shares, sent = [], [], [], []
    for number in range(rounds):
        results = {}
        for trainer in (shown, bare) if number % 2 else (bare, shown):
            place = trainer.terminal.now if trainer.terminal else 0
            results[trainer] = trainer.turn(seconds)
            if trainer.terminal:
                sent.append(trainer.terminal.bytes_since(place) / (seconds + SETTLE))
        (rate, worked, share), (rate_bare, worked_bare, _) = results[shown], results[bare]
        clock.append(1 - rate / rate_bare)
        work.append(1 - worked / worked_bare)
        shares.append(share)
        print(f"{rate:,.0f} of {rate_bare:,.0f} steps/s, main thread {share:.1%}, {sent[-1] / 1000:.1f} KB/s", file=sys.stderr)
    return clock, work, shares, sent


def attached(where: Path, rounds: int, seconds: float) -> list[float]:
    """Loss of the step rate of a run in the background while a console is attached, beside itself while that is stopped."""
    bare = headless(where)
    terminal = Terminal([*CONSOLE, "attach"], where, **environment(where))
    terminal.wait("attached to process")
    child, *_ = descendants(terminal.process)
    losses = []
    for number in range(rounds):
        rates = {}
        for there in (False, True) if number % 2 else (True, False):
            kill(child, signal.SIGCONT if there else signal.SIGSTOP)
            rates[there] = bare.turn(seconds)[0]
        losses.append(1 - rates[True] / rates[False])
        print(f"attached {rates[True]:,.0f} of {rates[False]:,.0f} steps/s", file=sys.stderr)
    terminal.close()
    bare.close()
    return losses


def latencies(trainer: Trainer, keys: list[tuple[str, str]], presses: int) -> list[float]:
    """Seconds from a key to the frame that shows what it did, while the training goes on flat out."""
    assert trainer.terminal is not None
    kill(trainer.process, signal.SIGCONT)
    time.sleep(1.0)
    found = []
    for number in range(presses):
        key, effect = keys[number % len(keys)]
        time.sleep(0.13 + 0.37 * (number * 0.618 % 1))  # at any moment of the screen's own rhythm
        place = trainer.terminal.now
        pressed = trainer.terminal.press(key)
        found.append(trainer.terminal.wait(effect, place=place) - pressed)
    return found


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def both(values: list[float]) -> str:
    return f"{1000 * statistics.median(values):.0f}, {1000 * quantile(values, 0.95):.0f} ms"


def table(parts: list[str], rounds: int, seconds: float, presses: int) -> str:
    middle = statistics.median
    lines = ["| what | measured | target |", "| --- | ---: | ---: |"]

    def line(what: str, measured: str, target: str = "") -> None:
        lines.append(f"| {what} | {measured} | {target} |")
        print(lines[-1], file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as name:
        where = Path(name)
        if "start" in parts:
            start = Start(where, max(5, rounds // 2))
            line(
                "first frame of the console",
                f"{middle(start.console):.2f} s, {middle(start.console_worked):.2f} s of processor",
                "0.35 s",
            )
            line(
                "of an empty Textual app beside it",
                f"{middle(start.empty):.2f} s, {middle(start.empty_worked):.2f} s of processor",
            )
            line("torch imported before that frame", "never" if not start.torch else f"{start.torch} times", "never")
            line("torch loaded", f"{middle(start.ready):.1f} s")
            line("a key meanwhile, median and 95 of 100", both(start.keys))
        if "training" in parts:
            bare = headless(where / "headless")
            kill(bare.process, signal.SIGSTOP)
        if "training" in parts:
            shown = in_console(where / "console")
            clock, work, shares, sent = turns(shown, bare, rounds, seconds)
            line("steps a second lost to the console, by the clock", f"{middle(clock):.1%}", "5 %")
            line("the same by processor time", f"{middle(work):.1%}", "5 %")
            line("share of time that the screen's thread computes", f"{middle(shares):.1%}")
            line("bytes a second to the terminal", f"{middle(sent) / 1000:.1f} KB/s", "30 KB/s")
            line("a key while it trains, median and 95 of 100", both(latencies(shown, KEYS, presses)), "50 ms")
            line("help opened while it trains", both(latencies(shown, DIALOG, presses // 3)))
            shown.close()
            bare.close()
        if "slow" in parts:
            shown = in_console(where / "slow", SSH_CONNECTION="192.0.2.1 50000 192.0.2.2 22")
            assert shown.terminal is not None
            place = shown.terminal.now
            time.sleep(LONG)
            sent = [shown.terminal.bytes_since(place) / LONG]
            line("bytes a second over SSH", f"{middle(sent) / 1000:.1f} KB/s", "5 KB/s")
            shown.close()
        if "attached" in parts:
            lost = attached(where / "attached", rounds, seconds)
            line("steps a second lost to an attached console", f"{middle(lost):.1%}", "1 %")
    return "\n".join(lines) + f"\n{machine('cpu')}"


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    atexit.register(lambda: [kill(process, signal.SIGKILL) for process in descendants(os.getpid())])
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=4.0, help="of a turn")
    parser.add_argument("--only", default="start,training,slow,attached", help="parts, separated by commas")
    parser.add_argument("--presses", type=int, default=60)
    options = parser.parse_args()
    print(table(options.only.split(","), options.rounds, options.seconds, options.presses))


if __name__ == "__main__":
    main()
