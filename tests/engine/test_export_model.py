"""Exported models, read by those that they are for: safetensors, onnxruntime, torch.export."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from safetensors import safe_open

from engine import EpochalError, Recipe, Trainer, evaluate, export_model, load_model, predict
from engine.cli import main
from engine.data.preprocessing import Preprocessing
from engine.export import model as export

IMAGES = {"data.name": "digits", "data.images": True}
SEQUENCES = {"data.name": "npz", "data.path": "sequences.npz"}
CASES: dict[str, dict[str, Any]] = {
    "linear": {},
    "cnn": IMAGES,
    "resnet": IMAGES,
    "resnet18": IMAGES,
    "rnn": SEQUENCES,
    "transformer": {**SEQUENCES, "model.layers": 1},
    "vit": {**IMAGES, "model.layers": 1},
    "gpt": {"data.name": "text", "data.path": "text.txt", "data.context": 8, "model.layers": 1},
    "autoencoder": {"data.reconstruct": True, "loss.name": "MSELoss"},
    "conv_autoencoder": {**IMAGES, "data.reconstruct": True, "loss.name": "MSELoss"},
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EPOCHAL_RUNS", raising=False)


def trained(**changes: Any) -> Any:
    usual = {"training.epochs": 1, "training.device": "cpu"}
    return Trainer.from_recipe(Recipe().replace(**{**usual, **changes}), runs="runs").fit()


def case(name: str) -> Any:
    random = numpy.random.default_rng(0)
    numpy.savez("sequences.npz", x=random.normal(size=(60, 7, 3)), y=numpy.arange(60) % 3)
    Path("text.txt").write_text("abcd" * 60)
    return trained(**{"model.name": name}, **CASES.get(name, {}))


def new_inputs(run: Any, count: int) -> torch.Tensor:
    """As many inputs as no one has seen, of the shape of the run's."""
    known = Preprocessing.kept(run.path)
    assert known is not None
    generator = torch.Generator().manual_seed(1)
    if known.tokens:
        return torch.randint(0, known.output_size, (count, *known.input_shape), generator=generator)
    return torch.randn(count, *known.input_shape, generator=generator)


@pytest.mark.parametrize("name", ["mlp", *(pytest.param(name, marks=pytest.mark.slow) for name in CASES)])
def test_every_model_in_every_format(name: str) -> None:
    result = case(name)
    as_safetensors(name, result)
    by_torch(name, result)
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    by_onnxruntime(name, result, pytest.importorskip("onnxruntime", reason="onnxruntime is not installed"))


def by_onnxruntime(name: str, result: Any, onnxruntime: Any) -> None:
    export_model(result.run, "model.onnx")
    session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    model = load_model(result.run)
    for count in (1, 3, 17):
        x = new_inputs(result.run, count)
        with torch.no_grad():
            expected = model(x).numpy()
        (found,) = session.run(["output"], {"input": x.numpy()})
        assert numpy.allclose(found, expected, rtol=1e-4, atol=1e-4)
    metadata = session.get_modelmeta().custom_metadata_map
    assert tomllib.loads(metadata["recipe"])["model"]["name"] == name
    assert Preprocessing.from_dict(json.loads(metadata["preprocessing"])) == Preprocessing.kept(result.run.path)


def by_torch(name: str, result: Any) -> None:
    export_model(result.run, "model.pt2")
    extra = {"recipe": "", "classes": ""}
    loaded = torch.export.load("model.pt2", extra_files=extra).module()
    model = load_model(result.run)
    for count in (1, 3, 17):
        x = new_inputs(result.run, count)
        with torch.no_grad():
            assert torch.allclose(loaded(x), model(x), rtol=1e-5, atol=1e-5)
    assert tomllib.loads(extra["recipe"])["model"]["name"] == name


@pytest.mark.slow
def test_torch_export_needs_no_epochal() -> None:
    export_model(case("mlp").run, "model.pt2")
    code = (
        "import sys, torch; print(torch.export.load('model.pt2').module()(torch.zeros(5, 64)).shape, 'engine' in sys.modules)"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "torch.Size([5, 10]) False"


def as_safetensors(name: str, result: Any) -> None:
    export_model(result.run, "model.safetensors")
    model, again = load_model(result.run), load_model("model.safetensors")
    assert type(again) is type(model) and not again.training
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)
    x = new_inputs(result.run, 3)
    with torch.no_grad():
        assert torch.equal(again(x), model(x))
    with safe_open("model.safetensors", "pt") as file:
        metadata = file.metadata()
        names = list(file.keys())
    assert set(names) <= set(model.state_dict())
    assert Recipe.from_dict(tomllib.loads(metadata["recipe"])) == Recipe.load(result.run.recipe_path)


def test_an_exported_file_evaluates_and_predicts_as_its_run(capsys: Any) -> None:
    result = trained(**{"data.name": "iris", "training.ema": 0.9})
    export_model(result.run, "model.safetensors", "last")
    ours, theirs = evaluate(result.run, "last", device="cpu"), evaluate("model.safetensors", device="cpu")
    assert ours.confusion == theirs.confusion and ours.metrics == theirs.metrics
    rows = [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]
    assert predict("model.safetensors", rows).labels == predict(result.run, rows, "last").labels
    with safe_open("model.safetensors", "pt") as file:
        assert json.loads(file.metadata()["classes"]) == ["setosa", "versicolor", "virginica"]
    assert main(["evaluate", "model.safetensors", "--checkpoint", "best"]) == 2
    assert "holds the weights of one checkpoint" in capsys.readouterr().err


