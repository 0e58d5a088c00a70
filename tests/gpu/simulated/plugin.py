"""`python -m pytest -p tests.gpu.simulated.plugin tests/gpu`: the tests of a GPU on a simulated one."""

from __future__ import annotations

from tests.gpu.simulated.build import load

load()

import pytest  # noqa: E402

from engine.execution import whole  # noqa: E402
from tests.gpu.simulated.cuda import start  # noqa: E402

start()
whole.BURST = 5.0  # seconds: what takes a GPU microseconds takes the host milliseconds


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", "ignore:An output with one or more elements was resized")  # by torch's own losses


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is marked `real` needs a real one."""
    for item in items:
        if (mark := item.get_closest_marker("real")) is not None:
            item.add_marker(pytest.mark.skip(reason=f"needs a real GPU: {mark.args[0]}"))
