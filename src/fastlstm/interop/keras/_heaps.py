"""Heaps of an HDF5 file, read past the library, which believes what they say.

HDF5 keeps a group's names in a local heap and strings of any length in a global one. Over a
damaged one the library takes gigabytes, or goes round for ever: it follows free lists that end in
themselves, and takes a string for as long as the file says. So free lists are checked before it
sees a file, and the few strings that are needed are read here. All by the HDF5 file format
specification (II.A, III.D, III.E, IV.A.2.m); nothing is larger than the file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import islice

_HEADER = 16  # bytes, of a global heap and of each object in it
_LAST = 1  # in place of the next free block, there is none
_FREE = 16  # bytes, of a free block in a local heap at least
# Where a superblock of each version has the size of an address, that of a length, and the address
# from which all others count.
_SUPERBLOCKS = {0: (13, 14, 24), 1: (13, 14, 28), 2: (9, 10, 12), 3: (9, 10, 12)}
_MOST = 16  # attributes of one name, so that time stays in proportion to the file's size


def check_addresses(content: bytes) -> None:
    """That addresses are as they are read here: of 8 bytes, from the beginning of the file.

    Raises
    ------
    ValueError
        If they are not.
    """
    places = _SUPERBLOCKS.get(content[8]) if len(content) > 36 else None
    if places is None:
        raise ValueError("an unknown version of the superblock")
    address, length, base = places
    if content[address] != 8 or content[length] != 8 or any(content[base : base + 8]):
        raise ValueError("addresses that HDF5 does not write by itself")


def check_free_lists(content: bytes) -> None:
    """That the free list of each local heap has an end.

    A heap is "HEAP", a version, its size, the place of the first free block, and its address; a
    free block begins with the place of the next one. HDF5 itself sees a place that is outside.

    Raises
    ------
    ValueError
        If one goes in a circle.
    """
    steps, at = len(content) // _FREE, -1
    while (at := content.find(b"HEAP\0", at + 1)) >= 0:
        if at + 32 > len(content):
            return
        size, place, address = struct.unpack_from("<3Q", content, at + 8)
        while place + _FREE <= size and address + place + _FREE <= len(content):
            (place,) = struct.unpack_from("<Q", content, address + place)
            if place == _LAST:
                break
            steps -= 1
            if steps < 0:
                raise ValueError("a free list without end")


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
