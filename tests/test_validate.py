"""The validator: scalars, lengths, sizes beyond 32 bits, and garbage at every entry point.

Arrays and their layouts have a file of their own, test_arrays.py.
"""

from __future__ import annotations

import copy
import json
import math
import random
import sys
import warnings
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlstm import LSTM, Parameters, set_num_threads
from fastlstm._validate import (
    LARGEST_EXTENT,
    check_array,
    check_choice,
    check_dtype,
    check_extent,
    check_flag,
    check_generator,
    check_integers,
    check_lengths,
    check_number,
    check_pair,
    check_size,
    compact,
)
from tests.processes import run_python
from tests.support import assert_same_bits

NAN, INF = float("nan"), float("inf")
# Whole numbers that no float holds.
BEYOND = [pytest.param(10**400, id="1e400"), pytest.param(-(10**400), id="-1e400")]


class Index:
    """A whole number by its __index__, as sizes in other libraries are."""

    def __index__(self) -> int:
        return 3


# --- the checks, one by one ----------------------------------------------------------------------


@pytest.mark.parametrize("value", [3, np.int8(3), np.uint64(3), np.array(3), Index()])
def test_check_size_returns_a_plain_int(value: object) -> None:
    size = check_size("size", value)
    assert (size, type(size)) == (3, int)


@pytest.mark.parametrize(
    "value", [True, np.True_, 1.0, np.float64(1), "1", None, [1], 1j, NAN, Fraction(1), np.ones(1)]
)
def test_check_size_refuses_what_is_no_whole_number(value: object) -> None:
    with pytest.raises(TypeError, match=r"^size: expected a whole number, got .+"):
        check_size("size", value)


@given(st.integers())
def test_check_size_takes_exactly_what_blas_can_count(value: int) -> None:
    if 1 <= value <= LARGEST_EXTENT:
        assert check_size("size", value) == value
    else:
        with pytest.raises(ValueError, match=r"^size: .*" + str(value)):
            check_size("size", value)


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=4))
def test_check_extent_takes_exactly_the_products_that_fit(factors: list[int]) -> None:
    product = math.prod(factors)  # of Python's integers: it cannot overflow
    if product <= LARGEST_EXTENT:
        assert check_extent("rows", *factors) == product
    else:
        with pytest.raises(ValueError, match=r"^rows: .*" + str(product)):
            check_extent("rows", *factors)


@pytest.mark.parametrize("value", [0, 1, 0.5, np.float32(0.5), np.int64(1), -0.0])
def test_check_number_returns_a_plain_float(value: Any) -> None:
    number = check_number("p", value, least=0, most=1)
    assert (number, type(number)) == (float(value), float)


@pytest.mark.parametrize("value", [True, "0.1", None, [0.1], 1j, Decimal(0), np.zeros(())])
def test_check_number_refuses_what_is_no_number(value: object) -> None:
    with pytest.raises(TypeError, match=r"^p: expected a number, got .+"):
        check_number("p", value)


@pytest.mark.parametrize("value", [NAN, INF, -INF, np.float32("nan"), *BEYOND])
def test_check_number_refuses_what_is_not_finite(value: float) -> None:
    with pytest.raises(ValueError, match=r"^p: expected a finite number"):
        check_number("p", value)


def test_check_number_tells_its_open_and_its_closed_bounds() -> None:
    assert check_number("p", 0, least=0, below=1) == 0
    for value in (-5e-324, 1):
        with pytest.raises(ValueError, match=r"^p: .*>= 0 and < 1, got"):
            check_number("p", value, least=0, below=1)
    assert check_number("p", 1, above=0, most=1) == 1
    for value in (0, math.nextafter(1, 2)):
        with pytest.raises(ValueError, match=r"^p: .*> 0 and <= 1, got"):
            check_number("p", value, above=0, most=1)


@pytest.mark.parametrize("value", [True, False, np.True_, np.False_])
def test_check_flag_returns_a_plain_bool(value: object) -> None:
    assert check_flag("bias", value) is bool(value)


@pytest.mark.parametrize("value", [0, 1, None, "True", "", np.int8(1), np.array(True), []])
def test_check_flag_refuses_what_is_only_truthy(value: object) -> None:
    with pytest.raises(TypeError, match=r"^bias: expected True or False, got .+"):
        check_flag("bias", value)


def test_check_choice_returns_one_of_the_choices() -> None:
    assert check_choice("cell", "rnn", ("lstm", "rnn")) == "rnn"


