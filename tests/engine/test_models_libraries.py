"""torchvision's and timm's models by name: with stand-ins that have the libraries' own faces, and with the real ones."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from torch import nn

from engine.models import MODELS


class Network(nn.Module):
    """What both libraries' classifiers are: a convolution that sees the image, and a head."""

    def __init__(self, classes: int, channels: int = 3, size: int | None = None) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(channels, 4, 3, padding=1, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.head = nn.Linear(4, classes)
        self.size = size

    def forward(self, inputs):
        assert self.size is None or inputs.shape[2] == self.size
        return self.head(self.features(inputs).flatten(1))


@pytest.fixture
def torchvision(monkeypatch):
    """torchvision.models: get_model(name, **config) and list_models(module), of which only one module's are classifiers."""
    models = types.ModuleType("torchvision.models")
    models.asked = []

    def get_model(name, **config):
        models.asked.append((name, config))
        assert config.pop("weights") is None
        if name == "alexnet":
            raise RuntimeError("Calculated padded input size per channel is too small\nKernel size can't be greater")
        if name == "tokens_only":
            return nn.Linear(3, config["num_classes"])
        return Network(config["num_classes"], size=config.get("image_size"))

    def list_models(module=None):
        names = ["alexnet", "googlenet", "resnet18", "resnet50", "tokens_only", "vit_b_16"]
        return names if module is models else [*names, "fcn_resnet50", "r3d_18"]

    models.get_model, models.list_models = get_model, list_models
    package = types.ModuleType("torchvision")
    package.models = models
    monkeypatch.setitem(sys.modules, "torchvision", package)
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    return models


@pytest.fixture
def timm(monkeypatch):
    """timm: create_model(name, pretrained, num_classes=, in_chans=, …), list_models(), get_pretrained_cfg(name)."""
    library = types.ModuleType("timm")
    library.asked = []

    def create_model(model_name, pretrained=False, **config):
        library.asked.append((model_name, pretrained, config))
        if pretrained:
            raise OSError("We couldn't connect to the hub")
        return Network(config["num_classes"], config["in_chans"], size=(config.get("img_size") or [None])[0])

    def get_pretrained_cfg(model_name, allow_unregistered=True):
        if model_name == "resnet18.nonsense":
            raise RuntimeError("Invalid pretrained tag (nonsense) for resnet18.")
        if model_name == "unregistered":
            return None
        return types.SimpleNamespace(fixed_input_size=model_name.startswith("vit"))

    library.create_model, library.get_pretrained_cfg = create_model, get_pretrained_cfg
    library.list_models = lambda: ["convnext_atto", "resnet18", "resnet26d", "unregistered", "vit_tiny_patch16_224"]
    monkeypatch.setitem(sys.modules, "timm", library)
    return library


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 16, 16), (5, 16, 12), (16, 16)])
@pytest.mark.parametrize("name", ["torchvision", "timm"])
def test_a_librarys_model_is_fitted_to_classes_and_channels_and_learns(name, shape, request):
    request.getfixturevalue(name)
    torch.manual_seed(0)
    model = MODELS[name](input_shape=shape, output_size=4)
    inputs, classes = torch.randn(8, *shape), torch.arange(8) % 4
    assert model(inputs).shape == (8, 4)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        losses.append(nn.functional.cross_entropy(model(inputs), classes))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0]


def test_torchvision_is_asked_in_its_own_words(torchvision):
    MODELS["torchvision"]((3, 32, 32), 7)
    MODELS["torchvision"]((3, 32, 32), 7, model="vit_b_16")
    MODELS["torchvision"]((3, 32, 32), 7, model="googlenet")
    assert [(name, {"num_classes": 7, **config}) for name, config in torchvision.asked] == [
        ("resnet18", {"num_classes": 7}),
        ("vit_b_16", {"num_classes": 7, "image_size": 32}),
        ("googlenet", {"num_classes": 7, "aux_logits": False, "init_weights": True}),
    ]


def test_the_first_convolution_keeps_everything_but_its_channels(torchvision):
    colour, grey = MODELS["torchvision"]((3, 16, 16), 4), MODELS["torchvision"]((1, 16, 16), 4)
    before, after = colour.network.features[0], grey.network.features[0]
    assert (before.in_channels, after.in_channels) == (3, 1)
    assert (after.out_channels, after.kernel_size, after.padding, after.bias) == (4, (3, 3), (1, 1), None)
    assert [type(module) for module in grey.modules()] == [type(module) for module in colour.modules()]


