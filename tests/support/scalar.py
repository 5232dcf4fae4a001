"""Quaternions one number at a time: the independent side of the comparisons."""

import numpy as np

# Product of basis units e_a·e_b (1, i, j, k) as (sign, unit); i² = j² = k² = ijk = −1 leaves no
# other choice. Row a, column b.
UNITS = (
    ((1, 0), (1, 1), (1, 2), (1, 3)),
    ((1, 1), (-1, 0), (1, 3), (-1, 2)),
    ((1, 2), (-1, 3), (-1, 0), (1, 1)),
    ((1, 3), (1, 2), (-1, 1), (-1, 0)),
)


def multiply(p, q) -> np.ndarray:
    """p·q of two quaternions (4,)."""
    product = np.zeros(4)
    for a in range(4):
        for b in range(4):
            sign, unit = UNITS[a][b]
            product[unit] += sign * p[a] * q[b]
    return product


def conv2d(x, weight, bias, stride, padding, dilation) -> np.ndarray:
    """Quaternion convolution, weight on the left.

    Args:
        x: (B, 4, in, H, W), channels in quaternions.
        weight: (4, out, in, kH, kW).
        bias: (4, out).
        stride, padding, dilation: pairs.

    Returns:
        (B, 4, out, H', W').
    """
    (batch, _, inputs, *size), (_, outputs, _, *kernel) = x.shape, weight.shape
    rows, columns = (
        (size[d] + 2 * padding[d] - dilation[d] * (kernel[d] - 1) - 1) // stride[d] + 1
        for d in (0, 1)
    )
    y = np.zeros((batch, 4, outputs, rows, columns))
    for n, f, row, column in np.ndindex(batch, outputs, rows, columns):
        total = bias[:, f].copy()
        for c, u, v in np.ndindex(inputs, *kernel):
            at_row = row * stride[0] - padding[0] + u * dilation[0]
            at_column = column * stride[1] - padding[1] + v * dilation[1]
            if 0 <= at_row < size[0] and 0 <= at_column < size[1]:
                total += multiply(weight[:, f, c, u, v], x[n, :, c, at_row, at_column])
        y[n, :, f, row, column] = total
    return y


def linear(x, weight, bias) -> np.ndarray:
    """Quaternion linear map of x (B, 4, in) by weight (4, out, in) on the left: (B, 4, out)."""
    y = np.zeros((x.shape[0], 4, weight.shape[1]))
    for n, f in np.ndindex(x.shape[0], weight.shape[1]):
        total = bias[:, f].copy()
        for c in range(x.shape[2]):
            total += multiply(weight[:, f, c], x[n, :, c])
        y[n, :, f] = total
    return y
