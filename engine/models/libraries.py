"""Models of torchvision and timm by name, fitted to the data: neither library is needed unless a recipe names it."""

# mypy: disable-error-code="no-any-return"
from __future__ import annotations

import importlib
from collections.abc import Callable, Collection
from typing import Any, ClassVar

from torch import Tensor, nn

from engine.errors import nearest
from engine.models.shapes import image_shape


class Torchvision(nn.Module):
    """An image classifier of torchvision by name, with random weights.

    Images that are not in colour get a first convolution of their own number of channels.

    Args:
        model: its name in torchvision.models
    """

    tasks: ClassVar[tuple[str, ...]] = ("classification", "regression")

    def __init__(self, input_shape: tuple[int, ...], output_size: int, model: str = "resnet18") -> None:
        super().__init__()
        depth, height, width = image_shape("torchvision", input_shape)
        library = _library("torchvision.models")
        _check_name("torchvision", model, library.list_models(module=library))
        options: dict[str, Any] = {"weights": None, "num_classes": output_size}
        if model.startswith("vit_"):
            options["image_size"] = height  # its positions are learned for one size
        if model.startswith("maxvit"):
            options["input_size"] = (height, width)
        if model in ("googlenet", "inception_v3"):
            options |= {"aux_logits": False, "init_weights": True}  # in training, too, one output
        self.grey = len(input_shape) == 2
        self.network = _made("torchvision", model, input_shape, lambda: library.get_model(model, **options))
        if depth != 3:
            _fit_channels(self.network, model, depth)

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, C, H, W) or (B, H, W) to (B, output_size)."""
        return self.network(inputs.unsqueeze(1) if self.grey else inputs)


class Timm(nn.Module):
    """An image classifier of timm by name.

    Args:
        model: its name in timm, with or without a tag of pretrained weights
        pretrained: start from timm's weights, downloaded once; the head is new either way
    """

    tasks: ClassVar[tuple[str, ...]] = ("classification", "regression")

    def __init__(
        self, input_shape: tuple[int, ...], output_size: int, model: str = "resnet18", pretrained: bool = False
    ) -> None:
        super().__init__()
        depth, height, width = image_shape("timm", input_shape)
        library = _library("timm")
        names = library.list_models()
        if model.split(".")[0] not in names:
            _check_name("timm", model, names)

        def make() -> nn.Module:
            fixed = getattr(library.get_pretrained_cfg(model), "fixed_input_size", False)  # its positions are learned
            size = {"img_size": (height, width)} if fixed else {}
            return library.create_model(model, pretrained=pretrained, num_classes=output_size, in_chans=depth, **size)

        self.grey = len(input_shape) == 2
        self.network = _made("timm", model, input_shape, make)

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, C, H, W) or (B, H, W) to (B, output_size)."""
        return self.network(inputs.unsqueeze(1) if self.grey else inputs)


def _library(module: str) -> Any:
    """The library's module. ValueError when it is not installed, or not for this torch."""
    name = module.split(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name not in (name, module):
            raise ValueError(f"{name} can't be imported: it needs {error.name}, which is not installed") from error
        raise ValueError(f"{name} is not installed: pip install {name}, or choose resnet18, which needs no library") from error
    except Exception as error:  # a torchvision built for another torch raises RuntimeError while it is imported
        raise ValueError(
            f"{name} is installed but can't be imported ({_first_line(error)}): install the one for this torch"
        ) from error


def _check_name(library: str, model: str, names: Collection[str]) -> None:
    if model not in names:
        hint = nearest(model, names) or f"; there are {len(names)}, such as {', '.join(sorted(names)[:3])}"
        raise ValueError(f"{library} has no image classifier model = {model!r}{hint}")


def _made(library: str, model: str, input_shape: tuple[int, ...], make: Callable[[], nn.Module]) -> nn.Module:
    try:
        return make()
    except Exception as error:  # the libraries raise what they like about sizes, tags and downloads
        raise ValueError(
            f"{library} can't make model = {model!r} for images {input_shape}: {_first_line(error)}; resnet18 takes any size"
        ) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def _fit_channels(network: nn.Module, model: str, channels: int) -> None:
    """Replace the first convolution, the one that sees the image, by one for that number of channels."""
    name, old = next(((name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d)), ("", None))
    if old is None:
        raise ValueError(f"torchvision's model = {model!r} has no convolution that could take images of {channels} channels")
    new = nn.Conv2d(
        channels,
        old.out_channels,
        old.kernel_size,  # type: ignore[arg-type]
        old.stride,  # type: ignore[arg-type]
        old.padding,  # type: ignore[arg-type]
        bias=old.bias is not None,
    )
    network.set_submodule(name, new)
