"""The terminal's clipboard, by OSC 52: it travels through SSH and, where they let it, through tmux and screen."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping

LIMIT = 74_994  # bytes of base64 that terminals take at least, those that take any
_PIECE = 700  # of a sequence that screen passes on


def osc52(text: str, environment: Mapping[str, str]) -> str:
    """What makes the terminal copy `text`; nothing where that is more than one takes."""
    coded = b64encode(text.encode("utf-8", "replace")).decode()
    if len(coded) > LIMIT:
        return ""
    code = f"\x1b]52;c;{coded}\x07"
    if environment.get("TMUX"):  # tmux itself takes it with `set-clipboard on`, and passes it on with `allow-passthrough on`
        return code + "\x1bPtmux;" + code.replace("\x1b", "\x1b\x1b") + "\x1b\\"
    if environment.get("STY"):
        return "".join(f"\x1bP{code[i : i + _PIECE]}\x1b\\" for i in range(0, len(code), _PIECE))
    return code
