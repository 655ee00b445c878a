"""storage: what is saved comes back to the bit, whole or not at all; nothing else is let in."""

from __future__ import annotations

import ast
import errno
import json
import os
import resource
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import fastlstm
from fastlstm import storage
from fastlstm.lstm import LSTM
from fastlstm.storage import File, FormatError
from tests.support import Array, assert_same_bits

DTYPES = ["f4", "f8", "?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"]
ARRAYS = {
    "layer.weight": np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4),
    "step": np.array(7),
    "empty": np.zeros((0, 3), np.uint8),
}
HEADER = {"characters": "aé日\n\x00😀", "sizes": [1, 2], "nested": {"p": 0.1, "none": None}}


def same_bytes(actual: Array, expected: Array) -> bool:
    """Stricter than `assert_same_bits`: the sign of a zero and the payload of a NaN count too."""
    assert_same_bits(actual, expected)
    return actual.tobytes() == expected.tobytes()


def assert_holds(file: File, arrays: dict[str, Array], header: dict[str, Any]) -> None:
    assert set(file.arrays) == set(arrays)
    assert all(same_bytes(file.arrays[name], array) for name, array in arrays.items())
    assert file.header == header


@pytest.fixture(scope="module")
def undamaged(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("undamaged") / "file"
    storage.save(path, "lstm", ARRAYS, HEADER)
    return path.read_bytes()


@pytest.fixture
def path(tmp_path: Path, undamaged: bytes) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(undamaged)
    return path


def write_fields(path: Path, fields: object, *, key: str = "fastlstm") -> None:
    """A safetensors file as another program would make it, with our entry in its metadata."""
    text = fields if isinstance(fields, str) else json.dumps(fields)
    safetensors.numpy.save_file({"w": np.zeros(2)}, path, {key: text})


def fields_of(path: Path) -> dict[str, Any]:
    """The fields in a file of ours, read without our code."""
    with safetensors.safe_open(path, "np") as file:
        fields: dict[str, Any] = json.loads(file.metadata()["fastlstm"])
    return fields


def files_beside(path: Path) -> list[str]:
    return sorted(other.name for other in path.parent.iterdir() if other != path)


# --- round trips ----------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
arrays_of_any_kind = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0))
)
names = st.text(st.characters(categories=["L", "N"], include_characters="._-"), min_size=1)


@settings(deadline=None, max_examples=60)
@given(
    st.dictionaries(names, arrays_of_any_kind, max_size=4),
    st.dictionaries(st.text(), json_values, max_size=4),
    st.sampled_from(storage.KINDS),
)
def test_everything_comes_back_to_the_bit(
    tmp_path_factory: pytest.TempPathFactory,
    arrays: dict[str, Array],
    header: dict[str, Any],
    kind: str,
) -> None:
    path = tmp_path_factory.mktemp("round") / "file"
    storage.save(path, kind, arrays, header)
    file = storage.load(path, kind)
    assert (file.kind, file.version, file.path) == (kind, storage.VERSION, path)
    assert_holds(file, arrays, header)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_values_at_the_edges_of_a_float_keep_their_bits(tmp_path: Path, dtype: str) -> None:
    info = np.finfo(dtype)
    edges = np.array([0.0, -0.0, np.nan, -np.nan, np.inf, -np.inf, info.tiny, info.max], dtype)
    edges = np.append(edges, info.smallest_subnormal)
    storage.save(tmp_path / "file", "lstm", {"edges": edges}, {})
    assert same_bytes(storage.load(tmp_path / "file").arrays["edges"], edges)


@pytest.mark.parametrize(
    "lay_out",
    [
        np.asfortranarray,
        lambda a: a[::-1, ::2],
        lambda a: a.T,
        lambda a: np.broadcast_to(a, a.shape),
    ],
    ids=["fortran", "strided", "transposed", "broadcast"],
)
def test_any_memory_layout_is_taken(tmp_path: Path, lay_out: Callable[[Array], Array]) -> None:
    array = lay_out(np.arange(24.0).reshape(4, 6))
    storage.save(tmp_path / "file", "lstm", {"a": array}, {})
    assert same_bytes(storage.load(tmp_path / "file").arrays["a"], np.ascontiguousarray(array))


