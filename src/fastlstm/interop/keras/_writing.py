"""Keras' files, written without Keras: .keras and .weights.h5."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

from fastlstm._validate import check_flag
from fastlstm.interop.keras._exports import describe_layers, is_recurrent, serialised, weights_of
from fastlstm.interop.keras._hdf5 import import_h5py
from fastlstm.interop.keras._models import numbered
from fastlstm.lstm import LSTM
from fastlstm.storage import replacing

# The version whose format this is; Keras does not look at it.
_METADATA = {"keras_version": "3.12.0", "date_saved": "1980-01-01@00:00:00"}


def save_weights(lstm: LSTM, path: str | os.PathLike[str]) -> None:
    """Write the weights of an LSTM for ``model.load_weights`` of Keras.

    The model has the layers that `to_keras` gives: ``keras.Sequential([keras.Input((None, I)),
    layer])`` with LSTM or Bidirectional, or with as many of them as the LSTM has layers.

    Parameters
    ----------
    lstm : LSTM
    path : str or path
        A file to write or replace; Keras wants the suffix ".weights.h5".

    Raises
    ------
    TypeError
        If `lstm` is no LSTM.
    ValueError
        If it has an option that Keras lacks, or if the suffix is another.
    OSError
        If the file cannot be written. What was there before is left as it was.
    ImportError
        If h5py is not installed.
    """
    target = _check_path(path, ".weights.h5")
    items = describe_layers(lstm, return_sequences=True, return_state=False)
    _write(target, _weights_file(lstm, items))


def save(lstm: LSTM, path: str | os.PathLike[str], *, return_sequences: bool = True) -> None:
    """Write an LSTM as a model for ``keras.saving.load_model``: a Sequential of `to_keras`' layers.

    Parameters
    ----------
    lstm : LSTM
    path : str or path
        A file to write or replace; Keras wants the suffix ".keras".
    return_sequences : bool
        Whether the model returns the whole sequence (B, T, features), or h of its last step.

    Raises
    ------
    TypeError
        If `lstm` is no LSTM.
    ValueError
        If it has an option that Keras lacks, or if the suffix is another.
    OSError
        If the file cannot be written. What was there before is left as it was.
    ImportError
        If h5py is not installed.

    Notes
    -----
    Keras has one bias, and so a file has ``bias_ih + bias_hh``; see `to_keras`. The same LSTM gives
    the same bytes.
    """
    target = _check_path(path, ".keras")
    return_sequences = check_flag("return_sequences", return_sequences)
    items = describe_layers(lstm, return_sequences=return_sequences, return_state=False)
    members = {
        "metadata.json": json.dumps(_METADATA).encode(),
        "config.json": json.dumps(_model(lstm, items)).encode(),
        "model.weights.h5": _weights_file(lstm, items),
    }
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for name, content in members.items():
            file.writestr(zipfile.ZipInfo(name), content)
    _write(target, archive.getvalue())


def _check_path(path: str | os.PathLike[str], suffix: str) -> Path:
    target = Path(path)
    if not target.name.endswith(suffix):
        raise ValueError(f"path: Keras wants a name that ends in {suffix}, got {target.name!r}")
    return target


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as file:
        file.write(content)


def _model(lstm: LSTM, items: list[Any]) -> dict[str, Any]:
    """The serialised Sequential; each layer gets a name, since Keras would number on and on."""
    shape, dtype = [None, None, lstm.input_size], lstm.dtype.name
    begin = {"batch_shape": shape, "dtype": dtype, "name": "input"}
    layers = [serialised("InputLayer", begin)]
    for name, item in zip(_names(items), items, strict=True):
        layers.append(item | {"config": {"name": name} | item["config"]})
    config = {"name": "lstm_model", "dtype": dtype, "layers": layers, "build_input_shape": shape}
    return serialised("Sequential", config) | {"module": "keras"}


def _names(items: list[Any]) -> list[str]:
    """lstm, lstm_1, …: of a file's groups, and here of the layers too."""
    counts: Counter[str] = Counter()
    names = []
    for item in items:
        kind = item["class_name"].lower()
        names.append(numbered(kind, counts[kind]))
        counts[kind] += 1
    return names


def _weights_file(lstm: LSTM, items: list[Any]) -> bytes:
    h5py = import_h5py()
    content = io.BytesIO()
    weights = iter(weights_of(lstm))
    with h5py.File(content, "w") as file:
        for name, item in zip(_names(items), items, strict=True):
            layer = file.create_group(f"layers/{name}")
            layer.create_group("vars").attrs["name"] = name
            if not is_recurrent(item):
                continue
            halves = [layer]
            if lstm.bidirectional:
                halves = [layer.create_group(f"{half}_layer") for half in ("forward", "backward")]
            for half, arrays in zip(halves, next(weights), strict=True):
                cell = half.create_group("cell/vars")
                for k, array in enumerate(arrays):
                    cell[str(k)] = array
    return content.getvalue()
