"""Textual's driver for a terminal, made to survive what terminals do: bytes that are no UTF-8, standing still, going away."""

from __future__ import annotations

import contextlib
import os
import queue
import selectors
import signal
import time
from codecs import getincrementaldecoder
from typing import Any, TextIO

from textual._xterm_parser import XTermParser
from textual.drivers.linux_driver import LinuxDriver

SECONDS = 1.0  # that the end of the screen waits for a terminal that stands still


class LastingDriver(LinuxDriver):
    """Reads input with damaged bytes replaced (one old-style mouse report ends Textual's own thread), and tells the app once
    when the terminal is gone instead of failing on it.

    A connection that hangs takes no more output, for minutes perhaps before it breaks. Frames are left out then, so that the
    app never waits for the terminal; the whole screen is painted when it takes something again.

    While the shell has the terminal (`suspend_application_mode`) nothing is drawn or read, and nothing about the terminal is
    changed.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._file = _Lasting(self._file)  # type: ignore[assignment, arg-type]
        self._behind = False
        self.sent = 0  # bytes
        self._away = False
        # The launcher is what stops. This process trains on, and so do data workers that it starts.
        signal.signal(signal.SIGTSTP, signal.SIG_IGN)

    def suspend_application_mode(self) -> None:
        super().suspend_application_mode()
        self._away = True

    def resume_application_mode(self) -> None:
        self._away = self._behind = False
        super().resume_application_mode()

    def disable_input(self) -> None:
        if not self._away:
            super().disable_input()

    def write(self, data: str) -> None:
        if self._away:
            return
        assert self._writer_thread is not None
        waiting = self._writer_thread._queue
        if self._behind and waiting.empty():
            self._behind = False
            self._app.call_later(self._app.repaint)  # type: ignore[attr-defined]
        try:
            waiting.put_nowait(data)
            self.sent += len(data.encode())
        except queue.Full:
            self._behind = True

    def stop_application_mode(self) -> None:
        if self._away:
            return
        deadline = time.monotonic() + SECONDS
        while self._writer_thread is not None and not self._writer_thread._queue.empty() and time.monotonic() < deadline:
            time.sleep(0.02)
        super().stop_application_mode()

    def close(self) -> None:
        if self._writer_thread is not None and not self._away:
            with contextlib.suppress(queue.Full):
                self._writer_thread._queue.put(None, timeout=SECONDS)
                self._writer_thread.join(SECONDS)

    def run_input_thread(self) -> None:
        decode = getincrementaldecoder("utf-8")(errors="replace").decode
        parser = XTermParser(self._debug)
        with selectors.DefaultSelector() as selector:
            selector.register(self.fileno, selectors.EVENT_READ)
            while not self.exit_event.is_set():
                if selector.select(0.1):
                    try:
                        data = os.read(self.fileno, 4096)
                    except OSError:
                        data = b""
                    if not data:
                        self._app.call_later(self._app.run_action, "app.hang_up")
                        return
                    if text := decode(data):
                        for event in parser.feed(text):
                            self.process_message(event)
                for event in parser.tick():
                    self.process_message(event)


class _Lasting:
    """The screen's file; what a terminal that has gone no longer takes is dropped."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._file.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._file.flush()

    def fileno(self) -> int:
        return self._file.fileno()
