"""Files of Keras' kind that are damaged, or made to do harm: refused, and nothing else happens.

Millions of mutated files are another matter (HDF5 is not ours, and may take the process along);
here is what a file can say that is well-formed, and must not be believed.
"""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from fastlstm import LSTM
from fastlstm.interop.keras import load, save, save_weights
from fastlstm.storage import FormatError
from tests.processes import run_python

FOLDER = Path(__file__).parent.parent / "witnesses" / "keras"
CELL = "layers/lstm/cell/vars"

Config = dict[str, Any]


def weights_file(path: Path, edit: Callable[[h5py.File], object] = lambda _: None) -> Path:
    """The weights of an LSTM(2, 3), and then what `edit` makes of them."""
    target = path / "edited.weights.h5"
    save_weights(LSTM(2, 3, rng=0), target)
    with h5py.File(target, "r+") as file:
        edit(file)
    return target


def keras_file(path: Path, edit: Callable[[Config], object] = lambda _: None) -> Path:
    """A model of an LSTM(2, 3), and then what `edit` makes of its configuration."""
    members = members_of(path)
    config = json.loads(members["config.json"])
    edit(config)
    members["config.json"] = json.dumps(config).encode()
    return archive(path, members)


def members_of(path: Path) -> dict[str, bytes]:
    save(LSTM(2, 3, rng=0), path / "whole.keras")
    with zipfile.ZipFile(path / "whole.keras") as file:
        return {name: file.read(name) for name in file.namelist()}