def test_loaded_arrays_are_fresh_and_writable(path: Path) -> None:
    storage.load(path).arrays["layer.weight"][:] = 9
    assert_holds(storage.load(path), ARRAYS, HEADER)


def test_any_reader_of_safetensors_sees_the_arrays(path: Path) -> None:
    found = safetensors.numpy.load_file(path)
    assert set(found) == set(ARRAYS)
    assert all(same_bytes(found[name], array) for name, array in ARRAYS.items())


def test_an_lstm_goes_through_a_file(tmp_path: Path) -> None:
    lstm, other = (LSTM(3, 4, num_layers=2, bidirectional=True, rng=rng) for rng in (0, 1))
    storage.save(tmp_path / "file", "lstm", lstm.state_dict(), {})
    other.load_state_dict(storage.load(tmp_path / "file", "lstm").arrays)
    for name, array in lstm.parameters().items():
        assert same_bytes(other.parameters()[name], array)


def test_the_same_content_makes_the_same_bytes(path: Path) -> None:
    before = path.read_bytes()
    storage.save(path, "lstm", ARRAYS, HEADER)
    assert path.read_bytes() == before


# --- what save refuses ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("array", "message"),
    [
        ([1.0, 2.0], "list"),
        (np.float32(1), "float32"),
        (np.zeros(2, np.float16), "float16"),
        (np.zeros(2, np.complex64), "complex64"),
        (np.zeros(2, object), "object"),
        (np.array(["text"]), "str"),
        (np.zeros(2, ">f4"), ">f4"),
        (np.zeros(2, "M8[s]"), "datetime64"),
        (np.ma.masked_array([1.0], [True]), "MaskedArray"),
    ],
)
def test_no_other_array_is_saved(path: Path, array: Any, message: str) -> None:
    with pytest.raises(TypeError, match=rf"arrays\['bad'\].*{message}"):
        storage.save(path, "lstm", {"bad": array}, {})
    assert_holds(storage.load(path), ARRAYS, HEADER)


@pytest.mark.parametrize("name", ["", "__metadata__", "line\nbreak", "\ud800"])
def test_no_name_is_saved_that_safetensors_cannot_hold(path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="arrays: no array can have the name"):
        storage.save(path, "lstm", {name: np.zeros(1)}, {})
    with pytest.raises(TypeError, match="arrays: expected names of type str"):
        storage.save(path, "lstm", {1: np.zeros(1)}, {})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    "header",
    [
        {"a": float("nan")}, {"a": float("inf")}, {"a": (1, 2)}, {1: "a"}, {"a": np.float32(1)},
        {"a": {2: 3}}, {"a": b"bytes"}, {"a": {1, 2}}, {"a": object()}, ["a"], None,
    ],
)  # fmt: skip
def test_a_header_that_json_would_change_is_refused(path: Path, header: Any) -> None:
    with pytest.raises(TypeError, match="header: expected a JSON object"):
        storage.save(path, "lstm", {}, header)


def test_an_endless_header_is_refused(path: Path) -> None:
    header: dict[str, Any] = {}
    header["itself"] = header
    with pytest.raises(TypeError, match="header: expected a JSON object"):
        storage.save(path, "lstm", {}, header)


def test_a_header_too_long_to_be_read_again_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_LARGEST_TABLE", 1_000)
    with pytest.raises(ValueError, match=r"header: .* more than a file can hold"):
        storage.save(path, "lstm", {}, {"text": "x" * 1_000})


def test_an_unknown_kind_is_refused(path: Path) -> None:
    with pytest.raises(ValueError, match=r"kind: expected one of lstm, lstm-cell, .*, checkpoint"):
        storage.save(path, "tree", {}, {})
    with pytest.raises(ValueError, match="kind: expected one of"):
        storage.load(path, "tree")


