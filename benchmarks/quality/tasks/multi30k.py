"""German into English: captions of photographs (Multi30k), lower-cased and tokenised.

The validation part chooses the weights of a run, by its loss, and chose the settings. The figure is
BLEU of the 1,000 sentences of test 2016 as they are (sacrebleu, tokenize="none"), by a beam of 5.
"""

from __future__ import annotations

from typing import Any

import sacrebleu

from benchmarks.quality import data, kept
from benchmarks.quality.harness import (
    OURS,
    PLAIN,
    TORCH,
    Bar,
    Outcome,
    Summary,
    Task,
    ahead_of,
    at_least,
    baseline,
    close_to,
    within,
)  # fmt: skip
from benchmarks.quality.lexicon import Lexicon
from benchmarks.quality.rivals import rivals, training_of
from fastlstm.tasks import Translator

SETTINGS: dict[str, Any] = {"max_vocabulary": 4000, "epochs": 16}
SMALL = {"epochs": 1, "hidden_size": 16, "embedding_size": 8, "max_vocabulary": 400}
LEXICON = "word for word (IBM Model 1)"

Pairs = tuple[list[str], list[str]]


def read(small: bool) -> tuple[tuple[Pairs, Pairs], Pairs]:
    """(What is trained on, what chooses), and what is tested with."""
    parts = [data.multi30k(part) for part in ("train", "val", "test_2016_flickr")]
    if small:
        parts = [
            (sources[:count], targets[:count])
            for (sources, targets), count in zip(parts, (200, 40, 20), strict=True)
        ]
    training, validation, test = parts
    return (training, validation), test


def fit(translator: Translator, part: tuple[Pairs, Pairs]) -> object:
    (sources, targets), validation = part
    return kept.fit_by_epochs("multi30k", translator, sources, targets, validation)


def bleu(said: list[str], targets: list[str]) -> float:
    return float(
        sacrebleu.metrics.BLEU(tokenize="none", force=True).corpus_score(said, [targets]).score
    )


def score(translator: Translator, test: Pairs) -> Outcome:
    sources, targets = test
    said, greedy = (
        [found[0].text for found in translator.translate(sources, beam_size=beam)]
        for beam in (translator.beam_size, 1)
    )
    chrf = sacrebleu.metrics.CHRF().corpus_score(said, [targets])
    return Outcome(
        bleu(said, targets), further={"greedy": bleu(greedy, targets), "chrF": chrf.score}
    )


def word_for_word(small: bool) -> Outcome:
    (training, _), (sources, targets) = read(small)
    lexicon = Lexicon(*training)
    return Outcome(bleu([lexicon.translate(source) for source in sources], targets))


def greedy_within(slack: float) -> Bar:
    """Greedy search is not behind the beam by more."""

    def met(found: dict[str, Summary]) -> bool | None:
        if OURS not in found:
            return None
        ours = found[OURS]
        return all(
            value - further["greedy"] <= slack
            for value, further in zip(ours.values, ours.further, strict=True)
        )

    return Bar(f"greedy search not behind by more than {slack:g}", met)


TASK = Task(
    name="multi30k",
    title="Translation, German into English (Multi30k)",
    metric="BLEU of test 2016, tokenised",
    higher_is_better=True,
    # One seed tells little: two runs of the same network may be 2.6 BLEU apart.
    seeds=2,
    systems=rivals(Translator, SETTINGS, read, fit, score, small=SMALL)
    | {LEXICON: baseline(word_for_word, rounds=10)},
    bars=[
        at_least(31),
        greedy_within(1.5),
        within(2400),
        *ahead_of(PLAIN, LEXICON, higher_is_better=True),
        close_to(TORCH, 0.5, higher_is_better=True),
    ],
    published={"GRU with attention (bentrevett's tutorial 4; other tokens)": 28.8},
    training=training_of(Translator, SETTINGS, read, lambda one, part: one.fit(*part[0], part[1])),
)
