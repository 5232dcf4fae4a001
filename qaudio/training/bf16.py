"""bf16 on CPUs where it is slower than float32."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

# Of `torch.cpu.get_capabilities`: Intel's and AMD's two sets of instructions, and ARM's.
INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")
aten = torch.ops.aten
PRODUCTS = {
    aten.convolution.default, aten.convolution_backward.default,
    aten.mm.default, aten.addmm.default, aten.bmm.default,
    # Not taken apart into those in inference mode.
    aten.conv1d.default, aten.conv2d.default, aten.linear.default, aten.matmul.default,
}  # fmt: skip


class RoundedProducts(TorchDispatchMode):
    """Convolutions and matrix products of bf16 tensors, as sums in float32 that are rounded once.

    That is what bf16 instructions compute, up to the order of the sums. Where there are none, torch
    emulates them or falls back to kernels that were never made fast, and float32 is several times
    as fast as either.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in PRODUCTS or args[0].dtype != torch.bfloat16:
            return func(*args, **kwargs)
        args, kwargs = tree_map_only(torch.Tensor, torch.Tensor.float, (args, kwargs))
        return tree_map_only(torch.Tensor, torch.Tensor.bfloat16, func(*args, **kwargs))


def bf16_is_fast() -> bool:
    """Whether torch's CPU kernels multiply bf16 numbers by instructions for it.

    oneDNN's do, where the processor has any; torch's own, which builds without oneDNN are left
    with, do not.
    """
    found = torch.cpu.get_capabilities()
    return torch.backends.mkldnn.is_available() and any(found.get(name) for name in INSTRUCTIONS)


def fast_bf16(trainer: Trainer) -> AbstractContextManager[Any]:
    """The context to train in: `RoundedProducts` where bf16 is asked of a CPU and slow there."""
    slow = (
        str(trainer.precision).startswith("bf16")
        and isinstance(trainer.accelerator, CPUAccelerator)
        and not bf16_is_fast()
    )
    return RoundedProducts() if slow else nullcontext()
