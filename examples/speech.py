"""Strings of digits from their sound: learn, measure, and show what was misheard.

    python examples/speech.py

Where FASTLSTM_DATA names a folder with spoken_digits/ (files DIGIT_SPEAKER_INDEX.wav), recordings
of one speaker are joined to strings, else the tones of a telephone's keys are made here.
"""

import argparse
import os
from pathlib import Path

import numpy as np

from fastlstm.tasks import SequenceRecognizer
from fastlstm.tasks.features import mfcc, normalise, read_wav

RATE = 8000
# Of the keys 0 to 9.
LOW = [941, *[697] * 3, *[770] * 3, *[852] * 3]
HIGH = [1336, *[1209, 1336, 1477] * 3]


def recordings(folder: Path) -> tuple[dict, dict]:
    """Sounds to train on and to test with, by speaker and digit; indices from 5 and up to 4."""
    training, test = {}, {}
    for path in sorted(folder.glob("*_*_*.wav")):
        digit, speaker, index = path.stem.split("_")
        part = test if int(index) < 5 else training
        part.setdefault(speaker, {}).setdefault(digit, []).append(read_wav(path, rate=RATE)[0])
    return training, test


def key_tones(rng: np.random.Generator) -> dict:
    """Each key's two tones in noise, ten times: held for 80 to 150 ms, and a pause."""
    sounds = {}
    for digit in range(10):
        for _ in range(10):
            time = np.arange(rng.integers(640, 1200)) / RATE
            tones = sum(np.sin(2 * np.pi * pitch * time) for pitch in (LOW[digit], HIGH[digit]))
            sound = np.concatenate([0.2 * tones, np.zeros(rng.integers(300, 800))])
            sound += 0.05 * rng.standard_normal(len(sound))
            sounds.setdefault(str(digit), []).append(sound)
    return {"telephone": sounds}


def strings(sounds: dict, count: int, rng: np.random.Generator) -> tuple[list, list[str]]:
    """Features and texts of strings of 3 to 7 digits, each of one speaker."""
    X, texts = [], []
    for _ in range(count):
        of = sounds[rng.choice(sorted(sounds))]
        text = "".join(rng.choice(list("0123456789"), rng.integers(3, 8)))
        sound = np.concatenate([of[digit][rng.integers(len(of[digit]))] for digit in text])
        X.append(normalise(mfcc(sound, RATE)))
        texts.append(text)
    return X, texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="few strings, in seconds")
    small = parser.parse_args().small
    rng = np.random.default_rng(0)
    if data := os.environ.get("FASTLSTM_DATA"):
        training, test = recordings(Path(data, "spoken_digits"))
    else:
        training, test = key_tones(rng), key_tones(rng)
    X, texts = strings(training, 40 if small else 1000 if data else 200, rng)
    X_test, truth = strings(test, 10 if small else 200, rng)

    size = {"hidden_size": 32, "epochs": 3} if small else {"hidden_size": 96, "epochs": 20}
    recognizer = SequenceRecognizer(stack=3, random_state=0, verbose=True, **size).fit(X, texts)
    print(f"digit error rate: {1 - recognizer.score(X_test, truth):.4f}")
    for said, heard in zip(truth, recognizer.predict(X_test), strict=True):
        if said != heard:
            print(f"  {said} was heard as {heard or 'nothing'}")


if __name__ == "__main__":
    main()
