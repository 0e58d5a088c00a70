"""One thread for each operation, here and in subprocesses: small models on a shared machine are quickest so."""

from __future__ import annotations

import datetime
import os
import zlib

import pytest
from hypothesis import HealthCheck, settings

# The same examples each time, unless new ones are asked for; and what takes long on a busy machine is no fault.
NEW = "EPOCHAL_FUZZ" in os.environ
settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=not NEW)
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
