"""torch's weights in and out: equal to the bit, sizes read off shapes, misfits named."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fastlstm import LSTM, LSTMCell
from fastlstm.interop.torch import from_torch, to_torch
from tests.support import Array, assert_close, assert_same_bits, normal, tolerance_of

OPTIONS: list[dict[str, Any]] = [
    dict(zip(("num_layers", "bias", "batch_first", "bidirectional"), values, strict=True))
    for values in itertools.product((1, 3), (True, False), (False, True), (False, True))
]
OPTIONS += [{"num_layers": 2, "proj_size": 2, "bidirectional": two} for two in (False, True)]


def state_of(
    input_size: int = 3,
    hidden_size: int = 4,
    prefix: str = "",
    dtype: Any = np.float32,
    **options: Any,
) -> dict[str, Array]:
    """A state dict of random numbers, as torch.nn.LSTM's would be, without torch."""
    lstm = LSTM(input_size, hidden_size, dtype=dtype, rng=0, **options)
    return {f"{prefix}{name}": array for name, array in lstm.state_dict().items()}


CELL = LSTMCell(3, 4, rng=0).state_dict()


@pytest.fixture(name="torch")
def _torch() -> Iterator[Any]:
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch
    torch.set_num_threads(before)


# --- state dicts, without torch -------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_sizes_are_read_off_names_and_shapes(options: dict[str, Any], dtype: Any) -> None:
    expected = LSTM(3, 4, dtype=dtype, rng=1, **options)
    state = expected.state_dict()
    lstm = from_torch(state, batch_first=expected.batch_first)
    assert lstm.get_config() == expected.get_config()
    for name, array in lstm.state_dict().items():
        assert_same_bits(array, state[name], name)


def test_weights_are_copied() -> None:
    state = state_of()
    lstm = from_torch(state)
    state["weight_ih_l0"][...] = 0
    assert lstm.weight_ih_l0.all()


def test_a_prefix_picks_one_lstm_of_many() -> None:
    state = {
        **state_of(3, 4, "encoder.rnn."), **state_of(4, 6, "decoder."),
        "head.weight": np.ones((2, 6)), "encoder.steps": np.array(3),
    }  # fmt: skip
    for prefix in ("encoder.rnn", "encoder.rnn."):
        assert from_torch(state, prefix=prefix).input_size == 3
    assert from_torch(state, prefix="decoder").hidden_size == 6


def test_dropout_and_batch_first_are_arguments_for_a_state_dict() -> None:
    lstm = from_torch(state_of(num_layers=2), dropout=0.25, batch_first=True)
    assert (lstm.dropout, lstm.batch_first) == (0.25, True)


def test_names_without_a_layer_are_a_cells() -> None:
    cell = from_torch({f"cell.{name}": array for name, array in CELL.items()}, prefix="cell")
    assert isinstance(cell, LSTMCell)
    for name, array in cell.state_dict().items():
        assert_same_bits(array, CELL[name], name)
    with pytest.raises(ValueError, match="batch_first: an LSTMCell has no such option"):
        from_torch(CELL, batch_first=True)


def without(state: dict[str, Array], *names: str) -> dict[str, Array]:
    return {name: array for name, array in state.items() if name not in names}


