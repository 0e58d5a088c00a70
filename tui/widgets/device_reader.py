"""What the machine is doing: CPU and memory from psutil, a CUDA device through NVML. Both are imported by the first reading."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuReading:
    """One GPU that the run is not on."""

    number: int
    percent: float | None = None
    memory_used: int | None = None
    memory_total: int | None = None
    celsius: float | None = None
    watts: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceReading:
    """One sample: shares in percent (of one core for the process, so it can exceed 100), memory in bytes, None: not known."""

    cpu_percent: float | None = None
    process_percent: float | None = None
    process_memory: int | None = None
    memory_used: int | None = None
    memory_total: int | None = None
    cores: int | None = None
    gpu_name: str = ""
    gpu_percent: float | None = None
    gpu_memory_used: int | None = None
    gpu_memory_total: int | None = None
    gpu_celsius: float | None = None
    gpu_watts: float | None = None
    gpu_own: int | None = None  # bytes that the run's process holds there; None: it is not among those that NVML names
    gpu_others: tuple[int, int] = (0, 0)  # other processes there, and the bytes that they hold
    others: tuple[GpuReading, ...] = ()  # the machine's other GPUs
    note: str = ""  # one sentence where a CUDA device can't be read


class DeviceReader:
    """Reads the machine, and for a `device` such as "cuda:1" that GPU. A read takes some tenths of a millisecond.

    The first reading of a CPU share has nothing to compare with and is None.
    """

    def __init__(self, device: str = "cpu", process: int | None = None) -> None:
        self.device = device
        self.process = process  # whose share is read, this one's when left out
        self._process: Any = None
        self._nvml: Any = None
        self._handle: Any = None
        self._others: list[tuple[int, Any]] = []
        self._note = ""

    def read(self) -> DeviceReading:
        import psutil

        first = self._process is None
        memory = psutil.virtual_memory()
        cpu, process, own = psutil.cpu_percent(None), None, None
        with contextlib.suppress(psutil.Error):  # it may be gone
            if first:
                self._process = psutil.Process(self.process)
            process, own = self._process.cpu_percent(None), self._process.memory_info().rss
        return DeviceReading(
            cpu_percent=None if first else cpu,
            process_percent=None if first else process,
            process_memory=own,
            memory_used=memory.total - memory.available,
            memory_total=memory.total,
            cores=psutil.cpu_count(),
            **self._gpu(),
        )

    def _gpu(self) -> dict[str, Any]:
        if not self.device.startswith("cuda"):
            return {}
        if self._handle is None and not self._note:
            self._open()
        if self._handle is None:
            return {"note": self._note}
        handle = self._handle
        name = self._ask(self._nvml.nvmlDeviceGetName, handle) or ""
        figures = self._figures(handle)
        return {
            "gpu_name": name.decode() if isinstance(name, bytes) else name,
            **{f"gpu_{key}": value for key, value in figures.items()},
            **self._processes(handle),
            "others": tuple(GpuReading(number=number, **self._figures(other)) for number, other in self._others),
        }

    def _ask(self, read: Any, *arguments: Any) -> Any:
        try:
            return read(*arguments)
        except self._nvml.NVMLError:  # not every device knows every figure
            return None

    def _figures(self, handle: Any) -> dict[str, Any]:
        nvml = self._nvml
        use, memory = self._ask(nvml.nvmlDeviceGetUtilizationRates, handle), self._ask(nvml.nvmlDeviceGetMemoryInfo, handle)
        watts = self._ask(nvml.nvmlDeviceGetPowerUsage, handle)
        return {
            "percent": None if use is None else float(use.gpu),
            "memory_used": None if memory is None else int(memory.used),
            "memory_total": None if memory is None else int(memory.total),
            "celsius": self._ask(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
            "watts": None if watts is None else watts / 1000,
        }

    def _processes(self, handle: Any) -> dict[str, Any]:
        """Whose memory it is: the run's process, with those that it started, and the others."""
        import psutil

        held = {
            one.pid: one.usedGpuMemory or 0 for one in self._ask(self._nvml.nvmlDeviceGetComputeRunningProcesses, handle) or ()
        }
        own = {self._process.pid} if self._process is not None else set()
        with contextlib.suppress(psutil.Error):
            own |= {child.pid for child in self._process.children(recursive=True)} if held else set()
        ours = [size for pid, size in held.items() if pid in own]
        others = [size for pid, size in held.items() if pid not in own]
        return {"gpu_own": sum(ours) if ours else None, "gpu_others": (len(others), sum(others))}

    def _open(self) -> None:
        """Find the device in NVML, which numbers all devices, CUDA only those in CUDA_VISIBLE_DEVICES."""
        import os

        try:
            import pynvml
        except ImportError:
            self._note = "GPU figures need nvidia-ml-py"
            return
        index = int(self.device.partition(":")[2] or 0)
        visible = [part.strip() for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if part.strip()]
        name = visible[index] if index < len(visible) else str(index)
        try:
            pynvml.nvmlInit()
            self._handle = (
                pynvml.nvmlDeviceGetHandleByIndex(int(name)) if name.isdigit() else pynvml.nvmlDeviceGetHandleByUUID(name)
            )
            self._nvml = pynvml
            own = pynvml.nvmlDeviceGetIndex(self._handle)
            count = pynvml.nvmlDeviceGetCount()
            self._others = [(i, pynvml.nvmlDeviceGetHandleByIndex(i)) for i in range(count) if i != own]
        except pynvml.NVMLError as error:
            self._note = f"NVML can't read {self.device}: {error}"
