"""One layer in one file: its parameters, and the configuration that rebuilds it around them.

Whole models have files of their own (tasks/), for they hold more than a layer: a vocabulary, say.
The format is storage.py's; what is here knows the layers, which storage.py does not.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, TypeVar, overload

from fastlstm import storage
from fastlstm.cell import LSTMCell
from fastlstm.layers import Embedding, Linear
from fastlstm.lstm import LSTM
from fastlstm.parameters import Layer
from fastlstm.rnn import RNN
from fastlstm.storage import FormatError

# Kinds are for ever: files name them.
_KINDS: dict[type[Layer], str] = {
    LSTM: "lstm", LSTMCell: "lstm-cell", RNN: "rnn", Linear: "linear", Embedding: "embedding",
}  # fmt: skip

AnyLayer = TypeVar("AnyLayer", bound=Layer)


def save(layer: Layer, path: str | os.PathLike[str]) -> None:
    """Write a layer to one file, atomically: its parameters, and what `get_config` gives.

    The file is a safetensors file that other programs can read; the names of the parameters are
    PyTorch's.

    Parameters
    ----------
    layer : LSTM, LSTMCell, RNN, Linear or Embedding
    path : str or path
        A file to write or replace, by custom with the suffix ".safetensors".

    Raises
    ------
    TypeError
        If `layer` is none of these, or of a class derived from one, which `load` could not rebuild.
    OSError
        If the file cannot be written. What was there before is left as it was.
    ImportError
        If safetensors is not installed.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "lstm.safetensors"
    ...     save(LSTM(3, 4, bidirectional=True), path)
    ...     load(path)
    LSTM(3, 4, 1, bidirectional=True)
    """
    kind = _KINDS.get(type(layer))
    if kind is None:
        names = ", ".join(known.__name__ for known in _KINDS)
        raise TypeError(f"layer: expected one of {names}, got a {type(layer).__name__}")
    storage.save(path, kind, layer.state_dict(), {"config": layer.get_config()})


@overload
def load(path: str | os.PathLike[str]) -> LSTM: ...
@overload
def load(path: str | os.PathLike[str], layer: type[AnyLayer]) -> AnyLayer: ...


def load(path: str | os.PathLike[str], layer: type[Layer] = LSTM) -> Layer:
    """Read a layer that `save` wrote, in this version of fastlstm or an older one.

    Options that came after the file was written have their defaults.

    Parameters
    ----------
    path : str or path
    layer : LSTM, LSTMCell, RNN, Linear or Embedding
        The class that is expected: a file of any other is refused.

    Raises
    ------
    FileNotFoundError
        If there is no such file (another OSError if it cannot be read).
    fastlstm.storage.FormatError
        If it is no file of ours, of another kind, newer, damaged, or if names, shapes or dtypes of
        its arrays do not fit its configuration; the message says which.
    ImportError
        If safetensors is not installed.

    Notes
    -----
    A file may be anybody's. No code is run from it, no other file is opened, and nothing of the
    sizes that it claims is made before its arrays are seen to have them: memory stays below 64
    times the file's size, about three times for a usual one (``make fuzz``).
    """
    kind = _KINDS.get(layer)
    if kind is None:
        names = ", ".join(known.__name__ for known in _KINDS)
        raise TypeError(f"layer: expected one of the classes {names}, got {layer!r}")
    file = storage.load(path, kind)
    file.check_header(config=dict)
    try:
        _check_config(file.header["config"], len(file.arrays))
        return layer._build(file.header["config"], file.arrays)
    except (TypeError, ValueError) as error:
        raise FormatError(
            f"{file.path}: its header and its arrays do not belong together: {error}"
        ) from None


def _check_config(config: Mapping[str, Any], arrays: int) -> None:
    """What the constructors do not: they take more for a dtype, and list a layer's parameters."""
    if "dtype" in config:
        storage.check_dtype_name(config["dtype"])
    layers = config.get("num_layers")
    if isinstance(layers, int) and layers > arrays:
        raise ValueError(f"num_layers: {layers} layers have more than {arrays} arrays")
