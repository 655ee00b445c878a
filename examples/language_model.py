"""Learn to write like a text, go on from a prompt, and say how well the rest is predicted.

    python examples/language_model.py

Where FASTLSTM_DATA names a folder with tinyshakespeare/input.txt, its characters are learnt; else
Python's own manual, which comes with every CPython.
"""

import argparse
import os
import sys
from pathlib import Path

from fastlstm.tasks import LanguageModel
from fastlstm.tasks.corpus import default_corpus, split_corpus


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="a page of the text, in seconds")
    small = parser.parse_args().small
    if data := os.environ.get("FASTLSTM_DATA"):
        text = Path(data, "tinyshakespeare", "input.txt").read_text(encoding="utf-8")
    else:
        text = default_corpus()
    training, held_out = split_corpus(text[:20_000] if small else text)

    model = LanguageModel(
        hidden_size=32 if small else 256,
        steps=40 if small else 3000,
        dropout=0.1,
        random_state=0,
        verbose=True,
    )
    model.fit(training)
    print(f"\nheld out: {model.bits_per_character(held_out):.3f} bits per character")
    print(f"learning on the way: {model.dynamic_perplexity(held_out[:5000]):.3f} characters to")
    print(f"choose from, instead of {model.perplexity(held_out[:5000]):.3f}")

    prompt = training[: training.index("\n")]
    print(f"\n{prompt}", end="")
    for piece in model.generate(prompt, length=400, temperature=0.8, seed=0):
        sys.stdout.write(piece)
        sys.stdout.flush()
    print("\n\nthe likeliest ways to go on:")
    for one in model.complete(prompt, n=3, length=30, stop="\n"):
        print(f"{one.log_prob:8.2f}  {one.text!r}")


if __name__ == "__main__":
    main()
