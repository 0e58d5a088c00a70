"""Checkpoints: whole or absent, and nothing that is read can execute.

    checkpoints/step-00001200/model.safetensors, optimizer.safetensors, state.json, manifest.json
    checkpoints/last, checkpoints/best    links to the newest one and to that of the best epoch

A checkpoint is written in a hidden directory, hashed, synced and then renamed, so a directory under its own name is
complete; the manifest's sizes and SHA-256 sums tell when it was damaged later.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import hashlib
import json
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from engine.errors import CheckpointError
from engine.run import files, strict_json

_MANIFEST, _STATE, _TENSORS = "manifest.json", "state.json", ".safetensors"
_FORMAT = 1
_NAME = re.compile(r"step-(\d+)")
# Hidden names, all of this module: a checkpoint being written, one being replaced, one being deleted.
_NEW, _OLD, _GONE = ".new-", ".old-", ".gone-"
_HEADERS = 65536  # bytes, more than enough, for what files hold besides their data
_HEADER = 512  # and for each tensor's line in them


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A checkpoint as read. `passed_over` has one sentence for each damaged one that was tried before it."""

    step: int
    path: Path
    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]
    passed_over: tuple[str, ...] = ()


class Checkpoints:
    """The checkpoints of one run. One process writes, any may read at the same time.

    keep: how many of the newest stay (never fewer than two), besides those that `last` and `best` point to.
    """

    def __init__(self, directory: Path, keep: int = 3) -> None:
        self.directory = Path(directory)
        self.keep = keep
        self._warnings: list[str] = []
        self._warned: set[str] = set()  # what keeps going wrong is told once

    def write(
        self,
        step: int,
        tensors: Mapping[str, Mapping[str, Tensor]],
        state: Mapping[str, Any],
        *,
        best: bool,
        last: bool = True,
    ) -> Path:
        """Write a checkpoint and point `best` and `last` to it as asked; one of the same step is replaced.

        tensors: by file name ("model", "optimizer"), then by tensor name. Any device, layout and sharing: tied tensors
            are written once and read back tied.
        state: what `strict_json` takes.

        When this fails or is killed, at any point, what could be read before can be read still. OSError when the disk
        does not take it; before anything is written where there is too little space. What goes wrong once the checkpoint is
        there, `take_warnings` tells.
        """
        encoded = strict_json.encode({"step": step, "state": dict(state)}, indent=1)
        final = self.directory / f"step-{step:08d}"
        if not self.directory.exists():
            files.make_directory(self.directory)
            files.sync(self.directory.parent)
        self.tidy()
        try:
            self._refuse_without_space(tensors, encoded)
            new = self._write_aside(final.name, tensors, encoded)
            # `best` always before `last`: a run that goes on from `last` does not write a best one from before it again.
            if final.exists():
                if best:
                    self._point("best", final)
                files.replace(final, final.with_name(_OLD + final.name))
            files.replace(new, final)
            files.sync(self.directory)
            if best:
                self._point("best", final)
            if last:
                self._point("last", final)
            try:
                self._prune(step)
            except OSError as error:
                self._warn(f"old checkpoints can't be removed from {self.directory}: {error.strerror}")
        finally:
            with contextlib.suppress(OSError):  # a disk that fails here as well is tidied by the next write
                self.tidy()
        return final

    def take_warnings(self) -> builtins.list[str]:
        """One sentence each on what went wrong since the last call without being a failure of a write."""
        warnings, self._warnings = self._warnings, []
        return warnings

    def read(
        self,
        which: str | int | Path = "last",
        map_location: str | torch.device = "cpu",
        only: Collection[str] | None = None,
    ) -> Saved:
        """Read "last", "best", the checkpoint of a step, or a directory, verified, the tensors on `map_location`.

        only: the groups of tensors that are wanted; others are not looked at.

        A damaged "last" is passed over for the newest whole one. CheckpointError, naming the file, when what was asked
        for is damaged or missing.
        """
        if which != "last":
            path = self.directory / f"step-{which:08d}" if isinstance(which, int) else self._named(which)
            return _read(path, map_location, only)
        last = self.directory / "last"
        newest_first = [path for _, path in reversed(self.list())]
        pointed = [self._named("last")] if last.is_symlink() or last.exists() else []
        candidates = list(dict.fromkeys([*pointed, *newest_first]))
        if not candidates:
            raise CheckpointError(f"there is no checkpoint in {self.directory}")
        passed_over: list[str] = []
        for path in candidates:
            try:
                return replace(_read(path, map_location, only), passed_over=tuple(passed_over))
            except CheckpointError as error:
                passed_over.append(str(error))
        raise CheckpointError(f"no whole checkpoint in {self.directory}: {'; '.join(passed_over)}")

    def list(self) -> builtins.list[tuple[int, Path]]:
        """(step, directory) of every checkpoint, damaged ones included, the oldest first."""
        # While a checkpoint is replaced by one of the same step it is, for a moment, only there under its hidden name.
        paths = [*self.directory.glob(_OLD + "step-*"), *self.directory.glob("step-*")]
        matches = ((_NAME.fullmatch(path.name.removeprefix(_OLD)), path) for path in paths)
        return sorted({int(match[1]): path for match, path in matches if match}.items())

    def _named(self, which: str | Path) -> Path:
        """The directory that "last" or "best" stands for, or the path itself."""
        path = Path(which)
        if which in ("last", "best"):
            path = self.directory / which
            if path.is_symlink():
                path = self.directory / path.readlink()
                hidden = path.with_name(_OLD + path.name)
                return hidden if hidden.exists() and not path.exists() else path
        return path

    def _refuse_without_space(self, tensors: Mapping[str, Mapping[str, Tensor]], encoded: bytes) -> None:
        held = [tensor for group in tensors.values() for tensor in unique(group)[0].values()]
        needed = sum(tensor.numel() * tensor.element_size() + _HEADER for tensor in held) + len(encoded) + _HEADERS
        free = files.free(self.directory)
        if free is not None and free < needed:
            raise OSError(errno.ENOSPC, f"no space left: a checkpoint needs {_size(needed)}, {_size(free)} are free")

    def _write_aside(self, name: str, tensors: Mapping[str, Mapping[str, Tensor]], encoded: bytes) -> Path:
        new = self.directory / (_NEW + name)
        files.make_directory(new)
        for kind, group in tensors.items():
            _write_tensors(new / (kind + _TENSORS), group)
        files.write(new / _STATE, encoded)
        contents = sorted(new.iterdir())
        for path in contents:
            files.sync(path)
        manifest = {path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)} for path in contents}
        files.write(new / _MANIFEST, strict_json.encode({"format": _FORMAT, "files": manifest}, indent=1))
        files.sync(new / _MANIFEST)
        files.sync(new)
        return new

    def _point(self, name: str, target: Path) -> None:
        path, aside = self.directory / name, self.directory / (_NEW + name)
        if path.is_dir() and not path.is_symlink():  # a copy of the run made by a tool that follows links
            files.remove(path)
        files.link(aside, target.name)
        files.replace(aside, path)
        files.sync(self.directory)

    def _prune(self, step: int) -> None:
        # Steps above the one just written belong to a future that a resume from before them has abandoned.
        newest = [path for other, path in self.list() if other <= step][-max(self.keep, 2) :]
        stay = {path.name for path in (*newest, self._named("last"), self._named("best"))}
        for _, path in self.list():
            if path.name not in stay:
                gone = path.with_name(_GONE + path.name)  # half deleted, it must not look like a checkpoint
                files.replace(path, gone)
                files.remove(gone)

    def tidy(self) -> None:
        """Remove what a killed writer left; put back what it was about to replace."""
        for path in self.directory.glob(".*"):
            name = path.with_name(path.name.removeprefix(_OLD))
            if path.name.startswith(_OLD) and not name.exists():
                files.replace(path, name)
                continue
            try:
                files.remove(path)
            except OSError as error:  # it takes space, and no more
                self._warn(f"{path} can't be removed: {error.strerror}")

    def _warn(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            self._warnings.append(text)


def unique(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors, each once, and the names that stand for another name's tensor."""
    names: dict[tuple, str] = {}
    aliases: dict[str, str] = {}
    unique: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        place = (tensor.device, tensor.dtype, tensor.data_ptr(), tensor.shape, tensor.stride())
        if tensor.numel() and place in names:
            aliases[name] = names[place]
        else:
            names[place] = name
            unique[name] = tensor
    return unique, aliases


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """One safetensors file; its metadata lists, as JSON, the names that stand for another name's tensor."""
    alone, aliases = unique(tensors)
    storages: set[int] = set()
    for name, tensor in alone.items():
        plain = tensor.detach().cpu().contiguous()
        if plain.untyped_storage().data_ptr() in storages:  # a view that overlaps another tensor: a copy of its own
            plain = plain.clone()
        storages.add(plain.untyped_storage().data_ptr())
        alone[name] = plain
    metadata = {"aliases": json.dumps(aliases)} if aliases else None
    files.fill(path, lambda target: _save_file(alone, target, metadata))


def _save_file(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None) -> None:
    """safetensors has an error of its own for what the disk does not take."""
    try:
        save_file(tensors, path, metadata)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.2f} MB"


def _read(path: Path, map_location: str | torch.device, only: Collection[str] | None = None) -> Saved:
    """Read one checkpoint directory. CheckpointError, in one sentence, when anything about it is not as written."""
    try:
        manifest = strict_json.decode((path / _MANIFEST).read_bytes())
        if manifest["format"] != _FORMAT:
            raise ValueError(f"{_MANIFEST} has format {manifest['format']!r}, not {_FORMAT}")
        wanted = {
            name: expected
            for name, expected in manifest["files"].items()
            if only is None or not name.endswith(_TENSORS) or name.removesuffix(_TENSORS) in only
        }
        for name, expected in wanted.items():
            _verify(path / name, expected["bytes"], expected["sha256"])
        saved = strict_json.decode((path / _STATE).read_bytes())
        return Saved(
            step=saved["step"],
            path=path,
            tensors={
                name.removesuffix(_TENSORS): _read_tensors(path / name, map_location)
                for name in wanted
                if name.endswith(_TENSORS)
            },
            state=saved["state"],
        )
    except FileNotFoundError as error:
        missing = Path(error.filename or path).name
        problem = f"{path.name} is damaged: {missing} is missing" if path.exists() else f"{path} does not exist"
        raise CheckpointError(problem) from error
    except OSError as error:
        raise CheckpointError(f"{path.name} can't be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        raise CheckpointError(f"{path.name} is damaged: {error}") from error


def _verify(path: Path, size: int, digest: str) -> None:
    actual = path.stat().st_size
    if actual != size:
        raise CheckpointError(f"{path.parent.name} is damaged: {path.name} has {actual} bytes, not {size}")
    if _sha256(path) != digest:
        raise CheckpointError(f"{path.parent.name} is damaged: the content of {path.name} has changed since it was written")


def _read_tensors(path: Path, map_location: str | torch.device) -> dict[str, Tensor]:
    with safe_open(path, "pt") as file:
        # Copies: the file's own memory map is neither aligned like a fresh tensor nor safe once the file goes.
        tensors = {name: file.get_tensor(name).to(map_location, copy=True) for name in file.keys()}  # noqa: SIM118
        aliases = json.loads((file.metadata() or {}).get("aliases", "{}"))
    return {**tensors, **{alias: tensors[name] for alias, name in aliases.items()}}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
