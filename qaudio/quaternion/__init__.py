"""Quaternion algebra on tensors and the layers built from it; knows nothing of audio."""

from qaudio.quaternion.algebra import (
    conjugate,
    hamilton_product,
    hamilton_product_8,
    modulus,
    real_matrix,
)
from qaudio.quaternion.layers import QConv2d, QLinear, quaternion_init_

__all__ = [
    "QConv2d",
    "QLinear",
    "conjugate",
    "hamilton_product",
    "hamilton_product_8",
    "modulus",
    "quaternion_init_",
    "real_matrix",
]
