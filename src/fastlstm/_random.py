"""Random draws that several layers share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastlstm._validate import Array


def uniform_arrays(
    rng: np.random.Generator,
    shapes: Mapping[str, tuple[int, ...]],
    bound: float,
    dtype: np.dtype[Any],
) -> dict[str, Array]:
    """Arrays drawn from U(-bound, bound), as PyTorch initialises LSTM, RNN and Linear."""
    return {name: rng.uniform(-bound, bound, shape).astype(dtype) for name, shape in shapes.items()}


def dropout_mask(
    rng: np.random.Generator, shape: tuple[int, ...], p: float, dtype: np.dtype[Any]
) -> Array:
    """0 with probability `p`, else 1 / (1 - p): what an activation is multiplied by."""
    kept = rng.random(shape, np.float32) >= p
    mask: Array = np.multiply(kept, 1 / (1 - p) if p < 1 else 0.0, dtype=dtype)
    return mask