@pytest.mark.parametrize("value", ["gru", "", "LSTM", None, 1, ["rnn"], np.array(["rnn", "lstm"])])
def test_check_choice_refuses_what_is_none_of_them(value: object) -> None:
    with pytest.raises(ValueError, match=r"^cell: expected one of lstm, rnn, got "):
        check_choice("cell", value, ("lstm", "rnn"))


@pytest.mark.parametrize("value", [np.float32, "float32", "f4", "=f", np.dtype("f"), np.single])
def test_check_dtype_knows_float32_by_all_its_names(value: Any) -> None:
    assert check_dtype("dtype", value) == np.float32


@pytest.mark.parametrize("value", [np.float64, "d", float, np.dtype("float64"), "double"])
def test_check_dtype_knows_float64_by_all_its_names(value: Any) -> None:
    assert check_dtype("dtype", value) == np.float64


FOREIGN = np.dtype(np.float32).newbyteorder()


@pytest.mark.parametrize(
    "value",
    [
        None, int, "float16", np.float16, np.longdouble, np.complex64, bool, object, "U3", FOREIGN,
        FOREIGN.str, [("a", "f4")], "f4,f4", (np.float32, 2), "nonsense", 32, np.zeros(3), "",
        "(2,)f4",
    ],
    ids=repr,
)  # fmt: skip
def test_check_dtype_refuses_every_other(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^dtype: expected float32 or float64, got .+"):
        check_dtype("dtype", value)


def test_check_generator_draws_the_same_from_the_same_seed() -> None:
    draws = [check_generator("rng", seed).random() for seed in (7, np.uint8(7), 2**200, 2**200)]
    assert draws[0] == draws[1]
    assert draws[2] == draws[3]
    generator = np.random.default_rng(7)
    assert check_generator("rng", generator) is generator
    assert check_generator("rng", None).random() != check_generator("rng", None).random()


@pytest.mark.parametrize(
    "value",
    [True, 1.0, "1", [1], np.random.RandomState(0), np.random, np.random.PCG64(1)],
    ids=lambda value: type(value).__name__,
)
def test_check_generator_refuses_what_is_neither_generator_nor_seed(value: object) -> None:
    with pytest.raises(TypeError, match=r"^rng: expected a numpy.random.Generator, a seed or None"):
        check_generator("rng", value)
    with pytest.raises(ValueError, match=r"^rng: expected a seed >= 0, got -1"):
        check_generator("rng", -1)


def test_check_array_returns_the_array_itself_uncopied() -> None:
    array = np.zeros((2, 3), np.float32)
    checked = check_array("x", array, array.dtype, ("T", 3))
    assert np.shares_memory(checked, array)
    assert type(check_array("x", array.view(np.recarray), array.dtype, (2, 3))) is np.ndarray


def test_check_array_tells_the_shape_it_wants_with_the_names_of_free_axes() -> None:
    with pytest.raises(ValueError, match=r"^x: expected shape \(T, B, 3\), got \(2,\)$"):
        check_array("x", np.zeros(2), np.dtype(float), ("T", "B", 3))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint32, np.int64, np.uint64])
def test_check_integers_takes_any_integer_dtype(dtype: type) -> None:
    checked = check_integers("ids", np.array([0, 7], dtype), ("N",), least=0, most=7)
    assert checked.dtype == np.int64
    assert checked.tolist() == [0, 7]


@pytest.mark.parametrize("culprit", [-1, 8, 2**31, 2**63 - 1, -(2**63)])
def test_check_integers_names_the_value_out_of_range(culprit: int) -> None:
    with pytest.raises(IndexError, match=rf"^ids: expected values from 0 to 7, got {culprit}$"):
        check_integers("ids", np.array([3, culprit, 4]), ("N",), least=0, most=7)


def test_check_integers_does_not_wrap_what_only_uint64_holds() -> None:
    with pytest.raises(IndexError, match=str(2**64 - 1)):
        check_integers("ids", np.array([2**64 - 1], np.uint64), ("N",), least=0, most=7)


def test_check_pair_returns_the_two_of_a_tuple_or_a_list() -> None:
    assert check_pair("state", (1, 2)) == check_pair("state", [1, 2]) == (1, 2)


