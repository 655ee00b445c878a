"""fastlstm.interop.torch.LSTM is torch.nn.LSTM, on other kernels: results, gradients, manners."""

from __future__ import annotations

import copy
import inspect
import io
import itertools
import pickle
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence  # noqa: E402

from benchmarks.in_torch import TOLERANCE, Settings, curves, parted  # noqa: E402
from fastlstm import interop, set_num_threads, threads  # noqa: E402
from fastlstm.interop.torch import LSTM, from_torch  # noqa: E402
from fastlstm.parameters import Parameters  # noqa: E402
from tests.support import assert_close, assert_same_bits, tolerance_of  # noqa: E402

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.filterwarnings("ignore:LSTM with projections"),  # torch's own, of its speed
]

Tensor = torch.Tensor
STEPS, BATCH, FEATURES, HIDDEN = 6, 4, 3, 5
LENGTHS = (4, 6, 1, 3)

OPTIONS: list[dict[str, Any]] = [
    {},
    {"num_layers": 3},
    {"bias": False},
    {"batch_first": True},
    {"bidirectional": True},
    {"proj_size": 2},
    {"num_layers": 2, "dropout": 1.0},
    {"num_layers": 2, "bidirectional": True, "proj_size": 3, "batch_first": True},
    {"num_layers": 2, "bidirectional": True, "bias": False},
]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def pair(dtype: Any = torch.float32, **options: Any) -> tuple[Any, Any]:
    """torch's layer and ours with the same weights."""
    theirs = torch.nn.LSTM(FEATURES, HIDDEN, dtype=dtype, **options)
    ours = LSTM(FEATURES, HIDDEN, dtype=dtype, **options)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def like(theirs: Any, ours: Any) -> Any:
    """torch's layer once more, with our weights of now."""
    theirs.load_state_dict(ours.state_dict())
    return theirs


def batch(module: Any) -> Tensor:
    shape = (BATCH, STEPS, FEATURES) if module.batch_first else (STEPS, BATCH, FEATURES)
    return torch.randn(shape, dtype=module.weight_ih_l0.dtype)


def state(module: Any, *axes: int) -> tuple[Tensor, Tensor]:
    runs = module.num_layers * (2 if module.bidirectional else 1)
    dtype = module.weight_ih_l0.dtype
    return (
        torch.randn(runs, *axes, module.proj_size or HIDDEN, dtype=dtype),
        torch.randn(runs, *axes, HIDDEN, dtype=dtype),
    )


def packed(x: Tensor, module: Any, *, enforce_sorted: bool) -> PackedSequence:
    lengths = sorted(LENGTHS, reverse=True) if enforce_sorted else list(LENGTHS)
    return pack_padded_sequence(
        x, torch.tensor(lengths), batch_first=module.batch_first, enforce_sorted=enforce_sorted
    )


KINDS: dict[str, Callable[[Tensor, Any], Any]] = {
    "padded": lambda x, _: x,
    "unbatched": lambda x, module: x[0] if module.batch_first else x[:, 0],
    "sorted": lambda x, module: packed(x, module, enforce_sorted=True),
    "unsorted": lambda x, module: packed(x, module, enforce_sorted=False),
}


def results(module: Any, kind: str, x: Tensor, hx: tuple[Tensor, Tensor] | None) -> dict[str, Any]:
    """Everything that a module gives, and the gradients of a loss that weighs each number."""
    x = x.clone().requires_grad_()
    given = None if hx is None else tuple(part.clone().requires_grad_() for part in hx)
    output, (h_n, c_n) = module(KINDS[kind](x, module), given)
    found = {"h_n": h_n, "c_n": c_n}
    if isinstance(output, PackedSequence):
        found |= {"output": output.data, "batch_sizes": output.batch_sizes}
        if output.sorted_indices is not None:
            found |= {"order": output.sorted_indices, "back": output.unsorted_indices}
    else:
        found["output"] = output
    loss = sum(
        (torch.linspace(-1, 1, part.numel(), dtype=x.dtype).view(part.shape) * part).sum()
        for part in (found["output"], h_n, c_n)
    )
    inputs = {"d_x": x, **dict(module.named_parameters())}
    if given is not None:
        inputs |= {"d_h_0": given[0], "d_c_0": given[1]}
    grads = torch.autograd.grad(loss, list(inputs.values()))
    return found | dict(zip(inputs, grads, strict=True))


