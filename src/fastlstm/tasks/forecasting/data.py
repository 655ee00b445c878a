"""What a forecaster reads: scaled series with what is known of their future, and their windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from fastlstm._validate import Array, check_size
from fastlstm.tasks.forecasting.series import Series, check_series
from fastlstm.tasks.forecasting.time_index import (
    CALENDAR,
    calendar_features,
    calendar_width,
    continued,
    has_dates,
)

Names = tuple[Any, ...] | None


def check_calendar(value: object) -> tuple[str, ...]:
    """Return the names of calendar features."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f"calendar: expected a sequence of names, got {value!r:.80}")
    for name in value:
        if name not in CALENDAR:
            raise ValueError(f"calendar: expected some of {', '.join(CALENDAR)}, got {name!r:.80}")
    return tuple(value)


@dataclass(frozen=True)
class Layout:
    """What series and known inputs of a forecaster look like.

    Attributes
    ----------
    variables : int
        Of a series (D).
    names : tuple or None
        Of the variables.
    columns : int
        Of X.
    column_names : tuple or None
    calendar : tuple of str
        Features of the dates, which come behind the columns of X.
    """

    variables: int
    names: Names
    columns: int
    column_names: Names
    calendar: tuple[str, ...]

    @classmethod
    def of(cls, series: Sequence[Series], several: bool, X: Any, calendar: tuple[str, ...]) -> Self:
        """That of the first series and its X; `known_of_all` looks whether the others fit."""
        _check_list(series, several, X)
        variables, names = series[0].values.shape[1], series[0].names
        if X is None:
            return cls(variables, names, 0, None, calendar)
        given = check_series("X[0]", X[0]) if several else check_series("X", X)
        return cls(variables, names, given.values.shape[1], given.names, calendar)

    @classmethod
    def from_json(cls, saved: Mapping[str, Any], variables: int, calendar: tuple[str, ...]) -> Self:
        """What `to_json` was called of; raises KeyError, TypeError or ValueError if it was not."""
        columns = check_size("columns", saved["columns"], least=0)
        names = _names_from_json(saved["names"], variables)
        return cls(
            variables, names, columns, _names_from_json(saved["column_names"], columns), calendar
        )

    def to_json(self) -> dict[str, Any]:
        """All but what else the file has."""
        return {
            "names": None if self.names is None else list(self.names),
            "columns": self.columns,
            "column_names": None if self.column_names is None else list(self.column_names),
        }

    @property
    def known(self) -> int:
        """Inputs that are known ahead (K)."""
        return self.columns + calendar_width(self.calendar)

    def check(self, name: str, series: Series) -> None:
        """Refuse a series with other variables."""
        width = series.values.shape[1]
        if width != self.variables:
            raise ValueError(f"{name}: expected {self.variables} variables, got {width}")
        if not series.flat:
            _check_names(name, series.names, self.names)

    def known_of(self, name: str, X: Any, series: Series, *, since: int, ahead: int) -> Array:
        """What is known at the rows of a series from `since` on, and of `ahead` more.

        Returns
        -------
        ndarray of float64 (n, K)
        """
        rows = len(series) - since + ahead
        index = series.index
        if index is not None:
            index = index[since:].append(continued(index, ahead)) if ahead else index[since:]
        parts = [np.empty((rows, 0))]
        if X is None and self.columns:
            raise ValueError(f"{name}: expected {self.columns} known inputs, as in fit, got None")
        if X is not None:
            parts.append(self._columns_of(name, X, rows, ahead, index))
        if self.calendar:
            if not has_dates(index):
                raise ValueError(
                    "calendar: needs y with dates, a pandas object with an index of them"
                )
            parts.append(calendar_features(index, self.calendar))
        return np.concatenate(parts, axis=1)

    def known_of_all(
        self, series: Sequence[Series], several: bool, X: Any, *, since: int = 0, ahead: int = 0
    ) -> list[Array]:
        """The same of all series, which are checked too."""
        _check_list(series, several, X)
        found = []
        for k, one in enumerate(series):
            place = f"[{k}]" if several else ""
            self.check(f"y{place}", one)
            given = X[k] if several and X is not None else X
            found.append(self.known_of(f"X{place}", given, one, since=since, ahead=ahead))
        return found

    def _columns_of(self, name: str, X: Any, rows: int, ahead: int, index: Any) -> Array:
        """The values of X, which stands for these rows."""
        given = check_series(name, X)
        width = given.values.shape[1]
        if width != self.columns:
            raise ValueError(f"{name}: expected {self.columns} columns, as in fit, got {width}")
        _check_names(name, given.names, self.column_names)
        if len(given) != rows:
            what = f", of which {ahead} follow the end of y" if ahead else ", as y has"
            raise ValueError(f"{name}: expected {rows} rows{what}, got {len(given)}")
        if given.index is not None and index is not None and not given.index.equals(index):
            differing = np.flatnonzero(given.index != index)
            row = int(differing[0]) if len(differing) else 0
            raise ValueError(
                f"{name}: expected the index of y{' and what follows it' if ahead else ''}: "
                f"{index[row]} in row {row}, got {given.index[row]}"
            )
        return given.values


