"""Checkpoints: all that a training run needs to go on to the same bits, in one storage file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import NoneType
from typing import Any

import numpy as np

from fastlstm import storage
from fastlstm._validate import Array
from fastlstm.storage import FormatError

KIND = "checkpoint"
_GROUPS = ("parameters", "optimiser", "best", "carried", "history")


@dataclass
class History:
    """What a run has seen.

    Attributes
    ----------
    losses : list of float
        The training loss of every step.
    validations : list of (int, float)
        Steps done, and what `validate` returned then.
    """

    losses: list[float] = field(default_factory=list)
    validations: list[tuple[int, float]] = field(default_factory=list)

    @property
    def steps(self) -> list[int]:
        """1, 2, …: the number of the step that each of the losses belongs to."""
        return list(range(1, len(self.losses) + 1))


@dataclass
class Run:
    """Where a training run stands: everything but the weights and the optimiser's memory.

    Attributes
    ----------
    rng : numpy.random.Generator
        The run's one source of random numbers (the order of the data has its own).
    batches : int
        Batches in an epoch; 0 as long as no data was seen.
    epoch, index : int
        The next batch: number `index` of epoch `epoch`.
    carried : tuple of ndarray or None
        State that the next step starts from.
    history : History
    best : float or None
        The lowest validation so far.
    best_parameters : dict of str to ndarray
        The weights of that time; empty if they are not wanted.
    waited : int
        Validations since then.
    """

    rng: np.random.Generator
    batches: int = 0
    epoch: int = 0
    index: int = 0
    carried: tuple[Array, ...] | None = None
    history: History = field(default_factory=History)
    best: float | None = None
    best_parameters: dict[str, Array] = field(default_factory=dict)
    waited: int = 0

    @property
    def step(self) -> int:
        """Steps done."""
        return len(self.history.losses)


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds: the weights, the optimiser's memory, the run and its settings."""

    parameters: dict[str, Array]
    optimiser: dict[str, Array]
    run: Run
    settings: dict[str, Any]


def new_rng(seed: int) -> np.random.Generator:
    """A generator whose state a checkpoint can hold, whatever NumPy's default becomes."""
    return np.random.Generator(np.random.PCG64(seed))


def save(
    path: str | os.PathLike[str],
    parameters: Mapping[str, Array],
    optimiser: Mapping[str, Array],
    run: Run,
    settings: Mapping[str, Any],
) -> None:
    """Write a checkpoint, atomically; see `fastlstm.storage.save`.

    `settings` is a JSON object: what a run must not change when it goes on.
    """
    history = run.history
    groups: dict[str, Mapping[str, Array]] = {
        "parameters": parameters,
        "optimiser": optimiser,
        "best": run.best_parameters,
        "carried": {str(k): array for k, array in enumerate(run.carried or ())},
        "history": {
            "losses": np.array(history.losses, np.float64),
            "validation_steps": np.array([step for step, _ in history.validations], np.int64),
            "validations": np.array([value for _, value in history.validations], np.float64),
        },
    }
    header = {
        "settings": dict(settings),
        "rng": run.rng.bit_generator.state,
        "batches": run.batches,
        "epoch": run.epoch,
        "index": run.index,
        "carried": None if run.carried is None else len(run.carried),
        "best": run.best,
        "waited": run.waited,
    }
    arrays = {
        f"{group}.{name}": array for group, named in groups.items() for name, array in named.items()
    }
    storage.save(path, KIND, arrays, header)


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    FormatError
        If it is no checkpoint of ours.
    """
    file = storage.load(path, KIND)
    file.check_header(
        settings=dict, rng=dict, batches=int, epoch=int, index=int,
        carried=(int, NoneType), best=(float, NoneType), waited=int,
    )  # fmt: skip
    header = file.header
    groups = _split(file)
    run = Run(
        rng=_read_rng(file),
        batches=header["batches"],
        epoch=header["epoch"],
        index=header["index"],
        carried=_read_carried(file, groups["carried"]),
        history=_read_history(file, groups["history"]),
        best=header["best"],
        best_parameters=groups["best"],
        waited=header["waited"],
    )
    place = run.epoch * run.batches + run.index
    if min(run.epoch, run.index, run.waited) < 0 or run.index > run.batches or place != run.step:
        raise FormatError(
            f"{path}: {run.step} steps do not end before batch {run.index} of {run.batches} in "
            f"epoch {run.epoch}"
        )
    return Checkpoint(groups["parameters"], groups["optimiser"], run, header["settings"])


def _split(file: storage.File) -> dict[str, dict[str, Array]]:
    """The arrays "group.name" as groups of names."""
    groups: dict[str, dict[str, Array]] = {group: {} for group in _GROUPS}
    for full_name, array in file.arrays.items():
        group, _, name = full_name.partition(".")
        if group not in groups:
            raise FormatError(f"{file.path}: unknown array {full_name!r} in a checkpoint")
        groups[group][name] = array
    return groups


def _read_rng(file: storage.File) -> np.random.Generator:
    rng = new_rng(0)
    try:
        rng.bit_generator.state = file.header["rng"]
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise FormatError(f"{file.path}: no state of a random generator: {error!r}") from None
    return rng


def _read_carried(file: storage.File, arrays: Mapping[str, Array]) -> tuple[Array, ...] | None:
    count = file.header["carried"]
    names = [str(k) for k in range(len(arrays))]
    if len(arrays) != (count or 0) or set(arrays) != set(names):
        raise FormatError(
            f"{file.path}: expected {count or 0} arrays of a carried state, got {list(arrays)}"
        )
    return None if count is None else tuple(arrays[name] for name in names)


def _read_history(file: storage.File, arrays: Mapping[str, Array]) -> History:
    expected = {"losses": np.float64, "validation_steps": np.int64, "validations": np.float64}
    fits = set(arrays) == set(expected) and all(
        arrays[name].dtype == dtype and arrays[name].ndim == 1 for name, dtype in expected.items()
    )
    if not fits or len(arrays["validation_steps"]) != len(arrays["validations"]):
        raise FormatError(f"{file.path}: not the history of a checkpoint")
    steps, values = arrays["validation_steps"].tolist(), arrays["validations"].tolist()
    return History(arrays["losses"].tolist(), list(zip(steps, values, strict=True)))
