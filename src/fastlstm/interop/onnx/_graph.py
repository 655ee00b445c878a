"""What a model file says: its inputs, its outputs, its constants, and the nodes that are left.

A file is data. It is parsed by protobuf and checked by onnx.checker; nothing of it is executed,
and no other file is opened than those beside it that its tensors name. Every failure is a
`FormatError`. What can be computed from constants alone (exporters cut and join weights that way)
is computed here, once, as far as it stays small.

Loading takes about four times a file's size in memory where that is weights, and at most some 250
times where it is nothing but tiny nodes (protobuf and onnx.reference keep objects of each).
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from fastlstm._extras import import_extra
from fastlstm._validate import Array, Shape
from fastlstm.interop.onnx._operators import OPERATORS, Operator
from fastlstm.storage import FormatError

# Types of onnx are not spelled out: the package is optional, and so are its annotations.
Proto = Any

LARGEST_FILE = 2**31 - 1  # bytes that protobuf can parse
OLDEST_OPSET = 7  # where broadcasting became NumPy's and the operator LSTM what it is
_DTYPES = {
    "FLOAT": np.float32, "DOUBLE": np.float64, "FLOAT16": np.float16, "BOOL": np.bool_,
    "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
    "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
}  # fmt: skip


def import_onnx() -> ModuleType:
    """The package onnx, with the parts that are used here."""
    for part in ("checker", "defs", "helper", "numpy_helper", "reference"):
        import_extra(f"onnx.{part}", extra="onnx", purpose="ONNX models")
    return import_extra("onnx", extra="onnx", purpose="ONNX models")


@dataclass(frozen=True)
class Input:
    """What a model wants fed: a size of the shape is a number, or a name where any will do."""

    name: str
    dtype: np.dtype[Any]
    shape: Shape


@dataclass
class Graph:
    """A model's graph with the constants taken out.

    `where` is the file, as errors name it; `nodes` are those that are no constants, in order.
    """

    where: str
    opset: int
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    constants: dict[str, Array]
    nodes: list[Proto] = field(default_factory=list)

    def error(self, node: Proto, what: object) -> FormatError:
        return FormatError(f"{self.where}: {describe(node)}: {what}")


def describe(node: Proto) -> str:
    """A node as errors name it."""
    return f"node {label(node)!r} ({node.domain + '.' * bool(node.domain)}{node.op_type})"


def label(node: Proto) -> str:
    """A node's name; its first output stands in for a name that was not given."""
    return str(node.name or next(filter(None, node.output), ""))


def read_graph(source: object) -> Graph:
    """Read and check a model.

    Raises
    ------
    TypeError
        If it is neither a path nor an onnx.ModelProto.
    OSError
        If the file cannot be read.
    FormatError
        If it is no model, or one that cannot be taken.
    """
    onnx = import_onnx()
    if isinstance(source, onnx.ModelProto):
        where, folder, model, size = "model", None, source, source.ByteSize()
    elif isinstance(source, (str, os.PathLike)):
        path = Path(os.fspath(source))
        where, folder = str(path), path.parent
        model, size = _parse(onnx, path)
    else:
        raise TypeError(f"model: expected a path or an onnx.ModelProto, got {type(source)}")
    _check_names(where, model)
    _refuse_foreign(onnx, where, model)
    constants = _read_initializers(onnx, where, model, folder)
    _check(onnx, where, model)
    graph = Graph(
        where,
        _read_opset(onnx, where, model),
        tuple(_read_inputs(onnx, where, model, constants)),
        tuple(value.name for value in model.graph.output),
        constants,
    )
    size += sum(array.nbytes for array in constants.values())
    _fold_constants(graph, model.graph.node, most_bytes=4 * size + 2**22)
    return graph


