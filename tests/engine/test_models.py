"""The built-in models for numbers: each learns, on each shape it takes, and says so where it does not take one."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from engine.models import MODELS

FLAT, SEQUENCE, IMAGE, COLOUR, GREY = (6,), (5, 4), (1, 8, 8), (3, 16, 12), (8, 8)
SHAPES = {
    "linear": [FLAT, SEQUENCE, IMAGE, COLOUR],
    "mlp": [FLAT, SEQUENCE, IMAGE, COLOUR],
    "cnn": [IMAGE, COLOUR, GREY, (1, 1, 5)],
    "resnet": [IMAGE, COLOUR, GREY],
    "resnet18": [IMAGE, GREY],
    "rnn": [FLAT, SEQUENCE, IMAGE, COLOUR],
    "transformer": [FLAT, SEQUENCE, IMAGE, COLOUR],
    "vit": [IMAGE, COLOUR, GREY],
}
CASES = [(name, shape) for name, shapes in SHAPES.items() for shape in shapes]
RATES = {"resnet18": 1e-3}  # eleven million parameters on twelve samples
VARIANTS = [
    ("linear", FLAT, {"bias": False}),
    ("mlp", FLAT, {"hidden": []}),
    ("mlp", FLAT, {"hidden": [16, 8], "activation": "GELU", "dropout": 0.1, "batch_norm": True}),
    ("cnn", IMAGE, {"channels": [4, 8, 8, 8, 8], "kernel": 5, "dropout": 0.1, "head": []}),
    ("resnet", IMAGE, {"widths": [8, 8], "blocks": 2}),
    ("rnn", SEQUENCE, {"cell": "lstm", "layers": 2, "dropout": 0.1, "bidirectional": True}),
    ("rnn", IMAGE, {"cell": "gru", "bidirectional": True}),
    ("transformer", SEQUENCE, {"dim": 12, "heads": 3, "layers": 1, "dropout": 0.1}),
    ("vit", COLOUR, {"patch": 2, "dim": 12, "heads": 3, "layers": 1, "dropout": 0.1, "pool": "mean"}),
]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Models this small are slower on many threads than on one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def built(name, shape, outputs=3, **arguments) -> nn.Module:
    torch.manual_seed(0)
    return MODELS[name](input_shape=shape, output_size=outputs, **arguments)


def learns(model: nn.Module, shape: tuple[int, ...], loss: nn.Module, targets, lr: float = 1e-2) -> None:
    inputs = torch.randn(12, *shape, generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)

    def evaluated() -> float:
        model.eval()
        with torch.no_grad():
            return loss(model(inputs), targets).item()

    before = evaluated()
    model.train()
    for _ in range(30):
        optimizer.zero_grad()
        loss(model(inputs), targets).backward()
        optimizer.step()
    assert evaluated() < 0.9 * before


@pytest.mark.parametrize(
    ("name", "shape"), [pytest.param(*case, marks=pytest.mark.slow) if case == ("resnet18", GREY) else case for case in CASES]
)
def test_thirty_steps_lower_the_loss(name, shape):
    classes = torch.arange(12) % 3
    learns(built(name, shape), shape, nn.CrossEntropyLoss(), classes, RATES.get(name, 1e-2))


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n == "resnet18" else n for n in SHAPES])
def test_every_model_learns_numbers_as_well(name):
    shape = SHAPES[name][0]
    learns(built(name, shape, outputs=1), shape, nn.MSELoss(), torch.linspace(-1, 2, 12)[:, None], RATES.get(name, 1e-2))


@pytest.mark.parametrize(("name", "shape", "arguments"), VARIANTS)
def test_arguments_build_models_that_learn(name, shape, arguments):
    learns(built(name, shape, **arguments), shape, nn.CrossEntropyLoss(), torch.arange(12) % 3)


@pytest.mark.parametrize(("name", "shape"), [*CASES, ("resnet", (3, 64, 64))])
def test_a_batch_gives_a_row_of_outputs_for_each_sample(name, shape):
    model = built(name, shape, outputs=5).eval()
    inputs = torch.randn(4, *shape)
    outputs = model(inputs)
    assert outputs.shape == (4, 5) and outputs.dtype == torch.float32
    assert torch.allclose(model(inputs[:1]), outputs[:1], atol=1e-5)  # samples don't look at each other
    assert all(parameter.grad is not None for parameter in _backward(model, outputs))


def _backward(model, outputs):
    outputs.sum().backward()
    return model.parameters()


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_the_same_seed_builds_the_same_weights_and_a_state_dict_carries_them(name, shape):
    first, second = built(name, shape), built(name, shape)
    torch.manual_seed(9)
    other = MODELS[name](shape, 3)
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key])
    other.load_state_dict(first.state_dict())
    inputs = torch.randn(2, *shape)
    assert torch.equal(other.eval()(inputs), first.eval()(inputs))


def test_the_transformers_layers_do_not_start_alike():
    first, second = built("transformer", SEQUENCE).encoder
    assert not torch.equal(first.linear1.weight, second.linear1.weight)


def test_the_mlp_is_the_tutorials():
    model = built("mlp", IMAGE, outputs=10)
    torch.manual_seed(0)
    tutorial = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    inputs = torch.randn(4, 1, 8, 8)
    assert torch.equal(model(inputs), tutorial(inputs))


@pytest.mark.parametrize(
    ("name", "shape", "arguments", "sentence"),
    [
        ("cnn", (64,), {}, r"cnn takes images \(channels, height, width\); this data has shape \(64,\)"),
        ("resnet", (64,), {}, r"resnet takes images .* choose mlp"),
        ("rnn", (1, 2, 3, 4), {}, r"rnn takes .* this data has shape"),
        ("transformer", (1, 2, 3, 4), {}, r"transformer takes"),
        ("mlp", (), {}, r"mlp takes one tensor"),
        ("linear", (), {}, r"linear takes one tensor"),
        ("mlp", FLAT, {"hidden": [4, 0]}, r"hidden = \[4, 0\] is too small"),
        ("mlp", FLAT, {"dropout": 1.5}, r"dropout"),
        ("cnn", IMAGE, {"kernel": 4}, r"kernel = 4 must be odd"),
        ("cnn", IMAGE, {"channels": [-1]}, r"channels"),
        ("resnet", IMAGE, {"widths": []}, r"widths"),
        ("resnet18", (64,), {}, r"resnet18 takes images .* choose mlp"),
        ("vit", (64,), {}, r"vit takes images .* choose mlp"),
        ("vit", (3, 16, 12), {"patch": 3}, r"patch = 3 of vit .* \(3, 16, 12\): set a patch of 1, 2, 4, or choose cnn"),
        ("vit", IMAGE, {"patch": 0}, r"patch = 0 is too small"),
        ("vit", IMAGE, {"dim": 10}, r"dim = 10 must be a multiple of heads = 4"),
        ("vit", IMAGE, {"dropout": -1.0}, r"dropout"),
        ("rnn", FLAT, {"hidden": 0}, r"hidden = 0"),
        ("transformer", FLAT, {"dim": 10, "heads": 4}, r"dim = 10 must be a multiple of heads = 4"),
    ],
)
def test_what_can_not_be_built_is_one_sentence(name, shape, arguments, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        built(name, shape, **arguments)
    assert "\n" not in str(caught.value)


def test_resnet18_is_the_one_of_the_cifar_tables():
    model = built("resnet18", (3, 32, 32), outputs=10)
    assert sum(parameter.numel() for parameter in model.parameters()) == 11_173_962
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    before_pooling = model.stages(model.stem(torch.randn(2, 3, 32, 32)))
    assert before_pooling.shape == (2, 512, 4, 4)  # 3 x 3 stem without pooling: 32, 16, 8, 4


def test_the_vits_class_token_and_its_mean_differ_by_one_position():
    token, mean = built("vit", IMAGE, pool="class"), built("vit", IMAGE, pool="mean")
    assert token.position.shape == (5, 64) and mean.position.shape == (4, 64)
    assert sum(p.numel() for p in token.parameters()) - sum(p.numel() for p in mean.parameters()) == 2 * 64


def test_the_vit_reads_its_patches_row_by_row_and_knows_where_they_are():
    model = built("vit", IMAGE, patch=4).eval()
    image = torch.randn(1, 1, 8, 8)
    patches = model.patches(image)  # (1, dim, 4)
    changed = image.clone()
    changed[..., 0:4, 4:8] += 1  # the second one
    assert (model.patches(changed) != patches).any(dim=1).tolist() == [[False, True, False, False]]
    turned = torch.cat([image[..., 4:, :], image[..., :4, :]], dim=2)  # the same patches in other places
    assert not torch.allclose(model(turned), model(image), atol=1e-6)


@pytest.mark.parametrize("name", SHAPES)
def test_a_classifier_starts_near_chance(name):
    shape = (3, 16, 16) if name in ("cnn", "resnet", "resnet18", "vit") else (8, 16)
    model = built(name, shape, outputs=10)
    generator = torch.Generator().manual_seed(1)
    inputs, classes = torch.randn(64, *shape, generator=generator), torch.randint(10, (64,), generator=generator)
    for mode in (True, False):
        loss = nn.functional.cross_entropy(model.train(mode)(inputs), classes).item()
        assert loss == pytest.approx(math.log(10), rel=0.3)
