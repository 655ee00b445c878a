"""Reviews in which "not" turns a meaning, and classifiers of them: for several test modules."""

from __future__ import annotations

from typing import Any

from fastlstm.tasks import TextClassifier

GOOD, BAD = ["good", "great", "fine", "funny"], ["bad", "awful", "dull", "sad"]
THINGS = ["film", "plot", "actor", "scene", "song"]


def reviews() -> tuple[list[str], list[str]]:
    """Texts in which "not" turns the meaning of what follows."""
    texts, labels = [], []
    for words, label, turned in ((GOOD, "pos", "neg"), (BAD, "neg", "pos")):
        for word in words:
            for thing in THINGS:
                texts += [f"the {thing} is {word}", f"the {thing} is not {word}"]
                labels += [label, turned]
    return texts, labels


SMALL: dict[str, Any] = {
    "hidden_size": 8, "embedding_size": 8, "dropout": 0.0, "epochs": 25, "batch_size": 8,
    "learning_rate": 0.02, "validation_fraction": 0.0, "random_state": 0,
}  # fmt: skip


def small(**options: Any) -> TextClassifier:
    return TextClassifier(**{**SMALL, **options})


def quick(**options: Any) -> TextClassifier:
    """One that has been trained, but hardly."""
    return small(epochs=1, batch_size=40, **options).fit(*reviews())
