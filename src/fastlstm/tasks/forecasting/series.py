"""Time series as the forecaster takes and gives them: arrays, or pandas objects with their dates.

pandas is needed only by who hands its objects in, or loads a model of such ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastlstm._validate import Array
from fastlstm.tasks.forecasting.time_index import check_index, continued, import_pandas


@dataclass(frozen=True)
class Series:
    """One series.

    Attributes
    ----------
    values : ndarray of float64 (N, D)
    index : pandas.Index or None
        Of the rows: dates, periods or whole numbers, evenly spaced. None for an array.
    names : tuple or None
        Of the variables. None for an array.
    flat : bool
        It came without an axis for the variables.
    """

    values: Array
    index: Any
    names: tuple[Any, ...] | None
    flat: bool

    def __len__(self) -> int:
        return len(self.values)

    def tail(self, count: int) -> Series:
        """The last rows."""
        index = None if self.index is None else self.index[len(self) - count :]
        return Series(self.values[-count:], index, self.names, self.flat)

    def wrap(self, values: Array, index: Any = None) -> Any:
        """Rows (n, D) in the form that the series came in; with `index`, or those that follow."""
        if self.index is None:
            return values[:, 0] if self.flat else values
        if index is None:
            index = continued(self.index, len(values))
        pandas = import_pandas()
        if self.flat:
            return pandas.Series(values[:, 0], index, name=(self.names or (None,))[0])
        return pandas.DataFrame(values, index, columns=self.columns)

    def wrap_quantiles(self, values: Array, quantiles: Sequence[float]) -> Any:
        """The same of (n, D, Q): columns are quantiles, or variables with their quantiles."""
        if self.index is None:
            return values[:, 0] if self.flat else values
        index = continued(self.index, len(values))
        pandas = import_pandas()
        if self.flat:
            return pandas.DataFrame(values[:, 0], index, columns=list(quantiles))
        columns = pandas.MultiIndex.from_product(
            [self.columns, list(quantiles)], names=[None, "quantile"]
        )
        return pandas.DataFrame(values.reshape(len(values), -1), index, columns=columns)

    @property
    def columns(self) -> list[Any]:
        """Names of the variables, numbers where it has none."""
        width = self.values.shape[1]
        return list(range(width)) if self.names is None else list(self.names)


def check_many(name: str, value: Any) -> tuple[list[Series], bool]:
    """Return series, and whether they came as a list of several.

    A list of arrays or of pandas objects is several series, anything else is one.
    """
    if isinstance(value, (list, tuple)) and any(_is_array(one) for one in value):
        return [check_series(f"{name}[{k}]", one) for k, one in enumerate(value)], True
    return [check_series(name, value)], False


def check_series(name: str, value: Any) -> Series:
    """Return one series of finite numbers.

    Parameters
    ----------
    value : array_like (N,) or (N, D), pandas.Series or pandas.DataFrame

    Raises
    ------
    TypeError
        If it holds anything but real numbers.
    ValueError
        If it has another shape, no rows or no variables, a NaN or infinite number, or an index of
        pandas' that is not in order and evenly spaced.
    """
    index = names = None
    if hasattr(value, "iloc"):
        index = check_index(name, value.index)
        names = _check_columns(name, value)
        if value.ndim == 1:
            names = None if value.name is None else names
        value = _numbers_of_pandas(value)
    array = _check_numbers(name, value)
    flat = array.ndim == 1
    if flat:
        array = array[:, np.newaxis]
    if array.ndim != 2:
        raise ValueError(f"{name}: expected shape (N,) or (N, D), got {array.shape}")
    if 0 in array.shape:
        raise ValueError(f"{name}: expected a row and a variable at least, got {array.shape}")
    finite = np.isfinite(array)
    if not finite.all():
        row, column = (int(place) for place in np.argwhere(~finite)[0])
        where = f"row {row}" + ("" if index is None else f" ({index[row]})")
        if not flat:
            where += f", column {column if names is None else names[column]!r}"
        raise ValueError(
            f"{name}: expected finite numbers, got {array[row, column]} in {where}; fill gaps "
            "first (of a pandas object: interpolate(), ffill())"
        )
    return Series(array.astype(np.float64), index, names, flat)


def _is_array(value: Any) -> bool:
    return hasattr(value, "iloc") or (isinstance(value, np.ndarray) and value.ndim > 0)


def _numbers_of_pandas(value: Any) -> Any:
    """The values, with NaN for what pandas calls missing."""
    if value.ndim == 1:
        return value.to_numpy(dtype=np.float64, na_value=np.nan)
    # Column by column: together, numbers of pandas' own dtypes would become objects.
    columns = [
        value.iloc[:, k].to_numpy(dtype=np.float64, na_value=np.nan) for k in range(value.shape[1])
    ]
    return np.column_stack(columns) if columns else np.empty(value.shape)


def _check_columns(name: str, value: Any) -> tuple[Any, ...]:
    """Names of the columns, all of which hold numbers."""
    columns = [value] if value.ndim == 1 else [value.iloc[:, k] for k in range(value.shape[1])]
    names = []
    for column in columns:
        label = column.name
        if isinstance(label, np.integer):
            label = int(label)
        if not isinstance(label, (str, int, type(None))) or isinstance(label, bool):
            raise TypeError(f"{name}: expected columns named by text or numbers, got {label!r}")
        # "biuf" are also the kinds of pandas' own Int64, Float64 and boolean.
        if getattr(column.dtype, "kind", "O") not in "biuf":
            raise TypeError(
                f"{name}: expected numbers, got {column.dtype} in column {label!r}; leave it out, "
                "or make numbers of it (pandas.to_numeric)"
            )
        names.append(label)
    if len(set(names)) < len(names):
        raise ValueError(f"{name}: expected columns with different names, got {names}")
    return tuple(names)


def _check_numbers(name: str, value: Any) -> Array:
    if hasattr(value, "toarray"):
        raise TypeError(f"{name}: expected an array, got a sparse one; use toarray()")
    if value is None or isinstance(value, (str, bytes)):
        raise TypeError(f"{name}: expected an array of numbers, got {value!r:.80}")
    try:
        array = np.asarray(value)
    except ValueError as error:  # rows of different lengths
        raise ValueError(f"{name}: expected an array of numbers: {error}") from None
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name}: expected an array, got a masked one (fill it first)")
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name}: expected numbers, got an array of {array.dtype}")
    return array
