"""Keras' files, read without Keras: .keras, .weights.h5, and the .h5 of older versions.

A .keras file is a zip archive of config.json, which describes the layers, metadata.json, and
model.weights.h5, in which they are found by Keras' own numbering: a layer of a model lies at
``layers/CLASS``, CLASS in snake case, with a suffix _1, _2, … by the order of appearance, and its
name plays no part (keras/src/saving/saving_lib.py).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from fastlstm.interop.keras import _archive, _hdf5
from fastlstm.interop.keras._configs import Cell, Description, Item, Weights, build, describe
from fastlstm.interop.keras._hdf5 import Store
from fastlstm.interop.keras._legacy import find_cells
from fastlstm.interop.keras._legacy import read_cell as read_legacy_cell
from fastlstm.interop.keras._models import Place, cell_groups, find_layers, numbered
from fastlstm.lstm import LSTM
from fastlstm.storage import FormatError

_CONFIG, _METADATA, _WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
_DEPENDENCIES = "_layer_checkpoint_dependencies"


def load(path: str | os.PathLike[str]) -> dict[str, LSTM]:
    """Read the LSTM layers of a file of Keras'.

    Parameters
    ----------
    path : str or path
        - ``.keras``, with a Sequential or Functional model, models within models included;
        - ``.h5`` as Keras 2 wrote it, and Keras 3 still can: configuration and weights;
        - ``.weights.h5``: weights alone. What only a configuration says is then taken to be as
          Keras' defaults are: tanh and sigmoid, no dropout, from the first step to the last.

    Returns
    -------
    layers : dict of str to LSTM
        Each layer under its name, behind the names of the models (or of the TimeDistributed) that
        it stands in: ``"encoder/lstm"``. From ``.weights.h5``, which need not have names, under
        the path of its group: ``"layers/lstm_1"``. With options and ``batch_first=True`` as
        `from_keras` gives them. Layers of other kinds are left out; a layer that the model uses in
        two places stands there once.

    Raises
    ------
    FileNotFoundError
        If there is no such file (another OSError if it cannot be read).
    fastlstm.storage.FormatError
        If it is no file of Keras', damaged, without an LSTM, or if one of its LSTM layers has
        something that ours lacks; the message names the layer and the reason.
    ImportError
        If h5py is not installed.

    Notes
    -----
    A file may be anybody's. No code in it is run (a Lambda layer, a class of the user's: at most
    their names are read), no other file is opened, and nothing is made before its size is seen to
    be covered by bytes in the file: memory stays below 64 times the file's size, about four times
    for a usual one. But the HDF5 library, which h5py stands on, is not ours: a file made to
    attack it is better opened in a process of its own.
    """
    _hdf5.import_h5py()
    path = Path(path)
    with path.open("rb") as file:
        head = file.read(8)
        if head.startswith(b"{"):
            raise FormatError(
                f"{path}: JSON, perhaps the index of weights in several files: load it with Keras "
                "and save it again without max_shard_size"
            )
        if head != _hdf5.SIGNATURE and not head.startswith(_archive.SIGNATURE):
            raise FormatError(f"{path}: neither a zip archive nor HDF5, so no file of Keras'")
        content = head + file.read()
    layers = _load_archive(path, content) if head != _hdf5.SIGNATURE else _load_hdf5(path, content)
    if not layers:
        raise FormatError(f"{path}: no LSTM layer in it")
    return layers


def _load_archive(path: Path, content: bytes) -> dict[str, LSTM]:
    members = _archive.read_archive(path, content, (_CONFIG, _METADATA, _WEIGHTS))
    del content
    for name in (_CONFIG, _WEIGHTS):
        if name not in members:
            raise FormatError(f"{path}: an archive without {name}")
    metadata = _parse(path, _METADATA, members.get(_METADATA, b"{}"))
    version = metadata.get("keras_version") if isinstance(metadata, dict) else None
    places = _find_layers(path, _parse(path, _CONFIG, members[_CONFIG]))
    if not places:
        return {}
    with Store(path, members[_WEIGHTS]) as store:
        old = store.exists(_DEPENDENCIES)

        def weights_of(place: Place) -> list[Weights]:
            groups = cell_groups(place)
            return [
                _read_cell(store, _in_keras_2_13(store, group) if old else group)
                for group in groups
            ]

        return _build_all(path, places, str(version), weights_of)


def _load_hdf5(path: Path, content: bytes) -> dict[str, LSTM]:
    with Store(path, content) as store:
        del content
        text = store.text("model_config")
        if text is None:
            return _load_weights(path, store)
        places = _find_layers(path, _parse(path, "model_config", text))
        version = (store.text("keras_version") or b"2").decode(errors="replace")

        def weights_of(place: Place) -> list[Weights]:
            return [read_legacy_cell(store, group) for group in find_cells(store, place)]

        return _build_all(path, places, version, weights_of)


# --- a configuration and weights ------------------------------------------------------------------


def _parse(path: Path, what: str, text: bytes) -> Any:
    try:
        return json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: {what} is no JSON, or damaged: {error}") from None


def _find_layers(path: Path, model: Item) -> list[Place]:
    try:
        return find_layers(model)
    except (ValueError, TypeError, RecursionError) as error:
        raise FormatError(f"{path}: {error}") from None


def _build_all(
    path: Path,
    places: list[Place],
    keras_version: str,
    weights_of: Callable[[Place], list[Weights]],
) -> dict[str, LSTM]:
    layers = {}
    for place in places:
        with _naming(path, place.name):
            description = describe(place.item, keras_version)
            layers[place.name] = build(description, weights_of(place))
    return layers


@contextmanager
def _naming(path: Path, layer: str) -> Iterator[None]:
    """Say of what file and layer an error is that knows neither."""
    try:
        yield
    except FormatError:
        raise
    except (ValueError, TypeError, RecursionError) as error:
        raise FormatError(f"{path}: layer {layer!r:.80}: {error}") from None


def _read_cell(store: Store, group: str) -> Weights:
    names = sorted(store.children(f"{group}/vars"))
    if names not in (["0", "1"], ["0", "1", "2"]):
        raise FormatError(f"{store.path}: {group!r}: expected arrays 0, 1 and perhaps 2 in vars")
    return tuple(store.array(f"{group}/vars/{name}") for name in names)


def _in_keras_2_13(store: Store, group: str) -> str:
    """Where Keras 2.13 put a layer: it counted a layer twice that has weights, and others once.

    So in the place of the layer number n of a class stands the n-th group with the class's name.
    """
    path = ""
    for before, name in pairwise(["", *group.split("/")]):
        if name == "layers":
            name = _DEPENDENCIES
        elif before == "layers":
            kind, number = _parts(name)
            numbers = sorted(n for k, n in map(_parts, store.children(path)) if k == kind)
            if number >= len(numbers):
                raise FormatError(f"{store.path}: no weights for {group!r}")
            name = numbered(kind, numbers[number])
        path = f"{path}/{name}" if path else name
    return path


def _parts(name: str) -> tuple[str, int]:
    """lstm_1 -> lstm, 1; and lstm -> lstm, 0."""
    kind = re.sub(r"_\d+$", "", name)
    return kind, int(name[len(kind) + 1 :] or 0)


# --- weights alone --------------------------------------------------------------------------------


def _load_weights(path: Path, store: Store) -> dict[str, LSTM]:
    """Every LSTM that the shapes of arrays show, under the path of its group."""
    cells: dict[str, list[str]] = {}
    for group, children in store.walk():
        if group.endswith("/vars") and _is_cell(store, group, sorted(children)):
            cells.setdefault(_owner(group), []).append(group.removesuffix("/vars"))
    layers = {}
    for owner, groups in cells.items():
        with _naming(path, owner):
            layers[owner] = _layer_of(store, sorted(groups, key=_place_in_layer))
    return layers


def _is_cell(store: Store, group: str, names: list[str]) -> bool:
    if names not in (["0", "1"], ["0", "1", "2"]):
        return False
    kernel, recurrent, *bias = (store.shape(f"{group}/{name}") for name in names)
    if kernel is None or recurrent is None or len(kernel) != 2 or len(recurrent) != 2:
        return False
    units, gates = recurrent
    return gates == 4 * units == kernel[1] and bias in ([], [(gates,)])


def _owner(group: str) -> str:
    """The layer of a cell: layers/lstm/cell/vars -> layers/lstm."""
    return re.sub(r"(?<=.)(/(forward|backward)_layer)?(/cell(/cells/[^/]+)?)?/vars$", "", group)


def _place_in_layer(group: str) -> tuple[bool, int]:
    """Sorts forward before backward, and lstm_cell_2 before lstm_cell_10."""
    return "/backward_layer/" in group, _parts(group)[1]


def _layer_of(store: Store, groups: list[str]) -> LSTM:
    halves = sum("/backward_layer/" in group for group in groups)
    weights = [_read_cell(store, group) for group in groups]
    cells = []
    for own in weights:
        units, dtype = own[1].shape[0], own[0].dtype.name
        cells.append(Cell(units, len(own) == 3, "sigmoid", "tanh", 0.0, 0.0, dtype))
    if halves not in (0, 1) or (halves and len(cells) != 2):
        raise ValueError(f"expected one forward_layer and one backward_layer, got {groups}")
    if halves and cells[0] != cells[1]:
        raise ValueError(f"directions differ: {cells[0]} and {cells[1]}")
    return build(Description(tuple(cells[: 1 if halves else None]), bool(halves)), weights)
