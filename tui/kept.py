"""What of the console is kept from one time to the next: the view of the charts goes to the settings, and comes from them."""

from __future__ import annotations

import threading

from engine.preferences import Preferences
from tui.widgets.curves import View

CHART = ("metric", "smoothing", "across", "clip", "recent")


def view_of(preferences: Preferences) -> View:
    """The view of every chart as it was left."""
    return View(**{name: preferences[f"chart.{name}"] for name in CHART}, log=dict(preferences["chart.log"]))


class Keeper:
    """Writes the settings when they changed, in a thread: a home directory may be on a slow disk."""

    def __init__(self, preferences: Preferences, view: View) -> None:
        self.failure = ""  # one sentence, to be told
        self._preferences, self._view = preferences, view
        self._thread: threading.Thread | None = None

    def look(self) -> None:
        """Take in what the person chose since the last look, and write it."""
        for name in CHART:
            self._preferences[f"chart.{name}"] = getattr(self._view, name)
        self._preferences["chart.log"] = dict(self._view.log)
        if self._preferences.changed and (self._thread is None or not self._thread.is_alive()):
            self._thread = threading.Thread(target=self._write, name="epochal-settings", daemon=True)
            self._thread.start()

    def finish(self) -> None:
        """The console ends: all is written, unless the disk takes longer than a person waits."""
        for _ in range(2):  # what was changed while the thread was at work is for another
            if self._thread is not None:
                self._thread.join(1.0)
            self.look()
        if self._thread is not None:
            self._thread.join(1.0)

    def _write(self) -> None:
        try:
            self._preferences.save()
        except OSError as error:
            self.failure = f"the settings can't be written: {error.strerror}: {error.filename}"
