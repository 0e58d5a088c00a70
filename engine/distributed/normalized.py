"""Batch normalization over the whole batch, of which each process holds a share: on the CPU and on GPUs the same.

torch's SyncBatchNorm is for GPUs alone, and counts the sample that stands in where a rank has none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from engine.distributed import processes

if TYPE_CHECKING:
    from engine.distributed.ranks import Ranks


class Joined(_BatchNorm):
    """In training its mean and variance are those of all shares together; else it is the layer that it was."""

    samples: ClassVar[int]  # of the batch under way
    mine: ClassVar[int]  # how many of them are this process's: the one that stands in for none does not count

    def forward(self, input: Tensor) -> Tensor:
        ranks = processes()
        if not self.training or ranks is None:
            return super().forward(input)
        self._check_input_dim(input)  # type: ignore[no-untyped-call]
        if self.samples == 1 and input.numel() == input.shape[1]:  # as torch has it
            raise ValueError(f"Expected more than 1 value per channel when training, got input size {input.shape}")
        output, mean, variance, size = _Normalize.apply(  # type: ignore[no-untyped-call]
            input, self.weight, self.bias, self.eps, self.mine > 0, ranks
        )
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            assert self.num_batches_tracked is not None
            self.num_batches_tracked.add_(1)
            part = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), part)
            self.running_var.lerp_((variance * (size / (size - 1))).to(self.running_var.dtype), part)
        return output  # type: ignore[no-any-return]

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Copied and kept as the layer that it was."""
        kind = next(each for each in type(self).__mro__ if Joined not in each.__mro__)
        return object.__new__, (kind,), self.__getstate__()  # type: ignore[no-untyped-call]


def joined(kind: type[_BatchNorm]) -> type[_BatchNorm]:
    """The same class of layers, normalizing over all shares wherever it calls for torch's own way of doing that."""
    sync = issubclass(kind, nn.SyncBatchNorm)  # which has a way of its own
    return type(kind.__name__, (Joined, kind) if sync else (kind, Joined), {"__module__": kind.__module__})


def own_buffers(model: nn.Module) -> Iterator[Tensor]:
    """Buffers that each process may change otherwise than the others."""
    yield from (held for part in model.modules() if not isinstance(part, Joined) for held in part.buffers(recurse=False))


def calls_torchs(kind: type[nn.Module]) -> bool:
    """Whether its forward is torch's, or calls for that by `super()`."""
    forward: Any = next(vars(each)["forward"] for each in kind.__mro__ if "forward" in vars(each))
    code = getattr(forward, "__code__", None)
    return forward.__module__.startswith("torch.") or (code is not None and "__class__" in code.co_freevars)


class _Normalize(torch.autograd.Function):
    """One exchange in each direction: of sizes, means and squares; and of what the gradient takes from all samples."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Any, bias: Any, eps: float, counts: bool, ranks: Ranks) -> Any:
        channels, kind = inputs.shape[1], torch.promote_types(inputs.dtype, torch.float32)
        told = torch.zeros(ranks.count, 2 * channels + 1, dtype=torch.float64, device=inputs.device)
        if counts:
            variance, mean = torch.var_mean(inputs.to(kind), [0, *range(2, inputs.dim())], correction=0)
            told[ranks.rank, 0] = inputs.numel() // channels
            told[ranks.rank, 1:] = torch.cat([mean, variance])
        ranks.summing(told)()
        sizes, means, variances = told.split([1, channels, channels], 1)
        size = sizes.sum()
        mean = (sizes * means).sum(0) / size
        variance = (sizes * (variances + (means - mean) ** 2)).sum(0) / size
        turn = torch.ones_like(mean, dtype=kind) if weight is None else weight.to(kind)
        shift = torch.zeros_like(turn) if bias is None else bias.to(kind)
        ctx.save_for_backward(inputs, turn, mean.to(kind), variance.to(kind), size)
        ctx.eps, ctx.counts, ctx.ranks = eps, counts, ranks
        ctx.kinds = [None if part is None else part.dtype for part in (weight, bias)]
        ctx.mark_non_differentiable(mean, variance, size)
        return nn.functional.batch_norm(inputs, mean.to(kind), variance.to(kind), turn, shift, eps=eps), mean, variance, size

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> Any:
        """torch's own where mean and variance are given, and what follows from these not being that."""
        inputs, turn, mean, variance, size = ctx.saved_tensors
        scale = (variance + ctx.eps).rsqrt()
        known = mean, variance, mean, scale  # the CPU takes the first two, a GPU the others
        of_inputs, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, inputs, turn, *known, False, ctx.eps, [True, True, True]
        )
        if ctx.needs_input_grad[0]:
            everywhere = torch.stack([of_weight, of_bias]).double()
            ctx.ranks.summing(everywhere)()
            by_place, alike = (everywhere * -(turn * scale) / size).to(mean)
            of_inputs = of_inputs + nn.functional.batch_norm(inputs, mean, variance, by_place, alike, eps=ctx.eps)
            if not ctx.counts:
                of_inputs = torch.zeros_like(of_inputs)
        given = [None if kind is None else held.to(kind) for held, kind in zip((of_weight, of_bias), ctx.kinds, strict=True)]
        return of_inputs, *given, None, None, None
