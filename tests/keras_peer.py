"""Keras as a peer, on its torch backend: what every test module that compares with it shares.

The backend is chosen once for a process, when Keras is first imported, so tests import it through
here alone: ``keras = import_keras()`` inside of a test or a fixture, never at the head of a module.

A layer of float64 is no oracle for float64: on this backend Keras multiplies its matrices in
float32 all the same (BIT64_TO_BIT32_DTYPE in keras/src/backend/common/dtypes.py).
"""

from __future__ import annotations

import os
import tempfile
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from numpy.typing import NDArray

Array = NDArray[Any]


def import_keras() -> Any:
    """Keras 3 on the torch backend, with its own defaults; skips where one of them is absent."""
    pytest.importorskip("torch")
    with (
        tempfile.TemporaryDirectory() as home,
        # Without KERAS_HOME it would read a configuration in the user's home, or leave one there.
        patch.dict(os.environ, KERAS_BACKEND="torch", KERAS_HOME=home),
    ):
        keras = pytest.importorskip("keras")
    assert keras.backend.backend() == "torch", "imported elsewhere, without import_keras"
    return keras


def to_numpy(value: Any) -> Any:
    """An array for a tensor or a variable; a list of arrays for a list or tuple of them."""
    if isinstance(value, (list, tuple)):
        return [to_numpy(item) for item in value]
    # Keras' own convert_to_numpy goes through an __array__ of torch's that NumPy 2 warns of.
    tensor = getattr(value, "value", value)
    return tensor.detach().cpu().numpy().copy()


def randomise(layer: Any, rng: np.random.Generator, scale: float = 0.5) -> None:
    """Give a built layer weights of which none is zero, its biases included."""
    layer.set_weights([scale * rng.standard_normal(w.shape) for w in layer.weights])


def run_layer(layer: Any, x: Array, **options: Any) -> Any:
    """What a layer returns for x (B, T, I): an array, or a list [output, h, c, …].

    Options that are arrays, or lists of them, go in as tensors of their own dtype, as x does: Keras
    by itself makes float32 of float64.
    """
    import torch

    def tensors(value: Any) -> Any:
        if isinstance(value, list):
            return [tensors(item) for item in value]
        return torch.from_numpy(value) if isinstance(value, np.ndarray) else value

    with torch.no_grad():
        options = {name: tensors(value) for name, value in options.items()}
        return to_numpy(layer(tensors(x), **options))
