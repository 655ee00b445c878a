"""Files of kind "language-model" from before there were words: of the class CharacterModel."""

from __future__ import annotations

from dataclasses import replace

from fastlstm.storage import File, FormatError, check_dtype_name


def upgraded(file: File) -> File:
    """The same model as `LanguageModel` writes it; any other file comes back as it is."""
    if "characters" not in file.header:
        return file
    number = (int, float)
    file.check_header(
        characters=str, embedding_size=int, hidden_size=int, num_layers=int,
        dropout=number, unknown_probability=number, dtype=str,
    )  # fmt: skip
    header = dict(file.header)
    try:
        dtype = check_dtype_name(header.pop("dtype"))
    except ValueError as error:
        raise FormatError(f"{file.path}: {error}") from None
    vocabulary = {"level": "char"}
    for name in ("characters", "unknown_probability"):
        vocabulary[name] = header.pop(name)
    arrays = {}
    for name, array in file.arrays.items():
        if array.dtype.name != dtype:
            raise FormatError(f"{file.path}: {name}: expected {dtype}, got {array.dtype.name}")
        layer, dot, rest = name.partition(".")
        arrays[f"network.{'recurrent' if layer == 'lstm' else layer}{dot}{rest}"] = array
    params = header | {"level": "char", "tied": False}
    return replace(
        file, arrays=arrays, header={"params": params, "fitted": {"vocabulary": vocabulary}}
    )