def test_the_command_goes_by_the_ending(capsys: Any) -> None:
    result = trained()
    assert main(["export", "last", "model.safetensors"]) == 0
    assert "model.safetensors is written" in capsys.readouterr().out
    assert main(["export", "last", "model.safetensors"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["export", "last", "model.safetensors", "--force", "--checkpoint", "last"]) == 0
    assert main(["export", "last", "--format", "safetensors"]) == 0
    assert Path(f"{result.run.name}.safetensors").exists()
    assert main(["export", "last", "plain.py"]) == 0 and "torch.manual_seed" in Path("plain.py").read_text()
    capsys.readouterr()
    for arguments, sentence in (
        (["model.foo"], "ends in none of .safetensors, .onnx, .pt2, .py"),
        ([], "export needs to know what is wanted"),
        (["a.onnx", "-o", "b.onnx"], "two files are named"),
        (["gone/a.safetensors"], "gone/a.safetensors can't be written: there is no folder gone"),
        (["a.bin", "--format", "safetensors"], "a.bin has to end in .safetensors: load_model knows it by that"),
    ):
        assert main(["export", "last", *arguments]) == 2
        assert sentence in capsys.readouterr().err


SEVERAL = """
import torch
from torch import nn
from torch.utils.data import Dataset


class Pairs(Dataset):
    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.words = torch.randint(0, 5, (40, 4), generator=generator)
        self.sizes = torch.randn(40, 3, generator=generator)

    def __len__(self):
        return 40

    def __getitem__(self, i):
        return (self.words[i], self.sizes[i]), self.sizes[i, :1]


class Named(Pairs):
    def __getitem__(self, i):
        return {"words": self.words[i], "more": {"sizes": self.sizes[i]}}, self.sizes[i, :1]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.last = nn.Embedding(5, 2), nn.Linear(5, 1)

    def forward(self, given):
        words, sizes = (given["words"], given["more"]["sizes"]) if isinstance(given, dict) else given
        return self.last(torch.cat([self.table(words).mean(1), sizes], 1))


class Two(Net):
    def forward(self, given):
        value = super().forward(given)
        return {"value": value, "size": value.abs().sum(1)}


class First(nn.MSELoss):
    def forward(self, output, target):
        return super().forward(output["value"], target)
"""


@pytest.mark.parametrize(
    ("data", "model", "names", "outputs"),
    [
        ("Pairs", "Net", ["input_1", "input_2"], ["output"]),
        ("Named", "Two", ["words", "more_sizes"], ["value", "size"]),
    ],
)
def test_a_model_of_several_tensors(data: str, model: str, names: list[str], outputs: list[str]) -> None:
    """In lists, tuples and dicts, as its batches have them; any number of samples at a time."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    Path("my.py").write_text(SEVERAL)
    loss = "MSELoss" if model == "Net" else "my.py:First"
    run = trained(**{"data.name": f"my.py:{data}", "model.name": f"my.py:{model}", "loss.name": loss}).run
    ours = load_model(run)
    made = export_model(run, "model.onnx")
    spelt = "[input_1, input_2]" if data == "Pairs" else "{'words': words, 'more': {'sizes': more_sizes}}"
    assert made.notes == (f"the model takes several tensors as one: model({spelt})",)
    export_model(run, "model.pt2")
    session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    theirs = torch.export.load("model.pt2").module()
    assert [item.name for item in session.get_inputs()] == names
    assert [item.name for item in session.get_outputs()] == outputs
    for count in (1, 3, 17):
        words, sizes = torch.randint(0, 5, (count, 4)), torch.randn(count, 3)
        given = [words, sizes] if data == "Pairs" else {"words": words, "more": {"sizes": sizes}}
        with torch.no_grad():
            expected, found = ours(given), theirs(given)
        arrays = session.run(None, dict(zip(names, (words.numpy(), sizes.numpy()), strict=True)))
        for place, name in enumerate(outputs):
            one, other = (expected, found) if model == "Net" else (expected[name], found[name])
            torch.testing.assert_close(other, one)
            numpy.testing.assert_allclose(arrays[place], one.numpy(), rtol=1e-4, atol=1e-5)


def test_what_is_not_as_the_model_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    result = trained()
    monkeypatch.setattr(export, "CLOSE", -1.0)
    with pytest.raises(EpochalError, match="outputs are off by .* it is not kept"):
        export_model(result.run, "model.pt2")
    assert [path.name for path in Path().iterdir()] == ["runs"]
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EpochalError, match=r'needs onnxruntime, which is not installed: pip install "epochal\[onnx\]"'):
        export_model(result.run, "model.onnx")
    with pytest.raises(EpochalError, match="there is no format 'onx' for a model.*the nearest is 'onnx'"):
        export_model(result.run, "model", format="onx")


def test_without_its_data_made_up_inputs_do(monkeypatch: pytest.MonkeyPatch) -> None:
    numpy.savez("sequences.npz", x=numpy.random.default_rng(0).normal(size=(60, 3)), y=numpy.arange(60) % 3)
    result = trained(**SEQUENCES)
    Path("sequences.npz").unlink()
    made = export_model(result.run, "model.pt2")
    assert made.notes and "made up" in made.notes[0] and "sequences.npz" in made.notes[0]


def test_a_damaged_file_is_one_sentence() -> None:
    Path("model.safetensors").write_bytes(b"rubbish")
    with pytest.raises(EpochalError, match="is no exported model"):
        load_model("model.safetensors")
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2)}, "model.safetensors")
    with pytest.raises(EpochalError, match="has no recipe inside"):
        load_model("model.safetensors")
