"""Layers and directions over the time loop: what an LSTM does with a batch in packed form.

Below stands the compiled time loop, which knows one layer in one direction; above, lstm.py, which
checks what callers hand in and knows their layouts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastlstm import _core, _products
from fastlstm._random import dropout_mask
from fastlstm._validate import Array
from fastlstm._weights import WeightCache, is_packed, padded_gates
from fastlstm.packing import Packing
from fastlstm.parameters import Parameters
from fastlstm.threads import team

# Bytes of gate pre-activations that are projected at a time: about what a core's L2 cache holds
# beside the weights.
CHUNK_BYTES = 1 << 20


@dataclass
class Run:
    """What backward needs of one layer in one direction."""

    x: Array  # (rows, layer input)
    h: Array  # (rows, H), a column slice of the layer's output
    c: Array  # (rows, H)
    gates: Array  # (rows, 4H), activated
    h_0: Array  # (B, H)
    c_0: Array


@dataclass
class LayerRun:
    """What backward needs of one layer: its directions, and the mask on its output."""

    runs: list[Run]
    mask: Array | None


@dataclass(frozen=True)
class Direction:
    """One direction of one layer."""

    index: int  # among the states
    suffix: str  # of the parameters' names
    backwards: bool
    columns: slice  # of the layer's output


@dataclass(frozen=True)
class Stack:
    """The sizes of an LSTM, and its two passes over packed rows."""

    input_size: int
    hidden_size: int
    num_layers: int
    bidirectional: bool
    bias: bool
    dtype: np.dtype[Any]

    @property
    def directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def width(self) -> int:
        """Features of the output."""
        return self.directions * self.hidden_size

    def directions_of(self, layer: int) -> Iterator[Direction]:
        for k in range(self.directions):
            yield Direction(
                index=layer * self.directions + k,
                suffix=f"_l{layer}" + ("_reverse" if k else ""),
                backwards=k == 1,
                columns=slice(k * self.hidden_size, (k + 1) * self.hidden_size),
            )

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the parameters, as PyTorch has them and in its order."""
        rows = 4 * self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {}
        for layer in range(self.num_layers):
            width = self.width if layer else self.input_size
            for direction in self.directions_of(layer):
                shapes[f"weight_ih{direction.suffix}"] = (rows, width)
                shapes[f"weight_hh{direction.suffix}"] = (rows, self.hidden_size)
                if self.bias:
                    shapes[f"bias_ih{direction.suffix}"] = (rows,)
                    shapes[f"bias_hh{direction.suffix}"] = (rows,)
        return shapes

    def forward(
        self,
        weights: WeightCache,
        packing: Packing,
        x: Array,
        h: Array,
        c: Array,
        *,
        zero_state: bool,
        keep: bool,
        dropout: float = 0.0,
        rng: np.random.Generator | None = None,
    ) -> tuple[Array, list[LayerRun]]:
        """All layers in turn: (rows, I) -> (rows, width), and what backward needs if `keep`.

        h, c (layers · directions, B, H) come as initial states and become the final ones. If
        `zero_state`, they are zero, and the first step's product with them is left out.
        """
        layers = []
        for layer in range(self.num_layers):
            output = np.empty((packing.rows, self.width), self.dtype)
            runs = []
            for direction in self.directions_of(layer):
                h_n, c_n = h[direction.index], c[direction.index]
                initial = (h_n.copy(), c_n.copy()) if keep else (h_n, c_n)
                h_rows = output[:, direction.columns]
                c_rows, gates = self._run_direction(
                    weights, packing, direction, x, h_rows, h_n, c_n,
                    zero_state=zero_state, keep=keep,
                )  # fmt: skip
                runs.append(Run(x, h_rows, c_rows, gates, *initial))
            mask = None
            if rng is not None and dropout and layer < self.num_layers - 1:
                mask = dropout_mask(rng, output.shape, dropout, self.dtype)
            if keep:
                layers.append(LayerRun(runs, mask))
            x = output if mask is None else output * mask
        return x, layers

    def backward(
        self,
        parameters: Parameters,
        weights: WeightCache,
        packing: Packing,
        layers: list[LayerRun],
        d_output: Array,
        d_h: Array,
        d_c: Array,
    ) -> tuple[Array, dict[str, Array]]:
        """All layers, the last one first: (rows, width) -> (rows, I), and the parameters' grads.

        d_h, d_c (layers · directions, B, H) come as gradients of the final states and become
        those of the initial ones.
        """
        grads: dict[str, Array] = {}
        for layer in reversed(range(self.num_layers)):
            kept = layers[layer]
            if kept.mask is not None:
                d_output *= kept.mask
            d_x = np.empty_like(kept.runs[0].x)
            for run, direction in zip(kept.runs, self.directions_of(layer), strict=True):
                grads |= self._run_direction_back(
                    parameters, weights, packing, direction, run, d_x,
                    d_output[:, direction.columns],
                    d_h[direction.index], d_c[direction.index],
                )  # fmt: skip
            d_output = d_x
        return d_output, {name: grads[name] for name in self.parameter_shapes()}

    def _run_direction(
        self,
        weights: WeightCache,
        packing: Packing,
        direction: Direction,
        x: Array,
        h: Array,
        h_n: Array,
        c_n: Array,
        *,
        zero_state: bool,
        keep: bool,
    ) -> tuple[Array, Array]:
        """Fill h (rows, H) and the final states; return c and the gates where they are kept."""
        hidden, own = self.hidden_size, weights.forward(direction.suffix)
        columns = padded_gates(hidden, self.dtype)
        chunks = packing.chunks(max(64, CHUNK_BYTES // (columns * self.dtype.itemsize)))
        widest = int(np.diff(packing.offsets[chunks]).max(initial=0))
        gates = np.empty((packing.rows if keep else 0, 4 * hidden), self.dtype)
        # BLAS leaves the gates where it made their pre-activations.
        in_place = keep and not own.packed
        pre = gates if in_place else np.empty((widest, columns), self.dtype)
        c = np.empty((packing.rows if keep else 0, hidden), self.dtype)
        if packing.rows:
            with team(self._work(x), blas=not own.packed) as threads:
                _core.forward(
                    h, c, gates, pre, h_n, c_n, x, own.ih, own.hh, own.bias,
                    packing.offsets, chunks, packing.blocks(threads),
                    direction.backwards, keep, zero_state, own.packed,
                )  # fmt: skip
        return c, gates

    def _run_direction_back(
        self,
        parameters: Parameters,
        weights: WeightCache,
        packing: Packing,
        direction: Direction,
        run: Run,
        d_x: Array,
        d_output: Array,
        d_h: Array,
        d_c: Array,
    ) -> dict[str, Array]:
        """Gradients of one direction. The first direction writes d_x, the second adds to it."""
        d_gates = run.gates
        h_prev = np.empty((packing.rows, self.hidden_size), self.dtype)
        if packing.rows:
            packed = is_packed(self.dtype)
            with team(self._work(run.x), blas=not packed) as threads:
                _core.backward(
                    d_gates, d_h, d_c, d_output, run.c, run.c_0,
                    weights.backward_hh(direction.suffix), packing.offsets,
                    packing.blocks(threads), direction.backwards, packed,
                )  # fmt: skip
            _core.previous_h(h_prev, run.h, run.h_0, packing.offsets, direction.backwards)
        weight_ih = parameters[f"weight_ih{direction.suffix}"]
        _products.matmul(d_gates, weight_ih, out=d_x, accumulate=direction.backwards)
        grads = {
            f"weight_ih{direction.suffix}": _products.matmul(d_gates, run.x, transpose_a=True),
            f"weight_hh{direction.suffix}": _products.matmul(d_gates, h_prev, transpose_a=True),
        }
        if self.bias:
            d_bias = _products.sum_rows(d_gates)
            grads[f"bias_ih{direction.suffix}"] = d_bias
            grads[f"bias_hh{direction.suffix}"] = d_bias.copy()
        return grads

    def _work(self, x: Array) -> float:
        """Floating-point operations of a pass of one layer in one direction."""
        rows, width = x.shape
        return float(8 * rows * self.hidden_size * (width + self.hidden_size))
