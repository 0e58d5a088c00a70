"""The pages of `epochal serve`: who is let in, and the console at the pseudo-terminal behind each."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import html
import ipaddress
import os
import pty
import secrets
import signal
import struct
import termios
from collections.abc import Awaitable, Callable
from pathlib import Path
from socket import socket
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.web_runner import GracefulExit
from textual_serve.server import Server, to_int

SIZE = 65536  # bytes that are read from a terminal at once
SECONDS = 10.0  # that a console has to end when its page has gone
LAST = 0.1  # for what was drawn last
# What stands for another terminal than the page, and what the console need not know.
_OTHERS = ("TMUX", "TMUX_PANE", "STY", "WINDOW", "VTE_VERSION", "TERM_PROGRAM", "TERM_PROGRAM_VERSION", "COLUMNS", "LINES")
_HIDDEN = (*_OTHERS, "EPOCHAL_TOKEN")
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self' ws: wss:; frame-ancestors 'none'; form-action 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
_HERE = Path(__file__).parent
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Pages(Server):
    """textual-serve's server with a guard before it, and a pseudo-terminal behind each page.

    Let in is who has the token (in the link, then in a cookie; "" is none), by the name of this machine where it serves that
    alone (else a page of another site could reach it by a name that leads here), and only from its own page.
    """

    def __init__(self, command: Callable[[], list[str]], token: str, port: int, *, local: bool) -> None:
        super().__init__("epochal", port=port)
        self._console = command
        self._token = token
        self._local = local
        self._cookie = f"epochal-{port}"  # cookies know of no ports
        self._open: set[web.WebSocketResponse] = set()

    def serve_on(self, listening: socket) -> None:
        """Serve until SIGINT or SIGTERM."""
        loop = asyncio.new_event_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.request_exit)
        with contextlib.suppress(GracefulExit):
            web.run_app(
                self._make_app(),
                sock=listening,
                handle_signals=False,
                loop=loop,
                print=None,
                access_log=None,  # it would hold the token
                shutdown_timeout=1.0,
            )

    async def _make_app(self) -> web.Application:
        app = web.Application(middlewares=[self._guard])
        app.add_routes(
            [
                web.get("/", self.handle_index),
                web.get("/page.js", self.handle_script),
                web.get("/ws", self.handle_websocket),
                web.static("/static", self.statics_path),
            ]
        )
        app.on_shutdown.append(self.on_shutdown)
        return app

    async def on_shutdown(self, app: web.Application) -> None:
        """The pages' terminals hang up."""
        for page in list(self._open):
            await page.close()

    @property
    def _guard(self) -> Any:
        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            if refusal := self._refusal(request):
                return web.Response(status=403, text=f"epochal: {refusal}\n", headers=_HEADERS)
            if self._token and self._knows(request.query.get("token", "")):
                answer: web.StreamResponse = web.Response(
                    status=303, headers={**_HEADERS, "Location": "/"}
                )  # out of the history
                answer.set_cookie(self._cookie, self._token, httponly=True, samesite="Strict", secure=_secure(request))
                return answer
            answer = await handler(request)
            if not answer.prepared:
                answer.headers.update(_HEADERS)
            return answer

        return guard

    def _refusal(self, request: web.Request) -> str:
        """Why this request is not answered, or ""."""
        if self._local and not _is_here(request.host):
            return "this machine is served by the name of localhost alone"
        if request.path == "/ws" and urlsplit(request.headers.get("Origin", "")).netloc != request.host:
            return "a console is for its own page alone"
        cookie = request.cookies.get(self._cookie, "")
        if (
            self._token
            and not self._knows(cookie)
            and not (request.path == "/" and self._knows(request.query.get("token", "")))
        ):
            return "open the link that epochal serve has printed; it has a token, which this request lacks"
        return ""

    def _knows(self, token: str) -> bool:
        return secrets.compare_digest(token.encode("utf-8", "replace"), self._token.encode())

    async def handle_index(self, request: web.Request) -> web.StreamResponse:  # type: ignore[override]
        """The page."""
        values = {
            "socket": f"{'wss' if _secure(request) else 'ws'}://{request.host}/ws",
            "size": str(max(6, min(to_int(request.query.get("fontsize", "16"), 16), 72))),
        }
        text = (_HERE / "page.html").read_text(encoding="utf-8")
        for name, value in values.items():
            text = text.replace(f"{{{{ {name} }}}}", html.escape(value))
        return web.Response(text=text, content_type="text/html")

    async def handle_script(self, request: web.Request) -> web.StreamResponse:
        """What the page does besides textual-serve's own script."""
        return web.FileResponse(_HERE / "page.js")

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        """A page: its keys to a console of its own, and what that draws to the page, until one of the two ends."""
        page = web.WebSocketResponse(heartbeat=15)
        await page.prepare(request)
        self._open.add(page)
        try:
            terminal = PageTerminal(await asyncio.to_thread(self._console), page)
            await terminal.start(_cells(request, "width", 80), _cells(request, "height", 24))
            drawing = asyncio.create_task(terminal.draw())
            try:
                await self._process_messages(page, terminal)  # type: ignore[arg-type]
            finally:
                await terminal.hang_up()
                await drawing
        finally:
            self._open.discard(page)
        return page


