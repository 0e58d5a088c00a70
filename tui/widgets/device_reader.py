"""What the machine is doing: CPU and memory from psutil, a CUDA device through NVML. Both are imported by the first reading."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any


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
        nvml, handle = self._nvml, self._handle

        def ask(read: Any, *arguments: Any) -> Any:
            try:
                return read(handle, *arguments)
            except nvml.NVMLError:  # not every device knows every figure
                return None

        use, memory = ask(nvml.nvmlDeviceGetUtilizationRates), ask(nvml.nvmlDeviceGetMemoryInfo)
        watts = ask(nvml.nvmlDeviceGetPowerUsage)
        name = ask(nvml.nvmlDeviceGetName) or ""
        return {
            "gpu_name": name.decode() if isinstance(name, bytes) else name,
            "gpu_percent": None if use is None else float(use.gpu),
            "gpu_memory_used": None if memory is None else int(memory.used),
            "gpu_memory_total": None if memory is None else int(memory.total),
            "gpu_celsius": ask(nvml.nvmlDeviceGetTemperature, nvml.NVML_TEMPERATURE_GPU),
            "gpu_watts": None if watts is None else watts / 1000,
        }

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
        except pynvml.NVMLError as error:
            self._note = f"NVML can't read {self.device}: {error}"
