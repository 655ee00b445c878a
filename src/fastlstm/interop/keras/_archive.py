"""The zip archive that a .keras file is, held in memory; nothing is unpacked to the disk."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from pathlib import Path

from fastlstm.storage import FormatError

SIGNATURE = b"PK\x03\x04"

# What zipfile raises over a damaged archive.
_ERRORS = (
    zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, RuntimeError, KeyError,
    ValueError, TypeError, IndexError, OverflowError, MemoryError,
)  # fmt: skip


def read_archive(path: Path, content: bytes, names: tuple[str, ...]) -> dict[str, bytes]:
    """Those of the members named that are there.

    Keras stores its members as they are, and so a member is no longer than the file. A compressed
    one, which may be a thousand times longer, is refused.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            present = set(archive.namelist())
            _refuse_other_weights(path, present)
            return {name: _read(path, archive, name) for name in names if name in present}
    except FormatError:
        raise
    except _ERRORS as error:
        raise FormatError(f"{path}: no archive of Keras', or damaged: {error}") from None


def _read(path: Path, archive: zipfile.ZipFile, name: str) -> bytes:
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        raise FormatError(
            f"{path}: {name} is compressed, which Keras does not do: zip -0 stores it"
        )
    return archive.read(info)


def _refuse_other_weights(path: Path, present: set[str]) -> None:
    for name in ("model.weights.json", "model.weights.npz"):
        if name in present and "model.weights.h5" not in present:
            raise FormatError(
                f"{path}: its weights are in {name}: load it with Keras and save it again with its "
                "defaults, as one model.weights.h5"
            )
