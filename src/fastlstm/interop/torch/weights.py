"""Weights of torch.nn.LSTM and torch.nn.LSTMCell, as modules or as state dicts, in and out.

Names, shapes and the order of the gates are the same on both sides, so what happens here is to
read sizes and options off names and shapes, and to say precisely what does not fit.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm._extras import import_extra
from fastlstm._validate import Array
from fastlstm.cell import LSTMCell
from fastlstm.lstm import LSTM

if TYPE_CHECKING:
    import torch

EXTRA = "torch"

# More digits than six would be more layers than any file has bytes.
_NAME = re.compile(
    r"(?:weight_ih|weight_hh|bias_ih|bias_hh|weight_hr)_l(0|[1-9]\d{0,5})(_reverse)?", re.ASCII
)
_NAME_OF_CELL = re.compile("weight_ih|weight_hh|bias_ih|bias_hh")
_FIRST = re.compile(r"(.*?)weight_hh(?:_l0)?", re.DOTALL)
_SHOWN = 8  # names in an error


@dataclass(frozen=True)
class Found:
    """An LSTM, or a cell, among names and shapes."""

    kind: type[LSTM] | type[LSTMCell]
    names: Mapping[str, str]  # our names -> those that were searched
    sizes: Mapping[str, Any]  # arguments of `kind` that names and shapes tell

    def build(
        self, arrays: Mapping[str, Array], *, batch_first: bool | None, dropout: float | None
    ) -> LSTM | LSTMCell:
        """The layer around copies of arrays under our names; names, shapes, dtypes are checked."""
        given = {"batch_first": batch_first, "dropout": dropout}
        options = {name: value for name, value in given.items() if value is not None}
        if options and self.kind is LSTMCell:
            raise ValueError(f"{', '.join(options)}: an LSTMCell has no such option")
        dtype = next(iter(arrays.values())).dtype
        return self.kind._build({**self.sizes, **options, "dtype": dtype}, arrays)


def from_torch(
    source: torch.nn.Module | Mapping[str, Any],
    *,
    prefix: str = "",
    batch_first: bool | None = None,
    dropout: float | None = None,
) -> LSTM | LSTMCell:
    """An LSTM with the weights of a torch module or state dict, equal to the bit.

    Parameters
    ----------
    source : torch.nn.LSTM, torch.nn.LSTMCell, a module that contains one, or a mapping
        A mapping from names to tensors or NumPy arrays, such as a ``state_dict()``. Its sizes,
        layers, directions, biases and projections are read off names and shapes.
    prefix : str
        Where in `source` the LSTM is: "encoder.rnn" for a module's submodule of this name, or for
        the names in a mapping that begin with "encoder.rnn.".
    batch_first, dropout
        As in `LSTM`. By default those of a module, and False and 0 for a mapping, which knows
        neither.

    Returns
    -------
    lstm : LSTM or LSTMCell
        As `source` is one or the other, with copies of the weights, of their dtype.

    Raises
    ------
    TypeError
        If `source` is none of these, or a weight is not of float32 or float64 (half precision is
        not converted silently).
    ValueError
        If names or shapes are not those of one LSTM; the message names them, and the LSTMs that
        were found elsewhere in `source`.

    Examples
    --------
    >>> import numpy as np
    >>> zeros = {"rnn.weight_ih_l0": np.zeros((8, 3)), "rnn.weight_hh_l0": np.zeros((8, 2))}
    >>> from_torch(zeros, prefix="rnn", batch_first=True)
    LSTM(3, 2, 1, bias=False, batch_first=True, dtype='float64')
    """
    if not isinstance(prefix, str):
        raise TypeError(f"prefix: expected a str, got a {type(prefix).__name__}")
    if isinstance(source, Mapping):
        state = source
    else:
        module = _find_module(source, prefix)
        state, prefix = {name: getattr(module, name) for name in _names_of(module)}, ""
        if batch_first is None:
            batch_first = getattr(module, "batch_first", None)
        if dropout is None:
            dropout = getattr(module, "dropout", None)
    found = find_lstm({name: shape_of(state[name]) for name in state}, prefix)
    arrays = {ours: as_array(name, state[name]) for ours, name in found.names.items()}
    return found.build(arrays, batch_first=batch_first, dropout=dropout)


def to_torch(lstm: LSTM | LSTMCell) -> torch.nn.LSTM | torch.nn.LSTMCell:
    """A torch.nn.LSTM (or LSTMCell) with copies of the weights, equal to the bit, on the CPU.

    Parameters
    ----------
    lstm : LSTM or LSTMCell

    Raises
    ------
    ValueError
        If the LSTM has options that torch.nn.LSTM lacks; the message names them.
    ImportError
        If torch is not installed.
    """
    if not isinstance(lstm, (LSTM, LSTMCell)):
        raise TypeError(f"lstm: expected an LSTM or LSTMCell of ours, got a {type(lstm).__name__}")
    torch = import_extra("torch", extra=EXTRA, purpose="torch modules")
    kind: Any = torch.nn.LSTM if isinstance(lstm, LSTM) else torch.nn.LSTMCell
    config = lstm.get_config()
    plain = type(lstm)(1, 1, rng=0).get_config()  # all options at their defaults
    lacks = [name for name in config if name not in _TORCHS and config[name] != plain[name]]
    if lacks:
        options = ", ".join(f"{name}={config[name]!r}" for name in lacks)
        raise ValueError(f"lstm: torch.nn.{kind.__name__} cannot express {options}")
    arguments = {name: config[name] for name in config if name in _TORCHS}
    arguments["dtype"] = getattr(torch, lstm.dtype.name)
    # On no device, so that no initial weights are drawn, which would move torch's generator.
    module = kind(**arguments, device="meta").to_empty(device="cpu")
    module.load_state_dict({k: torch.from_numpy(v) for k, v in lstm.state_dict().items()})
    return module


_TORCHS = (
    "input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional",
    "proj_size", "dtype",
)  # fmt: skip


# --- names and shapes -----------------------------------------------------------------------------


def find_lstm(shapes: Mapping[str, tuple[int, ...]], prefix: str = "") -> Found:
    """Where the parameters of an LSTM are, and its sizes, by names and shapes alone.

    Raises
    ------
    ValueError
        If what stands under the prefix is not one LSTM or one cell.
    """
    if prefix and not prefix.endswith("."):
        prefix += "."
    names: dict[str, str] = {}
    unknown, layers = [], set()
    pattern = _NAME_OF_CELL if f"{prefix}weight_hh" in shapes else _NAME
    for name in shapes:
        if not isinstance(name, str):
            raise TypeError(f"state_dict: expected names of type str, got {name!r:.80}")
        if not name.startswith(prefix):
            continue
        match = pattern.fullmatch(name, len(prefix))
        if match is None:
            unknown.append(name)
        else:
            names[name.removeprefix(prefix)] = name
            layers.add(int(match[1]) if pattern is _NAME else 0)
    if unknown or not names:
        raise ValueError(_no_lstm(shapes, prefix, unknown))
    if sorted(layers) != list(range(len(layers))):
        absent = min(set(range(len(layers))) - layers)
        raise ValueError(f"state_dict: has parameters of layer {max(layers)}, none of {absent}")
    sizes: dict[str, Any] = {"bias": any(name.startswith("bias") for name in names)}
    if pattern is _NAME_OF_CELL:
        return Found(LSTMCell, names, _sizes(shapes, names, "") | sizes)
    sizes["num_layers"] = len(layers)
    sizes["bidirectional"] = any(name.endswith("_reverse") for name in names)
    return Found(LSTM, names, _sizes(shapes, names, "_l0") | sizes)


def _sizes(
    shapes: Mapping[str, tuple[int, ...]], names: Mapping[str, str], suffix: str
) -> dict[str, int]:
    """input_size, hidden_size, proj_size of the first layer; all others are checked against it."""
    first = {}
    for kind in ("weight_ih", "weight_hh", "weight_hr"):
        name = names.get(kind + suffix)
        if name is None and kind != "weight_hr":
            raise ValueError(f"state_dict: missing [{kind + suffix!r}]")
        if name is not None:
            if len(shapes[name]) != 2:
                raise ValueError(f"state_dict[{name!r}]: expected a matrix, got {shapes[name]}")
            first[kind] = shapes[name]
    rows, state = first["weight_hh"]
    hidden = first["weight_hr"][1] if "weight_hr" in first else state
    if rows != 4 * hidden:
        others = {hidden: "torch.nn.RNN", 3 * hidden: "torch.nn.GRU"}
        hint = f"; they are those of a {others[rows]}" if rows in others else ""
        raise ValueError(
            f"state_dict[{names['weight_hh' + suffix]!r}]: expected {4 * hidden} rows, four gates "
            f"of {hidden} hidden units, got {rows}{hint}"
        )
    sizes = {"input_size": first["weight_ih"][1], "hidden_size": hidden}
    if "weight_hr" in first:
        sizes["proj_size"] = first["weight_hr"][0]
    return sizes


def _no_lstm(shapes: Mapping[str, Any], prefix: str, unknown: list[str]) -> str:
    where = f"under {prefix!r}, " if prefix else ""
    expected = "weight_ih_l0, weight_hh_l0, bias_ih_l0, … as torch.nn.LSTM names them"
    found = sorted({match[1] for name in shapes if (match := _FIRST.fullmatch(name))} - {prefix})
    got = _listed(unknown) if unknown else "none"
    hint = f"; there is an LSTM under prefix={_listed(found, ' or ')}" if found else ""
    return f"state_dict: {where}expected {expected}, found {got}{hint}"


def _listed(names: list[str], separator: str = ", ") -> str:
    shown = separator.join(f"{name!r:.80}" for name in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


# --- modules and tensors --------------------------------------------------------------------------


def _find_module(source: object, prefix: str) -> Any:
    """The LSTM or LSTMCell that `source` is, or has under this name."""
    # A module can only come from who has imported torch.
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(source, torch.nn.Module):
        raise TypeError(
            "source: expected a torch.nn.LSTM, a torch.nn.LSTMCell, or a state_dict of tensors or "
            f"NumPy arrays, got a {type(source).__name__}"
        )
    kinds = torch.nn.LSTM, torch.nn.LSTMCell
    try:
        module = source.get_submodule(prefix.removesuffix("."))
    except AttributeError:
        module = None
    if not isinstance(module, kinds):
        found = [name for name, each in source.named_modules() if isinstance(each, kinds)]
        hint = f"; there is one under prefix={_listed(found, ' or ')}" if found else ""
        got = f"a {type(source).__name__}" + (f" without one at {prefix!r}" if prefix else "")
        raise TypeError(f"source: expected a torch.nn.LSTM or torch.nn.LSTMCell, got {got}{hint}")
    return module


def _names_of(module: Any) -> Iterable[str]:
    """Names under which a module has its weights, also where they are computed from others."""
    bias = ("bias_ih", "bias_hh") if module.bias else ()
    if not hasattr(module, "num_layers"):
        return ("weight_ih", "weight_hh", *bias)
    kinds = ("weight_ih", "weight_hh", *bias, *(("weight_hr",) if module.proj_size else ()))
    suffixes = ("", "_reverse") if module.bidirectional else ("",)
    return [f"{k}_l{n}{s}" for n in range(module.num_layers) for s in suffixes for k in kinds]


def shape_of(value: object) -> tuple[int, ...]:
    """The shape of a tensor or an array; () of anything else, which `as_array` refuses."""
    return tuple(getattr(value, "shape", ()))


def as_array(name: str, value: object) -> Array:
    """A tensor as an array that shares its memory where it can, or an array as it is.

    Raises
    ------
    TypeError
        If it is neither, or not of float32 or float64.
    """
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        if value.dtype not in (torch.float32, torch.float64):
            raise TypeError(_wrong_dtype(name, value.dtype, "tensor", "float()"))
        if value.layout != torch.strided or value.device.type == "meta":
            got = f"{value.layout} on {value.device}"
            raise TypeError(f"state_dict[{name!r}]: expected a dense tensor with values, got {got}")
        array: Array = value.detach().cpu().numpy()
        return array
    if not isinstance(value, np.ndarray):
        got = type(value).__name__
        raise TypeError(f"state_dict[{name!r}]: expected a tensor or a NumPy array, got a {got}")
    if value.dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise TypeError(_wrong_dtype(name, value.dtype, "array", "astype('float32')"))
    return value


def _wrong_dtype(name: str, dtype: object, kind: str, convert: str) -> str:
    converted = f"{{name: {kind}.{convert} for name, {kind} in state_dict.items()}}"
    return (
        f"state_dict[{name!r}]: expected float32 or float64, got {dtype}; convert all weights "
        f"before: {converted}"
    )
