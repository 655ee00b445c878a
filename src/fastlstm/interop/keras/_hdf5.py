"""Groups and float arrays of an HDF5 file that may be anybody's.

HDF5 can point out of a file (external links, external storage, virtual datasets), promise more
than it holds (sparse, chunked and compressed datasets), and tie groups into rings. Keras writes
none of that, so everything but hard links to plain, contiguous arrays is refused before the
library follows it. No other file is ever opened, and all arrays together are no larger than the
file. The library itself is C and not ours: who reads files of strangers does so in a process
that may die.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from fastlstm._extras import import_extra
from fastlstm._validate import Array
from fastlstm.interop.keras._heaps import check_addresses, check_free_lists, read_string
from fastlstm.storage import FormatError

SIGNATURE = b"\x89HDF\r\n\x1a\n"
_DEEPEST = 64  # groups in groups

# What h5py raises over a damaged file.
_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, MemoryError)


def import_h5py() -> ModuleType:
    """Return the module h5py, or say how to get it."""
    return import_extra("h5py", extra="keras", purpose="Keras' files")


class Store:
    """The content of an HDF5 file, read where it is asked for.

    Parameters
    ----------
    path : Path
        What errors call the file.
    content : bytes
        All of it.

    Raises
    ------
    FormatError
        Here and in every method, if the file is damaged or has what Keras does not write.
    """

    def __init__(self, path: Path, content: bytes) -> None:
        self._h5py = import_h5py()
        self.path = path
        self._content = content
        self._left = len(content)  # bytes of arrays that may still be read
        with self._damaged("the file"):
            check_addresses(content)
            check_free_lists(content)
            self._file = self._h5py.File(io.BytesIO(content), "r")
            self._group = self._file["/"].id

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        with self._damaged("the file"):
            self._file.close()

    def children(self, group: str) -> dict[str, bool]:
        """The names in a group, in HDF5's order, each with whether it is itself a group."""
        return {name: self._is_group(item) for name, item in self._members(group)}

    def exists(self, path: str) -> bool:
        """Whether a path leads anywhere, by hard links alone."""
        return self._find(path) is not None

    def shape(self, path: str) -> tuple[int, ...] | None:
        """The shape of what `array` would give, or None where it would raise."""
        try:
            return self._open_array(path)[1]
        except FormatError:
            return None

    def array(self, path: str) -> Array:
        """A fresh array of float32 or float64."""
        dataset, shape, dtype = self._open_array(path)
        size = dtype.itemsize * math.prod(shape)
        if size > self._left:
            raise FormatError(f"{self.path}: holds more arrays than it has bytes")
        self._left -= size
        array = np.empty(shape, dtype)
        everything = self._h5py.h5s.ALL
        with self._damaged(path):
            dataset.read(everything, everything, array)
        return array

    def text(self, name: str) -> bytes | None:
        """An attribute of the file that is one string, or None where it is not there."""
        with self._damaged(f"attribute {name!r}"):
            if not self._h5py.h5a.exists(self._file.id, name.encode()):
                return None
            attribute = self._file.attrs.get_id(name)
            kind = attribute.get_type()
            plain = isinstance(kind, self._h5py.h5t.TypeStringID) and attribute.shape == ()
            if plain and kind.is_variable_str():
                return read_string(self._content, name.encode())
            if plain and attribute.get_storage_size() <= len(self._content):
                return bytes(self._file.attrs[name])
        raise FormatError(f"{self.path}: attribute {name!r} is no string")

    def walk(self, start: str = "") -> Iterator[tuple[str, dict[str, bool]]]:
        """A group and every one below it, before those in it: its path, and what `children` says.

        A group that can be reached in two ways is refused: Keras makes none.
        """
        seen: set[int] = set()
        pending = [start]
        while pending:
            group = pending.pop()
            if group.count("/") >= _DEEPEST:
                raise FormatError(f"{self.path}: more than {_DEEPEST} groups within each other")
            found = {}
            for name, item in self._members(group):
                found[name] = self._is_group(item)
                if found[name]:
                    with self._damaged(group):
                        address = self._h5py.h5o.get_info(item).addr
                    if address in seen:
                        raise FormatError(f"{self.path}: two paths lead to group {name!r}")
                    seen.add(address)
            yield group, found
            inner = [name for name, is_group in found.items() if is_group]
            pending += [f"{group}/{name}" if group else name for name in reversed(inner)]

    # --- one link at a time ----------------------------------------------------------------------

    def _members(self, path: str) -> list[tuple[str, Any]]:
        group = self._find(path)
        if group is None or not self._is_group(group):
            raise FormatError(f"{self.path}: no group {path!r}")
        with self._damaged(path):
            names = list(group)
        members = []
        for name in names:
            item = self._open(group, name)
            members.append((name.decode("utf-8", "replace"), item))
        return members

    def _find(self, path: str) -> Any:
        item = self._group
        for name in path.split("/") if path else ():
            if not self._is_group(item):
                return None
            with self._damaged(path):
                there = item.links.exists(name.encode())
            if not there:
                return None
            item = self._open(item, name.encode())
        return item

    def _open(self, group: Any, name: bytes) -> Any:
        with self._damaged(repr(name)):
            kind = group.links.get_info(name).type
            if kind != self._h5py.h5l.TYPE_HARD:
                raise FormatError(
                    f"{self.path}: {name!r} is a soft or external link, which Keras never writes"
                )
            return self._h5py.h5o.open(group, name)

    def _is_group(self, item: Any) -> bool:
        return isinstance(item, self._h5py.h5g.GroupID)

    def _open_array(self, path: str) -> tuple[Any, tuple[int, ...], np.dtype[Any]]:
        """A dataset whose bytes are all in this file, one after another; its shape and dtype."""
        dataset = self._find(path)
        if not isinstance(dataset, self._h5py.h5d.DatasetID):
            raise FormatError(f"{self.path}: no array {path!r}")
        with self._damaged(path):
            # The layout comes before the shape: to say that of a virtual dataset, HDF5 may open
            # the files that it refers to.
            created = dataset.get_create_plist()
            layouts = (self._h5py.h5d.CONTIGUOUS, self._h5py.h5d.COMPACT)
            if created.get_layout() not in layouts:
                raise FormatError(
                    f"{self.path}: array {path!r} is chunked, compressed or virtual, which Keras "
                    "does not do: load the file with Keras and save it again"
                )
            if created.get_external_count():
                raise FormatError(f"{self.path}: array {path!r} is stored in another file")
            dtype = self._dtype_of(path, dataset)
            shape: tuple[int, ...] = dataset.shape
            held = dataset.get_storage_size()
        if held != dtype.itemsize * math.prod(shape):
            raise FormatError(f"{self.path}: array {path!r} of shape {shape} has {held} bytes")
        return dataset, shape, dtype

    def _dtype_of(self, path: str, dataset: Any) -> np.dtype[Any]:
        h5t, kind = self._h5py.h5t, dataset.get_type()
        for single, double in ((h5t.IEEE_F32LE, h5t.IEEE_F64LE), (h5t.IEEE_F32BE, h5t.IEEE_F64BE)):
            if kind.equal(single):
                return np.dtype(np.float32)
            if kind.equal(double):
                return np.dtype(np.float64)
        raise FormatError(f"{self.path}: array {path!r} is not of float32 or float64")

    @contextmanager
    def _damaged(self, what: str) -> Iterator[None]:
        try:
            yield
        except FormatError:
            raise
        except _ERRORS as error:
            raise FormatError(f"{self.path}: damaged HDF5, at {what}: {error}") from None
