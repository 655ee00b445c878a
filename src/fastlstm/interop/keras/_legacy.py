"""Weights as Keras 2 laid them out in .h5 files: under the names of layers and variables.

A layer's arrays lie at ``model_weights/LAYER/…/CELL/kernel``, LAYER being the name in the
outermost model, and what stands between is the variable's own name, in which the names of inner
models and layers recur. Keras 2 ended it with ":0".
"""

from __future__ import annotations

from fastlstm.interop.keras._configs import Item, Weights
from fastlstm.interop.keras._hdf5 import Store
from fastlstm.interop.keras._models import Place

_ARRAYS = ("kernel", "recurrent_kernel", "bias")


def find_cells(store: Store, place: Place) -> list[str]:
    """The groups of the weights of each LSTMCell in a layer, in the order of its cells.

    Raises
    ------
    ValueError
        If names do not tell them apart.
    """
    top = place.name.partition("/")[0]
    groups = [
        group
        for group, children in store.walk(f"model_weights/{top}")
        if {name.partition(":")[0] for name in children} >= set(_ARRAYS[:2])
    ]
    return [_find(groups, names) for names in _names_of_cells(place.item)]


def read_cell(store: Store, group: str) -> Weights:
    """A cell's arrays in Keras' order."""
    found = {name.partition(":")[0]: name for name in store.children(group)}
    return tuple(store.array(f"{group}/{found[name]}") for name in _ARRAYS if name in found)


def _names_of_cells(item: Item) -> list[tuple[str, ...]]:
    """For each cell the names of which one is a part of its path, and of no other cell's."""
    kind, config = item["class_name"], item["config"]
    if kind == "Bidirectional":
        inner = config["layer"]["config"].get("name")
        base = str(inner).removeprefix("forward_")
        backward = (config.get("backward_layer") or {}).get("config", {}).get("name")
        return [(f"forward_{base}",), (f"backward_{base}", str(backward))]
    cell = config.get("cell")
    if kind == "RNN" and cell.get("class_name") == "StackedRNNCells":
        return [(str(inner["config"].get("name")),) for inner in cell["config"]["cells"]]
    return [(str(config.get("name")),)]


def _find(groups: list[str], names: tuple[str, ...]) -> str:
    # Behind model_weights and the name of the outermost layer.
    fitting = [group for group in groups if set(names) & set(group.split("/")[2:])]
    if len(fitting) != 1:
        raise ValueError(f"expected one group of weights for {names[0]!r:.80}, found {fitting}")
    return fitting[0]
