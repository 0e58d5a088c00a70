"""From the command to the screen and back to the shell: the terminal is handed over, and given back whatever happens."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from engine.errors import RecipeError
from tui.after import Stops, wait
from tui.session import Engine, Session
from tui.terminal import Output, Terminal

STATUS = {"interrupted": 130, "terminated": 143, "kill": 130}


def launch(recipe: str | None, runs: str | None) -> int:
    """Open the console; when it is left while a run trains, wait for the run's end. Returns the exit status."""
    try:
        values = read_values(recipe)
    except RecipeError as error:
        print(f"epochal: {error}", file=sys.stderr)
        return 2
    from multiprocessing import resource_tracker

    from tui.app import Console

    resource_tracker.ensure_running()  # while descriptors 1 and 2 are still the terminal: see the notes in `terminal`
    loop = asyncio.new_event_loop()
    with Terminal(Output()) as terminal:
        app = Console(
            Engine(Path(runs) if runs else None), values, source=Path(recipe).name if recipe else "", terminal=terminal
        )
        app.tell_errors_to(terminal.screen)
        # A loop of our own stays open after the app: its signal handlers hold until `stops` takes over.
        answer = app.run(loop=loop, mouse=bool(os.environ.get("EPOCHAL_MOUSE")))
        stops = Stops(app.session) if app.session else None  # at once: a Ctrl-C right now is for the run
        lost = answer == "hangup" or not os.isatty(0)
        if lost:
            terminal.lose(app.session.path / "output.log" if app.session and app.session.path else None)
    status = after(app.session, stops, answer, silent=lost)
    loop.close()  # not before: this puts the signals' defaults back
    return max(status, 1) if app.return_code else status


def read_values(recipe: str | None) -> dict[str, Any]:
    """The values of a recipe file, unchecked, or those of the default recipe. Raises RecipeError for what is no TOML."""
    from engine.recipe import Recipe, read_toml

    return read_toml(recipe) if recipe is not None else Recipe().to_dict(complete=False)


def after(session: Session | None, stops: Stops | None, answer: str | None, *, silent: bool) -> int:
    """What is left to do once the screen is gone: wait for a run that still trains, or say how it ended."""
    if session is None or stops is None:
        return STATUS.get(answer or "", 0)
    if answer == "kill" and session.alive:
        print("epochal: killed without saving", file=sys.stderr, flush=True)
        os._exit(STATUS["kill"])
    if session.control.paused:  # nobody can resume it any more
        if silent:
            session.control.stop("its terminal was lost while it was paused")
        else:
            session.control.resume()
    return wait(session, stops, STATUS.get(answer or ""), silent=silent)