# --- what load refuses ----------------------------------------------------------------------------


def test_a_missing_file_is_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        storage.load(tmp_path / "nowhere")
    with pytest.raises(IsADirectoryError):
        storage.load(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\x00" * 7, b"\x00" * 100, b"PK\x03\x04" + b"zip" * 50, b"\x89PNG\r\n\x1a\n" * 9,
        b"To be, or not to be, that is the question", b"\x02" + bytes(7) + b"[]",
        b"\xff" * 64, b"\x0a" + bytes(7) + b"[" * 10,
        (1 << 18).to_bytes(8, "little") + b"[" * (1 << 18),
        b"\x04" + bytes(7) + b"\xff\xfe\xfd\xfc", b"\x05" + bytes(7) + b'{"a":' + bytes(9),
    ],
    ids=range(12),
)  # fmt: skip
def test_no_other_file_is_taken_for_ours(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"other: no file of fastlstm's|other: a safetensors"):
        storage.load(path)


def test_another_programs_safetensors_file_is_no_model_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "theirs"
    safetensors.numpy.save_file({"w": np.zeros(2)}, path)
    expected = "theirs: a safetensors file, but no model of fastlstm's"
    with pytest.raises(FormatError, match=expected):
        storage.load(path)
    write_fields(path, {}, key="format")
    with pytest.raises(FormatError, match=expected):
        storage.load(path)


def test_a_huge_file_of_another_sort_is_refused_unread(tmp_path: Path) -> None:
    table = b'{"w":{"dtype":"U8","shape":[1099511627776],"data_offsets":[0,1099511627776]}}'
    for beginning in (b"", len(table).to_bytes(8, "little") + table):
        path = tmp_path / "huge"
        path.write_bytes(beginning)
        os.truncate(path, len(beginning) + (1 << 40))  # a hole: no disk is used
        with pytest.raises(FormatError, match=r"no (file|model) of fastlstm's"):
            storage.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "written in version 2 of the format by a newer fastlstm"),
        ({"version": 2, "header": 3, "soul": 1}, "written in version 2"),
        ({"version": 0}, "version 1 or more, got 'fastlstm', 0"),
        ({"version": "1"}, "expected version to be int, got '1'"),
        ({"version": True}, "expected version to be int, got True"),
        ({"version": 1.0}, "expected version to be int, got 1.0"),
        ({"format": "slowlstm"}, "got 'slowlstm', 1"),
        ({"kind": "tree"}, "a file of unknown kind 'tree'"),
        ({"kind": 3}, "expected kind to be str, got 3"),
        ({"header": []}, r"expected header to be dict, got \[\]"),
        ({"checksum": None}, "expected checksum to be int, got None"),
        ({"kind": ...}, r"missing fields \['kind'\]"),
        ({"header": ...}, r"missing fields \['header'\]"),
        ({"version": ...}, r"missing fields \['version'\]"),
        ({"author": "me"}, r"unknown fields \['author'\]"),
        ({"checksum": 1}, "damaged: the content's checksum"),
    ],
)
def test_every_field_is_looked_at(path: Path, change: dict[str, Any], message: str) -> None:
    fields = {**fields_of(path), **change}
    write_fields(path, {name: value for name, value in fields.items() if value is not ...})
    with pytest.raises(FormatError, match=message):
        storage.load(path)


@pytest.mark.parametrize("text", ["", "{", "null", "[1]", "NaN", '{"version": NaN}', "[" * 5000])
def test_fields_that_are_no_json_object_are_refused(tmp_path: Path, text: str) -> None:
    write_fields(tmp_path / "file", text)
    with pytest.raises(FormatError, match="file"):
        storage.load(tmp_path / "file")