def test_compact_copies_only_what_is_not_compact() -> None:
    array = np.arange(12.0).reshape(3, 4)
    assert compact(array) is array
    misaligned = np.frombuffer(b"?" + array.tobytes(), offset=1).reshape(3, 4)
    broadcast = np.broadcast_to(array[0], (3, 4))
    for strange in (array.T, array[::-1], array[:, ::2], broadcast, misaligned):
        copied = compact(strange)
        assert copied.flags.c_contiguous
        assert copied.flags.aligned
        assert_same_bits(copied, strange)


# --- lengths -------------------------------------------------------------------------------------

BAD_LENGTHS: list[tuple[Any, type[Exception], str]] = [
    ([2, 1], TypeError, "a list"),
    ((2, 1), TypeError, "a tuple"),
    (2, TypeError, "got 2"),
    ("21", TypeError, "'21'"),
    (np.array([2.0, 1.0]), TypeError, "float64"),
    (np.array([NAN, 1.0]), TypeError, "float64"),
    (np.array([True, True]), TypeError, "bool"),
    (np.array(["2", "1"]), TypeError, "<U1"),
    (np.array([2, 1], object), TypeError, "object"),
    (np.array([2, 1], np.dtype(np.int64).newbyteorder()), TypeError, "byte order"),
    (np.array([2, 1], "m8[s]"), TypeError, "timedelta64"),
    (np.ma.masked_array([2, 1]), TypeError, "masked"),
    (np.array([2, -1]), ValueError, "got -1"),
    (np.array([2, 6]), ValueError, "from 0 to 5, got 6"),
    (np.array([2, 255], np.uint8), ValueError, "got 255"),
    (np.array([2, 2**31 + 1]), ValueError, f"got {2**31 + 1}"),
    (np.array([2, 2**32 + 1]), ValueError, f"got {2**32 + 1}"),  # 1 in 32 bits
    (np.array([2, 2**63], np.uint64), ValueError, f"got {2**63}"),
    (np.array(2), ValueError, "(2,), got ()"),
    (np.array([2]), ValueError, "(2,), got (1,)"),
    (np.array([2, 1, 1]), ValueError, "(2,), got (3,)"),
    (np.array([[2, 1]]), ValueError, "(2,), got (1, 2)"),
    (np.empty(0, np.int64), ValueError, "(2,), got (0,)"),
]


@pytest.mark.parametrize(("lengths", "error", "came"), BAD_LENGTHS)
def test_bad_lengths_are_refused_by_call_and_by_forward(
    lengths: Any, error: type[Exception], came: str
) -> None:
    lstm, x = LSTM(3, 2, rng=0), np.ones((5, 2, 3), np.float32)
    for entry in (lstm, lstm.forward):
        with pytest.raises(error) as caught:
            entry(x, lengths=lengths)
        assert str(caught.value).startswith("lengths: expected")
        assert came in str(caught.value)
    with pytest.raises(error, match=r"^lengths"):
        check_lengths(lengths, batch=2, steps=5)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint64, np.intp])
def test_lengths_of_any_integer_dtype_mean_the_same(dtype: type) -> None:
    lstm, x = LSTM(3, 2, rng=0), np.ones((5, 2, 3), np.float32)
    lengths = np.array([1, 4], dtype)
    lengths.flags.writeable = False
    expected = lstm(x, lengths=np.array([1, 4]))[0]
    assert_same_bits(lstm(x, lengths=lengths)[0], expected)


def test_a_single_sequence_takes_its_length_as_a_number() -> None:
    lstm, x = LSTM(3, 2, rng=0), np.ones((5, 3), np.float32)
    expected = lstm(x, lengths=np.array([2]))[0]
    for length in (2, np.int8(2), np.uint64(2)):
        assert_same_bits(lstm(x, lengths=length)[0], expected)
    for length in (True, np.True_, 2.0, "2", 2 + 0j, [2]):
        with pytest.raises(TypeError, match=r"^lengths: expected"):
            lstm(x, lengths=length)  # type: ignore[arg-type]
    for length in (-1, 6, 2**31, 2**63, -(2**63) - 1, 10**30):
        with pytest.raises((TypeError, ValueError), match=r"^lengths: expected"):
            lstm(x, lengths=length)


# --- scalars of the constructor ------------------------------------------------------------------

SIZES = ["input_size", "hidden_size", "num_layers"]
FLAGS = ["bias", "batch_first", "bidirectional"]


