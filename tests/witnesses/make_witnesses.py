"""Writes lstm.npz: what torch.nn.LSTM computes, in float64, for the cases of `CASES` seeds.

    python -m tests.witnesses.make_witnesses

Needs torch; reading the file (stored.py) does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.support import relative_error
from tests.witnesses.cases import LARGE, SMALL, Array, Case, draw, moved

CASES = 260
LARGE_CASES = 240  # compared with live torch alone; only their conditioning is kept
MOVES = 8
FILE = Path(__file__).with_name("lstm.npz")


def run_torch(case: Case, dtype: torch.dtype) -> dict[str, Array]:
    """torch.nn.LSTM's results for a case, forward and backward, under the names of the case."""
    lstm = torch.nn.LSTM(
        case.input_size, case.hidden_size, case.num_layers, bias=case.bias,
        batch_first=case.batch_first, bidirectional=case.bidirectional, dtype=dtype,
        proj_size=0 if case.output_size == case.hidden_size else case.output_size,
    )  # fmt: skip

    def leaf(array: Array) -> torch.Tensor:
        return torch.tensor(array, dtype=dtype, requires_grad=True)

    lstm.load_state_dict({k: torch.tensor(v, dtype=dtype) for k, v in case.weights.items()})
    x = leaf(case.x)
    state = None if case.state is None else (leaf(case.state[0]), leaf(case.state[1]))
    if case.lengths is None:
        output, (h_n, c_n) = lstm(x, state)
    else:
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            x, torch.tensor(case.lengths), batch_first=case.batch_first, enforce_sorted=False
        )
        packed_output, (h_n, c_n) = lstm(packed, state)
        output, _ = torch.nn.utils.rnn.pad_packed_sequence(
            packed_output, batch_first=case.batch_first, total_length=case.steps
        )
    leaves = {"d_x": x, **dict(lstm.named_parameters())}
    if state is not None:
        leaves |= {"d_h_0": state[0], "d_c_0": state[1]}
    return results_of(case, (output, h_n, c_n), leaves)


def results_of(
    case: Case,
    outputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    leaves: Mapping[str, torch.Tensor],
) -> dict[str, Array]:
    """Output and final states, and gradients of the case's loss with respect to the leaves."""
    results: dict[str, Any] = dict(zip(("output", "h_n", "c_n"), outputs, strict=True))
    loss = torch.zeros((), dtype=outputs[0].dtype)
    if case.d_output is not None:
        loss = loss + (outputs[0] * torch.tensor(case.d_output, dtype=loss.dtype)).sum()
    if case.d_state is not None:
        for final, d_final in zip(outputs[1:], case.d_state, strict=True):
            loss = loss + (final * torch.tensor(d_final, dtype=loss.dtype)).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    results |= {name: leaf.grad for name, leaf in leaves.items()}
    return {
        # What nothing depends on has no gradient at all in torch.
        name: np.zeros(shape) if results[name] is None else results[name].detach().numpy()
        for name, shape in case.result_shapes().items()
    }


def conditioning(case: Case, expected: dict[str, Array]) -> float:
    """How far any result moves when the case's numbers do; see cases.WELL_CONDITIONED."""
    return max(
        relative_error(array, expected[name])
        for k in range(1, MOVES + 1)
        for name, array in run_torch(moved(case, k), torch.float64).items()
    )


def main() -> None:
    parts, small, large = [], [], []
    for seed in range(CASES):
        case = draw(seed, SMALL)
        results = run_torch(case, torch.float64)
        parts += [array.ravel() for array in results.values()]
        small.append(conditioning(case, results))
    for seed in range(LARGE_CASES):
        case = draw(seed, LARGE)
        large.append(conditioning(case, run_torch(case, torch.float64)))
    np.savez_compressed(FILE, values=np.concatenate(parts), small=small, large=large)
    print(f"{FILE.name}: {CASES} cases, {FILE.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
