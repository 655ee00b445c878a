"""Handwritten characters from the movements of the pen, and whole words of them.

    python examples/handwriting.py

Where FASTLSTM_DATA names a folder with omniglot/strokes_background_small1.zip, its 136 characters
are learnt from 16 writers and tested with 4 others, else words of a few letters drawn here.
"""

import argparse
import os
import zipfile
from pathlib import Path

import numpy as np

from fastlstm.tasks import SequenceClassifier, SequenceRecognizer
from fastlstm.tasks.augmentation import StrokeDistortion
from fastlstm.tasks.features import strokes

LETTERS = {
    "l": [[[0, 2], [0, 0]]],
    "v": [[[0, 1], [0.5, 0], [1, 1]]],
    "x": [[[0, 1], [1, 0]], [[0, 0], [1, 1]]],
    "t": [[[0.5, 2], [0.5, 0]], [[0, 1.3], [1, 1.3]]],
    "n": [[[0, 0], [0, 1], [0.5, 1.2], [1, 1], [1, 0]]],
    "o": [[[1, 0.5], [0.5, 1], [0, 0.5], [0.5, 0], [1, 0.5]]],
}


def omniglot(path: Path) -> dict[bool, tuple[list, list[str]]]:
    """Features and characters, to train on (False) and to test with (True): writers 17 to 20."""
    parts = {False: ([], []), True: ([], [])}
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            if not name.endswith(".txt") or name.startswith("__"):
                continue
            text = archive.read(name).decode().replace("START", "").split("BREAK")
            drawing = [[line.split(",") for line in part.split()] for part in text]
            X, y = parts[int(name[-6:-4]) > 16]
            X.append(strokes([np.array(stroke, float) for stroke in drawing if stroke]))
            y.append(name.split("/", 1)[1].rsplit("/", 1)[0])
    return parts


def written(count: int, rng: np.random.Generator) -> tuple[list, list[str]]:
    """Features of words of 2 to 5 letters beside each other, and the words."""
    words = ["".join(rng.choice(list(LETTERS), rng.integers(2, 6))) for _ in range(count)]
    X = []
    for word in words:
        drawing = [
            np.array(stroke) * rng.uniform(0.8, 1.2, 2) + [1.5 * place, 0]
            for place, letter in enumerate(word)
            for stroke in LETTERS[letter]
        ]
        X.append(strokes(drawing, spacing=0.2 / len(word)))
    return X, words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="little to learn, in seconds")
    small = parser.parse_args().small
    data, rng = os.environ.get("FASTLSTM_DATA"), np.random.default_rng(0)
    options = {"random_state": 0, "verbose": True, "epochs": 3 if small else 60}
    if data:
        parts = omniglot(Path(data, "omniglot", "strokes_background_small1.zip"))
        (X, y), (X_test, y_test) = parts[False], parts[True]
        options |= {"augment": StrokeDistortion(), "pooling": "attention", "batch_size": 32}
        model = SequenceClassifier(96, **options).fit(X, y)
        print(f"accuracy on new writers: {model.score(X_test, y_test):.4f}")
        return
    X, words = written(40 if small else 300, rng)
    model = SequenceRecognizer(32, learning_rate=0.01, **options).fit(X, words)
    X_test, truth = written(5, rng)
    for word, read in zip(truth, model.predict(X_test), strict=True):
        print(f"{word} was read as {read or 'nothing'}")


if __name__ == "__main__":
    main()
