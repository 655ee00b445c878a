"""Tables with dates, as pandas frames: what `fastlstm forecast` reads."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from fastlstm.cli.errors import CommandError
from fastlstm.cli.tables import read_table
from fastlstm.tasks.forecasting.time_index import check_index, import_pandas

Rows = Sequence[Mapping[str, Any]]


def read_frames(
    path: str, date: str, targets: Sequence[str] | None, known: Sequence[str]
) -> tuple[Any, Any]:
    """The targets and the known inputs of a table, as DataFrames with its dates.

    Parameters
    ----------
    path : str
        As `tables.read_table` takes it.
    date : str
        The column of dates.
    targets : sequence of str, or None
        Columns; with None all of numbers but those of `known`.
    known : sequence of str

    Returns
    -------
    y, X : DataFrame, or None where there are no columns for it

    Raises
    ------
    CommandError
        If a column is missing, a cell is no number, or the dates are not in order and regular.
    """
    if len({date, *(targets or ()), *known}) < 1 + len(targets or ()) + len(known):
        raise CommandError("--date, --target, --known-future: each column can be only one of them")
    rows = read_table(path, date, *(targets or ()), *known)
    if targets is None:
        targets = [
            name
            for name in rows[0]
            if name is not None and name not in (date, *known) and _is_number(rows[0][name])
        ]
        if not targets:
            raise CommandError(f"{path}: its first row has no number to forecast; name --target")
    index = _dates(path, rows, date)
    y, X = (
        import_pandas().DataFrame({name: _numbers(path, rows, name) for name in names}, index)
        if names
        else None
        for names in (targets, known)
    )
    return y, X


def _dates(path: str, rows: Rows, date: str) -> Any:
    """The column of dates as an index with a frequency."""
    pandas = import_pandas()
    texts = [str(row[date]) for row in rows]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # that the format is not clear
            index = pandas.DatetimeIndex(pandas.to_datetime(texts), name=date)
        return check_index(path, index)
    except (TypeError, ValueError, OverflowError, UserWarning) as error:
        reason = str(error).partition("\n")[0]
        if not reason.startswith(path):
            reason = f"{path}: column {date!r} has no dates: {reason}"
        raise CommandError(reason) from None


def _numbers(path: str, rows: Rows, column: str) -> list[float]:
    values = []
    for k, row in enumerate(rows, 1):
        cell = row.get(column)
        if not _is_number(cell):
            found = "nothing; fill gaps first" if cell in (None, "") else repr(cell)
            raise CommandError(
                f"{path}: row {k}: expected a number in column {column!r}, got {found:.60}"
            )
        values.append(float(cell))  # type: ignore[arg-type]
    return values


def _is_number(cell: Any) -> bool:
    if isinstance(cell, bool):
        return False
    try:
        return math.isfinite(float(cell))
    except (TypeError, ValueError, OverflowError):
        return False
