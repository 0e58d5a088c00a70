"""A session and the terminal it prints to, without any screen."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.errors import Problem, RecipeError, RunError
from tests.tui.conftest import ScriptedEngine, until
from tui.preload import Preload
from tui.session import Session
from tui.terminal import KEPT, Output


async def test_a_session_trains_in_its_thread(engine: ScriptedEngine):
    session = Session(engine, Output())
    assert session.history.state == "starting" and not session.alive and session.join(0)
    session.start({"training": {"epochs": 3}})
    await until(lambda: session.history.progress)
    assert session.alive and session.history.started.epochs == 3 and not session.join(0.01)
    session.control.stop()
    assert session.join(60) and session.exit_status == 0 and session.history.state == "stopped"


def test_a_session_trains_once(engine: ScriptedEngine):
    session = Session(engine, Output())
    session.start({})
    with pytest.raises(RuntimeError):
        session.start({})


@pytest.mark.parametrize("error", [RecipeError([Problem("model.hidden", "wrong")]), RunError("wrong")])
def test_a_persons_mistake_is_no_traceback(engine: ScriptedEngine, monkeypatch, error: Exception):
    def refuse(*_):
        raise error

    monkeypatch.setattr(engine, "train", refuse)
    session = Session(engine, Output())
    session.start({})
    assert session.join(60) and session.exit_status == 1 and not session.failure
    assert [problem.message for problem in session.problems] == ["wrong"]


def test_a_failure_before_the_first_event_ends_the_history_too(engine: ScriptedEngine, monkeypatch):
    def fail(*_):
        raise KeyError("column")

    monkeypatch.setattr(engine, "train", fail)
    session = Session(engine, Output())
    session.start({})
    assert session.join(60) and session.history.state == "failed" and "column" in session.history.ended.reason
    assert "Traceback" in session.output.since(0)


def test_preload_says_when_it_is_ready(engine: ScriptedEngine):
    preload = Preload(engine)
    preload.start()
    preload.start()
    assert preload.ready.wait(60) and not preload.failure


# what is printed


def test_output_gives_each_reader_the_rest():
    output = Output()
    output.feed("one\n")
    seen = output.end
    output.feed("two\n")
    assert output.since(0) == "one\ntwo\n" and output.since(seen) == "two\n" and output.since(output.end) == ""
    assert output.since(2) == "e\ntwo\n"


def test_output_is_bounded_in_memory():
    output = Output()
    for _ in range(40):
        output.feed("x" * 100_000)
    assert output.end == 4_000_000 and len(output.since(0)) <= KEPT + 100_000


def test_the_log_has_what_was_printed_since_the_run_began(tmp_path: Path):
    output = Output()
    output.feed("earlier\n")
    output.begin()
    output.feed("assembling\n")
    output.log_to(tmp_path / "output.log")
    output.feed("training\n")
    output.begin()
    output.feed("of the next run\n")
    assert (tmp_path / "output.log").read_text() == "assembling\ntraining\n"


def test_a_full_disk_does_not_stop_the_printing(tmp_path: Path):
    output = Output()

    def full(text: str) -> None:
        raise OSError(28, "No space left on device")

    output._log = SimpleNamespace(write=full, close=lambda: None)
    output.feed("a line\n")
    output.feed("another\n")
    assert output.since(0).startswith("a line\n") and "can't be written" in output.since(0) and "another" in output.since(0)


def run_python(code: str, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=300, **options)


def test_prints_of_python_and_of_c_are_caught_and_the_descriptors_come_back():
    done = run_python("""
        import os, subprocess, sys
        from tui.terminal import Output, Terminal
        output = Output()
        with Terminal(output) as terminal:
            print("from python")
            print("an error", file=sys.stderr)
            os.write(1, b"from C\\n")
            os.write(2, "half a ★"[:8].encode()[:8])
            subprocess.run(["echo", "from a child"])
            terminal.screen.write("SCREEN\\n"); terminal.screen.flush()
        print("after")
        caught = output.since(0)
        assert all(text in caught for text in ("from python", "an error", "from C", "from a child")), caught
        assert "SCREEN" not in caught and "after" not in caught
    """)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "SCREEN\nafter\n"


def test_a_thread_that_prints_past_the_end_writes_to_the_terminal():
    done = run_python("""
        import threading
        from tui.terminal import Output, Terminal
        go = threading.Event()
        thread = threading.Thread(target=lambda: (go.wait(), print("late")))
        thread.start()
        with Terminal(Output()):
            pass
        go.set(); thread.join()
    """)
    assert done.stdout == "late\n", done.stderr


# the door


def test_nothing_heavy_is_imported_before_the_first_frame(tmp_path: Path):
    """What is there when the console has painted. Then torch's library is linked before anything of torch is imported."""
    done = run_python(
        """
        import asyncio, sys
        from tui.console import read_values
        from tui.app import Console
        from tui.door import Engine
        from tui.preload import Preload, link
        seen = []
        Preload.start = lambda self: seen.extend(sys.modules)  # is called after the first paint
        async def main():
            console = Console(Engine(), read_values(None))
            async with console.run_test(size=(80, 24)) as pilot:
                while not seen:
                    await pilot.pause(0.01)
                assert len(console.form.query("Row")) > 20
        asyncio.run(main())
        print([name for name in ("torch", "numpy", "plotext", "pandas", "sklearn") if name in seen])
        link()
        print("torch" in sys.modules, "libtorch_cpu" in open("/proc/self/maps").read() if sys.platform == "linux" else True)
        """,
        cwd=tmp_path,
    )
    assert done.stdout.split() == ["[]", "False", "True"], done.stderr[-2000:]


