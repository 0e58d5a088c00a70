"""Checkpoints: whole or absent, exact, and nothing that is read can execute."""

from __future__ import annotations

import hashlib
import json
import math
import os
import pickle
import random
import shutil
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from engine.errors import CheckpointError
from engine.run import strict_json
from engine.run.checkpoints import Checkpoints

STATE = {"epoch": 2, "best": math.nan, "worst": -math.inf, "names": ["a", "ü"], "lr": 0.1, "done": False, "nothing": None}


def tensors(seed: int) -> dict[str, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(3, 4, generator=generator)
    return {"model": {"weight": weight, "bias": torch.randn(3, generator=generator)}, "optimizer": {"step": torch.tensor(seed)}}


def write(checkpoints: Checkpoints, step: int, **options: Any) -> Path:
    return checkpoints.write(step, tensors(step), {**STATE, "step": step}, **{"best": False, **options})


def assert_is(saved: Any, step: int) -> None:
    assert saved.step == saved.state["step"] == step
    for kind, group in tensors(step).items():
        assert group.keys() == saved.tensors[kind].keys()
        assert all(torch.equal(group[name], saved.tensors[kind][name]) for name in group)


def steps(checkpoints: Checkpoints) -> list[int]:
    return [step for step, _ in checkpoints.list()]


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def hidden(directory: Path) -> list[str]:
    return [path.name for path in directory.rglob(".*")]


def damage(path: Path, change: Callable[[bytearray], object]) -> None:
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)


def sign(directory: Path) -> None:
    """Make the manifest fit what is in the directory, as somebody who offers a foreign file could."""
    manifest = json.loads((directory / "manifest.json").read_text())
    for name in manifest["files"]:
        data = (directory / name).read_bytes()
        manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (directory / "manifest.json").write_text(json.dumps(manifest, indent=1))


# What is written is what is read


def test_write_and_read(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    path = write(checkpoints, 1200)
    assert path == tmp_path / "checkpoints" / "step-00001200"
    assert names_in(path) == ["manifest.json", "model.safetensors", "optimizer.safetensors", "state.json"]
    for which in ("last", 1200, path, str(path)):
        saved = checkpoints.read(which)
        assert_is(saved, 1200)
        assert saved.path == path and saved.passed_over == ()
        assert math.isnan(saved.state.pop("best"))
        assert saved.state == {**{key: value for key, value in STATE.items() if key != "best"}, "step": 1200}


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(1.5),
        torch.tensor([math.nan, math.inf, -0.0, 1e-45]),
        torch.arange(6, dtype=torch.float64).reshape(2, 3) / 7,
        torch.arange(6).to(torch.bfloat16) / 7,
        torch.arange(6).to(torch.float16) / 7,
        torch.tensor([2**62 + 1, -1]),
        torch.tensor([0, 255], dtype=torch.uint8),
        torch.tensor([[True], [False]]),
        torch.tensor([1 + 2j]),
        torch.zeros(0, 5),
        torch.arange(12.0).reshape(3, 4).t(),
        torch.arange(12.0)[3:7],
        torch.arange(12.0)[::3],
        torch.ones(1).expand(3, 4),
        nn.Parameter(torch.ones(2)),
    ],
    ids=lambda tensor: f"{tensor.dtype}-{tuple(tensor.shape)}-{tensor.stride()}",
)
def test_every_kind_of_tensor_comes_back_bit_for_bit(tmp_path: Path, tensor: Tensor) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.write(1, {"model": {"x": tensor}, "optimizer": {}}, {}, best=False)
    saved = checkpoints.read()
    read = saved.tensors["model"]["x"]
    assert read.dtype == tensor.dtype and read.shape == tensor.shape
    assert read.numpy(force=True).tobytes() == tensor.detach().numpy().tobytes() if tensor.dtype != torch.bfloat16 else True
    assert torch.equal(read.nan_to_num(), tensor.nan_to_num())
    assert saved.tensors["optimizer"] == {}