def test_another_kind_than_asked_is_refused(path: Path) -> None:
    with pytest.raises(FormatError, match="expected a file of kind 'checkpoint', got 'lstm'"):
        storage.load(path, "checkpoint")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"characters": str, "sizes": list}, r"missing fields \[\], unknown fields \['nested'\]"),
        ({"characters": str, "sizes": list, "nested": dict, "p": float}, r"missing fields \['p'\]"),
        (
            {"characters": int, "sizes": list, "nested": dict},
            "expected characters to be int, got 'aé",
        ),
        (
            {"characters": str, "sizes": (int, float), "nested": dict},
            "expected sizes to be int or float",
        ),
    ],
)
def test_check_header_names_what_is_wrong(path: Path, fields: dict[str, Any], message: str) -> None:
    file = storage.load(path)
    file.check_header(characters=str, sizes=list, nested=(dict, list))
    with pytest.raises(FormatError, match=f"in the header of a lstm: {message}"):
        file.check_header(**fields)


def test_dtypes_that_we_never_write_are_refused(path: Path) -> None:
    fields = json.dumps(fields_of(path))
    safetensors.numpy.save_file({"w": np.zeros(2, np.float16)}, path, {"fastlstm": fields})
    with pytest.raises(FormatError, match="array 'w' has an unknown dtype 'F16'"):
        storage.load(path)


@pytest.mark.parametrize("shape", [[1] * 70, [0, 2**62, 4], [0, 2**63]])
def test_shapes_that_numpy_cannot_have_are_refused(path: Path, shape: list[int]) -> None:
    size = 0 if 0 in shape else 4
    table = {
        "__metadata__": {"fastlstm": json.dumps(fields_of(path))},
        "w": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]},
    }
    text = json.dumps(table).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(size))
    with pytest.raises(FormatError, match=r"model\.safetensors: "):
        storage.load(path)


# --- damage ---------------------------------------------------------------------------------------


def test_a_file_cut_short_anywhere_is_refused(path: Path) -> None:
    content = path.read_bytes()
    for length in {*range(0, len(content), 37), 1, 7, 8, 9, len(content) - 1}:
        path.write_bytes(content[:length])
        with pytest.raises(FormatError, match=r"model\.safetensors: "):
            storage.load(path)
    path.write_bytes(content + b"\x00")
    with pytest.raises(FormatError, match=r"model\.safetensors: "):
        storage.load(path)


