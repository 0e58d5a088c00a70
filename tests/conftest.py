"""The same everywhere: examples, environment, and one thread for each operation, here and in subprocesses.

Small models on a shared machine are quickest with one.
"""

from __future__ import annotations

import datetime
import gc
import os
import tempfile

import pytest
from hypothesis import HealthCheck, settings

# The same examples each time, unless new ones are asked for; and what takes long on a busy machine is no fault.
NEW = "EPOCHAL_FUZZ" in os.environ
settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=not NEW)
settings.load_profile("here")

# What a person, a terminal or a scheduler has set is for other runs.
OURS = ("EPOCHAL_FUZZ", "EPOCHAL_WRITE_SNAPSHOTS", "EPOCHAL_TEST_DEVICE")
for name in [*os.environ]:
    theirs = name.startswith(("EPOCHAL_", "SLURM_", "TORCHELASTIC_", "TEXTUAL")) and name not in OURS
    if theirs or name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "SSH_CONNECTION", "TMUX", "STY", "VTE_VERSION"):
        del os.environ[name]
SETTINGS = tempfile.TemporaryDirectory(prefix="epochal-tests-")
os.environ |= {"EPOCHAL_CONFIG": SETTINGS.name, "TERM": "xterm-256color"}
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported by any test
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # each of some hundred processes would compile the engine anew
gc.set_threshold(5000)  # beside all that torch and pytest keep, a look for waste after each 700 objects is a fifth of the time


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of the slow tests every tenth is run, others each day; all of them where they are asked for by mark or by name."""
    if config.option.markexpr or any("::" in argument for argument in config.args):
        return
    today = datetime.date.today().toordinal()
    slow = sorted((item for item in items if item.get_closest_marker("slow")), key=lambda item: item.nodeid)
    for number, item in enumerate(slow):
        if (number + today) % 10:
            item.add_marker(pytest.mark.skip(reason="slow, and not of today's sample: pytest -m slow runs all"))


def pytest_unconfigure() -> None:
    SETTINGS.cleanup()  # a worker of xdist whose own end takes long is killed
