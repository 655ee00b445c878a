"""Time series from arrays and pandas objects: what is taken, what is refused, how dates go on."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fastlstm.tasks.forecasting.series import check_many, check_series
from fastlstm.tasks.forecasting.time_index import (
    calendar_features,
    calendar_width,
    check_index,
    continued,
    index_from_json,
    index_to_json,
)

INDICES = {
    "hours": pd.date_range("2024-02-28 20:00", periods=8, freq="h"),
    "minutes": pd.date_range("2024-01-01", periods=5, freq="15min", name="when"),
    "days": pd.date_range("2024-01-01", periods=5, freq="D", unit="s"),
    "business days": pd.date_range("2024-01-03", periods=9, freq="B"),
    "weeks": pd.date_range("2024-01-03", periods=5, freq="W-WED"),
    "ends of months": pd.date_range("2024-01-31", periods=5, freq="ME"),
    "quarters": pd.date_range("2024-01-31", periods=5, freq="QE-NOV"),
    "clocks put forward": pd.date_range("2024-03-30 22:00", periods=9, freq="h", tz="Europe/Rome"),
    "days of a zone": pd.date_range("2024-03-29", periods=5, freq="D", tz="Europe/Rome"),
    "utc": pd.date_range("2024-03-29", periods=5, freq="6h", tz="UTC"),
    "offset": pd.date_range("2024-03-29 00:00+05:30", periods=5, freq="h"),
    "months": pd.period_range("2024-11", periods=4, freq="M"),
    "hours of periods": pd.period_range("2024-11-01", periods=4, freq="h", name="p"),
    "every second": pd.RangeIndex(3, 11, 2),
    "numbers": pd.Index([5, 6, 7], name="n"),
}


@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES.keys())
def test_rows_go_on_as_pandas_would_have_made_them(index: Any) -> None:
    head = type(index)(index[:5]) if hasattr(index, "freq") else index[:2]
    kept, rest = len(head), len(index) - len(head)
    after = continued(check_index("y", head), rest + 1)
    assert after[:rest].equals(index[kept:])
    assert len(after) == rest + 1
    assert after.name == index.name
    assert after.dtype == index.dtype


@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES.keys())
def test_an_index_comes_back_from_json(index: Any) -> None:
    checked = check_index("y", index)
    saved = json.loads(json.dumps(index_to_json(checked)))
    back = index_from_json(saved, 3)
    assert back.equals(index[-3:])
    assert back.dtype == index.dtype
    assert back.name == index.name
    assert continued(back, 4).equals(continued(checked, 4))


def test_no_index_comes_back_as_none() -> None:
    assert index_from_json(index_to_json(None), 3) is None


def test_dates_without_a_frequency_get_the_one_that_fits() -> None:
    dates = pd.DatetimeIndex(["2024-01-31", "2024-02-29", "2024-03-31"])
    assert continued(check_index("y", dates), 1)[0] == pd.Timestamp("2024-04-30")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["2024-01-02", "2024-01-01", "2024-01-03"], r"^y: expected an index that ascends, got "
         r"2024-01-01 00:00:00 after 2024-01-02 00:00:00, in row 1"),
        (["2024-01-01", "2024-01-02", "2024-01-02"], r"got 2024-01-02 00:00:00 twice, in row 2"),
        (["2024-01-01", "2024-01-02", "2024-01-03", "2024-01-05", "2024-01-06", "2024-01-07"],
         r"^y: no frequency fits its dates: in row 3, 2024-01-05 00:00:00 comes after 2024-01-03"),
        (["2024-01-01", "2024-01-02"], r"^y: 2 dates are too few to see their frequency"),
        (["2024-01-01", None, "2024-01-03"], r"^y: expected an index without gaps, got NaT"),
    ],
)  # fmt: skip
def test_dates_out_of_order_twice_or_with_gaps_are_refused(rows: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_series("y", pd.Series(np.arange(len(rows)), pd.DatetimeIndex(rows)))


def test_other_indices_are_refused() -> None:
    with pytest.raises(TypeError, match=r"^y: expected an index of dates, or of whole numbers"):
        check_series("y", pd.Series([1.0, 2], ["a", "b"]))
    with pytest.raises(TypeError, match=r"^y: expected an index of dates"):
        check_series("y", pd.Series([1.0, 2], [0.5, 1.5]))
    index = pd.MultiIndex.from_product([[1, 2], [3, 4]])
    with pytest.raises(TypeError, match=r"^y: expected an index of dates"):
        check_series("y", pd.Series([1.0, 2, 3, 4], index))
    with pytest.raises(ValueError, match=r"^y: expected an index of even steps, got 3 after 1, in"):
        check_series("y", pd.Series([1.0, 2, 3], [0, 1, 3]))


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ([1.0, np.nan, 3.0], ValueError, r"^y: expected finite numbers, got nan in row 1; fill"),
        ([[1.0, 2.0], [3.0, np.inf]], ValueError, r"got inf in row 1, column 1"),
        (np.array([1, 2], object), TypeError, r"^y: expected numbers, got an array of object"),
        (np.array(["1", "2"]), TypeError, r"^y: expected numbers, got an array of <U1"),
        (np.array([1j]), TypeError, r"^y: expected numbers, got an array of complex128"),
        ("12", TypeError, r"^y: expected an array of numbers, got '12'"),
        (None, TypeError, r"^y: expected an array of numbers, got None"),
        (np.ma.array([1.0], mask=[True]), TypeError, r"^y: expected an array, got a masked one"),
        ([[1.0, 2.0], [3.0]], ValueError, r"^y: expected an array of numbers"),
        (np.ones((2, 3, 4)), ValueError, r"^y: expected shape \(N,\) or \(N, D\), got \(2, 3, 4\)"),
        (np.float64(3), ValueError, r"^y: expected shape"),
        (np.ones((0, 2)), ValueError, r"^y: expected a row and a variable at least"),
        (np.ones((3, 0)), ValueError, r"^y: expected a row and a variable at least"),
        (pd.DataFrame({"a": [1.0], "b": ["x"]}), TypeError, r"^y: expected numbers, .* column 'b'"),
        (pd.DataFrame({"a": [1, 2]}, dtype=object), TypeError, r"got object in column 'a'; leave"),
        (pd.Series(["a"], dtype="category"), TypeError, r"^y: expected numbers, got category"),
        (pd.Series([1, None], dtype="Int64"), ValueError, r"^y: expected finite .* row 1 \(1\)"),
        (pd.DataFrame([[1.0, 2.0]], columns=["a", "a"]), ValueError, r"^y: .* different names"),
        (pd.DataFrame([[1.0]], columns=[("a", 1)]), TypeError, r"^y: .* got \('a', 1\)"),
        (pd.DataFrame(index=range(3)), ValueError, r"^y: expected a row and a variable at least"),
    ],
)
def test_what_is_no_series_of_finite_numbers_is_refused(
    value: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        check_series("y", value)


def test_an_error_names_the_date_and_the_variable() -> None:
    frame = pd.DataFrame(
        {"load": [1.0, 2, 3], "oil": [1, np.nan, 3]}, pd.date_range("2024-01-01", periods=3)
    )
    with pytest.raises(ValueError, match=r"nan in row 1 \(2024-01-02 00:00:00\), column 'oil'"):
        check_series("y", frame)


@pytest.mark.parametrize("dtype", ["float32", "int64", "uint8", "bool", ">f8", "float16"])
def test_numbers_of_any_kind_become_float64(dtype: str) -> None:
    series = check_series("y", np.array([0, 1, 1]).astype(dtype))
    assert series.values.dtype == np.float64
    assert series.values.tolist() == [[0], [1], [1]]


def test_pandas_own_dtypes_are_numbers() -> None:
    frame = pd.DataFrame({
        "a": pd.array([1, 2], dtype="Int64"), "b": pd.array([True, False], dtype="boolean"),
        "c": [1.5, 2.5],
    })  # fmt: skip
    assert check_series("y", frame).values.tolist() == [[1, 1, 1.5], [2, 0, 2.5]]


def test_a_list_of_arrays_is_several_series_and_a_list_of_numbers_one() -> None:
    assert check_many("y", [1, 2, 3])[1] is False
    assert check_many("y", [[1, 2], [3, 4], [5, 6]])[0][0].values.shape == (3, 2)
    several, flag = check_many("y", [np.ones(3), pd.Series(np.ones(5))])
    assert flag is True
    assert [len(one) for one in several] == [3, 5]
    with pytest.raises(ValueError, match=r"^y\[1\]: expected finite"):
        check_many("y", [np.ones(3), np.full(3, np.nan)])


def test_what_comes_back_looks_as_what_went_in() -> None:
    rows = np.arange(4.0).reshape(2, 2)
    assert check_series("y", np.ones(3)).wrap(rows[:, :1]).shape == (2,)
    assert check_series("y", np.ones((3, 2))).wrap(rows).shape == (2, 2)
    dates = pd.date_range("2024-01-01", periods=3, name="day")
    named = check_series("y", pd.Series(np.ones(3), dates, name="load")).wrap(rows[:, :1])
    assert isinstance(named, pd.Series)
    assert named.name == "load"
    assert named.index.equals(pd.date_range("2024-01-04", periods=2))
    frame = check_series("y", pd.DataFrame({"a": [1, 2, 3], "b": [1, 2, 3]}, dates)).wrap(rows)
    pd.testing.assert_frame_equal(
        frame,
        pd.DataFrame(
            {"a": [0.0, 2], "b": [1.0, 3]}, pd.date_range("2024-01-04", periods=2, name="day")
        ),
        check_freq=False,
    )


def test_quantiles_are_columns() -> None:
    dates = pd.date_range("2024-01-01", periods=3)
    frame = check_series("y", pd.DataFrame({"a": [1, 2, 3], "b": [1, 2, 3]}, dates))
    wrapped = frame.wrap_quantiles(np.arange(12.0).reshape(2, 2, 3), (0.1, 0.5, 0.9))
    assert wrapped["b"][0.9].tolist() == [5, 11]
    assert wrapped.shape == (2, 6)
    flat = check_series("y", frame.wrap(np.ones((3, 2)))["a"])
    assert flat.wrap_quantiles(np.ones((2, 1, 3)), (0.1, 0.5, 0.9)).columns.tolist() == [
        0.1, 0.5, 0.9,
    ]  # fmt: skip


def test_the_calendar_is_places_on_circles() -> None:
    index = pd.DatetimeIndex(["2024-01-01 06:00", "2024-01-06 18:00"])  # a Monday, a Saturday
    names = ("hour", "weekend", "day_of_week", "day_of_year")
    features = calendar_features(index, names)
    assert features.shape == (2, calendar_width(names))
    np.testing.assert_allclose(features[:, :3], [[1, 0, 0], [-1, 0, 1]], atol=1e-12)
    angles = 2 * np.pi * np.array([0.25, 5.75]) / 7
    np.testing.assert_allclose(features[:, 3:5], np.stack([np.sin(angles), np.cos(angles)], 1))
    np.testing.assert_allclose(np.hypot(features[:, 5], features[:, 6]), 1)
    periods = pd.period_range("2024-01-01 06:00", periods=1, freq="h")
    np.testing.assert_allclose(calendar_features(periods, names), features[:1])


@pytest.mark.parametrize(
    "change",
    [
        {"last": "yesterday"}, {"last": 3}, {"last": "9999999-01-01T00:00:00"}, {"freq": "x" * 99},
        {"freq": "ZZ"}, {"freq": ""}, {"freq": "999999YE"}, {"zone": "../../etc/passwd"},
        {"zone": "Nowhere/At_All"}, {"zone": 3}, {"unit": "year"}, {"kind": "stars"},
        {"kind": "numbers"}, {"kind": "periods"}, {"name": []}, {"last": "1677-09-22T00:00:00"},
    ],
    ids=str,
)  # fmt: skip
def test_a_damaged_index_of_a_file_is_refused(change: dict[str, Any]) -> None:
    saved = index_to_json(check_index("y", INDICES["hours"]))
    assert saved is not None
    if change == {"last": "1677-09-22T00:00:00"}:
        change |= {"freq": "YE", "unit": "ns"}
    with pytest.raises((KeyError, TypeError, ValueError)):
        index_from_json(saved | change, 8)


@pytest.mark.parametrize(
    "change", [{"last": 2**70}, {"step": 0}, {"step": 2**60}, {"step": 1.0}, {"last": True}]
)
def test_damaged_numbers_of_a_file_are_refused(change: dict[str, Any]) -> None:
    saved = {"kind": "numbers", "last": 7, "step": 2, "name": None}
    assert index_from_json(saved, 3).tolist() == [3, 5, 7]
    with pytest.raises((KeyError, TypeError, ValueError)):
        index_from_json(saved | change, 3)