@pytest.mark.parametrize(
    ("state", "prefix", "said"),
    [
        ({}, "", "expected weight_ih_l0, .* found none"),
        (state_of(prefix="a.b."), "", r"found 'a.b.weight_ih_l0'.*under prefix='a.b.'"),
        (state_of(prefix="a."), "b", r"under 'b.', expected .* found none; .* prefix='a.'"),
        ({**state_of(), "fc.weight": np.ones(2)}, "", r"found 'fc.weight'$"),
        (CELL | {"weight_ih_l0": np.ones(2)}, "", r"found 'weight_ih_l0'$"),
        (CELL | {"weight_hr": np.ones(2)}, "", r"found 'weight_hr'$"),
        ({**state_of(), "weight_ih": np.ones(2)}, "", r"found 'weight_ih'$"),
        (without(state_of(), "weight_ih_l0"), "", r"missing \['weight_ih_l0'\]"),
        (without(state_of(), "weight_hh_l0"), "", r"missing \['weight_hh_l0'\]"),
        (without(state_of(), "bias_hh_l0"), "", r"missing \['bias_hh_l0'\]"),
        (
            without(state_of(bidirectional=True), "bias_ih_l0_reverse", "weight_hh_l0_reverse"),
            "",
            r"missing \['weight_hh_l0_reverse', 'bias_ih_l0_reverse'\]",
        ),
        (
            without(state_of(num_layers=3), *(k for k in state_of(num_layers=2) if "l1" in k)),
            "",
            "parameters of layer 2, none of 1",
        ),
        (without(state_of(proj_size=2), "weight_hr_l0"), "", "expected 8 rows.*got 16$"),
        ({**state_of(), "weight_hr_l0": np.ones((2, 4))}, "", r"'weight_hh_l0'.*\(16, 2\)"),
        ({**state_of(), "weight_ih_l999999": np.ones((16, 4))}, "", "layer 999999, none of 1"),
        ({**state_of(), "weight_ih_l01": np.ones((16, 4))}, "", r"found 'weight_ih_l01'"),
        (
            {**state_of(), "bias_ih_l0": np.ones(15, np.float32)},
            "",
            r"'bias_ih_l0'.*\(16,\).*\(15,",
        ),
        ({**state_of(), "weight_hh_l0": np.ones(4)}, "", r"'weight_hh_l0'.*matrix, got \(4,\)"),
        ({**state_of(), "weight_hh_l0": np.ones((12, 4))}, "", "expected 16 rows.*a torch.nn.GRU"),
        ({**state_of(), "weight_hh_l0": np.ones((4, 4))}, "", "expected 16 rows.*a torch.nn.RNN"),
        ({**state_of(), "weight_hh_l0": np.ones((9, 4))}, "", "expected 16 rows.*got 9$"),
        ({**state_of(), "weight_ih_l0": np.ones((16, 0), np.float32)}, "", "input_size.*got 0"),
        ({**state_of(), "weight_hh_l0": np.ones((0, 0), np.float32)}, "", "hidden_size.*got 0"),
    ],
)
def test_what_does_not_fit_is_named(state: dict[str, Array], prefix: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        from_torch(state, prefix=prefix)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ([1], "source: expected a torch.nn.LSTM.*got a list"),
        (LSTM(2, 2, rng=0), "source: expected a torch.nn.LSTM.*got a LSTM"),
        ({**state_of(), 3: np.ones(2)}, "names of type str, got 3"),
        (
            {**state_of(), "bias_ih_l0": [1.0]},
            "'bias_ih_l0'.*a tensor or a NumPy array, got a list",
        ),
        ({**state_of(), "bias_ih_l0": np.ones(16)}, "'bias_ih_l0'.*float32, got float64"),
        (
            {k: v.astype(np.float16) for k, v in state_of().items()},
            r"'weight_ih_l0'.*got float16; convert .*astype\('float32'\)",
        ),
        ({k: v.astype(">f4") for k, v in state_of().items()}, "'weight_ih_l0'.*expected float32"),
    ],
)
def test_what_is_of_a_wrong_type_is_named(source: Any, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        from_torch(source)


def test_a_prefix_is_a_str() -> None:
    with pytest.raises(TypeError, match="prefix"):
        from_torch(state_of(), prefix=3)  # type: ignore[arg-type]


def test_to_torch_takes_nothing_but_an_lstm() -> None:
    with pytest.raises(TypeError, match="lstm: expected an LSTM or LSTMCell of ours, got a dict"):
        to_torch({})  # type: ignore[arg-type]


# --- modules --------------------------------------------------------------------------------------


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:LSTM with projections")  # torch's own, of its speed
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_module_there_and_back(torch: Any, options: dict[str, Any], dtype: str) -> None:
    options = {**options, "dropout": 0.25 if options["num_layers"] > 1 else 0.0}
    theirs = torch.nn.LSTM(3, 4, **options, dtype=getattr(torch, dtype))
    ours = from_torch(theirs)
    assert ours.get_config().items() >= {**options, "dtype": dtype}.items()

    back = to_torch(ours)
    assert back.extra_repr() == theirs.extra_repr()
    assert list(back.state_dict()) == list(theirs.state_dict())
    for name, tensor in theirs.state_dict().items():
        assert back.state_dict()[name].dtype == tensor.dtype
        assert torch.equal(back.state_dict()[name], tensor), name
    assert all(parameter.requires_grad for parameter in back.parameters())

    x = normal(np.random.default_rng(0), (5, 2, 3), dtype)
    output, (h_n, c_n) = ours(x)
    with torch.no_grad():
        for module in (theirs.eval(), back.eval()):
            expected, state = module(torch.from_numpy(x))
            assert_close(output, expected.numpy(), tolerance_of(dtype), "output")
            assert_close(h_n, state[0].numpy(), tolerance_of(dtype), "h_n")
            assert_close(c_n, state[1].numpy(), tolerance_of(dtype), "c_n")


@pytest.mark.oracle
def test_ours_to_torch_and_back(torch: Any) -> None:
    lstm = LSTM(3, 4, 2, bidirectional=True, dropout=0.5, batch_first=True, rng=0)
    state = torch.get_rng_state()
    module = to_torch(lstm)
    assert torch.equal(torch.get_rng_state(), state), "no initial weights are drawn"
    back = from_torch(module)
    assert back.get_config() == lstm.get_config()
    for name, array in lstm.state_dict().items():
        assert_same_bits(back.state_dict()[name], array, name)
    with torch.no_grad():
        module.weight_hh_l0.zero_()
    assert lstm.weight_hh_l0.all(), "the module has copies"


@pytest.mark.oracle
@pytest.mark.usefixtures("torch")
def test_options_that_torch_lacks_are_named() -> None:
    lstm = LSTM(3, 4, reverse=True, peepholes=True, input_dropout=0.5, rng=0)
    with pytest.raises(ValueError, match=r"reverse=True, peepholes=True, input_dropout=0.5$"):
        to_torch(lstm)


@pytest.mark.oracle
@pytest.mark.parametrize("bias", [True, False])
def test_a_cell_there_and_back(torch: Any, bias: bool) -> None:
    theirs = torch.nn.LSTMCell(3, 4, bias, dtype=torch.float64)
    for source in (theirs, theirs.state_dict()):
        ours = from_torch(source)
        assert isinstance(ours, LSTMCell)
        back = to_torch(ours)
        assert back.extra_repr() == theirs.extra_repr()
        for name, tensor in theirs.state_dict().items():
            assert torch.equal(back.state_dict()[name], tensor), name
        x = normal(np.random.default_rng(0), (2, 3))
        for array, tensor in zip(ours(x), theirs(torch.from_numpy(x)), strict=True):
            assert_close(array, tensor.detach().numpy(), 1e-12)


@pytest.mark.oracle
def test_an_lstm_inside_of_a_model(torch: Any) -> None:
    model = torch.nn.Module()
    model.encoder = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.LSTM(3, 4))
    for source in (model, model.state_dict()):
        lstm = from_torch(source, prefix="encoder.1")
        assert_same_bits(lstm.weight_ih_l0, model.encoder[1].weight_ih_l0.detach().numpy())
    for prefix in ("", "encoder", "nowhere"):
        with pytest.raises(TypeError, match=r"there is one under prefix='encoder.1'"):
            from_torch(model, prefix=prefix)


