"""A kernel of our own for quaternion convolutions, cpp_kernel.cpp, compiled where it runs.

It is built at its first use by the machine's C++ compiler, for its processor, in about a second,
and kept in qaudio's cache folder. Without a compiler, or where it does not work, there is none.
"""

import ctypes
import errno
import hashlib
import os
import platform
import shlex
import shutil
import stat
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
# The first that the compiler takes: OpenMP is GCC's alone, and some ask for the processor by -mcpu.
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
        and layer.weight.dtype == dtype == torch.float32
        and layer.kernel_size == (3, 3)
        and {*layer.stride, *layer.padding, *layer.dilation} == {1}
    )


class Kernel:
    """The compiled kernel.

    Args:
        path: of the library; it may go once it is loaded.

    Attributes:
        parallel: whether it runs on torch's number of threads, or on one.

    Raises:
        OSError: for a file that is no library of this machine.
        AttributeError: for one that is another.
    """

    def __init__(self, path: Path):
        self.library = ctypes.CDLL(str(path))
        pointer, number, flag = ctypes.c_void_p, ctypes.c_long, ctypes.c_int
        self.library.quaternion_stage.argtypes = [pointer] * 6 + [number] * 5 + [flag] * 3
        self.library.quaternion_stage.restype = flag
        self.library.block_of.argtypes, self.library.block_of.restype = [number], flag
        self.library.parallel.argtypes, self.library.parallel.restype = [], flag
        self.parallel = bool(self.library.parallel())

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
        """A convolution and what follows it, all in float32, contiguous and on the CPU.

        Args:
            x: (B, in, H, W).
            weight: of `pack`.
            scale, shift: BatchNorm's and the bias', (out,).
            shortcut: added before the ReLU, of the result's shape; without pooling only.
            pool: 2 takes means of 2×2 at the end, 1 does not.

        Returns:
            (B, out, H // pool, W // pool), contiguous.

        Raises:
            ValueError: for tensors of another kind or shape, and maps too small to be pooled.
            MemoryError: for want of memory.
        """
        batch, channels, height, width = x.shape
        fed, out = channels // 4, len(scale) // 4
        if min(height, width) < pool:
            raise ValueError(f"maps of {height}×{width} cannot be pooled by {pool}×{pool}")
        y = torch.empty(
            batch, 4 * out, height // pool, width // pool, dtype=torch.float32, device="cpu"
        )
        block = self.library.block_of(out)
        self._check("x", x, (batch, 4 * fed, height, width))
        self._check("weight", weight, (-(-out // block), 8, fed, 9, block))
        self._check("scale", scale, (4 * out,))
        self._check("shift", shift, (4 * out,))
        if shortcut is not None:
            self._check("shortcut", shortcut, y.shape if pool == 1 else ())
        if y.numel() == 0:
            return y
        with torch.profiler.record_function("qaudio::tiled"):
            failed = self.library.quaternion_stage(
                x.data_ptr(), weight.data_ptr(), scale.data_ptr(), shift.data_ptr(),
                None if shortcut is None else shortcut.data_ptr(), y.data_ptr(),
                batch, fed, out, height, width, relu, pool, torch.get_num_threads(),
            )  # fmt: skip
        if failed:
            raise MemoryError("no memory for a tile of a quaternion convolution")
        return y

    @staticmethod
    def _check(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
        """Raise ValueError for what the library would read as something else."""
        plain = tensor.dtype == torch.float32 and tensor.device.type == "cpu"
        if not plain or tensor.shape != shape or not tensor.is_contiguous():
            raise ValueError(
                f"{name} must be float32 of shape {tuple(shape)}, contiguous and on the CPU, not "
                f"{tensor.dtype} of shape {tuple(tensor.shape)} on {tensor.device}"
            )

    def works(self) -> bool:
        """Whether it gives what PyTorch does, on made layers that take all its ways."""
        with torch.inference_mode(), torch.device("cpu"):
            return all(self._right(out, pool) for out in (8, 20) for pool in (1, 2))

    def _right(self, out: int, pool: int) -> bool:
        """On one layer, with a shortcut where there is no pooling."""

        def made(*shape: int) -> Tensor:
            count = torch.Size(shape).numel()
            return torch.arange(1, 1 + count, dtype=torch.float64).square().sin().view(shape)

        x, weight, scale, shift = made(2, 12, 23, 37), made(out, 3, 3, 3), made(out), made(out) / 2
        expected = F.conv2d(x, real_matrix(weight), padding=1)
        expected = expected * scale[:, None, None] + shift[:, None, None]
        shortcut = made(*expected.shape) if pool == 1 else None
        expected = (expected if shortcut is None else expected + shortcut).relu()
        expected = F.avg_pool2d(expected, pool) if pool > 1 else expected
        tensors = (x, self.pack(weight), scale, shift, shortcut)
        given = (None if one is None else one.float() for one in tensors)
        found = self(*given, relu=True, pool=pool)  # type: ignore[arg-type]
        return torch.allclose(found.double(), expected, atol=1e-4)


@cache
def kernel() -> Kernel | None:
    """The kernel for this machine; None without a compiler that makes one that works."""
    if sys.platform == "win32":  # its vectors are those of GCC and Clang
        return None
    compilers = [[found] for found in map(shutil.which, COMPILERS) if found]
    with suppress(ValueError):  # an open quotation
        compilers = [given] if (given := shlex.split(os.environ.get("CXX", ""))) else compilers
    for compiler in compilers:
        for options in OPTIONS:
            with suppress(OSError, subprocess.SubprocessError, AttributeError):
                made = _made(compiler, options)
                if made is not None:
                    return made
    return None


def _made(compiler: list[str], options: tuple[str, ...]) -> Kernel | None:
    """The kernel, from the cache where it is; None if it does not work.

    Raises what running a compiler that fails, or loading what it made, raises.
    """
    source = SOURCE.read_bytes()
    made_of = (source, *compiler, *options, platform.machine(), _instructions(), torch.__version__)
    digest = hashlib.sha256(repr(made_of).encode()).hexdigest()[:16]
    kept = cache_folder() / "kernels" / f"tiled-{digest}.so"
    with suppress(OSError, AttributeError):  # not there, or spoilt: made anew
        if _is_ours(kept):
            known = Kernel(kept)
            if known.works():
                return known
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, kept.name)
        subprocess.run(
            [*compiler, "-O3", "-std=c++17", "-shared", "-fPIC", *options, str(SOURCE),
             "-o", str(path)],
            check=True, capture_output=True, timeout=SECONDS,
        )  # fmt: skip
        made = Kernel(path)
        if not made.works():
            return None
        with suppress(OSError):  # a cache that cannot be written is no obstacle
            _keep(path.read_bytes(), kept)
        return made


def _keep(library: bytes, path: Path) -> None:
    """Store a library and its sha256, for this user alone.

    Raises:
        OSError: where it cannot be written, and for a folder that is a link or another user's.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder = os.lstat(path.parent)
    if not stat.S_ISDIR(folder.st_mode) or folder.st_uid != os.getuid():
        raise PermissionError(errno.EPERM, "a link, or the folder of another", str(path.parent))
    os.chmod(path.parent, 0o700)
    for content, target in (
        (library, path),
        (hashlib.sha256(library).hexdigest().encode(), _hash_of(path)),
    ):
        with replacing(target, follow=False) as file:
            os.chmod(file.name, 0o600)  # whatever the umask is
            file.write(content)


def _is_ours(path: Path) -> bool:
    """Whether a library is what this user stored; raises OSError where there is none.

    Loading it runs it: one that others could have put there, or that is cut short, is not opened.
    """
    for one, is_right in (
        (path.parent, stat.S_ISDIR), (path, stat.S_ISREG), (_hash_of(path), stat.S_ISREG)
    ):  # fmt: skip
        found = os.lstat(one)
        mode = found.st_mode
        if not is_right(mode) or found.st_uid != os.getuid() or mode & 0o022:
            return False
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return _hash_of(path).read_bytes() == digest.encode()


def _hash_of(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _instructions() -> str:
    """What the processor can do: a home folder may be shared by machines that differ."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line for line in file if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return platform.processor()
