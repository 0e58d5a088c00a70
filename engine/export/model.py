"""A trained model in formats that others read: safetensors with the recipe inside, ONNX, torch.export; each is checked."""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from engine.assemble import cast
from engine.data.batches import make_batches
from engine.data.nested import mapped
from engine.errors import EpochalError, as_path, nearest
from engine.execution.generators import keep_random_state
from engine.export import format_of, refuse_target, write_whole
from engine.export.structure import spelt, tensors
from engine.inference.trained import TrainedModel, load_trained
from engine.recipe_text import to_toml

if TYPE_CHECKING:
    from engine.run import Run

SAMPLES = 8  # of the batch that an exported model is checked with
CLOSE = 1e-4  # how far its outputs may lie from the model's, as a share of the largest


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """A file that was written. `checked` says what was compared; `notes` are sentences for the person."""

    path: Path
    format: str
    checked: str
    notes: tuple[str, ...] = ()


def export_model(
    run: str | Path | Run | TrainedModel,
    path: str | Path,
    step: str | int | None = None,
    *,
    format: str | None = None,
    force: bool = False,
    runs: str | Path | None = None,
) -> Exported:
    """Write a run's model to a file: "safetensors" (which `load_model` reads), "onnx" or "torch" (torch.export, .pt2).

    run and step: as for `load_model`. format: left out, by the path's ending. force: a file that is there may be replaced.

    It is there whole or not at all, and only where it gives what the model gives: on a real batch, and on one sample alone. An
    ONNX or torch.export file takes preprocessed inputs, any number at a time, computes in the weights' type, and has recipe,
    preprocessing and classes in its metadata. EpochalError in one sentence.
    """
    path = as_path(path, "the file of the model")
    kind = format or format_of(path)
    if kind not in WRITERS:
        raise EpochalError(f"there is no format {kind!r} for a model: there are {', '.join(WRITERS)}{nearest(kind, WRITERS)}")
    refuse_target(path, force, kind)
    trained = run if isinstance(run, TrainedModel) else load_trained(run, step, device="cpu", runs=runs)
    said: list[tuple[str, tuple[str, ...]]] = []
    write_whole(path, lambda aside: said.append(WRITERS[kind](trained, aside)), force=force)
    checked, notes = said[0]
    return Exported(path=path, format=kind, checked=checked, notes=notes)


def _safetensors(trained: TrainedModel, path: Path) -> tuple[str, tuple[str, ...]]:
    from engine.run.checkpoints import unique

    state = {name: tensor.detach().cpu() for name, tensor in trained.model.state_dict().items()}
    tensors, aliases = unique(state)
    known = {
        "run": trained.name,
        "step": trained.step,
        "averaged": trained.averaged,
        "fingerprint": trained.fingerprint,
        "aliases": aliases,
    }
    metadata = {"format": "pt", **_metadata(trained), "epochal": json.dumps(known)}
    save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, path, metadata)
    again = load_trained(path, device="cpu").model.state_dict()
    if not all(torch.equal(again[name], tensor) or tensor.isnan().any() for name, tensor in state.items()):
        raise EpochalError(f"{path.name} does not hold the weights that were written: the disk may be failing")
    return f"{len(state)} tensors, read back", ()


def _onnx(trained: TrainedModel, path: Path) -> tuple[str, tuple[str, ...]]:
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise EpochalError(f'the format onnx needs {error.name}, which is not installed: pip install "epochal[onnx]"') from None

    model, batch, notes = _traced(trained, torch.float32)
    with _silent(), keep_random_state(), _explained("ONNX"):
        taken, given = list(tensors(batch, "input")), list(tensors(_output(model, batch), "output"))
        given = [f"{name}_output" if name in taken else name for name in given]
        program = torch.onnx.export(_program(model, batch), input_names=taken, output_names=given, dynamo=True, verbose=False)
        assert program is not None
        program.model.metadata_props.update(_metadata(trained))
        program.save(path, external_data=False)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def call(inputs: Any) -> list[Tensor]:
        used = {item.name for item in session.get_inputs()}
        arrays = {name: tensor.numpy() for name, tensor in tensors(inputs, "input").items() if name in used}
        return [torch.from_numpy(array) for array in session.run(given, arrays)]

    return _checked(model, batch, call, "onnxruntime"), notes


def _torch(trained: TrainedModel, path: Path) -> tuple[str, tuple[str, ...]]:
    model, batch, notes = _traced(trained, trained.dtype)
    with _silent(), keep_random_state(), _explained("torch.export"):
        program = _program(model, batch)
        with path.open("wb") as file:
            torch.export.save(program, file, extra_files=_metadata(trained))
        with path.open("rb") as file:
            again = torch.export.load(file).module()
    return _checked(model, batch, again, "torch.export.load"), notes


