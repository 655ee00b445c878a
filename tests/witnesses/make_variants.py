"""Writes variants.npz: the general cell in PyTorch's operations, by autograd, for `CASES` seeds.

    python -m tests.witnesses.make_variants

What torch.nn.LSTM has itself (projections) it computes itself; all else is written down step by
step. Needs torch; reading the file (stored.py) does not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from tests.support import relative_error
from tests.witnesses import make_witnesses
from tests.witnesses.cases import Array, moved
from tests.witnesses.make_witnesses import MOVES, results_of
from tests.witnesses.variants import DirectionMasks, VariantCase, draw_variant, masks_of

CASES = 110
FILE = Path(__file__).with_name("variants.npz")


def run_torch(case: VariantCase, dtype: torch.dtype) -> dict[str, Array]:
    """The results, forward and backward, under the names of the case."""
    if case.of_torch:
        return make_witnesses.run_torch(case, dtype)

    def leaf(array: Array) -> torch.Tensor:
        return torch.tensor(array, dtype=dtype, requires_grad=True)

    weights = {name: leaf(array) for name, array in case.weights.items()}
    x = leaf(case.x)
    h_0, c_0 = (
        leaf(np.zeros(shape) if case.state is None else case.state[k])
        for k, shape in enumerate((case.h_shape, case.state_shape))
    )
    rows = x if case.batched else x[:, None]
    output = rows.transpose(0, 1) if case.batched and case.batch_first else rows
    finals = []
    for layer, masks in enumerate(masks_of(case)):
        if masks.on_input is not None:
            output = output * torch.tensor(masks.on_input, dtype=dtype)
        halves = []
        for k, own in enumerate(masks.directions):
            at = layer * case.directions + k
            suffix = f"_l{layer}" + "_reverse" * k
            named = {n.removesuffix(suffix): w for n, w in weights.items() if n.endswith(suffix)}
            h, c = (state[at] if case.batched else state[at, None] for state in (h_0, c_0))
            half, final = _run_direction(case, named, output, h, c, own, backwards=k == 1)
            halves.append(half)
            finals.append(final)
        output = torch.cat(halves, 2)
    h_n, c_n = (torch.stack(states) for states in zip(*finals, strict=True))
    if not case.batched:
        output, h_n, c_n = output[:, 0], h_n[:, 0], c_n[:, 0]
    elif case.batch_first:
        output = output.transpose(0, 1)
    leaves = {"d_x": x, "d_h_0": h_0, "d_c_0": c_0, **weights}
    return results_of(case, (output, h_n, c_n), leaves)


def _run_direction(
    case: VariantCase,
    weights: dict[str, torch.Tensor],
    x: torch.Tensor,
    h: torch.Tensor,
    c: torch.Tensor,
    masks: DirectionMasks,
    *,
    backwards: bool,
) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """x (T, B, I) -> outputs (T, B, P), zero past the ends, and the final h and c."""
    outputs: list[Any] = [None] * case.steps
    if masks.on_weights is not None:
        factors = torch.tensor(masks.on_weights, dtype=x.dtype)
        weights = weights | {"weight_hh": weights["weight_hh"] * factors}
    lengths = [case.steps] * case.batch if case.lengths is None else case.lengths
    for t in reversed(range(case.steps)) if backwards else range(case.steps):
        seen = h
        if masks.on_state is not None:
            seen = h * torch.tensor(masks.on_state, dtype=x.dtype)
        new_h, new_c = _step(case, weights, x[t], seen, c)
        p_c, p_h = case.options.get("zoneout", (0.0, 0.0))
        new_c = _hold(new_c, c, p_c, masks.held_c, t)
        new_h = _hold(new_h, h, p_h, masks.held_h, t)
        alive = torch.tensor(np.array(lengths) > t)[:, None]
        h, c = torch.where(alive, new_h, h), torch.where(alive, new_c, c)
        outputs[t] = torch.where(alive, new_h, torch.zeros_like(new_h))
    return torch.stack(outputs), (h, c)


def _hold(
    new: torch.Tensor, old: torch.Tensor, p: float, held: Array | None, t: int
) -> torch.Tensor:
    """Zoneout (Krueger et al. 2017): of a mask, or its expectation."""
    return p * old + (1 - p) * new if held is None else torch.where(torch.tensor(held[t]), old, new)


def _step(
    case: VariantCase,
    w: dict[str, torch.Tensor],
    x: torch.Tensor,
    h: torch.Tensor,
    c: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    options, wide, hidden = case.options, (4 * case.hidden_size,), (case.hidden_size,)
    gate, candidate, last = (
        _activation(named) for named in options.get("activations", ("sigmoid", "tanh", "tanh"))
    )
    limit = options.get("clip", float("inf"))
    from_x, from_h = functional.linear(x, w["weight_ih"]), functional.linear(h, w["weight_hh"])
    if options.get("layer_norm"):
        from_x = functional.layer_norm(from_x, wide, w["gain_ih"], w.get("bias_ih"))
        from_h = functional.layer_norm(from_h, wide, w["gain_hh"], w.get("bias_hh"))
    elif case.bias:
        from_x, from_h = from_x + w["bias_ih"], from_h + w["bias_hh"]
    z_i, z_f, z_g, z_o = (from_x + from_h).chunk(4, 1)
    p_i, p_f, p_o = w["peephole"].chunk(3) if options.get("peepholes") else (0.0, 0.0, 0.0)
    i = gate((z_i + p_i * c).clamp(-limit, limit))
    f = 1 - i if options.get("input_forget") else gate((z_f + p_f * c).clamp(-limit, limit))
    new_c = f * c + i * candidate(z_g.clamp(-limit, limit))
    o = gate((z_o + p_o * new_c).clamp(-limit, limit))
    seen = new_c
    if options.get("layer_norm"):
        seen = functional.layer_norm(new_c, hidden, w["gain_c"], w.get("bias_c"))
    new_h = o * last(seen)
    return functional.linear(new_h, w["weight_hr"]) if "weight_hr" in w else new_h, new_c


def _activation(named: str | tuple[Any, ...]) -> Any:
    """A function of a tensor, with the numbers that ONNX's operator documentation gives."""
    name, *given = (named,) if isinstance(named, str) else named
    defaults = {
        "affine": (1.0, 0.0), "leaky_relu": (0.01,), "thresholded_relu": (1.0,),
        "scaled_tanh": (1.0, 1.0), "hard_sigmoid": (0.2, 0.5), "elu": (1.0,),
    }.get(name, ())  # fmt: skip
    a, b = [*given, *defaults[len(given) :], 0.0, 0.0][:2]
    return {
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "relu": torch.relu,
        "softsign": functional.softsign,
        "softplus": lambda x: torch.logaddexp(x, torch.zeros_like(x)),
        "affine": lambda x: a * x + b,
        "leaky_relu": lambda x: functional.leaky_relu(x, a),
        "thresholded_relu": lambda x: functional.threshold(x, a, 0.0),
        "scaled_tanh": lambda x: a * torch.tanh(b * x),
        "hard_sigmoid": lambda x: (a * x + b).clamp(0, 1),
        "elu": lambda x: functional.elu(x, a),
    }[name]


def conditioning(case: VariantCase, expected: dict[str, Array]) -> float:
    """How far any result moves when the case's numbers do; see cases.WELL_CONDITIONED."""
    return max(
        relative_error(array, expected[name])
        for k in range(1, MOVES + 1)
        for name, array in run_torch(moved(case, k), torch.float64).items()  # type: ignore[arg-type]
    )


def main() -> None:
    torch.set_num_threads(1)
    parts, conditions = [], []
    for seed in range(CASES):
        case = draw_variant(seed)
        results = run_torch(case, torch.float64)
        parts += [array.ravel() for array in results.values()]
        conditions.append(conditioning(case, results))
    np.savez_compressed(FILE, values=np.concatenate(parts), conditioning=conditions)
    print(f"{FILE.name}: {CASES} cases, {FILE.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
