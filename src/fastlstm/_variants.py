"""Cells that are not the plain one: their options, and a run of one over packed rows.

The compiled loop is _core/variants.pyx, the kernels csrc/variants.h. Which loop serves a call is
decided by the cell's options and by the masks that the call draws, never by the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm import _core, _products, _scratch
from fastlstm._dropout import Masks
from fastlstm._validate import Array, check_number, check_pair
from fastlstm._weights import GATES, WeightCache, is_packed
from fastlstm.packing import Packing
from fastlstm.threads import team

if TYPE_CHECKING:
    from fastlstm._stack import Direction

# The activations of ONNX in the order of csrc/kernels.h, each with its own alpha and beta.
ACTIVATIONS: dict[str, tuple[float, ...]] = {
    "sigmoid": (),
    "tanh": (),
    "affine": (1.0, 0.0),
    "relu": (),
    "leaky_relu": (0.01,),
    "thresholded_relu": (1.0,),
    "scaled_tanh": (1.0, 1.0),
    "hard_sigmoid": (0.2, 0.5),
    "elu": (1.0,),
    "softsign": (),
    "softplus": (),
}

Activation = str | tuple[Any, ...]  # a name, or one with alpha and beta
PLAIN: tuple[Activation, ...] = ("sigmoid", "tanh", "tanh")

# Bytes of pre-activations that are projected at a time, and rows whose products are summed at a
# time: as in _stack.py, fixed, because gradients' bits depend on the cuts.
CHUNK_BYTES = 400 << 10
RUN_BYTES = 1 << 22


@dataclass(frozen=True)
class Variant:
    """The options of a cell; see `LSTM`."""

    proj_size: int = 0
    peepholes: bool = False
    clip: float | None = None
    input_forget: bool = False
    activations: tuple[Activation, ...] = PLAIN
    layer_norm: bool = False
    zoneout: tuple[float, float] = (0.0, 0.0)

    @property
    def plain(self) -> bool:
        """Whether this is the cell of the fast loop."""
        return self == PLAIN_CELL

    @property
    def state_only(self) -> bool:
        """Whether each row of gradients is all there is: no sums for peepholes and gains."""
        return not (self.peepholes or self.layer_norm)

    def parameter_shapes(self, suffix: str, hidden: int, *, bias: bool) -> dict[str, Any]:
        """What the options add to a direction's parameters."""
        rows = GATES * hidden
        shapes: dict[str, tuple[int, ...]] = {}
        if self.proj_size:
            shapes[f"weight_hr{suffix}"] = (self.proj_size, hidden)
        if self.peepholes:
            shapes[f"peephole{suffix}"] = (3 * hidden,)
        if self.layer_norm:
            shapes[f"gain_ih{suffix}"] = (rows,)
            shapes[f"gain_hh{suffix}"] = (rows,)
            shapes[f"gain_c{suffix}"] = (hidden,)
            if bias:
                shapes[f"bias_c{suffix}"] = (hidden,)
        return shapes


PLAIN_CELL = Variant()


