"""Weights as the products want them: derived from the parameters, and again when they change.

Here is decided which matrix path serves: the packed kernels of csrc/ where the processor has a set
for them, else SciPy's BLAS. It depends on the instruction set and the dtype alone, never on the
batch, the steps or the threads, so that a sequence has the same bits in any company.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeVar

import numpy as np

from fastlstm import _core
from fastlstm._validate import Array
from fastlstm.packing import frozen
from fastlstm.parameters import Parameters

GATES = 4
CACHE_LINE = 64  # bytes; a vector of AVX-512 is as long

Kind = TypeVar("Kind")


def is_packed(dtype: np.dtype[np.generic]) -> bool:
    """Whether the packed kernels serve products of this dtype."""
    return _core.VECTOR[dtype.itemsize] > 0


def padded_gates(hidden: int, dtype: np.dtype[np.generic]) -> int:
    """Columns of the pre-activations of H units: whole panels on the packed path."""
    vector = _core.VECTOR[dtype.itemsize] or 1
    return -(-hidden // vector) * vector * GATES


@lru_cache(maxsize=256)
def unit_shares(hidden: int, count: int, panel: int) -> Array:
    """Boundaries of at most `count` shares of H units, each of whole panels of `panel` units."""
    panels = -(-hidden // panel)
    count = max(1, min(count, panels))
    bounds = np.arange(count + 1) * panels // count * panel
    return frozen(np.minimum(bounds, hidden).astype(np.intp))


@dataclass(frozen=True)
class ForwardWeights:
    """Of one direction: row-major and flat, or, if packed, in panels of gates."""

    packed: bool
    ih: Array
    hh: Array
    bias: Array  # both biases added up


class Derived:
    """What is made of a layer's parameters, each thing kept until the parameters' version moves.

    Panels are never changed, only replaced, so threads may share them. They are no part of what is
    copied or pickled.
    """

    def __init__(self, parameters: Parameters) -> None:
        self._parameters = parameters

    def __getstate__(self) -> Parameters:
        return self._parameters

    def __setstate__(self, parameters: Parameters) -> None:
        self.__init__(parameters)  # type: ignore[misc]

    def _fresh(
        self, kept: dict[str, tuple[int, Kind]], key: str, derive: Callable[[str], Kind]
    ) -> Kind:
        # Read first: weights that change meanwhile make what is derived stale, not fresh.
        version = self._parameters.version
        found = kept.get(key)
        if found is None or found[0] != version:
            found = kept[key] = version, derive(key)
        return found[1]


class PanelCache(Derived):
    """A layer's matrices as products with them on the right read them: in panels, or row by row.

    On the BLAS path they are views of the parameters themselves.
    """

    def __init__(self, parameters: Parameters) -> None:
        super().__init__(parameters)
        self._matrices: dict[str, tuple[int, Array]] = {}
        self._transposed: dict[str, tuple[int, Array]] = {}

    def matrix(self, name: str, *, transposed: bool, mask: Array | None = None) -> Array:
        """The parameter W of this name, or Wᵀ, flat: panels, or W row by row.

        With a mask, W is multiplied by it, and not kept for another call.
        """
        if mask is not None:
            return _flat_or_panels(self._parameters[name] * mask, transposed=transposed)
        derive = self._derive_transposed if transposed else self._derive_matrix
        return self._fresh(self._transposed if transposed else self._matrices, name, derive)

    def transposed(self, name: str) -> Array | None:
        """Panels of the transpose of the parameter with this name; None where BLAS serves."""
        if not is_packed(self._parameters[name].dtype):
            return None
        return self.matrix(name, transposed=True)

    def _derive_matrix(self, name: str) -> Array:
        return _flat_or_panels(self._parameters[name])

    def _derive_transposed(self, name: str) -> Array:
        return _flat_or_panels(self._parameters[name], transposed=True)


class WeightCache(PanelCache):
    """The derived weights of an LSTM's directions."""

    def __init__(self, parameters: Parameters) -> None:
        super().__init__(parameters)
        self._forward: dict[str, tuple[int, ForwardWeights]] = {}

    @property
    def parameters(self) -> Mapping[str, Array]:
        """What all of this is made of."""
        return self._parameters

    def bias(self, suffix: str) -> Array | None:
        """Both biases of the direction with this suffix added up, if it has them."""
        if f"bias_ih{suffix}" not in self._parameters:
            return None
        both: Array = self._parameters[f"bias_ih{suffix}"] + self._parameters[f"bias_hh{suffix}"]
        return both

    def forward(self, suffix: str, hh_mask: Array | None = None) -> ForwardWeights:
        """What the forward pass of the direction with this suffix needs.

        With a mask, W_hh is multiplied by it, and not kept for another call.
        """
        own = self._fresh(self._forward, suffix, self._derive_forward)
        if hh_mask is None:
            return own
        weight = self._parameters[f"weight_hh{suffix}"] * hh_mask
        return replace(own, hh=_pack_gates(weight) if own.packed else weight.reshape(-1))

    def backward_hh(self, suffix: str, hh_mask: Array | None = None) -> Array:
        """W_hh, likewise, for d_gates·W_hh: flat (4H, H) or in panels."""
        return self.matrix(f"weight_hh{suffix}", transposed=False, mask=hh_mask)

    def _derive_forward(self, suffix: str) -> ForwardWeights:
        ih = self._parameters[f"weight_ih{suffix}"]
        hh = self._parameters[f"weight_hh{suffix}"]
        bias = self.bias(suffix)
        if bias is None:
            bias = np.zeros(len(ih), ih.dtype)
        if not is_packed(ih.dtype):
            return ForwardWeights(False, ih.reshape(-1), hh.reshape(-1), bias)
        packed = (_pack_gates(weight) for weight in (ih, hh, bias[:, np.newaxis]))
        return ForwardWeights(True, *packed)


def _flat_or_panels(weight: Array, *, transposed: bool = False) -> Array:
    return _pack(weight, transposed=transposed) if is_packed(weight.dtype) else weight.reshape(-1)


def _pack_gates(weight: Array) -> Array:
    hidden, inner = len(weight) // GATES, weight.shape[1]
    panels = _room(padded_gates(hidden, weight.dtype) * inner, weight.dtype)
    _core.pack_gates(panels, weight)
    return panels


def _room(size: int, dtype: np.dtype[np.generic]) -> Array:
    """Memory that begins with a cache line: a vector that straddles two lines is read twice."""
    room = np.empty(size + CACHE_LINE // dtype.itemsize, dtype)
    start = -room.ctypes.data % CACHE_LINE // dtype.itemsize
    return room[start : start + size]


def _pack(weight: Array, *, transposed: bool = False) -> Array:
    inner, columns = weight.shape[::-1] if transposed else weight.shape
    vector = _core.VECTOR[weight.dtype.itemsize]
    panels = _room(-(-columns // vector) * vector * inner, weight.dtype)
    _core.pack(panels, weight, transposed)
    return panels
