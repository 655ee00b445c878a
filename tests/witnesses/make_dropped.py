"""Writes dropped.npz: torch.nn.LSTM with masks multiplied in by hand, for `CASES` seeds.

    python -m tests.witnesses.make_dropped

Needs torch; reading the file (stored.py) does not.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from tests.support import relative_error
from tests.witnesses.cases import Array, moved
from tests.witnesses.dropped import Dropped, LayerMasks, draw_dropped, masks_of
from tests.witnesses.make_witnesses import MOVES, results_of

CASES = 80
FILE = Path(__file__).with_name("dropped.npz")


def run_torch(dropped: Dropped, dtype: torch.dtype) -> dict[str, Array]:
    """The results, forward and backward, under the names of the case."""
    case = dropped.case

    def leaf(array: Array) -> torch.Tensor:
        return torch.tensor(array, dtype=dtype, requires_grad=True)

    weights = {name: leaf(array) for name, array in case.weights.items()}
    x = leaf(case.x)
    state = None if case.state is None else (leaf(case.state[0]), leaf(case.state[1]))
    output, finals = x, []
    for layer, masks in enumerate(masks_of(dropped)):
        runs = slice(layer * case.directions, (layer + 1) * case.directions)
        initial = None if state is None else (state[0][runs], state[1][runs])
        output, final = _run_layer(dropped, layer, masks, weights, output, initial)
        finals.append(final)
    h_n, c_n = (torch.cat(states) for states in zip(*finals, strict=True))
    leaves = {"d_x": x, **weights}
    if state is not None:
        leaves |= {"d_h_0": state[0], "d_c_0": state[1]}
    return results_of(case, (output, h_n, c_n), leaves)


def _run_layer(
    dropped: Dropped,
    layer: int,
    masks: LayerMasks,
    weights: dict[str, torch.Tensor],
    x: torch.Tensor,
    state: tuple[torch.Tensor, torch.Tensor] | None,
) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """One layer of torch.nn.LSTM on masked input, with masked recurrent weights."""
    case = dropped.case
    if masks.on_input is not None:
        x = x * torch.tensor(masks.on_input, dtype=x.dtype)
    own = {}
    for suffix, mask in zip(("", "_reverse"), masks.on_weights, strict=False):
        for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            if f"{kind}_l{layer}{suffix}" in weights:
                own[f"{kind}_l0{suffix}"] = weights[f"{kind}_l{layer}{suffix}"]
        if mask is not None:
            hh = f"weight_hh_l0{suffix}"
            own[hh] = own[hh] * torch.tensor(mask, dtype=x.dtype)
    lstm = torch.nn.LSTM(
        x.shape[-1], case.hidden_size, bias=case.bias, batch_first=case.batch_first,
        bidirectional=case.bidirectional, dtype=x.dtype,
    )  # fmt: skip
    if case.lengths is None:
        return torch.func.functional_call(lstm, own, (x, state))
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        x, torch.tensor(case.lengths), batch_first=case.batch_first, enforce_sorted=False
    )
    output, final = torch.func.functional_call(lstm, own, (packed, state))
    padded, _ = torch.nn.utils.rnn.pad_packed_sequence(
        output, batch_first=case.batch_first, total_length=case.steps
    )
    return padded, final


def conditioning(dropped: Dropped, expected: dict[str, Array]) -> float:
    """How far any result moves when the case's numbers do; see cases.WELL_CONDITIONED."""
    nearby = [Dropped(moved(dropped.case, k), **dropped.options()) for k in range(1, MOVES + 1)]
    return max(
        relative_error(array, expected[name])
        for other in nearby
        for name, array in run_torch(other, torch.float64).items()
    )


def main() -> None:
    parts, conditions = [], []
    for seed in range(CASES):
        dropped = draw_dropped(seed)
        results = run_torch(dropped, torch.float64)
        parts += [array.ravel() for array in results.values()]
        conditions.append(conditioning(dropped, results))
    np.savez_compressed(FILE, values=np.concatenate(parts), conditioning=conditions)
    print(f"{FILE.name}: {CASES} cases, {FILE.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
