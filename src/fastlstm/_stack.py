"""Layers and directions over the time loop: what an LSTM does with a batch in packed form.

Below stands the compiled time loop, which knows one layer in one direction; above, lstm.py, which
checks what callers hand in and knows their layouts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from fastlstm import _core, _products, _scratch
from fastlstm._direction import Direction
from fastlstm._dropout import NO_MASKS, Masks, RowMask
from fastlstm._gradients import Run, Segment, WeightSums
from fastlstm._recompute import activations, in_order, segments, whole
from fastlstm._validate import Array
from fastlstm._variant_runs import VariantRun, run_backward, run_forward
from fastlstm._variants import PLAIN_CELL, Variant
from fastlstm._weights import GATES, WeightCache, is_packed, padded_gates, unit_shares
from fastlstm.packing import Packing
from fastlstm.parameters import Parameters
from fastlstm.threads import team

# Bytes of gate pre-activations that are projected at a time: about what a core's L2 cache holds
# beside the weights.
CHUNK_BYTES = 400 << 10

# Sequences for each thread from which on a batch is shared out by sequences, and not by units.
LEAST_SEQUENCES = 16

# Floating-point operations of a thread in one step that are worth to meet at its end.
LEAST_STEP_WORK = 15_000

# Bytes of gate gradients whose rows make one run of the sums for the weights' gradients: enough
# work for threads to share in each run. The cuts are part of what a gradient's bits depend on.
RUN_BYTES = 1 << 22


@dataclass
class LayerRun:
    """What backward needs of one layer: its directions, and the mask on its input."""

    runs: list[Run | VariantRun]
    mask: RowMask | None


@dataclass(frozen=True)
class Stack:
    """The sizes of an LSTM, and its two passes over packed rows."""

    input_size: int
    hidden_size: int
    num_layers: int
    bidirectional: bool
    bias: bool
    dtype: np.dtype[Any]
    reverse: bool = False  # the only direction runs backwards
    variant: Variant = PLAIN_CELL

    @cached_property
    def directions(self) -> int:
        return 2 if self.bidirectional else 1

    @cached_property
    def width(self) -> int:
        """Features of the output."""
        return self.directions * self.state_size

    @cached_property
    def state_size(self) -> int:
        """Features of h: those of c, unless it is projected."""
        return self.variant.proj_size or self.hidden_size

    def is_plain(self, masks: Masks) -> bool:
        """Whether the fast loop serves: the cell has no options, and no masks of its own."""
        return self.variant.plain and not masks.touch_the_cell

    @cached_property
    def _pre_bytes(self) -> int:
        """Of a row of pre-activations: whole panels on the packed path."""
        return padded_gates(self.hidden_size, self.dtype) * self.dtype.itemsize

    @cached_property
    def runs(self) -> int:
        """States: one for each direction of each layer."""
        return self.num_layers * self.directions

    @cached_property
    def layers(self) -> tuple[tuple[Direction, ...], ...]:
        """The directions of each layer."""
        return tuple(
            tuple(self._direction(layer, k) for k in range(self.directions))
            for layer in range(self.num_layers)
        )

    @cached_property
    def backwards(self) -> tuple[bool, ...]:
        """Of each direction: whether it runs from the last step to the first."""
        return tuple(direction.backwards for direction in self.layers[0])

    def _direction(self, layer: int, k: int) -> Direction:
        suffix = self._suffix(layer, k)
        return Direction(
            index=layer * self.directions + k,
            suffix=suffix,
            weight_ih=f"weight_ih{suffix}",
            weight_hh=f"weight_hh{suffix}",
            bias_ih=f"bias_ih{suffix}",
            bias_hh=f"bias_hh{suffix}",
            backwards=self.reverse or k == 1,
            second=k == 1,
            columns=slice(k * self.state_size, (k + 1) * self.state_size),
        )

    def _suffix(self, layer: int, k: int) -> str:
        return f"_l{layer}" + ("_reverse" if k else "")

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the parameters, as PyTorch has them and in its order."""
        rows = 4 * self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {}
        for layer, directions in enumerate(self.layers):
            width = self.width if layer else self.input_size
            for direction in directions:
                shapes[direction.weight_ih] = (rows, width)
                shapes[direction.weight_hh] = (rows, self.state_size)
                if self.bias:
                    shapes[direction.bias_ih] = (rows,)
                    shapes[direction.bias_hh] = (rows,)
                shapes |= self.variant.parameter_shapes(
                    direction.suffix, self.hidden_size, bias=self.bias
                )
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
        checkpoint: bool = False,
        masks: Masks = NO_MASKS,
    ) -> tuple[Array, list[LayerRun]]:
        """All layers in turn: (rows, I) -> (rows, width), and what backward needs if `keep`.

        h, c (layers · directions, B, H) come as initial states and become the final ones. If
        `zero_state`, they are zero, and the first step's product with them is left out. With
        `checkpoint`, of a plain cell, backward makes most of what it needs anew. Without `keep`,
        no masks.
        """
        layers = []
        cut = segments if checkpoint else whole
        cuts = cut(packing, self._run_rows()) if keep else ()
        for directions in self.layers:
            first, last = directions is self.layers[0], directions is self.layers[-1]
            mask = masks.on_input(packing, x, first=first)
            if mask is not None:
                # What the layer below gave stays as it is: its backward reads it.
                x = mask.times(x, out=x if first else _scratch.take(x.shape, self.dtype))
            # Only the last layer's output leaves this call, and for good.
            make = np.empty if last and not keep else _scratch.take
            output = make((packing.rows, self.width), self.dtype)
            runs = []
            for direction in directions:
                h_rows = output[:, direction.columns] if self.bidirectional else output
                run = self._run_direction(
                    weights, packing, direction, x, h_rows,
                    h[direction.index], c[direction.index], cuts, zero_state=zero_state,
                    keep=keep, checkpoint=checkpoint, masks=masks,
                )  # fmt: skip
                if run is not None:
                    runs.append(run)
            if keep:
                layers.append(LayerRun(runs, mask))
            elif not first:
                _scratch.give(x)
            x = output
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
        *,
        need_x: bool = True,
        need_weights: bool = True,
    ) -> tuple[Array, dict[str, Array]]:
        """All layers, the last one first: (rows, width) -> (rows, I), and the parameters' grads.

        d_h, d_c (layers · directions, B, H) come as gradients of the final states and become
        those of the initial ones. `layers` is emptied: what a layer kept is let go after its turn.
        What the caller does not need may be left out: no number in the gradient of x means
        anything then, and there are no grads.
        """
        grads: dict[str, Array] = {}
        for directions in reversed(self.layers):
            kept = layers.pop()
            first = directions is self.layers[0]
            d_x = (np.empty if first else _scratch.take)(kept.runs[0].x.shape, self.dtype)
            for run, direction in zip(kept.runs, directions, strict=True):
                grads |= self._run_direction_back(
                    parameters, weights, packing, direction, run, d_x,
                    d_output[:, direction.columns],
                    d_h[direction.index], d_c[direction.index],
                    need_x=need_x or not first, need_weights=need_weights,
                )  # fmt: skip
                run.release()
            # The output of this layer was the input of the one above, which has had its turn.
            _scratch.give(kept.runs[0].h)
            if first or kept.mask is not None:
                _scratch.give(kept.runs[0].x)
            if directions is not self.layers[-1]:
                _scratch.give(d_output)
            d_output = d_x
            if kept.mask is not None:
                kept.mask.times(d_x, out=d_x)
        return d_output, {name: grads[name] for name in parameters if need_weights}

    def _run_direction(
        self,
        weights: WeightCache,
        packing: Packing,
        direction: Direction,
        x: Array,
        h: Array,
        h_n: Array,
        c_n: Array,
        cuts: tuple[Segment, ...],
        *,
        zero_state: bool,
        keep: bool,
        checkpoint: bool,
        masks: Masks,
    ) -> Run | VariantRun | None:
        """Fill h (rows, H) and the final states; return what backward needs if `keep`."""
        if not self.is_plain(masks):
            return run_forward(
                self.variant, weights, packing, direction, x, h, h_n, c_n, cuts,
                chunk_rows=self._chunk_rows(), keep=keep, masks=masks,
            )  # fmt: skip
        hidden, dtype = self.hidden_size, self.dtype
        hh_mask = masks.on_weights((4 * hidden, hidden), dtype)
        own = weights.forward(direction.suffix, hh_mask)
        chunks, widest = packing.chunks(self._chunk_rows())
        # BLAS leaves the gates where it made their pre-activations, in rows for all chunks.
        run, c, gates, pre = None, None, None, None
        if keep and not checkpoint:
            c = _scratch.take((packing.rows, hidden), dtype)
            gates = _scratch.take((packing.rows, 4 * hidden), dtype)
            pre = None if own.packed else gates
        if pre is None:
            pre = _scratch.take((widest, len(own.bias)), dtype)
        if keep:
            kept = None if c is None or gates is None else (c, gates)
            run = Run(x, h, h_n.copy(), zero_state, cuts, {}, kept, hh_mask)
        parts = [(0, packing, chunks)]
        if checkpoint:
            order = in_order(len(cuts), direction.backwards)
            parts = [(k, cuts[k].packing, cuts[k].within(chunks)) for k in order]
        if packing.rows:
            with team(self._work(x), blas=not own.packed) as threads:
                for k, part, bounds in parts:
                    if run is not None:
                        run.starts[k] = c_n[: part.batch].copy()
                    _core.forward(
                        h, c, gates, pre, h_n, c_n, x, own.ih, own.hh, own.bias, packing.offsets,
                        bounds, *self._split(part, threads, own.packed, 1),
                        direction.backwards, c is not None, zero_state, own.packed,
                    )  # fmt: skip
        if pre is not gates:
            _scratch.give(pre)
        return run

    def _run_direction_back(
        self,
        parameters: Parameters,
        weights: WeightCache,
        packing: Packing,
        direction: Direction,
        run: Run | VariantRun,
        d_x: Array,
        d_output: Array,
        d_h: Array,
        d_c: Array,
        *,
        need_x: bool,
        need_weights: bool,
    ) -> dict[str, Array]:
        """Gradients of one direction. The first direction writes d_x, the second adds to it."""
        if isinstance(run, VariantRun):
            return run_backward(
                self.variant, weights, packing, direction, run, d_x, d_output, d_h, d_c,
                need_x=need_x, need_weights=need_weights,
            )  # fmt: skip
        backwards, packed = direction.backwards, is_packed(self.dtype)
        sums = WeightSums(packing, run, backwards) if need_weights else None
        if packing.rows:
            hh = weights.backward_hh(direction.suffix, run.hh_mask)
            for segment, c_0, c, gates in activations(
                packing, run, weights, direction.suffix, self._chunk_rows(), backwards
            ):
                part, rows = segment.packing, segment.rows
                with team(self._work(run.x[rows]), blas=not packed) as threads:
                    _core.backward(
                        gates, d_h, d_c, d_output[rows], c, c_0, hh, part.offsets,
                        *self._split(part, threads, packed, GATES), backwards, packed,
                    )  # fmt: skip
                if need_x:
                    weight_ih = parameters[direction.weight_ih]
                    _products.matmul(gates, weight_ih, out=d_x[rows], accumulate=direction.second)
                if sums is not None:
                    sums.add(segment, gates)
        if sums is None:
            return {}
        d_ih, d_hh, d_bias = sums.finish()
        grads = {direction.weight_ih: d_ih, direction.weight_hh: d_hh}
        if self.bias:
            grads[direction.bias_ih] = d_bias
            grads[direction.bias_hh] = d_bias.copy()
        return grads

    def _chunk_rows(self) -> int:
        """Rows of pre-activations to project at a time."""
        return max(64, CHUNK_BYTES // self._pre_bytes)

    def _run_rows(self) -> int:
        """Rows of a run of the sums for the weights' gradients."""
        return max(64, RUN_BYTES // (GATES * self.hidden_size * self.dtype.itemsize))

    def _split(
        self, packing: Packing, threads: int, packed: bool, panel: int
    ) -> tuple[Array, Array]:
        """Blocks of sequences, or shares of units in panels of `panel` vectors, for threads."""
        hidden, batch = self.hidden_size, packing.batch
        if packed and threads > 1 and batch < LEAST_SEQUENCES * threads:
            step_work = 8 * batch * hidden * hidden
            count = min(threads, step_work // LEAST_STEP_WORK) if LEAST_STEP_WORK else threads
            units = panel * _core.VECTOR[self.dtype.itemsize]
            shares = unit_shares(hidden, count, units)
            if len(shares) > 2:
                return packing.blocks(1), shares
        return packing.blocks(threads), unit_shares(hidden, 1, hidden)

    def _work(self, x: Array) -> float:
        """Floating-point operations of a pass of one layer in one direction."""
        rows, width = x.shape
        return float(8 * rows * self.hidden_size * (width + self.hidden_size))
