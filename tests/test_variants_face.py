"""The options of the general cell as callers meet them: parameters, files, copies, errors."""

from __future__ import annotations

import copy
import json
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastlstm
from fastlstm import LSTM
from fastlstm.stream import VariantStream
from tests.support import Array, assert_same_bits, normal, random_state
from tests.test_variants import CELLS, DROPPING

ALL = CELLS | DROPPING
every_cell = pytest.mark.parametrize("options", ALL.values(), ids=ALL)


def outputs(lstm: LSTM) -> list[Array]:
    rng = np.random.default_rng(0)
    x, state = normal(rng, (5, 3, 4), lstm.dtype), random_state(rng, lstm, 3)
    called, (h_n, c_n) = lstm(x, state, lengths=np.array([5, 0, 2]))
    dropped, _, tape = lstm.forward(x, state, rng=np.random.default_rng(1))
    d_x, _, grads = lstm.backward(tape, dropped)
    return [called, h_n, c_n, dropped, d_x, *grads.values()]


def assert_same_layer(actual: LSTM, expected: LSTM) -> None:
    assert actual.get_config() == expected.get_config()
    assert list(actual.parameters()) == list(expected.parameters())
    for a, b in zip(outputs(actual), outputs(expected), strict=True):
        assert_same_bits(a, b)


def small(options: dict[str, Any], dtype: Any = np.float32) -> LSTM:
    if "proj_size" in options:
        options = options | {"proj_size": 3}
    return LSTM(4, 6, **options, dtype=dtype, rng=0)


# --- parameters ----------------------------------------------------------------------------------


def test_each_option_brings_its_parameters() -> None:
    lstm = LSTM(
        5, 4, 2, bidirectional=True, proj_size=3, peepholes=True, layer_norm=True, rng=0
    )  # fmt: skip
    shapes = {name: array.shape for name, array in lstm.parameters().items()}
    expected: dict[str, tuple[int, ...]] = {}
    for suffix, width in (("_l0", 5), ("_l0_reverse", 5), ("_l1", 6), ("_l1_reverse", 6)):
        own = {
            "weight_ih": (16, width), "weight_hh": (16, 3), "bias_ih": (16,), "bias_hh": (16,),
            "weight_hr": (3, 4), "peephole": (12,), "gain_ih": (16,), "gain_hh": (16,),
            "gain_c": (4,), "bias_c": (4,),
        }  # fmt: skip
        expected |= {f"{name}{suffix}": shape for name, shape in own.items()}
    assert shapes == expected
    assert list(shapes) == list(expected)
    without = LSTM(5, 4, layer_norm=True, bias=False, rng=0)
    assert [name for name in without.parameters() if "bias" in name] == []


def test_a_normalisation_begins_with_gain_one_and_bias_zero() -> None:
    lstm = LSTM(5, 4, peepholes=True, layer_norm=True, rng=0)
    for name, array in lstm.parameters().items():
        if name.startswith("gain"):
            assert (array == 1).all()
        elif name == "bias_c_l0":
            assert not array.any()
        else:
            assert len(np.unique(array)) == array.size
            assert np.abs(array).max() <= 0.5


def test_options_leave_the_drawing_of_the_plain_parameters_alone() -> None:
    plain = LSTM(5, 4, rng=0).state_dict()
    for options in ({"layer_norm": True}, {"peepholes": True}, {"zoneout": 0.5}, {"clip": 1.0}):
        own = LSTM(5, 4, **options, rng=0).state_dict()  # type: ignore[arg-type]
        for name, array in plain.items():
            assert_same_bits(own[name], array, f"{name} with {options}")


def test_states_have_the_sizes_of_h_and_of_c() -> None:
    lstm = LSTM(5, 4, 2, proj_size=3, batch_first=True, rng=0)
    x = np.ones((2, 6, 5), np.float32)
    output, (h_n, c_n) = lstm(x)
    assert (output.shape, h_n.shape, c_n.shape) == ((2, 6, 3), (2, 2, 3), (2, 2, 4))
    output, (h_n, c_n) = lstm(x[0])
    assert (output.shape, h_n.shape, c_n.shape) == ((6, 3), (2, 3), (2, 4))
    zeros = np.zeros((2, 2, 4), np.float32)
    with pytest.raises(ValueError, match=r"state\[0\]"):
        lstm(x, (zeros, zeros))
    with pytest.raises(ValueError, match=r"state\[1\]"):
        lstm(x, (zeros[..., :3], zeros[..., :3]))
    _, _, tape = lstm.forward(x)
    with pytest.raises(ValueError, match="d_output"):
        lstm.backward(tape, np.zeros((2, 6, 4), np.float32))
    with pytest.raises(ValueError, match=r"d_state\[0\]"):
        lstm.backward(tape, None, (zeros, zeros))