@pytest.mark.oracle
def test_weights_that_a_module_computes(torch: Any) -> None:
    module = torch.nn.utils.parametrizations.weight_norm(torch.nn.LSTM(3, 4), "weight_hh_l0")
    lstm = from_torch(module)
    assert_same_bits(lstm.weight_hh_l0, module.weight_hh_l0.detach().numpy())
    with pytest.raises(ValueError, match=r"found 'parametrizations.weight_hh_l0.original0'"):
        from_torch(module.state_dict())


@pytest.mark.oracle
def test_tensors_in_any_layout_and_beside_arrays(torch: Any) -> None:
    expected = state_of(bidirectional=True)
    mixed: dict[str, Any] = dict(expected)
    mixed["weight_ih_l0"] = torch.from_numpy(expected["weight_ih_l0"].T.copy()).T
    mixed["bias_hh_l0"] = torch.nn.Parameter(torch.from_numpy(expected["bias_hh_l0"]))
    for name, array in from_torch(mixed).state_dict().items():
        assert_same_bits(array, expected[name], name)


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_not_converted_silently(torch: Any, dtype: str) -> None:
    module = torch.nn.LSTM(3, 4).to(getattr(torch, dtype))
    for source in (module, module.state_dict()):
        with pytest.raises(TypeError, match=rf"got torch.{dtype}; convert .*tensor.float\(\)"):
            from_torch(source)


@pytest.mark.oracle
def test_other_modules_and_tensors_without_values(torch: Any) -> None:
    with pytest.raises(TypeError, match=r"expected a torch.nn.LSTM or .* got a GRU"):
        from_torch(torch.nn.GRU(3, 4))
    with pytest.raises(ValueError, match=r"those of a torch.nn.GRU"):
        from_torch(torch.nn.GRU(3, 4).state_dict())
    with pytest.raises(ValueError, match=r"those of a torch.nn.RNN"):
        from_torch(torch.nn.RNN(3, 4).state_dict())
    with pytest.raises(TypeError, match=r"a dense tensor with values, got .* on meta"):
        from_torch(torch.nn.LSTM(3, 4, device="meta"))
    sparse = {k: v.to_sparse() for k, v in torch.nn.LSTM(3, 4).state_dict().items()}
    with pytest.raises(TypeError, match=r"a dense tensor with values, got torch.sparse_coo"):
        from_torch(sparse)
