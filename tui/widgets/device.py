"""The device pane: how busy the machine is and what memory is left."""

from __future__ import annotations

import threading
from functools import partial
from typing import ClassVar

from engine.history import History
from tui.widgets.device_reader import DeviceReader, DeviceReading
from tui.widgets.progress import bar
from tui.widgets.rows import Pane, Row

SECONDS, TICKS = 2.0, 8  # between readings, and how often the pane looks for one meanwhile
GIB = 2**30


class DevicePane(Pane):
    """Utilization, memory, warmth and power of each GPU, whose memory it is, and the host; every two seconds while visible.

    NVML can take its time, so each reading is taken by a thread of its own; the pane's timer picks it up when it is there.
    """

    BORDER_TITLE: ClassVar[str] = "4 Device"

    def __init__(self, *, reader: DeviceReader | None = None, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.process: int | None = None  # that trains, if not this one
        self.reader = reader or DeviceReader()
        self._own_reader = reader is None
        self._reading: DeviceReading | None = None
        self._drawn: DeviceReading | None = None
        self._thread: threading.Thread | None = None
        self._ticks = 0

    def show(self, history: History) -> None:
        """Follow the device that the run is on."""
        device = history.started.device if history.started else "cpu"
        if self._own_reader and (device, self.process) != (self.reader.device, self.reader.process):
            self.reader = DeviceReader(device, self.process)
            self.set_class(device.startswith("cuda"), "-gpu")

    def on_mount(self) -> None:
        self.set_interval(SECONDS / TICKS, partial(self.guarded, self._tick))

    def on_resize(self) -> None:
        self._draw()

    def _tick(self) -> None:
        if not self.is_on_screen:
            return
        if self._reading is not self._drawn:
            self._draw()
        if self._ticks % TICKS == 0 and (self._thread is None or not self._thread.is_alive()):
            self._thread = threading.Thread(target=self._read, name="device", daemon=True)
            self._thread.start()
        self._ticks += 1

    def _read(self) -> None:
        self._reading = self.reader.read()

    def _draw(self) -> None:
        self._drawn = self._reading
        if self._drawn is not None and self.size.width:
            self.set_rows(device_rows(self._drawn, self.size.width))


def device_rows(reading: DeviceReading, width: int) -> list[Row]:
    """What is known, the GPU first."""
    rows: list[Row] = []
    if reading.gpu_name:
        rows.append([(" ", ""), (reading.gpu_name, "strong")])
    if reading.gpu_percent is not None:
        rows.append(_share("gpu", reading.gpu_percent, width))
    if reading.gpu_memory_total:
        rows.append(_memory("vram", reading.gpu_memory_used or 0, reading.gpu_memory_total, width))
    warmth = [f"{reading.gpu_celsius:.0f} °C" if reading.gpu_celsius is not None else "",
              f"{reading.gpu_watts:.0f} W" if reading.gpu_watts is not None else ""]  # fmt: skip
    if any(warmth):
        rows.append([(" " * 7, ""), ("  ".join(part for part in warmth if part), "label")])
    if reading.gpu_own is not None or reading.gpu_others[0]:
        count, size = reading.gpu_others
        said = [f"{_gib(reading.gpu_own)}"] if reading.gpu_own is not None else []
        said += [f"{count} other{'s' if count > 1 else ''} {_gib(size)}"] if count else []
        rows.append([(" own   " if reading.gpu_own is not None else " " * 7, "label"), (", ".join(said), "")])
    for other in reading.others:
        figures = [
            "" if other.percent is None else f"{other.percent:.0f}%",
            "" if not other.memory_total else f"{(other.memory_used or 0) / GIB:.0f} of {_gib(other.memory_total)}",
            "" if other.celsius is None else f"{other.celsius:.0f} °C",
            "" if other.watts is None else f"{other.watts:.0f} W",
        ]
        rows.append([(f" gpu {other.number:<2}", "faint"), ("  ".join(filter(None, figures))[: max(0, width - 7)], "faint")])
    if reading.note:
        rows.append([(" ", ""), (reading.note, "warn")])
    if reading.cpu_percent is not None:
        rows.append(_share("cpu", reading.cpu_percent, width))
    if reading.memory_total:
        rows.append(_memory("mem", reading.memory_used or 0, reading.memory_total, width))
    own = []
    if reading.process_percent is not None:
        own.append(f"{reading.process_percent:.0f}% cpu")
    if reading.process_memory is not None:
        own.append(f"{reading.process_memory / GIB:.2f} GiB")
    if own:
        rows.append([(" proc  ", "label"), ("  ".join(own), "")])
    return rows


def _share(name: str, percent: float, width: int) -> Row:
    return [(f" {name:<5} ", "label"), *bar(percent / 100, max(0, min(20, width - 14))), (f" {percent:3.0f}%", "strong")]


def _memory(name: str, used: int, total: int, width: int) -> Row:
    text = f"{used / GIB:.1f} of {total / GIB:.1f} GiB"
    room = width - 8 - len(text) - 1
    filled = bar(used / total, min(20, room)) if room >= 6 else []
    return [(f" {name:<5} ", "label"), *filled, (" " if filled else "", ""), (text, "")]


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB" if size < 9.95 * GIB else f"{size / GIB:.0f} GiB"
