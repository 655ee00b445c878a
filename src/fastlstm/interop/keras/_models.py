"""Where the LSTM layers of a model stand: in its configuration, and in the file of its weights."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fastlstm.interop.keras._configs import CELLS, LAYERS, Item, field, is_kerass

_MODELS = ("Sequential", "Functional", "Model")  # the last is what Keras 2 called a Functional


@dataclass(frozen=True)
class Place:
    """A layer of a model.

    Attributes
    ----------
    name : str
        Its name, behind the names of the models that it stands in.
    group : str
        Where Keras puts its weights.
    item : dict
        The serialised layer.
    """

    name: str
    group: str
    item: Item


def find_layers(model: Item) -> list[Place]:
    """Every layer with an LSTM, in Keras' order; a layer that is used twice stands there once.

    Raises
    ------
    ValueError
        If this is no configuration of a model, or if a layer of an unknown kind has an LSTM in it.
    """
    if not (isinstance(model, dict) and model.get("class_name") in _MODELS and is_kerass(model)):
        kind = model.get("class_name") if isinstance(model, dict) else model
        raise ValueError(
            f"a model of class {kind!r:.80}, which only its own code can put together: load it "
            "there, save its weights (model.save_weights), and load those"
        )
    places: list[Place] = []
    shared: set[Any] = set()
    for place in _walk(_layers_of(model), "", "layers"):
        mark = place.item.get("shared_object_id")
        if mark is None or mark not in shared:
            places.append(place)
        if isinstance(mark, int):
            shared.add(mark)
    names = Counter(place.name for place in places)
    for name, count in names.items():
        if count > 1:
            raise ValueError(f"{count} layers of the name {name!r:.80}")
    return places


def cell_groups(place: Place) -> list[str]:
    """The groups of the weights of each LSTMCell in a layer, in the order of its cells."""
    kind, config = place.item["class_name"], place.item["config"]
    if kind == "LSTMCell":
        return [place.group]
    if kind == "Bidirectional":
        return [f"{place.group}/{half}_layer/cell" for half in ("forward", "backward")]
    cell = config.get("cell")
    if kind == "RNN" and cell.get("class_name") == "StackedRNNCells":
        count = len(cell["config"]["cells"])
        return [f"{place.group}/cell/cells/{numbered('lstm_cell', k)}" for k in range(count)]
    return [f"{place.group}/cell"]


def numbered(name: str, number: int) -> str:
    """The name of the first, and of those that follow: lstm, lstm_1, …"""
    return f"{name}_{number}" if number else name


def _walk(items: Sequence[Any], prefix: str, group: str) -> Iterator[Place]:
    """The layers of one model, each under the name of its class and a number."""
    numbers: Counter[str] = Counter()
    for item in items:
        if not isinstance(item, dict):
            raise ValueError(f"a layer that is no JSON object, but {item!r:.80}")
        kind = _snake_case(field(item, "class_name", str))
        yield from _visit(item, prefix, f"{group}/{numbered(kind, numbers[kind])}")
        numbers[kind] += 1


def _visit(item: Item, prefix: str, group: str) -> Iterator[Place]:
    kind, kerass = item["class_name"], is_kerass(item)
    if not has_lstm(item):
        return
    config = field(item, "config", dict)
    name = prefix + field(config, "name", str)
    if kerass and kind in LAYERS:
        yield Place(name, group, item)
    elif kerass and kind in _MODELS:
        yield from _walk(_layers_of(item), f"{name}/", f"{group}/layers")
    elif kerass and kind == "TimeDistributed":
        yield from _visit(field(config, "layer", dict), f"{name}/", f"{group}/layer")
    else:
        raise ValueError(
            f"layer {name!r:.80} has an LSTM in it, but is a {kind!r:.80}: what it does with it "
            "is not known here. The weights alone (model.save_weights) can be loaded"
        )


def has_lstm(value: Any) -> bool:
    """Whether any class name in a serialised object is that of an LSTM."""
    if isinstance(value, dict):
        kind = value.get("class_name")
        if isinstance(kind, str) and kind.rpartition(">")[2] in CELLS:
            return True
        return any(map(has_lstm, value.values()))
    return isinstance(value, list) and any(map(has_lstm, value))


def _layers_of(model: Item) -> list[Any]:
    layers: list[Any] = field(field(model, "config", dict), "layers", list)
    return layers


def _snake_case(name: str) -> str:
    """As keras/src/utils/naming.py writes a class's name."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
