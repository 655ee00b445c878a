"""sigmoid and tanh of the compiled core, on the instruction set that this process has picked.

The kernels have a driver of their own in C (tests/csrc), which runs all sets. Here SciPy and NumPy
are the judges, in a type with bits to spare.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit

from fastlstm import _core
from tests.processes import run_python, start_python
from tests.support import Array, assert_same_bits

Kernel = Callable[[Array, Array], None]
Oracle = Callable[[Array], Array]

KERNELS = [_core.sigmoid, _core.tanh]
DTYPES = [np.float32, np.float64]
LONGEST = 40  # past two vectors of the widest set
# In ulp; the bounds of csrc/activations.h, which are within the 4 that the library promises.
BOUNDS = {
    (_core.sigmoid, np.float32): 2.5,
    (_core.tanh, np.float32): 2.6,
    (_core.sigmoid, np.float64): 3.0,
    (_core.tanh, np.float64): 3.0,
}
NO_WIDER_TYPE = bool(np.finfo(np.longdouble).nmant < np.finfo(np.float64).nmant + 8)


def run(kernel: Kernel, x: Array) -> Array:
    out = np.full_like(x, 7)
    kernel(out, x)
    return out


def sigmoid_in_long_double(x: Array) -> Array:
    """expit has no long double on every platform, hence this; neither exp overflows."""
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


ORACLES: dict[tuple[Kernel, type], Oracle] = {
    (_core.sigmoid, np.float32): expit,
    (_core.tanh, np.float32): np.tanh,
    (_core.sigmoid, np.float64): sigmoid_in_long_double,
    (_core.tanh, np.float64): np.tanh,
}


def worst_ulp(kernel: Kernel, x: Array) -> tuple[float, float]:
    """The largest error in ulp of the true result, where that is a normal number; and its x."""
    dtype = x.dtype.type
    wide = np.float64 if dtype == np.float32 else np.longdouble
    info = np.finfo(dtype)
    want = ORACLES[kernel, dtype](x.astype(wide))
    got = run(kernel, x)
    _, exponent = np.frexp(want)
    ulp = np.ldexp(wide(1), exponent - 1 - info.nmant)
    normal = np.abs(want) >= info.smallest_normal
    error = np.where(normal, np.abs(got.astype(wide) - want) / ulp, 0)
    at = int(np.argmax(error))  # a NaN counts as the largest
    return float(error[at]), float(x[at])


def floats_of(bits: NDArray[np.uint32]) -> Array:
    """The float32 with these bits that are no NaN; 0 twice is no harm."""
    x = bits.view(np.float32)
    return x[~np.isnan(x)]


def stratified_floats() -> Array:
    """500 of each sign and exponent: the ends and random ones between them."""
    rng = np.random.default_rng(0)
    high = np.arange(512, dtype=np.uint32)[:, np.newaxis] << np.uint32(23)
    fractions = rng.integers(0, 1 << 23, (512, 500), dtype=np.uint32)
    fractions[:, :2] = 0, (1 << 23) - 1
    return floats_of((high | fractions).ravel())


@pytest.mark.parametrize("kernel", KERNELS)
def test_float32_is_within_its_bound_at_every_exponent(kernel: Kernel) -> None:
    error, x = worst_ulp(kernel, stratified_floats())
    assert error <= BOUNDS[kernel, np.float32], f"{error:.3f} ulp at {x!r}"


@pytest.mark.parametrize("kernel", KERNELS)
def test_float32_is_within_its_bound_over_a_stride_of_all_bit_patterns(kernel: Kernel) -> None:
    bits = np.arange(0, 1 << 32, 4099, dtype=np.uint32)
    error, x = worst_ulp(kernel, floats_of(bits))
    assert error <= BOUNDS[kernel, np.float32], f"{error:.3f} ulp at {x!r}"


@pytest.mark.skipif(NO_WIDER_TYPE, reason="long double is no wider than double here")
@pytest.mark.parametrize("reach", [1e-9, 1e-3, 1.0, 20.0, 700.0])
@pytest.mark.parametrize("kernel", KERNELS)
def test_float64_is_within_its_bound(kernel: Kernel, reach: float) -> None:
    x = np.random.default_rng(1).uniform(-reach, reach, 50_000)
    error, at = worst_ulp(kernel, x)
    assert error <= BOUNDS[kernel, np.float64], f"{error:.3f} ulp at {at!r}"


@pytest.mark.skipif(NO_WIDER_TYPE, reason="long double is no wider than double here")
@pytest.mark.parametrize("kernel", KERNELS)
def test_float64_is_within_its_bound_at_every_exponent(kernel: Kernel) -> None:
    rng = np.random.default_rng(2)
    exponents = np.repeat(np.arange(-1074, 1024), 20)
    x = np.ldexp(rng.uniform(1, 2, len(exponents)), exponents) * rng.choice([-1, 1], len(exponents))
    error, at = worst_ulp(kernel, x)
    assert error <= BOUNDS[kernel, np.float64], f"{error:.3f} ulp at {at!r}"


@pytest.mark.parametrize("dtype", DTYPES)
def test_results_below_the_normal_range_are_subnormal_and_not_zero(dtype: type) -> None:
    info = np.finfo(dtype)
    lowest, highest = np.log(float(info.smallest_normal)) * np.array([1.04, 1.001])
    x = np.linspace(lowest, highest, 1000).astype(dtype)
    got = run(_core.sigmoid, x)
    # So far down sigmoid is exp.
    want = np.exp(x.astype(np.longdouble))
    assert (got > 0).all()
    assert (got < info.smallest_normal).all()
    assert (np.abs(got - want) <= 2 * float(info.smallest_subnormal)).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_infinities_and_zeros_give_the_limits_to_the_bit(dtype: type) -> None:
    info = np.finfo(dtype)
    x = np.array([np.inf, -np.inf, info.max, -info.max, 0.0, -0.0], dtype)
    assert_same_bits(run(_core.sigmoid, x), np.array([1, 0, 1, 0, 0.5, 0.5], dtype))
    tanh = run(_core.tanh, x)
    assert_same_bits(tanh, np.array([1, -1, 1, -1, 0.0, -0.0], dtype))
    assert list(np.signbit(tanh)) == [False, True, False, True, False, True]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel", KERNELS)
def test_nan_is_passed_on_from_every_place_and_touches_no_other(
    kernel: Kernel, dtype: type
) -> None:
    x = np.random.default_rng(3).uniform(-9, 9, LONGEST).astype(dtype)
    for length in range(1, LONGEST + 1):
        clean = run(kernel, x[:length])
        assert not np.isnan(clean).any()
        for place in range(length):
            poisoned, expected = x[:length].copy(), clean.copy()
            poisoned[place] = expected[place] = np.nan
            assert_same_bits(run(kernel, poisoned), expected, f"length {length}, NaN at {place}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel", KERNELS)
def test_an_element_has_the_same_bits_wherever_it_stands(kernel: Kernel, dtype: type) -> None:
    x = np.random.default_rng(4).uniform(-9, 9, LONGEST).astype(dtype)
    alone = np.concatenate([run(kernel, x[k : k + 1]) for k in range(LONGEST)])
    for start in range(LONGEST):
        assert_same_bits(run(kernel, x[start:]), alone[start:], f"from {start}")
        assert_same_bits(run(kernel, x[:start]), alone[:start], f"up to {start}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel", KERNELS)
def test_in_place_gives_the_same_and_nothing_beyond_is_written(kernel: Kernel, dtype: type) -> None:
    for length in range(LONGEST + 1):
        x = np.random.default_rng(length).uniform(-9, 9, length).astype(dtype)
        buffer = np.full(length + 40, 7, dtype)
        buffer[20 : 20 + length] = x
        kernel(buffer[20 : 20 + length], buffer[20 : 20 + length])
        assert_same_bits(buffer[20 : 20 + length], run(kernel, x))
        assert (buffer[:20] == 7).all()
        assert (buffer[20 + length :] == 7).all()


# --- the floating-point mode of the process ------------------------------------------------------

# A thread from before the import of fastlstm, the main thread, and one from after the use. Each
# makes a subnormal, and reads one, with NumPy's vectors and with Python's floats.
MODE = """
import queue, threading
import numpy as np

