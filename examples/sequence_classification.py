"""Who speaks? Sequences of vectors, learnt and measured beside the nearest neighbour.

    python examples/sequence_classification.py

Where FASTLSTM_DATA names a folder with the Japanese Vowels (japanese_vowels/*.ts: utterances of 7
to 29 frames with 12 coefficients each, by nine speakers), these are learnt, else scikit-learn's
digits, whose pictures are read row by row.
"""

import argparse
import os
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import classification_report
from sklearn.neighbors import KNeighborsClassifier

from fastlstm.tasks import SequenceClassifier


def vowels(path: Path) -> tuple[list[np.ndarray], list[str]]:
    """Of a .ts file: an utterance a line, "a,b,…:…:a,b,…:speaker", a dimension between colons."""
    lines = path.read_text(encoding="ascii").lower().split("@data")[1].split()
    X, y = [], []
    for line in lines:
        *dimensions, speaker = line.split(":")
        X.append(np.array([dimension.split(",") for dimension in dimensions], float).T)
        y.append(f"speaker {speaker}")
    return X, y


def digits() -> tuple[list[np.ndarray], list[str]]:
    pictures = load_digits()
    return list(pictures.images), [f"digit {digit}" for digit in pictures.target]


def of_one_length(X: list[np.ndarray]) -> np.ndarray:
    """Each sequence stretched to 12 steps: what a method that knows no sequences can compare."""
    return np.array([x[np.linspace(0, len(x) - 1, 12).round().astype(int)].ravel() for x in X])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="few sequences and epochs, in seconds")
    small = parser.parse_args().small
    data = os.environ.get("FASTLSTM_DATA")
    if data:
        folder = Path(data, "japanese_vowels")
        (X, y), (test, truth) = (
            vowels(folder / f"JapaneseVowels_{part}.ts") for part in ("TRAIN", "TEST")
        )
    else:
        (X, y), (test, truth) = (tuple(part[k::2] for part in digits()) for k in (0, 1))
    if small:
        X, y, test, truth = X[::5], y[::5], test[::5], truth[::5]

    classifier = SequenceClassifier(epochs=3 if small else 50, random_state=0, verbose=True)
    classifier.fit(X, y)
    print(classification_report(truth, classifier.predict(test), digits=3, zero_division=0))
    print(f"LSTM: {classifier.score(test, truth):.3f}")

    neighbour = KNeighborsClassifier(1).fit(of_one_length(X), y)
    print(f"nearest neighbour: {neighbour.score(of_one_length(test), truth):.3f}")

    surest = classifier.predict_proba(test).max(axis=1).argmin()
    proba = classifier.predict_proba(test[surest : surest + 1])[0]
    best = proba.argsort()[::-1][:2]
    print("least sure of:", truth[surest], "→",
          ", ".join(f"{classifier.classes_[k]} {proba[k]:.0%}" for k in best))  # fmt: skip


if __name__ == "__main__":
    main()
