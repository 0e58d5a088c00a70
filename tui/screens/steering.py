"""What the keys do that steer a run while it trains, here or in another process."""

from __future__ import annotations

from engine.changes import Change
from engine.control import Control
from tui.followed import Followed, Remote
from tui.screens.base import Base
from tui.screens.edit import EditScreen
from tui.session import Session


class Steering(Base):
    """Its actions are for the run `shown`; where it can't be steered the person is told why."""

    shown: Session | Followed
    asked = ""  # by key, and not so yet: "pausing" or "stopping"

    def still_asked(self) -> str:
        """What the run was asked for and has not done yet; that of another process as far as it was asked here."""
        if isinstance(self.shown, Session):
            control = self.shown.control
            self.asked = "stopping" if control.stopping is not None else "pausing" if control.paused else ""
        if self.asked == "pausing" and self.shown.history.paused:
            self.asked = ""
        return self.asked

    def action_pause(self) -> None:
        """Pause, or go on."""
        if control := self._control():
            if control.paused:
                control.resume()
                self.asked = ""
                self.notify("going on")
            else:
                control.pause()
                self.asked = "pausing"
                self.notify("pausing after this step")

    def action_stop(self) -> None:
        """Stop after this step, with a checkpoint."""
        if control := self._control():
            control.stop()
            self.asked = "stopping"
            self.notify("stopping after this step, then saving")

    def action_checkpoint(self) -> None:
        """Write a checkpoint after this step."""
        if control := self._control(own_loop=False):
            control.checkpoint()
            self.notify("a checkpoint after this step")

    def action_validate(self) -> None:
        """Validate after this step."""
        if control := self._control(own_loop=False):
            control.validate()
            self.notify("validating after this step")

    def action_edit(self, proposed: str = "lr=x0.5") -> None:
        """Change values of the plan from the next step on."""
        if control := self._control(own_loop=False):
            values = self.console_app.engine.complete(self.shown.values) if self.shown.values else {}
            screen = EditScreen(values, self.shown.history, proposed)
            self.app.push_screen(screen, lambda changes: self._change(control, changes or ()))

    def _change(self, control: Control | Remote, changes: tuple[Change, ...]) -> None:
        if changes and self.shown.history.ended is not None:
            self.notify("the run ended meanwhile: nothing was changed", severity="warning")
            return
        for change in changes:
            control.change(change)
        if changes:
            self.notify("after this step: " + ", ".join(map(str, changes)))

    def _control(self, own_loop: bool = True) -> Control | Remote | None:
        """The run's control, or None, and then the person is told why: where it is over, or, for what only our own loop can
        do, where it is not ours."""
        history = self.shown.history
        if history.started is not None and history.started.foreign:
            self.notify("another tool wrote this run: it can be looked at, and nothing else")
            return None
        if not own_loop and history.started is not None and history.started.own_loop and self.shown.alive:
            self.notify("this run is a loop of its own, which can be paused and stopped")
            return None
        unread = isinstance(self.shown, Followed) and history.started is None  # it was not looked at yet
        if self.shown.alive or unread:
            return self.shown.control
        if history.ended is None:
            self.notify("the run is about to begin or to end")
        elif history.ended.state == "died":
            self.notify("its process is gone: a, then r goes on with it", severity="warning")
        else:
            self.notify("this run is over: n for a new one, a for all runs")
        return None
