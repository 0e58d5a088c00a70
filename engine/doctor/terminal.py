"""What the terminal can show, and what stands between it and this process."""

from __future__ import annotations

import contextlib
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping

from engine.doctor import Finding

SMALL = (80, 24)  # below that the console draws one line
SECONDS = 0.5  # that a terminal may take to answer
NO_CLIPBOARD = {"Apple_Terminal": "Terminal.app"}  # by TERM_PROGRAM
_BRAILLE = "⣿★"  # two cells where they are known
_PLACE = re.compile(rb"\x1b\[(\d+);(\d+)R")


def findings(environment: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Size, colours, characters, clipboard; tmux, screen and SSH by what they change."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        yield Finding("terminal", "ok", "none here: the command line prints plain rows, and the console needs one")
        return
    term = environment.get("TERM", "")
    if term in ("", "dumb", "unknown"):
        yield Finding("terminal", "problem", f"TERM is {term!r}: the console can't draw on that", "TERM=xterm-256color")
        return
    yield _size()
    yield colours(environment)
    yield _characters(environment)
    yield clipboard(environment)
    if environment.get("SSH_CONNECTION") and environment.get("EPOCHAL_LINK", "auto") == "auto":
        text = "SSH: the console draws once a second in 256 colours, at most 4 KB/s"
        yield Finding("terminal", "ok", text, "EPOCHAL_LINK=fast where the connection is quick")


def colours(environment: Mapping[str, str]) -> Finding:
    """How many the console will use."""
    term = environment["TERM"]
    if environment.get("NO_COLOR"):
        return Finding("terminal", "ok", f"{term}: NO_COLOR is set, and the console draws without colours")
    if environment.get("COLORTERM", "") in ("truecolor", "24bit"):
        return Finding("terminal", "ok", f"{term}: 16 million colours")
    if term.endswith("-direct"):
        return Finding("terminal", "ok", f"{term}: 16 million colours")
    if "256" in term:
        remedy = "COLORTERM=truecolor where the terminal has all of them (through SSH: SendEnv COLORTERM)"
        return Finding("terminal", "ok", f"{term}: 256 colours", remedy)
    remedy = "TERM=tmux-256color or screen-256color" if term in ("screen", "tmux") else "TERM=xterm-256color where it has more"
    return Finding("terminal", "warning", f"{term}: 16 colours, which the console makes do with", remedy)


def clipboard(environment: Mapping[str, str]) -> Finding:
    """Whether k in the console can reach the terminal's clipboard (OSC 52); no terminal says so itself."""
    if name := NO_CLIPBOARD.get(environment.get("TERM_PROGRAM", "")):
        return Finding("terminal", "warning", f"{name} has no OSC 52: k copies nothing", "another terminal, or select by mouse")
    if environment.get("TMUX"):
        told = {option: _tmux(option) for option in ("set-clipboard", "allow-passthrough")}
        if told["set-clipboard"] == "on" or told["allow-passthrough"] in ("on", "all"):
            return Finding("terminal", "ok", "tmux passes on what k copies (OSC 52)")
        text = f"tmux has set-clipboard {told['set-clipboard'] or 'unknown'}: what k copies (OSC 52) stays within it"
        return Finding("terminal", "warning", text, "tmux set -g set-clipboard on; notifications need allow-passthrough on")
    through = "screen, which passes on short texts" if environment.get("STY") else "the terminal, where that allows it"
    return Finding("terminal", "ok", f"k copies through {through} (OSC 52)")


def _size() -> Finding:
    columns, rows = os.get_terminal_size(sys.stdout.fileno())
    if columns < SMALL[0] or rows < SMALL[1]:
        remedy = "make the window larger, or its font smaller"
        return Finding("terminal", "warning", f"{columns}x{rows}: below 80x24 the console draws one line", remedy)
    return Finding("terminal", "ok", f"{columns}x{rows}")


def _characters(environment: Mapping[str, str]) -> Finding:
    """By the locale, then by the terminal itself: how far the cursor moves over two of them."""
    plain = "EPOCHAL_ASCII=1 draws with plain characters"
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    if environment.get("EPOCHAL_ASCII", "0") not in ("", "0"):
        return Finding("terminal", "ok", "EPOCHAL_ASCII is set: plain characters alone")
    if encoding != "utf8":
        return Finding("terminal", "warning", f"the locale's encoding is {sys.stdout.encoding}, no UTF-8", "LANG=C.UTF-8")
    if environment["TERM"] == "linux":
        return Finding("terminal", "ok", "Linux's own console has no braille: plain characters alone, unless EPOCHAL_ASCII=0")
    width = drawn_width()
    if width is None:
        return Finding("terminal", "ok", "UTF-8 by the locale (the terminal does not say how wide it draws braille)")
    if width != len(_BRAILLE):
        text = f"{_BRAILLE} takes {width} cells in this terminal and must take {len(_BRAILLE)}: charts will be torn"
        return Finding("terminal", "warning", text, plain)
    return Finding("terminal", "ok", "UTF-8, and braille is as wide as it must be")


def drawn_width() -> int | None:
    """Cells that the terminal's cursor moves over braille and a star; None where it does not answer."""
    import termios
    import tty

    reading, writing = sys.stdin.fileno(), sys.stdout.fileno()
    try:
        before = termios.tcgetattr(reading)
    except termios.error:
        return None
    try:
        tty.setraw(reading, termios.TCSANOW)
        sys.stdout.flush()
        os.write(writing, f"\r{_BRAILLE}\x1b[6n".encode())
        said, deadline = b"", time.monotonic() + SECONDS
        while (left := deadline - time.monotonic()) > 0 and select.select([reading], [], [], left)[0]:
            said += os.read(reading, 64)
            if found := _PLACE.search(said):
                return int(found[2]) - 1
    except OSError:
        pass
    finally:
        with contextlib.suppress(OSError):
            os.write(writing, b"\r\x1b[K")
        termios.tcsetattr(reading, termios.TCSAFLUSH, before)
    return None


def _tmux(option: str) -> str:
    try:
        done = subprocess.run(["tmux", "show-options", "-gqv", option], capture_output=True, text=True, timeout=1, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
