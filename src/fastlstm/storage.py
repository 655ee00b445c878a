"""The one file format: named arrays and a JSON header in one safetensors file, written atomically.

A file is an ordinary safetensors file, so any reader of that format sees the arrays. What makes it
ours is one entry of its metadata, "fastlstm": a JSON object with the fields of `_FIELDS`. Loading
runs no code from the file, and a checksum over names, arrays and header tells a damaged file from
a whole one.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np

from fastlstm._extras import import_extra
from fastlstm._validate import Array, compact

FORMAT = "fastlstm"
VERSION = 1
KINDS = (
    "lstm", "lstm-cell", "rnn", "linear", "embedding", "language-model", "checkpoint",
    "sequence-classifier", "sequence-regressor", "sequence-tagger", "text-classifier",
    "translator", "sequence-recognizer", "forecaster",
)  # fmt: skip

_FIELDS = {"format": str, "version": int, "kind": str, "header": dict, "checksum": int}
_DTYPES = {
    "F32": np.float32, "F64": np.float64, "BOOL": np.bool_,
    "I8": np.int8, "I16": np.int16, "I32": np.int32, "I64": np.int64,
    "U8": np.uint8, "U16": np.uint16, "U32": np.uint32, "U64": np.uint64,
}  # fmt: skip
_STORABLE = frozenset(np.dtype(dtype) for dtype in _DTYPES.values())
_LARGEST_TABLE = 100_000_000  # bytes; safetensors reads no longer one


class FormatError(ValueError):
    """A file is not what was asked for: no model of ours, damaged, newer, or of another kind."""


@dataclass(frozen=True)
class File:
    """What `load` returns.

    Attributes
    ----------
    path : Path
        Where it came from.
    kind : str
        One of `KINDS`.
    version : int
        Version of the format that it was written in.
    arrays : dict of str to ndarray
        Fresh, writable arrays under their names.
    header : dict
        The JSON object that was saved with them.
    """

    path: Path
    kind: str
    version: int
    arrays: dict[str, Array]
    header: dict[str, Any]

    def check_header(self, **fields: type | tuple[type, ...]) -> None:
        """Check that the header has exactly these fields, of these JSON types.

        Raises
        ------
        FormatError
            If a field is missing, unknown or of another type.
        """
        _check_fields(self.path, f"the header of a {self.kind}", self.header, fields)


def save(
    path: str | os.PathLike[str],
    kind: str,
    arrays: Mapping[str, Array],
    header: Mapping[str, Any],
) -> None:
    """Write arrays and header to one file: after a crash at any time, the old file or the new one.

    The bytes go to a temporary file in the same folder, reach the disk, and then take the name.
    Only a process killed in the middle can leave that temporary file (".NAME.….tmp") behind.

    Parameters
    ----------
    path : str or path
        A file to write or replace. A symbolic link is followed; permissions are kept.
    kind : str
        One of `KINDS`.
    arrays : mapping of str to ndarray
        Of float32, float64, bool or any integer dtype, of any shape, in any memory layout.
    header : mapping
        A JSON object: str keys; dict, list, str, int, finite float, bool or None as values.

    Raises
    ------
    TypeError
        If an array is no ndarray or of another dtype, or the header is no JSON object.
    ValueError
        If the kind or a name is not possible.
    OSError
        If the file cannot be written. What was there before is left as it was.
    ImportError
        If safetensors is not installed.
    """
    safetensors = import_safetensors()
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
    checked = {name: _check_storable(name, array) for name, array in arrays.items()}
    fields = {
        "format": FORMAT,
        "version": VERSION,
        "kind": kind,
        "header": check_json("header", header),
    }
    fields["checksum"] = _checksum(fields, checked)
    text = json.dumps(fields, allow_nan=False)
    # The text is quoted once more inside of safetensors' own table, beside a line per array.
    if 2 * len(text) + 200 * len(checked) + sum(map(len, checked)) > _LARGEST_TABLE:
        raise ValueError(f"header: {len(text)} characters of JSON are more than a file can hold")
    content = safetensors.numpy.save(checked, {FORMAT: text})
    with replacing(Path(path)) as file:
        file.write(content)


def load(path: str | os.PathLike[str], kind: str | None = None) -> File:
    """Read a file that `save` wrote.

    Parameters
    ----------
    path : str or path
    kind : str, optional
        Refuse any other kind. One of `KINDS`.

    Raises
    ------
    FileNotFoundError
        If there is no such file (another OSError if it cannot be read).
    FormatError
        If it is no file of ours, of another kind, in a newer version of the format, or damaged.
    ImportError
        If safetensors is not installed.

    Notes
    -----
    Memory stays below 64 times the file's size, about twice for a usual one: JSON that
    consists of brackets takes up to 55 bytes for each.
    """
    safetensors = import_safetensors()
    if kind is not None and kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
    path = Path(path)
    with path.open("rb") as file:
        table = _read_table(path, file)
        fields = _read_fields(path, table, kind)
        file.seek(0)
        content = file.read()
    arrays = _read_arrays(path, safetensors, content)
    found = _checksum({name: fields[name] for name in fields if name != "checksum"}, arrays)
    if found != fields["checksum"]:
        raise FormatError(
            f"{path}: damaged: the content's checksum is {found}, "
            f"the header says {fields['checksum']}"
        )
    return File(path, fields["kind"], fields["version"], arrays, fields["header"])


def check_json(name: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping as a dict if JSON gives back the same, else raise TypeError."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name}: expected a JSON object, got a {type(value).__name__}")
    copied = dict(value)
    try:
        same = json.loads(json.dumps(copied, allow_nan=False)) == copied
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"{name}: expected a JSON object: {error}") from None
    if not same:
        raise TypeError(f"{name}: expected a JSON object: str keys, and lists, not tuples")
    return copied


def check_dtype_name(value: object) -> str:
    """Return the name of a layer's dtype in a header; NumPy's own parser takes much more."""
    if value not in ("float32", "float64"):
        raise ValueError(f"dtype: expected float32 or float64, got {value!r:.80}")
    return str(value)


def import_safetensors() -> ModuleType:
    """Return the module safetensors, or say how to get it."""
    import_extra("safetensors.numpy", extra="train", purpose="saving and loading")
    return import_extra("safetensors", extra="train", purpose="saving and loading")


# --- writing --------------------------------------------------------------------------------------


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that becomes `path` when the block ends, and vanishes if it raises."""
    path = Path(os.path.realpath(path))
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        mode = None
    if mode is not None and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(f"{path}: not a regular file, and so cannot be replaced")
    temporary = path.with_name(f".{path.name[:200]}.{secrets.token_hex(6)}.tmp")
    try:
        with temporary.open("xb") as file:
            if mode is not None:
                os.fchmod(file.fileno(), stat.S_IMODE(mode))
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename in this folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_storable(name: object, array: object) -> Array:
    if not isinstance(name, str):
        raise TypeError(f"arrays: expected names of type str, got {name!r}")
    if name in ("", "__metadata__") or not name.isprintable():
        raise ValueError(f"arrays: no array can have the name {name!r}")
    if not isinstance(array, np.ndarray) or isinstance(array, np.ma.MaskedArray):
        raise TypeError(f"arrays[{name!r}]: expected a numpy.ndarray, got {type(array).__name__}")
    if array.dtype not in _STORABLE:
        raise TypeError(
            f"arrays[{name!r}]: expected float32, float64, bool or an integer dtype in native "
            f"byte order, got {array.dtype.str} ({array.dtype.name})"
        )
    return compact(np.asarray(array))