def works():
    single, double = np.full(33, 1.5e-38, np.float32), np.full(33, 3e-308)
    made = [single / np.float32(64), double / 64]
    back = [made[0] * np.float32(64), made[1] * 64]
    plain = float(double[0]) / 64 * 64
    return all(m.all() for m in made) and all(b.all() for b in back) and plain > 0

jobs, answers = queue.Queue(), queue.Queue()
def serve():
    jobs.get()
    answers.put(works())
threading.Thread(target=serve, daemon=True).start()

import fastlstm
from fastlstm import _core
for dtype in (np.float32, np.float64):
    x = np.linspace(-800, 800, 5001).astype(dtype)
    _core.sigmoid(x.copy(), x)
    _core.tanh(x.copy(), x)
    lstm = fastlstm.LSTM(32, 64, dtype=dtype, rng=0)
    fastlstm.set_num_threads(2)
    output, state, tape = lstm.forward(np.ones((60, 8, 32), dtype))
    lstm.backward(tape, np.full_like(output, 1e-30))
seen = [works()]
jobs.put(None)
seen.append(answers.get(timeout=30))
late = threading.Thread(target=lambda: seen.append(works()))
late.start()
late.join()
print(_core.ISA, seen)
"""


IMPORT = "import fastlstm"


@pytest.mark.parametrize("isa", ["avx512", "avx2", "neon", "generic"])
def test_subnormal_arithmetic_works_in_every_thread_after_use(isa: str) -> None:
    chosen = {"FASTLSTM_ISA": isa}
    if "not supported by this processor" in start_python("-c", IMPORT, environment=chosen).stderr:
        pytest.skip(f"this machine has no {isa}")
    printed = run_python("-c", MODE, environment=chosen)
    assert printed.split(maxsplit=1) == [isa, "[True, True, True]\n"]
