"""SGD, Adam and AdamW against their formulas and against torch; state, bad input, clipping."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlstm import threads
from fastlstm.layers import Linear
from fastlstm.optim import SGD, Adam, AdamW, clip_grad_norm
from fastlstm.parameters import Parameters
from fastlstm.threads import set_num_threads
from tests.strange import (
    assert_refuses_shapes,
    assert_refuses_what_is_no_such_array,
    assert_takes_any_layout,
)
from tests.support import Array, assert_close, assert_same_bits, normal
from tests.test_arrays import Argument

DTYPES = [np.float32, np.float64]
STEPS = 20
# After 20 steps: a few roundings of a weight for each of them.
ROUNDING = {np.float32: 2e-6, np.float64: 4e-15}

CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "sgd": (SGD, {"lr": 0.1}),
    "sgd-decay": (SGD, {"lr": 0.1, "weight_decay": 0.3}),
    "sgd-momentum": (SGD, {"lr": 0.1, "momentum": 0.9}),
    "sgd-momentum-decay": (SGD, {"lr": 0.1, "momentum": 0.7, "weight_decay": 0.3}),
    "sgd-nesterov": (SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "sgd-nesterov-decay": (
        SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.3},
    ),
    "adam": (Adam, {}),
    "adam-decay": (Adam, {"lr": 0.1, "weight_decay": 0.3}),
    "adam-betas": (Adam, {"lr": 0.1, "betas": (0.3, 0.9), "eps": 1e-3}),
    "adam-no-mean": (Adam, {"lr": 0.1, "betas": (0.0, 0.99)}),
    "adamw": (AdamW, {}),
    "adamw-decay": (AdamW, {"lr": 0.1, "weight_decay": 0.5, "betas": (0.8, 0.95)}),
    "adamw-no-decay": (AdamW, {"lr": 0.1, "weight_decay": 0.0}),
}  # fmt: skip

every_case = pytest.mark.parametrize("name", CASES)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


def weights(dtype: Any) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    return {"weight": normal(rng, (4, 3), dtype), "bias": normal(rng, (4,), dtype)}


def gradients(dtype: Any, step: int) -> dict[str, Array]:
    """Of different sizes from step to step, and with a constant part, so that means matter."""
    rng = np.random.default_rng((1, step))
    size = 10.0 ** rng.integers(-2, 2)
    return {
        name: (0.5 + size * normal(rng, array.shape)).astype(dtype)
        for name, array in weights(dtype).items()
    }


def rate(step: int) -> float:
    return 0.2 / (1 + step % 7)


def build(name: str, parameters: Parameters) -> Any:
    make, options = CASES[name]
    return make(parameters, **options)


def run(name: str, dtype: Any, steps: int = STEPS, *, scheduled: bool = False) -> Parameters:
    parameters = Parameters(weights(dtype))
    optimiser = build(name, parameters)
    for step in range(steps):
        optimiser.step(gradients(dtype, step), lr=rate(step) if scheduled else None)
    return parameters


# --- formulas ------------------------------------------------------------------------------------
# In float64 and number by number, as the articles write them.


def sgd_formula(w: float, gs: list[float], lrs: list[float], **options: Any) -> float:
    momentum, decay = options.get("momentum", 0.0), options.get("weight_decay", 0.0)
    velocity = 0.0
    for g, lr in zip(gs, lrs, strict=True):
        g = g + decay * w
        velocity = momentum * velocity + g
        w = w - lr * (g + momentum * velocity if options.get("nesterov") else velocity)
    return w


def adam_formula(w: float, gs: list[float], lrs: list[float], **options: Any) -> float:
    beta_1, beta_2 = options.get("betas", (0.9, 0.999))
    eps = options.get("eps", 1e-8)
    decay = options.get("weight_decay", 0.01 if options["decoupled"] else 0.0)
    m = v = 0.0
    for t, (g, lr) in enumerate(zip(gs, lrs, strict=True), start=1):
        if options["decoupled"]:
            w = w - lr * decay * w
        else:
            g = g + decay * w
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g**2
        m_hat, v_hat = m / (1 - beta_1**t), v / (1 - beta_2**t)
        w = w - lr * m_hat / (math.sqrt(v_hat) + eps)
    return w


def by_formula(name: str, dtype: Any, *, scheduled: bool) -> dict[str, Array]:
    make, options = CASES[name]
    options = dict(options)
    lr = options.pop("lr", 1e-3)
    lrs = [rate(step) if scheduled else lr for step in range(STEPS)]
    if make is SGD:
        formula: Callable[..., float] = sgd_formula
    else:
        formula, options["decoupled"] = adam_formula, make is AdamW
    gs = [gradients(dtype, step) for step in range(STEPS)]
    expected = {}
    for key, start in weights(dtype).items():
        expected[key] = np.zeros(start.shape)
        for at in np.ndindex(*start.shape):
            series = [float(g[key][at]) for g in gs]
            expected[key][at] = formula(float(start[at]), series, lrs, **options)
    return expected


@every_case
@every_dtype
@pytest.mark.parametrize("scheduled", [False, True])
def test_twenty_steps_are_those_of_the_formula(name: str, dtype: Any, scheduled: bool) -> None:
    parameters = run(name, dtype, scheduled=scheduled)
    expected = by_formula(name, dtype, scheduled=scheduled)
    for key, weight in parameters.items():
        assert weight.dtype == dtype
        assert not np.allclose(weight, weights(dtype)[key], rtol=1e-3)
        assert_close(weight, expected[key], ROUNDING[dtype], key)


@pytest.mark.oracle
@every_case
@every_dtype
@pytest.mark.parametrize("scheduled", [False, True])
def test_twenty_steps_are_those_of_torch(name: str, dtype: Any, scheduled: bool) -> None:
    torch = pytest.importorskip("torch")
    make, options = CASES[name]
    theirs = {key: torch.nn.Parameter(torch.tensor(w)) for key, w in weights(dtype).items()}
    optimiser = getattr(torch.optim, make.__name__)(theirs.values(), **options)
    for step in range(STEPS):
        for key, gradient in gradients(dtype, step).items():
            theirs[key].grad = torch.tensor(gradient)
        if scheduled:
            optimiser.param_groups[0]["lr"] = rate(step)
        optimiser.step()
    for key, weight in run(name, dtype, scheduled=scheduled).items():
        assert_close(weight, theirs[key].detach().numpy(), ROUNDING[dtype], key)


@pytest.mark.oracle
def test_the_defaults_are_torchs() -> None:
    torch = pytest.importorskip("torch")
    one = [torch.nn.Parameter(torch.zeros(1))]
    for make, names in ((Adam, ("lr", "betas", "eps", "weight_decay")), (AdamW, ("lr", "betas",
                        "eps", "weight_decay"))):  # fmt: skip
        ours = make(Parameters(weights(np.float32)))
        defaults = getattr(torch.optim, make.__name__)(one).defaults
        assert {key: getattr(ours, key) for key in names} == {key: defaults[key] for key in names}
    sgd = SGD(Parameters(weights(np.float32)), 0.5)
    defaults = torch.optim.SGD(one, 0.5).defaults
    for key in ("lr", "momentum", "nesterov", "weight_decay"):
        assert getattr(sgd, key) == defaults[key]


# --- laws ----------------------------------------------------------------------------------------


def test_the_first_step_of_adam_has_the_length_lr_whatever_the_gradient() -> None:
    parameters = Parameters({"w": np.zeros(3)})
    Adam(parameters, 0.1, eps=0.0).step({"w": np.array([1e-12, -3.0, 1e12])})
    np.testing.assert_allclose(parameters["w"], [-0.1, 0.1, -0.1], rtol=1e-14)


@given(exponent=st.integers(-30, 30))
def test_adam_does_not_see_the_scale_of_gradients(exponent: int) -> None:
    # Powers of two are exact, and so are their squares and roots: the bits are the same.
    results = []
    for scale in (1.0, 2.0**exponent):
        parameters = Parameters(weights(np.float64))
        optimiser = Adam(parameters, 0.1, eps=0.0)
        for step in range(5):
            grads = gradients(np.float64, step)
            optimiser.step({key: scale * grad for key, grad in grads.items()})
        results.append(parameters.state_dict())
    for key in results[0]:
        assert_same_bits(results[1][key], results[0][key])


def test_adam_without_a_mean_forgets_a_large_gradient_at_once() -> None:
    parameters = Parameters({"w": np.zeros(1, np.float32)})
    optimiser = Adam(parameters, 1.0, betas=(0.0, 0.0), eps=0.0)
    optimiser.step({"w": np.array([1e9], np.float32)})
    optimiser.step({"w": np.array([1e-3], np.float32)})
    assert_same_bits(parameters["w"], np.array([-2], np.float32))


@every_case
@every_dtype
def test_threads_do_not_change_the_bits(
    name: str, dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "LEAST_WORK", 0)
    monkeypatch.setattr(threads, "_num_threads", 1)
    expected = run(name, dtype, 3).state_dict()
    for num_threads in (2, 5, 20):
        monkeypatch.setattr(threads, "_num_threads", num_threads)
        for key, weight in run(name, dtype, 3).items():
            assert_same_bits(weight, expected[key], f"{key} on {num_threads} threads")


@every_case
def test_a_large_array_is_updated_to_its_last_element(name: str) -> None:
    """On several threads, of one weight and one gradient: all elements stay alike."""
    size = 200_017
    large, small = Parameters({"w": np.ones(size)}), Parameters({"w": np.ones(1)})
    ours, alone = build(name, large), build(name, small)
    for step in range(3):
        ours.step({"w": np.full(size, step - 0.5)})
        alone.step({"w": np.full(1, step - 0.5)})
    assert_same_bits(large["w"], np.repeat(small["w"], size))


@every_case
def test_a_step_needs_no_memory(name: str) -> None:
    parameters = Parameters({"w": np.ones((1000, 500))})
    optimiser, grads = build(name, parameters), {"w": np.ones((1000, 500))}
    optimiser.step(grads)
    tracemalloc.start()
    try:
        optimiser.step(grads)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < parameters["w"].nbytes / 100


@every_dtype
def test_a_moment_that_fades_away_becomes_zero(dtype: Any) -> None:
    """Rounded to the nearest, 0.9 of the smallest number is that number: it would stay for ever."""
    parameters = Parameters({"w": np.ones(3, dtype)})
    optimiser = Adam(parameters, 0.1)
    tiny = np.finfo(dtype).tiny
    optimiser.step({"w": np.array([0, 15 * tiny, 1], dtype)})
    for _ in range(9):
        optimiser.step({"w": np.zeros(3, dtype)})
    moment = optimiser.state_dict()["exp_avg.w"]
    assert (moment[:2] == 0).all()
    assert moment[2] > 0


# --- what a step touches -------------------------------------------------------------------------


@every_case
def test_a_step_changes_the_layers_own_arrays_and_moves_the_version(name: str) -> None:
    layer = Linear(3, 4, rng=0)
    weight, version = layer.weight, layer.parameters().version
    output, tape = layer.forward(np.ones((2, 3), np.float32))
    optimiser = build(name, layer.parameters())
    grads = {key: np.ones_like(array) for key, array in layer.parameters().items()}
    before = {key: array.copy() for key, array in layer.parameters().items()}
    optimiser.step(grads)
    assert layer.parameters().version > version
    assert np.shares_memory(layer.weight, weight)
    for key, array in layer.parameters().items():
        assert (array != before[key]).all()
        assert not array.flags.writeable
        assert_same_bits(grads[key], np.ones_like(array))
    with pytest.raises(RuntimeError, match=r"^tape: stale"):
        layer.backward(tape, output)


def test_a_network_of_joined_parameters_is_updated_layer_by_layer() -> None:
    one, two = Linear(3, 4, rng=0), Linear(4, 2, bias=False, dtype=np.float64, rng=1)
    network = Parameters.join({"one": one.parameters(), "two": two.parameters()})
    expected = {key: array - np.asarray(0.5, array.dtype) for key, array in network.items()}
    SGD(network, 0.5).step({key: np.ones_like(array) for key, array in network.items()})
    for key, array in network.items():
        assert_same_bits(array, expected[key], key)
    assert_same_bits(one.weight, expected["one.weight"])
    assert_same_bits(two.weight, expected["two.weight"])


@every_case
def test_gradients_may_be_the_weights_themselves(name: str) -> None:
    results = []
    for copied in (False, True):
        parameters = Parameters(weights(np.float64))
        optimiser = build(name, parameters)
        for _ in range(3):
            optimiser.step(parameters.state_dict() if copied else parameters)
        results.append(parameters.state_dict())
    for key in results[0]:
        assert_same_bits(results[0][key], results[1][key])


@every_case
def test_empty_parameters_and_parameters_without_axes(name: str) -> None:
    arrays = {"none": np.zeros((0, 3)), "one": np.array(1.0)}
    parameters = Parameters(arrays)
    optimiser = build(name, parameters)
    optimiser.step({key: np.ones_like(array) for key, array in arrays.items()})
    assert parameters["none"].shape == (0, 3)
    assert parameters["one"] < 1


@every_case
@pytest.mark.parametrize("bad", [np.nan, np.inf, np.finfo(np.float32).max])
def test_what_is_not_finite_takes_its_course_in_its_own_element(name: str, bad: float) -> None:
    parameters, others = Parameters(weights(np.float32)), run(name, np.float32, 2)
    optimiser = build(name, parameters)
    for step in range(2):
        grads = gradients(np.float32, step)
        grads["bias"][2] = bad
        optimiser.step(grads)
    spared = np.arange(4) != 2
    assert_same_bits(parameters["weight"], others["weight"])
    assert_same_bits(parameters["bias"][spared], others["bias"][spared])
    if np.isnan(bad):
        assert np.isnan(parameters["bias"][2])


# --- the learning rate ---------------------------------------------------------------------------


@every_case
def test_lr_is_settable_and_a_steps_own_lr_is_for_that_step_alone(name: str) -> None:
    once, after = Parameters(weights(np.float64)), Parameters(weights(np.float64))
    ours, other = build(name, once), build(name, after)
    grads = gradients(np.float64, 0)
    before = ours.lr
    ours.step(grads, lr=0.025)
    assert ours.lr == before
    other.lr = 0.025
    other.step(grads)
    for key in once:
        assert_same_bits(once[key], after[key])
    ours.step(grads)
    other.lr = before
    other.step(grads)
    for key in once:
        assert_same_bits(once[key], after[key])


@every_case
def test_a_learning_rate_of_zero_leaves_weights_alone(name: str) -> None:
    parameters = Parameters(weights(np.float32))
    build(name, parameters).step(gradients(np.float32, 0), lr=0.0)
    for key, weight in parameters.items():
        assert_same_bits(weight, weights(np.float32)[key])


# --- state ---------------------------------------------------------------------------------------


@every_case
@every_dtype
def test_a_run_that_is_cut_goes_on_to_the_same_bits(name: str, dtype: Any) -> None:
    parameters = Parameters(weights(dtype))
    optimiser = build(name, parameters)
    for step in range(STEPS // 2):
        optimiser.step(gradients(dtype, step))
    optimiser.lr = 0.037
    kept, state = parameters.state_dict(), optimiser.state_dict()
    for step in range(STEPS // 2, STEPS):
        optimiser.step(gradients(dtype, step))

    resumed = Parameters(kept)
    other = build(name, resumed)
    other.load_state_dict(state)
    for array in state.values():
        array[...] = 77  # copies were taken
    for step in range(STEPS // 2, STEPS):
        other.step(gradients(dtype, step))
    for key in parameters:
        assert_same_bits(resumed[key], parameters[key], key)
    for key, array in optimiser.state_dict().items():
        assert_same_bits(other.state_dict()[key], array, key)


@every_case
@every_dtype
def test_the_state_is_flat_and_names_what_it_holds(name: str, dtype: Any) -> None:
    make, options = CASES[name]
    parameters = Parameters(weights(dtype))
    optimiser = build(name, parameters)
    moments = ["exp_avg", "exp_avg_sq"] if make is not SGD else ["momentum"]
    if make is SGD and "momentum" not in options:
        moments = []
    state = optimiser.state_dict()
    assert [*state] == ["step", "lr"] + [f"{m}.{key}" for m in moments for key in parameters]
    assert (state["step"].dtype, state["step"].shape) == (np.int64, ())
    assert (state["lr"].dtype, state["lr"].shape) == (np.float64, ())
    assert float(state["lr"]) == options.get("lr", 1e-3)
    for step in range(3):
        optimiser.step(gradients(dtype, step))
        assert int(optimiser.state_dict()["step"]) == step + 1
    for key, array in optimiser.state_dict().items():
        if key not in ("step", "lr"):
            like = parameters[key.partition(".")[2]]
            assert (array.dtype, array.shape) == (like.dtype, like.shape)
            assert array.any()
            assert not state[key].any(), "what was given out before has changed"
            array[...] = 5  # a copy
            assert (optimiser.state_dict()[key] != 5).all()


BAD_STATES: dict[str, tuple[type[Exception], str, Callable[[dict[str, Any]], Any]]] = {
    "no dict": (TypeError, r"^state_dict: expected a dict", lambda _: []),
    "missing": (
        ValueError, r"^state_dict: missing \['exp_avg\.bias'\]",
        lambda s: {k: v for k, v in s.items() if k != "exp_avg.bias"},
    ),
    "unknown": (ValueError, r"unexpected \['w'\]", lambda s: s | {"w": np.ones(1)}),
    "shape": (
        ValueError, r"^state_dict\['exp_avg_sq\.bias'\]: expected shape \(4,\)",
        lambda s: s | {"exp_avg_sq.bias": np.ones(3, np.float32)},
    ),
    "dtype": (
        TypeError, r"^state_dict\['exp_avg\.weight'\]: .* float32, got float64",
        lambda s: s | {"exp_avg.weight": np.ones((4, 3))},
    ),
    "step": (
        ValueError, r"^state_dict\['step'\]: .* got -1$", lambda s: s | {"step": np.array(-1)},
    ),
    "step of floats": (
        TypeError, r"^state_dict\['step'\]: ", lambda s: s | {"step": np.array(1.0)},
    ),
    "step of a rank": (
        ValueError, r"^state_dict\['step'\]: expected shape \(\)",
        lambda s: s | {"step": np.array([1])},
    ),
    "lr": (ValueError, r"^state_dict\['lr'\]: ", lambda s: s | {"lr": np.array(np.nan)}),
    "lr of integers": (TypeError, r"^state_dict\['lr'\]: ", lambda s: s | {"lr": np.array(1)}),
    "lr that is no array": (TypeError, r"^state_dict\['lr'\]: ", lambda s: s | {"lr": 0.1}),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_STATES)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(name: str) -> None:
    error, message, spoil = BAD_STATES[name]
    optimiser = Adam(Parameters(weights(np.float32)))
    for step in range(2):
        optimiser.step(gradients(np.float32, step))
    before = optimiser.state_dict()
    other = Adam(Parameters(weights(np.float32)), 0.5)
    other.step(gradients(np.float32, 9))
    with pytest.raises(error, match=message):
        optimiser.load_state_dict(spoil(other.state_dict()))
    for key, array in optimiser.state_dict().items():
        assert_same_bits(array, before[key], key)


def test_the_state_of_another_optimiser_is_refused() -> None:
    parameters = Parameters(weights(np.float32))
    momentum, adam = SGD(parameters, 0.1, momentum=0.9), Adam(parameters)
    with pytest.raises(ValueError, match=r"^state_dict: missing .*exp_avg"):
        adam.load_state_dict(momentum.state_dict())
    with pytest.raises(ValueError, match=r"^state_dict: missing .*momentum"):
        momentum.load_state_dict(adam.state_dict())


# --- bad input -----------------------------------------------------------------------------------

BAD_GRADIENTS: dict[str, tuple[type[Exception], str, Callable[[dict[str, Any]], Any]]] = {
    "no dict": (TypeError, r"^grads: expected a dict, got a list", lambda g: [*g.values()]),
    "None": (TypeError, r"^grads: expected a dict, got None", lambda _: None),
    "missing": (ValueError, r"^grads: missing \['bias'\]", lambda g: {"weight": g["weight"]}),
    "unknown": (ValueError, r"unexpected \['w'\]", lambda g: g | {"w": g["bias"]}),
    "renamed": (
        ValueError, r"^grads: missing \['bias'\], unexpected \['b'\]",
        lambda g: {"weight": g["weight"], "b": g["bias"]},
    ),
    "shape": (ValueError, r"^grads\['bias'\]: expected shape \(4,\), got \(4, 1\)",
              lambda g: g | {"bias": g["bias"][:, None]}),
    "dtype": (TypeError, r"^grads\['bias'\]: expected an array of float32, got float64",
              lambda g: g | {"bias": g["bias"].astype(np.float64)}),
    "list": (TypeError, r"^grads\['bias'\]: .* got a list", lambda g: g | {"bias": [1.0] * 4}),
    "no gradient": (TypeError, r"^grads\['bias'\]: .* got None", lambda g: g | {"bias": None}),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_GRADIENTS)
@pytest.mark.parametrize("make", [SGD, Adam, AdamW])
def test_gradients_that_do_not_fit_are_refused_before_anything_changes(
    name: str, make: Any
) -> None:
    error, message, spoil = BAD_GRADIENTS[name]
    parameters = Parameters(weights(np.float32))
    optimiser = make(parameters, 0.1)
    state, version = optimiser.state_dict(), parameters.version
    with pytest.raises(error, match=message):
        optimiser.step(spoil(gradients(np.float32, 0)))
    with pytest.raises(ValueError, match=r"^lr: expected a finite number >= 0, got -1"):
        optimiser.step(gradients(np.float32, 0), lr=-1)
    assert parameters.version == version
    for key, weight in parameters.items():
        assert_same_bits(weight, weights(np.float32)[key])
    for key, array in optimiser.state_dict().items():
        assert_same_bits(array, state[key])


OPTIONS = {
    "lr": (SGD, Adam, AdamW),
    "weight_decay": (SGD, Adam, AdamW),
    "momentum": (SGD,),
    "eps": (Adam, AdamW),
}


@pytest.mark.parametrize(("option", "make"), [(o, m) for o, ms in OPTIONS.items() for m in ms])
def test_options_that_are_no_number_or_out_of_range_are_refused(option: str, make: Any) -> None:
    parameters = Parameters(weights(np.float32))
    given = {"lr": 0.1}
    for bad in (-0.1, math.nan, math.inf, *([1.0] if option == "momentum" else [])):
        with pytest.raises(ValueError, match=rf"^{option}: expected a finite number >= 0"):
            make(parameters, **(given | {option: bad}))
    for wrong in ("0.1", None, True, [0.1]):
        with pytest.raises(TypeError, match=rf"^{option}: expected a number"):
            make(parameters, **(given | {option: wrong}))
    if option == "lr":
        optimiser = make(parameters, 0.1)
        with pytest.raises(ValueError, match=r"^lr: "):
            optimiser.lr = -1
        assert optimiser.lr == 0.1


def test_other_options_are_checked() -> None:
    parameters = Parameters(weights(np.float32))
    for make in (Adam, AdamW):
        for bad, name in (((1.0, 0.9), 0), ((0.9, 1.0), 1), ((-0.1, 0.9), 0), ((0.9, math.nan), 1)):
            with pytest.raises(ValueError, match=rf"^betas\[{name}\]: "):
                make(parameters, betas=bad)
        with pytest.raises(TypeError, match=r"^betas\[1\]: expected a number"):
            make(parameters, betas=(0.9, "0.9"))
        with pytest.raises(
            TypeError, match=r"^betas: expected a pair \(β₁, β₂\) of numbers, got 0"
        ):
            make(parameters, betas=0.9)
        with pytest.raises(ValueError, match=r"^betas: .* got 3 items"):
            make(parameters, betas=(0.9, 0.9, 0.9))
    with pytest.raises(ValueError, match=r"^nesterov: needs a momentum"):
        SGD(parameters, 0.1, nesterov=True)
    with pytest.raises(TypeError, match=r"^nesterov: expected True or False"):
        SGD(parameters, 0.1, momentum=0.9, nesterov=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [SGD, Adam, AdamW])
def test_only_parameters_are_optimised(make: Any) -> None:
    layer = Linear(3, 4, rng=0)
    for wrong in (weights(np.float32), layer, layer.state_dict(), [np.ones(3)], None):
        with pytest.raises(TypeError, match=r"^parameters: expected Parameters"):
            make(wrong, 0.1)


def array_arguments() -> list[Argument]:
    def step(name: str, array: Any) -> list[Array]:
        parameters = Parameters(weights(np.float32))
        optimiser = build(name, parameters)
        optimiser.step(gradients(np.float32, 0) | {"weight": array})
        return [*parameters.values(), *optimiser.state_dict().values()]

    def clip(array: Any) -> list[Array]:
        grads, norm = clip_grad_norm(gradients(np.float32, 0) | {"weight": array}, 1e-3)
        return [*grads.values(), np.array([norm])]

    good = gradients(np.float32, 0)["weight"]
    names = ["sgd", "sgd-nesterov-decay", "adamw"]
    return [
        *(Argument(n, "grads['weight']", good, lambda a, n=n: step(n, a)) for n in names),
        Argument("clip", "grads['weight']", good, clip),
    ]


every_argument = pytest.mark.parametrize("argument", array_arguments(), ids=str)


@every_argument
def test_gradients_in_any_layout_give_the_same_bits(argument: Argument, tmp_path: Path) -> None:
    assert_takes_any_layout(argument, tmp_path)


@every_argument
def test_gradients_that_are_no_such_arrays_are_refused(argument: Argument) -> None:
    clips = str(argument) == "clip"
    assert_refuses_what_is_no_such_array(argument, any_float=clips)
    if not clips:
        assert_refuses_shapes(argument, (4, 4), (3, 3), (4,), (3, 4), (1, 4, 3), (4, 0), ())


# --- clipping ------------------------------------------------------------------------------------


def exact_norm(grads: Mapping[str, Array]) -> float:
    values = np.concatenate([grad.ravel().astype(float) for grad in grads.values()])
    return math.sqrt(math.fsum(values * values))


@every_dtype
def test_the_norm_is_that_of_all_gradients_as_one_vector(dtype: Any) -> None:
    grads = gradients(dtype, 3) | {"large": normal(np.random.default_rng(0), (300, 200), dtype)}
    clipped, norm = clip_grad_norm(grads, 1e9)
    assert type(norm) is float
    assert abs(norm - exact_norm(grads)) < 1e-14 * norm
    assert clipped is grads


@every_dtype
@given(seed=st.integers(0, 2**32 - 1), max_norm=st.floats(1e-6, 1e6))
def test_clipping_shortens_to_the_norm_and_keeps_the_direction(
    dtype: Any, seed: int, max_norm: float
) -> None:
    rng = np.random.default_rng(seed)
    grads = {"a": normal(rng, (3, 2), dtype) * 10, "b": normal(rng, (4,), dtype)}
    before = {key: grad.copy() for key, grad in grads.items()}
    clipped, norm = clip_grad_norm(grads, max_norm)
    slack = 4 * float(np.finfo(dtype).eps)
    if norm <= max_norm:
        assert clipped is grads
    else:
        assert [*clipped] == [*grads]
        assert abs(exact_norm(clipped) - max_norm) <= slack * max_norm
        for key, grad in clipped.items():
            assert grad.dtype == dtype
            assert not np.shares_memory(grad, grads[key])
            assert_close(grad, grads[key].astype(float) * (max_norm / norm), slack, key)
    for key, grad in grads.items():
        assert_same_bits(grad, before[key], key)


def test_a_norm_of_just_the_bound_is_not_clipped() -> None:
    grads = {"w": np.array([3.0, 4.0], np.float32)}
    assert clip_grad_norm(grads, 5.0)[0] is grads
    assert clip_grad_norm(grads, np.nextafter(5.0, 0.0))[0] is not grads


def test_gradients_of_nothing_have_the_norm_zero() -> None:
    for grads in ({}, {"w": np.zeros((0, 3))}, {"w": np.zeros(4, np.float32)}):
        clipped, norm = clip_grad_norm(grads, 1.0)
        assert clipped is grads
        assert norm == 0


def test_squares_that_float32_cannot_hold_do_not_make_the_norm_infinite() -> None:
    grads = {"w": np.full(4, 1e30, np.float32), "b": np.full(1, 1e200)}
    assert abs(clip_grad_norm({"w": grads["w"]}, 1.0)[1] - 2e30) < 1e24
    assert clip_grad_norm({"w": np.full(3, 1e-30, np.float32)}, 1.0)[1] > 1e-30
    clipped, _ = clip_grad_norm({"w": grads["w"]}, 1.0)
    np.testing.assert_allclose(clipped["w"], 0.5, rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_norm_that_is_not_finite_names_the_gradients_to_blame(bad: float) -> None:
    grads = gradients(np.float32, 0) | {"lstm.weight": np.ones(3), "spared": np.ones(2)}
    grads["bias"][1], grads["lstm.weight"][2] = bad, np.nan
    with pytest.raises(FloatingPointError, match=r"^grads: ") as caught:
        clip_grad_norm(grads, 1.0)
    message = str(caught.value)
    assert "bias (nan)" in message or "bias (inf)" in message
    assert "lstm.weight (nan)" in message
    assert "spared" not in message


def test_the_norm_has_the_same_bits_on_any_number_of_threads() -> None:
    grads = {"w": normal(np.random.default_rng(0), (700, 300), np.float32)}
    norms = set()
    for num_threads in (1, 2, 4):
        set_num_threads(num_threads)
        norms.add(clip_grad_norm(grads, 1.0)[1])
    assert len(norms) == 1


def test_what_clipping_takes_is_checked() -> None:
    grads = gradients(np.float32, 0)
    for bad in (0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"^max_norm: expected a finite number > 0"):
            clip_grad_norm(grads, bad)
    for wrong in ("1", None, True):
        with pytest.raises(TypeError, match=r"^max_norm: expected a number"):
            clip_grad_norm(grads, wrong)  # type: ignore[arg-type]
    for nothing in ([*grads.values()], None, grads["bias"]):
        with pytest.raises(TypeError, match=r"^grads: expected a dict"):
            clip_grad_norm(nothing, 1.0)  # type: ignore[arg-type]


@pytest.mark.oracle
@every_dtype
@pytest.mark.parametrize("max_norm", [0.01, 1.0, 1e6])
def test_clipping_equals_torchs(dtype: Any, max_norm: float) -> None:
    torch = pytest.importorskip("torch")
    grads = gradients(dtype, 3)
    theirs = [torch.nn.Parameter(torch.tensor(grad)) for grad in grads.values()]
    for parameter in theirs:
        parameter.grad = parameter.detach().clone()
    expected = torch.nn.utils.clip_grad_norm_(theirs, max_norm).item()
    clipped, norm = clip_grad_norm(grads, max_norm)
    assert abs(norm - expected) < 1e-6 * expected
    for grad, parameter in zip(clipped.values(), theirs, strict=True):
        # torch divides by norm + 1e-6.
        assert_close(grad, parameter.grad.numpy(), 2e-6)


def test_optimisers_say_what_they_are() -> None:
    parameters = Parameters(weights(np.float32))
    assert repr(SGD(parameters, 0.1, momentum=0.9)) == (
        "SGD(lr=0.1, momentum=0.9, nesterov=False, weight_decay=0)"
    )
    assert repr(AdamW(parameters)) == (
        "AdamW(lr=0.001, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.01)"
    )