def assert_same(theirs: dict[str, Any], ours: dict[str, Any], dtype: Any) -> None:
    assert theirs.keys() == ours.keys()
    for name, expected in theirs.items():
        assert ours[name].dtype == expected.dtype, name
        tolerance = tolerance_of(str(dtype).removeprefix("torch."))
        actual, wanted = ours[name].detach().numpy(), expected.detach().numpy()
        assert_close(actual, wanted, tolerance, name)


# --- results and gradients ------------------------------------------------------------------------


@pytest.mark.parametrize("with_state", [False, True], ids=["zeros", "state"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_it_computes_what_torch_computes(
    options: dict[str, Any], kind: str, dtype: Any, with_state: bool
) -> None:
    theirs, ours = pair(dtype, **options)
    x = batch(ours)
    hx = state(ours, *(() if kind == "unbatched" else (BATCH,))) if with_state else None
    assert_same(results(theirs, kind, x, hx), results(ours, kind, x, hx), dtype)


@pytest.mark.parametrize("steps", [1, 40])
@pytest.mark.parametrize("features", [1, 33])
@pytest.mark.parametrize("hidden", [1, 17, 64])
def test_sizes_of_whole_panels_and_others(steps: int, features: int, hidden: int) -> None:
    theirs = torch.nn.LSTM(features, hidden, 2, bidirectional=True)
    ours = LSTM(features, hidden, 2, bidirectional=True)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(steps, 9, features)
    assert_same(results(theirs, "padded", x, None), results(ours, "padded", x, None), x.dtype)


@pytest.mark.parametrize(
    ("kind", "options"),
    [(kind, {}) for kind in KINDS]
    + [("padded", {"num_layers": 2}), ("unsorted", {"proj_size": 1})],
)
def test_gradcheck(kind: str, options: dict[str, Any]) -> None:
    module = LSTM(2, 2, bidirectional=True, dtype=torch.float64, **options)
    steps = torch.randn(2, 2, 2, dtype=torch.float64, requires_grad=True)
    hx = tuple(
        torch.randn(
            2 * module.num_layers, *(() if kind == "unbatched" else (2,)), size, dtype=torch.float64
        )
        for size in (module.proj_size or 2, 2)
    )
    lengths = {"sorted": [2, 1], "unsorted": [1, 2]}.get(kind)

    def function(x: Tensor, h_0: Tensor, c_0: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        if lengths is not None:
            given = pack_padded_sequence(
                x, torch.tensor(lengths), module.batch_first, enforce_sorted=kind == "sorted"
            )
        else:
            given = x[0] if kind == "unbatched" else x
        named = dict(zip(dict(module.named_parameters()), weights, strict=True))
        output, last = torch.func.functional_call(module, named, (given, (h_0, c_0)))
        return output.data, *last

    inputs = (steps, *hx, *module.parameters())
    inputs = tuple(tensor.detach().clone().requires_grad_() for tensor in inputs)
    assert torch.autograd.gradcheck(function, inputs)


def test_any_layout_of_x_states_and_gradients() -> None:
    theirs, ours = pair(torch.float64)
    wide = torch.randn(BATCH, STEPS, 2 * FEATURES, dtype=torch.float64)
    x = wide.transpose(0, 1)[:, :, ::2]
    h_0 = torch.randn(BATCH, 1, HIDDEN, dtype=torch.float64).transpose(0, 1)
    c_0 = torch.randn(1, 1, HIDDEN, dtype=torch.float64).expand(1, BATCH, HIDDEN)
    found = []
    for module in (theirs, ours):
        output, (h_n, c_n) = module(x, (h_0, c_0))
        loss = output.sum() + h_n[0, 0, 0] + c_n.transpose(0, 2).flatten()[3]
        found.append([output, h_n, c_n, *torch.autograd.grad(loss, list(module.parameters()))])
    for expected, actual in zip(*found, strict=True):
        assert_close(actual.detach().numpy(), expected.detach().numpy(), 1e-12)


def test_outputs_have_torchs_layout() -> None:
    for options in ({}, {"batch_first": True}):
        theirs, ours = pair(**options)
        expected, actual = theirs(batch(ours))[0], ours(batch(ours))[0]
        assert actual.shape == expected.shape
        assert actual.is_contiguous() == expected.is_contiguous()


def test_losses_of_some_results_alone() -> None:
    theirs, ours = pair(torch.float64)
    x = batch(ours)
    for pick in (lambda out: out[0][2], lambda out: out[1][0], lambda out: out[1][1]):
        expected, actual = (
            torch.autograd.grad(pick(module(x)).sum(), list(module.parameters()))
            for module in (theirs, ours)
        )
        for a, b in zip(expected, actual, strict=True):
            assert_close(b.numpy(), a.numpy(), 1e-12)


# --- dropout --------------------------------------------------------------------------------------


def test_dropout_draws_from_torchs_generator() -> None:
    _, module = pair(num_layers=2, dropout=0.5)
    x = batch(module)

    def run(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return module(x)[0]

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))
    torch.manual_seed(1)
    assert not torch.equal(module(x)[0], module(x)[0])
    with torch.no_grad():
        assert torch.equal(run(1), module.train()(x)[0]) is False
        torch.manual_seed(1)
        assert torch.equal(module(x)[0], run(1))


def test_dropout_acts_in_training_alone_and_between_layers() -> None:
    theirs, ours = pair(num_layers=2, dropout=0.5)
    x = batch(ours)
    before = torch.get_rng_state()
    assert torch.allclose(ours.eval()(x)[0], theirs.eval()(x)[0], atol=1e-6)
    assert torch.equal(torch.get_rng_state(), before), "nothing is drawn"
    assert not torch.allclose(ours.train()(x)[0], theirs(x)[0], atol=1e-3)
    with pytest.warns(UserWarning, match="num_layers greater than 1"):
        single = LSTM(FEATURES, HIDDEN, dropout=0.5)
    assert torch.equal(single(x)[0], single(x)[0])


@pytest.mark.parametrize("grad", [True, False])
def test_dropout_zeroes_a_share_and_scales_the_rest(grad: bool) -> None:
    """Of one unit without biases, what was zeroed stays zero in the layer above."""
    p, count = 0.3, 50_000
    module = LSTM(1, 1, 2, bias=False, dropout=p)
    x = torch.randn(1, count, 1) + 2
    with torch.set_grad_enabled(grad):
        output = module(x)[0]
    assert abs((output == 0).double().mean().item() - p) < 4 * (p * (1 - p) / count) ** 0.5

    lower, upper = torch.nn.LSTM(1, 1, bias=False), torch.nn.LSTM(1, 1, bias=False)
    own = module.state_dict()
    lower.load_state_dict({k: v for k, v in own.items() if "l0" in k})
    upper.load_state_dict({k.replace("l1", "l0"): v for k, v in own.items() if "l1" in k})
    expected = upper(lower(x)[0] / (1 - p))[0]
    kept = output != 0
    assert torch.allclose(output[kept], expected[kept], rtol=1e-5, atol=1e-7)


# --- what needs a gradient ------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", ["x", "h_0", "c_0", "weights", "weight_hh_l1", "bias_ih_l0"])
def test_only_what_requires_a_gradient_gets_one(wanted: str) -> None:
    found = []
    for module in pair(torch.float64, num_layers=2):
        torch.manual_seed(5)
        x, (h_0, c_0) = batch(module), state(module, BATCH)
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(wanted in ("weights", name))
        inputs = {"x": x, "h_0": h_0, "c_0": c_0, **dict(module.named_parameters())}
        for name in ("x", "h_0", "c_0"):
            inputs[name].requires_grad_(wanted == name)
        output, _ = module(x, (h_0, c_0))
        output.square().sum().backward()
        found.append({name: tensor.grad for name, tensor in inputs.items()})
    for name, expected in found[0].items():
        assert (found[1][name] is None) == (expected is None), name
        if expected is not None:
            assert_close(found[1][name].numpy(), expected.numpy(), 1e-12, name)


def test_without_gradients_there_is_no_tape() -> None:
    _, module = pair(num_layers=2)
    x = batch(module)
    expected = module(x)[0]
    assert expected.grad_fn is not None
    with torch.no_grad():
        output, _ = module(x)
    assert output.grad_fn is None
    assert torch.equal(output, expected)
    with torch.inference_mode():
        assert torch.equal(module(x)[0], expected)
        assert torch.equal(module(x.clone())[0], expected), "an inference tensor as x"
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    assert module(x)[0].grad_fn is None
    assert module(x.requires_grad_())[0].grad_fn is not None


def test_a_second_derivative_raises_and_is_not_zero() -> None:
    _, module = pair(torch.float64)
    x = batch(module).requires_grad_()
    for loss in (module(x)[0].sum(), module(x)[0].square().sum()):
        grads = torch.autograd.grad(loss, [x, *module.parameters()], create_graph=True)
        for grad in grads:
            with pytest.raises(RuntimeError, match="can be differentiated once"):
                grad.square().sum().backward(retain_graph=True)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_retained_graph_can_be_walked_again(dropout: float) -> None:
    _, module = pair(num_layers=2, dropout=dropout)
    x = batch(module).requires_grad_()
    loss = module(x, state(module, BATCH))[0].square().sum()
    inputs = [x, *module.parameters()]
    first = torch.autograd.grad(loss, inputs, retain_graph=True)
    for again in (True, False):
        for a, b in zip(first, torch.autograd.grad(loss, inputs, retain_graph=again), strict=True):
            assert torch.equal(a, b)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(loss, inputs)


# --- changes in place -----------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["x", "h_0", "c_0", "weight_ih_l0", "weight_hh_l0"])
def test_a_change_between_forward_and_backward_raises(what: str) -> None:
    for module in pair():
        x, (h_0, c_0) = batch(module), state(module, BATCH)
        loss = module(x, (h_0, c_0))[0].sum()
        with torch.no_grad():
            {"x": x, "h_0": h_0, "c_0": c_0, **dict(module.named_parameters())}[what].mul_(1.5)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def test_results_may_be_changed() -> None:
    found = []
    for module in pair(torch.float64):
        torch.manual_seed(5)
        x = batch(module)
        output, (h_n, c_n) = module(x)
        output.mul_(2)
        h_n.add_(1)
        c_n.zero_()
        (output.sum() + h_n.square().sum()).backward()
        found.append([output, h_n, *(p.grad for p in module.parameters())])
    for expected, actual in zip(*found, strict=True):
        assert_close(actual.detach().numpy(), expected.detach().numpy(), 1e-12)


# --- weights that change --------------------------------------------------------------------------


def add_in_place(module: Any) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1)


def add_to_data(module: Any) -> None:
    for parameter in module.parameters():
        parameter.data.add_(0.1)


def negate_data(module: Any) -> None:
    for parameter in module.parameters():
        parameter.data.neg_()


def swap_gates(module: Any) -> None:
    for parameter in module.parameters():
        parameter.data.copy_(parameter.data.roll(HIDDEN, 0))


def one_number(module: Any) -> None:
    module.weight_hh_l0.data[3, 2] += 0.5


def write_through_numpy(module: Any) -> None:
    module.weight_ih_l0.detach().numpy()[...] += 0.1


def other_data(module: Any) -> None:
    for parameter in module.parameters():
        parameter.data = parameter.data + 0.1


def other_parameter(module: Any) -> None:
    module.weight_hh_l0 = torch.nn.Parameter(module.weight_hh_l0.detach() + 0.1)


def load(module: Any) -> None:
    module.load_state_dict({k: v + 0.1 for k, v in module.state_dict().items()})


def reset(module: Any) -> None:
    module.reset_parameters()


def optimise(module: Any) -> None:
    optimiser = torch.optim.Adam(module.parameters(), lr=0.1)
    module(torch.ones(2, 1, FEATURES))[0].sum().backward()
    optimiser.step()


def transpose_in_memory(module: Any) -> None:
    module.weight_ih_l0.data = module.weight_ih_l0.data.t().contiguous().t() + 0.1


SEEN = [add_in_place, other_data, other_parameter, load, reset, optimise, transpose_in_memory]
UNSEEN = [add_to_data, negate_data, swap_gates, one_number, write_through_numpy]  # by torch


@pytest.mark.parametrize("hidden", [HIDDEN, 65])
@pytest.mark.parametrize("change", SEEN + UNSEEN, ids=lambda change: change.__name__)
def test_changed_weights_are_seen(change: Callable[[Any], None], hidden: int) -> None:
    """In training always; without a tape, those that torch does not notice after a training step
    or one of the calls that begin an evaluation."""
    theirs, ours = torch.nn.LSTM(FEATURES, hidden), LSTM(FEATURES, hidden)
    x = batch(ours)

    def check(call: Callable[[], Tensor]) -> None:
        call()
        change(ours)
        expected = like(theirs, ours)(x)[0].detach()
        assert torch.allclose(call(), expected, rtol=1e-5, atol=1e-6)
        assert torch.allclose(infer(), expected, rtol=1e-5, atol=1e-6)

    def train() -> Tensor:
        return ours(x)[0].detach()

    def infer() -> Tensor:
        with torch.no_grad():
            return ours(x)[0]

    def evaluate() -> Tensor:
        ours.eval()
        return infer()

    def flatten() -> Tensor:
        ours.flatten_parameters()
        return infer()

    for call in (train, evaluate, flatten, *([infer] if change in SEEN else [])):
        check(call)


def test_gradients_are_those_of_changed_weights() -> None:
    theirs, ours = pair(torch.float64)
    x = batch(ours)
    for change in (add_to_data, add_in_place, other_data):
        results(ours, "padded", x, None)
        change(ours)
        expected = results(like(theirs, ours), "padded", x, None)
        assert_same(expected, results(ours, "padded", x, None), x.dtype)


def test_weights_that_are_computed() -> None:
    weight_norm = torch.nn.utils.parametrizations.weight_norm
    theirs, ours = (weight_norm(module, "weight_hh_l0") for module in pair(torch.float64))
    for _ in range(3):
        x = batch(ours)
        assert_same(results(theirs, "padded", x, None), results(ours, "padded", x, None), x.dtype)
        with torch.no_grad():
            for module in (theirs, ours):
                for parameter in module.parameters():
                    parameter.mul_(1.1)


def test_frozen_and_shared_weights() -> None:
    first, second = LSTM(FEATURES, HIDDEN), LSTM(FEATURES, HIDDEN)
    second.weight_hh_l0 = first.weight_hh_l0
    x = batch(first)
    (first(x)[0] + second(x)[0]).sum().backward()
    assert first.weight_hh_l0.grad is second.weight_hh_l0.grad


def test_memory_is_shared_and_panels_are_kept() -> None:
    module = LSTM(FEATURES, HIDDEN)
    x = batch(module)
    output, _ = module(x)
    (layer,) = output.grad_fn.layers
    assert np.shares_memory(layer.runs[0].x, x.numpy())
    kept = module._kept._weights
    for name, parameter in module.named_parameters():
        assert np.shares_memory(kept.parameters[name], parameter.detach().numpy())
    assert isinstance(kept.parameters, Parameters)
    with torch.no_grad():
        module(x)
    module(x)
    assert module._kept._weights is kept
    add_in_place(module)
    module(x)
    assert module._kept._weights is not kept


def test_many_threads_may_use_one_module() -> None:
    module = LSTM(16, 32, 2).eval()
    xs = [torch.randn(9, 3, 16) for _ in range(8)]
    with torch.no_grad():
        expected = [module(x)[0] for x in xs]

    def run(x: Tensor) -> Tensor:
        with torch.no_grad():
            return module(x)[0]

    with ThreadPoolExecutor(4) as pool:
        for want, got in zip(expected * 10, pool.map(run, xs * 10), strict=True):
            assert torch.equal(want, got)


def test_no_more_threads_than_torch_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    teams: list[int] = []
    enter = threads._Team.__enter__

    def note(team: Any) -> int:
        teams.append(enter(team))
        return teams[-1]

    monkeypatch.setattr(threads._Team, "__enter__", note)
    monkeypatch.setattr(threads._BlasHold, "__enter__", lambda _: teams.append(1))
    monkeypatch.setattr(threads._BlasHold, "__exit__", lambda *_: None)
    module, x = LSTM(64, 64), torch.randn(20, 64, 64)
    with set_num_threads(2):
        for allowed in (1, 2):
            teams.clear()
            torch.set_num_threads(allowed)
            module(x)[0].sum().backward()
            assert max(teams) <= allowed
            assert teams


# --- on real text ---------------------------------------------------------------------------------


@pytest.mark.parametrize("num_layers", [1, 2])
def test_a_model_of_characters_learns_as_with_torchs_layer(num_layers: int) -> None:
    """`python -m benchmarks.in_torch` does the same over 200 steps of a larger one."""
    sizes = Settings(hidden_size=32, batch_size=8, length=24, num_layers=num_layers)
    with set_num_threads(1):
        theirs, ours = curves(sizes, 40)
    assert theirs[-1] < theirs[0] - 0.5, "it learns"
    assert parted(theirs, ours) <= TOLERANCE


def test_curves_that_part_are_found() -> None:
    assert parted([2.0, 4.0], [2.0, 4.0]) == 0
    assert parted([2.0, 4.0, 1.0], [2.0, 5.0, 0.9]) == 0.25


# --- a module as any other ------------------------------------------------------------------------


def test_signature_and_attributes_are_torchs() -> None:
    theirs = inspect.signature(torch.nn.RNNBase).parameters
    ours = inspect.signature(LSTM).parameters
    assert list(ours) == [name for name in theirs if name != "mode"]
    for name, parameter in ours.items():
        assert parameter.default == theirs[name].default, name
        assert parameter.kind == theirs[name].kind, name
    assert list(inspect.signature(LSTM.forward).parameters) == ["self", "input", "hx"]
    assert interop.torch.LSTM is LSTM


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_it_is_built_as_torchs(options: dict[str, Any]) -> None:
    torch.manual_seed(3)
    theirs = torch.nn.LSTM(FEATURES, HIDDEN, **options)
    torch.manual_seed(3)
    ours = LSTM(FEATURES, HIDDEN, **options)
    assert isinstance(ours, torch.nn.LSTM)
    assert repr(ours) == repr(theirs)
    for a, b in zip(
        itertools.chain(*theirs.all_weights), itertools.chain(*ours.all_weights), strict=True
    ):
        assert torch.equal(a, b)
    theirs.load_state_dict(ours.state_dict())
    ours.load_state_dict(theirs.state_dict())
    assert list(ours.state_dict()) == list(theirs.state_dict())


def through_pickle(module: Any) -> Any:
    return pickle.loads(pickle.dumps(module))


def through_torch(module: Any) -> Any:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("copied", [copy.deepcopy, through_pickle, through_torch])
def test_copies_are_modules_of_their_own(copied: Callable[[Any], Any]) -> None:
    module = LSTM(FEATURES, HIDDEN, 2, batch_first=True)
    x = batch(module)
    expected, _ = module(x)
    other = copied(module)
    assert torch.equal(other(x)[0], expected)
    add_in_place(other)
    assert torch.equal(module(x)[0], expected)
    assert not torch.equal(other(x)[0], expected)
    size = len(pickle.dumps(LSTM(FEATURES, HIDDEN, 2, batch_first=True)))
    assert abs(len(pickle.dumps(module)) - size) < 20, "panels are not pickled"


def test_other_dtypes_and_devices_on_the_way() -> None:
    module = LSTM(FEATURES, HIDDEN)
    x = batch(module)
    expected, _ = module(x)
    assert module.double()(x.double())[0].dtype == torch.float64
    assert torch.allclose(module.float()(x)[0], expected)
    empty = LSTM(FEATURES, HIDDEN, device="meta").to_empty(device="cpu")
    empty.load_state_dict(module.state_dict())
    assert torch.equal(empty(x)[0], expected)


def test_checkpointing_by_torch() -> None:
    from torch.utils.checkpoint import checkpoint

    _, module = pair(num_layers=2, dropout=0.5)
    x = batch(module).requires_grad_()
    found = []
    for run in (module, lambda x: checkpoint(module, x, use_reentrant=False)):
        torch.manual_seed(1)
        output = run(x)[0]
        found.append([output, *torch.autograd.grad(output.sum(), [x, *module.parameters()])])
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


def test_traced_it_is_torchs_own() -> None:
    module = LSTM(FEATURES, HIDDEN).eval()
    x = batch(module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(module, x)
    assert "aten::lstm" in str(traced.inlined_graph)
    with torch.no_grad():
        assert torch.allclose(traced(x)[0], module(x)[0], atol=1e-6)


def test_exported_it_is_torchs_own() -> None:
    module = LSTM(FEATURES, HIDDEN, batch_first=True).eval()
    x = batch(module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.export.export(module, (x,))
    assert "aten.lstm" in str(exported.graph)
    with torch.no_grad():
        assert torch.allclose(exported.module()(x)[0], module(x)[0], atol=1e-6)


class Tagger(torch.nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.below = torch.nn.Linear(FEATURES, FEATURES)
        self.lstm = LSTM(FEATURES, HIDDEN, 2, dropout=0.5)
        self.above = torch.nn.Linear(HIDDEN, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.above(self.lstm(self.below(x).relu())[0].relu())


def test_torch_compile_leaves_it_out() -> None:
    model = Tagger()
    x = torch.randn(STEPS, BATCH, FEATURES)
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for each in (model, torch.compile(model, backend="eager")):
            torch.manual_seed(1)
            output = each(x)
            found.append([output, *torch.autograd.grad(output.sum(), list(model.parameters()))])
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)
    assert model.lstm._kept._weights is not None, "ours has run"


def test_it_gives_the_bits_of_the_layer_without_torch() -> None:
    module = LSTM(FEATURES, HIDDEN, 2, bidirectional=True)
    layer = from_torch(module)
    x = torch.randn(STEPS, BATCH, FEATURES, requires_grad=True)
    output, _ = module(x)
    d_output = torch.randn_like(output)
    grads = torch.autograd.grad(output, [x, *module.parameters()], d_output)
    array, _, tape = layer.forward(x.detach().numpy())
    d_x, _, expected = layer.backward(tape, d_output.numpy())
    assert_same_bits(output.detach().numpy(), array)
    for ours, theirs in zip(grads, (d_x, *expected.values()), strict=True):
        assert_same_bits(ours.numpy(), theirs)


def test_hooks_see_gradients() -> None:
    module = LSTM(FEATURES, HIDDEN)
    seen: list[Any] = []
    module.register_full_backward_hook(lambda *given: seen.append(given[2][0].shape))
    module(batch(module).requires_grad_())[0].sum().backward()
    assert seen == [(STEPS, BATCH, HIDDEN)]


def test_a_loop_of_single_steps() -> None:
    """Each step is a call of its own, and the state carries the gradient."""
    found = []
    for module in pair(torch.float64):
        torch.manual_seed(5)
        x = batch(module).requires_grad_()
        hx, loss = None, torch.zeros((), dtype=torch.float64)
        for x_t in x.split(1):
            output, hx = module(x_t, hx)
            loss = loss + output.square().sum()
        found.append(torch.autograd.grad(loss, [x, *module.parameters()]))
    for expected, actual in zip(*found, strict=True):
        assert_close(actual.numpy(), expected.numpy(), 1e-12)


# --- empty extents --------------------------------------------------------------------------------


def test_no_sequences() -> None:
    for module in pair():
        output, (h_n, c_n) = module(torch.ones(STEPS, 0, FEATURES))
        assert output.shape == (STEPS, 0, HIDDEN)
        assert h_n.shape == c_n.shape == (1, 0, HIDDEN)


def test_no_steps_keep_the_state() -> None:
    module = LSTM(FEATURES, HIDDEN)
    hx = state(module, BATCH)
    output, (h_n, c_n) = module(torch.ones(0, BATCH, FEATURES), hx)
    assert output.shape == (0, BATCH, HIDDEN)
    assert torch.equal(h_n, hx[0])
    assert torch.equal(c_n, hx[1])


# --- what does not fit ----------------------------------------------------------------------------

X = torch.ones(STEPS, BATCH, FEATURES)
H = torch.ones(1, BATCH, HIDDEN)


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        (X.numpy(), TypeError, r"input: expected a torch.Tensor, got a ndarray"),
        (
            X.half(),
            TypeError,
            r"input: expected torch.float32 .*got torch.float16.*input.float\(\)",
        ),
        (X.bfloat16(), TypeError, r"input: .*got torch.bfloat16"),
        (X.long(), TypeError, r"input: .*got torch.int64"),
        (X.double(), ValueError, r"input: expected torch.float32, as weights have"),
        (X.to("meta"), ValueError, "input: expected a dense tensor on the CPU.* on meta"),
        (X.to_sparse(), ValueError, "input: expected a dense tensor.*torch.sparse_coo"),
        (X[0, 0], ValueError, "input: expected 2 or 3 axes, got 1"),
        (X[None], ValueError, "input: expected 2 or 3 axes, got 4"),
        (X[..., :2], RuntimeError, "input: expected 3 features, got 2"),
    ],
)
def test_inputs_that_do_not_fit(given: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        LSTM(FEATURES, HIDDEN)(given)


@pytest.mark.parametrize(
    ("hx", "error", "said"),
    [
        (H, TypeError, r"hx: expected a pair \(h_0, c_0\)"),
        ((H, H, H), ValueError, r"hx: expected a pair .*got 3 items"),
        ((H, None), TypeError, r"c_0: expected a torch.Tensor"),
        ((H[0], H), RuntimeError, r"h_0: expected size \(1, 4, 5\), got \(4, 5\)"),
        ((H, H[:, :3]), RuntimeError, r"c_0: expected size \(1, 4, 5\), got \(1, 3, 5\)"),
        ((H.double(), H), ValueError, r"h_0: expected torch.float32, as weights have"),
        ((H, H.half()), TypeError, r"c_0: .*got torch.float16"),
        ((H, H.to("meta")), ValueError, r"c_0: .* on meta"),
    ],
)
def test_states_that_do_not_fit(hx: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        LSTM(FEATURES, HIDDEN)(X, hx)


def test_weights_that_do_not_fit() -> None:
    with pytest.raises(TypeError, match=r"weight_ih_l0: .*torch.float16.*module.float\(\)"):
        LSTM(FEATURES, HIDDEN).half()(X.half())
    with pytest.raises(ValueError, match=r"weight_ih_l0: .* on meta"):
        LSTM(FEATURES, HIDDEN, device="meta")(X)
    module = LSTM(FEATURES, HIDDEN)
    module.bias_hh_l0.data = module.bias_hh_l0.data.double()
    with pytest.raises(TypeError, match=r"bias_hh_l0: expected torch.float32, got torch.float64"):
        module(X)
    module = LSTM(FEATURES, HIDDEN)
    module.hidden_size = 50
    with pytest.raises(RuntimeError, match=r"weight_ih_l0: expected size \(200, 3\)"):
        module(X)


@pytest.mark.parametrize("sizes", [[3, 4], [4, 4, 0], [4, 3], [], [4, -1]])
def test_packed_sequences_made_by_hand(sizes: list[int]) -> None:
    rows = sum(sizes) + (sizes == [4, 3])
    given = PackedSequence(torch.ones(rows, FEATURES), torch.tensor(sizes, dtype=torch.int64))
    with pytest.raises(ValueError, match="expected a PackedSequence whose batch_sizes do not grow"):
        LSTM(FEATURES, HIDDEN)(given)