def check_activations(value: object) -> tuple[str | tuple[Any, ...], ...]:
    """Three activations: a name each, or (name, alpha, beta) as far as they differ from ONNX's."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f"activations: expected a sequence of three, got {value!r:.80}")
    if len(value) != 3:
        raise ValueError(f"activations: expected three, got {len(value)}")
    return tuple(_check_activation(f"activations[{k}]", item) for k, item in enumerate(value))


def _check_activation(name: str, value: object) -> str | tuple[Any, ...]:
    kind, *numbers = [value] if isinstance(value, str) else list(_items(name, value))
    if not isinstance(kind, str):
        raise TypeError(f"{name}: expected a name first, got {kind!r:.80}")
    if kind not in ACTIVATIONS:
        raise ValueError(f"{name}: expected one of {', '.join(ACTIVATIONS)}, got {kind!r}")
    most = len(ACTIVATIONS[kind])
    if len(numbers) > most:
        raise ValueError(f"{name}: {kind} takes {most} numbers, got {len(numbers)}")
    checked = [check_number(f"{name}, number {k + 1}", n) for k, n in enumerate(numbers)]
    return (kind, *checked) if checked else kind


def _items(name: str, value: object) -> Sequence[object]:
    if not isinstance(value, Sequence) or not value:
        raise TypeError(f"{name}: expected a name or (name, alpha, beta), got {value!r:.80}")
    return value


def check_zoneout(value: object) -> float | tuple[float, float]:
    """One probability, or those of c and of h."""
    if not isinstance(value, (tuple, list)):
        return check_number("zoneout", value, least=0, most=1)
    of_c, of_h = check_pair("zoneout", value, "of probabilities")
    return (
        check_number("zoneout[0] (of c)", of_c, least=0, most=1),
        check_number("zoneout[1] (of h)", of_h, least=0, most=1),
    )


def pair_of(zoneout: float | tuple[float, float]) -> tuple[float, float]:
    """Probabilities for c and for h."""
    return zoneout if isinstance(zoneout, tuple) else (zoneout, zoneout)


@dataclass
class VariantRun:
    """What backward needs of one layer in one direction of a general cell."""

    x: Array  # (rows, layer input)
    h: Array  # (rows, P), a column slice of the layer's output
    z: Array  # (rows, 4H), pre-activations
    c: Array  # (rows, H)
    c_0: Array  # (B, H)
    h_0: Array  # (B, P)
    hh_mask: Array | None  # (4H, P), on W_hh
    m: Array | None  # (rows, H): h before its projection
    normals: tuple[Array | None, ...]  # of x and of h, each (rows, 4H) and scales, if normalised
    drop_h: Array | None  # (B, P), what h_{t-1} is multiplied with
    dropped_h: Array | None  # (rows, P): h_{t-1} so multiplied
    held_c: Array | None  # (rows, H): what zoneout holds
    held_h: Array | None  # (rows, P)

    def release(self) -> None:
        """Give the arrays back that nobody else sees."""
        own = (self.z, self.c, self.m, self.dropped_h, *self.normals)
        _scratch.give(*(array for array in own if array is not None))


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
        first, second = self.get("bias_ih"), self.get("bias_hh")
        return None if first is None or second is None else np.add(first, second)

    def matrix(self, name: str, *, transposed: bool) -> Array:
        """W, or Wᵀ, for a product with it on the right: panels, or W row by row."""
        mask = self._hh_mask if name == "weight_hh" else None
        return self._weights.matrix(f"{name}{self._suffix}", transposed=transposed, mask=mask)

    def cell(self, variant: Variant) -> _core.Cell:
        kinds = [_index_and_numbers(activation) for activation in variant.activations]
        cell = _core.Cell(kinds, variant.input_forget, variant.clip, variant.zoneout)
        gain_c, bias_c = self.get("gain_c"), self.get("bias_c")
        if gain_c is not None and bias_c is None:
            bias_c = np.zeros_like(gain_c)
        cell.weigh(self["weight_ih"].reshape(-1), self.get("peephole"), gain_c, bias_c)
        return cell


def _index_and_numbers(activation: Activation) -> tuple[int, float, float]:
    name, given = _name_and_numbers(activation)
    numbers = (*given, *ACTIVATIONS[name][len(given) :], 0.0, 0.0)
    return list(ACTIVATIONS).index(name), numbers[0], numbers[1]


def _name_and_numbers(activation: Activation) -> tuple[str, tuple[float, ...]]:
    return (activation, ()) if isinstance(activation, str) else (activation[0], activation[1:])


def run_forward(
    variant: Variant,
    weights: WeightCache,
    packing: Packing,
    direction: Direction,
    x: Array,
    h: Array,
    h_n: Array,
    c_n: Array,
    *,
    keep: bool,
    masks: Masks,
) -> VariantRun | None:
    """Fill h (rows, P) and the final states; return what backward needs if `keep`."""
    width, hidden, dtype, batch = h_n.shape[1], c_n.shape[1], x.dtype, packing.batch
    rows = packing.rows if keep else batch  # of what is kept, or else of a step
    hh_mask = masks.on_weights((GATES * hidden, width), dtype)
    drop_h = masks.on_state(packing, width, dtype)
    held_c, held_h = masks.held(packing, hidden, width)
    own = _Weights(weights, direction.suffix, hh_mask)
    norm, packed = variant.layer_norm, is_packed(dtype)

    def take(columns: int, *, wanted: bool) -> Array | None:
        return _scratch.take((rows, columns), dtype) if wanted else None

    c = _scratch.take((rows, hidden), dtype)
    m = take(hidden, wanted=variant.proj_size > 0)
    normal_hh, scale_hh = take(GATES * hidden, wanted=norm), take(1, wanted=norm)
    normal_ih, scale_ih = take(GATES * hidden, wanted=norm and keep), take(1, wanted=norm and keep)
    dropped_h = take(width, wanted=drop_h is not None)
    z = _scratch.take((packing.rows, GATES * hidden), dtype) if keep else None
    run = None
    if z is not None:
        run = VariantRun(
            x, h, z, c, c_n.copy(), h_n.copy(), hh_mask, m,
            (normal_ih, scale_ih, normal_hh, scale_hh), drop_h, dropped_h, held_c, held_h,
        )  # fmt: skip
    cell = own.cell(variant)
    work = 8.0 * packing.rows * hidden * (x.shape[1] + width)
    chunk_rows = max(64, CHUNK_BYTES // (GATES * hidden * dtype.itemsize))
    cuts = packing.runs(chunk_rows)
    for first, last, some in reversed(cuts) if direction.backwards else cuts:
        part = None if z is None else z[some]
        at = slice(0, some.stop - some.start) if normal_ih is None else some
        part = _project(own, variant, x[some], part, normal_ih, scale_ih, at)
        with team(work, blas=not packed) as threads:
            blocks = packing.blocks(threads)
            _core.variant_forward(
                cell, h, c, m, part, normal_hh, _flat(scale_hh), h_n, c_n,
                own.matrix("weight_hh", transposed=True),
                own.matrix("weight_hr", transposed=True) if variant.proj_size else None,
                own.get("gain_hh"), own.get("bias_hh") if norm else None,
                drop_h, held_c, held_h, dropped_h, _kernel_scratch(threads, hidden, dtype),
                packing.offsets, first, last, blocks, direction.backwards, keep, packed,
            )  # fmt: skip
        if z is None:
            _scratch.give(part)
    if not keep:
        _scratch.give(*(a for a in (c, m, normal_hh, dropped_h) if a is not None))
    return run


def _project(
    own: _Weights,
    variant: Variant,
    x: Array,
    z: Array | None,
    normal: Array | None,
    scale: Array | None,
    at: slice,
) -> Array:
    """What x gives to the pre-activations, with the biases: (n, 4H), into z if there is one."""
    weight = own["weight_ih"]
    panels = own.matrix("weight_ih", transposed=True) if is_packed(x.dtype) else None
    if z is None:
        z = _scratch.take((len(x), len(weight)), x.dtype)
    if not variant.layer_norm:
        return _products.linear(x, weight, own.bias(), panels, out=z)
    raw = np.empty_like(z) if normal is None else normal[at]
    scales = np.empty(len(x), x.dtype) if scale is None else scale[at].reshape(-1)
    _products.linear(x, weight, None, panels, out=raw)
    _core.normalize(z, raw, scales, own["gain_ih"], own.get("bias_ih"))
    return z


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
) -> dict[str, Array]:
    """Gradients of one direction. The first direction writes d_x, the second adds to it."""
    rows, batch, dtype = packing.rows, packing.batch, run.x.dtype
    hidden, width = d_c.shape[1], d_h.shape[1]
    own, packed = _Weights(weights, direction.suffix, run.hh_mask), is_packed(dtype)
    norm, projected = variant.layer_norm, variant.proj_size > 0
    holds = run.held_c is not None or variant.zoneout != (0.0, 0.0)

    def take(count: int, columns: int, *, wanted: bool) -> Array | None:
        return _scratch.take((count, columns), dtype) if wanted else None

    d_raw = take(rows, GATES * hidden, wanted=norm)
    d_projected = take(rows, width, wanted=projected)
    sums = take(rows, 5 * hidden, wanted=not variant.state_only)
    past_h, past_c = take(batch, width, wanted=holds), take(batch, hidden, wanted=holds)
    d_m, c_prev = take(batch, hidden, wanted=projected), _scratch.take((batch, hidden), dtype)
    _, _, normal_hh, scale_hh = run.normals
    if rows:
        work = 8.0 * rows * hidden * (run.x.shape[1] + width)
        with team(work, blas=not packed) as threads:
            _core.variant_backward(
                own.cell(variant), run.z, d_raw, d_projected, sums, d_h, d_c, d_output, run.c,
                run.c_0, normal_hh, _flat(scale_hh), own.matrix("weight_hh", transposed=False),
                own.matrix("weight_hr", transposed=False) if projected else None,
                own.get("gain_hh"), run.drop_h, run.held_c, run.held_h, d_m, c_prev, past_h,
                past_c, _kernel_scratch(threads, hidden, dtype), packing.offsets,
                packing.blocks(threads), direction.backwards, packed,
            )  # fmt: skip
    return _gradients(own, packing, direction, run, d_x, d_raw, d_projected, sums)


def _gradients(
    own: _Weights,
    packing: Packing,
    direction: Direction,
    run: VariantRun,
    d_x: Array,
    d_raw: Array | None,
    d_projected: Array | None,
    sums: Array | None,
) -> dict[str, Array]:
    """Of x and of all weights, from those of the pre-activations and of what they were made of."""
    hidden = run.c.shape[1]
    d_bias = _products.sum_rows(run.z)
    grads = {"bias_ih": d_bias, "bias_hh": d_bias.copy()}
    d_ih = d_hh = run.z
    normal_ih, scale_ih, normal_hh, _ = run.normals
    if normal_ih is not None and normal_hh is not None and d_raw is not None:
        d_hh, d_ih = d_raw, np.empty_like(run.z)
        _core.normalize_back(d_ih, run.z, own["gain_ih"], normal_ih, _flat(scale_ih))
        for name, normal in (("gain_ih", normal_ih), ("gain_hh", normal_hh)):
            grads[name] = _products.sum_rows(np.multiply(run.z, normal, out=normal))
    if sums is not None:
        added = _products.sum_rows(sums)
        grads["peephole"] = added[: 3 * hidden]
        grads["gain_c"] = added[3 * hidden : 4 * hidden].copy()
        grads["bias_c"] = added[4 * hidden :].copy()
    _products.matmul(d_ih, own["weight_ih"], out=d_x, accumulate=direction.second)
    grads["weight_ih"] = _sum_of_products(packing, d_ih, run.x)
    grads["weight_hh"] = _recurrent_gradient(packing, direction, run, d_hh)
    if d_projected is not None and run.m is not None:
        grads["weight_hr"] = _sum_of_products(packing, d_projected, run.m)
    _scratch.give(*(array for array in (d_raw, d_projected, sums) if array is not None))
    return {f"{name}{direction.suffix}": grad for name, grad in grads.items()}


def _run_rows(d_rows: Array) -> int:
    return max(64, RUN_BYTES // (int(d_rows.shape[1]) * d_rows.itemsize))


def _sum_of_products(packing: Packing, d_rows: Array, rows: Array) -> Array:
    """d_rowsᵀ·rows, over fixed runs of rows."""
    total = np.zeros((d_rows.shape[1], rows.shape[1]), rows.dtype)
    for _, _, some in packing.runs(_run_rows(d_rows)):
        _products.matmul(d_rows[some], rows[some], transpose_a=True, out=total, accumulate=True)
    return total


def _recurrent_gradient(
    packing: Packing, direction: Direction, run: VariantRun, d_rows: Array
) -> Array:
    """Gradient of W_hh: the same with h of the step before."""
    if run.dropped_h is not None:
        total = _sum_of_products(packing, d_rows, run.dropped_h)
    else:
        width, dtype = run.h_0.shape[1], d_rows.dtype
        total = np.zeros((d_rows.shape[1], width), dtype)
        longest = packing.chunks(_run_rows(d_rows))[1]
        scratch = np.empty((longest, width), dtype)
        for first, last, some in packing.runs(_run_rows(d_rows)):
            h_prev = scratch[: some.stop - some.start]
            _core.previous_h(
                h_prev, run.h, run.h_0, packing.offsets, first, last, direction.backwards
            )
            _products.matmul(d_rows[some], h_prev, transpose_a=True, out=total, accumulate=True)
    if run.hh_mask is not None:
        total *= run.hh_mask
    return total


def _kernel_scratch(threads: int, hidden: int, dtype: np.dtype[Any]) -> Array:
    return np.empty((threads, _core.SCRATCH * hidden), dtype)


def _flat(column: Any) -> Any:
    return None if column is None else column.reshape(-1)
