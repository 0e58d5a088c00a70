"""`epochal serve`: the console in a browser, each page a console of its own at a pseudo-terminal.

textual-serve brings the page's terminal and its protocol. A page that closes hangs its terminal up, and so a training goes on
without it as it does without any other; the next page opens on the run at work.
"""

from __future__ import annotations

import argparse
import errno
import ipaddress
import os
import secrets
import socket
import sys
from collections.abc import Callable, Sequence
from urllib.parse import quote

from engine.cli.options import Formatter, Parser
from engine.cli.output import Stream, told
from engine.errors import EpochalError, plain
from engine.preferences import directory

PORT = 8000
LEAST = 16  # characters of a token that a person gives


def main(arguments: Sequence[str]) -> int:
    """Serve until Ctrl-C or SIGTERM. Returns the exit status: 0, or 2 for a mistake, told in one sentence."""
    return told(lambda out: serve(make_parser().parse_args(arguments), out))


def make_parser() -> Parser:
    """What the command understands."""
    parser = Parser(
        prog="epochal serve",
        allow_abbrev=False,
        formatter_class=Formatter,
        description="Show the console in a browser. Closing the page leaves a training to itself; the next page opens on it.",
        epilog="From elsewhere: ssh -L 8000:localhost:8000 HOST, and the link in the browser there.",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS", help="whom to listen to; left out: this machine alone"
    )
    parser.add_argument("--port", type=_port, default=PORT, metavar="N", help=f"left out: {PORT}; 0: any that is free")
    parser.add_argument("--runs", metavar="DIR", help="where runs are kept; left out: $EPOCHAL_RUNS, else ./runs")
    parser.add_argument(
        "--no-token", action="store_true", help="let in whoever can reach the port, which only this machine's users may"
    )
    return parser


def serve(arguments: argparse.Namespace, out: Stream) -> None:
    """Listen, say where, and serve. EpochalError."""
    try:
        import textual_serve  # noqa: F401
    except ImportError as error:
        raise EpochalError('epochal serve needs textual-serve: pip install "epochal[serve]"') from error
    from tui.pages import Pages

    given = os.environ.get("EPOCHAL_TOKEN", "")
    if 0 < len(given) < LEAST:
        raise EpochalError(f"EPOCHAL_TOKEN has {len(given)} characters and must have at least {LEAST}")
    listening = listen(arguments.host, arguments.port)
    host, port = listening.getsockname()[:2]
    local = ipaddress.ip_address(host).is_loopback
    if arguments.no_token and not local:
        listening.close()
        raise EpochalError(f"--no-token is for this machine alone, and --host {arguments.host} lets others in: leave one out")
    token = "" if arguments.no_token else given or secrets.token_urlsafe(24)
    link = f"http://{_named(host)}:{port}/" + (f"?token={quote(token, safe='')}" if token else "")
    _tell(link, bool(token), local, port, out)
    Pages(console_command(arguments.runs), token, port, local=local).serve_on(listening)
    out.line("the serving has ended; trainings go on")


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there. EpochalError in one sentence."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server((str(address[0]), port), family=family)
    except socket.gaierror:
        raise EpochalError(f"--host is {plain(repr(host))}, which is no address of this machine") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            text = f"port {port} is taken on {plain(host)}: --port names another, 0 is any that is free"
        elif error.errno == errno.EADDRNOTAVAIL:
            text = f"--host is {plain(repr(host))}, which is no address of this machine"
        else:
            text = f"port {port} of {plain(host)} can't be listened on: {error.strerror}"
        raise EpochalError(text) from None


def console_command(runs: str | None) -> Callable[[], list[str]]:
    """Gives the command of a page that opens now: on the newest run at work, else the form."""

    def command() -> list[str]:
        from engine.run import Run, runs_root
        from engine.run.status import ALIVE

        where = ["--runs", runs] if runs is not None else []
        found = Run.list(runs_root(runs))
        opening = ["attach", str(found[0].path)] if found and found[0].state in ALIVE else ["console"]
        return [sys.executable, "-P", "-m", "tui", *opening, *where]

    return command


def _tell(link: str, secret: bool, local: bool, port: int, out: Stream) -> None:
    """Where it is. A link with a token goes to a terminal, else into a file that only its owner reads."""
    if secret and not out.isatty():
        path = directory() / f"serve-{port}.link"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(link + "\n")
        except OSError as error:
            raise EpochalError(f"the link can't be written to {path}: {error.strerror}; EPOCHAL_TOKEN gives a token") from error
        link = f"the link in {path}"
    out.line(f"the console is at {link}")
    if not local:
        out.line("others on the network can read what is typed and shown (http): ssh -L is safer, see --help")
    out.line("Ctrl-C ends the serving; trainings go on")


def _named(host: str) -> str:
    address = ipaddress.ip_address(host)
    if address.is_unspecified:
        return socket.gethostname()
    return f"[{host}]" if address.version == 6 else host


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"it is {text!r} and must be a whole number from 0 to 65535")
    return int(text)
