"""control.jsonl: how a run is steered from another process. Who steers appends lines; the trainer reads them as it goes."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.changes import Change, change_from
from engine.control import Control
from engine.errors import EpochalError, RunError, nearest, plain
from engine.run import files, strict_json

ASKS = ("pause", "resume", "stop", "checkpoint", "validate", "set")
LONGEST = 8192  # bytes of a line
AT_ONCE = 1 << 16  # bytes that are worked on between two steps; the rest waits
LONG = 400  # characters of a problem
TOLD = 10  # problems that are told one by one


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One line: `change` is that of "set", `reason` that of "stop"."""

    ask: str
    reason: str = ""
    change: Change | None = None


def tell(path: Path, ask: str, **values: Any) -> None:
    """Append one request. stop: reason; set: field, value, times, as `engine.changes.change_from` takes them.

    RunError, in one sentence, when it is no request or the disk does not take it.
    """
    line = {"time": time.time(), "ask": ask, **values}
    try:
        _request(line)
        data = strict_json.encode(line) + b"\n"
        if len(data) > LONGEST:
            raise ValueError(f"a request of {len(data)} bytes is too long")
    except (EpochalError, ValueError, TypeError, RecursionError) as error:
        raise RunError(str(error)) from None
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            size = os.fstat(descriptor).st_size
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"  # by a disk that was full, say
            files.append(descriptor, b"\n" * torn + data)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise RunError(f"{path} can't be written: {error.strerror}") from error


class Inbox:
    """Reads what is asked from now on: requests that are there already were meant for an earlier process."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._to_the_end()

    def _to_the_end(self) -> None:
        self._line = 1  # number of the line that begins, or goes on, at `_offset`
        self._offset = 0
        self._begun = b""  # of a line whose end is not there yet
        self._ignored = False  # whether that line is too long, or began before this inbox
        try:
            with self.path.open("rb") as file:
                while part := file.read(AT_ONCE):
                    self._line += part.count(b"\n")
                    self._offset += len(part)
                    self._ignored = not part.endswith(b"\n")
        except OSError:  # not there yet
            pass

    def take(self) -> tuple[list[Request], list[str]]:
        """(requests, problems) of the whole lines since the last time; a problem is a sentence on a line that is no request."""
        try:
            with self.path.open("rb", buffering=0) as file:  # a network file system looks for what is new when a file is opened
                size = os.fstat(file.fileno()).st_size
                if size == self._offset:
                    return [], []
                file.seek(self._offset)
                data = file.read(AT_ONCE) if size > self._offset else b""
                while self._ignored and data and b"\n" not in data and size - self._offset > AT_ONCE:
                    self._offset += len(data)
                    data = file.read(AT_ONCE)
            if size < self._offset:  # what is left was read before, or nobody knows: to carry it out again would be worse
                cut = self._offset
                self._to_the_end()
                return [], [f"{self.path.name} was cut from {cut} to {size} bytes; what is asked from now on counts"]
        except FileNotFoundError:
            self._to_the_end()
            return [], []
        except OSError as error:
            return [], [f"{self.path.name} can't be read: {error.strerror}"]
        self._offset += len(data)
        return self._sorted(data)

    def _sorted(self, data: bytes) -> tuple[list[Request], list[str]]:
        requests: list[Request] = []
        problems: list[str] = []
        *lines, begun = data.split(b"\n")
        for line in lines:
            whole = self._begun + line
            if not self._ignored and len(whole) > LONGEST:
                problems.append(self._problem("longer than any request"))
            elif not self._ignored and whole.strip():
                try:
                    requests.append(_read(whole))
                except (EpochalError, ValueError, TypeError, RecursionError) as error:
                    problems.append(self._problem(str(error)))
            self._line += 1
            self._begun, self._ignored = b"", False
        self._begun += begun
        if len(self._begun) > LONGEST and not self._ignored:
            problems.append(self._problem("longer than any request"))
            self._ignored = True
        if self._ignored:
            self._begun = b""
        if len(problems) > TOLD:
            problems[TOLD:] = [f"{self.path.name}: {len(problems) - TOLD} more lines that are no requests"]
        return requests, problems

    def _problem(self, text: str) -> str:
        shown = plain(text)
        return f"{self.path.name}, line {self._line}: {shown[:LONG]}{'…' if len(shown) > LONG else ''}"


def deliver(inbox: Inbox, control: Control) -> list[str]:
    """Hand what was asked to `control`, in its order; the problems."""
    requests, problems = inbox.take()
    for request in requests:
        match request.ask:
            case "set":
                assert request.change is not None
                control.change(request.change)
            case "stop":
                control.stop(request.reason or "stopped from another process")
            case ask:
                getattr(control, ask)()
    return problems


def _read(line: bytes) -> Request:
    values = strict_json.parse(line)
    if not isinstance(values, dict):
        raise ValueError("not a request")
    return _request(values)


def _request(values: dict[str, Any]) -> Request:
    """The request of a line's values. ValueError or RecipeError, in one sentence, for anything else."""
    ask, reason = values.get("ask"), values.get("reason", "")
    if not isinstance(ask, str):
        raise ValueError("not a request: it does not say what is asked")
    if ask not in ASKS:
        raise ValueError(f"{ask[:50]!r} can't be asked of a run: {', '.join(ASKS)}{nearest(ask[:50], ASKS)}")
    if not isinstance(reason, str):
        raise ValueError(f"the reason is {reason!r}, not a text")
    return Request(ask=ask, reason=plain(reason), change=change_from(values) if ask == "set" else None)
