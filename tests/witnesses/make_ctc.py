"""Writes ctc.npz: torch's ctc_loss of log_softmax, in float64, for `CASES` seeds.

    python -m tests.witnesses.make_ctc

Needs torch; reading the file (tests/test_ctc.py) does not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.witnesses.ctc_cases import Array, CTCCase, draw_ctc

CASES = 60
FILE = Path(__file__).with_name("ctc.npz")


def run_torch(
    case: CTCCase,
    dtype: torch.dtype = torch.float64,
    targets: Array | None = None,
    **options: Any,
) -> tuple[Array, Array]:
    """The loss, and the gradient of the logits, of the sum of the losses where there are many."""
    logits = torch.tensor(case.logits, dtype=dtype, requires_grad=True)
    loss = torch.nn.functional.ctc_loss(
        logits.log_softmax(-1),
        torch.tensor(case.targets if targets is None else targets),
        torch.tensor(case.input_lengths),
        torch.tensor(case.target_lengths),
        blank=case.blank,
        **options,
    )
    loss.sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    return loss.detach().numpy(), logits.grad.numpy()


def main() -> None:
    losses, gradients = [], []
    for seed in range(CASES):
        loss, d_logits = run_torch(draw_ctc(seed), reduction="none")
        losses.append(loss)
        gradients.append(d_logits.ravel())
    np.savez_compressed(FILE, losses=np.concatenate(losses), gradients=np.concatenate(gradients))
    print(f"{FILE.name}: {CASES} cases, {FILE.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
