"""Strange arrays, and the checks that every array argument has to pass.

Any layout is taken, anything wrong is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

from tests.support import Array, assert_same_bits


@dataclass(frozen=True)
class Argument:
    """One place for an array: its name in errors, an array that fits, and a call that takes it."""

    test_id: str
    name: str
    good: Array
    call: Callable[[Any], list[Array]]
    optional: bool = False  # None is allowed
    free_axes: tuple[int, ...] = ()  # may have any length
    free_ranks: tuple[int, ...] = ()  # are allowed beside the rank of `good`
    leading: dict[int, str] = field(default_factory=dict)  # axes after which others misfit: these

    def __str__(self) -> str:
        return self.test_id


# --- layouts -------------------------------------------------------------------------------------
# Each function returns an array in a strange layout, with values of the array it is given.


def fortran_order(array: Array, _folder: Path) -> Array:
    return np.asfortranarray(array)


def every_second(array: Array, _folder: Path) -> Array:
    spread = np.full([2 * size for size in array.shape], 77, array.dtype)
    view = spread[(slice(None, None, 2),) * array.ndim]
    view[...] = array
    return view


def reversed_first_axis(array: Array, _folder: Path) -> Array:
    return np.ascontiguousarray(array[::-1])[::-1]


def negative_strides(array: Array, _folder: Path) -> Array:
    back = (slice(None, None, -1),) * array.ndim
    return np.ascontiguousarray(array[back])[back]


def transposed(array: Array, _folder: Path) -> Array:
    swapped = array.swapaxes(0, -1) if array.ndim < 3 else array.transpose(1, 2, 0)
    back = swapped.copy()
    return back.swapaxes(0, -1) if array.ndim < 3 else back.transpose(2, 0, 1)


def broadcast_first_axis(array: Array, _folder: Path) -> Array:
    return np.broadcast_to(array[:1], array.shape)


def broadcast_scalar(array: Array, _folder: Path) -> Array:
    return np.broadcast_to(array.ravel()[0], array.shape)


def overlapping(array: Array, _folder: Path) -> Array:
    """Neighbours along every axis share memory: all strides are one element."""
    flat = np.resize(array, sum(array.shape))
    return as_strided(flat, array.shape, (array.itemsize,) * array.ndim)


def read_only(array: Array, _folder: Path) -> Array:
    copy = array.copy()
    copy.flags.writeable = False
    return copy


def memory_map(array: Array, folder: Path) -> Array:
    path = folder / "array.npy"
    np.save(path, array)
    return np.load(path, mmap_mode="r")


def misaligned(array: Array, _folder: Path) -> Array:
    buffer = bytearray(array.nbytes + 1)
    view = np.frombuffer(buffer, array.dtype, offset=1).reshape(array.shape)
    view[...] = array
    return view


def misaligned_and_strided(array: Array, _folder: Path) -> Array:
    fields = np.zeros(array.shape, np.dtype([("pad", "u1"), ("value", array.dtype)]))
    fields["value"] = array
    return fields["value"]


class Labelled(np.ndarray[Any, Any]):
    """A harmless subclass, as many libraries have one."""


def subclass(array: Array, _folder: Path) -> Array:
    return array.copy().view(Labelled)


LAYOUTS = [
    fortran_order, every_second, reversed_first_axis, negative_strides, transposed,
    broadcast_first_axis, broadcast_scalar, overlapping, read_only, memory_map, misaligned,
    misaligned_and_strided, subclass,
]  # fmt: skip


# --- checks -------------------------------------------------------------------------------------


def assert_refused(argument: Argument, bad: Any, *came: str) -> None:
    """The call raises an error that names the argument and says what came."""
    before = bad.copy() if isinstance(bad, np.ndarray) else None
    with pytest.raises((TypeError, ValueError)) as caught:
        argument.call(bad)
    message = str(caught.value)
    assert message.startswith(argument.name), message
    for words in came:
        assert words in message.partition("got")[2], message
    if before is not None:
        assert bad.tobytes() == before.tobytes(), "the input was modified"


OTHER_DTYPES = [
    "float16", "longdouble", "complex64", "complex128", "bool", "object", "U1", "S4", "M8[s]",
    "m8[s]",
]  # fmt: skip


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
