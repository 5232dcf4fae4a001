import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qaudio.quaternion import (
    conjugate,
    hamilton_product,
    hamilton_product_8,
    modulus,
    real_matrix,
)
from tests.support import scalar

relaxed = settings(deadline=None, max_examples=60)
numbers = st.floats(-100, 100, allow_subnormal=False).filter(lambda x: x == 0 or abs(x) > 1e-6)
quaternions = st.tuples(numbers, numbers, numbers, numbers).map(
    lambda parts: torch.tensor(parts, dtype=torch.float64)
)


def assert_near(actual: torch.Tensor, expected, scale: float = 1.0) -> None:
    """Equal to 1e-12 of `scale`, the size of the largest term."""
    error = (actual - torch.as_tensor(expected, dtype=actual.dtype)).abs().max().item()
    assert error <= 1e-12 * max(scale, 1e-6), error


def test_the_scalar_table_is_hamiltons() -> None:
    one, i, j, k = np.eye(4)
    for square in (scalar.multiply(i, i), scalar.multiply(j, j), scalar.multiply(k, k)):
        np.testing.assert_array_equal(square, -one)
    np.testing.assert_array_equal(scalar.multiply(scalar.multiply(i, j), k), -one)
    for a, b, c in np.ndindex(4, 4, 4):
        p, q, r = np.eye(4)[[a, b, c]]
        left = scalar.multiply(scalar.multiply(p, q), r)
        np.testing.assert_array_equal(left, scalar.multiply(p, scalar.multiply(q, r)))


@relaxed
@given(quaternions, quaternions)
def test_product_matches_the_scalar_loop(p, q) -> None:
    scale = float(modulus(p) * modulus(q))
    assert_near(hamilton_product(p, q), scalar.multiply(p.numpy(), q.numpy()), scale)


@relaxed
@given(quaternions, quaternions)
def test_eight_products_give_what_sixteen_give(p, q) -> None:
    scale = float(modulus(p) * modulus(q))
    assert_near(hamilton_product_8(p, q), hamilton_product(p, q), scale)


@relaxed
@given(quaternions, quaternions)
def test_modulus_is_multiplicative(p, q) -> None:
    expected = modulus(p) * modulus(q)
    assert_near(modulus(hamilton_product(p, q)), expected, float(expected))


@relaxed
@given(quaternions, quaternions, quaternions)
def test_product_is_associative(p, q, r) -> None:
    left = hamilton_product(hamilton_product(p, q), r)
    right = hamilton_product(p, hamilton_product(q, r))
    assert_near(left, right, float(modulus(p) * modulus(q) * modulus(r)))


@relaxed
@given(quaternions, quaternions)
def test_conjugate(p, q) -> None:
    assert conjugate(q).tolist() == [q[0], -q[1], -q[2], -q[3]]
    squared = float(modulus(q)) ** 2
    assert_near(hamilton_product(q, conjugate(q)), [squared, 0, 0, 0], squared)
    turned = hamilton_product(conjugate(q), conjugate(p))
    assert_near(conjugate(hamilton_product(p, q)), turned, float(modulus(p) * modulus(q)))


@relaxed
@given(quaternions, quaternions)
def test_real_matrix_multiplies_on_the_left(p, q) -> None:
    scale = float(modulus(p) * modulus(q))
    assert_near(real_matrix(p[:, None]) @ q, hamilton_product(p, q), scale)


def test_real_matrix_of_many_filters_and_taps() -> None:
    torch.manual_seed(0)
    weight = torch.randn(12, 2, 5, dtype=torch.float64)  # 3 filters of 2 inputs, 5 taps
    x = torch.randn(8, 5, dtype=torch.float64)
    matrix = real_matrix(weight)
    assert matrix.shape == (12, 8, 5)
    assert torch.equal(matrix[:, :2], weight)
    w = weight.view(4, 3, 2, 5).permute(1, 2, 3, 0)  # (filters, inputs, taps, 4)
    v = x.view(4, 2, 5).permute(1, 2, 0)  # (inputs, taps, 4)
    expected = hamilton_product(w, v).sum(dim=(1, 2)).T.reshape(12)
    assert_near(torch.einsum("oit,it->o", matrix, x), expected, 100)


def test_products_broadcast() -> None:
    p, q = torch.randn(3, 1, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    for product in (hamilton_product, hamilton_product_8):
        result = product(p, q)
        assert result.shape == (3, 5, 4)
        assert_near(result[2, 4], scalar.multiply(p[2, 0].numpy(), q[4].numpy()), 100)