def _program(model: nn.Module, batch: Any) -> torch.export.ExportedProgram:
    """The model as a graph for any number of samples."""
    shapes = (mapped(batch, lambda tensor: {0: torch.export.Dim.DYNAMIC} if tensor.ndim else {}),)
    try:
        return torch.export.export(model, (batch,), dynamic_shapes=shapes)
    except Exception:  # a model that asks for len(inputs) is one for that number alone, unless its code is read
        return torch.export.export(model, (batch,), dynamic_shapes=shapes, strict=True)


WRITERS: dict[str, Callable[[TrainedModel, Path], tuple[str, tuple[str, ...]]]] = {
    "safetensors": _safetensors,
    "onnx": _onnx,
    "torch": _torch,
}


def _metadata(trained: TrainedModel) -> dict[str, str]:
    """What is written beside the weights, as text."""
    known = trained.preprocessing
    return {
        "recipe": to_toml(trained.values),
        "preprocessing": json.dumps(known.as_dict()),
        "classes": json.dumps(list(known.classes)),
    }


def _output(model: nn.Module, batch: Any) -> Any:
    with torch.no_grad():
        return model(batch)


def _traced(trained: TrainedModel, dtype: torch.dtype) -> tuple[nn.Module, Any, tuple[str, ...]]:
    """The model, a real batch for it, and notes: where there is none, and where it is of several tensors."""
    model = trained.model
    if dtype == torch.float32 and trained.dtype == torch.bfloat16:  # hardly anything runs that
        model = model.float()
    notes: tuple[str, ...] = ()
    try:
        batch = _real(trained)
    except EpochalError as error:
        batch = _made_up(trained)
        if batch is None:
            raise
        notes = (f"checked with inputs that were made up: {error}",)
    if len(tensors(batch, "input")) > 1 or not isinstance(batch, Tensor):
        notes += (f"the model takes several tensors as one: model({spelt(batch, 'input')})",)
    single = any(len(tensor) == 1 for tensor in tensors(batch, "input").values() if tensor.ndim)

    def some(tensor: Tensor) -> Tensor:
        if not tensor.ndim:
            return tensor
        return torch.cat([tensor, tensor]) if single else tensor[:SAMPLES]  # torch takes one sample for a constant

    model_dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), dtype)
    return model, cast(mapped(batch, some), model_dtype), notes


def _real(trained: TrainedModel) -> Any:
    """Inputs of the validation part, else of the training part."""
    data = trained.training_data()
    part = data.train if data.validation is None else data.validation
    batches = make_batches(part, batch_size=SAMPLES)
    return next(iter(batches.epoch(1)))[0]


def _made_up(trained: TrainedModel) -> Tensor | None:
    known = trained.preprocessing
    generator = torch.Generator().manual_seed(0)
    if not known.input_shape:
        return None
    if known.tokens:
        vocabulary = known.output_size if known.task == "text" else 2
        return torch.randint(0, vocabulary, (SAMPLES, *known.input_shape), generator=generator)
    return torch.randn(SAMPLES, *known.input_shape, generator=generator)


def _checked(model: nn.Module, batch: Any, call: Callable[[Any], Any], by: str) -> str:
    """Compare with the model on the batch and on one sample. EpochalError where the outputs are others."""
    worst, count = 0.0, 0
    for inputs in (mapped(batch, lambda tensor: tensor[:1] if tensor.ndim else tensor), batch):
        count = max(len(tensor) for tensor in tensors(inputs, "input").values() if tensor.ndim)
        expected = list(tensors(_output(model, inputs), "output").values())
        try:
            with torch.no_grad():
                found = list(tensors(call(inputs), "output").values())
        except Exception as error:
            raise EpochalError(f"{by} can't run the exported model on {count} samples: {_line(error)}") from error
        if [tensor.shape for tensor in expected] != [tensor.shape for tensor in found]:
            raise EpochalError(f"the exported model's outputs are of other shapes in {by}: it is not kept")
        for ours, theirs in zip(expected, found, strict=True):
            same = (ours == theirs) | (ours.isnan() & theirs.isnan())
            off = (ours.double() - theirs.double()).abs().masked_fill(same, 0)
            share = float(off.max()) / max(1.0, float(ours.abs().max())) if off.numel() else 0.0
            if not share <= CLOSE:
                raise EpochalError(
                    f"the exported model's outputs are off by {share:.1e} in {by}, more than {CLOSE:.0e}: it is not kept"
                )
            worst = max(worst, share)
    return f"{count} samples by {by}, {f'off by {worst:.1e} at most' if worst else 'the same to the last bit'}"


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except EpochalError:
        raise
    except Exception as error:  # the exporters raise what they like
        raise EpochalError(f"the model can't be exported to {what}: {_line(error)}") from error


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """The exporters' remarks are for those who work on them."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
