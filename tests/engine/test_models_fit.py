"""Every built-in model against every kind of data: it trains, or says in one sentence what would."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine.catalog import fields_of
from engine.models import MODELS

LIBRARIES = ("torchvision", "timm")
OWN = [name for name in MODELS if name not in LIBRARIES]
FLAT, SMALL, COLOUR, SEQUENCE, TEXT = (6,), (1, 8, 8), (3, 32, 32), (10, 3), (12,)
SAMPLES, CLASSES, VOCABULARY = 8, 3, 11
DATA = [
    *((task, shape) for task in ("classification", "regression") for shape in (FLAT, SMALL, COLOUR, SEQUENCE)),
    ("text", TEXT),
    *(("reconstruction", shape) for shape in (FLAT, SMALL, COLOUR, SEQUENCE)),
]
NUMBERS = ("linear", "mlp", "rnn", "transformer")
IMAGES = ("cnn", "resnet", "resnet18", "vit")


def trains(name: str, task: str, shape: tuple[int, ...]) -> bool:
    """What is expected, by hand."""
    if task == "text":
        return name in ("gpt", "rnn", "transformer")
    if task == "reconstruction":
        return name == "autoencoder" or (name == "conv_autoencoder" and shape != FLAT)
    if name == "vit" and shape == SEQUENCE:  # as an image of 10 x 3 it has no patch of 4
        return False
    return name in NUMBERS or (name in IMAGES and shape != FLAT)


def data(task: str, shape: tuple[int, ...]) -> tuple[Tensor, Tensor, nn.Module, dict[str, int | None]]:
    """Inputs, targets, the usual loss, and what a constructor is told of them."""
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(SAMPLES, *shape, generator=generator)
    if task == "classification":
        return inputs, torch.arange(SAMPLES) % CLASSES, nn.CrossEntropyLoss(), {"output_size": CLASSES, "vocabulary": None}
    if task == "regression":
        targets = torch.randn(SAMPLES, 2, generator=generator)
        return inputs, targets, nn.MSELoss(), {"output_size": 2, "vocabulary": None}
    if task == "reconstruction":
        return inputs, inputs, nn.MSELoss(), {"output_size": math.prod(shape), "vocabulary": None}
    tokens = torch.randint(VOCABULARY, (SAMPLES, shape[0] + 1), generator=generator)
    return tokens[:, :-1], tokens[:, 1:], nn.CrossEntropyLoss(), {"output_size": VOCABULARY, "vocabulary": VOCABULARY}


def made(name: str, shape: tuple[int, ...], inferred: dict[str, int | None]) -> nn.Module:
    """The model from what it has parameters for, as a recipe makes it."""
    known = inspect.signature(MODELS[name]).parameters
    torch.manual_seed(0)
    return MODELS[name](input_shape=shape, **{key: value for key, value in inferred.items() if key in known})


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def in_sample(name: str, task: str) -> Any:
    """Eleven million parameters take their time: with numbers they are the same but for one layer."""
    return pytest.mark.slow if name == "resnet18" and task == "regression" else ()


@pytest.mark.parametrize(
    ("name", "task", "shape"), [pytest.param(name, *data, marks=in_sample(name, data[0])) for name in OWN for data in DATA]
)
def test_every_model_trains_on_every_kind_of_data_or_names_one_that_does(name, task, shape):
    inputs, targets, loss, inferred = data(task, shape)
    if task not in MODELS[name].tasks:  # refused before it is made
        assert not trains(name, task, shape)
        return
    if not trains(name, task, shape):
        with pytest.raises(ValueError) as caught:
            made(name, shape, inferred)
        assert_names_the_way_out(str(caught.value), name, task, shape)
        return
    model = made(name, shape, inferred)
    losses = []
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4 if name == "resnet18" else 1e-3)
    for _ in range(6):
        optimizer.zero_grad()
        losses.append(loss(model(inputs), targets))
        losses[-1].backward()
        optimizer.step()
    assert losses[5].isfinite()
    assert losses[5] < losses[0]


def assert_names_the_way_out(sentence: str, name: str, task: str, shape: tuple[int, ...]) -> None:
    assert "\n" not in sentence and sentence.count(". ") == 0
    assert name in sentence and str(shape) in sentence
    named = sentence.rpartition("choose ")[2].replace(" or ", ", ").split(", ")
    assert all(trains(other, task, shape) for other in named)


@pytest.mark.parametrize("name", ["gpt", "autoencoder", "conv_autoencoder"])
def test_a_constructor_refuses_data_of_another_task_itself_where_it_can_see_it(name):
    """Numbers for a model of text, classes for an autoencoder."""
    _, _, _, inferred = data("classification", SMALL)
    with pytest.raises(ValueError, match=rf"{name} .* \(1, 8, 8\).* choose mlp"):
        made(name, SMALL, inferred)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_says_what_it_is_for_and_has_a_vocabulary_exactly_when_it_is_for_text(name):
    tasks = MODELS[name].tasks
    assert tasks and set(tasks) <= {"classification", "regression", "text", "reconstruction"}
    assert ("vocabulary" in inspect.signature(MODELS[name]).parameters) == ("text" in tasks)


@pytest.mark.parametrize("name", [name for name in OWN if MODELS[name].tasks != ("text",)])
def test_tokens_do_not_slip_through_a_model_of_numbers(name):
    shape = COLOUR if name in IMAGES or name == "conv_autoencoder" else TEXT
    outputs = math.prod(shape) if "autoencoder" in name else CLASSES
    model = made(name, shape, {"output_size": outputs, "vocabulary": None})
    with pytest.raises((RuntimeError, ValueError)):
        model(torch.ones(2, *shape, dtype=torch.int64))


@pytest.mark.parametrize("name", MODELS)
def test_every_argument_is_a_field_with_a_default_and_a_word_of_help(name):
    for field in fields_of(MODELS[name], exclude=("input_shape", "output_size", "vocabulary")):
        assert field.help and field.problem("model", field.default) is None


@pytest.mark.parametrize(
    ("name", "shape", "arguments"),
    [
        ("autoencoder", (4, 5), {}),
        ("autoencoder", FLAT, {"hidden": (), "code": 2}),
        ("autoencoder", SMALL, {"hidden": (32, 16), "code": 4, "activation": "Tanh"}),
        ("conv_autoencoder", (8, 8), {}),
        ("conv_autoencoder", (3, 7, 5), {"channels": (4, 8, 8, 8), "code": 2}),
        ("conv_autoencoder", (1, 1, 5), {"channels": ()}),
    ],
)
def test_an_autoencoder_gives_back_the_shape_it_got_through_a_code(name, shape, arguments):
    model = MODELS[name](input_shape=shape, output_size=math.prod(shape), **arguments).eval()
    inputs = torch.randn(4, *shape)
    assert model(inputs).shape == inputs.shape
    assert model.encoder(inputs).shape == (4, arguments.get("code", 16 if name == "autoencoder" else 32))
    assert torch.allclose(model.decoder(model.encoder(inputs)), model(inputs))
    assert torch.allclose(model(inputs[:1]), model(inputs)[:1], atol=1e-6)


def test_a_linear_autoencoder_learns_what_principal_components_keep():
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randn(64, 2, generator=generator) @ torch.randn(2, 6, generator=generator)  # rank 2
    inputs = inputs - inputs.mean(dim=0) + 0.1 * torch.randn(64, 6, generator=generator)
    torch.manual_seed(0)
    model = MODELS["autoencoder"](input_shape=(6,), output_size=6, hidden=(), code=2)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    for _ in range(400):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(inputs), inputs)
        loss.backward()
        optimizer.step()
    centred = inputs - inputs.mean(dim=0)
    best = torch.linalg.svdvals(centred)[2:].square().sum() / inputs.numel()
    assert best <= loss <= 1.05 * best


@pytest.mark.parametrize(
    ("name", "arguments", "sentence"),
    [
        ("autoencoder", {"code": 0}, r"code = 0 is too small"),
        ("autoencoder", {"hidden": [0]}, r"hidden = \[0\] is too small"),
        ("conv_autoencoder", {"channels": [4, 0]}, r"channels = \[4, 0\]"),
        ("conv_autoencoder", {"code": -1}, r"code = -1"),
    ],
)
def test_what_can_not_be_built_is_one_sentence(name, arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        MODELS[name](input_shape=SMALL, output_size=64, **arguments)
