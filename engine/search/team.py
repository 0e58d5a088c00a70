"""Several processes of this machine that work on one search."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

from engine.control import Asks, Control
from engine.run import control_file
from engine.run.children import child_environment, command
from engine.search.folder import Folder


class Team(Asks, Control):
    """Begins them, each in a session of its own. A stop reaches them at once, all else by the search's control file."""

    def __init__(self, folder: Folder, count: int) -> None:
        super().__init__()
        self._folder = folder
        cores, cuda = os.cpu_count() or 1, devices()
        self._processes = []
        for i in range(count):
            own = {"CUDA_VISIBLE_DEVICES": cuda[i % len(cuda)]} if len(cuda) > 1 else {}
            threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, cores // count)))}
            with self._log(i).open("ab") as log:
                self._processes.append(
                    subprocess.Popen(
                        command("search", str(folder.path), "--join", "--quiet"),
                        stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                        env={**child_environment(), **threads, **own},
                    )
                )  # fmt: skip

    @property
    def working(self) -> bool:
        """Whether one of them is there still."""
        return any(process.poll() is None for process in self._processes)

    def failures(self) -> list[str]:
        """How those ended that did not end in order, a sentence each."""
        found = []
        for i, process in enumerate(self._processes):
            if (code := process.poll()) in (None, 0, 130, 143):
                continue
            last = self._log(i).read_text("utf-8", "replace").strip().splitlines()[-1:]
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
            said = f": {last[0].removeprefix('epochal: ')}" if last else ""
            found.append(f"worker {i + 1} {how}{said}")
        return found

    def _log(self, i: int) -> Path:
        """What a worker prints."""
        return self._folder.workers_path / f"worker-{i + 1}.log"

    def stop(self, reason: str = "stopped by the user") -> None:
        Control.stop(self, reason)
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)

    def tell(self, ask: str, **values: Any) -> None:
        control_file.tell(self._folder.control_path, ask, **values)


def devices() -> list[str]:
    """The CUDA devices that this process may use, by what CUDA_VISIBLE_DEVICES calls them."""
    if (given := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [each.strip() for each in given.split(",") if each.strip()]
    try:
        import pynvml

        pynvml.nvmlInit()
        return [str(i) for i in range(pynvml.nvmlDeviceGetCount())]
    except Exception:  # no driver: no device
        return []
