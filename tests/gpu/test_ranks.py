"""Several processes on GPUs, held to the tutorial's loop on the whole batch.

Each has a GPU of its own and NCCL where there are two or more; on a machine with one GPU two processes share it, over gloo.
"""

from __future__ import annotations

import copy
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from engine.distributed import normalized
from engine.run import Journal
from tests.engine import ranks
from tests.engine.processes import ended, started
from tests.engine.test_ranks import by_hand, close, launch

GPUS = torch.cuda.device_count()
WHERE = {"device": "cuda", "backend": ""} if GPUS > 1 else {"device": "cuda:0", "backend": "gloo"}
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.real("several processes would each simulate one"),
    pytest.mark.skipif(GPUS < 1, reason="needs a GPU"),
]
with_their_own = pytest.mark.skipif(GPUS < 2, reason=f"needs two GPUs or more, there are {GPUS}")


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Any:
    cases = "classes", "accumulated", "normalized", "aside_overlapped", "streamed", "told", "broken"
    return launch(max(2, GPUS), tmp_path_factory.mktemp("ranks"), *cases, **WHERE)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return launch(GPUS, tmp_path_factory.mktemp("shards"), "sharded", "normalized_sharded", device="cuda")


def test_the_loss_and_the_step_are_those_of_the_whole_batch(several: Any) -> None:
    torch.manual_seed(1)
    aside = ranks.Aside(aside=False).double()
    for case, net, loss, batches in (
        ("classes", ranks.model(), ranks.weighted(), 1),
        ("accumulated", ranks.model(), ranks.weighted(), 3),
        ("aside_overlapped", aside, nn.CrossEntropyLoss(), 1),
        ("streamed", ranks.model(), nn.CrossEntropyLoss(), 1),
    ):
        losses, weights = by_hand(net, loss, batch_size=batches * ranks.BATCH)
        for seen in several(case):
            assert seen["losses"] == close(losses), case
            assert seen["weights"] == close(weights), case


def test_a_batch_is_normalized_as_a_whole(several: Any, tmp_path: Path) -> None:
    """Of whose last samples some ranks have none."""
    one = ranks.normalized(tmp_path)  # in this process alone, on the CPU
    for seen in several("normalized"):
        assert seen["losses"] == close(one["losses"])
        assert seen["weights"] == close(one["weights"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("affine", [True, False])
def test_a_layer_gives_and_passes_back_what_torchs_does(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, affine: bool
) -> None:
    monkeypatch.setattr(normalized, "processes", lambda: SimpleNamespace(count=1, rank=0, summing=lambda tensor: lambda: None))
    monkeypatch.setattr(normalized.Joined, "samples", 8, raising=False)
    monkeypatch.setattr(normalized.Joined, "mine", 8, raising=False)
    theirs = nn.BatchNorm2d(16, affine=affine).to("cuda", torch.float64 if dtype == torch.float64 else torch.float32)
    ours = copy.deepcopy(theirs)
    ours.__class__ = normalized.joined(nn.BatchNorm2d)
    inputs = (3 * torch.randn(8, 16, 14, 14, device="cuda") + 10).to(dtype, memory_format=torch.channels_last)
    passed, found = torch.randn_like(inputs), []
    for layer in (theirs, ours):
        given = inputs.clone().requires_grad_()
        output = layer(given)
        output.backward(passed)
        found.append([output, given.grad, layer.running_mean, layer.running_var, *(p.grad for p in layer.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one)


def test_ranks_agree_on_what_one_is_asked_and_on_a_broken_step(several: Any) -> None:
    for case, state in (("told", "stopped"), ("broken", "failed")):
        first, *others = several(case)
        assert first["state"] == state
        assert all(other["step"] == first["step"] and other["weights"] == first["weights"] for other in others)


@with_their_own
def test_sharded_ranks_agree(shards: Any, tmp_path: Path) -> None:
    first, *others = shards("sharded")
    assert first["state"] == "finished"
    assert all(other["losses"] == first["losses"] and other["weights"] == first["weights"] for other in others)
    one = ranks.normalized(tmp_path, ema=0.0)
    for seen in shards("normalized_sharded"):  # whose images lie with their channels last
        assert seen["weights"] == close(one["weights"])


@with_their_own
def test_a_rank_that_is_killed_ends_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which may wait on their GPUs for what it does not send any more."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    Path("net.py").write_text(
        "import os\nfrom torch import nn\n\n\nclass Net(nn.Linear):\n    calls = 0\n\n"
        "    def __init__(self, input_shape, output_size):\n        super().__init__(input_shape[0], output_size)\n\n"
        "    def forward(self, x):\n        self.calls += self.training\n"
        "        if self.calls == 40 and os.environ.get('RANK') == '1':\n"
        f"            os.kill(os.getpid(), {signal.SIGKILL:d})\n        return super().forward(x)\n"
    )
    with started("train", "--data", "iris", "--model", "net.py:Net", "--epochs", "100000", "--processes", "2") as process:
        status, _, err = ended(process)
    assert status == 1 and "rank 1 (process" in err, err
    (journal,) = tmp_path.glob("runs/*/journal.jsonl")
    end = Journal.end(journal)
    assert end is not None and end.state == "failed"
