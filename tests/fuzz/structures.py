"""Changes of what bytes mean: a JSON value, a message of protobuf, a member of an archive.

Whatever a format puts around that (lengths, offsets, checksums) is made to fit again, so that the
change is not hidden behind a first check.
"""

from __future__ import annotations

import copy
import io
import json
import random
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from fastlstm import storage
from tests.fuzz.mutations import INTEGERS, mutate
from tests.support import Array

# --- JSON -----------------------------------------------------------------------------------------

_DEEP: Any = 0
for _ in range(300):
    _DEEP = [_DEEP]
VALUES: list[Any] = [
    None, True, False, -1, 0.5, 1e308, float("nan"), float("inf"), 10**30, "", "a", "\ud800", "😀",
    "é" * 300, [], {}, [[]], [None], {"a": None}, _DEEP, [0] * 3_000, [[]] * 3_000, "float32",
    "float64", "float16", "2f4,", "tanh", "sigmoid", "relu", ["tanh", 1.0], "rng", "__class__",
    *INTEGERS,
]  # fmt: skip


def mutate_json(rng: random.Random, value: Any) -> Any:
    """A copy with one or a few values in it changed."""
    copied = [json.loads(json.dumps(value))]  # in a list, so that all has a parent
    for _ in range(1 + min(4, int(rng.expovariate(1)))):
        places = list(_places(copied))
        parent, key = rng.choice(places)
        _change_json(rng, places, parent, key)
        if not copied:
            return None
    return copied[0]


def _places(value: Any) -> Any:
    """Every (parent, key) in nested lists and dicts."""
    waiting = [value]
    while waiting:
        parent = waiting.pop()
        keys: Any = range(len(parent)) if isinstance(parent, list) else list(parent)
        for key in keys:
            yield parent, key
            if isinstance(parent[key], (list, dict)) and len(parent[key]) < 1_000:
                waiting.append(parent[key])


def _change_json(rng: random.Random, places: list[Any], parent: Any, key: Any) -> None:
    kind = rng.randrange(7)
    value = parent[key]
    if kind == 0 and len(places) > 1:
        del parent[key]
    elif kind == 1 and isinstance(parent, dict):
        other = rng.choice(["", "dtype", "num_layers", "rng", key + "x", "\ud800"])
        parent[other] = parent.pop(key) if rng.random() < 0.5 else value
    elif kind == 2 and isinstance(parent, list):
        parent[key:key] = [value] * rng.choice([1, 2, 100])
    elif kind == 3:
        source, place = rng.choice(places)  # from elsewhere in the document
        if (isinstance(source, list) and place < len(source)) or place in source:
            parent[key] = json.loads(json.dumps(source[place]))
    elif kind == 4 and isinstance(value, (int, float)):
        parent[key] = value + rng.choice([-2, -1, 1, 2]) if rng.random() < 0.7 else -value
    elif kind == 5 and isinstance(value, str) and value:
        at = rng.randrange(len(value))
        parent[key] = value[:at] + rng.choice(["", "0", "_", "/", "\0", "\n"]) + value[at + 1 :]
    else:
        parent[key] = copy.deepcopy(rng.choice(VALUES))


def dump(value: Any) -> bytes:
    """JSON as bytes, also of what is no JSON: NaN, half of a surrogate pair."""
    return json.dumps(value).encode(errors="surrogatepass")


# --- safetensors ----------------------------------------------------------------------------------


def mutate_table(rng: random.Random, content: bytes) -> bytes:
    """A safetensors file with a changed table, whose length is right again."""
    length = int.from_bytes(content[:8], "little")
    table = dump(mutate_json(rng, json.loads(content[8 : 8 + length])))
    return len(table).to_bytes(8, "little") + table + content[8 + length :]


def mutate_ours(rng: random.Random, content: bytes) -> bytes:
    """A file of ours with changed fields, header or arrays, and a checksum that agrees."""
    arrays = dict(sorted(safetensors.numpy.load(content).items()))  # it has no order of its own
    length = int.from_bytes(content[:8], "little")
    fields = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][storage.FORMAT])
    if rng.random() < 0.6:
        header = mutate_json(rng, fields["header"])
        fields["header"] = header if isinstance(header, dict) or rng.random() < 0.1 else {}
    for _ in range(rng.choice([0, 0, 1, 1, 2])):
        _change_arrays(rng, arrays)
    if rng.random() < 0.1:
        fields = mutate_json(rng, fields)
    if isinstance(fields, dict):
        fields.pop("checksum", None)
        fields["checksum"] = storage._checksum(fields, arrays)
    return safetensors.numpy.save(arrays, {storage.FORMAT: json.dumps(fields)})


