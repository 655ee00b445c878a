"""The rows of a time series: dates, periods or numbers at one distance; what follows them, their
calendar, and how they are kept in a file. All by pandas, which is imported when it is needed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastlstm._extras import import_extra
from fastlstm._validate import Array

#: What can be made of dates; each is two numbers but for the weekend.
CALENDAR = ("hour", "day_of_week", "weekend", "day_of_year")

_FREQUENCY = re.compile(r"-?\d{0,6}[A-Za-z]{1,5}(-[A-Z]{3})?(-\d{1,2}[A-Z]{3})?")
_STAMP = re.compile(r"[-+:.T \d]{1,40}")
_ZONE = re.compile(r"[A-Za-z0-9+:_/-]{1,64}")
_LARGEST_STEP = 2**53


def check_index(name: str, index: Any) -> Any:
    """Return an index whose rows follow each other at one distance; dates have their `freq` then.

    Raises
    ------
    TypeError
        If it is neither of dates or periods nor of whole numbers.
    ValueError
        If it is not ascending, has rows twice, or no frequency fits it.
    """
    pandas = import_pandas()
    is_dates = isinstance(index, pandas.DatetimeIndex)
    if not (is_dates or isinstance(index, pandas.PeriodIndex)) and (
        isinstance(index, pandas.MultiIndex) or index.dtype.kind not in "iu"
    ):
        raise TypeError(
            f"{name}: expected an index of dates, or of whole numbers, got one of {index.dtype}; "
            "take the column with the dates (set_index, pandas.to_datetime), or pass to_numpy()"
        )
    if index.hasnans:
        raise ValueError(f"{name}: expected an index without gaps, got NaT in it")
    steps = np.diff(_ordinals(index))
    if (steps <= 0).any():
        row = int(np.flatnonzero(steps <= 0)[0]) + 1
        what = "twice" if steps[row - 1] == 0 else f"after {index[row - 1]}"
        raise ValueError(
            f"{name}: expected an index that ascends, got {index[row]} {what}, in row {row}; "
            "use sort_index(), and keep one row of each"
        )
    if is_dates:
        return _with_frequency(name, index)
    if len(steps) and (steps != steps[0]).any():
        row = int(np.flatnonzero(steps != steps[0])[0]) + 1
        raise ValueError(
            f"{name}: expected an index of even steps, got {index[row]} after {index[row - 1]}, "
            f"in row {row}; reset_index(drop=True) numbers the rows anew"
        )
    return index


def _with_frequency(name: str, index: Any) -> Any:
    """Dates with the frequency that they have, or that fits them."""
    if index.freq is not None:
        return index
    if len(index) < 3:
        raise ValueError(
            f"{name}: {len(index)} dates are too few to see their frequency; set it (asfreq)"
        )
    found = import_pandas().DatetimeIndex(index, freq="infer", name=index.name)
    if found.freq is None:
        steps, which, counts = np.unique(
            np.diff(_ordinals(index)), return_inverse=True, return_counts=True
        )
        row = int(np.flatnonzero(which != counts.argmax())[0]) + 1 if len(steps) > 1 else 1
        raise ValueError(
            f"{name}: no frequency fits its dates: in row {row}, {index[row]} comes after "
            f"{index[row - 1]}; make them regular (asfreq, resample) and fill what is missing"
        )
    return found


def _ordinals(index: Any) -> Array:
    """The rows as whole numbers: nanoseconds or the like, periods, or themselves."""
    ordinals: Array = getattr(index, "asi8", index.to_numpy()).astype(np.int64)
    return ordinals


def continued(index: Any, count: int) -> Any:
    """The `count` rows that follow an index that `check_index` returned."""
    pandas = import_pandas()
    if isinstance(index, pandas.DatetimeIndex):
        dates = pandas.date_range(
            index[-1], periods=count + 1, freq=index.freq, name=index.name, unit=index.unit
        )
        return dates[1:]
    if isinstance(index, pandas.PeriodIndex):
        step = _step(index)
        return pandas.period_range(
            index[-1] + step, periods=count, freq=index.freq * step, name=index.name
        )
    step, last = _step(index), int(index[-1])
    return pandas.RangeIndex(last + step, last + step * (count + 1), step, name=index.name)


def _step(index: Any) -> int:
    ordinals = _ordinals(index)
    return int(ordinals[-1] - ordinals[-2]) if len(ordinals) > 1 else 1


def calendar_width(names: Sequence[str]) -> int:
    """How many numbers these features are."""
    return sum(1 if name == "weekend" else 2 for name in names)


def calendar_features(index: Any, names: Sequence[str]) -> Array:
    """What the calendar says of each date, (N, F) of float64: places on circles, and 0 or 1."""
    pandas = import_pandas()
    dates = index.to_timestamp() if isinstance(index, pandas.PeriodIndex) else index
    day = dates.hour / 24 + dates.minute / 1440 + dates.second / 86400
    columns: list[Any] = []
    for name in names:
        if name == "weekend":
            columns.append(dates.day_of_week >= 5)
            continue
        turn = {
            "hour": day,
            "day_of_week": (dates.day_of_week + day) / 7,
            "day_of_year": (dates.day_of_year - 1 + day) / 365.2425,
        }[name]
        columns += [np.sin(2 * np.pi * turn), np.cos(2 * np.pi * turn)]
    return np.column_stack([np.asarray(column, np.float64) for column in columns])


def has_dates(index: Any) -> bool:
    """Whether there is a calendar for this index."""
    if index is None:
        return False
    pandas = import_pandas()
    return isinstance(index, (pandas.DatetimeIndex, pandas.PeriodIndex))


# --- in a file ------------------------------------------------------------------------------------


def index_to_json(index: Any) -> dict[str, Any] | None:
    """An index that `check_index` returned, for `index_from_json`.

    Raises
    ------
    ValueError
        If its frequency or its time zone have no name that says all about them.
    """
    if index is None:
        return None
    pandas = import_pandas()
    found: dict[str, Any]
    name = None if index.name is None else str(index.name)
    if isinstance(index, pandas.DatetimeIndex):
        last, zone = index[-1], None
        if index.tz is not None:
            last, zone = last.tz_convert("UTC").tz_localize(None), str(index.tz)
        found = {
            "kind": "dates", "last": last.isoformat(), "freq": index.freqstr, "zone": zone,
            "unit": index.unit, "name": name,
        }  # fmt: skip
    elif isinstance(index, pandas.PeriodIndex):
        last = index[-1].to_timestamp().isoformat()
        found = {
            "kind": "periods", "last": last, "freq": index.freqstr, "step": _step(index),
            "name": name,
        }  # fmt: skip
    else:
        found = {"kind": "numbers", "last": int(index[-1]), "step": _step(index), "name": name}
    return check_saved_index(found)


def check_saved_index(saved: Any) -> dict[str, Any] | None:
    """Return what a file has in the place of an index, once it looks as `index_to_json` writes it.

    This needs no pandas. Raises KeyError, TypeError or ValueError.
    """
    if saved is None:
        return None
    if not isinstance(saved, dict) or not isinstance(saved["name"], (str, type(None))):
        raise TypeError(f"index: expected an object with a name, got {saved!r:.80}")
    kind = saved["kind"]
    if kind not in ("dates", "periods", "numbers"):
        raise ValueError(f"index: expected dates, periods or numbers, got {kind!r:.80}")
    if kind == "numbers":
        _check_whole("last", saved["last"], -_LARGEST_STEP)
    else:
        _check_text("last", saved["last"], _STAMP)
        _check_text("freq", saved["freq"], _FREQUENCY)
    if kind != "dates":
        _check_whole("step", saved["step"], 1)
    elif saved["unit"] not in ("s", "ms", "us", "ns"):
        raise ValueError(f"index: expected a unit, got {saved['unit']!r:.80}")
    elif saved["zone"] is not None:
        _check_text("zone", saved["zone"], _ZONE)
    return saved


def _check_whole(name: str, value: object, least: int) -> None:
    if type(value) is not int or not least <= value <= _LARGEST_STEP:
        raise ValueError(f"index: expected {name} to be a whole number, got {value!r:.80}")


def _check_text(name: str, value: object, pattern: re.Pattern[str]) -> None:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ValueError(f"index: expected {name} as pandas writes it, got {value!r:.80}")


def index_from_json(saved: Any, count: int) -> Any:
    """The last `count` rows of the index that `index_to_json` was given.

    Raises KeyError, TypeError or ValueError if it is not what that returned.
    """
    saved = check_saved_index(saved)
    if saved is None:
        return None
    pandas, name = import_pandas(), saved["name"]
    try:
        if saved["kind"] == "numbers":
            last, step = saved["last"], saved["step"]
            return pandas.RangeIndex(last - step * (count - 1), last + step, step, name=name)
        if saved["kind"] == "periods":
            end = pandas.Period(saved["last"], freq=saved["freq"])
            ordinals = end.ordinal - saved["step"] * np.arange(count - 1, -1, -1)
            return pandas.PeriodIndex.from_ordinals(ordinals, freq=saved["freq"], name=name)
        end = pandas.Timestamp(saved["last"])
        if saved["zone"] is not None:
            end = end.tz_localize("UTC").tz_convert(saved["zone"])
        return pandas.date_range(
            end=end, periods=count, freq=saved["freq"], name=name, unit=saved["unit"]
        )
    except (ArithmeticError, AttributeError, LookupError, NotImplementedError) as error:
        raise ValueError(f"index: {error}") from None


def import_pandas() -> Any:
    """The module pandas, or who needs it reads how to get it."""
    return import_extra("pandas", extra="forecast", purpose="series with dates")