def _parse(onnx: ModuleType, path: Path) -> tuple[Proto, int]:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > LARGEST_FILE:
            raise FormatError(f"{path}: {size} bytes, and no ONNX model has over {LARGEST_FILE}")
        content = file.read(size)
    try:
        return onnx.load_model_from_string(content), len(content)
    except Exception as error:  # protobuf's own, which has moved from version to version
        raise FormatError(f"{path}: no ONNX model, or damaged: {error}") from error


def _check(onnx: ModuleType, where: str, model: Proto) -> None:
    try:
        onnx.checker.check_model(model)
    except Exception as error:
        raise FormatError(f"{where}: no valid ONNX model: {error}") from error


def _check_names(where: str, model: Proto) -> None:
    """Names are text, which onnx does not see to: what is not comes out of a file as bytes."""
    graph = model.graph
    names = [value.name for value in (*graph.input, *graph.output, *graph.initializer)]
    for node in graph.node:
        names += [node.name, node.op_type, node.domain, *node.input, *node.output]
    strange = [name for name in names if not isinstance(name, str)]
    if strange:
        raise FormatError(f"{where}: a name that is no text: {strange[0]!r:.80}")


def _read_opset(onnx: ModuleType, where: str, model: Proto) -> int:
    newest = onnx.defs.onnx_opset_version()
    versions = [int(o.version) for o in model.opset_import if o.domain in ("", "ai.onnx")]
    if len(versions) != 1 or not OLDEST_OPSET <= versions[0] <= newest:
        raise FormatError(
            f"{where}: expected one version of ONNX's operators, from {OLDEST_OPSET} to {newest} "
            f"(the newest that onnx {onnx.__version__} knows), got {versions}"
        )
    return versions[0]


def _read_inputs(
    onnx: ModuleType, where: str, model: Proto, constants: dict[str, Array]
) -> Iterator[Input]:
    for value in model.graph.input:
        if value.name in constants:  # older files list their weights among the inputs
            continue
        if not value.type.HasField("tensor_type"):
            raise FormatError(f"{where}: input {value.name!r} is no tensor")
        tensor = value.type.tensor_type
        dtype = _read_dtype(onnx, where, f"input {value.name!r}", tensor.elem_type)
        shape: Shape = ("...",)
        if tensor.HasField("shape"):
            shape = tuple(
                int(dim.dim_value) if dim.dim_value > 0 else str(dim.dim_param or "any")
                for dim in tensor.shape.dim
            )
        yield Input(value.name, dtype, shape)


def _read_dtype(onnx: ModuleType, where: str, what: str, code: int) -> np.dtype[Any]:
    known = onnx.TensorProto.DataType
    name = known.Name(code) if code in known.values() else str(code)
    if name not in _DTYPES:
        raise FormatError(f"{where}: {what} has the type {name}, which is not supported")
    return np.dtype(_DTYPES[name])


def _refuse_foreign(onnx: ModuleType, where: str, model: Proto) -> None:
    """Refuse what has no meaning here, before anything follows it to other files."""
    if model.functions:
        raise FormatError(f"{where}: functions of the model's own are not supported")
    if model.graph.sparse_initializer:
        raise FormatError(f"{where}: sparse initializers are not supported")
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.t.data_location == onnx.TensorProto.EXTERNAL:
                raise FormatError(
                    f"{where}: {describe(node)}: a constant in another file is not supported"
                )


# --- tensors --------------------------------------------------------------------------------------


