"""The console in a real browser: seen, driven by keys, closed while it trains, and opened again."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from engine import Run
from tests.terminal.conftest import LONG, PATIENCE, REPOSITORY

pytest.importorskip("textual_serve", reason="textual-serve is not installed")

from tests.terminal.browser import CHROMIUM, chromium

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")]


async def until(condition: Callable[[], object], words: str, seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {words}"
        await asyncio.sleep(0.1)


async def test_a_page_trains_and_closing_it_leaves_the_training_alone(tmp_path: Path) -> None:
    config, runs = tmp_path / "config", tmp_path / "runs"
    (config / "recipes").mkdir(parents=True)
    (config / "recipes" / "long.toml").write_text(LONG)
    (config / "settings.toml").write_text("[guide]\nwelcome = false\ntour = false\n")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "EPOCHAL_CONFIG": str(config), "EPOCHAL_RUNS": str(runs)}
    command = [sys.executable, "-P", "-m", "tui", "serve", "--port", "0"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as serving:
        assert serving.stdout is not None and ".link" in serving.stdout.readline()
        (written,) = config.glob("serve-*.link")
        link = written.read_text().strip()
        home = link.partition("?")[0]
        shown = "document.body?.classList.contains('-first-byte')"
        try:
            async with chromium(tmp_path / "browser") as tab:
                await tab.go(link)
                await tab.until(shown)
                assert await tab.evaluate("location.href") == home  # no token in it
                await tab.wait("ready")
                await tab.press("o")
                await tab.wait("Recipes")
                await tab.press("\r")  # the first
                await tab.wait("from the defaults")
                await tab.press("r")
                await until(lambda: Run.list(runs) and Run.list(runs)[0].state == "running", "the run")
                await tab.picture(tmp_path / "page.png")
                assert not [url for url in tab.urls if not url.startswith((home, "data:", "about:"))]
                await tab.go("about:blank")
                await until(lambda: b"console" not in _children(serving.pid), "the console to leave its page")
                step = Run.list(runs)[0].step
                await until(lambda: Run.list(runs)[0].step > step, "the training to go on")
                tab.drawn = b""
                await tab.go(home)
                await tab.until(shown)
                await tab.wait("running")
                await tab.press(" ")
                await until(lambda: Run.list(runs)[0].state == "paused", "the run to be paused from the page")
                await tab.picture(tmp_path / "again.png")
        finally:
            serving.terminate()
            for each in Run.list(runs):
                Run.open(each.path).tell("stop")
        await until(lambda: Run.list(runs)[0].state == "stopped", "the run to stop")
    assert serving.returncode == 0


def _children(process: int) -> bytes:
    return subprocess.run(["ps", "-o", "args=", "--ppid", str(process)], capture_output=True, check=False).stdout
