"""Readers of the data sets in the folder that FASTLSTM_DATA names, with their splits.

Each data set is one folder there, whose README has source, licence and published figures. A reader
gives the parts as the benchmarks use them: where the data come without a split, the one that stands
here is used by every system. Nothing is downloaded, and nothing of it is part of this repository.
"""

from __future__ import annotations

import csv
import os
import wave
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

VARIABLE = "FASTLSTM_DATA"


class NoDataError(Exception):
    """The data are not there; the message says what is missing, and how to say where it is."""


def folder(name: str = "") -> Path:
    """The folder of a data set, or of all of them.

    Raises
    ------
    NoDataError
        If FASTLSTM_DATA is not set, or there is no such folder.
    """
    root = os.environ.get(VARIABLE)
    if not root:
        raise NoDataError(
            f"{VARIABLE} is not set: it names the folder with the data sets of these benchmarks "
            "(see docs/quality.md)"
        )
    path = Path(root) / name
    if not path.is_dir():
        raise NoDataError(f"{VARIABLE}={root}: there is no folder {path}")
    return path


def _file(data_set: str, name: str) -> Path:
    path = folder(data_set) / name
    if not path.is_file():
        raise NoDataError(f"there is no file {path}")
    return path


# --- text classification --------------------------------------------------------------------------


@dataclass(frozen=True)
class Texts:
    """Sentences, tokens apart by blanks, and the class of each."""

    texts: list[str]
    labels: Array  # (n,) of int64

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, which: Array) -> Texts:
        return Texts([self.texts[k] for k in which], self.labels[which])


def _labelled_lines(path: Path, encoding: str) -> Texts:
    lines = path.read_text(encoding=encoding).rstrip("\n").split("\n")
    pairs = [line.split(" ", 1) for line in lines]
    return Texts([text.strip() for _, text in pairs], np.array([int(label) for label, _ in pairs]))


def stsa(part: str, classes: str = "binary") -> Texts:
    """Stanford Sentiment Treebank, sentences alone: "train" or "dev"; "binary" or "fine"."""
    return _labelled_lines(_file("sentiment", f"stsa.{classes}.{part}"), "utf-8")


def rt_polarity() -> Texts:
    """All 10,662 sentences of Pang & Lee 2005."""
    return _labelled_lines(_file("sentiment", "rt-polarity.all"), "latin-1")


def rt_polarity_fold(fold: int) -> tuple[Texts, Texts]:
    """Training and test part of one of ten folds, drawn once for all, with classes alike."""
    everything = rt_polarity()
    test = folds(everything.labels, 10) == fold
    return everything.take(np.flatnonzero(~test)), everything.take(np.flatnonzero(test))


def trec() -> tuple[Texts, Texts]:
    """Questions of Li & Roth 2002: nine tenths to train on, and one held out."""
    everything = _labelled_lines(_file("trec", "TREC.train.all"), "latin-1")
    test = folds(everything.labels, 10) == 0
    return everything.take(np.flatnonzero(~test)), everything.take(np.flatnonzero(test))


def folds(labels: Array, count: int) -> Array:
    """A fold, 0 to count - 1, for each sample: each has its share of every class."""
    rng = np.random.Generator(np.random.PCG64(0))
    fold = np.empty(len(labels), np.int64)
    dealt = 0
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        fold[members] = (dealt + np.arange(len(members))) % count
        dealt += len(members)
    return fold


# --- language models ------------------------------------------------------------------------------


def tinyshakespeare() -> tuple[str, str]:
    """The first nine tenths of the text, and the last tenth, which validates by custom."""
    text = _file("tinyshakespeare", "input.txt").read_text(encoding="utf-8")
    cut = len(text) * 9 // 10
    return text[:cut], text[cut:]


def ptb(part: str) -> list[str]:
    """Words of the Penn Treebank ("train", "valid" or "test"), with "<eos>" at the lines' ends."""
    lines = _file("ptb", f"ptb.{part}.txt").read_text(encoding="utf-8").splitlines()
    return [word for line in lines for word in [*line.split(), "<eos>"]]


# --- translation ----------------------------------------------------------------------------------


def multi30k(part: str) -> tuple[list[str], list[str]]:
    """German and English sentences: "train", "val" or "test_2016_flickr"."""
    german, english = (
        _file("multi30k", f"{part}.{language}").read_text(encoding="utf-8").splitlines()
        for language in ("de", "en")
    )
    if len(german) != len(english):
        raise ValueError(f"multi30k/{part}: {len(german)} sentences beside {len(english)}")
    return german, english


# --- speech ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recording:
    """One spoken digit."""

    samples: Array  # (n,) of float32, from -1 to 1
    digit: int
    speaker: str
    index: int  # of this speaker's recordings of this digit


SAMPLE_RATE = 8000


def spoken_digits() -> tuple[list[Recording], list[Recording]]:
    """Recordings to train on (indices from 5), and to test with (0 to 4): the official split."""
    training, test = [], []
    for path in sorted(folder("spoken_digits").glob("*_*_*.wav")):
        digit, speaker, index = path.stem.split("_")
        recording = Recording(_read_wav(path), int(digit), speaker, int(index))
        (test if recording.index < 5 else training).append(recording)
    if not test or not training:
        raise NoDataError(f"{folder('spoken_digits')}: there are no recordings")
    return training, test


