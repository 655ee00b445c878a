"""The one validator: everything that a caller hands in is checked here, and nowhere below.

Each function takes the argument's name first, so that an error can name it, and returns what was
handed in, in the form that the floors below trust. A dtype is never changed silently; any memory
layout is taken. All checks of sizes come before the first copy.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Shape = tuple[int | str, ...]

# BLAS in SciPy's wheels counts in 32-bit integers. Every extent that reaches it stays below this.
LARGEST_EXTENT = 2**31 - 2


def check_size(name: str, value: object, *, least: int = 1, most: int | None = None) -> int:
    """Return a whole number from `least` to `most`, by default what a BLAS integer can hold."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected a whole number, got {value!r}")
    try:
        size = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name}: expected a whole number, got {_describe(value)}") from None
    if size < least:
        raise ValueError(f"{name}: expected a whole number >= {least}, got {size}")
    if most is None:
        return check_extent(name, size)
    if size > most:
        raise ValueError(f"{name}: expected a whole number <= {most}, got {size}")
    return size


def check_extent(name: str, *factors: int) -> int:
    """Return the product of sizes, refused where it would overflow 32 bits."""
    extent = math.prod(factors)
    if extent > LARGEST_EXTENT:
        terms = " * ".join(str(factor) for factor in factors)
        product = f"{terms} = {extent}" if len(factors) > 1 else str(extent)
        raise ValueError(
            f"{name}: {product} exceeds {LARGEST_EXTENT}, the most that BLAS can count"
        )
    return extent


def check_number(
    name: str,
    value: object,
    *,
    least: float = -math.inf,
    below: float = math.inf,
    most: float = math.inf,
    above: float = -math.inf,
) -> float:
    """Return a finite real number in the range given."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(
        value, (int, float, np.integer, np.floating)
    ):
        raise TypeError(f"{name}: expected a number, got {_describe(value)}")
    try:
        number = float(value)
    except OverflowError:  # an int beyond all floats
        number = math.inf if value > 0 else -math.inf
    in_range = least <= number <= most and above < number < below
    if not (math.isfinite(number) and in_range):
        bounds = [
            f"{sign} {bound:g}"
            for sign, bound in ((">=", least), (">", above), ("<=", most), ("<", below))
            if math.isfinite(bound)
        ]
        expected = f"a finite number {' and '.join(bounds)}".rstrip()
        raise ValueError(f"{name}: expected {expected}, got {number}")
    return number


def check_rate(name: str, value: object) -> float:
    """Return a learning rate: a finite number >= 0."""
    return check_number(name, value, least=0.0)


def check_quantiles(name: str, value: object) -> Array:
    """Return ascending quantiles between 0 and 1 as float64 (Q,), from a sequence of numbers."""
    if isinstance(value, (str, bytes)) or not isinstance(value, (Sequence, np.ndarray)):
        raise TypeError(f"{name}: expected a sequence of numbers, got {_describe(value)}")
    if not len(value):
        raise ValueError(f"{name}: expected one at least, got none")
    levels = [check_number(f"{name}[{k}]", q, above=0, below=1) for k, q in enumerate(value)]
    if sorted(set(levels)) != levels:
        raise ValueError(f"{name}: expected them ascending, got {tuple(levels)}")
    return np.array(levels)


def check_flag(name: str, value: object) -> bool:
    """Return a bool; numbers and strings are refused."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected True or False, got {_describe(value)}")
    return bool(value)


