"""The console's process: from the launcher's fork to the screen, and on without it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import EpochalError
from engine.preferences import Preferences
from tui.after import Stops, outlive, wait
from tui.door import Engine
from tui.launch import Launcher
from tui.pacing import pace
from tui.terminal import Output, Terminal

if TYPE_CHECKING:
    from tui.session import Session

STATUS = {"interrupted": 130, "terminated": 143, "kill": 130, "crash": 1}
AWAY = ("detach", "hangup", "crash")  # answers after which a run goes on by itself


def open_console(
    launcher: Launcher,
    *,
    recipe: str | None = None,
    runs: str | None = None,
    attach: str | None = None,
    view: str | None = None,
) -> int:
    """Open the console with a recipe filled in, or with `attach` (a run's name; "" for the one at work) on a run, or with
    `view` (a folder of runs, event files or CSV metrics, or one CSV file) on what is there.

    When it is left while a run trains, that goes on in this process to its end. Returns the exit status.
    """
    # A hang-up before there is a screen is seen by the screen; what is started from here on does not die of one either.
    for number in (signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    root = view or runs
    engine = Engine(Path(root) if root else None)
    preferences = Preferences.of_user()
    try:
        values = read_values(recipe)
        path = None if attach is None else engine.find(attach)
        path = engine.only_one(Path(view)) if view else path
    except EpochalError as error:
        print(f"epochal: {error}", file=sys.stderr)
        return 2
    for name, value in pace(preferences["link"])[0].textual().items():
        os.environ.setdefault(name, value)
    from multiprocessing import resource_tracker

    from tui.app import Console

    resource_tracker.ensure_running()  # while descriptors 1 and 2 are still the terminal: see the notes in `terminal`
    loop = asyncio.new_event_loop()
    failure = ""
    with Terminal(Output()) as terminal:
        source = Path(recipe).name if recipe else ""
        app = Console(
            engine,
            values,
            source=source,
            terminal=terminal,
            launcher=launcher,
            attach=path,
            lists=view is not None,
            preferences=preferences,
            welcome=recipe is None and attach is None and view is None and not engine.root.is_dir(),
        )
        app.tell_errors_to(terminal.screen)
        try:
            # A loop of our own stays open after the app: its signal handlers hold until `stops` takes over.
            answer = app.run(loop=loop, mouse=bool(os.environ.get("EPOCHAL_MOUSE"))) or "crash"
        except Exception:  # the screen's end may fail as well: the training has to live on
            failure, answer = traceback.format_exc(), "crash"
        app.keeper.finish()
        session = app.session
        app.attention.write = lambda codes: None  # there is no screen any more
        stops = Stops(session) if session else None  # at once: a Ctrl-C right now is for the run
        if answer not in ("kill", *STATUS) and not os.isatty(0):
            answer = "hangup"
        away = answer in AWAY and session is not None and session.alive
        if failure:
            with contextlib.suppress(OSError):
                print(failure, file=terminal.screen, flush=True)
        if away or answer == "hangup":
            terminal.leave(session.path / "output.log" if session and session.path else None)
    status = STATUS.get(answer, 0)
    if session is None or stops is None:
        if app.left:
            print(app.left)
    elif away:
        with contextlib.suppress(OSError):
            os.setsid()
        launcher.release(goes_on(session, engine), status)
        outlive(session, stops, app.attention)
    elif answer == "kill" and session.alive:
        print("epochal: killed without saving", file=sys.stderr, flush=True)
        os._exit(status)
    else:
        status = wait(session, stops, app.attention, status or None)
    loop.close()  # not before: this puts the signals' defaults back
    return status


def read_values(recipe: str | None) -> dict[str, Any]:
    """The values of a recipe file, unchecked, or those of the default recipe. Raises RecipeError for what is no TOML."""
    from engine.recipe import Recipe
    from engine.recipe_text import read_toml

    return read_toml(recipe) if recipe is not None else Recipe().to_dict(complete=False)


def goes_on(session: Session, engine: Engine) -> str:
    """What the shell is told of a run that goes on without it."""
    if session.path is None:
        return f"the training goes on in process {os.getpid()}"
    state = "is paused" if session.control.paused else "trains on"
    return f"{session.path.name} {state} in process {os.getpid()}: epochal attach {shlex.quote(engine.named(session.path))}"
