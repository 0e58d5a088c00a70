"""Data workers inside the console: they start in every way that torch starts them, and what they print stays off the screen."""

from __future__ import annotations

import pytest

from engine.run import Run
from tests.terminal.conftest import REPOSITORY, Tmux, only_run, recipe, the_end_of

OWN = """
import torch, torch.multiprocessing, torch.utils.data
torch.multiprocessing.set_start_method("{method}", force=True)

class Numbers(torch.utils.data.Dataset):
    classes = ["even", "odd"]

    def __len__(self):
        return 64

    def __getitem__(self, index):
        worker = torch.utils.data.get_worker_info()
        if worker is not None:
            print(f"printed by worker {{worker.id}}", flush=True)
        return torch.full((4,), index / 64), torch.tensor(index % 2)

def numbers():
    return Numbers()
"""
RECIPE = """
name = "workers"
[data]
name = "own:numbers"
workers = 2
batch_size = 16
[training]
epochs = 2
threads = 1
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_data_workers_in_the_console(tmux: Tmux, epochal: str, method: str) -> None:
    (tmux.where / "own.py").write_text(OWN.format(method=method))
    path = f"PYTHONPATH={tmux.where}:{REPOSITORY}"  # workers that are spawned import the module anew
    tmux.open(f"{path} {epochal} {recipe(tmux.where, RECIPE)}", 120, 40)
    tmux.wait("recipe.toml", "ready")
    tmux.press("r")
    screen = tmux.wait("finished", "all 2 epochs done")
    assert "Traceback" not in screen
    run: Run = only_run(tmux.where)
    assert {"printed by worker 0", "printed by worker 1"} <= set(run.output_path.read_text().splitlines())
    tmux.press("q")
    shown = tmux.wait("status 0")
    assert the_end_of(run).state == "finished"
    assert "printed by" not in shown.partition("status 0")[0]