def build(**options: Any) -> LSTM:
    return LSTM(**({"input_size": 2, "hidden_size": 2, "num_layers": 2} | options))


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize(
    "value", [0, -1, -49, -(2**31), -(2**63), 2**31, 2**32 + 1, 2**63, 2**64 + 1, 10**30]
)
def test_sizes_out_of_range_are_refused(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: .*{value}"):
        build(**{name: value})


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("value", [True, 1.0, "1", None, NAN, [2], (2,), 2j, np.ones(2, int)])
def test_sizes_that_are_no_whole_numbers_are_refused(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=rf"^{name}: expected a whole number, got"):
        build(**{name: value})


@pytest.mark.parametrize("name", SIZES)
def test_numpy_integers_are_sizes_and_kept_as_plain_ints(name: str) -> None:
    lstm = build(**{name: np.uint8(3)})
    assert (getattr(lstm, name), type(getattr(lstm, name))) == (3, int)


@pytest.mark.parametrize("value", [-0.1, 1.1, -1e-300, 1 + 1e-15, NAN, INF, -INF, 2, *BEYOND])
def test_dropout_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"^dropout: expected a finite number.* >= 0 .*<= 1, got"):
        build(dropout=value)


@pytest.mark.parametrize("value", [True, "0.1", None, [0.1], 0.1j, Decimal("0.1"), np.zeros(1)])
def test_dropout_that_is_no_number_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^dropout: expected a number, got"):
        build(dropout=value)


@pytest.mark.parametrize("value", [0, 1, 0.0, 1.0, np.float32(0.5), np.float16(0.5)])
def test_dropout_from_zero_to_one_is_taken(value: float) -> None:
    assert build(dropout=value).dropout == float(value)


@pytest.mark.parametrize("name", FLAGS)
@pytest.mark.parametrize("value", [0, 1, None, "yes", 1.0, []])
def test_flags_must_be_flags(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=rf"^{name}: expected True or False, got"):
        build(**{name: value})


