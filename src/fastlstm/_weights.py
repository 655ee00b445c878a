"""Weights as the time loop wants them: derived from the parameters, and again when they change.

Here is decided which matrix path serves: the packed kernels of csrc/ where the processor has a set
for them, else SciPy's BLAS. It depends on the instruction set and the dtype alone, never on the
batch, the steps or the threads, so that a sequence has the same bits in any company.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastlstm import _core
from fastlstm._validate import Array
from fastlstm.parameters import Parameters

GATES = 4


def is_packed(dtype: np.dtype[np.generic]) -> bool:
    """Whether the packed kernels serve products of this dtype."""
    return _core.VECTOR[dtype.itemsize] > 0


def padded_gates(hidden: int, dtype: np.dtype[np.generic]) -> int:
    """Columns of the pre-activations of H units: whole panels on the packed path."""
    vector = _core.VECTOR[dtype.itemsize] or 1
    return -(-hidden // vector) * vector * GATES


@dataclass(frozen=True)
class ForwardWeights:
    """Of one direction: row-major and flat, or, if packed, in panels of gates."""

    packed: bool
    ih: Array
    hh: Array
    bias: Array  # both biases added up


class WeightCache:
    """The derived weights of a layer's directions, each kept until the parameters' version moves.

    Panels are never changed, only replaced, so threads may share them. On the BLAS path matrices
    are views of the parameters themselves.
    """

    def __init__(self, parameters: Parameters) -> None:
        self._parameters = parameters
        self._kept: dict[str, tuple[int, ForwardWeights | Array]] = {}

    def __getstate__(self) -> Parameters:
        return self._parameters

    def __setstate__(self, parameters: Parameters) -> None:
        self.__init__(parameters)  # type: ignore[misc]

    def forward(self, suffix: str) -> ForwardWeights:
        """What the forward pass of the direction with this suffix needs."""
        version, kept = self._kept.get("forward" + suffix, (-1, None))
        if not isinstance(kept, ForwardWeights) or version != self._parameters.version:
            # Read first: weights that change meanwhile make the copy stale, not fresh.
            version = self._parameters.version
            kept = self._derive_forward(suffix)
            self._kept["forward" + suffix] = version, kept
        return kept

    def backward_hh(self, suffix: str) -> Array:
        """W_hh for d_gates·W_hh, flat (4H, H) or in panels."""
        version, kept = self._kept.get("backward" + suffix, (-1, None))
        if not isinstance(kept, np.ndarray) or version != self._parameters.version:
            version = self._parameters.version
            weight = self._parameters[f"weight_hh{suffix}"]
            kept = _pack(weight) if is_packed(weight.dtype) else weight.reshape(-1)
            self._kept["backward" + suffix] = version, kept
        return kept

    def _derive_forward(self, suffix: str) -> ForwardWeights:
        ih = self._parameters[f"weight_ih{suffix}"]
        hh = self._parameters[f"weight_hh{suffix}"]
        if f"bias_ih{suffix}" in self._parameters:
            bias = self._parameters[f"bias_ih{suffix}"] + self._parameters[f"bias_hh{suffix}"]
        else:
            bias = np.zeros(len(ih), ih.dtype)
        if not is_packed(ih.dtype):
            return ForwardWeights(False, ih.reshape(-1), hh.reshape(-1), bias)
        packed = (_pack_gates(weight) for weight in (ih, hh, bias[:, np.newaxis]))
        return ForwardWeights(True, *packed)


def _pack_gates(weight: Array) -> Array:
    hidden, inner = len(weight) // GATES, weight.shape[1]
    panels = np.empty(padded_gates(hidden, weight.dtype) * inner, weight.dtype)
    _core.pack_gates(panels, weight)
    return panels


def _pack(weight: Array) -> Array:
    inner, columns = weight.shape
    width = GATES * _core.VECTOR[weight.dtype.itemsize]
    panels = np.empty(-(-columns // width) * width * inner, weight.dtype)
    _core.pack(panels, weight)
    return panels