def _check_list(series: Sequence[Series], several: bool, X: Any) -> None:
    """There is a series, and an X for each or none."""
    if not series:
        raise ValueError("y: expected a series at least, got an empty list")
    if several and X is not None and (not isinstance(X, (list, tuple)) or len(X) != len(series)):
        got = f"{len(X)}" if isinstance(X, (list, tuple)) else f"a {type(X).__name__}"
        raise ValueError(f"X: expected a list of {len(series)}, as y is, got {got}")


def _names_from_json(saved: Any, count: int) -> Names:
    if saved is None:
        return None
    names = tuple(saved)
    if not all(isinstance(name, (str, int, type(None))) for name in names):
        raise TypeError(f"names: expected text or numbers, got {names!r:.80}")
    if len(names) != count:
        raise ValueError(f"names: expected {count}, got {len(names)}")
    return names


def _check_names(name: str, names: Names, expected: Names) -> None:
    """Columns with names are those of `fit`, in their order."""
    if names is not None and expected is not None and names != expected:
        raise ValueError(f"{name}: expected the columns {list(expected)}, got {list(names)}")


@dataclass(frozen=True)
class Scale:
    """Mean and deviation of each column, (D,) of float64; 1 for one that never changes."""

    mean: Array
    deviation: Array

    @classmethod
    def of(cls, name: str, values: Array) -> Scale:
        """Of the rows (N, D).

        Raises
        ------
        ValueError
            If they are too large to be added up.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            mean, deviation = values.mean(axis=0), values.std(axis=0)
        if not (np.isfinite(mean).all() and np.isfinite(deviation).all()):
            raise ValueError(f"{name}: expected smaller numbers, got {np.abs(values).max():g}")
        # Rounding gives a column of equal numbers a tiny deviation.
        changes = (values != values[:1]).any(axis=0) & (deviation > 0)
        return cls(mean, np.where(changes, deviation, 1.0))

    def apply(self, name: str, values: Array) -> Array:
        """Standardised (…, D), as float32.

        Raises
        ------
        ValueError
            If a value is too far from the mean for that.
        """
        with np.errstate(over="ignore"):
            scaled: Array = ((values - self.mean) / self.deviation).astype(np.float32)
        if not np.isfinite(scaled).all():
            raise ValueError(
                f"{name}: expected numbers like those of the training, got "
                f"{values[~np.isfinite(scaled)][0]:g}"
            )
        return scaled

    def undo(self, scaled: Array) -> Array:
        """(…, D, Q) in the units of the series, as float64."""
        scaled = scaled.astype(np.float64)
        return scaled * self.deviation[:, np.newaxis] + self.mean[:, np.newaxis]


class Table:
    """Series one behind the other, scaled, and the windows that lie in them.

    Parameters
    ----------
    scaled : ndarray of float32 (N, D)
    known : ndarray of float32 (N, K)
    lookback, horizon : int
    """

    def __init__(self, scaled: Array, known: Array, lookback: int, horizon: int) -> None:
        self._scaled, self._known = scaled, known
        self.variables = scaled.shape[1]
        self._before = np.arange(-lookback, 0)
        self._ahead = np.arange(horizon)
        self._around = np.arange(-lookback, horizon)

    def batch(self, starts: Array) -> tuple[Array, Array | None, Array]:
        """Windows whose forecasts begin at these rows: (B, L, D), (B, L + H, K), (B, H, D)."""
        window = self._scaled[starts[:, np.newaxis] + self._before]
        target = self._scaled[starts[:, np.newaxis] + self._ahead]
        return window, self.known(starts), target

    def known(self, starts: Array) -> Array | None:
        """What is known around these rows, or None if nothing is."""
        if not self._known.shape[1]:
            return None
        around: Array = self._known[starts[:, np.newaxis] + self._around]
        return around


@dataclass(frozen=True)
class Part:
    """Where forecasts begin in one of several series, counted through all of them.

    Attributes
    ----------
    training, validation : ndarray of int64
    rows : int
        Of the series' training part.
    """

    training: Array
    validation: Array
    rows: int


def window_starts(
    series: Sequence[Series], several: bool, lookback: int, horizon: int, fraction: float
) -> list[Part]:
    """Where forecasts begin in each series.

    A `fraction` of its rows, the last ones, is held out: no target of the training lies in them,
    and all those of the validation do.

    Raises
    ------
    ValueError
        If a series is too short for a window of each.
    """
    parts, before = [], 0
    for k, one in enumerate(series):
        held_out = round(len(one) * fraction)
        rows = len(one) - held_out
        if rows < lookback + horizon or (fraction and held_out < horizon):
            kept = f" to train on, and validation_fraction {fraction:g} holds {held_out} out"
            raise ValueError(
                f"y{f'[{k}]' if several else ''}: {len(one)} rows are too few: lookback "
                f"{lookback} and horizon {horizon} need {lookback + horizon}"
                + (f"{kept}, where {horizon} are the least" if fraction else "")
            )
        training = np.arange(lookback, rows - horizon + 1)
        validation = np.arange(
            max(lookback, rows) if held_out else len(one), len(one) - horizon + 1
        )
        parts.append(Part(before + training, before + validation, rows))
        before += len(one)
    return parts