# --- copies, files and versions ------------------------------------------------------------------


@every_cell
def test_a_layer_comes_back_from_its_configuration_and_state(options: dict[str, Any]) -> None:
    lstm = small(options)
    again = LSTM(**json.loads(json.dumps(lstm.get_config())), rng=5)
    with pytest.raises(AssertionError):
        assert_same_layer(again, lstm)
    again.load_state_dict(lstm.state_dict())
    assert_same_layer(again, lstm)


@every_cell
def test_a_layer_comes_back_from_a_file(options: dict[str, Any], tmp_path: Path) -> None:
    lstm = small(options, np.float64)
    fastlstm.save(lstm, tmp_path / "lstm.safetensors")
    again = fastlstm.load(tmp_path / "lstm.safetensors")
    assert isinstance(again, LSTM)
    assert_same_layer(again, lstm)


@every_cell
@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, lambda lstm: pickle.loads(pickle.dumps(lstm))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_copies_are_equal_and_see_their_own_changes(
    options: dict[str, Any], duplicate: Any
) -> None:
    lstm = small(options)
    before = outputs(lstm)
    other = duplicate(lstm)
    assert_same_layer(other, lstm)
    with other.editing() as parameters:
        for array in parameters.values():
            array *= 2
    changed = outputs(other)
    assert not np.array_equal(changed[0], before[0])
    fresh = LSTM(**lstm.get_config(), rng=1)
    fresh.load_state_dict(other.state_dict())
    for a, b in zip(changed, outputs(fresh), strict=True):
        assert_same_bits(a, b)
    if duplicate is not copy.copy:
        for a, b in zip(outputs(lstm), before, strict=True):
            assert_same_bits(a, b)


@pytest.mark.parametrize(
    "name", ["weight_hr", "peephole", "gain_ih", "gain_hh", "gain_c", "bias_c"]
)
def test_a_change_of_any_parameter_is_seen_by_the_next_call(name: str) -> None:
    lstm = LSTM(4, 6, proj_size=3, peepholes=True, layer_norm=True, rng=0)
    before = outputs(lstm)
    state = lstm.state_dict()
    state[f"{name}_l0"] += np.float32(0.5)
    lstm.load_state_dict(state)
    after = outputs(lstm)
    assert not np.array_equal(after[0], before[0])
    state[f"{name}_l0"] -= np.float32(0.5)
    fresh = LSTM(**lstm.get_config(), rng=1)
    fresh.load_state_dict(lstm.state_dict())
    for a, b in zip(after, outputs(fresh), strict=True):
        assert_same_bits(a, b)


@every_cell
def test_tapes_are_stale_after_the_weights_changed(options: dict[str, Any]) -> None:
    lstm = small(options)
    x = np.ones((3, 2, 4), np.float32)
    output, _, tape = lstm.forward(x)
    with lstm.editing():
        pass
    with pytest.raises(RuntimeError, match="weights"):
        lstm.backward(tape, output)
    output, _, tape = lstm.forward(x)
    lstm.backward(tape, output)
    with pytest.raises(RuntimeError, match="tape"):
        lstm.backward(tape, output)


# --- streams -------------------------------------------------------------------------------------


def open_stream(batch: int | None = 2) -> tuple[LSTM, VariantStream]:
    lstm = LSTM(4, 6, 2, proj_size=3, layer_norm=True, zoneout=0.2, rng=0)
    stream = lstm.stream(batch)
    assert isinstance(stream, VariantStream)
    return lstm, stream


def test_a_stream_is_stale_after_the_weights_changed_until_it_is_reset() -> None:
    lstm, stream = open_stream()
    x_t = np.ones((2, 4), np.float32)
    stream.step(x_t)
    state = stream.state
    with lstm.editing() as parameters:
        parameters["gain_c_l1"] *= 2
    with pytest.raises(RuntimeError, match="stale"):
        stream.step(x_t)
    for a, b in zip(stream.state, state, strict=True):
        assert_same_bits(a, b)
    stream.reset()
    assert_same_bits(stream.step(x_t), lstm(x_t[np.newaxis])[0][0])