def archive(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    target = path / "edited.keras"
    with zipfile.ZipFile(target, "w", compression) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return target


def lstm_of(config: Config) -> Config:
    layer: Config = config["config"]["layers"][1]
    return layer


def test_what_is_not_edited_loads(tmp_path: Path) -> None:
    """Else the tests below would refuse for another reason than they say."""
    assert list(load(weights_file(tmp_path))) == ["layers/lstm"]
    assert list(load(keras_file(tmp_path))) == ["lstm"]


# --- files that are none, or not whole ------------------------------------------------------------


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "absent.keras")
    with pytest.raises(IsADirectoryError):
        load(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "neither a zip archive nor HDF5"),
        (b"\x89HDF", "neither a zip archive nor HDF5"),
        (b"\x89HDF\r\n\x1a\n", "damaged HDF5, at the file"),
        (b"PK\x03\x04", "no archive of Keras', or damaged"),
        (b'{"weight_map": {}}', "load it with Keras and save it again without max_shard_size"),
        (b"\x80\x04K\x01.", "neither a zip archive nor HDF5"),
    ],
)
def test_what_is_no_file_of_keras(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.keras"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=message) as raised:
        load(path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("name", ["activations-torch.keras", "activations.weights.h5"])
def test_every_beginning_of_a_file_is_refused(name: str, tmp_path: Path) -> None:
    content = (FOLDER / name).read_bytes()
    # HDF5 does not miss the bytes behind the last thing that anything refers to.
    end = len(content) if name.endswith(".keras") else len(content) - 2048
    for size in [*range(64), *range(64, end, 499)]:
        path = tmp_path / name
        path.write_bytes(content[:size])
        with pytest.raises(FormatError):
            load(path)


def test_a_file_without_an_lstm(tmp_path: Path) -> None:
    def rename(config: Config) -> None:
        lstm_of(config)["class_name"] = "GRU"

    weights = weights_file(tmp_path, lambda file: file.__delitem__("layers/lstm"))
    for path in (weights, keras_file(tmp_path, rename)):
        with pytest.raises(FormatError, match="no LSTM layer in it"):
            load(path)


# --- HDF5 that points elsewhere, or promises more than it holds -----------------------------------


def replaced(name: str, make: Callable[[h5py.Group], object]) -> Callable[[h5py.File], None]:
    def edit(file: h5py.File) -> None:
        del file[CELL][name]
        make(file[CELL])

    return edit


def virtual(group: h5py.Group) -> None:
    layout = h5py.VirtualLayout((2, 12), np.float32)
    layout[:] = h5py.VirtualSource("other.weights.h5", f"{CELL}/0", (2, 12))
    group.create_virtual_dataset("0", layout)


def big_endian(group: h5py.Group) -> None:
    group.create_dataset("2", data=np.zeros(12, ">f4"))


ARRAYS: dict[str, tuple[str, Callable[[h5py.Group], object], str]] = {
    "soft link": (
        "0", lambda g: g.__setitem__("0", h5py.SoftLink(f"/{CELL}/1")), "soft or external link",
    ),
    "external link": (
        "0", lambda g: g.__setitem__("0", h5py.ExternalLink("other.weights.h5", f"{CELL}/0")),
        "soft or external link",
    ),
    "external storage": (
        "0", lambda g: g.create_dataset("0", (2, 12), "f4", external=[("other.bin", 0, 96)]),
        "stored in another file",
    ),
    "virtual": ("0", virtual, "chunked, compressed or virtual"),
    "chunked": (
        "0", lambda g: g.create_dataset("0", (2, 12), "f4", chunks=(1, 12)),
        "chunked, compressed or virtual",
    ),
    "compressed": (
        "0", lambda g: g.create_dataset("0", (2, 12), "f4", compression="gzip"),
        "chunked, compressed or virtual",
    ),
    "sparse": (
        "0", lambda g: g.create_dataset("0", (2, 12), "f4"), r"of shape \(2, 12\) has 0 bytes",
    ),
    "sparse and enormous": (
        "0", lambda g: g.create_dataset("0", (1 << 40, 12), "f4"), "has 0 bytes",
    ),
    "integers": (
        "2", lambda g: g.create_dataset("2", data=np.zeros(12, np.int32)),
        "not of float32 or float64",
    ),
    "half precision": (
        "2", lambda g: g.create_dataset("2", data=np.zeros(12, np.float16)),
        "not of float32 or float64",
    ),
    "references": (
        "2", lambda g: g.create_dataset("2", data=[g.ref] * 12, dtype=h5py.ref_dtype),
        "not of float32 or float64",
    ),
    "strings": (
        "2", lambda g: g.create_dataset("2", data=["x"] * 12), "not of float32 or float64",
    ),
    "group": ("2", lambda g: g.create_group("2"), "no array"),
    "type": ("2", lambda g: g.__setitem__("2", np.dtype("f4")), "no array"),
    "float64": (
        "2", lambda g: g.create_dataset("2", data=np.zeros(12)),
        "bias_ih_l0'.: expected an array of float32, got float64",
    ),
}  # fmt: skip


def archive_of_weights(path: Path, weights: Path) -> Path:
    return archive(path, members_of(path) | {"model.weights.h5": weights.read_bytes()})


@pytest.mark.parametrize("case", ARRAYS)
def test_an_array_that_is_not_plainly_there(case: str, tmp_path: Path) -> None:
    """With a configuration, which names it, and alone, where nothing else than an LSTM is one."""
    name, make, message = ARRAYS[case]
    weights = weights_file(tmp_path, replaced(name, make))
    # What it points to is there, and whole.
    save_weights(LSTM(2, 3, rng=1), tmp_path / "other.weights.h5")
    (tmp_path / "other.bin").write_bytes(bytes(96))
    with pytest.raises(FormatError, match=message):
        load(archive_of_weights(tmp_path, weights))
    with pytest.raises(FormatError):
        load(weights)


def test_foreign_byte_order_is_taken(tmp_path: Path) -> None:
    values = np.arange(12, dtype=">f4")
    edit = replaced("2", lambda group: group.create_dataset("2", data=values))
    for file in (weights := weights_file(tmp_path, edit), archive_of_weights(tmp_path, weights)):
        (lstm,) = load(file).values()
        np.testing.assert_array_equal(lstm.bias_ih_l0, values)


def test_a_link_to_another_file_opens_nothing(tmp_path: Path) -> None:
    """Neither on the way to the weights nor beside it; a pipe would hold up who opens it."""
    os.mkfifo(tmp_path / "pipe")
    for place in ("layers/lstm/cell", "layers/lstm", "layers", "aside"):

        def edit(file: h5py.File, place: str = place) -> None:
            file.pop(place, None)
            file[place] = h5py.ExternalLink(str(tmp_path / "pipe"), "/")

        weights = weights_file(tmp_path, edit)
        for file in (weights, archive_of_weights(tmp_path, weights)):
            if place == "aside" and file != weights:
                assert list(load(file)) == ["lstm"]  # nothing looks there
                continue
            with pytest.raises(FormatError, match="soft or external link"):
                load(file)


def test_groups_in_a_ring(tmp_path: Path) -> None:
    path = weights_file(tmp_path, lambda file: file["layers"].__setitem__("again", file["layers"]))
    with pytest.raises(FormatError, match="two paths lead to group 'again'"):
        load(path)


def test_groups_without_end(tmp_path: Path) -> None:
    path = weights_file(tmp_path, lambda file: file.create_group("/".join("d" * 100)))
    with pytest.raises(FormatError, match="more than 64 groups within each other"):
        load(path)


def test_one_array_under_many_names(tmp_path: Path) -> None:
    """Else a small file becomes a large one in memory."""

    def edit(file: h5py.File) -> None:
        for k in range(1, 400):
            group = file.create_group(f"layers/lstm_{k}/cell/vars")
            for name in ("0", "1", "2"):
                group[name] = file[CELL][name]

    lstm = LSTM(200, 3, rng=0)
    path = tmp_path / "many.weights.h5"
    save_weights(lstm, path)
    with h5py.File(path, "r+") as file:
        edit(file)
    with pytest.raises(FormatError, match="holds more arrays than it has bytes"):
        load(path)


SHAPES: dict[str, tuple[str, tuple[int, ...]]] = {
    "kernel": ("0", (2, 8)),
    "kernel of one axis": ("0", (24,)),
    "no inputs": ("0", (0, 12)),
    "recurrent kernel": ("1", (4, 12)),
    "bias": ("2", (12, 1)),
    "bias of another size": ("2", (16,)),
}


@pytest.mark.parametrize("case", SHAPES)
def test_shapes_that_do_not_belong_together(case: str, tmp_path: Path) -> None:
    name, shape = SHAPES[case]
    edit = replaced(name, lambda g: g.create_dataset(name, data=np.zeros(shape, np.float32)))
    weights = weights_file(tmp_path, edit)
    with pytest.raises(FormatError, match=r"layer 'lstm': "):
        load(archive_of_weights(tmp_path, weights))
    with pytest.raises(FormatError):
        load(weights)


def test_weights_that_are_not_there(tmp_path: Path) -> None:
    for place in ("layers", "layers/lstm", "layers/lstm/cell", CELL, f"{CELL}/1"):
        weights = weights_file(tmp_path, lambda file, place=place: file.__delitem__(place))
        with pytest.raises(FormatError, match=r"no group|expected arrays 0, 1 and perhaps 2"):
            load(archive_of_weights(tmp_path, weights))


def test_directions_that_differ(tmp_path: Path) -> None:
    path = tmp_path / "both.weights.h5"
    save_weights(LSTM(2, 3, bidirectional=True), path)
    with h5py.File(path, "r+") as file:
        del file["layers/bidirectional/backward_layer/cell/vars/2"]
    with pytest.raises(FormatError, match="layer 'layers/bidirectional': directions differ"):
        load(path)
    with h5py.File(path, "r+") as file:
        del file["layers/bidirectional/forward_layer"]
    with pytest.raises(FormatError, match="expected one forward_layer and one backward_layer"):
        load(path)


# --- archives -------------------------------------------------------------------------------------


def test_a_compressed_archive_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    members = members_of(tmp_path) | {"model.weights.h5": bytes(1 << 24)}
    path = archive(tmp_path, members, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1 << 16
    with pytest.raises(FormatError, match=r"config.json is compressed, .*: zip -0 stores it"):
        load(path)


@pytest.mark.parametrize("name", ["config.json", "model.weights.h5"])
def test_an_archive_without_a_member(name: str, tmp_path: Path) -> None:
    members = members_of(tmp_path)
    del members[name]
    with pytest.raises(FormatError, match=f"an archive without {name}"):
        load(archive(tmp_path, members))


@pytest.mark.parametrize("name", ["model.weights.npz", "model.weights.json"])
def test_weights_of_another_kind(name: str, tmp_path: Path) -> None:
    members = members_of(tmp_path)
    members[name] = members.pop("model.weights.h5")
    with pytest.raises(FormatError, match=f"its weights are in {name}: load it with Keras and"):
        load(archive(tmp_path, members))


def test_metadata_are_not_needed(tmp_path: Path) -> None:
    for metadata in (None, b"{}", b"[]", b'{"keras_version": 7}'):
        members = members_of(tmp_path)
        if metadata is None:
            del members["metadata.json"]
        else:
            members["metadata.json"] = metadata
        assert list(load(archive(tmp_path, members))) == ["lstm"]


@pytest.mark.parametrize(
    "text", [b"", b"{", b"\xff", b"[" * 100_000, b"{" * 100_000, b"NaN", b"[]"]
)
def test_a_configuration_that_is_none(text: bytes, tmp_path: Path) -> None:
    members = members_of(tmp_path) | {"config.json": text}
    with pytest.raises(FormatError, match=r"config.json is no JSON, or damaged|a model of class"):
        load(archive(tmp_path, members))


# --- configurations -------------------------------------------------------------------------------

LAMBDA = {
    "module": "keras.layers",
    "class_name": "Lambda",
    "config": {
        "name": "evil",
        "function": {"class_name": "__lambda__", "config": {"code": "4w=="}},
    },
    "registered_name": None,
}

CONFIGS: dict[str, tuple[Callable[[Config], object], str]] = {
    "a model of the user's": (
        lambda c: c.update(class_name="Mine", registered_name="my>Mine"), "a model of class 'Mine'",
    ),
    "a Sequential of the user's": (
        lambda c: c.update(module="theirs"), "which only its own code can put together",
    ),
    "layers that are none": (lambda c: c["config"].update(layers={}), "layers: expected list"),
    "a layer that is none": (
        lambda c: c["config"].update(layers=["LSTM"]), "a layer that is no JSON object, but 'LSTM'",
    ),
    "a layer of the user's with an LSTM": (
        lambda c: lstm_of(c).update(module="theirs"), "'LSTM': what it does with it is not known",
    ),
    "a registered LSTM of the user's": (
        lambda c: lstm_of(c).update(registered_name="my>LSTM"), "what it does with it is not known",
    ),
    "an LSTM of cuDNN's": (
        lambda c: lstm_of(c).update(class_name="CuDNNLSTM"), "is a 'CuDNNLSTM': what it does with",
    ),
    "an LSTM within another layer": (
        lambda c: c["config"]["layers"].append(LAMBDA | {"config": {"name": "q", "x": lstm_of(c)}}),
        "layer 'q' has an LSTM in it, but is a 'Lambda'",
    ),
    "two layers of one name": (
        lambda c: c["config"]["layers"].append(lstm_of(c)), "2 layers of the name 'lstm'",
    ),
    "no name": (lambda c: lstm_of(c)["config"].pop("name"), "name: expected str, got None"),
    "an enormous size": (
        lambda c: lstm_of(c)["config"].update(units=10**12), "layer 'lstm': .* exceeds",
    ),
    "a large size": (
        lambda c: lstm_of(c)["config"].update(units=10**4), r"expected shape \(40000, 2\)",
    ),
    "no size": (lambda c: lstm_of(c)["config"].update(units=0), "units: expected .* >= 1, got 0"),
    "a size that is none": (
        lambda c: lstm_of(c)["config"].update(units=True), "units: expected int, got True",
    ),
    "a flag that is none": (
        lambda c: lstm_of(c)["config"].update(go_backwards=1), "go_backwards: expected bool, got 1",
    ),
    "a rate that is none": (
        lambda c: lstm_of(c)["config"].update(dropout=1.5), "dropout=1.5: expected a rate in",
    ),
    "no rate": (
        lambda c: lstm_of(c)["config"].update(dropout=float("nan")), "dropout=nan: expected a rate",
    ),
    "another number of arrays": (
        lambda c: lstm_of(c)["config"].update(use_bias=False),
        "use_bias=False, but there are 3 arrays of weights",
    ),
    "an activation of the user's": (
        lambda c: lstm_of(c)["config"].update(activation=LAMBDA), "activation='Lambda': expected",
    ),
    "a dtype policy": (
        lambda c: lstm_of(c)["config"].update(dtype="mixed_float16"), "policy 'mixed_float16'",
    ),
    "another dtype": (
        lambda c: lstm_of(c)["config"].update(dtype="float64"), "of float64, got float32",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CONFIGS)
def test_a_configuration_that_cannot_be_carried(case: str, tmp_path: Path) -> None:
    edit, message = CONFIGS[case]
    path = keras_file(tmp_path, edit)
    with pytest.raises(FormatError, match=message) as raised:
        load(path)
    assert str(path) in str(raised.value)


def test_directions_of_a_configuration(tmp_path: Path) -> None:
    save(LSTM(2, 3, bidirectional=True, rng=0), tmp_path / "both.keras")
    with zipfile.ZipFile(tmp_path / "both.keras") as file:
        members = {name: file.read(name) for name in file.namelist()}

    def with_backward(layer: Config | None) -> Path:
        config = json.loads(members["config.json"])
        lstm_of(config)["config"]["backward_layer"] = layer
        return archive(tmp_path, members | {"config.json": json.dumps(config).encode()})

    backward = lstm_of(json.loads(members["config.json"]))["config"]["backward_layer"]
    assert load(with_backward(backward))["bidirectional"].bidirectional
    assert load(with_backward(None))["bidirectional"].bidirectional  # as Keras 2 could have it
    forward = backward | {"config": backward["config"] | {"go_backwards": False}}
    with pytest.raises(FormatError, match="backward_layer does not go backwards"):
        load(with_backward(forward))
    with pytest.raises(FormatError, match="backward_layer is no LSTM"):
        load(with_backward(backward | {"class_name": "GRU"}))
    narrow = backward | {"config": backward["config"] | {"units": 2}}
    with pytest.raises(FormatError, match="layer 'bidirectional': directions differ"):
        load(with_backward(narrow))


def test_keras_2_13_counts_a_layer_twice_and_past_ten(tmp_path: Path) -> None:
    """lstm, lstm_2, … lstm_12, which HDF5 has in another order."""
    count = 7

    def repeat(config: Config) -> None:
        layer = lstm_of(config)
        named = [layer | {"config": layer["config"] | {"name": f"n{k}"}} for k in range(count)]
        config["config"]["layers"][1:] = named

    def renumber(file: h5py.File) -> None:
        for k in range(1, count):
            file.copy("layers/lstm", f"layers/lstm_{2 * k}")
            file[f"layers/lstm_{2 * k}/cell/vars/2"][...] = k
        file.move("layers", "_layer_checkpoint_dependencies")

    with zipfile.ZipFile(keras_file(tmp_path, repeat)) as file:
        config = file.read("config.json")
    weights = weights_file(tmp_path, renumber).read_bytes()
    changed = {"config.json": config, "model.weights.h5": weights}
    layers = load(archive(tmp_path, members_of(tmp_path) | changed))
    assert list(layers) == [f"n{k}" for k in range(count)]
    assert [lstm.bias_ih_l0[0] for lstm in list(layers.values())[1:]] == [1, 2, 3, 4, 5, 6]

    one_more = json.loads(config)
    one_more["config"]["layers"].append(lstm_of(one_more) | {"config": {"name": "x", "units": 3}})
    changed["config.json"] = json.dumps(one_more).encode()
    with pytest.raises(FormatError, match="no weights for 'layers/lstm_7/cell'"):
        load(archive(tmp_path, members_of(tmp_path) | changed))


def test_code_in_a_file_is_not_run_nor_looked_at(tmp_path: Path) -> None:
    path = keras_file(
        tmp_path, lambda config: config["config"]["layers"].insert(1, LAMBDA) or config
    )
    assert list(load(path)) == ["lstm"]


def test_an_lstm_in_a_wrapper_of_keras(tmp_path: Path) -> None:
    """TimeDistributed holds what it wraps as its layer, in the file too."""

    def wrap(config: Config) -> Config:
        inner = lstm_of(config)
        wrapper = inner | {
            "class_name": "TimeDistributed",
            "config": {"name": "td", "layer": inner},
        }
        config["config"]["layers"][1] = wrapper
        return config

    def move(file: h5py.File) -> None:
        file.move("layers/lstm", "layers/time_distributed/layer")

    path = keras_file(tmp_path, wrap)
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    members["model.weights.h5"] = weights_file(tmp_path, move).read_bytes()
    (name,) = layers = load(archive(tmp_path, members))
    assert name == "td/lstm"
    np.testing.assert_array_equal(layers[name].weight_ih_l0, LSTM(2, 3, rng=0).weight_ih_l0)


def test_a_layer_that_a_model_uses_twice_stands_there_once(tmp_path: Path) -> None:
    def share(config: Config) -> None:
        lstm_of(config)["shared_object_id"] = 7
        inner = {"module": "keras", "class_name": "Sequential", "registered_name": None}
        inner["config"] = {"name": "again", "layers": [lstm_of(config)]}
        config["config"]["layers"].append(inner)

    assert list(load(keras_file(tmp_path, share))) == ["lstm"]


# --- the older files, whose strings are read past the library ----------------------------------


def legacy(path: Path, edit: Callable[[h5py.File], object]) -> Path:
    target = path / "edited.h5"
    target.write_bytes((FOLDER / "activations-torch.h5").read_bytes())
    with h5py.File(target, "r+") as file:
        edit(file)
    return target


def test_strings_of_either_kind_are_taken(tmp_path: Path) -> None:
    def fixed(file: h5py.File) -> None:
        text = file.attrs["keras_version"]
        del file.attrs["keras_version"]
        file.attrs.create("keras_version", np.bytes_(text))

    assert list(load(legacy(tmp_path, fixed))) == ["layer"]

    def old(file: h5py.File) -> None:
        file.attrs["keras_version"] = np.bytes_("2.15.0")

    assert load(legacy(tmp_path, old))["layer"].activations[0] == "hard_sigmoid"

    def without(file: h5py.File) -> None:  # as the first ones that Keras wrote
        del file.attrs["keras_version"]

    assert load(legacy(tmp_path, without))["layer"].activations[0] == "hard_sigmoid"


@pytest.mark.parametrize("value", [np.zeros(3), ["a", "b"], 7, h5py.Empty("S1")], ids=str)
def test_a_configuration_that_is_no_string(value: Any, tmp_path: Path) -> None:
    path = legacy(tmp_path, lambda file: file.attrs.__setitem__("model_config", value))
    with pytest.raises(FormatError, match="attribute 'model_config' is no string"):
        load(path)


def test_a_string_longer_than_the_file(tmp_path: Path) -> None:
    """HDF5 itself would take four gigabytes for this one."""
    content = bytearray((FOLDER / "activations-torch.h5").read_bytes())
    length, address, index = value_of(content, b"model_config")
    struct.pack_into("<I", content, value_at(content, b"model_config"), 0xFFFFFFFF)
    assert (length, index) < (1 << 14, 100)
    assert content[address : address + 4] == b"GCOL"
    path = tmp_path / "long.h5"
    path.write_bytes(content)
    with pytest.raises(FormatError, match="no string b'model_config'"):
        load(path)


def test_a_heap_whose_objects_lead_nowhere(tmp_path: Path) -> None:
    """Over this one HDF5 itself goes on for ever."""
    content = bytearray((FOLDER / "activations-torch.h5").read_bytes())
    _, address, _ = value_of(content, b"model_config")
    struct.pack_into("<HHIQ", content, address + 16, 0, 0, 0, 0)
    path = tmp_path / "ring.h5"
    path.write_bytes(content)
    with pytest.raises(FormatError, match="no string b'model_config'"):
        load(path)


def test_a_free_list_that_ends_in_itself(tmp_path: Path) -> None:
    """Over this one HDF5 itself takes memory until there is none: found by changed files."""
    content = bytearray((FOLDER / "activations.weights.h5").read_bytes())
    at = content.index(b"HEAP\0")
    _, free, address = struct.unpack_from("<3Q", content, at + 8)
    struct.pack_into("<Q", content, address + free, free)
    path = tmp_path / "ring.weights.h5"
    path.write_bytes(content)
    with pytest.raises(FormatError, match="damaged HDF5, at the file: a free list without end"):
        load(path)


@pytest.mark.parametrize(("place", "value"), [(8, 9), (13, 4), (14, 4), (24, 8)])
def test_addresses_that_are_not_as_hdf5_writes_them(place: int, value: int, tmp_path: Path) -> None:
    content = bytearray((FOLDER / "activations.weights.h5").read_bytes())
    content[place] = value
    path = tmp_path / "addresses.weights.h5"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"superblock|addresses that HDF5 does not write"):
        load(path)


@pytest.mark.parametrize("version", ["earliest", "v108", "latest"])
def test_every_layout_of_hdf5_is_taken(version: str, tmp_path: Path) -> None:
    path = tmp_path / "copy.h5"
    source = h5py.File(FOLDER / "activations-torch.h5")
    with source, h5py.File(path, "w", libver=(version, "latest")) as file:
        for name in source:
            source.copy(name, file)
        file.attrs.update(source.attrs)
    (layer,) = load(path).values()
    (same,) = load(FOLDER / "activations-torch.h5").values()
    assert layer.get_config() == same.get_config()
    np.testing.assert_array_equal(layer.weight_ih_l0, same.weight_ih_l0)


def value_at(content: bytearray, name: bytes) -> int:
    """Where the value of an attribute is, in a message of version 1."""
    at = content.index(name + b"\0")
    sizes = struct.unpack_from("<3H", content, at - 6)
    return at + sum(size + -size % 8 for size in sizes)


def value_of(content: bytearray, name: bytes) -> tuple[int, int, int]:
    length, address, index = struct.unpack_from("<IQI", content, value_at(content, name))
    return length, address, index


def test_weights_whose_names_do_not_tell_them_apart(tmp_path: Path) -> None:
    place = "model_weights/layer/activations"
    for edit in (
        lambda file: file.__delitem__(place),
        lambda file: file.copy(place, "model_weights/layer/again"),
    ):
        with pytest.raises(FormatError, match="expected one group of weights for 'layer', found "):
            load(legacy(tmp_path, edit))


# --- memory ---------------------------------------------------------------------------------------

PEAK = """
import sys
from fastlstm.interop.keras import load
from fastlstm.storage import FormatError

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

harmless, *others = sys.argv[1:]
load(harmless)
before = peak()
for path in others:
    try:
        load(path)
    except FormatError:
        pass
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for the peak")
def test_memory_stays_in_proportion_to_the_file(tmp_path: Path) -> None:
    """Of files that promise gigabytes, and of one that holds what it promises."""
    content = bytearray((FOLDER / "activations-torch.h5").read_bytes())
    struct.pack_into("<I", content, value_at(content, b"model_config"), 0xFFFFFFFF)
    long = tmp_path / "long.h5"
    long.write_bytes(content)
    sparse = weights_file(
        tmp_path, replaced("0", lambda group: group.create_dataset("0", (1 << 28, 12), "f4"))
    )
    units = keras_file(tmp_path, lambda config: lstm_of(config)["config"].update(units=10**6))
    bomb = tmp_path / "bomb.keras"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("config.json", b"[" + b"0," * (1 << 26) + b"0]")
        file.writestr("model.weights.h5", bytes(1 << 28))
    harmless = FOLDER / "sequential-torch.keras"
    growth = int(run_python("-c", PEAK, *map(str, (harmless, long, sparse, units, bomb))))
    assert growth < 8 << 10, f"{growth} KiB"

    large = tmp_path / "large.keras"
    save(LSTM(1000, 1000, rng=0), large)
    growth = int(run_python("-c", PEAK, str(harmless), str(large)))
    size = large.stat().st_size >> 10
    assert size < growth < 5 * size, f"{growth} KiB for {size} KiB"


def test_members_are_what_the_tests_think(tmp_path: Path) -> None:
    members = members_of(tmp_path)
    assert set(members) == {"metadata.json", "config.json", "model.weights.h5"}
    with h5py.File(io.BytesIO(members["model.weights.h5"])) as file:
        assert sorted(file[CELL]) == ["0", "1", "2"]
