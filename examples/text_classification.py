"""Sentiment of film reviews: learn, measure beside a bag of words, and say why.

    python examples/text_classification.py

Where FASTLSTM_DATA names a folder with the Stanford Sentiment Treebank (sentiment/stsa.binary.train
and .dev, lines of "label text"), that is learnt, else reviews that are made here.
"""

import argparse
import itertools
import os
from pathlib import Path

from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import classification_report
from sklearn.pipeline import make_pipeline

from fastlstm.tasks import TextClassifier

NAMES = {"0": "negative", "1": "positive"}


def treebank(folder: Path, part: str) -> tuple[list[str], list[str]]:
    lines = (folder / f"stsa.binary.{part}").read_text(encoding="utf-8").split("\n")
    pairs = [line.split(" ", 1) for line in lines if line]
    return [text for _, text in pairs], [NAMES[label] for label, _ in pairs]


def made_up() -> tuple[list[str], list[str]]:
    """Reviews in which "not" and "nobody would say" turn the meaning."""
    words = {"positive": ["good", "great", "funny", "moving"], "negative": ["bad", "awful", "dull"]}
    turned = {"positive": "negative", "negative": "positive"}
    texts, labels = [], []
    for label, thing in itertools.product(words, ["film", "plot", "cast", "music", "ending"]):
        for word in words[label]:
            texts += [f"the {thing} is {word} .", f"what a {word} {thing} !"]
            texts += [f"the {thing} is not {word} .", f"nobody would say the {thing} is {word} ."]
            labels += [label, label, turned[label], turned[label]]
    return texts, labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="few texts and epochs, in seconds")
    small = parser.parse_args().small
    data = os.environ.get("FASTLSTM_DATA")
    if data:
        (texts, labels), (test, truth) = (
            treebank(Path(data, "sentiment"), part) for part in ("train", "dev")
        )
        options = {}
        if small:
            texts, labels, test, truth = (part[:200] for part in (texts, labels, test, truth))
            options = {"epochs": 1}
    else:
        texts, labels = made_up()
        test, truth = texts[::7], labels[::7]
        del texts[::7], labels[::7]
        options = {"epochs": 2 if small else 12, "batch_size": 8, "learning_rate": 0.01}

    classifier = TextClassifier(random_state=0, verbose=True, **options).fit(texts, labels)
    print(classification_report(truth, classifier.predict(test), digits=3, zero_division=0))

    bag = make_pipeline(CountVectorizer(ngram_range=(1, 2)), LogisticRegression(max_iter=1000))
    print(f"bag of words and pairs: {bag.fit(texts, labels).score(test, truth):.3f}")

    print(f"\n{classifier.explain(test[0])}")


if __name__ == "__main__":
    main()
