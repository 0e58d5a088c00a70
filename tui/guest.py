"""The console as a guest of its terminal: signals, Ctrl-Z, and a terminal that goes away."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

from textual.css.query import NoMatches

from tui.driver import LastingDriver
from tui.in_order import InOrder
from tui.launch import SCREEN, Launcher
from tui.terminal import Terminal

if TYPE_CHECKING:
    from tui.session import Session


class Guest(InOrder):
    """Leaves on a hang-up or a signal, after which the training goes on or stops; gives the shell the screen by Ctrl-Z."""

    def __init__(self, terminal: Terminal | None, launcher: Launcher | None) -> None:
        super().__init__(driver_class=LastingDriver if terminal else None)
        self.terminal = terminal
        self.launcher = launcher
        self.session: Session | None = None  # the run of this process
        self.suspended = False  # the shell has the terminal
        self._was_stopped = False  # since it was given away

    def on_mount(self) -> None:
        if self.terminal is None:
            return
        self.terminal.capture()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self.action_hang_up)
        loop.add_signal_handler(signal.SIGTERM, self._end, "terminated", "terminated (SIGTERM)")
        loop.add_signal_handler(signal.SIGINT, self._end, "interrupted", "interrupted (SIGINT)")
        loop.add_signal_handler(signal.SIGUSR1, self._checkpoint)
        loop.add_signal_handler(SCREEN, self._asked_for_the_screen)
        loop.add_signal_handler(signal.SIGCONT, self._continued)
        # Should the shell have the terminal back while we still draw, nothing we do to it may stop the process.
        self._unstoppable()
        self.set_interval(1.0, self._watch_terminal)

    @property
    def sent(self) -> int:
        """Bytes that the terminal was sent so far."""
        return self._driver.sent if isinstance(self._driver, LastingDriver) else 0

    def repaint(self) -> None:
        """Paint the whole screen: the terminal missed something."""
        self._display(self.screen, self.screen._compositor.render_update(full=True))

    def action_suspend_process(self) -> None:
        """Give the shell the terminal until it says `fg`. The training goes on."""
        if self.launcher is None or self._driver is None:
            self.notify("there is no shell that could bring the console back")
        elif not self.suspended:
            self.suspended, self._was_stopped = True, False
            self._driver.suspend_application_mode()
            self.launcher.suspend()

    def _asked_for_the_screen(self) -> None:
        if self.suspended:
            self.set_timer(0.05, self._come_back)  # by then a SIGCONT that came with it is seen
        else:
            self.action_suspend_process()

    def _continued(self) -> None:
        self._was_stopped = True

    def _come_back(self) -> None:
        if not self.suspended or self._driver is None:
            return
        try:
            ours = os.tcgetpgrp(0) == os.getpgrp()
        except OSError:  # the terminal has gone: `_watch_terminal` sees it too
            return
        if not ours:  # continued by `bg`; what `fg` does next sends no signal
            self.set_timer(0.25, self._come_back)
            return
        self.suspended = False
        self._driver.resume_application_mode()
        self._unstoppable()
        self.repaint()
        if not self._was_stopped:
            self.notify("nothing is suspended: no shell with job control has started the console; d detaches")

    @staticmethod
    def _unstoppable() -> None:
        for number in (signal.SIGTTOU, signal.SIGTTIN):
            signal.signal(number, signal.SIG_IGN)

    def _handle_exception(self, error: Exception) -> None:
        # What comes while the app leaves is mounted without its children, and does not find them: that is no failure.
        if not (self._exit and isinstance(error, NoMatches)):
            super()._handle_exception(error)

    def action_hang_up(self) -> None:
        """The terminal is gone: so is the screen. The training goes on."""
        self.exit("hangup")

    def _end(self, answer: str, reason: str) -> None:
        if self.suspended and not os.isatty(0):  # bash sends SIGTERM to a suspended job when its terminal goes
            self.action_hang_up()
            return
        if self.session is not None:
            self.session.control.stop(reason)
        self.exit(answer)

    def _checkpoint(self) -> None:
        if self.session is not None:
            self.session.control.checkpoint()

    def _watch_terminal(self) -> None:
        # A hang-up that sends no signal shows as a descriptor that is no terminal any more; without the launcher the shell
        # has the terminal back.
        if not os.isatty(0) or (self.launcher is not None and self.launcher.gone):
            self.action_hang_up()
