"""`python -m tests.benchmarks.race`: who trains how fast, as a Markdown table; with `--device cuda` on a GPU.

Every contender runs in a process of its own, on the CPU with one thread. A round is one epoch of each, one after the other, so
that what else the machine does befalls all of them; a ratio is that of two neighbours of one round, and the table shows the
median of the rounds. The first epochs are not counted; what they took beyond the usual is the start-up. On the CPU the ratio is
also shown of the processor's time, in which other processes hardly tell. On a GPU all contenders of a case start at the same
time, which makes that longer, and the device's peak memory is shown, without the data that stay there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import queue
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from tests.benchmarks.cases import Case, cases
from tests.benchmarks.contenders import ALL, BASE, OURS, PEERS, installed, takes_part

ROOT = Path(__file__).parents[2]
WARM = 2  # epochs before the rounds
FEWEST = 3  # rounds
MOST = 1000  # epochs: a contender goes on until it is told to end
MIB = 1 << 20


class Racer:
    """A contender's process. It trains an epoch for each line that it is sent and answers with a JSON line."""

    def __init__(self, case: str, name: str, device: str, tiny: bool) -> None:
        self.name = name
        self.seconds: list[float] = []
        self.used: list[float] = []  # the same, of the processor
        self.error = ""
        self.notes: list[str] = []
        self.start = float("nan")  # seconds to the end of the first epoch, without the import of torch
        self.end: dict[str, float] = {}  # the final loss, and on a GPU memory
        command = [sys.executable, "-m", "tests.benchmarks.race", "--run", case, name, device, "tiny" if tiny else ""]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        if device == "cpu":
            environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # with whatever it starts itself
        )
        self._answers: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._words: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()
        self._errors = threading.Thread(target=self._read_errors, daemon=True)
        self._errors.start()

    def warm(self, deadline: float) -> None:
        self.start = self._ask("", deadline).get("seconds", float("nan"))
        for _ in range(WARM - 1):
            self._ask("", deadline)

    def epoch(self, deadline: float) -> None:
        """Take the seconds of the next epoch; NaN when there is none."""
        answer = self._ask("", deadline)
        self.seconds.append(answer.get("seconds", float("nan")))
        self.used.append(answer.get("used", float("nan")))

    def finish(self, deadline: float) -> None:
        self.end = self._ask("end", deadline)
        self._kill()

    def _ask(self, what: str, deadline: float) -> dict[str, Any]:
        if self.error:
            return {}
        assert self._process.stdin is not None
        with suppress(OSError):  # it has ended, which its output tells
            self._process.stdin.write(what + "\n")
            self._process.stdin.flush()
        try:
            answer = self._answers.get(timeout=max(0.1, deadline - time.monotonic()))
        except queue.Empty:
            self.error = "did not answer in the time there was"
            self._kill()
            return {}
        if not answer:
            self._errors.join()
            last = [word for word in self._words if not word.startswith(" ")][-1:]
            self.error = last[0] if last else f"ended without a word (exit status {self._process.wait()})"
        return answer

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = json.loads(line)
            if "note" in answer:
                self.notes.append(answer["note"])
            else:
                self._answers.put(answer)
        self._answers.put({})

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        self._words = [line.rstrip() for line in self._process.stderr if line.strip()]


def run(case: Case, name: str) -> None:
    """What a contender's process does."""
    import torch

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is not an answer
    on_gpu = case.device == "cuda"
    held = sum(part.numel() * part.element_size() for part in case.data) if name.startswith("epochal") else 0

    def answer(**values: Any) -> None:
        print(json.dumps(values), file=answers, flush=True)

    def wait() -> tuple[float, float]:
        if sys.stdin.readline() != "\n":
            finish()
        return time.perf_counter(), time.process_time()

    def ended(model: Any) -> None:
        nonlocal began, trained
        if on_gpu:
            torch.cuda.synchronize()
        answer(seconds=time.perf_counter() - began[0], used=time.process_time() - began[1])
        trained = model
        began = wait()

    def finish() -> None:
        peak = {"memory": (torch.cuda.max_memory_allocated() - held) / MIB} if on_gpu else {}
        answer(loss=trained if isinstance(trained, float) else case.final_loss(trained), **peak)
        os._exit(0)  # wherever in its training it is

    trained: Any = None
    if on_gpu:
        torch.cuda.init()
    began = wait()
    ALL[name](case, MOST, ended, lambda note: answer(note=note))


