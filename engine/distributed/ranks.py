"""Ranks: the processes that train together, and what they tell each other outside the gradients.

Everything here goes through gloo, on the host's memory: it never waits for a GPU.
"""

from __future__ import annotations

import atexit
import os
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import psutil
import torch
import torch.distributed as dist
from torch import Tensor

from engine.data.batches import Batches
from engine.distributed.attempt import store_of_this_attempt
from engine.errors import EpochalError, Problem, RecipeError

SILENCE = timedelta(minutes=30)  # after which a process that does not answer is given up
SEARCH = 3.0  # seconds for which is looked who has died


class RankFailed(EpochalError):
    """Another process of this training has ended; says which and why."""

    status = 1


def local_rank() -> int:
    """Which of the processes on this machine this is, from 0."""
    return int(os.environ.get("LOCAL_RANK", "0"))


class Ranks:
    """The process group, this process's `rank` in it and the `count` of all."""

    def __init__(self) -> None:
        if not dist.is_initialized():
            if torch.cuda.is_available():
                torch.cuda.set_device(local_rank() % torch.cuda.device_count())
            store = store_of_this_attempt(SILENCE)
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
            if store is None:
                dist.init_process_group(backend, timeout=SILENCE)
            else:
                rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
                dist.init_process_group(backend, timeout=SILENCE, store=store, rank=rank, world_size=count)
            atexit.register(self._leave)
        self.rank, self.count = dist.get_rank(), dist.get_world_size()
        self._group = dist.new_group(backend="gloo", timeout=SILENCE)
        self._store = dist.distributed_c10d._get_default_store()
        self._failed = False
        self._processes: list[tuple[str, int]] = self.gather((socket.gethostname(), os.getpid()))

    @property
    def writes(self) -> bool:
        """Whether this process writes the run's directory and speaks for all."""
        return self.rank == 0

    def first(self, value: Any = None) -> Any:
        """What rank 0 has given, everywhere."""
        held = [value]
        dist.broadcast_object_list(held, src=0, group=self._group)
        return held[0]

    def gather(self, value: Any) -> list[Any]:
        """What each rank has given, in their order, everywhere. Any data that can be pickled."""
        held: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(held, value, group=self._group)
        return held

    def everywhere(self, value: bool) -> bool:
        """Whether it is true of all of them."""
        held = torch.tensor(int(value))
        dist.all_reduce(held, dist.ReduceOp.MIN, group=self._group)
        return bool(held)

    def summing(self, tensor: Tensor) -> Callable[[], Any]:
        """Begin to sum a tensor over all ranks, in place; what is returned waits for that, on the host or on the device."""
        work = dist.all_reduce(tensor, group=self._group_of(tensor), async_op=True)
        return work.wait  # type: ignore[union-attr, no-any-return]

    def sum(self, tensor: Tensor) -> None:
        """Sum a tensor on the host over all ranks, in place: without torch's wrapping, which takes as long again."""
        self._group.allreduce([tensor]).wait()

    def lead(self, tensors: Iterable[Tensor]) -> None:
        """Rank 0's values in these tensors of all, wherever they lie."""
        for tensor in tensors:
            held = tensor.detach().contiguous()
            dist.broadcast(held, 0, group=self._group_of(tensor))
            tensor.detach().copy_(held)

    def spread(self, tensors: dict[str, Tensor] | None) -> dict[str, Tensor]:
        """Rank 0's tensors, everywhere, one after another; on the host."""
        shapes = self.first([(name, held.shape, held.dtype) for name, held in (tensors or {}).items()])
        received = {}
        for name, shape, dtype in shapes:
            held = tensors[name].contiguous() if tensors is not None and self.writes else torch.empty(shape, dtype=dtype)
            dist.broadcast(held, 0, group=self._group)
            received[name] = held
        return received

    def _group_of(self, tensor: Tensor) -> dist.ProcessGroup | None:
        return self._group if tensor.device.type == "cpu" else None

    def deal(self, batches: Batches | None) -> None:
        """Let this process load its share of every batch."""
        if batches is None:
            return
        loader = getattr(batches, "loader", None)
        if isinstance(getattr(loader, "sampler", None), torch.utils.data.DistributedSampler):
            raise RecipeError([Problem("data", "the loader has a DistributedSampler; give it without: batches are dealt here")])
        if not hasattr(batches, "dealt"):
            kind = type(batches).__name__
            raise RecipeError(
                [Problem("data", f"{kind} can't be dealt to {self.count} processes: it has no attribute 'dealt'")]
            )
        batches.dealt = (self.rank, self.count)

    def refuse_one_gpu(self, device: torch.device) -> None:
        """RecipeError, on all ranks, where two of them are to train on the same GPU: NCCL would only say that it can't."""
        if device.type == "cuda" and "cuda:nccl" in dist.get_backend_config():
            held = self.gather(str(torch.cuda.get_device_properties(device).uuid))
            if len(set(held)) < len(held):
                said = f"several processes would train on one GPU, {device}; with 'auto' each has one of its own"
                raise RecipeError([Problem("training.device", said)])

    # When one of them fails

    def failed(self, error: BaseException) -> BaseException:
        """This process ends by this error: what to say of it, and a word for the others.

        Where the error is that another can't be reached, RankFailed with its rank and what it has said, or how it ended.
        """
        self._failed = True
        if not is_silence(error):
            with suppress(Exception):  # the store may have gone before
                self._store.set(f"epochal/failed/{self.rank}", f"{type(error).__name__}: {error}")
            return error
        blamed = self._who_failed(error)
        blamed.__cause__ = error
        return blamed

    def _who_failed(self, error: BaseException) -> RankFailed:
        deadline = time.monotonic() + SEARCH
        while time.monotonic() < deadline:
            for rank, (host, pid) in enumerate(self._processes):
                if rank == self.rank:
                    continue
                with suppress(Exception):
                    if self._store.check([f"epochal/failed/{rank}"]):
                        return RankFailed(f"rank {rank} failed: {self._store.get(f'epochal/failed/{rank}').decode()}")
                if host == socket.gethostname() and not _alive(pid):
                    return RankFailed(f"rank {rank} ended without a word (process {pid}), as one does that is killed")
            time.sleep(0.05)
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        return RankFailed(f"another process of this training can't be reached any more: {first}")

    def _leave(self) -> None:
        if self._failed:  # a GPU may still wait for what nobody sends any more, and destroying the group waits for the GPU
            with suppress(Exception):
                dist.distributed_c10d._abort_process_group()
        elif dist.is_initialized():
            dist.destroy_process_group()


def is_silence(error: BaseException) -> bool:
    """Whether a collective failed because a process does not answer."""
    if isinstance(error, dist.DistBackendError | dist.DistNetworkError):
        return True
    words = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out waiting", "gloo/transport")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def _alive(pid: int) -> bool:
    with suppress(psutil.Error):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False