def _read_wav(path: Path) -> Array:
    with wave.open(str(path)) as file:
        shape = file.getnchannels(), file.getsampwidth(), file.getframerate()
        if shape != (1, 2, SAMPLE_RATE):
            raise ValueError(f"{path}: expected 16 bits, mono, 8 kHz, got {shape}")
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    return (samples / 32768).astype(np.float32)


# --- sequences with a class -----------------------------------------------------------------------


@dataclass(frozen=True)
class Labelled:
    """Sequences (T_i, F) of float64 and the class of each."""

    sequences: list[Array]
    labels: Array  # (n,)

    def __len__(self) -> int:
        return len(self.sequences)

    def take(self, which: Array) -> Labelled:
        return Labelled([self.sequences[k] for k in which], self.labels[which])


def pendigits() -> tuple[Labelled, Labelled]:
    """Digits of 8 pen positions (x, y): four fifths to train on, and one held out.

    The file has the writers of the original training part alone, so the same people write in both.
    """
    with open(_file("pendigits", "pendigits.train.csv"), newline="", encoding="ascii") as file:
        rows = np.array([[int(cell) for cell in row] for row in list(csv.reader(file))[1:]])
    everything = Labelled(list(rows[:, :-1].reshape(-1, 8, 2).astype(np.float64)), rows[:, -1])
    test = folds(everything.labels, 5) == 0
    return everything.take(np.flatnonzero(~test)), everything.take(np.flatnonzero(test))


def japanese_vowels() -> tuple[Labelled, Labelled]:
    """Utterances of 12 coefficients a frame, and who of nine says them: TRAIN and TEST."""
    parts = ("TRAIN", "TEST")
    training, test = (
        _read_ts(_file("japanese_vowels", f"JapaneseVowels_{part}.ts")) for part in parts
    )
    return training, test


def _read_ts(path: Path) -> Labelled:
    """A .ts file of the UEA archive: dimensions apart by colons, steps by commas; the class."""
    lines = path.read_text(encoding="utf-8").splitlines()
    start = next(k for k, line in enumerate(lines) if line.strip().lower() == "@data")
    sequences, labels = [], []
    for line in filter(None, lines[start + 1 :]):
        *dimensions, label = line.split(":")
        values = np.array([[float(value) for value in part.split(",")] for part in dimensions])
        sequences.append(values.T.copy())
        labels.append(int(label))
    return Labelled(sequences, np.array(labels))


@dataclass(frozen=True)
class Drawing:
    """A character as a pen drew it."""

    strokes: list[Array]  # (points, 3) each: x, y, and milliseconds since the first point
    character: str  # "alphabet/character"
    writer: int  # 1 to 20


def omniglot() -> tuple[list[Drawing], list[Drawing]]:
    """Drawings of 136 characters by writers 1 to 16, and by 17 to 20, who are held out."""
    training, test = [], []
    with zipfile.ZipFile(_file("omniglot", "strokes_background_small1.zip")) as archive:
        for name in sorted(archive.namelist()):
            parts = name.split("/")
            if parts[0].startswith("__") or not name.endswith(".txt"):
                continue
            writer = int(parts[-1].removesuffix(".txt").split("_")[1])
            text = archive.read(name).decode("ascii")
            drawing = Drawing(_read_strokes(text), "/".join(parts[1:3]), writer)
            (test if writer > 16 else training).append(drawing)
    return training, test


def _read_strokes(text: str) -> list[Array]:
    """Lines "x,y,t" after START; BREAK ends a stroke."""
    strokes: list[list[list[float]]] = [[]]
    for line in text.split():
        if line == "BREAK":
            strokes.append([])
        elif line != "START":
            strokes[-1].append([float(value) for value in line.split(",")])
    return [np.array(stroke) for stroke in strokes if stroke]


# --- forecasting ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hourly:
    """ETTh1: hourly values of seven quantities over 20 months (of 30 days), and their parts."""

    names: list[str]
    times: list[str]  # (n,) as "2016-07-01 00:00:00"
    values: Array  # (n, 7) of float64, as measured
    training_end: int  # rows: 12 months,
    validation_end: int  # 4 more,
    test_end: int  # and 4 more

    def standardised(self) -> Array:
        """Values less the mean of the training part, over its deviation; errors are of these."""
        training = self.values[: self.training_end]
        scaled: Array = (self.values - training.mean(axis=0)) / training.std(axis=0)
        return scaled


def etth1() -> Hourly:
    """The split that Zhou et al. 2021 use: 12, 4 and 4 months."""
    with open(_file("ett", "ETTh1.csv"), newline="", encoding="ascii") as file:
        header, *rows = csv.reader(file)
    month = 30 * 24
    values = np.array([[float(cell) for cell in row[1:]] for row in rows])[: 20 * month]
    times = [row[0] for row in rows][: 20 * month]
    return Hourly(header[1:], times, values, 12 * month, 16 * month, 20 * month)
