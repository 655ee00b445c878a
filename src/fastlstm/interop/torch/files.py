"""Files of torch weights: safetensors, read without torch, and .pt and .pth files through torch.

Which of the two a file is, its first bytes say. A .pt file is a pickle, which can ask for any code
to be run; torch's own loader with ``weights_only=True`` takes what a state dict is made of and
refuses the rest. So that a damaged file cannot make more memory than it has bytes, a compressed
archive is refused before (torch writes none), and so are tensors larger than the file.
"""

from __future__ import annotations

import os
import pickletools
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO

from fastlstm._extras import import_extra
from fastlstm._validate import Array
from fastlstm.cell import LSTMCell
from fastlstm.interop.torch.weights import EXTRA, as_array, find_lstm
from fastlstm.lstm import LSTM
from fastlstm.storage import FormatError

# What NumPy has, of what safetensors can hold.
_DTYPES = frozenset(
    ["BOOL", "I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64", "F16", "F32", "F64"]
)
# torch before this ran code from files in spite of weights_only (CVE-2025-32434).
_SAFE_TORCH = (2, 6)
# Characters of a global's name; of its pickles there are five in a file without an archive: a magic
# number, a version, facts about the system, the state dict, and the keys of its storages.
_LONGEST_GLOBAL, _PICKLES = 500, 5
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80\x02"


@dataclass(frozen=True)
class Entry:
    """One array of a file, not read yet."""

    shape: tuple[int, ...]
    read: Callable[[], Array]


def from_file(
    path: str | os.PathLike[str],
    *,
    prefix: str = "",
    batch_first: bool | None = None,
    dropout: float | None = None,
) -> LSTM | LSTMCell:
    """The LSTM in a file of weights that torch users have saved.

    Parameters
    ----------
    path : str or path
        A state dict saved by safetensors (``safetensors.torch.save_file``), which is read without
        torch, or by ``torch.save``, which is read through torch. Dicts within a dict are found
        under names joined by dots, as in "model.rnn.weight_ih_l0".
    prefix : str
        Which LSTM of the file: "encoder.rnn" for the names that begin with "encoder.rnn.".
    batch_first, dropout
        As in `LSTM`; a file of weights knows neither, so by default they are False and 0.

    Returns
    -------
    lstm : LSTM or LSTMCell
        As the names are those of one or the other, with the file's weights, equal to the bit.

    Raises
    ------
    FileNotFoundError
        If there is no such file (another OSError if it cannot be read).
    fastlstm.storage.FormatError
        If it is no such file, or damaged, or if names, shapes and dtypes under the prefix are not
        those of one LSTM. The message names them, and the LSTMs that the file does have.
    ImportError
        If torch (for a .pt file) or safetensors is not installed.

    Notes
    -----
    A file may be anybody's: no code is run from it, no other file is opened, and memory stays below
    64 times the file's size, about three times for a usual one.
    """
    path = Path(path)
    with _entries(path) as entries:
        try:
            found = find_lstm({name: entries[name].shape for name in entries}, prefix)
            arrays = {ours: entries[name].read() for ours, name in found.names.items()}
            _check_size(path, arrays)
            checked = {k: as_array(found.names[k], array) for k, array in arrays.items()}
            return found.build(checked, batch_first=batch_first, dropout=dropout)
        except FormatError:
            raise
        except (TypeError, ValueError) as error:
            raise FormatError(f"{path}: {error}") from None


def read_state_dict(path: str | os.PathLike[str], *, prefix: str = "") -> dict[str, Array]:
    """All arrays of such a file under their names: the weights around an LSTM, say.

    Parameters
    ----------
    path : str or path
        As for `from_file`.
    prefix : str
        Only names that begin with this, which are returned without it.

    Returns
    -------
    dict of str to ndarray

    Raises
    ------
    FileNotFoundError, FormatError, ImportError
        As for `from_file`; and a FormatError for an array that NumPy cannot hold.
    """
    path = Path(path)
    with _entries(path) as entries:
        chosen = [name for name in entries if name.startswith(prefix)]
        arrays = {name.removeprefix(prefix): entries[name].read() for name in chosen}
        _check_size(path, arrays)
        return arrays


@contextmanager
def _entries(path: Path) -> Iterator[Mapping[str, Entry]]:
    """What a file holds, readable inside of the block."""
    with path.open("rb") as file:
        start, size = file.read(9), os.fstat(file.fileno()).st_size
        if start[8:] == b"{":
            with _safetensors_entries(path) as entries:
                yield entries
        elif start.startswith((_ZIP, _PICKLE)):
            yield _torch_entries(path, file, size)
        else:
            raise FormatError(
                f"{path}: expected a safetensors file or one that torch.save wrote; its {size} "
                "bytes begin like neither"
            )


def _check_size(path: Path, arrays: Mapping[str, Array]) -> None:
    """Strides can make a tensor of any size of one number; no honest file has such weights."""
    size = path.stat().st_size
    total = sum(array.nbytes for array in arrays.values())
    if total > 2 * size:
        raise FormatError(f"{path}: its {size} bytes claim to hold {total} bytes of weights")


