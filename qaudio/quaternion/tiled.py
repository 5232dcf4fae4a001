"""A kernel of our own for quaternion convolutions, tiled.cpp, compiled where it runs.

It is built at its first use by the machine's C++ compiler, for its processor, in about a second,
and kept in qaudio's cache folder. Without a compiler, or where it does not work, there is none.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qaudio.paths import cache_folder, replacing
from qaudio.quaternion.algebra import product_weights, real_matrix
from qaudio.quaternion.layers import QConv2d

SOURCE = Path(__file__).with_suffix(".cpp")
COMPILERS = ("g++", "clang++", "c++")
# The first that the compiler takes: Apple's has no OpenMP, and some ask for the processor by -mcpu.
OPTIONS = (
    ("-march=native", "-fopenmp"),
    ("-mcpu=native", "-fopenmp"),
    ("-march=native",),
    ("-mcpu=native",),
)
SECONDS = 120  # that a compiler may take


def fits(layer: nn.Module, dtype: torch.dtype) -> bool:
    """Whether the kernel computes a layer: quaternion, 3×3, padding 1, float32, on a CPU."""
    return (
        isinstance(layer, QConv2d)
        and layer.weight.device.type == "cpu"
        and dtype == torch.float32
        and layer.kernel_size == (3, 3)
        and {*layer.stride, *layer.padding, *layer.dilation} == {1}
    )


class Kernel:
    """The compiled kernel.

    Args:
        path: of the library; it may go once it is loaded.

    Raises:
        OSError: for a file that is no library of this machine.
        AttributeError: for one that is another.
    """

    def __init__(self, path: Path):
        self.library = ctypes.CDLL(str(path))
        pointer, number, flag = ctypes.c_void_p, ctypes.c_long, ctypes.c_int
        self.library.quaternion_stage.argtypes = [pointer] * 6 + [number] * 5 + [flag] * 3
        self.library.quaternion_stage.restype = None
        self.library.block_of.argtypes, self.library.block_of.restype = [number], flag

    def pack(self, weight: Tensor) -> Tensor:
        """A quaternion weight (out, in/4, 3, 3) as the kernel reads its eight products."""
        products = torch.stack(product_weights(*weight.chunk(4))).flatten(3)
        count, channels, fed, taps = products.shape  # (8, out/4, in/4, 9)
        block = self.library.block_of(channels)
        padded = products.new_zeros(count, -(-channels // block) * block, fed, taps)
        padded[:, :channels] = products
        return padded.unflatten(1, (-1, block)).permute(1, 0, 3, 4, 2).contiguous()

    def __call__(
        self,
        x: Tensor,
        weight: Tensor,
        scale: Tensor,
        shift: Tensor,
        shortcut: Tensor | None = None,
        *,
        relu: bool,
        pool: int = 1,
    ) -> Tensor:
        """A convolution and what follows it.

        Args:
            x: (B, in, H, W), contiguous.
            weight: of `pack`.
            scale, shift: BatchNorm's and the bias', (out,).
            shortcut: added before the ReLU, contiguous, of the result's shape; without pooling.
            relu: whether there is one.
            pool: 2 takes means of 2×2 at the end, 1 does not.

        Returns:
            (B, out, H // pool, W // pool), contiguous.
        """
        batch, fed, height, width = x.shape
        y = x.new_empty(batch, len(scale), height // pool, width // pool)
        self.library.quaternion_stage(
            x.data_ptr(), weight.data_ptr(), scale.data_ptr(), shift.data_ptr(),
            None if shortcut is None else shortcut.data_ptr(), y.data_ptr(),
            batch, fed // 4, len(scale) // 4, height, width, relu, pool, torch.get_num_threads(),
        )  # fmt: skip
        return y

    def works(self) -> bool:
        """Whether it gives what PyTorch does, on a made layer."""
        with torch.inference_mode():
            values = torch.linspace(-1, 1, 8 * 2 * 9 + 2 * 8 * 7 * 5).sin()
            weight, x = values[: 8 * 2 * 9].view(8, 2, 3, 3), values[8 * 2 * 9 :].view(2, 8, 7, 5)
            one, zero = torch.ones(8), torch.zeros(8)
            expected = F.conv2d(x, real_matrix(weight), padding=1)
            found = self(x, self.pack(weight), one, zero, relu=False)
        return torch.allclose(found, expected, atol=1e-5)


@cache
def kernel() -> Kernel | None:
    """The kernel for this machine; None without a compiler that makes one that works."""
    # Its vectors are those of GCC and Clang.
    compiler = shlex.split(os.environ.get("CXX", "")) or list(filter(shutil.which, COMPILERS))[:1]
    if not compiler or sys.platform == "win32":
        return None
    for options in OPTIONS:
        with suppress(OSError, subprocess.SubprocessError, AttributeError):
            made = _made(compiler, options)
            return made if made.works() else None
    return None


def _made(compiler: list[str], options: tuple[str, ...]) -> Kernel:
    """The kernel, from the cache where it is; raises what a compiler that fails raises."""
    source = SOURCE.read_bytes()
    made_of = (source, *compiler, *options, platform.machine(), _processor(), torch.__version__)
    digest = hashlib.sha256(repr(made_of).encode()).hexdigest()[:16]
    kept = cache_folder() / "kernels" / f"tiled-{digest}.so"
    if kept.is_file():
        with suppress(OSError, AttributeError):  # spoilt: made anew
            return Kernel(kept)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, kept.name)
        subprocess.run(
            [*compiler, "-O3", "-std=c++17", "-shared", "-fPIC", *options, str(SOURCE),
             "-o", str(made)],
            check=True, capture_output=True, timeout=SECONDS,
        )  # fmt: skip
        with suppress(OSError):  # a cache that cannot be written is no obstacle
            kept.parent.mkdir(parents=True, exist_ok=True)
            with replacing(kept) as file:
                file.write(made.read_bytes())
        return Kernel(made)


def _processor() -> str:
    """What the processor can do: a home folder may be shared by machines that differ."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line for line in file if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return platform.processor()