class PageTerminal:
    """A command at a pseudo-terminal, drawn in a page."""

    def __init__(self, command: list[str], page: web.WebSocketResponse) -> None:
        self._command = command
        self._page = page
        self._end = -1
        self._process: asyncio.subprocess.Process
        self._reader = asyncio.StreamReader(SIZE)
        self._transport: asyncio.ReadTransport
        self._watching: asyncio.Task[None]

    async def start(self, width: int, height: int) -> None:
        """Start the command in a session of its own, whose terminal this is."""
        self._end, theirs = pty.openpty()
        try:
            self._resize(width, height)
            environment = {key: value for key, value in os.environ.items() if key not in _HIDDEN}
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
                env={**environment, "TERM": "xterm-256color", "COLORTERM": "truecolor"},
                start_new_session=True,
                preexec_fn=_take_terminal,
            )
        finally:
            os.close(theirs)
        loop = asyncio.get_running_loop()
        file = os.fdopen(os.dup(self._end), "rb", buffering=0)
        protocol = asyncio.StreamReaderProtocol(self._reader)
        self._transport, _ = await loop.connect_read_pipe(lambda: protocol, file)
        self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        """The command has ended: what it began may have the terminal open for long, as a training that was detached from."""
        await self._process.wait()
        await asyncio.sleep(LAST)
        self._transport.close()

    async def draw(self) -> None:
        """Send what is drawn to the page, no faster than it takes it; close the page when there is no more."""
        with contextlib.suppress(OSError):  # Linux tells so of a terminal that nobody has open any more
            while drawn := await self._reader.read(SIZE):
                await self._page.send_bytes(drawn)
        await self._page.close()

    async def hang_up(self) -> None:
        """Take the terminal away. The console ends; if it trains, its launcher does, and the training goes on."""
        self._watching.cancel()
        self._transport.close()
        end, self._end = self._end, -1
        os.close(end)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), SECONDS)

    # What textual-serve calls for the page's messages.

    async def send_bytes(self, data: bytes) -> None:
        """Keys, or a paste, which the terminal may take in pieces."""
        while data and self._end >= 0:
            try:
                data = data[os.write(self._end, data) :]
            except BlockingIOError:
                await asyncio.sleep(0.02)
            except OSError:
                return

    async def set_terminal_size(self, width: int, height: int) -> None:
        """The page has another size."""
        if self._end >= 0:
            self._resize(width, height)

    async def focus(self) -> None:
        """The page's terminal reports it itself, to who asks."""

    async def blur(self) -> None:
        """As `focus`."""

    def _resize(self, width: int, height: int) -> None:
        sides = (min(max(int(side), 1), 1000) for side in (height, width))
        fcntl.ioctl(self._end, termios.TIOCSWINSZ, struct.pack("HHHH", *sides, 0, 0))


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _cells(request: web.Request, name: str, default: int) -> int:
    return to_int(request.query.get(name, ""), default)


def _secure(request: web.Request) -> bool:
    return request.secure or request.headers.get("X-Forwarded-Proto") == "https"


def _is_here(host: str) -> bool:
    """Whether a Host header names this machine by its loopback address, at whatever port: it may be forwarded."""
    name = urlsplit(f"//{host}").hostname or ""
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
