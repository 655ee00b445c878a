"""What `fastlstm recognize` reads: recordings, drawings and sequences, as vectors with their texts.

How a model's vectors were made is in its file: the settings of a `FrontEnd`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from fastlstm._validate import Array
from fastlstm.cli.errors import CommandError
from fastlstm.cli.tables import read_table
from fastlstm.tasks import features

# The column of a table that says what its rows are.
SOURCES = {"path": "WAV files", "strokes": "drawings", "sequence": "sequences"}
SOUND = ("mfcc", "log-mel")


@dataclass(frozen=True)
class FrontEnd:
    """From what a row of a table holds to vectors.

    Attributes
    ----------
    source : str
        One of `SOURCES`.
    features : str
        Of sound: one of `SOUND`, each recording normalised.
    rate : int
        Of sound: samples per second; 0 until the first recording is read.
    spacing : float
        Of drawings; see `fastlstm.tasks.features.strokes`.
    """

    source: str
    features: str = "mfcc"
    rate: int = 0
    spacing: float = 0.05

    def settings(self) -> dict[str, Any]:
        """For a model's file."""
        return asdict(self)

    @classmethod
    def of_model(cls, path: str, settings: object) -> FrontEnd:
        """What a model's file says; a CommandError if that is nothing of ours."""
        names = {field.name for field in fields(cls)}
        if isinstance(settings, Mapping) and settings.keys() == names:
            front_end = cls(**settings)
            if (
                front_end.source in list(SOURCES)
                and front_end.features in SOUND
                and type(front_end.rate) is int
                and 0 <= front_end.rate < 2**31
                and isinstance(front_end.spacing, float)
                and front_end.spacing > 0
            ):
                return front_end
        raise CommandError(
            f"{path}: does not say how its features are made; only models that `fastlstm recognize "
            "train` wrote do"
        )

    def vectors(self, value: Any, *, resample: bool = False, mono: bool = False) -> Array:
        """The vectors (T, F) of a path, a list of strokes, or a list of vectors.

        Raises
        ------
        OSError, TypeError, ValueError, ImportError
        """
        if self.source == "sequence":
            return np.asarray(value, np.float64)
        if self.source == "strokes":
            return features.strokes(value, spacing=self.spacing)
        samples, rate = features.read_wav(
            value, rate=self.rate or None, resample=resample, mono=mono
        )
        extract = features.mfcc if self.features == "mfcc" else features.log_mel
        try:
            return features.normalise(extract(samples, rate))
        except ValueError as error:
            raise ValueError(f"{value}: {error}") from None


@dataclass(frozen=True)
class Sample:
    """One thing to recognise.

    Attributes
    ----------
    name : str
        Its path, or its file and row.
    value : object
        A path, strokes, or vectors.
    text : str or list or None
    """

    name: str
    value: Any
    text: Any


def read_samples(
    files: Sequence[str], *, path_column: str, text_column: str | None, folder: str | None
) -> tuple[str, list[Sample]]:
    """What all files hold together: the source, one of `SOURCES`, and the samples.

    Parameters
    ----------
    files : sequence of str
        WAV files, if their names end so, and tables of anything.
    path_column, text_column : str
        Where a table has them; no text is asked for without a `text_column`.
    folder : str, optional
        Of the recordings that a table names; by default the table's own.

    Raises
    ------
    CommandError
    """
    sources, samples = set(), []
    for file in files:
        if file.lower().endswith(".wav"):
            if text_column is not None:
                raise CommandError(f"{file}: expected a table with a column {text_column!r}")
            found = [("path", Sample(file, file, None))]
        else:
            found = list(_table(file, path_column, text_column, folder))
        sources |= {source for source, _ in found}
        samples += [sample for _, sample in found]
    if len(sources) > 1:
        both = " and ".join(SOURCES[source] for source in sorted(sources))
        raise CommandError(f"{files[0]}: expected one kind of thing, got {both}")
    return sources.pop(), samples


def _table(
    file: str, path_column: str, text_column: str | None, folder: str | None
) -> Iterator[tuple[str, Sample]]:
    """Each row's source and sample."""
    columns = [] if text_column is None else [text_column]
    names = {path_column: "path", "strokes": "strokes", "sequence": "sequence"}
    at = Path(file).parent if folder is None else Path(folder)
    for k, row in enumerate(read_table(file, *columns), 1):
        column = next((name for name in names if row.get(name) is not None), None)
        if column is None:
            found = ", ".join(str(name) for name in row)
            raise CommandError(
                f"{file}: row {k}: expected a column {', '.join(map(repr, names))}, got {found}"
            )
        value, name = row[column], f"{file}: row {k}"
        if names[column] == "path":
            if not isinstance(value, str) or "\0" in value:
                raise CommandError(f"{name}: expected a path, got {json.dumps(value):.60}")
            value = name = str(at / value)
        text = None if text_column is None else row[text_column]
        if text is not None and not isinstance(text, (str, list)):
            raise CommandError(
                f"{file}: row {k}: expected a text or a list of labels, got {json.dumps(text):.60}"
            )
        yield names[column], Sample(name, value, text)


def vectors_of(
    front_end: FrontEnd, samples: Sequence[Sample], *, resample: bool, mono: bool
) -> list[Array]:
    """The vectors of all samples; a CommandError names the one that has none."""
    found = []
    for sample in samples:
        try:
            found.append(front_end.vectors(sample.value, resample=resample, mono=mono))
        except FileNotFoundError:
            raise CommandError(f"{sample.name}: no such file") from None
        except OSError as error:
            raise CommandError(f"{sample.name}: cannot be read: {error.strerror}") from None
        except ImportError as error:
            raise CommandError(str(error)) from None
        except (TypeError, ValueError) as error:
            raise CommandError(_named(str(error), sample.name)) from None
    return found


def name_samples(message: str, samples: Sequence[Sample]) -> str:
    """An estimator's complaint of X[i] or y[i] with the name of that sample."""

    def name(match: re.Match[str]) -> str:
        place = int(match[2])
        return samples[place].name if place < len(samples) else match[0]

    return re.sub(r"\b([Xy])\[(\d+)\]", name, message)


def _named(message: str, name: str) -> str:
    """With the sample's name before it, once, and Python's arguments as options."""
    message = message.replace("resample=True", "--resample").replace("mono=True", "--mono")
    return message if message.startswith(name) else f"{name}: {message}"
