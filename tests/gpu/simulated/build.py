"""The library that makes torch believe in a device, built once for each version of torch.

It is loaded before torch is: what torch finds of a GPU when it is imported is final.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("device.cpp")
CACHE = Path(__file__).parents[3] / ".pytest_cache"


def compiler() -> str | None:
    """The C++ compiler of this machine."""
    return shutil.which("g++") or shutil.which("clang++")


def load() -> None:
    """Build it where it is not there yet, which takes ten seconds; subprocess.CalledProcessError if the compiler fails."""
    assert "torch" not in sys.modules, "torch is there already"
    mark = hashlib.sha256(f"{importlib.metadata.version('torch')}\n{SOURCE.read_text()}".encode()).hexdigest()[:16]
    built = CACHE / f"simulated-gpu-{mark}.so"
    if not built.exists():
        found, spec = compiler(), importlib.util.find_spec("torch")
        assert found is not None, "a C++ compiler is needed"
        assert spec is not None and spec.submodule_search_locations
        root = Path(spec.submodule_search_locations[0])
        headers = [f"-I{root / 'include'}", f"-I{root / 'include' / 'torch' / 'csrc' / 'api' / 'include'}"]
        links = [f"-L{root / 'lib'}", "-lc10", "-ltorch", "-ltorch_cpu", f"-Wl,-rpath,{root / 'lib'}"]
        CACHE.mkdir(exist_ok=True)
        part = built.with_suffix(f".{os.getpid()}")  # another process may build it now
        command = [found, "-O0", "-std=c++20", "-shared", "-fPIC", *headers, str(SOURCE), "-o", str(part), *links]
        subprocess.run(command, check=True)
        part.rename(built)
    ctypes.CDLL(str(built), mode=ctypes.RTLD_GLOBAL)
