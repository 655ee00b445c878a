"""Translate: learn from pairs of sentences, measure, and draw what was looked at.

    python examples/translation.py

Where FASTLSTM_DATA names a folder with Multi30k (multi30k/train.de, train.en, val.* and
test_2016_flickr.*), German is translated into English, in about an hour on two cores; else dates
that are made here, in words into dates in figures.
"""

import argparse
import datetime
import os
from pathlib import Path

import numpy as np

from fastlstm.tasks import Translator

ORDINALS = {1: "st", 2: "nd", 3: "rd", 21: "st", 22: "nd", 23: "rd", 31: "st"}


def captions(folder: Path, part: str) -> tuple[list[str], list[str]]:
    german, english = (
        (folder / f"{part}.{language}").read_text(encoding="utf-8").splitlines()
        for language in ("de", "en")
    )
    return german, english


def dates(count: int) -> tuple[list[str], list[str]]:
    """As people write them, and as ISO 8601 does."""
    rng = np.random.default_rng(0)
    words, figures = [], []
    for day in rng.choice(40_000, count, replace=False).tolist():
        date = datetime.date(1950, 1, 1) + datetime.timedelta(day)
        ordinal = f"{date.day}{ORDINALS.get(date.day, 'th')}"
        forms = [f"{date:%A}, {ordinal} {date:%B %Y}", f"{date:%B} {ordinal}, {date.year}",
                 f"the {ordinal} of {date:%b} {date.year}"]  # fmt: skip
        words.append(forms[rng.integers(len(forms))])
        figures.append(date.isoformat())
    return words, figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="few dates, in seconds")
    small = parser.parse_args().small
    data = os.environ.get("FASTLSTM_DATA")
    if data and not small:
        folder = Path(data, "multi30k")
        training, validation, test = (
            captions(folder, part) for part in ("train", "val", "test_2016_flickr")
        )
        translator = Translator(random_state=0, verbose=True)
    else:
        count = 300 if small else 2000
        pairs = dates(count + 200)
        training, validation, test = (
            (pairs[0][part], pairs[1][part])
            for part in (slice(count), slice(count, count + 100), slice(count + 100, None))
        )
        translator = Translator(
            64, embedding_size=32, level="char", dropout=0.1, batch_size=16, learning_rate=0.01,
            epochs=1 if small else 8, random_state=0, verbose=True,
        )  # fmt: skip
    translator.fit(*training, validation)

    print(f"BLEU {translator.score(*test):.1f}, letters and all right in ", end="")
    said = translator.predict(test[0])
    print(f"{np.mean([a == b for a, b in zip(said, test[1], strict=True)]):.1%}\n")
    for source, target in zip(test[0][:5], said, strict=False):
        print(f"{source}\n    {target}")
    ((best,),) = translator.translate(test[0][:1], return_attention=True)
    best.plot().savefig("attention.png", dpi=120)
    print("\nwhat the first one looked at is in attention.png")


if __name__ == "__main__":
    main()
