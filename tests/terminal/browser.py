"""Headless Chromium, driven over its DevTools protocol by a plain WebSocket."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync",
         "--disable-component-update", "--disable-extensions", "--hide-scrollbars", "--remote-debugging-port=0")  # fmt: skip


class Tab:
    """One page. `urls` are those that it asked for, `drawn` is what its terminal got since the last key."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.urls: list[str] = []
        self.drawn = b""

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            told = await self._socket.receive_json(timeout=180)
            if told.get("method") == "Network.requestWillBeSent":
                self.urls.append(told["params"]["request"]["url"])
            if told.get("method") == "Network.webSocketFrameReceived" and told["params"]["response"]["opcode"] == 2:
                self.drawn += base64.b64decode(told["params"]["response"]["payloadData"])
            if told.get("id") == number:
                assert "error" not in told, told
                return dict(told["result"])

    async def go(self, url: str) -> None:
        await self.call("Page.navigate", url=url)

    async def evaluate(self, code: str) -> Any:
        told = await self.call("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    async def press(self, text: str) -> None:
        """Characters, each a key."""
        self.drawn = b""
        for character in text:
            await self.call("Input.dispatchKeyEvent", type="keyDown", text=character, key=character)
            await self.call("Input.dispatchKeyEvent", type="keyUp", key=character)

    async def until(self, code: str, seconds: float = 180.0) -> None:
        """Wait until the expression is true in the page."""
        deadline = time.monotonic() + seconds
        while not await self.evaluate(code):
            assert time.monotonic() < deadline, f"waited in vain for {code}"
            await asyncio.sleep(0.1)

    async def wait(self, text: str, seconds: float = 180.0) -> None:
        """Wait until the terminal has got this text, as a whole."""
        deadline = time.monotonic() + seconds
        while text.encode() not in self.drawn:
            await self.evaluate("1")  # what the page has got comes with the answer
            assert time.monotonic() < deadline, f"waited in vain for {text}\n{self.drawn[-3000:]!r}"
            await asyncio.sleep(0.05)

    async def picture(self, path: Path) -> None:
        told = await self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(told["data"]))


@contextlib.asynccontextmanager
async def chromium(where: Path, width: int = 1200, height: int = 800) -> AsyncIterator[Tab]:
    """A browser of its own with one empty page."""
    assert CHROMIUM is not None
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={where}", f"--window-size={width},{height}", "about:blank"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            port = await _port(where / "DevToolsActivePort")
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json") as answer:
                    pages = [page for page in await answer.json() if page["type"] == "page"]
                async with session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                    tab = Tab(socket)
                    for domain in ("Page", "Network", "Runtime"):
                        await tab.call(f"{domain}.enable")
                    yield tab
        finally:
            process.terminate()


async def _port(path: Path, seconds: float = 180.0) -> int:
    deadline = time.monotonic() + seconds
    while not (path.is_file() and (lines := path.read_text().split())):
        assert time.monotonic() < deadline, "Chromium does not start"
        await asyncio.sleep(0.05)
    return int(lines[0])
