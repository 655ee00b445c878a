"""Standardising: features, or targets, get the mean 0 and the deviation 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from fastlstm._validate import Array, check_array


@dataclass(frozen=True)
class Scaling:
    """(x - mean) / deviation, column by column, in float64.

    Attributes
    ----------
    mean, deviation : ndarray of float64 (F,)
    """

    mean: Array
    deviation: Array

    @classmethod
    def of(cls, rows: Array) -> Self:
        """Of the columns of `rows` (N, F), finite; a column that never changes is only shifted."""
        # Squares of huge numbers overflow; powers of two leave the bits as they are.
        _, exponent = np.frexp(np.abs(rows).max(axis=0))
        moderate = np.ldexp(rows.astype(np.float64), -exponent)
        mean = np.ldexp(moderate.mean(axis=0), exponent)
        deviation = np.ldexp(moderate.std(axis=0), exponent)
        changes = (rows.max(axis=0) > rows.min(axis=0)) & (deviation > 0)
        # The mean of equal numbers need not be quite that number.
        return cls(np.where(changes, mean, rows[0]), np.where(changes, deviation, 1.0))

    def apply(self, name: str, rows: Array) -> Array:
        """Standardised rows (..., F), as float32.

        Raises
        ------
        ValueError
            If a number is so far away from those of `of` that float32 cannot hold it.
        """
        with np.errstate(over="ignore"):
            scaled: Array = ((rows - self.mean) / self.deviation).astype(np.float32)
        if not np.isfinite(scaled).all():
            worst = rows.ravel()[~np.isfinite(scaled).ravel()][0]
            raise ValueError(
                f"{name}: {worst:g} is too far from the numbers that were learnt from: those have "
                f"deviations from {self.deviation.min():g} to {self.deviation.max():g}"
            )
        return scaled

    def undo(self, scaled: Array) -> Array:
        """What `apply` was given, (..., F) of float64."""
        rows: Array = scaled * self.deviation + self.mean
        return rows

    def arrays(self, name: str) -> dict[str, Array]:
        """For a file, under "name.mean" and "name.deviation"."""
        return {f"{name}.mean": self.mean, f"{name}.deviation": self.deviation}

    @classmethod
    def from_arrays(cls, name: str, arrays: Mapping[str, Array]) -> Self:
        """What `arrays` gave; raises KeyError, TypeError or ValueError if it is something else."""
        key = f"{name}.mean"
        mean = check_array(key, arrays[key], np.dtype(np.float64), ("F",))
        key = f"{name}.deviation"
        deviation = check_array(key, arrays[key], np.dtype(np.float64), mean.shape)
        if not (np.isfinite(mean).all() and np.isfinite(deviation).all() and (deviation > 0).all()):
            raise ValueError(f"{name}: expected finite means, and deviations > 0")
        return cls(mean, deviation)
