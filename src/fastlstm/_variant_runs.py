"""A run of one layer in one direction of a general cell over packed rows, forward and backward.

The compiled loop is _core/variants.pyx, the kernels csrc/variants.h. Which loop serves a call is
decided by the cell's options and by the masks that the call draws, never by the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastlstm import _core, _products, _scratch
from fastlstm._direction import Direction
from fastlstm._dropout import Masks
from fastlstm._gradients import Segment, WeightSums
from fastlstm._validate import Array
from fastlstm._variants import Variant, index_and_numbers
from fastlstm._weights import GATES, WeightCache, is_packed
from fastlstm.packing import Packing
from fastlstm.threads import team


@dataclass
class VariantRun:
    """What backward needs of one layer in one direction of a general cell."""

    x: Array  # (rows, layer input)
    h: Array  # (rows, P), a column slice of the layer's output
    z: Array  # (rows, 4H), pre-activations
    c: Array  # (rows, H)
    c_0: Array  # (B, H)
    h_0: Array  # (B, P)
    segments: tuple[Segment, ...]  # one, of all steps
    hh_mask: Array | None  # (4H, P), on W_hh
    m: Array | None  # (rows, H): h before its projection
    # What x and h give, normalised (rows, 4H), and its scales (rows,), of each; if normalised.
    normals: tuple[Array | None, ...]
    drop_h: Array | None  # (B, P), what h_{t-1} is multiplied with
    h_before: Array | None  # (rows, P): h_{t-1} so multiplied
    held_c: Array | None  # (rows, H): what zoneout holds
    held_h: Array | None  # (rows, P)
    zero_state: bool = False  # a state of zeros is one like any other here

    @property
    def hidden_size(self) -> int:
        return int(self.c.shape[1])

    def release(self) -> None:
        """Give the arrays back that nobody else sees."""
        _give(self.z, self.c, self.m, self.h_before, *self.normals)


class _Weights:
    """The parameters of one direction by their short names, and their panels where those serve."""

    def __init__(self, weights: WeightCache, suffix: str, hh_mask: Array | None) -> None:
        self._weights, self._suffix, self._hh_mask = weights, suffix, hh_mask

    def __getitem__(self, name: str) -> Array:
        return self._weights.parameters[f"{name}{self._suffix}"]

    def get(self, name: str) -> Array | None:
        return self._weights.parameters.get(f"{name}{self._suffix}")

    def bias(self) -> Array | None:
        """Both biases added up."""
        return self._weights.bias(self._suffix)

    def panels(self, name: str) -> Array | None:
        """Those of Wᵀ; None where BLAS serves."""
        return self._weights.transposed(f"{name}{self._suffix}")

    def matrix(self, name: str, *, transposed: bool) -> Array:
        """W, or Wᵀ, for a product with it on the right: panels, or W row by row."""
        mask = self._hh_mask if name == "weight_hh" else None
        return self._weights.matrix(f"{name}{self._suffix}", transposed=transposed, mask=mask)

    def cell(self, variant: Variant) -> _core.Cell:
        kinds = [index_and_numbers(activation) for activation in variant.activations]
        cell = _core.Cell(kinds, variant.input_forget, variant.clip, variant.zoneout)
        gain_c, bias_c = self.get("gain_c"), self.get("bias_c")
        if gain_c is not None and bias_c is None:
            bias_c = np.zeros_like(gain_c)
        cell.weigh(self["weight_ih"].reshape(-1), self.get("peephole"), gain_c, bias_c)
        return cell


def run_forward(
    variant: Variant,
    weights: WeightCache,
    packing: Packing,
    direction: Direction,
    x: Array,
    h: Array,
    h_n: Array,
    c_n: Array,
    cuts: tuple[Segment, ...],
    *,
    chunk_rows: int,
    keep: bool,
    masks: Masks,
) -> VariantRun | None:
    """Fill h (rows, P) and the final states; return what backward needs if `keep`."""
    width, hidden, dtype = h_n.shape[1], c_n.shape[1], x.dtype
    hh_mask = masks.on_weights((GATES * hidden, width), dtype)
    drop_h = masks.on_state(packing, width, dtype)
    held_c, held_h = masks.held(packing, hidden, width)
    norm, packed = variant.layer_norm, is_packed(dtype)
    chunks, widest = packing.runs(chunk_rows), packing.chunks(chunk_rows)[1]
    # Rows of what x gives, and of what a step makes: all where backward reads them, else as many
    # as are looked at at a time.
    given, made = (packing.rows,) * 2 if keep else (widest, packing.batch)

    def take(*shape: int, wanted: bool) -> Array | None:
        return _scratch.take(shape, dtype) if wanted else None

    z, c = _scratch.take((given, GATES * hidden), dtype), _scratch.take((made, hidden), dtype)
    m = take(made, hidden, wanted=variant.proj_size > 0)
    normal_ih, scale_ih = take(given, GATES * hidden, wanted=norm), take(given, wanted=norm)
    normal_hh, scale_hh = take(made, GATES * hidden, wanted=norm), take(made, wanted=norm)
    h_before = take(made, width, wanted=drop_h is not None)
    run = None
    if keep:
        run = VariantRun(
            x, h, z, c, c_n.copy(), h_n.copy(), cuts, hh_mask, m,
            (normal_ih, scale_ih, normal_hh, scale_hh), drop_h, h_before, held_c, held_h,
        )  # fmt: skip
    own = _Weights(weights, direction.suffix, hh_mask)
    cell, project = own.cell(variant), _Projection(own, norm=norm)
    weight_hh = own.matrix("weight_hh", transposed=True)
    weight_hr = own.matrix("weight_hr", transposed=True) if variant.proj_size else None
    work = 8.0 * packing.rows * hidden * (x.shape[1] + width)
    for first, last, some in reversed(chunks) if direction.backwards else chunks:
        at = some if keep else slice(0, some.stop - some.start)
        project(z[at], x[some], _part(normal_ih, at), _part(scale_ih, at))
        with team(work, blas=not packed) as threads:
            _core.variant_forward(
                cell, h, c, m, z[at], normal_hh, scale_hh, h_n, c_n, weight_hh, weight_hr,
                own.get("gain_hh"), own.get("bias_hh") if norm else None,
                drop_h, held_c, held_h, h_before, _kernel_scratch(threads, hidden, dtype),
                packing.offsets, first, last, packing.blocks(threads), direction.backwards, keep,
                packed,
            )  # fmt: skip
    if not keep:
        _give(z, c, m, normal_ih, scale_ih, normal_hh, scale_hh, h_before)
    return run


class _Projection:
    """What x gives to the pre-activations, with the biases."""

    def __init__(self, own: _Weights, *, norm: bool) -> None:
        self._weight = own["weight_ih"]
        self._panels = own.panels("weight_ih")
        self._bias = own.get("bias_ih") if norm else own.bias()
        self._gain = own.get("gain_ih")

    def __call__(self, z: Array, x: Array, normal: Array | None, scale: Array | None) -> None:
        """Fill z (n, 4H), and what is normalised on the way where there is room for it."""
        if normal is None or scale is None or self._gain is None:
            _products.linear(x, self._weight, self._bias, self._panels, out=z)
        else:
            _products.linear(x, self._weight, None, self._panels, out=normal)
            _core.normalize(z, normal, scale, self._gain, self._bias)


def run_backward(
    variant: Variant,
    weights: WeightCache,
    packing: Packing,
    direction: Direction,
    run: VariantRun,
    d_x: Array,
    d_output: Array,
    d_h: Array,
    d_c: Array,
    *,
    need_x: bool,
    need_weights: bool,
) -> dict[str, Array]:
    """Gradients of one direction. The first direction writes d_x, the second adds to it."""
    rows, batch, dtype = packing.rows, packing.batch, run.x.dtype
    hidden, width = d_c.shape[1], d_h.shape[1]
    own, packed = _Weights(weights, direction.suffix, run.hh_mask), is_packed(dtype)
    norm, projected = variant.layer_norm, variant.proj_size > 0

    def take(count: int, columns: int, *, wanted: bool) -> Array | None:
        return _scratch.take((count, columns), dtype) if wanted else None

    d_raw = take(rows, GATES * hidden, wanted=norm)
    d_projected = take(rows, width, wanted=projected)
    sums = take(rows, 5 * hidden, wanted=norm or variant.peepholes)
    past_h, past_c = (take(batch, n, wanted=variant.zones_out) for n in (width, hidden))
    d_m, c_prev = take(batch, hidden, wanted=projected), _scratch.take((batch, hidden), dtype)
    _, _, normal_hh, scale_hh = run.normals
    if rows:
        work = 8.0 * rows * hidden * (run.x.shape[1] + width)
        with team(work, blas=not packed) as threads:
            _core.variant_backward(
                own.cell(variant), run.z, d_raw, d_projected, sums, d_h, d_c, d_output, run.c,
                run.c_0, normal_hh, scale_hh, own.matrix("weight_hh", transposed=False),
                own.matrix("weight_hr", transposed=False) if projected else None,
                own.get("gain_hh"), run.drop_h, run.held_c, run.held_h, d_m, c_prev, past_h,
                past_c, _kernel_scratch(threads, hidden, dtype), packing.offsets,
                packing.blocks(threads), direction.backwards, packed,
            )  # fmt: skip
    d_ih = run.z
    normal_ih, scale_ih, _, _ = run.normals
    if normal_ih is not None and scale_ih is not None:
        d_ih = _scratch.take(run.z.shape, dtype)
        _core.normalize_back(d_ih, run.z, own["gain_ih"], normal_ih, scale_ih)
    if need_x:
        _products.matmul(d_ih, own["weight_ih"], out=d_x, accumulate=direction.second)
    grads = {}
    if need_weights:
        weight_sums = WeightSums(packing, run, direction.backwards)
        if rows:
            weight_sums.add(run.segments[0], run.z, d_ih, run.z if d_raw is None else d_raw)
        grads = _gradients(weight_sums, run, sums, d_projected)
    _give(d_raw, d_projected, sums, d_ih if norm else None)
    return {f"{name}{direction.suffix}": grad for name, grad in grads.items()}


def _gradients(
    weight_sums: WeightSums, run: VariantRun, sums: Array | None, d_projected: Array | None
) -> dict[str, Array]:
    """Of all weights under their short names, and of some that the cell does not have."""
    d_ih, d_hh, d_bias = weight_sums.finish()
    grads = {"weight_ih": d_ih, "weight_hh": d_hh, "bias_ih": d_bias, "bias_hh": d_bias.copy()}
    normal_ih, _, normal_hh, _ = run.normals
    for name, normal in (("gain_ih", normal_ih), ("gain_hh", normal_hh)):
        if normal is not None:
            grads[name] = _products.sum_rows(np.multiply(run.z, normal, out=normal))
    if sums is not None:
        hidden, added = run.hidden_size, _products.sum_rows(sums)
        grads["peephole"] = added[: 3 * hidden].copy()
        grads["gain_c"] = added[3 * hidden : 4 * hidden].copy()
        grads["bias_c"] = added[4 * hidden :].copy()
    if d_projected is not None and run.m is not None:
        grads["weight_hr"] = _products.matmul(d_projected, run.m, transpose_a=True)
    return grads


def _kernel_scratch(threads: int, hidden: int, dtype: np.dtype[Any]) -> Array:
    return np.empty((threads, _core.SCRATCH * hidden), dtype)


def _part(array: Array | None, rows: slice) -> Array | None:
    return None if array is None else array[rows]


def _give(*arrays: Array | None) -> None:
    _scratch.give(*(array for array in arrays if array is not None))
