"""One thread for each operation, here and in subprocesses: small models on a shared machine are quickest so."""

from __future__ import annotations

import datetime
import os
import zlib

import pytest
from hypothesis import HealthCheck, settings

# What takes long on a machine that is busy with something else is no fault.
settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("here")

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported by any test


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of the slow tests a fifth is run, another one each day; all of them where they are asked for by mark or by name."""
    if config.option.markexpr or any("::" in argument for argument in config.args):
        return
    today = datetime.date.today().toordinal()
    for item in items:
        if item.get_closest_marker("slow") and (zlib.crc32(item.nodeid.encode()) + today) % 5:
            item.add_marker(pytest.mark.skip(reason="slow, and not of today's sample: pytest -m slow runs all"))
