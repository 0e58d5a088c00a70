"""What a run's result may depend on besides its recipe."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import sys
import time
from typing import Any

from engine.distributed.launched import beginning


def environment() -> dict[str, Any]:
    """Versions, machine, command line, the working directory's git commit (if any) and the time, as JSON values.

    torch is not imported for its version.
    """
    values: dict[str, Any] = {
        "python": platform.python_version(),
        "torch": _torch_version(),
        "platform": platform.platform(),
        "hostname": platform.node(),
        "command": list(sys.argv),
        "git_commit": _git_commit(),
        "started": time.time(),
        "launch": beginning() or None,
    }
    return {key: value for key, value in values.items() if value is not None}


def _torch_version() -> str | None:
    if torch := sys.modules.get("torch"):
        return str(torch.__version__)
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """None where there is no repository, no commit or no git."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=2, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