@pytest.mark.parametrize("batch", [None, 2])
def test_out_is_filled_and_returned(batch: int | None) -> None:
    lstm, stream = open_stream(batch)
    lead = () if batch is None else (batch,)
    x_t = normal(np.random.default_rng(0), (*lead, 4), np.float32)
    expected = lstm.stream(batch).step(x_t)
    assert expected.shape == (*lead, 3)
    out = np.full((*lead, 3), np.nan, np.float32)
    assert stream.step(x_t, out=out) is out
    assert_same_bits(out, expected)
    h, c = stream.state
    assert (h.shape, c.shape) == ((2, *lead, 3), (2, *lead, 6))
    for wrong, error in (
        (np.zeros((*lead, 6), np.float32), ValueError),
        (np.zeros((*lead, 3)), TypeError),
        (np.zeros((*lead, 6), np.float32)[..., ::2], ValueError),
    ):
        with pytest.raises(error, match="out"):
            stream.step(x_t, out=wrong)
    with pytest.raises(ValueError, match="x_t"):
        stream.step(np.zeros((*lead, 3), np.float32))
    with pytest.raises(TypeError, match="x_t"):
        stream.step(x_t.astype(np.float64))
    with pytest.raises(ValueError, match=r"state\[0\]"):
        stream.state = c, c
    for a, b in zip(stream.state, (h, c), strict=True):
        assert_same_bits(a, b)


def test_results_and_states_of_a_stream_are_copies() -> None:
    lstm, stream = open_stream()
    x = normal(np.random.default_rng(0), (3, 2, 4), np.float32)
    expected = lstm(x)[0]
    first = stream.step(x[0])
    h, c = stream.state
    kept = h.copy(), c.copy()
    for array in (first, h, c):
        array[...] = np.nan
    assert_same_bits(stream.step(x[1]), expected[1])
    stream.state = kept
    kept[0][...] = np.nan
    assert_same_bits(stream.step(x[1]), expected[1])


