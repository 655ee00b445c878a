"""The same network in torch, from the same weights, trained on the same batches.

Any estimator is trained by torch inside of ``with by_torch():``, for what it calls the Trainer is
`TorchTrainer` then: it takes the network, the optimiser's settings, the schedule and the batches
that the estimator made, and runs all steps in torch. At each validation, and in the end, the
weights go back into the network of the estimator, which has torch's numbers then.

The networks are in twins.py.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.quality.twins import Twin, twin_of
from fastlstm import optim, storage
from fastlstm.checkpoints import History

Array = NDArray[Any]


def torch_optimiser(own: Any, parameters: Any) -> torch.optim.Optimizer:
    """torch's optimiser with the settings of one of ours."""
    parameters = list(parameters)
    common = {"lr": own.lr, "weight_decay": own.weight_decay}
    if isinstance(own, optim.SGD):
        return torch.optim.SGD(parameters, momentum=own.momentum, nesterov=own.nesterov, **common)
    kind = torch.optim.AdamW if isinstance(own, optim.AdamW) else torch.optim.Adam
    return kind(parameters, betas=own.betas, eps=own.eps, **common)


def make_step(
    twin: Twin,
    optimiser: torch.optim.Optimizer,
    max_norm: float | None,
    schedule: Callable[[int], float] | None,
) -> Callable[[int, Any, Any], tuple[float, Any]]:
    """``step(number, batch, state)``: one update by a batch; its loss, and the state after it."""
    rate = optimiser.param_groups[0]["lr"]
    parameters = list(twin.parameters())

    def step(number: int, batch: Any, state: Any) -> tuple[float, Any]:
        loss, state = twin.loss(batch, state)
        optimiser.zero_grad()
        loss.backward()
        if max_norm is not None:
            nn.utils.clip_grad_norm_(parameters, max_norm)
        for group in optimiser.param_groups:
            group["lr"] = rate * (1.0 if schedule is None else schedule(number))
        optimiser.step()
        return loss.item(), detached(state)

    return step


def detached(state: Any) -> Any:
    if isinstance(state, Tensor):
        return state.detach()
    return tuple(map(detached, state)) if isinstance(state, tuple) else state


class TorchTrainer:
    """In the place of `fastlstm.training.Trainer`: the same run, with every step in torch.

    Takes the Trainer's arguments, and does without those that only show progress. Checkpoints are
    torch's own; what they belong to is not looked at.
    """

    def __init__(
        self,
        model: Any,
        optimiser: Any,
        *,
        schedule: Callable[[int], float] | None = None,
        max_norm: float | None = None,
        carry_state: bool = False,
        shuffle: bool = False,
        seed: int = 0,
        validate: Callable[[], float] | None = None,
        validate_every: int | None = None,
        patience: int | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: int | None = None,
        **_shown: Any,
    ) -> None:
        if shuffle:
            raise NotImplementedError("shuffle: the estimators shuffle by themselves")
        torch.manual_seed(seed)
        self.model, self.twin = model, twin_of(model)
        self._optimiser = torch_optimiser(optimiser, self.twin.parameters())
        self._step = make_step(self.twin, self._optimiser, max_norm, schedule)
        self._checkpoint, self._checkpoint_every = checkpoint, checkpoint_every
        self._state: Any = None
        self._carry_state, self._validate = carry_state, validate
        self._every, self._patience = validate_every, patience
        self._best: tuple[float, dict[str, Array]] | None = None
        self._waited = 0
        self.history = History()

    def fit(
        self, batches: Sequence[Any], *, epochs: int | None = None, steps: int | None = None
    ) -> History:
        count = len(batches)
        total = min(
            math.inf if epochs is None else epochs * count, math.inf if steps is None else steps
        )
        self.twin.train()
        while (done := len(self.history.losses)) < total:
            loss, self._state = self._step(done, batches[done % count], self._state)
            self.history.losses.append(loss)
            done += 1
            if done % count == 0 or not self._carry_state:
                self._state = None
            if self._checkpoint is not None and done % (self._checkpoint_every or count) == 0:
                self._save(self._checkpoint)
            if self._validate is not None and done % (self._every or count) == 0:
                self._compare(self._validate)
                if self._patience is not None and self._waited >= self._patience:
                    break
        if not self.restore_best():
            self.model.parameters().load_state_dict(self.twin.give())
        return self.history

    def restore_best(self) -> bool:
        if self._best is None or self._patience is None:
            return False
        self.model.parameters().load_state_dict(self._best[1])
        return True

    def resume(self, path: str | os.PathLike[str]) -> None:
        """Go on from a checkpoint, with the dropout masks that would have come next."""
        saved = torch.load(path, weights_only=False)
        self.twin.load_state_dict(saved["weights"])
        self._optimiser.load_state_dict(saved["optimiser"])
        self._state, self.history = saved["state"], saved["history"]
        self._best, self._waited = saved["best"]
        torch.set_rng_state(saved["rng"])

    def _save(self, path: str | os.PathLike[str]) -> None:
        content = {
            "weights": self.twin.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "state": self._state,
            "history": self.history,
            "best": (self._best, self._waited),
            "rng": torch.get_rng_state(),
        }
        with storage.replacing(Path(path)) as file:
            torch.save(content, file)

    def _compare(self, validate: Callable[[], float]) -> None:
        """Validate as the network does, with torch's weights."""
        weights = self.twin.give()
        self.model.parameters().load_state_dict(weights)
        value = float(validate())
        self.history.validations.append((len(self.history.losses), value))
        self._waited += 1
        if self._best is None or value < self._best[0]:
            self._best, self._waited = (value, weights), 0


@contextmanager
def replaced_trainer(kind: Any) -> Iterator[None]:
    """`kind` wherever fastlstm.tasks has the Trainer."""
    with ExitStack() as stack:
        for name, module in list(sys.modules.items()):
            if name.startswith("fastlstm.tasks") and vars(module).get("Trainer"):
                stack.enter_context(mock.patch.object(module, "Trainer", kind))
        yield


@contextmanager
def by_torch() -> Iterator[None]:
    """Estimators that are fitted inside are trained by torch."""
    with replaced_trainer(TorchTrainer):
        yield
