"""--background: the run in a process and a session of its own, which needs neither this terminal nor this shell."""

from __future__ import annotations

import codecs
import contextlib
import io
import json
import os
import select
import shlex
import signal
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING

from engine.cli.output import Stream
from engine.errors import RunError
from engine.run.root import as_given
from engine.signals import handled

if TYPE_CHECKING:
    from engine.run import Run

_LOOK_SECONDS = 0.1


class Background:
    """Two processes from one: `process` is 0 in the new one, which trains, and its number in the one that was called.

    What the new one prints before the run has a directory is shown by the other, and stands in the run's output.log as well.
    It goes through a file, not a pipe: helpers that libraries start may keep it open for as long as the run lasts.
    """

    def __init__(self, out: Stream, err: Stream) -> None:
        try:
            self._printed: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        except OSError as error:
            raise RunError(f"can't start in the background: {error.strerror}") from error
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._shown = 0  # bytes of it that the person has seen
        self._reading, self._writing = os.pipe()
        out.flush()
        err.flush()
        self.process = os.fork()
        if self.process == 0:
            os.close(self._reading)
            self._leave(out, err)
        else:
            os.close(self._writing)

    # In the new process

    def _leave(self, out: Stream, err: Stream) -> None:
        os.setsid()
        nowhere = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nowhere, 0)
        os.close(nowhere)
        self._lead(self._printed.fileno())
        for stream in (out.terminal, err.terminal):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(line_buffering=True)  # in order with what C code prints

    def begun(self, run: Run | None, **besides: object) -> None:
        """The run has begun: what is printed goes into its output.log from here on, and the other process may end."""
        assert run is not None
        with self._printed, self._log(run.output_path) as log:
            sys.stdout.flush()
            sys.stderr.flush()
            with contextlib.suppress(OSError):  # a full disk: what was printed is not worth the run
                log.write(os.pread(self._printed.fileno(), os.fstat(self._printed.fileno()).st_size, 0))
            self._lead(log.fileno())
        with contextlib.suppress(OSError):  # it did not wait
            os.write(self._writing, json.dumps({"run": str(run.path), "pid": os.getpid(), **besides}).encode() + b"\n")
        os.close(self._writing)

    @staticmethod
    def _log(path: Path) -> IO[bytes]:
        try:
            return path.open("ab", buffering=0)
        except OSError as error:
            print(f"epochal: output.log can't be written: {error.strerror}", file=sys.stderr)
            return open(os.devnull, "ab", buffering=0)  # noqa: PTH123

    @staticmethod
    def _lead(descriptor: int) -> None:
        for number in (1, 2):
            os.dup2(descriptor, number)

    # In the process that was called

    def wait(self, arguments: Namespace, out: Stream, err: Stream) -> int:
        """Wait until the run has begun, and say where it is; or until it failed to, and return its exit status.

        A signal meanwhile is passed on.
        """
        with self._passing_signals():
            told = status = None
            while not told and status is None:
                if select.select([self._reading], [], [], _LOOK_SECONDS)[0]:
                    told = os.read(self._reading, 65536)
                if not told:
                    ended, code = os.waitpid(self.process, os.WNOHANG)
                    status = os.waitstatus_to_exitcode(code) if ended else None
                self._show(err)
        if told:
            self._tell(json.loads(told), arguments, out)
            return 0
        assert status is not None
        if status < 0:
            err.line(f"epochal: the training process was ended by {signal.Signals(-status).name} before the run had begun")
            return 128 - status
        return status

    def _show(self, err: Stream) -> None:
        """Show what was printed since the last time."""
        while printed := os.pread(self._printed.fileno(), 1 << 20, self._shown):
            self._shown += len(printed)
            err.write(self._decode(printed))
            err.flush()

    @staticmethod
    def _tell(told: dict[str, object], arguments: Namespace, out: Stream) -> None:
        told["run"] = as_given(str(told["run"]), arguments.runs)
        if arguments.json:
            out.line(json.dumps(told))
            return
        out.line(f"run       {told['run']}")
        if not arguments.quiet:
            out.line(f"process   {told['pid']}, in the background")
            out.line(f"attach    {arguments.prog} attach {shlex.quote(str(told['run']))}")
            if "job" in told:
                where = f" --runs {shlex.quote(arguments.runs)}" if arguments.runs else ""
                out.line(f"sweep     {arguments.prog} queue{where}; {arguments.prog} queue{where} stop {told['job']}")

    @contextlib.contextmanager
    def _passing_signals(self) -> Iterator[None]:
        def pass_on(number: int, _: FrameType | None) -> None:
            os.kill(self.process, number)

        with handled({signal.SIGINT: pass_on, signal.SIGTERM: pass_on}):
            yield
