"""Strings of an HDF5 file, read past the library.

HDF5 keeps a string of any length in a global heap. The library believes what a file says of a
string's length and of a heap's objects: over a damaged one it takes gigabytes, or goes round for
ever. So the few strings that are needed are read here, by the file format specification
(III.E, IV.A.2.m), and nothing is larger than the file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import islice

_HEADER = 16  # bytes, of a global heap and of each object in it
_MOST = 16  # attributes of one name, so that time stays in proportion to the file's size


def read_string(content: bytes, name: bytes) -> bytes:
    """The value of the attribute of this name, a string of variable length.

    Raises
    ------
    ValueError
        If it is not to be found.
    """
    for at in islice(_values(content, name), _MOST):
        length, address, index = struct.unpack_from("<IQI", content, at)
        for found, begin, size in _objects(content, address):
            if found == index and length <= size:
                return content[begin : begin + length]
    raise ValueError(f"no string {name!r}")


def _values(content: bytes, name: bytes) -> Iterator[int]:
    """Where the values of attributes of this name begin.

    A message holds the sizes of name, datatype and dataspace, then these three, then the value.
    Version 1 pads each of them to 8 bytes; version 3 does not, and says one byte about the name.
    """
    at = -1
    while (at := content.find(name + b"\0", at + 1)) >= 0:
        for version, header, unit in ((1, 8, 8), (3, 9, 1)):
            if at < header or content[at - header] != version:
                continue
            sizes = struct.unpack_from("<3H", content, at - header + 2)
            value = at + sum(size + -size % unit for size in sizes)
            if sizes[0] == len(name) + 1 and value + 16 <= len(content):
                yield value


def _objects(content: bytes, heap: int) -> Iterator[tuple[int, int, int]]:
    """Index, begin and size of the objects in a global heap: "GCOL", version, size, objects."""
    if heap + _HEADER > len(content) or content[heap : heap + 4] != b"GCOL":
        return
    (size,) = struct.unpack_from("<Q", content, heap + 8)
    place, end = heap + _HEADER, min(heap + size, len(content))
    while place + _HEADER <= end:
        index, held = struct.unpack_from("<H6xQ", content, place)
        begin = place + _HEADER
        if index == 0 or begin + held > end:  # the free space, which comes last
            return
        yield index, begin, held
        place = begin + held + -held % 8