def test_timm_is_asked_in_its_own_words(timm):
    MODELS["timm"]((1, 32, 24), 7)
    MODELS["timm"]((1, 32, 24), 7, model="vit_tiny_patch16_224")
    MODELS["timm"]((1, 32, 24), 7, model="resnet18.a1_in1k")
    MODELS["timm"]((1, 32, 24), 7, model="unregistered")
    channels = {"num_classes": 7, "in_chans": 1}
    assert timm.asked == [
        ("resnet18", False, channels),
        ("vit_tiny_patch16_224", False, {**channels, "img_size": (32, 24)}),
        ("resnet18.a1_in1k", False, channels),
        ("unregistered", False, channels),
    ]


@pytest.mark.parametrize(
    ("name", "shape", "arguments", "sentence"),
    [
        ("torchvision", (3, 8, 8), {"model": "resnet81"}, r"torchvision has no .* 'resnet81'; the nearest is 'resnet18'$"),
        ("torchvision", (3, 8, 8), {"model": "fcn_resnet50"}, r"torchvision has no image classifier model = 'fcn_resnet50'"),
        ("torchvision", (3, 8, 8), {"model": "%"}, r"there are 6, such as alexnet, googlenet, resnet18$"),
        (
            "torchvision",
            (3, 8, 8),
            {"model": "alexnet"},
            r"can't make .* 'alexnet' for images \(3, 8, 8\): Calculated .* small;",
        ),
        ("torchvision", (1, 8, 8), {"model": "tokens_only"}, r"'tokens_only' has no convolution .* 1 channels"),
        ("torchvision", (64,), {}, r"torchvision takes images .* choose mlp"),
        ("timm", (3, 8, 8), {"model": "convnext_ato"}, r"timm has no .* 'convnext_ato'; the nearest is 'convnext_atto'$"),
        ("timm", (3, 8, 8), {"model": "resnet18.nonsense"}, r"timm can't make .* \(3, 8, 8\): Invalid pretrained tag"),
        ("timm", (3, 8, 8), {"pretrained": True}, r"timm can't make .*: We couldn't connect to the hub; resnet18"),
        ("timm", (64,), {}, r"timm takes images .* choose mlp"),
    ],
)
def test_what_can_not_be_built_is_one_sentence(name, shape, arguments, sentence, torchvision, timm):
    with pytest.raises(ValueError, match=sentence) as caught:
        MODELS[name](input_shape=shape, output_size=4, **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["torchvision", "timm"])
def test_a_library_that_is_not_installed_is_one_sentence_with_the_way_to_it(name, monkeypatch):
    class Absent:
        """An import system in which neither library is installed."""

        @staticmethod
        def find_spec(module, path=None, target=None):
            if module.split(".")[0] == name:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    for module in [module for module in sys.modules if module.split(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "meta_path", [Absent, *sys.meta_path])
    with pytest.raises(ValueError, match=rf"^{name} is not installed: pip install {name}, or choose resnet18"):
        MODELS[name](input_shape=(3, 8, 8), output_size=4)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("raise RuntimeError('operator torchvision::nms does not exist')", r"can't be imported \(operator torchvision::nms"),
        ("import a_package_that_is_not_there", r"can't be imported: it needs a_package_that_is_not_there"),
    ],
)
def test_a_library_that_does_not_import_is_one_sentence(source, sentence, monkeypatch, tmp_path):
    (tmp_path / "timm.py").write_text(source)
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=sentence):
        MODELS["timm"](input_shape=(3, 8, 8), output_size=4)


@pytest.mark.parametrize(
    ("name", "model"),
    [(name, model) for name in ("torchvision", "timm") for model in ("resnet18", "vit_b_16", "vit_tiny_patch16_224")],
)
def test_the_real_library(name, model):
    pytest.importorskip(name, reason=f"{name} is not installed", exc_type=ImportError)
    if model not in sys.modules[name].list_models() if name == "timm" else model not in _torchvision_names():
        pytest.skip(f"{model} is of the other library")
    network = MODELS[name](input_shape=(1, 32, 32), output_size=7, model=model)
    assert network(torch.randn(2, 1, 32, 32)).shape == (2, 7)


def _torchvision_names() -> list[str]:
    from torchvision import models

    return models.list_models(module=models)
