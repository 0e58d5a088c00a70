"""Loading torch once the first frame is there, so that the screen hardly waits for it."""

from __future__ import annotations

import gc
import importlib
import os
import sys
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tui.door import Engine


class Preload:
    """Loads torch and the catalog in a thread, once the first frame is on the screen."""

    def __init__(self, engine: Engine) -> None:
        self.ready = threading.Event()
        self.failure = ""
        self._engine = engine
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; a second call does nothing."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._load, name="epochal-preload", daemon=True)
            self._thread.start()

    def _load(self) -> None:
        try:
            self._engine.load()
        except BaseException:  # shown in the form: without torch nothing can be trained
            self.failure = traceback.format_exc()
        self.ready.set()


def import_all() -> None:
    """Import torch, and what assembling a recipe needs."""
    gc.disable()  # it would go through all that comes again and again, while nobody else has the interpreter
    try:
        link()
        importlib.import_module("torch")
        from engine.catalog import sections
        from engine.recipe import Recipe

        sections(Recipe().to_dict())
        importlib.import_module("engine.trainer")
        importlib.import_module("tui.screens.train")  # that is shown next
    finally:
        gc.freeze()
        gc.enable()


def link() -> None:
    """Have torch's library linked as its import does, but without the interpreter, which that keeps all the while.

    What fails here fails in the import, which says why.
    """
    import ctypes
    from importlib.util import find_spec

    spec = find_spec("torch")
    where, ending = Path((spec and spec.origin) or "").parent / "lib", "dylib" if sys.platform == "darwin" else "so"
    load = ctypes.CDLL(None).dlopen
    load.restype = ctypes.c_void_p
    for name, mode in (("global_deps", os.RTLD_GLOBAL), ("cpu", os.RTLD_LOCAL)):  # libraries of CUDA it finds by itself
        if load(os.fsencode(where / f"libtorch_{name}.{ending}"), os.RTLD_NOW | mode) is None:
            return
