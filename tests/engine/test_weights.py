"""Weights to start from: read without running anything, loaded whole or not at all, and named."""

from __future__ import annotations

import shutil
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from engine import Recipe, RecipeError, Trainer
from engine.assemble import assemble
from tests.engine import plain


def recipe(weights: Path | None, **changes: Any) -> Recipe:
    values = {"data.name": "iris", "model.hidden": [8], "training.epochs": 1, "training.device": "cpu", **changes}
    return Recipe().replace(**values, **({"training.weights": str(weights)} if weights else {}))


@pytest.fixture
def weights() -> dict[str, Tensor]:
    """Other than those that the recipe begins with."""
    return {name: tensor + 1 for name, tensor in assemble(recipe(None)).model.state_dict().items()}


@pytest.mark.parametrize(
    ("name", "wrap"),
    [
        ("w.safetensors", None),
        ("w.pt", lambda held: held),
        ("w.pth", OrderedDict),
        ("w.bin", lambda held: {"epoch": 3, "state_dict": held}),
        ("w.pt", lambda held: {"model_state_dict": {f"module.{name}": value for name, value in held.items()}}),
        ("w.pt", lambda held: {f"module._orig_mod.{name}": value for name, value in held.items()}),
    ],
)
def test_a_run_begins_with_them_and_says_so(tmp_path: Path, weights: dict[str, Tensor], name: str, wrap: Any) -> None:
    path = tmp_path / name
    if wrap is None:
        save_file(weights, path)
    else:
        torch.save(wrap(weights), path)
    parts = assemble(recipe(path))
    assert plain.same(parts.model.state_dict(), weights)
    assert any(str(path) in sentence for sentence in parts.warnings)


def test_an_earlier_runs_best(tmp_path: Path) -> None:
    first = Trainer.from_recipe(recipe(None, **{"training.epochs": 3}), runs=tmp_path).fit()
    assert first.run is not None
    best = first.run.checkpoints.read("best").tensors["model"]
    assert plain.same(assemble(recipe(first.run.path)).model.state_dict(), best)
    assert plain.same(assemble(recipe(first.run.path / "checkpoints" / "best")).model.state_dict(), best)


def test_a_resume_does_not_need_them_any_more(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    save_file(weights, tmp_path / "w.safetensors")
    first = Trainer.from_recipe(recipe(tmp_path / "w.safetensors"), runs=tmp_path / "runs").fit()
    (tmp_path / "w.safetensors").unlink()
    assert first.run is not None
    assert len(Trainer.resume(first.run.path, epochs=2).fit().history) == 2


class Runs:
    """Pickled, it makes a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (open, (self.path, "w"))


def test_a_file_that_could_run_something_is_not_read(tmp_path: Path) -> None:
    torch.save({"layers.1.weight": Runs(str(tmp_path / "ran"))}, tmp_path / "bad.pt")
    with pytest.raises(RecipeError, match=r"training.weights: .*bad.pt holds more than tensors"):
        assemble(recipe(tmp_path / "bad.pt"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "there is no file"), (b"", "is no file of weights"), (b"rubbish" * 99, "is no file of weights|more than tensors")],
)
@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_what_is_no_file_of_weights_is_one_sentence(tmp_path: Path, name: str, content: bytes | None, says: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(RecipeError, match=says) as caught:
        assemble(recipe(tmp_path / name))
    assert str(tmp_path / name) in str(caught.value) and len(caught.value.problems) == 1


def test_a_list_is_no_state_dict(tmp_path: Path) -> None:
    torch.save([torch.zeros(1)], tmp_path / "w.pt")
    with pytest.raises(RecipeError, match="a state dict is wanted, not list"):
        assemble(recipe(tmp_path / "w.pt"))


def test_e5_what_does_not_fit_is_listed(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    del weights["layers.1.bias"]
    weights["layers.1.weight"] = torch.zeros(3, 3)
    weights["more"] = torch.zeros(1)
    save_file(weights, tmp_path / "w.safetensors")
    with pytest.raises(RecipeError) as caught:
        assemble(recipe(tmp_path / "w.safetensors"))
    for part in ("layers.1.bias is missing", "more is not in the model", "layers.1.weight is (3, 3), the model has (8, 4)"):
        assert part in str(caught.value)
    shutil.rmtree(tmp_path)