def race(key: str, case: Case, names: list[str], rounds: int, seconds: float, tiny: bool) -> list[Racer]:
    """All contenders in one case, within about so many seconds."""
    began = time.monotonic()
    racers = [Racer(key, name, case.device, tiny) for name in names]
    with ThreadPoolExecutor(len(racers) if case.device == "cuda" else 1) as pool:
        list(pool.map(lambda racer: racer.warm(began + 0.75 * seconds), racers))
    for number in range(rounds):
        if number >= FEWEST and time.monotonic() > began + 0.9 * seconds:
            break
        for racer in racers:
            racer.epoch(began + 1.1 * seconds)
    for racer in racers:
        racer.finish(time.monotonic() + 60)
    return racers


def ratio(ours: list[float], base: list[float]) -> float:
    """Of the rates at which epochs are done."""
    return statistics.median(b / a for a, b in zip(ours, base, strict=True))


def table(chosen: dict[str, Case], names: list[str], rounds: int, seconds: float, tiny: bool = False) -> Iterator[str]:
    """Its lines, as they come to be known."""
    device = next(iter(chosen.values())).device
    more = "peak memory" if device == "cuda" else "in processor time"
    yield f"| case | contender | steps a second | to the tutorial's loop | {more} | asked for | start-up | final loss |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    aside = []
    deadline = time.monotonic() + seconds
    for number, (key, case) in enumerate(chosen.items()):
        taking_part = [BASE, *(name for name in names if name != BASE and takes_part(case, name))]
        share = max(0.0, deadline - time.monotonic()) / (len(chosen) - number)
        racers = race(key, case, taking_part, rounds, share, tiny)
        for racer in racers:
            aside += [f"{racer.name}, {case.title}: {note}" for note in dict.fromkeys(racer.notes)]
            if racer.error or racers[0].error:
                aside.append(f"{racer.name}, {case.title}, not run: {racer.error or 'the base failed'}")
                continue
            epoch = statistics.median(racer.seconds)
            members = case.members if racer.name == "epochal population" else 1
            asked = f"{case.targets[racer.name]:g}" if racer.name in case.targets else ""
            if device == "cuda":
                more = f"{racer.end['memory']:,.0f} MiB" if "memory" in racer.end else ""
            else:
                more = f"{members * ratio(racer.used, racers[0].used):.2f}"
            yield (
                f"| {case.title} | {racer.name} | {members * case.steps / epoch:,.0f} "
                f"| {members * ratio(racer.seconds, racers[0].seconds):.2f} | {more} | {asked} | {racer.start - epoch:.1f} s "
                f"| {racer.end.get('loss', float('nan')):.4f} |"
            )
    yield from ("", *(f"- {sentence}" for sentence in aside), "", machine(device))


def machine(device: str) -> str:
    import torch

    names = [line.partition(":")[2].strip() for line in _cpu() if line.startswith("model name")]
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", *_installed()))
    here = f"{names[0] if names else platform.machine()}, {os.cpu_count()} CPUs"
    if device == "cuda":
        here = f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}; {here}"
    else:
        here += ", one thread"
    return f"{here}; Python {platform.python_version()}, {versions}"


def _cpu() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def _installed() -> list[str]:
    found = {distribution.metadata["Name"] for distribution in metadata.distributions()}
    peers = ("accelerate", "fastai", "keras", "lightning", "pytorch-ignite", "skorch", "transformers")
    return [name for name in peers if name in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--cases", help="some of them, separated by commas; all that are meant for the device")
    parser.add_argument("--rounds", type=int, default=9, help="at most so many")
    parser.add_argument("--seconds", type=float, help="for everything together, roughly; 450 on a GPU")
    parser.add_argument("--peers", action="store_true", help="the other trainers too, where they are installed")
    parser.add_argument("--only", help="contenders whose name holds one of these words, separated by commas; and the base")
    parser.add_argument("--tiny", action="store_true", help="every case, so small that it only shows that everything runs")
    options = parser.parse_args()
    known = cases(options.device, options.tiny)
    keys = options.cases.split(",") if options.cases else list(known)
    if unknown := [key for key in keys if key not in known]:
        parser.error(f"no case {', '.join(unknown)}: there are {', '.join(known)}")
    names = [*OURS, *(name for name in PEERS if options.peers and installed(name))]
    if options.only:
        names = [name for name in names if any(word in name for word in options.only.split(","))]
    seconds = options.seconds or (450 if options.device == "cuda" else 86_400.0)
    for line in table({key: known[key] for key in keys}, names, options.rounds, seconds, options.tiny):
        print(line, flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        key, name, device, size = sys.argv[2:]
        run(cases(device, size == "tiny")[key], name)
    else:
        main()