def _read_initializers(
    onnx: ModuleType, where: str, model: Proto, folder: Path | None
) -> dict[str, Array]:
    """The named tensors, read-only. Those in other files become empty in the model itself."""
    files = _DataFiles(where, folder)
    arrays = {}
    for tensor in model.graph.initializer:
        what = f"initializer {tensor.name!r}"
        dtype = _read_dtype(onnx, where, what, tensor.data_type)
        if min(tensor.dims, default=0) < 0:
            raise FormatError(f"{where}: {what} has a negative size in {list(tensor.dims)}")
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            shape = tuple(tensor.dims)
            size = math.prod(shape) * dtype.itemsize
            content = files.read(what, tensor, size)
            array = np.frombuffer(content, dtype.newbyteorder("<")).reshape(shape)
            # The checker would look for the file once more, and not only beside the model.
            tensor.ClearField("data_location")
            tensor.ClearField("external_data")
            tensor.dims[:] = [0]
            tensor.raw_data = b""
        else:
            try:
                array = onnx.numpy_helper.to_array(tensor)
            except Exception as error:
                raise FormatError(f"{where}: {what}: {error}") from error
        array = array.astype(dtype, copy=False)
        array.flags.writeable = False
        arrays[str(tensor.name)] = array
    return arrays


class _DataFiles:
    """Files that hold tensors ("external data"): read only in the model's own folder.

    All that is read is together no longer than the files are, so that a small model that names
    one long file many times does not fill the memory.
    """

    def __init__(self, where: str, folder: Path | None) -> None:
        self._where = where
        self._folder = folder
        self._sizes: dict[str, int] = {}
        self._read = 0

    def read(self, what: str, tensor: Proto, size: int) -> bytes:
        """The `size` bytes of a tensor."""
        where = f"{self._where}: {what}"
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        try:
            offset = int(entries.get("offset") or 0)
            length = int(entries.get("length") or size)
        except ValueError as error:
            raise FormatError(f"{where}: {error}") from None
        if offset < 0 or length != size:
            raise FormatError(f"{where}: expected {size} bytes in {location!r}, got {length}")
        path = self._resolve(where, location)
        try:
            content = self._slice(path, offset, size)
        except OSError as error:
            raise FormatError(f"{where}: cannot be read from {location!r}: {error}") from error
        if len(content) != size or self._read > sum(self._sizes.values()):
            raise FormatError(f"{where}: {location!r} is too short")
        return content

    def _resolve(self, where: str, location: str) -> str:
        """The file's path, once it is one inside of the folder that no link leads out of."""
        if self._folder is None:
            raise FormatError(f"{where}: its data are in {location!r}: give the model's path")
        folder = os.path.realpath(self._folder)
        path = os.path.normpath(os.path.join(folder, location))  # noqa: PTH118
        inside = path.startswith(os.path.join(folder, ""))  # noqa: PTH118
        if "\0" in location or not inside or os.path.realpath(path) != path:
            raise FormatError(
                f"{where}: its data are in {location!r}, which is not in the model's own folder"
            )
        return path

    def _slice(self, path: str, offset: int, size: int) -> bytes:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise OSError("not a regular file")
            self._sizes[path] = status.st_size
            if offset + size > status.st_size:
                return b""
            self._read += size
            file.seek(offset)
            return file.read(size)


# --- constants ------------------------------------------------------------------------------------


def _fold_constants(graph: Graph, nodes: list[Proto], most_bytes: int) -> None:
    """Compute the nodes that depend on constants alone; the others become the graph's nodes."""
    spare = most_bytes
    for node in nodes:
        outputs = _fold(graph, node, spare)
        if outputs is None:
            graph.nodes.append(node)
            continue
        for name, array in zip(node.output, outputs, strict=False):
            if name:
                array.flags.writeable = False
                graph.constants[name] = array
                spare -= array.nbytes


def _fold(graph: Graph, node: Proto, spare: int) -> list[Array] | None:
    """What a node computes from constants; None where it must wait for a run."""
    if node.op_type not in OPERATORS or node.domain not in ("", "ai.onnx"):
        return None
    constants = [graph.constants.get(name) if name else None for name in node.input]
    if any(name and array is None for name, array in zip(node.input, constants, strict=True)):
        return None
    try:
        operator = Operator(node, graph.opset)
        if operator.bound(constants) > spare:
            return None
        with np.errstate(all="ignore"):
            return [np.asarray(array) for array in operator(constants)]
    except Exception as error:
        raise graph.error(node, error) from error
