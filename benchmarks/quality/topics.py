"""A language model beside character n-grams: ``python -m benchmarks.quality.topics --model FILE``.

The text is the command line's default corpus, Python's language reference, with its last 5 % held
out; a model that `fastlstm lm train` made without a corpus has not seen those. Both pay for every
character of the held-out text, the first one and unknown ones included. Exits with 1 when the model
does not beat the best n-gram.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.quality.ngram import WittenBell
from fastlstm.tasks import LanguageModel
from fastlstm.tasks.corpus import DEFAULT_CORPUS, default_corpus, split_corpus

ORDERS = range(2, 9)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", metavar="FILE", help="what `fastlstm lm train` wrote")
    arguments = parser.parse_args(argv)
    try:
        model = None if arguments.model is None else LanguageModel.load(arguments.model)
    except (OSError, ValueError) as error:
        parser.error(f"--model: {error}")

    training, held_out = split_corpus(default_corpus())
    print(f"{DEFAULT_CORPUS}: {len(training):,} characters, {len(held_out):,} more held out")
    print("\nbits per character of what was held out, as predicted by")
    bits = WittenBell(training, max(ORDERS)).bits_per_character(held_out)
    ngrams = {order: bits[order - 1] for order in ORDERS}
    best = min(ngrams, key=ngrams.__getitem__)
    for order, value in ngrams.items():
        note = "  the best of them" if order == best else ""
        print(f"  Witten-Bell n-gram, order {order}  {value:.3f}{note}")
    if model is None:
        return 0

    learnt = model.bits_per_character(held_out)
    print(f"  LSTM of {model.hidden_size} units {learnt:>15.3f}")
    won = learnt < ngrams[best]
    print(f"\nThe LSTM {'beats' if won else 'does NOT beat'} the best n-gram.")
    return 0 if won else 1


if __name__ == "__main__":
    sys.exit(main())
