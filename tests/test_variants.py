"""Laws of the general cell: what options mean, and the promises that hold for every option.

On the BLAS path a product may round otherwise when it has other rows beside it, so there a law
that changes the batch, the threads or the cuts holds to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from fastlstm import LSTM, _core, _scratch, _stack, set_num_threads, threads
from fastlstm.packing import Packing
from tests.support import (
    Array,
    State,
    assert_close,
    assert_same_bits,
    normal,
    output_shape,
    random_state,
)

DTYPES = [np.float32, np.float64]
INPUTS, HIDDEN, STEPS, BATCH = 5, 37, 9, 7
LENGTHS = np.array([9, 0, 3, 9, 1, 5, 7])

CELLS: dict[str, dict[str, Any]] = {
    "projection": {"proj_size": 19},
    "peepholes": {"peepholes": True},
    "clip": {"clip": 0.3},
    "input_forget": {"input_forget": True},
    "activations": {"activations": ("hard_sigmoid", "elu", ("scaled_tanh", 1.2, 0.7))},
    "layer_norm": {"layer_norm": True},
    "layer_norm without bias": {"layer_norm": True, "bias": False},
    "zoneout": {"zoneout": (0.3, 0.1)},
    "everything": {
        "num_layers": 2, "bidirectional": True, "proj_size": 19, "peepholes": True, "clip": 2.0,
        "input_forget": True, "activations": ("sigmoid", "softsign", "tanh"), "layer_norm": True,
        "zoneout": 0.2,
    },
}  # fmt: skip
# What draws masks in a forward with a generator.
DROPPING: dict[str, dict[str, Any]] = {
    "zoneout": CELLS["zoneout"],
    "recurrent_dropout": {"recurrent_dropout": 0.4},
    "projected": {"proj_size": 19, "recurrent_dropout": 0.4, "zoneout": 0.3},
    "everything": CELLS["everything"]
    | {"recurrent_dropout": 0.3, "weight_dropout": 0.2, "input_dropout": 0.3, "dropout": 0.2},
}
every_cell = pytest.mark.parametrize("options", CELLS.values(), ids=CELLS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
with_ends = pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["equal", "lengths"])


def layer(options: dict[str, Any], dtype: Any = np.float32, hidden: int = HIDDEN) -> LSTM:
    """Weights of twice the usual size, so that a bit gone astray in one step is seen in others.

    Of the usual size on BLAS, where bits go astray, and may not grow.
    """
    lstm = LSTM(INPUTS, hidden, **options, dtype=dtype, rng=3)
    rng = np.random.default_rng(4)
    with lstm.editing() as parameters:
        for array in parameters.values():
            array *= 2 if _core.VECTOR[lstm.dtype.itemsize] else 1
            array += 0.1 * normal(rng, array.shape, dtype)
    return lstm


def batch_for(lstm: LSTM) -> tuple[Array, State]:
    rng = np.random.default_rng(5)
    return normal(rng, (STEPS, BATCH, INPUTS), lstm.dtype), random_state(rng, lstm, BATCH)


def assert_same(actual: Array, expected: Array, name: str = "array") -> None:
    """To the bit on the packed path, to rounding on BLAS."""
    if _core.VECTOR[expected.dtype.itemsize]:
        assert_same_bits(actual, expected, name)
    else:
        assert_close(actual, expected, 1e-5 if expected.dtype == np.float32 else 1e-12, name)


def everything(
    lstm: LSTM, x: Array, state: State | None, *, seed: int | None = None, **ends: Any
) -> dict[str, Array]:
    """Outputs, final states and all gradients."""
    rng = np.random.default_rng(6)
    d_output = normal(rng, output_shape(lstm, *x.shape[:2]), lstm.dtype)
    d_state = random_state(rng, lstm, x.shape[1])
    generator = None if seed is None else np.random.default_rng(seed)
    output, (h_n, c_n), tape = lstm.forward(x, state, **ends, rng=generator)
    d_x, (d_h_0, d_c_0), grads = lstm.backward(tape, d_output, d_state)
    named = {"output": output, "h_n": h_n, "c_n": c_n}
    return named | {"d_x": d_x, "d_h_0": d_h_0, "d_c_0": d_c_0} | grads


# --- what a call and a forward compute -----------------------------------------------------------


@every_cell
@every_dtype
@with_ends
def test_forward_gives_the_bits_of_a_call(
    options: dict[str, Any], dtype: Any, lengths: Array | None
) -> None:
    lstm = layer(options, dtype)
    x, state = batch_for(lstm)
    for given in (state, None):
        called, (h_called, c_called) = lstm(x, given, lengths=lengths)
        output, (h_n, c_n), _ = lstm.forward(x, given, lengths=lengths)
        assert np.isfinite(called).all()
        assert_same_bits(output, called, "output")
        assert_same_bits(h_n, h_called, "h_n")
        assert_same_bits(c_n, c_called, "c_n")


@every_cell
@with_ends
def test_no_state_is_a_state_of_zeros(options: dict[str, Any], lengths: Array | None) -> None:
    lstm = layer(options)
    x, (h_0, c_0) = batch_for(lstm)
    zeros = np.zeros_like(h_0), np.zeros_like(c_0)
    expected = everything(lstm, x, zeros, lengths=lengths)
    for name, array in everything(lstm, x, None, lengths=lengths).items():
        assert_same_bits(array, expected[name], name)


@pytest.mark.parametrize("options", DROPPING.values(), ids=DROPPING)
def test_masks_are_the_generator_s_and_no_others(options: dict[str, Any]) -> None:
    lstm = layer(options)
    x, state = batch_for(lstm)
    first = everything(lstm, x, state, seed=1, lengths=LENGTHS)
    for name, array in everything(lstm, x, state, seed=1, lengths=LENGTHS).items():
        assert_same_bits(array, first[name], name)
    without = everything(lstm, x, state, lengths=LENGTHS)
    other = everything(lstm, x, state, seed=2, lengths=LENGTHS)
    for results in (without, other):
        assert not np.array_equal(results["output"], first["output"])


def test_dropout_of_the_state_without_a_generator_is_the_plain_cell() -> None:
    plain, dropping = layer({}), layer({"recurrent_dropout": 0.4})
    x, state = batch_for(plain)
    expected = everything(plain, x, state, lengths=LENGTHS)
    for name, array in everything(dropping, x, state, lengths=LENGTHS).items():
        assert_same_bits(array, expected[name], name)


@every_dtype
@with_ends
def test_the_general_loop_computes_the_plain_cell(dtype: Any, lengths: Array | None) -> None:
    """... where its options change nothing; it rounds otherwise."""
    plain = layer({"num_layers": 2, "bidirectional": True}, dtype)
    x, state = batch_for(plain)
    expected = everything(plain, x, state, lengths=lengths)
    same: list[dict[str, Any]] = [
        {"clip": 1e30},
        {"activations": ("sigmoid", ("scaled_tanh", 1, 1), "tanh")},
        {"activations": ("sigmoid", "tanh", ("scaled_tanh", 1, 1))},
        {"peepholes": True},
    ]
    for options in same:
        general = LSTM(
            INPUTS, HIDDEN, 2, bidirectional=True, **options, dtype=dtype, rng=0
        )  # fmt: skip
        weights = plain.state_dict()
        if "peepholes" in options:
            weights |= {
                name: np.zeros_like(array)
                for name, array in general.state_dict().items()
                if name.startswith("peephole")
            }
        general.load_state_dict({name: weights[name] for name in general.parameters()})
        actual = everything(general, x, state, lengths=lengths)
        for name, array in expected.items():
            tolerance = 2e-6 if dtype == np.float32 else 1e-13
            assert_close(actual[name], array, tolerance, f"{name} of {options}")


# --- the batch, its ends, and threads ------------------------------------------------------------


@every_cell
@every_dtype
def test_a_sequence_has_the_same_bits_in_any_company(options: dict[str, Any], dtype: Any) -> None:
    """Alone, in another order, twice, or with longer padding."""
    lstm = layer(options, dtype)
    x, (h_0, c_0) = batch_for(lstm)
    expected, (h_n, c_n) = lstm(x, (h_0, c_0), lengths=LENGTHS)
    padded = np.concatenate([x, np.full((2, BATCH, INPUTS), np.nan, dtype)])
    for chosen in ([5], [3, 2, 6, 2], [6, 5, 4, 3, 2, 1, 0]):
        output, (h, c) = lstm(
            padded[:, chosen], (h_0[:, chosen], c_0[:, chosen]), lengths=LENGTHS[chosen]
        )
        assert_same(output[:STEPS], expected[:, chosen], "output")
        assert not output[STEPS:].any()
        assert_same(h, h_n[:, chosen], "h_n")
        assert_same(c, c_n[:, chosen], "c_n")


@every_cell
def test_what_lies_past_an_end_is_never_read(options: dict[str, Any]) -> None:
    lstm = layer(options)
    x, state = batch_for(lstm)
    past = np.arange(STEPS)[:, np.newaxis] >= LENGTHS
    expected = everything(lstm, x, state, lengths=LENGTHS)
    x[past] = np.nan
    actual = everything(lstm, x, state, lengths=LENGTHS)
    assert not actual["output"][past].any()
    assert not actual["d_x"][past].any()
    for name, array in actual.items():
        assert np.isfinite(array).all(), name
        assert_same_bits(array, expected[name], name)
    for k, name in enumerate(("h_n", "c_n")):  # of length 0
        assert_same_bits(actual[name][:, 1], state[k][:, 1], name)


@pytest.fixture
def _threads_at_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """... and chunks and runs of 64 rows."""
    monkeypatch.setattr(threads, "LEAST_WORK", 0)
    monkeypatch.setattr(_stack, "CHUNK_BYTES", 1)
    monkeypatch.setattr(_stack, "RUN_BYTES", 1)


@pytest.mark.usefixtures("_threads_at_any_size")
@pytest.mark.parametrize("options", (CELLS | DROPPING).values(), ids=[*(CELLS | DROPPING)])
@every_dtype
def test_outputs_and_gradients_are_the_same_bits_on_any_number_of_threads(
    options: dict[str, Any], dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    blocks = Packing.blocks
    monkeypatch.setattr(
        Packing, "blocks", lambda self, count: asked.append(count) or blocks(self, count)
    )
    lstm = layer(options, dtype)
    rng = np.random.default_rng(5)
    x, state = normal(rng, (STEPS, 29, INPUTS), dtype), random_state(rng, lstm, 29)
    lengths = rng.integers(0, STEPS + 1, 29)
    for seed in (None, 7):
        with set_num_threads(1):
            expected = everything(lstm, x, state, seed=seed, lengths=lengths)
        for count in (2, 3, 4):
            asked.clear()
            with set_num_threads(count):
                actual = everything(lstm, x, state, seed=seed, lengths=lengths)
            if seed is not None or options != DROPPING["recurrent_dropout"]:
                assert set(asked) == {count if _core.OPENMP else 1}
            for name, array in actual.items():
                assert_same(array, expected[name], f"{name} on {count} threads")


@pytest.mark.usefixtures("_threads_at_any_size")
@every_cell
def test_cuts_of_the_work_do_not_show(options: dict[str, Any]) -> None:
    """Outputs have the same bits whatever the chunks; gradients are sums over other runs."""
    lstm = layer(options)
    x, state = batch_for(lstm)
    x = np.tile(x, (4, 8, 1))
    state = np.tile(state[0], (1, 8, 1)), np.tile(state[1], (1, 8, 1))
    lengths = np.tile(LENGTHS, 8) * 4
    cut = everything(lstm, x, state, lengths=lengths)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(_stack, "CHUNK_BYTES", 1 << 30)
        patched.setattr(_stack, "RUN_BYTES", 1 << 30)
        whole = everything(lstm, x, state, lengths=lengths)
    for name, array in cut.items():
        if name in ("output", "h_n", "c_n"):
            assert_same(array, whole[name], name)
        else:
            assert_close(array, whole[name], 1e-5, name)


STREAMED = {name: options for name, options in CELLS.items() if name != "everything"} | {
    "everything": CELLS["everything"] | {"bidirectional": False}
}


@pytest.mark.parametrize("options", STREAMED.values(), ids=STREAMED)
@every_dtype
def test_a_stream_is_the_sequence(options: dict[str, Any], dtype: Any) -> None:
    lstm = layer(options, dtype)
    x, state = batch_for(lstm)
    expected, (h_n, c_n) = lstm(x, state)
    stream = lstm.stream(BATCH)
    stream.state = state
    assert_same(np.stack([stream.step(x_t) for x_t in x]), expected, "output")
    assert_same(stream.state[0], h_n, "h_n")
    assert_same(stream.state[1], c_n, "c_n")
    alone = lstm.stream()
    alone.state = state[0][:, 2], state[1][:, 2]
    assert_same(np.stack([alone.step(x_t) for x_t in x[:, 2]]), expected[:, 2], "alone")
    alone.reset()
    assert_same(np.stack([alone.step(x_t) for x_t in x[:, 2]]), lstm(x[:, 2])[0], "reset")


@pytest.mark.parametrize("options", STREAMED.values(), ids=STREAMED)
def test_a_sequence_goes_on_where_the_state_left_off(options: dict[str, Any]) -> None:
    lstm = layer(options)
    x, state = batch_for(lstm)
    expected, final = lstm(x, state)
    first, state = lstm(x[:4], state)
    second, state = lstm(x[4:], state)
    assert_same(np.concatenate([first, second]), expected, "output")
    for actual, wanted in zip(state, final, strict=True):
        assert_same(actual, wanted, "state")


# --- small and empty -----------------------------------------------------------------------------


@every_cell
@every_dtype
def test_one_unit_and_one_input(options: dict[str, Any], dtype: Any) -> None:
    """... are the first of several whose weights are zero, where units do not mix in one row."""
    options = {name: value for name, value in options.items() if name != "proj_size"}
    one = LSTM(1, 1, **options, dtype=dtype, rng=3)
    x = normal(np.random.default_rng(0), (STEPS, BATCH, 1), dtype)
    state = random_state(np.random.default_rng(1), one, BATCH)
    results = everything(one, x, state, lengths=LENGTHS)
    for name, array in results.items():
        assert np.isfinite(array).all(), name
    output, (h_n, _) = one(x, state)
    assert_same(output[-1, :, 0], h_n[-2 if one.bidirectional else -1, :, 0])
    if one.layer_norm:
        # A single unit, normalised, is zero: h is what the bias gives.
        return
    several = LSTM(1, 3, **options, dtype=dtype, rng=0)
    weights = {}
    for name, array in several.state_dict().items():
        wide, narrow = np.zeros_like(array), one.state_dict()[name]
        rows = slice(None, None, 3)
        if array.ndim == 1:
            wide[rows] = narrow
        else:  # a column for each direction below
            columns = np.zeros((len(narrow), array.shape[1]), dtype)
            columns[:, :: max(1, array.shape[1] // narrow.shape[1])] = narrow
            wide[rows] = columns
        weights[name] = wide
    several.load_state_dict(weights)
    wide_state = [np.zeros((*s.shape[:2], 3), dtype) for s in state]
    for wide, narrow in zip(wide_state, state, strict=True):
        wide[..., :1] = narrow
    wide_output, _ = several(x, (wide_state[0], wide_state[1]), lengths=LENGTHS)
    assert_close(wide_output[..., ::3], results["output"], 1e-6 if dtype == np.float32 else 1e-14)


@pytest.mark.parametrize("options", (CELLS | DROPPING).values(), ids=[*(CELLS | DROPPING)])
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0), (4, 2)])
@pytest.mark.parametrize("with_lengths", [False, True])
def test_nothing_to_compute(
    options: dict[str, Any], shape: tuple[int, int], with_lengths: bool
) -> None:
    """No steps, no sequences, or only sequences of length 0; with masks and without."""
    if shape == (4, 2) and not with_lengths:
        return
    lstm, (steps, batch) = layer(options), shape
    rng = np.random.default_rng(0)
    x, state = normal(rng, (steps, batch, INPUTS), np.float32), random_state(rng, lstm, batch)
    d_state = random_state(rng, lstm, batch)
    lengths = np.zeros(batch, np.int64) if with_lengths else None
    output, (h, c) = lstm(x, state, lengths=lengths)
    assert not output.any()
    for seed in (None, 1):
        generator = None if seed is None else np.random.default_rng(seed)
        output, (h_n, c_n), tape = lstm.forward(x, state, lengths=lengths, rng=generator)
        d_x, (d_h_0, d_c_0), grads = lstm.backward(tape, output, d_state)
        assert output.shape == output_shape(lstm, steps, batch)
        assert d_x.shape == x.shape
        for actual, expected in ((h, state[0]), (c, state[1]), (h_n, state[0]), (c_n, state[1])):
            assert_same_bits(actual, expected)
        assert_same_bits(d_h_0, d_state[0])
        assert_same_bits(d_c_0, d_state[1])
        for name, array in grads.items():
            assert array.shape == lstm.parameters()[name].shape
            assert not array.any(), name


# --- memory --------------------------------------------------------------------------------------


@contextmanager
def nothing_given_twice() -> Iterator[None]:
    """Each block of memory that is kept has one place in the list, and so one next owner."""
    _scratch._kept.clear()
    yield
    places = [block.ctypes.data for block in _scratch._kept]
    assert places
    assert len(set(places)) == len(places)


@pytest.mark.parametrize("options", (CELLS | DROPPING).values(), ids=[*(CELLS | DROPPING)])
def test_tapes_share_no_memory(options: dict[str, Any]) -> None:
    """Of a size whose memory is kept for the next call: tapes side by side as one after another."""
    lstm = LSTM(INPUTS, HIDDEN, **options, rng=0)
    rng = np.random.default_rng(0)
    xs = [normal(rng, (40, 32, INPUTS), np.float32) for _ in range(2)]
    d_output = normal(rng, output_shape(lstm, 40, 32), np.float32)

    def forward(k: int) -> Any:
        output, _, tape = lstm.forward(xs[k], rng=np.random.default_rng(k))
        return output, tape

    with nothing_given_twice():
        expected = []
        for k in range(2):
            output, tape = forward(k)
            d_x, _, grads = lstm.backward(tape, d_output)
            expected.append([output.copy(), d_x, *grads.values()])
        (output_0, tape_0), (output_1, tape_1) = forward(0), forward(1)
        kept = output_0.copy()
        lstm(xs[0])
        d_x_1, _, grads_1 = lstm.backward(tape_1, d_output)
        output_1[...] = np.nan
        d_x_0, _, grads_0 = lstm.backward(tape_0, d_output)
        assert_same_bits(kept, output_0)
    for actual, wanted in (
        ([d_x_0, *grads_0.values()], expected[0][1:]),
        ([d_x_1, *grads_1.values()], expected[1][1:]),
    ):
        for array, reference in zip(actual, wanted, strict=True):
            assert_same_bits(array, reference)


@every_cell
def test_a_tape_holds_copies_of_what_was_handed_in_and_out(options: dict[str, Any]) -> None:
    lstm = layer(options)
    x, state = batch_for(lstm)
    expected = everything(lstm, x, state)
    d_output = normal(np.random.default_rng(6), expected["output"].shape, np.float32)
    output, (h_n, c_n), tape = lstm.forward(x, state)
    for array in (x, *state, output, h_n, c_n):
        array[...] = np.nan
    d_x, _, grads = lstm.backward(tape, d_output)
    again = lstm.forward(*batch_for(lstm))[-1]
    d_x_again, _, grads_again = lstm.backward(again, d_output)
    assert_same_bits(d_x, d_x_again)
    for name, array in grads.items():
        assert_same_bits(array, grads_again[name], name)


# --- what options mean ---------------------------------------------------------------------------


def test_f_has_no_effect_where_it_is_coupled() -> None:
    lstm = layer({"input_forget": True, "peepholes": True}, np.float64)
    x, state = batch_for(lstm)
    before = everything(lstm, x, state, lengths=LENGTHS)
    with lstm.editing() as parameters:
        for name, array in parameters.items():
            f = slice(HIDDEN, 2 * HIDDEN)
            assert not before[name][f].any(), name
            others = np.delete(before[name], np.r_[f], axis=0)
            assert np.abs(others).min() > 0
            array[f] += 5
    after = everything(lstm, x, state, lengths=LENGTHS)
    for name in before:
        # The weights' own rows of f are those that changed; no gradient flows through them.
        assert_close(after[name], before[name], 1e-14, name)


def test_clipping_holds_pre_activations_and_their_gradients() -> None:
    """All of them are far out: the cell is one of constants, and only states have gradients."""
    lstm = LSTM(2, 3, clip=0.5, dtype=np.float64, rng=0)
    signs = np.array([1.0, -1, 1] * 4)
    with lstm.editing() as parameters:
        parameters["bias_ih_l0"][...] = 100 * signs
    x, h_0, c_0 = np.ones((1, 1, 2)), np.ones((1, 1, 3)), np.array([[[0.3, -2, 4]]])
    output, (_, c_n), tape = lstm.forward(x, (h_0, c_0))
    i = f = o = 1 / (1 + np.exp(-0.5 * signs[:3]))
    c = f * c_0[0, 0] + i * np.tanh(0.5 * signs[:3])
    assert_close(c_n[0, 0], c, 1e-15)
    assert_close(output[0, 0], o * np.tanh(c), 1e-15)
    d_x, (d_h_0, d_c_0), grads = lstm.backward(tape, np.ones_like(output))
    for array in (d_x, d_h_0, *grads.values()):
        assert not array.any()
    assert_close(d_c_0[0, 0], o * (1 - np.tanh(c) ** 2) * f, 1e-15)


@pytest.mark.parametrize("seed", [None, 0], ids=["expectation", "masks"])
@with_ends
def test_zoneout_of_one_holds_everything(seed: int | None, lengths: Array | None) -> None:
    lstm = layer({"zoneout": 1.0, "num_layers": 2}, np.float64)
    x, state = batch_for(lstm)
    results = everything(lstm, x, state, seed=seed, lengths=lengths)
    assert_same_bits(results["h_n"], state[0])
    assert_same_bits(results["c_n"], state[1])
    ends = np.full(BATCH, STEPS) if lengths is None else lengths
    for b, end in enumerate(ends):
        assert (results["output"][:end, b] == state[0][1, b]).all()
        assert not results["output"][end:, b].any()
    assert not results["d_x"].any()
    for name in lstm.parameters():
        assert not results[name].any(), name
    rng = np.random.default_rng(6)
    d_output = normal(rng, results["output"].shape)
    d_h, d_c = random_state(rng, lstm, BATCH)
    assert_same_bits(results["d_c_0"], d_c)
    for b, end in enumerate(ends):
        d_h[1, b] += d_output[:end, b].sum(axis=0)
    assert_close(results["d_h_0"], d_h, 1e-14)


def test_zoneout_without_a_generator_is_the_expectation_of_a_step() -> None:
    """... Krueger et al. 2017, eq. 4 and 5: h is that of the c which is not held."""
    plain, zoned = layer({}, np.float64), layer({"zoneout": (0.3, 0.6)}, np.float64)
    x, (h_0, c_0) = batch_for(plain)
    _, (h, c) = plain(x[:1], (h_0, c_0))
    _, (h_n, c_n) = zoned(x[:1], (h_0, c_0))
    assert_close(c_n, 0.3 * c_0 + 0.7 * c, 1e-14)
    assert_close(h_n, 0.6 * h_0 + 0.4 * h, 1e-14)


@pytest.mark.parametrize("proj_size", [0, 20])
@pytest.mark.parametrize("zoneout", [(0.3, 0.0), (0.0, 0.6), (0.2, 0.7)])
def test_zoneout_holds_a_share_of_the_units_at_each_step(
    zoneout: tuple[float, float], proj_size: int
) -> None:
    """Each unit, sequence and step on its own: held to the bit, or as without zoneout."""
    hidden, batch = 40, 150
    options = {"zoneout": zoneout, "proj_size": proj_size}
    zoned = LSTM(INPUTS, hidden, **options, rng=0)
    plain = LSTM(INPUTS, hidden, proj_size=proj_size, clip=1e30, rng=0)  # in the general loop
    plain.load_state_dict(zoned.state_dict())
    rng, draws = np.random.default_rng(0), np.random.default_rng(1)
    state = random_state(rng, zoned, batch)
    shares: list[list[Array]] = [[], []]
    for _ in range(6):
        x = normal(rng, (1, batch, INPUTS), np.float32)
        after = zoned.forward(x, state, rng=draws)[1]
        free = plain(x, state)[1]
        for k in range(2):  # of h, of c
            held = after[k] == state[k]
            assert_same_bits(after[k][~held], free[k][~held])
            shares[1 - k].append(held[0])
        state = after
    for p, held in zip(zoneout, shares, strict=True):
        all_held = np.stack(held).astype(float)
        if p == 0:
            assert not all_held.any()
            continue
        for axes in ((0, 1, 2), (0, 1), (0, 2), (1, 2)):
            mean = all_held.mean(axis=axes)
            deviation = np.sqrt(p * (1 - p) * mean.size / all_held.size)
            assert (np.abs(mean - p) < 5 * deviation).all(), axes
        # Neither a step nor a sequence nor a unit is like the next.
        for axis in range(3):
            same = np.take(all_held, range(1, all_held.shape[axis]), axis) == np.take(
                all_held, range(all_held.shape[axis] - 1), axis
            )
            expected = p**2 + (1 - p) ** 2
            assert abs(same.mean() - expected) < 5 * 0.5 / np.sqrt(same.size)


def test_zoneout_holds_units_of_c_and_of_h_apart() -> None:
    lstm = LSTM(INPUTS, 60, zoneout=0.5, rng=0)
    rng = np.random.default_rng(0)
    h_0, c_0 = random_state(rng, lstm, 100)
    x = normal(rng, (1, 100, INPUTS), np.float32)
    _, (h_n, c_n), _ = lstm.forward(x, (h_0, c_0), rng=rng)
    both = ((h_n == h_0) & (c_n == c_0)).mean()
    assert abs(both - 0.25) < 5 * np.sqrt(0.25 * 0.75 / h_n.size)


def test_a_dropped_state_is_dropped_at_all_steps() -> None:
    """A unit of h that is zeroed before W_hh has no gradient in its column, at any step."""
    lstm = layer({"recurrent_dropout": 0.5}, np.float64)
    x, state = batch_for(lstm)
    one = slice(0, 1)
    _, _, tape = lstm.forward(
        x[:, one], (state[0][:, one], state[1][:, one]), rng=np.random.default_rng(0)
    )
    grads = lstm.backward(tape, normal(np.random.default_rng(0), (STEPS, 1, HIDDEN)))[-1]
    zero = ~grads["weight_hh_l0"].any(axis=0)
    numbers = np.random.default_rng(0).random((1, 1, HIDDEN), np.float32)[0, 0]
    np.testing.assert_array_equal(zero, numbers < 0.5)


@pytest.mark.parametrize("proj_size", [0, 19])
def test_the_mask_of_a_sequence_s_state_does_not_depend_on_lengths(proj_size: int) -> None:
    """... its own or the others': masks are drawn in the caller's order."""
    lstm = layer({"recurrent_dropout": 0.5, "proj_size": proj_size}, np.float64)
    x, state = batch_for(lstm)
    whole = lstm.forward(x, state, rng=np.random.default_rng(0))[0]
    for lengths in (LENGTHS, LENGTHS[::-1].copy()):
        output = lstm.forward(x, state, lengths=lengths, rng=np.random.default_rng(0))[0]
        for b, length in enumerate(lengths):
            assert_close(output[:length, b], whole[:length, b], 1e-12, f"sequence {b}")


@pytest.mark.parametrize("bias", [True, False])
def test_normalised_pre_activations_do_not_see_the_scale_of_the_weights(bias: bool) -> None:
    """... where it is large beside the 1e-5 that are added to the variance."""
    lstm = layer({"layer_norm": True, "bias": bias}, np.float64)
    x, state = batch_for(lstm)
    outputs = []
    for _ in range(2):
        with lstm.editing() as parameters:
            parameters["weight_ih_l0"] *= 1000
            parameters["weight_hh_l0"] *= 1000
        outputs.append(lstm(x, state, lengths=LENGTHS)[0])
    assert_close(outputs[1], outputs[0], 1e-8)
    with lstm.editing() as parameters:
        parameters["gain_ih_l0"] *= 2
    assert np.abs(lstm(x, state, lengths=LENGTHS)[0] - outputs[1]).max() > 0.1


@pytest.mark.parametrize("far", [np.inf, 1e30, 3e38])
@pytest.mark.parametrize(
    "names",
    [
        ("sigmoid", "tanh", "tanh"),
        ("sigmoid", "softsign", "elu"),
        ("hard_sigmoid", "softsign", "softplus"),
    ],
)
def test_gates_far_out_give_no_nan(far: float, names: tuple[str, str, str]) -> None:
    """Of pre-activations that are infinite, or that no square of theirs is finite."""
    lstm = LSTM(1, 8, peepholes=True, activations=names, rng=0)
    with lstm.editing() as parameters:
        for array in parameters.values():
            array[...] = 0
        parameters["bias_ih_l0"][...] = np.where(np.arange(32) % 3 == 0, far, -far)
    x = np.ones((3, 2, 1), np.float32)
    for name, array in everything(lstm, x, None).items():
        assert not np.isnan(array).any(), name


@pytest.mark.parametrize("name", ["softplus", "elu", "relu", "leaky_relu", "thresholded_relu"])
def test_what_has_no_bound_is_infinite_where_its_input_is(name: str) -> None:
    lstm = LSTM(1, 8, activations=("sigmoid", name, "tanh"), rng=0)
    with lstm.editing() as parameters:
        for array in parameters.values():
            array[...] = 0
        parameters["bias_ih_l0"][16:24] = np.inf
    output, (_, c_n) = lstm(np.ones((3, 2, 1), np.float32))
    assert (c_n == np.inf).all()
    assert_close(output, np.full_like(output, 0.5), 1e-7)