def _checksum(fields: Mapping[str, Any], arrays: Mapping[str, Array]) -> int:
    """CRC-32 over the fields and over each array's name, dtype, shape and bytes."""
    checksum = zlib.crc32(json.dumps(fields, sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        label = json.dumps([name, array.dtype.name, array.shape])
        checksum = zlib.crc32(label.encode(), checksum)
        checksum = zlib.crc32(array.reshape(-1).view(np.uint8).data, checksum)
    return checksum


# --- reading --------------------------------------------------------------------------------------


def _read_table(path: Path, file: BinaryIO) -> dict[str, Any]:
    """The JSON table that a safetensors file begins with; little is read of any other file."""
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if size < 10 or not 2 <= length <= min(size - 8, _LARGEST_TABLE):
        raise FormatError(
            f"{path}: no file of fastlstm's, or cut short: its {size} bytes do not begin with "
            "the table of a safetensors file"
        )
    table = _parse_json(path, file.read(length))
    if not isinstance(table, dict):
        raise FormatError(f"{path}: no file of fastlstm's: not a safetensors file")
    return table


def _read_fields(path: Path, table: Mapping[str, Any], kind: str | None) -> dict[str, Any]:
    """Our entry in the metadata, once it is one that this version can read."""
    metadata = table.get("__metadata__")
    text = metadata.get(FORMAT) if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise FormatError(
            f"{path}: a safetensors file, but no model of fastlstm's: its metadata lacks the "
            f"entry {FORMAT!r}"
        )
    fields = _parse_json(path, text.encode(errors="surrogatepass"))
    # A newer version may have other fields, so its number is looked at before them.
    version = fields.get("version") if isinstance(fields, dict) else None
    if isinstance(version, int) and version > VERSION:
        raise FormatError(
            f"{path}: written in version {version} of the format by a newer fastlstm; this one "
            f"reads up to version {VERSION}"
        )
    _check_fields(path, f"the entry {FORMAT!r} of its metadata", fields, _FIELDS)
    if fields["format"] != FORMAT or fields["version"] < 1:
        raise FormatError(
            f"{path}: expected format {FORMAT!r}, version 1 or more, "
            f"got {fields['format']!r}, {fields['version']}"
        )
    if fields["kind"] not in KINDS:
        raise FormatError(f"{path}: a file of unknown kind {fields['kind']!r}")
    if kind is not None and fields["kind"] != kind:
        raise FormatError(f"{path}: expected a file of kind {kind!r}, got {fields['kind']!r}")
    return dict(fields)


def _read_arrays(path: Path, safetensors: ModuleType, content: bytes) -> dict[str, Array]:
    try:
        # It checks the whole table: dtypes, shapes, and that the offsets cover the bytes exactly.
        entries = safetensors.deserialize(content)
    except safetensors.SafetensorError as error:
        raise FormatError(f"{path}: damaged or cut short: {error}") from None
    arrays = {}
    for name, entry in sorted(entries, key=lambda pair: pair[0]):  # it has no order of its own
        if entry["dtype"] not in _DTYPES:
            raise FormatError(f"{path}: array {name!r} has an unknown dtype {entry['dtype']!r}")
        try:
            # Each entry has a bytearray of its own, and so the array can be written to.
            arrays[name] = np.ndarray(entry["shape"], _DTYPES[entry["dtype"]], entry["data"])
        except ValueError as error:
            raise FormatError(f"{path}: array {name!r}: {error}") from None
    return arrays


def _parse_json(path: Path, text: bytes) -> Any:
    try:
        return json.loads(text.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: no file of fastlstm's, or damaged: {error}") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _check_fields(
    path: Path,
    what: str,
    found: object,
    expected: Mapping[str, type | tuple[type, ...]],
) -> None:
    if not isinstance(found, dict):
        raise FormatError(f"{path}: {what} is not a JSON object, but {found!r:.80}")
    missing = [name for name in expected if name not in found]
    unknown = [name for name in found if name not in expected]
    if missing or unknown:
        raise FormatError(f"{path}: in {what}: missing fields {missing}, unknown fields {unknown}")
    for name, types in expected.items():
        types = types if isinstance(types, tuple) else (types,)
        value = found[name]
        # Not isinstance: in Python a bool is an int, in JSON it is not.
        if type(value) not in types:
            names = " or ".join(t.__name__ for t in types)
            raise FormatError(
                f"{path}: in {what}: expected {name} to be {names}, got {value!r:.80}"
            )