def check_choice(name: str, value: object, choices: Collection[str]) -> str:
    """Return one of some strings; anything else is a ValueError that lists them."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {value!r:.80}")
    return value


def check_dtype(name: str, value: Any) -> np.dtype[Any]:
    """Return numpy.dtype float32 or float64 in native byte order."""
    try:
        dtype: np.dtype[Any] = np.dtype(value)
    except TypeError:
        raise TypeError(f"{name}: expected float32 or float64, got {value!r}") from None
    if value is None or dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise TypeError(f"{name}: expected float32 or float64, got {value!r}")
    return dtype


def check_generator(name: str, value: object) -> np.random.Generator:
    """Return a generator from a seed, a generator, or None (fresh entropy)."""
    if isinstance(value, np.random.Generator):
        return value
    if value is None:
        return np.random.default_rng()
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(
            f"{name}: expected a numpy.random.Generator, a seed or None, got {_describe(value)}"
        )
    if value < 0:
        raise ValueError(f"{name}: expected a seed >= 0, got {value}")
    return np.random.default_rng(value)


def check_given_generator(name: str, value: object) -> np.random.Generator | None:
    """Return a generator or None, where a seed would draw the same numbers at every call."""
    if value is not None and not isinstance(value, np.random.Generator):
        raise TypeError(
            f"{name}: expected a numpy.random.Generator or None, got {_describe(value)}"
        )
    return value


def check_array(name: str, value: object, dtype: np.dtype[Any], shape: Shape) -> Array:
    """Return an array of this dtype and shape, in any memory layout.

    `shape` holds sizes, and strings for axes of any length (the strings name them in the error).
    A first "..." stands for any number of axes.
    """
    array = value if type(value) is np.ndarray else _plain_array(name, value, "of", dtype)
    if array.dtype != dtype:
        raise TypeError(f"{name}: expected an array of {dtype}, got {_dtype_name(array)}")
    return check_shape(name, array, shape)


def check_output(name: str, value: object, dtype: np.dtype[Any], shape: Shape) -> Array:
    """Return an array that can be written in place: of this dtype and shape, and C-contiguous."""
    array = check_array(name, value, dtype, shape)
    flags = array.flags
    if not (flags.c_contiguous and flags.aligned and flags.writeable):
        lacks = "read-only" if not flags.writeable else "another layout"
        raise ValueError(f"{name}: expected a C-contiguous, aligned, writable array, got {lacks}")
    return array


def check_floats(name: str, value: object, shape: Shape) -> Array:
    """Return an array of float32 or float64 (in native byte order) of this shape."""
    array = _plain_array(name, value, "of float32 or float64")
    if array.dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise TypeError(
            f"{name}: expected an array of float32 or float64, got {_dtype_name(array)}"
        )
    return check_shape(name, array, shape)


def check_integers(
    name: str, value: object, shape: Shape, *, least: int, most: int, also: int | None = None
) -> Array:
    """Return an int64 array of values in [least, most], from an array of any integer dtype.

    `also` is one value more that is taken, such as an index to ignore. Raises IndexError for any
    other value.
    """
    array = _plain_array(name, value, "of integers")
    if array.dtype.kind not in "iu" or not array.dtype.isnative:
        raise TypeError(f"{name}: expected an array of integers, got {_dtype_name(array)}")
    check_shape(name, array, shape)
    check_extent(f"{name}, its elements", *array.shape)
    bounded = array if also is None else array[array != also]
    if bounded.size:
        low, high = int(bounded.min()), int(bounded.max())
        if low < least or high > most:
            culprit = low if low < least else high
            expected = f"values from {least} to {most}" + ("" if also is None else f" or {also}")
            raise IndexError(f"{name}: expected {expected}, got {culprit}")
    return array.astype(np.int64, copy=False)


def check_lengths(value: object, batch: int, steps: int) -> Array:
    """Return int64 lengths (batch,), each from 0 to `steps`."""
    try:
        return check_integers("lengths", value, (batch,), least=0, most=steps)
    except IndexError as error:
        raise ValueError(str(error)) from None


def check_shape(name: str, array: Array, shape: Shape) -> Array:
    """Return the array if its shape is this one.

    A string stands for any length, and a first "..." for any number of axes.
    """
    axes, sizes = shape, array.shape
    if axes and axes[0] == "...":
        axes = axes[1:]
        sizes = sizes[max(0, len(sizes) - len(axes)) :]
    fits = len(axes) == len(sizes)
    if fits and axes != sizes:
        for k, expected in enumerate(axes):  # no generator: this is a part of every call's time
            if type(expected) is not str and expected != sizes[k]:
                fits = False
    if not fits:
        expected = _shape_name(shape)
        raise ValueError(f"{name}: expected shape {expected}, got {_shape_name(array.shape)}")
    return array


def check_pair(name: str, value: object, what: str = "(h, c) of arrays") -> tuple[object, object]:
    """Return the two members of a tuple or list of two, such as (h, c)."""
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"{name}: expected a pair {what}, got {_describe(value)}")
    if len(value) != 2:
        raise ValueError(f"{name}: expected a pair {what}, got {len(value)} items")
    return value[0], value[1]


def check_names(name: str, value: object, expected: Collection[str]) -> Mapping[str, object]:
    """Return a mapping that has exactly these keys."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name}: expected a dict, got {_describe(value)}")
    missing = [key for key in expected if key not in value]
    unknown = [str(key) for key in value if key not in expected]
    if missing or unknown:
        raise ValueError(f"{name}: missing {missing}, unexpected {unknown}")
    return value


def compact(array: Array) -> Array:
    """Return the array C-contiguous and aligned, copied only if it must be."""
    flags = array.flags
    return array if flags.c_contiguous and flags.aligned else np.require(array, None, ["C", "A"])


def _plain_array(name: str, value: object, *what: object) -> Array:
    # `what` is put together only for an error: the name of a dtype takes NumPy microseconds.
    if type(value) is np.ndarray:
        return value
    expected = f"{name}: expected a numpy.ndarray {' '.join(map(str, what))}"
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{expected}, got a masked array (fill it first)")
    if isinstance(value, np.matrix):
        raise TypeError(f"{expected}, got a numpy.matrix")
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{expected}, got {_describe(value)}")
    return np.asarray(value)


def _describe(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} of shape {_shape_name(value.shape)}"
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    return f"a {type(value).__name__}"


def _dtype_name(array: Array) -> str:
    return str(array.dtype) if array.dtype.isnative else f"{array.dtype.str} (foreign byte order)"


def _shape_name(shape: Shape) -> str:
    comma = "," if len(shape) == 1 else ""
    return f"({', '.join(str(size) for size in shape)}{comma})"
