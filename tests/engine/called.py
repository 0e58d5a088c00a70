"""A command line, called in this process."""

from __future__ import annotations

import pytest

from engine.cli import main

QUICK = ["--set", "data.name=iris", "--set", "model.hidden=[8]", "--set", "checkpoint.min_seconds=0", "--epochs", "2"]
Capture = pytest.CaptureFixture[str]


def called(capsys: Capture, *arguments: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error."""
    status = main(list(arguments))
    captured = capsys.readouterr()
    return status, captured.out, captured.err
