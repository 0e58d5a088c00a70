"""Several processes, each with a GPU of its own, over NCCL: held to the tutorial's loop on the whole batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.engine import ranks
from tests.engine.test_ranks import by_hand, close, launch

GPUS = torch.cuda.device_count()
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(GPUS < 2, reason=f"needs two GPUs or more, there are {GPUS}"),
]


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return launch(GPUS, tmp_path_factory.mktemp("ranks"), "classes", "sharded", "streamed", "told", "broken", device="cuda")


def test_the_loss_and_the_step_are_those_of_the_whole_batch(several: Any) -> None:
    for case, loss in (("classes", ranks.weighted()), ("streamed", nn.CrossEntropyLoss())):
        losses, weights = by_hand(ranks.model(), loss)
        for seen in several(case):
            assert seen["losses"] == close(losses)
            assert seen["weights"] == close(weights)


def test_sharded_ranks_agree(several: Any) -> None:
    first, *others = several("sharded")
    assert first["state"] == "finished"
    assert all(other["losses"] == first["losses"] and other["weights"] == first["weights"] for other in others)


def test_ranks_agree_on_what_one_is_asked_and_on_a_broken_step(several: Any) -> None:
    for case, state in (("told", "stopped"), ("broken", "failed")):
        first, *others = several(case)
        assert first["state"] == state
        assert all(other["step"] == first["step"] and other["weights"] == first["weights"] for other in others)
