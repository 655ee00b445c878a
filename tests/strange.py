"""Checks that every array argument has to pass: any layout is taken, anything wrong is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.support import Array, assert_same_bits
from tests.test_arrays import LAYOUTS, OTHER_DTYPES, Argument, assert_refused


def assert_takes_any_layout(argument: Argument, folder: Path) -> None:
    """Each layout gives the bits of a compact copy, and is not modified."""
    for layout in LAYOUTS:
        strange = layout(argument.good, folder)
        before = np.array(strange, order="C", subok=False)
        results, expected = argument.call(strange), argument.call(before.copy())
        for k, (result, wanted) in enumerate(zip(results, expected, strict=True)):
            assert_same_bits(result, wanted, f"result {k} of {layout.__name__}")
            assert type(result) is np.ndarray
            assert not np.shares_memory(result, strange)
        assert_same_bits(np.array(strange, subok=False), before, f"{layout.__name__} afterwards")


def other_float(dtype: np.dtype[Any]) -> str:
    return "float64" if dtype == np.float32 else "float32"


def assert_refuses_what_is_no_such_array(argument: Argument, *, any_float: bool = False) -> None:
    """Other dtypes, byte orders, subclasses and types raise, and the error names the argument.

    `any_float`: the argument settles the dtype, so that both of float32 and float64 are right.
    """
    good = argument.good
    for dtype in OTHER_DTYPES:
        bad = np.ones(good.shape).astype("int64").astype(dtype)
        assert_refused(argument, bad, str(bad.dtype))
    if good.dtype.kind == "i":
        others = ["float32", "float64"]
    else:
        others = ["int8", "int64", "uint32"] + ([] if any_float else [other_float(good.dtype)])
    for kind in others:
        assert_refused(argument, np.ones(good.shape, kind), kind)
    assert_refused(argument, good.astype(good.dtype.newbyteorder()), "byte order")
    assert_refused(argument, np.zeros(good.shape, [("value", good.dtype)]), "value")
    assert_refused(argument, np.ma.masked_array(good), "masked array")
    things: list[tuple[Any, str]] = [
        (good.tolist(), "list"),
        ("array", "'array'"),
        (memoryview(good), "memoryview"),
    ]
    if not argument.optional:
        things.append((None, "None"))
    for thing, what in things:
        assert_refused(argument, thing, what)


def assert_refuses_shapes(argument: Argument, *shapes: tuple[int, ...]) -> None:
    for shape in shapes:
        assert_refused(argument, np.ones(shape, argument.good.dtype), str(shape))


def spoil(*arrays: Array) -> None:
    """Overwrite what a tape must not see any more."""
    for array in arrays:
        array[...] = 0 if array.dtype.kind == "i" else np.nan