def test_what_is_read_survives_its_file(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    path = write(checkpoints, 1)
    saved = checkpoints.read()
    os.truncate(path / "model.safetensors", 0)
    assert_is(saved, 1)
    assert saved.tensors["model"]["weight"].data_ptr() % 64 == 0  # as a tensor made by torch


def test_e9_tied_weights_are_saved_once_and_load_tied(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(1000, 8)
            self.head = nn.Linear(8, 1000, bias=False)
            self.head.weight = self.embed.weight

    model = Tied()
    checkpoints = Checkpoints(tmp_path)
    path = checkpoints.write(1, {"model": model.state_dict(), "optimizer": {}}, {}, best=False)
    assert 32_000 < (path / "model.safetensors").stat().st_size < 33_000
    read = checkpoints.read().tensors["model"]
    assert read.keys() == model.state_dict().keys()
    assert read["head.weight"] is read["embed.weight"]
    assert torch.equal(read["head.weight"], model.head.weight)


def test_views_that_overlap_without_being_the_same_are_saved_each(tmp_path: Path) -> None:
    base = torch.arange(12.0)
    views = {"all": base, "flat": base.view(3, 4), "t": base.view(3, 4).t(), "some": base[2:5], "same": base.view(12)}
    checkpoints = Checkpoints(tmp_path)
    checkpoints.write(1, {"model": views}, {}, best=False)
    read = checkpoints.read().tensors["model"]
    assert all(torch.equal(read[name], views[name]) for name in views)
    assert read["same"] is read["all"] and read["flat"] is not read["all"]


def test_the_same_content_makes_the_same_bytes(tmp_path: Path) -> None:
    paths = [write(Checkpoints(tmp_path / name), 7) for name in ("a", "b")]
    for name in names_in(paths[0]):
        assert (paths[0] / name).read_bytes() == (paths[1] / name).read_bytes()


def test_files_have_the_mode_that_the_umask_gives(tmp_path: Path) -> None:
    path = write(Checkpoints(tmp_path), 1)
    plain = tmp_path / "plain"
    plain.touch()
    modes = {stat.S_IMODE(item.stat().st_mode) for item in path.iterdir()}
    assert modes == {stat.S_IMODE(plain.stat().st_mode)}


def test_e13_tensors_are_read_on_the_device_asked_for(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    write(checkpoints, 1)
    assert checkpoints.read(map_location=torch.device("cpu")).tensors["model"]["bias"].device.type == "cpu"
    assert checkpoints.read(map_location="meta").tensors["model"]["bias"].device.type == "meta"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_e13_written_on_a_gpu_and_read_without_one(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    weight = torch.randn(3, 4, device="cuda")
    checkpoints.write(1, {"model": {"a": weight, "b": weight}}, {}, best=False)
    read = checkpoints.read().tensors["model"]
    assert torch.equal(read["a"], weight.cpu()) and read["a"] is read["b"]
    assert torch.equal(checkpoints.read(map_location="cuda").tensors["model"]["a"], weight)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda values: (
        st.lists(values, max_size=3)
        | st.dictionaries(st.text(max_size=3) | st.integers() | st.floats(allow_nan=False), values, max_size=3)
        | st.dictionaries(st.sampled_from(["__float__", "__items__", "x"]), values, max_size=2)
    ),
    max_leaves=8,
)


def exactly(value: Any) -> Any:
    """A form in which only bit-identical values are equal."""
    match value:
        case float():
            return "nan" if math.isnan(value) else struct.pack("d", value)
        case list():
            return [exactly(item) for item in value]
        case dict():
            return [(type(key), exactly(key), exactly(item)) for key, item in value.items()]
    return (type(value), value)


@given(json_values)
def test_state_comes_back_exactly_through_strict_json(value: Any) -> None:
    data = strict_json.encode(value)
    assert exactly(strict_json.decode(data)) == exactly(value)
    json.loads(data, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))


def test_state_that_is_not_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        Checkpoints(tmp_path).write(1, {}, {"function": print}, best=False)
    assert names_in(tmp_path) == []


# Pointers and pruning


def test_e11_last_and_best_point_where_they_were_told(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    write(checkpoints, 10, best=True)
    write(checkpoints, 20)
    assert (tmp_path / "last").readlink() == Path("step-00000020")
    assert (tmp_path / "best").readlink() == Path("step-00000010")
    assert_is(checkpoints.read("best"), 10)
    write(checkpoints, 30, best=True, last=False)
    assert_is(checkpoints.read("best"), 30)
    assert_is(checkpoints.read("last"), 20)


@pytest.mark.parametrize("keep", [0, 1, 2, 3, 5])
def test_the_newest_stay_and_the_best_besides_and_never_fewer_than_two(tmp_path: Path, keep: int) -> None:
    checkpoints = Checkpoints(tmp_path, keep=keep)
    for step in range(1, 10):
        write(checkpoints, step, best=step == 3)
    assert steps(checkpoints) == sorted({3, *range(10 - max(keep, 2), 10)})


def test_checkpoints_of_an_abandoned_future_go(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (10, 20, 30):
        write(checkpoints, step)
    damage(tmp_path / "step-00000030" / "state.json", bytearray.clear)
    assert checkpoints.read().step == 20
    write(checkpoints, 25)
    assert steps(checkpoints) == [20, 25]
    assert_is(checkpoints.read(), 25)


def test_writing_a_step_again_replaces_it(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    write(checkpoints, 5, best=True)
    checkpoints.write(5, tensors(6), {"step": 6}, best=False)
    assert steps(checkpoints) == [5]
    assert checkpoints.read("best").state == {"step": 6}
    assert torch.equal(checkpoints.read().tensors["model"]["bias"], tensors(6)["model"]["bias"])


def test_a_run_copied_by_a_tool_that_follows_links_still_works(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "here")
    write(checkpoints, 1, best=True)
    write(checkpoints, 2)
    shutil.copytree(tmp_path / "here", tmp_path / "there", symlinks=False)
    copied = Checkpoints(tmp_path / "there")
    assert_is(copied.read("last"), 2)
    assert_is(copied.read("best"), 1)
    write(copied, 3, best=True)
    assert_is(copied.read("last"), 3)
    assert_is(copied.read("best"), 3)


# Damage


def test_nothing_to_read(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "missing"):
        with pytest.raises(CheckpointError, match="there is no checkpoint in"):
            Checkpoints(directory).read()
        with pytest.raises(CheckpointError, match="does not exist"):
            Checkpoints(directory).read("best")
        assert Checkpoints(directory).list() == []


def test_e4_one_flipped_bit_anywhere_is_named_and_the_one_before_it_used(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    write(checkpoints, 1)
    newest = write(checkpoints, 2)
    for path in newest.iterdir():
        whole = path.read_bytes()
        for position in range(len(whole)):
            flipped = bytearray(whole)
            flipped[position] ^= 1 << position % 8
            path.write_bytes(flipped)
            saved = checkpoints.read()
            assert saved.step == 1, f"byte {position} of {path.name}"
            assert len(saved.passed_over) == 1 and saved.passed_over[0].startswith("step-00000002 is damaged: ")
        path.write_bytes(whole)
    assert_is(checkpoints.read(), 2)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"])
def test_e4_truncated_empty_missing_and_foreign_files_are_named(tmp_path: Path, name: str) -> None:
    checkpoints = Checkpoints(tmp_path)
    write(checkpoints, 1)
    path = write(checkpoints, 2, best=True) / name
    whole = path.read_bytes()
    for content in [whole[:cut] for cut in random.Random(0).sample(range(len(whole)), 20)] + [b"", whole + b"\0", b"\0" * 200]:
        path.write_bytes(content)
        saved = checkpoints.read()
        assert saved.step == 1 and len(saved.passed_over) == 1
        with pytest.raises(CheckpointError, match="step-00000002 is damaged"):
            checkpoints.read("best")
        with pytest.raises(CheckpointError, match="step-00000002 is damaged"):
            checkpoints.read(2)
    path.unlink()
    assert name in checkpoints.read().passed_over[0]
    path.mkdir()
    assert checkpoints.read().step == 1


@pytest.mark.parametrize("content", [b"[]", b"null", b"{}", b'{"format": 1}', b'{"format": 2, "files": {}}', b"[" * 100_000])
def test_e4_a_foreign_manifest_is_damage(tmp_path: Path, content: bytes) -> None:
    checkpoints = Checkpoints(tmp_path)
    write(checkpoints, 1)
    (write(checkpoints, 2) / "manifest.json").write_bytes(content)
    assert checkpoints.read().step == 1


def test_e4_damage_to_the_pointer_or_to_all(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2, 3):
        write(checkpoints, step)
    (tmp_path / "last").unlink()
    assert_is(checkpoints.read(), 3)
    (tmp_path / "last").symlink_to("step-00000009")
    assert_is(checkpoints.read(), 3)
    (tmp_path / "last").unlink()
    (tmp_path / "last").write_text("step-00000003")
    assert_is(checkpoints.read(), 3)
    (tmp_path / "step-00000004").mkdir()
    assert_is(checkpoints.read(), 3)
    for _, path in checkpoints.list():
        shutil.rmtree(path)
        path.mkdir()
    with pytest.raises(CheckpointError, match=r"no whole checkpoint in .*step-00000003.*step-00000002.*step-00000001"):
        checkpoints.read()


class Trap:
    """Unpickling this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("save", [torch.save, lambda thing, path: Path(path).write_bytes(pickle.dumps(thing))])
def test_e6_a_pickle_offered_as_a_checkpoint_is_never_unpickled(tmp_path: Path, name: str, save: Any, signed: bool) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    path = write(checkpoints, 1)
    save({"weight": Trap(tmp_path / "sprung")}, path / name)
    if signed and name != "manifest.json":
        sign(path)
    with pytest.raises(CheckpointError, match="no whole checkpoint"):
        checkpoints.read()
    assert not (tmp_path / "sprung").exists()
    pickle.loads(pickle.dumps(Trap(tmp_path / "sprung")))
    assert (tmp_path / "sprung").exists()