@pytest.mark.parametrize("use", ["step", "read", "set", "reset"])
def test_a_stream_in_use_refuses_another_user(use: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """... and goes on afterwards as if nobody had come."""
    lstm, stream = open_stream()
    x = normal(np.random.default_rng(0), (3, 2, 4), np.float32)
    expected = lstm(x)[0]
    zeros = stream.state
    act = {
        "step": lambda: stream.step(x[0]),
        "read": lambda: stream.state,
        "set": lambda: setattr(stream, "state", zeros),
        "reset": stream.reset,
    }[use]
    errors: list[BaseException] = []

    def come_between(*arguments: Any, **options: Any) -> Any:
        def user() -> None:
            try:
                act()
            except RuntimeError as error:
                errors.append(error)

        thread = threading.Thread(target=user)
        thread.start()
        thread.join()
        return forward(*arguments, **options)

    stack = type(stream._stack)
    forward = stack.forward
    with monkeypatch.context() as patched:
        patched.setattr(stack, "forward", come_between)
        assert_same_bits(stream.step(x[0]), expected[0])
    assert len(errors) == 1
    assert "in use" in str(errors[0])
    for t in (1, 2):
        assert_same_bits(stream.step(x[t]), expected[t])


def test_a_stream_wants_one_direction_from_the_first_step_on() -> None:
    for options in ({"bidirectional": True}, {"reverse": True}):
        with pytest.raises(ValueError, match="stream"):
            LSTM(4, 6, peepholes=True, **options, rng=0).stream()
    _, stream = open_stream()
    with pytest.raises(TypeError, match="Stream"):
        copy.copy(stream)


# --- errors --------------------------------------------------------------------------------------

NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("option", "value", "error", "match"),
    [
        ("proj_size", 6, ValueError, "proj_size"),
        ("proj_size", 7, ValueError, "proj_size"),
        ("proj_size", -1, ValueError, "proj_size"),
        ("proj_size", 2.0, TypeError, "proj_size"),
        ("proj_size", True, TypeError, "proj_size"),
        ("proj_size", None, TypeError, "proj_size"),
        ("peepholes", 1, TypeError, "peepholes"),
        ("input_forget", None, TypeError, "input_forget"),
        ("layer_norm", "yes", TypeError, "layer_norm"),
        ("clip", 0, ValueError, "clip"),
        ("clip", -1.0, ValueError, "clip"),
        ("clip", NAN, ValueError, "clip"),
        ("clip", INFINITY, ValueError, "clip"),
        ("clip", "1", TypeError, "clip"),
        ("clip", True, TypeError, "clip"),
        ("activations", "tanh", TypeError, "activations"),
        ("activations", None, TypeError, "activations"),
        ("activations", ("sigmoid", "tanh"), ValueError, "activations.*2"),
        ("activations", ("sigmoid",) * 4, ValueError, "activations.*4"),
        ("activations", ("sigmoid", "Tanh", "tanh"), ValueError, r"activations\[1\].*'Tanh'"),
        ("activations", ("sigmoid", "tanh", "gelu"), ValueError, r"activations\[2\].*softsign"),
        ("activations", ("sigmoid", 1, "tanh"), TypeError, r"activations\[1\]"),
        ("activations", ("sigmoid", (), "tanh"), TypeError, r"activations\[1\]"),
        ("activations", ("sigmoid", (1.0, "elu"), "tanh"), TypeError, r"activations\[1\]"),
        ("activations", (("elu", 1, 2), "tanh", "tanh"), ValueError, r"activations\[0\].*elu.*1"),
        ("activations", (("tanh", 1), "tanh", "tanh"), ValueError, r"activations\[0\].*tanh.*0"),
        ("activations", (("affine", 1, 2, 3), "tanh", "tanh"), ValueError, r"activations\[0\]"),
        ("activations", (("affine", "1"), "tanh", "tanh"), TypeError, r"activations\[0\].*1"),
        ("activations", (("affine", 1, NAN), "tanh", "tanh"), ValueError, r"activations\[0\].*2"),
        ("activations", (("elu", INFINITY), "tanh", "tanh"), ValueError, r"activations\[0\].*1"),
        ("zoneout", -0.1, ValueError, "zoneout"),
        ("zoneout", 1.1, ValueError, "zoneout"),
        ("zoneout", NAN, ValueError, "zoneout"),
        ("zoneout", None, TypeError, "zoneout"),
        ("zoneout", "0.1", TypeError, "zoneout"),
        ("zoneout", (0.1,), ValueError, "zoneout"),
        ("zoneout", (0.1, 0.1, 0.1), ValueError, "zoneout"),
        ("zoneout", (0.1, 1.5), ValueError, r"zoneout\[1\]"),
        ("zoneout", (NAN, 0.1), ValueError, r"zoneout\[0\]"),
        ("zoneout", (0.1, None), TypeError, r"zoneout\[1\]"),
        ("recurrent_dropout", 1.5, ValueError, "recurrent_dropout"),
        ("recurrent_dropout", NAN, ValueError, "recurrent_dropout"),
        ("recurrent_dropout", (0.1, 0.1), TypeError, "recurrent_dropout"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(
    option: str, value: Any, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        LSTM(4, 6, **{option: value}, rng=0)


def test_options_are_taken_in_every_form_that_means_them() -> None:
    """... and kept as they were meant."""
    same = LSTM(2, 3, activations=["sigmoid", ("tanh",), ["tanh"]], zoneout=[0, 0], rng=0)  # type: ignore[arg-type]
    assert same.activations == ("sigmoid", "tanh", "tanh")
    assert same._stack.variant.plain
    assert not LSTM(2, 3, zoneout=np.float64(0.5), clip=np.float32(2), rng=0)._stack.variant.plain
    with_defaults = LSTM(2, 3, activations=("hard_sigmoid", "elu", "affine"), rng=0)
    spelled = LSTM(
        2, 3, activations=(("hard_sigmoid", 0.2, 0.5), ("elu", 1), ("affine", 1, 0)), rng=0
    )  # fmt: skip
    x = normal(np.random.default_rng(0), (4, 2, 2), np.float32)
    assert_same_bits(with_defaults(x)[0], spelled(x)[0])
    one = LSTM(2, 3, activations=(("hard_sigmoid", 0.3), "tanh", "tanh"), rng=0)
    both = LSTM(2, 3, activations=(("hard_sigmoid", 0.3, 0.5), "tanh", "tanh"), rng=0)
    assert_same_bits(one(x)[0], both(x)[0])


def test_state_dicts_of_other_cells_are_refused_by_what_is_missing() -> None:
    plain = LSTM(4, 6, rng=0)
    for options, name in (
        ({"proj_size": 3}, "weight_hr_l0"), ({"peepholes": True}, "peephole_l0"),
        ({"layer_norm": True}, "gain_ih_l0"),
    ):  # fmt: skip
        general = LSTM(4, 6, **options, rng=0)  # type: ignore[arg-type]
        before = general.state_dict()
        with pytest.raises((ValueError, KeyError), match=name):
            general.load_state_dict(plain.state_dict())
        with pytest.raises((ValueError, KeyError), match=name):
            plain.load_state_dict(before)
        for key, array in general.state_dict().items():
            assert_same_bits(array, before[key], key)