def _change_arrays(rng: random.Random, arrays: dict[str, Array]) -> None:
    name = rng.choice([*arrays, "more"])
    array = arrays.pop(name, np.zeros(3, np.float32))
    kind = rng.randrange(6)
    if kind == 1:
        arrays[rng.choice(["", "a", name + "0", name.replace("l0", "l1")])] = array
    elif kind == 2:
        arrays[name] = array.astype(rng.choice(["f4", "f8", "i8", "?", "u1", "i2"]))
    elif kind == 3:
        arrays[name] = array.reshape(rng.choice([(-1,), (1, -1), (*array.shape, 1)]))
    elif kind == 4:
        shape = tuple(rng.choice([0, 1, 2, size, size + 1]) for size in array.shape)
        arrays[name] = np.zeros(shape, array.dtype)
    elif kind == 5:
        arrays[name] = np.full_like(array, rng.choice([0, 1, 255]))


# --- archives -------------------------------------------------------------------------------------


def mutate_member(
    rng: random.Random, content: bytes, change: Callable[[str, bytes], bytes]
) -> bytes:
    """A zip archive with one member changed or gone, its directory made anew around it."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    at = rng.randrange(len(members))
    name, member = members[at]
    kind = rng.randrange(16)
    if kind == 0:
        del members[at]
    elif kind == 1:
        members.insert(at, (rng.choice([name, "a", "../a", "config.json"]), member))
    elif kind == 2:
        members[at] = rng.choice(members)[0], member
    else:
        members[at] = name, change(name, member)
    compression = zipfile.ZIP_DEFLATED if rng.random() < 0.03 else zipfile.ZIP_STORED
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", compression) as archive:
        for name, member in members:
            archive.writestr(zipfile.ZipInfo(name), member, compression)
    return target.getvalue()


# --- protobuf -------------------------------------------------------------------------------------

# (number of the field, wire type, an int or bytes)
Field = tuple[int, int, Any]


def mutate_message(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """A message of protobuf with one field changed, at any depth; all lengths around it fit."""
    fields = _fields(content)
    if not fields:
        return mutate(rng, content, others)
    # Long fields have more in them; others are looked at, too.
    weights = [1 + (len(f[2]) if f[1] == 2 else 0) * rng.choice([0, 1]) for f in fields]
    at = rng.choices(range(len(fields)), weights)[0]
    number, wire, value = fields[at]
    if wire == 2 and len(value) > 1 and rng.random() < 0.85 and _fields(value):
        fields[at] = number, wire, mutate_message(rng, value, others)
    else:
        _change_field(rng, fields, at, others)
    return b"".join(map(_encode, fields))


def _change_field(
    rng: random.Random, fields: list[Field], at: int, others: Sequence[bytes]
) -> None:
    number, wire, value = fields[at]
    kind = rng.randrange(8)
    if kind == 0:
        del fields[at]
    elif kind == 1:
        fields[at:at] = [fields[at]] * rng.choice([1, 1, 2, 50, 1_000])
    elif kind == 2:
        fields[at] = max(1, number + rng.choice([-1, 1])), wire, value
    elif kind == 3:
        other = rng.randrange(len(fields))
        fields[at], fields[other] = fields[other], fields[at]
    elif kind == 4:
        fields[at] = number, *rng.choice([(0, rng.choice(INTEGERS)), (2, b""), (2, b"\x08\x01")])
    elif wire == 0:
        near = (value + rng.choice([-1, 1, 2])) % 2**64
        fields[at] = number, 0, rng.choice([rng.choice(INTEGERS), near, rng.randrange(30)])
    elif wire == 2 and value:
        fields[at] = number, 2, mutate(rng, value, others)
    else:
        fields[at] = number, wire, rng.randbytes(len(value))


def _fields(content: bytes) -> list[Field]:
    """The fields of a message, or [] of bytes that are none."""
    fields: list[Field] = []
    at = 0
    while at < len(content):
        tag, at = _varint(content, at)
        number, wire = tag >> 3, tag & 7
        value: Any
        if wire == 0:
            value, at = _varint(content, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
            value, at = content[at : at + size], at + size
        elif wire == 2:
            size, at = _varint(content, at)
            value, at = content[at : at + size], at + size
        else:
            return []
        if not number or at > len(content):
            return []
        fields.append((number, wire, value))
    return fields


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = 0
    for k in range(10):
        if at >= len(content):
            break
        value |= (content[at] & 127) << 7 * k
        at += 1
        if content[at - 1] < 128:
            return value, at
    return value, len(content) + 1  # no message


def _encode(field: Field) -> bytes:
    number, wire, value = field
    start = _encode_varint(number << 3 | wire)
    if wire == 0:
        return start + _encode_varint(value % 2**64)
    payload: bytes = value
    return start + (_encode_varint(len(payload)) if wire == 2 else b"") + payload


def _encode_varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
