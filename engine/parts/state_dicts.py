"""State dicts as plain data: JSON values and named tensors, so that nothing that is read back can execute.

Tuples, Counters and dicts with other keys than text carry a tag; everything else is what JSON knows.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from engine.errors import CheckpointError
from engine.execution.generators import random_state, set_random_state

Part = Callable[[Any, Tensor], Any]  # what this process holds of a whole tensor that belongs to a parameter or buffer


def pack(value: Any, tensors: dict[str, Tensor], path: str) -> Any:
    """`value` as JSON values; its tensors go into `tensors` under names that begin with `path`.

    Raises CheckpointError for what is neither data nor a tensor, a function for example.
    """
    if isinstance(value, Tensor):
        tensors[path] = value
        return {"$tensor": path}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, list):
        return [pack(item, tensors, f"{path}/{i}") for i, item in enumerate(value)]
    if isinstance(value, tuple):
        return {"$tuple": [pack(item, tensors, f"{path}/{i}") for i, item in enumerate(value)]}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {key: pack(item, tensors, f"{path}/{key}") for key, item in value.items()}
        tag = "$counter" if isinstance(value, Counter) else "$dict"
        items = enumerate(value.items())
        return {tag: [[pack(k, tensors, f"{path}/k{i}"), pack(v, tensors, f"{path}/v{i}")] for i, (k, v) in items]}
    raise CheckpointError(f"{path} holds a {type(value).__name__}, which a checkpoint can't hold")


def unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What `pack` was given."""
    if isinstance(value, list):
        return [unpack(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    match value:
        case {"$tensor": path}:
            return tensors[path]
        case {"$tuple": items}:
            return tuple(unpack(item, tensors) for item in items)
        case {"$counter": items}:
            return Counter({unpack(key, tensors): unpack(item, tensors) for key, item in items})
        case {"$dict": items}:
            return {unpack(key, tensors): unpack(item, tensors) for key, item in items}
    return {key: unpack(item, tensors) for key, item in value.items()}


def pack_optimizer(optimizer: Optimizer, model: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The optimizer's state with parameters by name, not by position: see `load_optimizer`."""
    names = _names(optimizer, model)
    state = optimizer.state_dict()
    return {
        "groups": [
            {"names": [names[i] for i in group["params"]], "options": pack(_options(group), tensors, f"group{g}")}
            for g, group in enumerate(state["param_groups"])
        ],
        "state": {names[i]: pack(dict(values), tensors, names[i]) for i, values in state["state"].items()},
    }


def load_optimizer(
    optimizer: Optimizer,
    model: nn.Module,
    packed: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    part: Part = lambda tensor, like: tensor,
) -> None:
    """Restore what `pack_optimizer` made. Raises CheckpointError, and changes nothing, when the parameters are others."""
    names = _names(optimizer, model)
    current = optimizer.state_dict()
    groups = packed["groups"]
    wanted = [[names[i] for i in group["params"]] for group in current["param_groups"]]
    held = [group["names"] for group in groups]
    if [sorted(group) for group in wanted] != [sorted(group) for group in held]:
        others = sorted({name for group in wanted for name in group} ^ {name for group in held for name in group})
        raise CheckpointError(
            f"the optimizer's parameters are not those of the checkpoint: {', '.join(others[:5]) or 'regrouped'}"
        )
    parameters = dict(zip(names, (p for group in optimizer.param_groups for p in group["params"]), strict=True))
    position = {name: i for i, name in enumerate(names)}

    def state_of(name: str, values: Any) -> dict[str, Any]:
        return {key: part(value, parameters[name]) for key, value in unpack(values, tensors).items()}

    optimizer.load_state_dict(
        {
            "state": {position[name]: state_of(name, values) for name, values in packed["state"].items()},
            "param_groups": [
                {**unpack(group["options"], tensors), "params": old["params"]}
                for group, old in zip(groups, current["param_groups"], strict=True)
            ],
        }
    )
    for parameter, held in optimizer.state.items():  # laid out as their parameter: fused kernels go through both alike
        for key, value in held.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                held[key] = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


def _options(group: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key not in ("params", "param_names")}


def _names(optimizer: Optimizer, model: nn.Module) -> list[str]:
    """The name of each of the optimizer's parameters, in the order in which its state dict numbers them."""
    known = {id(parameter): name for name, parameter in model.named_parameters()}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return [known.get(id(parameter), f"parameter{i}") for i, parameter in enumerate(parameters)]


def load_model(model: nn.Module, tensors: Mapping[str, Tensor], part: Part = lambda tensor, like: tensor) -> None:
    """Load a state dict whole or not at all; CheckpointError lists the first five differences."""
    current = model.state_dict()
    if differing := differences(current, tensors):
        raise CheckpointError(f"the checkpoint does not fit the model: {'; '.join([*differing.values()][:5])}")
    model.load_state_dict({name: part(tensor, current[name]) for name, tensor in tensors.items()})


def differences(current: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """By name, what keeps these tensors from taking the place of a model's current ones."""
    found = {name: f"{name} is missing" for name in current if name not in tensors}
    found |= {name: f"{name} is not in the model" for name in tensors if name not in current}
    return found | {
        name: f"{name} is {tuple(tensors[name].shape)}, the model has {tuple(value.shape)}"
        for name, value in current.items()
        if name in tensors and tensors[name].shape != value.shape
    }


def pack_random_state(device: torch.device) -> dict[str, str]:
    """The states of the generators that a model on `device` draws from, as text."""
    return {one.type: base64.b64encode(state.numpy().tobytes()).decode() for one, state in random_state(device)}


def load_random_state(packed: Mapping[str, str], device: torch.device) -> None:
    """Restore what `pack_random_state` made; a device's own generator only where there is such a device now."""
    states = {kind: torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8) for kind, text in packed.items()}
    set_random_state([(one, states[one.type]) for one in {torch.device("cpu"), device} if one.type in states])


def copied(tensors: Mapping[str, Tensor], whole: Callable[[Tensor], Tensor] | None = None) -> dict[str, Tensor]:
    """Copies in host memory that later steps can't change. Tensors that share memory share it in the copy as well.

    `whole` makes one tensor of what several processes hold shards of.
    """
    seen: dict[tuple[Any, ...], Tensor] = {}

    def copy(tensor: Tensor) -> Tensor:
        if whole is not None and (gathered := whole(tensor)) is not tensor:  # the next one may be in the same memory
            return gathered.detach().to("cpu", copy=True)
        key = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype) if tensor.numel() else (id(tensor),)
        if key not in seen:
            seen[key] = tensor.detach().to("cpu", copy=True)
        return seen[key]

    return {name: copy(tensor) for name, tensor in tensors.items()}