def test_deciding_between_console_and_command_line_imports_nothing():
    done = run_python("""
        import sys
        import tui.__main__
        print([name for name in ("torch", "textual", "rich", "engine.recipe") if name in sys.modules])
    """)
    assert done.stdout.strip() == "[]"


def test_without_a_terminal_it_trains_without_one(tmp_path: Path, monkeypatch):
    from tui import __main__ as door

    asked = []
    monkeypatch.setattr(door, "_command_line", lambda arguments: asked.append(arguments) or 0)
    monkeypatch.setattr(os, "isatty", lambda descriptor: False)
    recipe = tmp_path / "mine.toml"
    recipe.write_text('name = "mine"\n')
    assert door.main([]) == 0 and door.main([str(recipe)]) == 0
    assert door.main(["console", str(recipe), "--runs", "there"]) == 0
    assert asked == [["train"], ["train", str(recipe)], ["train", str(recipe), "--runs", "there"]]


@pytest.mark.parametrize("asked", ["train x.toml", "runs", "--help", "--version", "check x.toml", "nonsense"])
def test_other_commands_are_the_command_lines(monkeypatch, asked: str):
    from tui import __main__ as door

    monkeypatch.setattr(door, "_command_line", lambda given: given)
    assert door.main(asked.split()) == asked.split()


@pytest.mark.parametrize(
    ("asked", "terminal", "goes"),
    [
        ("attach", False, ["attach"]),
        ("attach digits --plain", True, ["attach", "digits"]),
        ("attach --help", True, ["attach", "--help"]),
        ("attach", True, {"attach": "", "runs": None}),
        ("attach digits --runs there", True, {"attach": "digits", "runs": "there"}),
    ],
)
def test_attach_is_the_consoles_where_there_is_a_terminal(monkeypatch, asked: str, terminal: bool, goes: object):
    from tui import __main__ as door
    from tui import console, launch

    monkeypatch.setattr(door, "_command_line", lambda given: given)
    monkeypatch.setattr(os, "isatty", lambda descriptor: terminal)
    monkeypatch.setattr(launch, "launch", lambda open_console: open_console(None))
    monkeypatch.setattr(console, "open_console", lambda launcher, **asked: asked)
    assert door.main(asked.split()) == goes


def test_a_recipe_that_is_not_there_is_one_sentence(capsys):
    from tui.__main__ import main

    assert main(["missing.toml"]) == 2
    assert capsys.readouterr().err == "epochal: there is no file 'missing.toml'\n"


def test_prints_after_the_terminal_was_left_go_to_the_log(tmp_path: Path):
    done = run_python(f"""
        import os
        from pathlib import Path
        from tui.terminal import Output, Terminal
        with Terminal(Output()) as terminal:
            terminal.leave(Path({str(tmp_path / "output.log")!r}))
            terminal.screen.write("SCREEN"); terminal.screen.flush()
        print("on and on", flush=True)
        assert os.read(0, 1) == b""
    """)
    assert done.stdout == "" and (tmp_path / "output.log").read_text() == "on and on\n", done.stderr
