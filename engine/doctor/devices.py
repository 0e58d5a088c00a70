"""Where a run can take place: the CPU, and each GPU with its memory and its driver."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.data.workers import available_cpus
from engine.doctor import Finding

SECONDS = 120  # that torch may take: its first import from a slow disk is a matter of minutes
NEEDED = 1 << 30  # bytes of memory below which little can be trained
# In a process of its own: what torch says of itself, and whether a CUDA device really computes.
_QUESTION = """
import json, torch
told = {"version": torch.__version__, "built": torch.version.cuda or "", "hip": torch.version.hip or "",
        "threads": torch.get_num_threads(), "mps": torch.backends.mps.is_available(), "failure": "", "devices": []}
assert torch.ones(2).sum().item() == 2
if torch.cuda.is_available():
    for i in range(torch.cuda.device_count()):
        told["devices"].append([torch.cuda.get_device_name(i), "sm_%d%d" % torch.cuda.get_device_capability(i)])
        try:
            torch.ones(2, device=f"cuda:{i}").sum().item()
        except Exception as error:
            told["failure"] = f"cuda:{i}: {error}".splitlines()[0]
print("\\n" + json.dumps(told))
"""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One that the driver knows."""

    name: str
    total: int
    free: int


@dataclass(frozen=True, slots=True)
class Driver:
    """What NVML says, with nobody's torch."""

    version: str
    cuda: tuple[int, int]  # the newest CUDA that it carries out
    gpus: tuple[Gpu, ...]


def ask_torch(command: Sequence[str] = (sys.executable, "-P", "-c", _QUESTION)) -> subprocess.Popen[str]:
    """Begin to import torch in a process of its own, and let it tell of itself."""
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def findings(asked: subprocess.Popen[str]) -> Iterator[Finding]:
    """The processor, torch, and the GPUs."""
    yield _processor()
    driver = read_driver()
    told = _answer(asked)
    if isinstance(told, str):
        yield Finding("devices", "problem", f"torch can't be imported: {told}", "pip install --force-reinstall torch")
        yield from compare(None, driver)
    else:
        yield from compare(told, driver)


def compare(told: dict[str, Any] | None, driver: Driver | None) -> Iterator[Finding]:
    """Whether torch and the driver know the same GPUs."""
    gpus = driver.gpus if driver else ()
    if driver:
        for number, gpu in enumerate(gpus):
            size = f"{gpu.total / 2**30:.1f} GiB, {gpu.free / 2**30:.1f} free"
            cuda = ".".join(map(str, driver.cuda))
            text = f"GPU {number}: {gpu.name}, {size}, driver {driver.version} (CUDA {cuda} at most)"
            taken = gpu.free < gpu.total / 10
            remedy = "nvidia-smi names the processes that hold the rest" if taken else ""
            yield Finding("devices", "warning" if taken else "ok", text, remedy)
    if told is None:
        return
    built = told["built"]
    if told["failure"]:
        yield Finding("devices", "problem", f"torch can't compute on {told['failure']}", "see the driver, and pytorch.org")
    elif told["devices"]:
        names = ", ".join(f"cuda:{i} {name} ({arch})" for i, (name, arch) in enumerate(told["devices"]))
        yield Finding("devices", "ok", f"torch {told['version']} computes on {names}")
    elif told["mps"]:
        yield Finding("devices", "ok", f"torch {told['version']} has Apple's GPU (mps)")
    elif gpus and not (built or told["hip"]):
        text = f"torch {told['version']} is built without CUDA, and this machine has a GPU"
        yield Finding("devices", "problem", text, "install torch for CUDA: pytorch.org/get-started says how")
    elif gpus and driver and built and _pair(built) > driver.cuda:
        most = ".".join(map(str, driver.cuda))
        text = f"torch is built for CUDA {built}, and driver {driver.version} carries out CUDA {most} at most"
        yield Finding("devices", "problem", text, "a newer driver, or a torch for an older CUDA")
    elif gpus and os.environ.get("CUDA_VISIBLE_DEVICES") is not None:
        text = f"CUDA_VISIBLE_DEVICES is {os.environ['CUDA_VISIBLE_DEVICES']!r}, which leaves torch no GPU"
        yield Finding("devices", "warning", text, "unset it, or name one")
    elif gpus:
        yield Finding("devices", "problem", f"torch {told['version']} finds no GPU, and this machine has one", "see nvidia-smi")
    else:
        threads = f"{told['threads']} thread{'s' if told['threads'] > 1 else ''}"
        yield Finding("devices", "ok", f"torch {told['version']} computes on the CPU with {threads}; there is no GPU")


def read_driver() -> Driver | None:
    """None where there is no NVIDIA driver."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # no package, no library, no driver, no device: all of them are no GPU
        return None
    try:
        gpus = []
        for number in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(number)
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            gpus.append(Gpu(_text(pynvml.nvmlDeviceGetName(handle)), int(memory.total), int(memory.free)))
        cuda = int(pynvml.nvmlSystemGetCudaDriverVersion())
        return Driver(_text(pynvml.nvmlSystemGetDriverVersion()), (cuda // 1000, cuda % 1000 // 10), tuple(gpus))
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()


def _processor() -> Finding:
    import psutil

    cores, usable, memory = os.cpu_count() or 1, available_cpus(), psutil.virtual_memory()
    quota = _quota()
    text = f"CPU: {usable} of {cores} cores" + (f", a quota of {quota:g}" if quota is not None and quota < usable else "")
    text += f"; memory {memory.total / 2**30:.1f} GiB, {memory.available / 2**30:.1f} free"
    if memory.available < NEEDED:
        return Finding("devices", "warning", text, "end what holds the memory, or train elsewhere")
    return Finding("devices", "ok", text)


def _quota(path: Path = Path("/sys/fs/cgroup/cpu.max")) -> float | None:
    """Cores that the container may use, by cgroup v2; None where nothing is said."""
    try:
        share, period = path.read_text().split()
        return None if share == "max" else int(share) / int(period)
    except (OSError, ValueError):
        return None


def _answer(asked: subprocess.Popen[str]) -> dict[str, Any] | str:
    """What torch said, or why it did not."""
    try:
        out, err = asked.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        asked.kill()
        asked.communicate()
        return f"no answer in {SECONDS} seconds"
    if asked.returncode < 0:
        return f"its process was ended by {signal.Signals(-asked.returncode).name}"
    if asked.returncode:
        said = (err.strip().splitlines() or [""])[-1]
        return said or f"its process ended with status {asked.returncode}"
    told: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
    return told


def _pair(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major), int(minor.partition(".")[0] or 0)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