@pytest.mark.parametrize("value", [np.float16, int, None, "f2", np.complex64, FOREIGN, object])
def test_other_dtypes_are_refused(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^dtype: expected float32 or float64, got"):
        build(dtype=value)


@pytest.mark.parametrize("value", [1.5, "seed", np.random.RandomState(0), [1], True])
def test_what_is_no_generator_is_refused_as_rng(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^rng: expected a numpy.random.Generator"):
        build(rng=value)
    with pytest.raises(TypeError, match=r"^rng: expected a numpy.random.Generator"):
        build().forward(np.ones((1, 1, 2), np.float32), rng=value)


def test_options_are_keyword_only_and_unknown_ones_refused() -> None:
    with pytest.raises(TypeError, match="positional"):
        LSTM(2, 2, 1, True)  # type: ignore[misc]
    with pytest.raises(TypeError, match="units"):
        LSTM(2, 2, 1, units=1)  # type: ignore[call-arg]


@pytest.mark.parametrize("value", [None, [], "abc", 5, {"weight_ih_l0"}, [("weight_ih_l0", 1)]])
def test_a_state_dict_must_be_a_mapping(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^state_dict: expected a dict, got"):
        build().load_state_dict(value)


def test_a_state_dict_must_have_exactly_the_parameters_names() -> None:
    lstm = build()
    weights = lstm.state_dict()
    wrong: list[dict[Any, Any]] = [
        {},
        weights | {"weight_ih_l2": weights["weight_ih_l0"]},
        {name: array for name, array in weights.items() if name != "bias_hh_l1"},
        {name.upper(): array for name, array in weights.items()},
        weights | {3: weights["weight_ih_l0"]},
        weights | {None: None},
    ]
    for state_dict in wrong:
        with pytest.raises(ValueError, match=r"^state_dict: missing \[.*\], unexpected \["):
            lstm.load_state_dict(state_dict)


# --- sizes beyond 32 bits ------------------------------------------------------------------------

# Each line is refused before anything of its size is allocated or looped over. `wide(shape)` is an
# array of that shape that takes no memory.
HUGE = [
    "LSTM(2**30, 1)",
    "LSTM(1, 2**30)",
    "LSTM(1, 2**20)",
    "LSTM(2**20, 2**12)",
    "LSTM(1, 2**29 - 1)",
    "LSTM(1, 1, 2**30)",
    "LSTM(1, 2**10, 2**20, bidirectional=True)",
    "LSTM(2**31 - 2, 2**31 - 2, 2**31 - 2)",
    "lstm(wide(2**31, 1, 3))",
    "lstm(wide(1, 2**31, 3))",
    "lstm(wide(2**16, 2**16, 3))",
    "lstm(wide(2**32, 2**28, 3))",
    "lstm(wide(2**31, 3))",
    "lstm(wide(2**40, 3))",
    "lstm(wide(0, 2**40, 3))",
    "lstm(wide(5, 2, 2**40))",
    "lstm.forward(wide(2**31, 1, 3))",
    "lstm.forward(wide(2**16, 2**16, 3))",
    "lstm(x, (wide(2**40, 2, 4), wide(1, 2, 4)))",
    "lstm(x, (wide(1, 2, 4), wide(1, 2**40, 4)))",
    "lstm(x, lengths=np.broadcast_to(np.int64(1), (2**40,)))",
    "lstm.backward(tape, wide(2**31, 2, 4))",
    "lstm.backward(tape, wide(5, 2**40, 4))",
    "lstm.backward(tape, None, (wide(1, 2**40, 4), None))",
    "lstm.backward(tape, None, (None, wide(2**40, 2, 4)))",
    "lstm.load_state_dict(lstm.state_dict() | {'weight_ih_l0': wide(2**31, 3)})",
    "lstm.load_state_dict(lstm.state_dict() | {'bias_ih_l0': wide(2**40)})",
    "from_gates(W_f=wide(2**20, 2**21))",
    "from_gates(W_f=wide(1, 2**40))",
    "from_gates(b_C=wide(2**40))",
    "set_num_threads(2**31)",
    "set_num_threads(2**31 - 2)",
]  # fmt: skip

# Tries them one by one where memory is short and patience too.
TRY_HUGE = """
import json, resource, signal, sys, tracemalloc
import numpy as np
from fastlstm import LSTM, set_num_threads

def wide(*shape):
    return np.broadcast_to(np.float32(0), shape)

def from_gates(**replaced):
    gates = {f"W_{g}": np.ones((2, 5), np.float32) for g in "fiCo"}
    gates |= {f"b_{g}": np.ones(2, np.float32) for g in "fiCo"}
    return LSTM.from_gates(**(gates | replaced))

def give_up(*_):
    raise TimeoutError("took more than two seconds")

lstm, x = LSTM(3, 4, rng=0), np.ones((5, 2, 3), np.float32)
_, _, tape = lstm.forward(x)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 28), resource.RLIM_INFINITY))
signal.signal(signal.SIGALRM, give_up)
outcomes = {}
tracemalloc.start()
for line in json.loads(sys.argv[1]):
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    signal.alarm(2)
    try:
        eval(line)
        outcome = "no error"
    except Exception as error:
        outcome = f"{type(error).__name__}: {error}"
    signal.alarm(0)
    outcomes[line] = outcome, tracemalloc.get_traced_memory()[1] - before
lstm.backward(tape, np.ones((5, 2, 4), np.float32))
print(json.dumps(outcomes))
"""


@pytest.fixture(scope="module")
def huge() -> dict[str, tuple[str, int]]:
    outcomes: dict[str, tuple[str, int]] = json.loads(run_python("-c", TRY_HUGE, json.dumps(HUGE)))
    return outcomes


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory by what /proc says")
@pytest.mark.parametrize("line", HUGE)
def test_sizes_beyond_32_bits_are_refused_before_any_copy(
    line: str, huge: dict[str, tuple[str, int]]
) -> None:
    outcome, allocated = huge[line]
    assert outcome.startswith("ValueError: "), outcome
    assert allocated < 1 << 20, f"{allocated} bytes were allocated"


# --- garbage -------------------------------------------------------------------------------------

ALLOWED = (TypeError, ValueError, RuntimeError, IndexError)


def garbage(rng: random.Random, depth: int = 0) -> Any:
    """Anything at all."""
    shape = tuple(rng.choice([0, 1, 2, 3, 4, 5, 8, 12]) for _ in range(rng.randrange(5)))
    dtype = rng.choice(
        ["f4", "f4", "f4", "f4", "f8", "f2", ">f4", "i1", "i8", "u8", "?", "c8", "O", "U2", "M8[D]"]
    )
    draw = rng.randrange(14)
    if draw < 7:
        whole = np.random.default_rng(rng.randrange(99)).integers(-3, 9, shape)
        array = np.asarray(whole).astype(dtype)
        if rng.random() < 0.2 and array.dtype.kind == "f" and array.size:
            array.flat[0] = rng.choice([NAN, INF, -INF, 1e38])
        return array[(..., *(slice(None, None, rng.choice([-1, 1, 2])),) * array.ndim)]
    if draw == 7 and depth < 2:
        return tuple(garbage(rng, depth + 1) for _ in range(rng.randrange(4)))
    if draw == 8 and depth < 2:
        return [garbage(rng, depth + 1) for _ in range(rng.randrange(4))]
    plain = [
        None, True, 0, 1, -1, 2, 3, -49, 2**31, 2**63, 10**400, 0.5, NAN, INF, -0.0, 1j, "", "f4",
        "x" * 50, b"ab", Decimal(1), Ellipsis, NotImplemented, object(), int, {}, {"a": 1},
        np.float32(1), np.int64(2), np.datetime64("now"), np.dtype("f4"), np.random, Index(),
        LSTM, range(3), slice(None), frozenset({1}),
    ]  # fmt: skip
    return rng.choice(plain)


def spoiled(rng: random.Random, good: dict[Any, Any]) -> dict[Any, Any]:
    """The good arguments with at least one replaced by garbage."""
    names = rng.sample(list(good), rng.randint(1, min(2, len(good))))
    return good | {name: garbage(rng) for name in names}


def attack_constructor(rng: random.Random, _lstm: LSTM) -> None:
    sizes = {"input_size": 2, "hidden_size": 2, "num_layers": 1}
    flags = {"bias": True, "batch_first": False, "bidirectional": False}
    LSTM(**spoiled(rng, {**sizes, **flags, "dropout": 0.0, "dtype": np.float32, "rng": 1}))


def attack_forward(rng: random.Random, lstm: LSTM) -> None:
    h = np.ones((2, 2, 4), np.float32)
    good = {"x": np.ones((5, 2, 3), np.float32), "state": (h, h), "lengths": np.array([5, 0])}
    if rng.random() < 0.3:
        good["state"] = (garbage(rng), h) if rng.random() < 0.5 else (h, garbage(rng))
    arguments = spoiled(rng, good)
    lstm.forward(**arguments) if rng.random() < 0.5 else lstm(**arguments)


def attack_backward(rng: random.Random, lstm: LSTM) -> None:
    output, _, tape = lstm.forward(np.ones((5, 2, 3), np.float32))
    d_h = np.ones((2, 2, 4), np.float32)
    lstm.backward(**spoiled(rng, {"tape": tape, "d_output": output, "d_state": (d_h, d_h)}))


def attack_load(rng: random.Random, lstm: LSTM) -> None:
    target = copy.deepcopy(lstm)
    target.load_state_dict(spoiled(rng, lstm.state_dict()) if rng.random() < 0.8 else garbage(rng))


def attack_editing(rng: random.Random, lstm: LSTM) -> None:
    with copy.deepcopy(lstm).editing() as parameters:
        parameters[rng.choice([*parameters, "unknown"])] = garbage(rng)


def attack_gates(rng: random.Random, _lstm: LSTM) -> None:
    gates = {f"W_{gate}": np.ones((2, 5), np.float32) for gate in "fiCo"}
    gates |= {f"b_{gate}": np.ones(2, np.float32) for gate in "fiCo"}
    LSTM.from_gates(**spoiled(rng, gates))


def attack_threads(rng: random.Random, _lstm: LSTM) -> None:
    value = garbage(rng)
    if not isinstance(value, (int, np.integer, Index, np.ndarray)):
        set_num_threads(value)


ATTACKS = [
    attack_constructor, attack_forward, attack_backward, attack_load, attack_editing, attack_gates,
    attack_threads,
]  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_garbage_raises_one_of_four_errors_and_leaves_the_model_as_it_was(
    attack: Callable[[random.Random, LSTM], None],
) -> None:
    lstm, x = LSTM(3, 4, 2, rng=0), np.ones((5, 2, 3), np.float32)
    expected, version = lstm(x)[0], lstm.parameters().version
    refused = 0
    for seed in range(400):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                attack(random.Random(seed), lstm)
            except ALLOWED as error:
                refused += bool(str(error))  # one that says nothing does not count
            except Exception as error:
                raise AssertionError(f"seed {seed}: {error!r}") from error
    assert refused > 100, "the garbage is too clean"
    assert lstm.parameters().version == version
    assert_same_bits(lstm(x)[0], expected)


def test_parameters_hold_what_they_were_given_and_no_more() -> None:
    weight = np.arange(6.0).reshape(2, 3)[:, ::-1]
    parameters = Parameters({"weight": weight})
    assert_same_bits(parameters["weight"], weight)
    assert parameters["weight"].flags.c_contiguous
    assert not np.shares_memory(parameters["weight"], weight)