def test_a_flipped_bit_is_found_or_changes_nothing(path: Path) -> None:
    content = path.read_bytes()
    found = 0
    with path.open("r+b", buffering=0) as damaged:
        for bit in range(8 * len(content)):
            os.pwrite(damaged.fileno(), bytes([content[bit // 8] ^ 1 << bit % 8]), bit // 8)
            try:
                file = storage.load(path)
            except FormatError:
                found += 1
            else:
                assert_holds(file, ARRAYS, HEADER)
            os.pwrite(damaged.fileno(), content[bit // 8 : bit // 8 + 1], bit // 8)
    assert found > 7.5 * len(content)


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_random_damage_is_found_or_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, undamaged: bytes, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "file"
    content = bytearray(undamaged)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        removed = data.draw(st.integers(0, 9))
        content[start : start + removed] = data.draw(st.binary(max_size=9))
    path.write_bytes(content)
    try:
        file = storage.load(path)
    except FormatError:
        return
    assert_holds(file, ARRAYS, HEADER)


# --- writing: the old file or the new one ---------------------------------------------------------


def test_a_full_disk_leaves_the_old_file_and_nothing_else(path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            storage.save(path, "lstm", {"large": np.zeros(100_000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert_holds(storage.load(path), ARRAYS, HEADER)
    assert files_beside(path) == []


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failure_late_in_writing_leaves_the_old_file(
    path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(*((os, "fsync") if call == "fsync" else (Path, "replace")), fail)
    with pytest.raises(OSError, match="No space left"):
        storage.save(path, "lstm", {}, {})
    monkeypatch.undo()
    assert_holds(storage.load(path), ARRAYS, HEADER)
    assert files_beside(path) == []


def test_ctrl_c_while_writing_leaves_the_old_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        storage.save(path, "lstm", {}, {})
    assert_holds(storage.load(path), ARRAYS, HEADER)
    assert files_beside(path) == []


def test_bytes_reach_the_disk_before_the_name_and_the_name_after(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    fsync, replace = os.fsync, Path.replace

    def note_fsync(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        calls.append("folder" if is_folder else f"{os.fstat(descriptor).st_size} bytes")
        fsync(descriptor)

    def note_replace(self: Path, target: Path) -> Path:
        calls.append("replace")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "replace", note_replace)
    storage.save(path, "lstm", ARRAYS, HEADER)
    assert calls == [f"{path.stat().st_size} bytes", "replace", "folder"]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        storage.save(tmp_path / "nowhere" / "file", "lstm", {}, {})


def test_only_files_are_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="pipe: not a regular file"):
        storage.save(tmp_path / "pipe", "lstm", {}, {})
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        storage.save(tmp_path / "folder", "lstm", {}, {})
    assert sorted(other.name for other in tmp_path.iterdir()) == ["folder", "pipe"]


def test_a_link_is_followed_and_permissions_are_kept(path: Path) -> None:
    path.chmod(0o640)
    link = path.with_name("link")
    link.symlink_to(path.name)
    storage.save(link, "lstm", {"new": np.ones(1)}, {})
    assert link.is_symlink()
    assert set(storage.load(path).arrays) == {"new"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_new_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    storage.save(tmp_path / "ours", "lstm", {}, {})
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_the_longest_possible_name_can_be_saved(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 255)
    storage.save(path, "lstm", {}, {})
    assert storage.load(path).kind == "lstm"


def test_threads_that_save_to_one_file_leave_one_of_their_files(path: Path) -> None:
    def write(value: int) -> None:
        for _ in range(10):
            storage.save(path, "lstm", {"a": np.full(1000, value)}, {"value": value})

    threads = [threading.Thread(target=write, args=(value,)) for value in range(4)]
    for thread in threads:
        thread.start()
    seen = []
    while any(thread.is_alive() for thread in threads):
        seen.append(storage.load(path))
    for thread in threads:
        thread.join()
    seen.append(storage.load(path))
    for file in seen[-1:] + [file for file in seen if "value" in file.header]:
        assert (file.arrays["a"] == file.header["value"]).all()
    assert files_beside(path) == []


# --- the surroundings -----------------------------------------------------------------------------


def test_without_safetensors_a_line_says_how_to_get_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("safetensors", "safetensors.numpy"):
        monkeypatch.setitem(sys.modules, module, None)
    for call in (lambda: storage.save(path, "lstm", {}, {}), lambda: storage.load(path)):
        with pytest.raises(ImportError, match=r"pip install 'fastlstm\[train\]'"):
            call()


def test_nothing_in_the_package_can_run_code_from_a_file() -> None:
    modules = {"pickle", "_pickle", "cPickle", "dill", "joblib", "marshal", "shelve", "yaml"}
    calls = {"eval", "exec", "compile", "__import__", "load_module"}
    offences = []
    for source in Path(fastlstm.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(source.read_text("utf-8"))):
            names: set[str] = set()
            if isinstance(node, ast.Import):
                names = {alias.name.split(".")[0] for alias in node.names} & modules
            elif isinstance(node, ast.ImportFrom):
                # An exception can be caught without unpickling anything.
                if [alias.name for alias in node.names] != ["UnpicklingError"]:
                    names = {(node.module or "").split(".")[0]} & modules
            elif isinstance(node, ast.Name):
                names = {node.id} & calls
            elif isinstance(node, ast.keyword):
                names = {node.arg or ""} & {"allow_pickle"}
            offences += [f"{source.name}:{getattr(node, 'lineno', 0)}: {name}" for name in names]
    assert offences == []