# --- safetensors ----------------------------------------------------------------------------------


@contextmanager
def _safetensors_entries(path: Path) -> Iterator[Mapping[str, Entry]]:
    safetensors = import_extra("safetensors", extra=EXTRA, purpose="files of weights")
    try:
        # It checks the whole table: dtypes, shapes, and that the offsets cover the bytes exactly.
        file = safetensors.safe_open(path, framework="numpy")
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise FormatError(f"{path}: no safetensors file, or damaged: {error}") from None
    with file:
        yield {name: _safetensors_entry(path, file, name) for name in file.keys()}  # noqa: SIM118


def _safetensors_entry(path: Path, file: Any, name: str) -> Entry:
    header = file.get_slice(name)
    dtype = header.get_dtype()

    def read() -> Array:
        if dtype not in _DTYPES:
            raise FormatError(
                f"{path}: array {name!r} is {dtype}, which NumPy lacks; save it as float32"
            )
        array: Array = file.get_tensor(name)
        return array

    return Entry(tuple(header.get_shape()), read)


# --- torch's own files ----------------------------------------------------------------------------


def _torch_entries(path: Path, file: BinaryIO, size: int) -> Mapping[str, Entry]:
    try:
        torch = import_extra("torch", extra=EXTRA, purpose=".pt and .pth files")
    except ImportError as error:
        raise ImportError(f"{error}; {_conversion(path)}", name=error.name) from None
    found = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if found < _SAFE_TORCH:
        raise ImportError(
            f"{path}: torch {torch.__version__} is not safe against files of strangers: "
            f"pip install 'fastlstm[{EXTRA}]'; {_conversion(path)}"
        )
    try:
        _check_pickles(file, size)
        file.seek(0)
        content = torch.load(file, map_location="cpu", weights_only=True)
        return dict(_tensors(path, torch, content))
    except UnpicklingError as error:
        raise FormatError(
            f"{path}: torch.load(…, weights_only=True) refuses it: expected the state_dict() of a "
            "module, got a file that is damaged or holds more than tensors (the module itself, say)"
        ) from error
    except Exception as error:
        # Whatever else a pickle that makes no sense leads to in there.
        raise FormatError(
            f"{path}: torch cannot read it as a state dict: {error!s:.200}"
        ) from error


def _conversion(path: Path) -> str:
    return (
        "or convert the file where torch is installed: safetensors.torch.save_file("
        f"torch.load({str(path)!r}, weights_only=True, map_location='cpu'), "
        f"{str(path.with_suffix('.safetensors'))!r})"
    )


def _check_pickles(file: BinaryIO, size: int) -> None:
    """Refuse names of globals that torch.load would take quadratic time to complain of."""
    for pickled in _pickles(file, size):
        try:
            for opcode, argument, _ in pickletools.genops(pickled):
                if opcode.name == "GLOBAL" and len(str(argument)) > _LONGEST_GLOBAL:
                    raise UnpicklingError("a global with a name that no module has")
        except UnpicklingError:
            raise
        except Exception:  # noqa: BLE001, no pickle: torch says so, too
            continue


def _pickles(file: BinaryIO, size: int) -> Iterator[BinaryIO]:
    """The pickles of a file, unread: one in an archive, or, in older files, several in a row.

    An archive that unpacks to more than it is is refused.
    """
    file.seek(0)
    if file.read(len(_ZIP)) != _ZIP:
        file.seek(0)
        for _ in range(_PICKLES):
            yield file
        return
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("a compressed archive, which torch.save does not write")
        if sum(entry.file_size for entry in entries) > size:
            raise ValueError("its parts are larger than the whole")
        for entry in entries:
            if entry.filename.endswith("data.pkl"):
                yield BytesIO(archive.read(entry))


def _tensors(path: Path, torch: Any, content: object) -> Iterator[tuple[str, Entry]]:
    """The tensors of a dict, and of the dicts in it, under names joined by dots."""
    if not isinstance(content, Mapping):
        raise TypeError(f"expected a dict, got a {type(content).__name__}")
    waiting: list[tuple[str, Mapping[Any, Any]]] = [("", content)]
    seen = {id(content)}  # a pickle can hold a dict that holds itself
    for prefix, mapping in waiting:
        for key, value in mapping.items():
            name = f"{prefix}{key}"
            if isinstance(value, torch.Tensor):
                yield name, Entry(tuple(value.shape), _reader(path, name, value))
            elif isinstance(value, Mapping) and id(value) not in seen:
                seen.add(id(value))
                waiting.append((f"{name}.", value))


def _reader(path: Path, name: str, tensor: Any) -> Callable[[], Array]:
    def read() -> Array:
        try:
            array: Array = tensor.detach().numpy()
        except Exception as error:  # one for each kind of tensor that NumPy lacks
            raise FormatError(
                f"{path}: tensor {name!r} is {tensor.dtype} ({tensor.layout} on {tensor.device}), "
                "which NumPy lacks; save it dense and as float32"
            ) from error
        return array

    return read
