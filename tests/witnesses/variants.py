"""Cases of the general cell, and the masks that a given stream of random numbers means in them.

As in dropped.py, FrozenGenerator hands the numbers out, so the masks are written down here from the
documented order alone: those of a layer's input; then, direction by direction, of its recurrent
weights, of h before them, and what zoneout holds of c and of h.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from tests.witnesses.cases import SMALL, Array, Case, draw

# With numbers like those that models have, and such that no case is all zeros.
ACTIVATIONS: list[str | tuple[Any, ...]] = [
    "sigmoid", "tanh", "relu", "softsign", "softplus", "hard_sigmoid", "elu", "affine",
    ("affine", 0.7, 0.2), ("leaky_relu", 0.3), ("thresholded_relu", -0.4),
    ("scaled_tanh", 1.7159, 0.6667), ("hard_sigmoid", 0.3, 0.4), ("elu", 0.6),
]  # fmt: skip


@dataclass
class VariantCase(Case):
    """A case with options of the cell, as our constructor takes them."""

    options: dict[str, Any] = field(default_factory=dict)
    masks_drawn: bool = False

    @property
    def output_size(self) -> int:
        return self.options.get("proj_size") or self.hidden_size

    @property
    def of_torch(self) -> bool:
        """Whether torch.nn.LSTM has such a cell."""
        return set(self.options) <= {"proj_size"}

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        H, P, shapes = self.hidden_size, self.output_size, {}
        for layer in range(self.num_layers):
            width = self.directions * P if layer else self.input_size
            own: dict[str, tuple[int, ...]] = {"weight_ih": (4 * H, width), "weight_hh": (4 * H, P)}
            if self.bias:
                own |= {"bias_ih": (4 * H,), "bias_hh": (4 * H,)}
            if P < H:
                own["weight_hr"] = (P, H)
            if self.options.get("peepholes"):
                own["peephole"] = (3 * H,)
            if self.options.get("layer_norm"):
                own |= {"gain_ih": (4 * H,), "gain_hh": (4 * H,), "gain_c": (H,)}
                own |= {"bias_c": (H,)} if self.bias else {}
            for suffix in (f"_l{layer}", f"_l{layer}_reverse")[: self.directions]:
                shapes |= {f"{name}{suffix}": shape for name, shape in own.items()}
        return shapes


@dataclass(frozen=True)
class DirectionMasks:
    """Of one direction: factors of W_hh (4H, P) and of h (B, P), and what is held (T, B, …)."""

    on_weights: Array | None
    on_state: Array | None
    held_c: Array | None
    held_h: Array | None


@dataclass(frozen=True)
class LayerMasks:
    """Of one layer: factors of its input (1, B, features), and its directions'."""

    on_input: Array | None
    directions: list[DirectionMasks]


def draw_variant(seed: int) -> VariantCase:
    """The case of a seed: each option about every third time, a bare projection every eighth."""
    plain, rng = draw(seed, SMALL), np.random.RandomState(50_000 + seed)
    case = VariantCase(**{f.name: getattr(plain, f.name) for f in fields(plain)})
    case.hidden_size = int(rng.randint(1, 5))
    case.options = _draw_options(rng, case)
    if case.options.get("layer_norm"):
        # What W makes of one or two numbers keeps its direction, or nearly so, and is normalised:
        # hardly anything depends on the numbers, and gradients are what cancellation leaves.
        case.input_size, case.hidden_size = max(3, case.input_size), max(4, case.hidden_size)
        case.options.pop("input_dropout", None)
        if "proj_size" in case.options:
            case.options["proj_size"] = 3
        case.x = rng.standard_normal(case.sequence_shape(case.input_size)).astype(np.float32)
        case.x = case.x.astype(np.float64)
    if case.masks_drawn and "zoneout" in case.options:
        case.lengths = None  # where lengths differ, the layout of what is held is nobody's business

    def values(shape: tuple[int, ...], scale: float = 1.0) -> Array:
        return (scale * rng.standard_normal(shape)).astype(np.float32).astype(np.float64)

    scale = 1.2 / math.sqrt(case.hidden_size)
    case.weights = {
        name: values(shape, scale) + name.startswith("gain")
        for name, shape in case.weight_shapes().items()
    }
    # Sums of float32 values are none.
    case.weights = {k: v.astype(np.float32).astype(np.float64) for k, v in case.weights.items()}
    if case.state is not None:
        case.state = values(case.h_shape), values(case.state_shape)
    if case.d_output is not None:
        case.d_output = values(case.sequence_shape(case.directions * case.output_size))
    if case.d_state is not None:
        case.d_state = values(case.h_shape), values(case.state_shape)
    return case


def _draw_options(rng: np.random.RandomState, case: VariantCase) -> dict[str, Any]:
    def sometimes() -> bool:
        return bool(rng.randint(3) == 0)

    proj_size = int(rng.randint(1, case.hidden_size)) if case.hidden_size > 1 else 0
    if case.seed % 8 == 0:
        return {"proj_size": proj_size}
    options: dict[str, Any] = {
        "proj_size": proj_size if sometimes() else 0,
        "peepholes": sometimes(),
        "clip": float(rng.choice([0.5, 1.5])) if sometimes() else None,
        "input_forget": sometimes(),
        "layer_norm": sometimes(),
        "zoneout": (0.3, 0.2) if sometimes() else 0.0,
    }
    if rng.randint(2):
        # 14 of them: in each slot, all come by.
        turns = (case.seed, 3 * case.seed + 1, 5 * case.seed + 2)
        options["activations"] = tuple(ACTIVATIONS[turn % len(ACTIVATIONS)] for turn in turns)
    case.masks_drawn = bool(rng.randint(2))
    if case.masks_drawn:
        for name in ("recurrent_dropout", "weight_dropout", "input_dropout"):
            options[name] = 0.4 if rng.randint(2) else 0.0
    return {name: value for name, value in options.items() if value}


def masks_of(case: VariantCase) -> list[LayerMasks]:
    """The masks of each layer that FrozenGenerator(case.seed) draws; none for an infer-like run."""
    stream, options = np.random.RandomState(case.seed), case.options
    B, H, P = case.batch, case.hidden_size, case.output_size

    def numbers(p: float, *shape: int) -> Array | None:
        if not (p and case.masks_drawn):
            return None
        return stream.random_sample(shape).astype(np.float32)

    def factors(name: str, *shape: int) -> Array | None:
        p = options.get(name, 0.0)
        drawn = numbers(p, *shape)
        return None if drawn is None else (drawn >= p) / (1 - p)

    def direction() -> DirectionMasks:
        on_weights = factors("weight_dropout", 4 * H, P)
        on_state = factors("recurrent_dropout", 1, B, P)
        held = []
        for p, size in zip(options.get("zoneout", (0.0, 0.0)), (H, P), strict=True):
            drawn = numbers(p, case.steps * B, size)
            held.append(None if drawn is None else (drawn < p).reshape(case.steps, B, size))
        return DirectionMasks(on_weights, None if on_state is None else on_state[0], *held)

    masks = []
    for layer in range(case.num_layers):
        on_input = None if layer else factors("input_dropout", 1, B, case.input_size)
        masks.append(LayerMasks(on_input, [direction() for _ in range(case.directions)]))
    return masks
