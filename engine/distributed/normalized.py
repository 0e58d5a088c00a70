"""Batch normalization over the whole batch, of which each process holds a share; on the CPU, where torch has no such layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from engine.distributed import processes

if TYPE_CHECKING:
    from engine.distributed.ranks import Ranks


class Joined(nn.modules.batchnorm._BatchNorm):
    """In training its mean and variance are those of all shares together; else it is torch's own."""

    counts: ClassVar[bool] = True  # whether the samples of this process do: not those that only stand in, see `Share`

    def forward(self, input: Tensor) -> Tensor:
        ranks = processes()
        if not self.training or ranks is None:
            return super().forward(input)
        self._check_input_dim(input)  # type: ignore[no-untyped-call]
        output, mean, variance, size = _Normalize.apply(input, self.weight, self.bias, self.eps, self.counts, ranks)  # type: ignore[no-untyped-call]
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            assert self.num_batches_tracked is not None
            self.num_batches_tracked.add_(1)
            part = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), part)
            self.running_var.lerp_((variance * (size / (size - 1))).to(self.running_var.dtype), part)
        return output  # type: ignore[no-any-return]


class BatchNorm1d(Joined, nn.BatchNorm1d):
    pass


class BatchNorm2d(Joined, nn.BatchNorm2d):
    pass


class BatchNorm3d(Joined, nn.BatchNorm3d):
    pass


class BatchNorm(Joined):
    """In place of torch's SyncBatchNorm, which is for GPUs."""

    _check_input_dim = nn.SyncBatchNorm._check_input_dim  # type: ignore[assignment]


KINDS: dict[type[nn.Module], type[Joined]] = {
    nn.BatchNorm1d: BatchNorm1d,
    nn.BatchNorm2d: BatchNorm2d,
    nn.BatchNorm3d: BatchNorm3d,
    nn.SyncBatchNorm: BatchNorm,
}


class _Normalize(torch.autograd.Function):
    """One exchange in each direction: of sizes, means and squares; and of what the gradient takes from all samples."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Any, bias: Any, eps: float, counts: bool, ranks: Ranks) -> Any:
        channels, over = inputs.shape[1], [0, *range(2, inputs.dim())]
        wide = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
        told = torch.zeros(ranks.count, 2 * channels + 1, dtype=torch.float64)
        if counts:
            variance, mean = torch.var_mean(wide, over, correction=0)
            told[ranks.rank] = torch.cat([torch.tensor([wide.numel() // channels]), mean, variance])
        ranks.summing(told)()
        sizes, means, variances = told.split([1, channels, channels], 1)
        size = sizes.sum().item()
        if size <= 1:  # as torch has it
            raise ValueError(f"Expected more than 1 value per channel when training, got input size {inputs.shape}")
        mean = (sizes * means).sum(0) / size
        variance = (sizes * (variances + (means - mean) ** 2)).sum(0) / size
        turn, shift = (None if part is None else part.to(wide) for part in (weight, bias))
        output = nn.functional.batch_norm(wide, mean.to(wide), variance.to(wide), turn, shift, eps=eps).to(inputs.dtype)
        ctx.save_for_backward(inputs, weight, mean, (variance + eps).rsqrt())
        ctx.over, ctx.size, ctx.counts, ctx.ranks, ctx.of_bias = over, size, counts, ranks, bias is not None and bias.dtype
        ctx.mark_non_differentiable(mean, variance)
        return output, mean, variance, size

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> Any:
        inputs, weight, mean, scale = ctx.saved_tensors
        wide = torch.promote_types(inputs.dtype, torch.float32)
        along = [1, -1, *[1] * (inputs.dim() - 2)]
        mean, scale = mean.to(wide).view(along), scale.to(wide).view(along)
        normal, gradient = (inputs.to(wide) - mean) * scale, gradient.to(wide)
        sums = torch.stack([gradient.sum(ctx.over), (gradient * normal).sum(ctx.over)])
        of_weight = sums[1].to(weight.dtype) if ctx.needs_input_grad[1] else None
        of_bias = sums[0].to(ctx.of_bias) if ctx.needs_input_grad[2] else None
        of_inputs = None
        if ctx.needs_input_grad[0]:
            everywhere = sums.to(torch.float64, copy=True)
            ctx.ranks.summing(everywhere)()
            shift, turn = (everywhere / ctx.size).to(wide)
            factor = scale if weight is None else scale * weight.to(wide).view(along)
            of_inputs = factor * (gradient - shift.view(along) - normal * turn.view(along)) * ctx.counts
        return None if of_inputs is None else of_inputs.to(inputs.dtype), of_weight, of_bias, None, None, None
