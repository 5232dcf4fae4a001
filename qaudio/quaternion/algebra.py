"""Quaternion algebra on real tensors.

A quaternion r + i·i + j·j + k·k is stored as four real numbers in that order. Elementwise functions
keep the four components in the last axis; weights and channels keep them as four blocks r|i|j|k.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

Four = tuple[Tensor, Tensor, Tensor, Tensor]  # r, i, j, k


def hamilton_product(p: Tensor, q: Tensor) -> Tensor:
    """Product p·q (p on the left), elementwise with broadcasting.

    Args:
        p, q: quaternions, (..., 4).

    Returns:
        (..., 4).
    """
    a, b, c, d = p.unbind(-1)
    w, x, y, z = q.unbind(-1)
    return torch.stack(
        (
            a * w - b * x - c * y - d * z,
            b * w + a * x - d * y + c * z,
            c * w + d * x + a * y - b * z,
            d * w - c * x + b * y + a * z,
        ),
        dim=-1,
    )


def hamilton_product_8(p: Tensor, q: Tensor) -> Tensor:
    """The same product with 8 real multiplications in place of 16.

    Eight is the minimum over any ring: Howell & Lafon, Cornell TR 75-245 (1975); used in
    quaternion CNNs by Cariow & Cariowa, TNNLS 32:457 (2021).

    Args:
        p, q: quaternions, (..., 4).

    Returns:
        (..., 4).
    """
    weights = product_weights(*p.unbind(-1))
    return torch.stack(
        gather(a * b for a, b in zip(weights, spread(*q.unbind(-1)), strict=True)), -1
    )


def product_weights(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> tuple[Tensor, ...]:
    """Left factors of the eight products, of the components r, i, j, k of a weight.

    All of one shape, which each of the eight has too.
    """
    halves = (b + d) / 2, (b - d) / 2, (a + c) / 2, (a - c) / 2
    return d - c, a + b, a - b, c + d, *halves


def spread(w: Tensor, x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, ...]:
    """Right factors of the eight products, of the components r, i, j, k of an input.

    All of one shape, which each of the eight has too.
    """
    return y - z, w + x, y + z, w - x, x + y, x - y, w - z, w + z


def gather(products: Iterable[Tensor]) -> Four:
    """Components r, i, j, k of the result, of the eight products, all of one shape.

    The first four products go to one component each, in order.
    """
    r, i, j, k, e, f, g, h = products
    plus, minus = (e + f, g + h), (e - f, g - h)
    return (
        r + (plus[1] - plus[0]),
        i - (plus[1] + plus[0]),
        j + (minus[0] + minus[1]),
        k + (minus[0] - minus[1]),
    )


def conjugate(q: Tensor) -> Tensor:
    """Conjugate r − i·i − j·j − k·k of quaternions (..., 4)."""
    return q * q.new_tensor([1, -1, -1, -1])


def modulus(q: Tensor) -> Tensor:
    """Modulus |q| of quaternions (..., 4), shape (...)."""
    return q.norm(dim=-1)


def real_matrix(weight: Tensor) -> Tensor:
    """Real matrix (or convolution kernel) that multiplies by quaternion weights on the left.

    Args:
        weight: (out, in/4, *kernel), out and in counted in real channels, rows laid out r|i|j|k.

    Returns:
        (out, in, *kernel): rows and columns laid out r|i|j|k. Its first block column is `weight`.
    """
    # Slices and cats: their backward passes are sums of slices, where an index would scatter.
    r, i, j, k = weight.chunk(4)
    return torch.cat(
        (
            weight,
            torch.cat((-i, r, k, -j)),
            torch.cat((-j, -k, r, i)),
            torch.cat((-k, j, -i, r)),
        ),
        dim=1,
    )
