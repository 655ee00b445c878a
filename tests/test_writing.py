"""_writing: drawing by its definition, streams, and completions beside all that are possible."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fastlstm.tasks import LanguageModel
from fastlstm.tasks.language_model.writing import Drawing, Reader
from tests.support import Array, assert_close
from tests.test_language_model import ENGLISH, LEVELS, plain_logits, untrained

LOGITS = np.log([0.4, 0.1, 0.3, 0.2])


def drawn(drawing: Drawing, count: int = 3000, logits: Array = LOGITS) -> Array:
    """How often each id came."""
    rng = np.random.default_rng(0)
    return np.bincount([drawing(logits, rng) for _ in range(count)], minlength=len(logits))


def assert_drawn_by(counts: Array, probabilities: Any) -> None:
    """Within five standard deviations."""
    total, p = counts.sum(), np.array(probabilities)
    assert (counts[p == 0] == 0).all()
    some = p > 0
    deviation = np.sqrt(total * p[some] * (1 - p[some]) + 1e-9)
    assert (np.abs(counts[some] - total * p[some]) <= 5 * deviation).all()


# --- drawing --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("drawing", "probabilities"),
    [
        (Drawing(), [0.4, 0.1, 0.3, 0.2]),
        (Drawing(temperature=0.5), np.array([0.16, 0.01, 0.09, 0.04]) / 0.3),
        (Drawing(temperature=0), [1, 0, 0, 0]),
        (Drawing(top_k=1), [1, 0, 0, 0]),
        (Drawing(top_k=3), np.array([4, 0, 3, 2]) / 9),
        (Drawing(top_k=99), [0.4, 0.1, 0.3, 0.2]),
        (Drawing(top_p=1.0), [0.4, 0.1, 0.3, 0.2]),
        (Drawing(top_p=0.4), [1, 0, 0, 0]),
        (Drawing(top_p=0.41), np.array([4, 0, 3, 0]) / 7),
        (Drawing(top_p=0.69), np.array([4, 0, 3, 0]) / 7),
        (Drawing(top_p=1e-9), [1, 0, 0, 0]),
        # Of the three likeliest, 4/9 and 3/9 reach 0.75.
        (Drawing(top_k=3, top_p=0.75), np.array([4, 0, 3, 0]) / 7),
        (Drawing(temperature=0.5, top_k=2), np.array([16, 0, 9, 0]) / 25),
    ],
)
def test_ids_are_drawn_by_what_is_left(drawing: Drawing, probabilities: Any) -> None:
    assert_drawn_by(drawn(drawing), probabilities)


def test_of_equally_likely_ids_no_more_than_k_are_drawn() -> None:
    counts = drawn(Drawing(top_k=2), logits=np.zeros(5))
    assert (counts > 0).sum() == 2


@pytest.mark.parametrize("temperature", [1e-4, 1e-300, 5e-324])
def test_a_very_low_temperature_takes_the_likeliest(temperature: float) -> None:
    assert drawn(Drawing(temperature=temperature), 50).tolist() == [50, 0, 0, 0]


def test_what_cannot_be_is_never_drawn() -> None:
    logits = np.array([0.0, -math.inf, 0.0])
    for drawing in (Drawing(), Drawing(temperature=0.1), Drawing(top_k=3), Drawing(top_p=1.0)):
        assert drawn(drawing, 200, logits)[1] == 0


# --- generating -----------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("cell", ["lstm", "rnn"])
def test_writing_is_greedy_at_temperature_0(level: str, cell: str) -> None:
    """Each token is the likeliest one after all before it, computed anew each time."""
    model = untrained(level=level, cell=cell, num_layers=2, dtype=np.float64)
    vocabulary = model.vocabulary_
    pieces = list(model.generate("the cat", 12, temperature=0))
    assert len(pieces) == 12
    ids = [vocabulary.start, *vocabulary.encode("the cat").tolist()]
    write = vocabulary.writer("the cat")
    for piece in pieces:
        logits = plain_logits(model.network_, np.array(ids)[:, np.newaxis])[-1, 0]
        if vocabulary.unknown < len(logits):
            logits[vocabulary.unknown] = -math.inf
        ids.append(int(logits.argmax()))
        assert piece == write(ids[-1])


def test_characters_come_with_the_probabilities_of_the_model() -> None:
    model = untrained("abcd")
    logits = plain_logits(model.network_, np.array([[4], [0]]))[1, 0]
    expected = np.exp(logits / 0.7) / np.exp(logits / 0.7).sum()
    rng = np.random.default_rng(0)
    written = [next(model.generate("a", 1, temperature=0.7, seed=rng)) for _ in range(1500)]
    assert_drawn_by(np.array([written.count(c) for c in "abcd"]), expected)


def test_the_same_seed_writes_the_same_text() -> None:
    model = untrained()
    first, same, other = ("".join(model.generate("the", 60, seed=k)) for k in (1, 1, 2))
    assert first == same != other
    assert len(first) == 60
    assert set(first) <= set(ENGLISH)


def test_tokens_come_one_by_one() -> None:
    pieces = untrained().generate("the", 10**9, seed=0)
    assert isinstance(pieces, Iterator)
    assert len([next(pieces) for _ in range(5)]) == 5


@pytest.mark.parametrize("level", LEVELS)
def test_a_prompt_may_be_empty_or_unknown(level: str) -> None:
    model = untrained(level=level)
    for prompt in ("", "合\ud800", "zebra zebra", "\n", " "):
        assert len(list(model.generate(prompt, 5, seed=0))) == 5
        assert len(model.complete(prompt, 2, length=3)) == 2
    assert list(model.generate("the", 0)) == []


def test_unknown_words_are_never_written() -> None:
    model = untrained("a b <unk> <unk> <unk>\n", level="whitespace")
    with model.network_.parameters().editing() as parameters:
        parameters["head.bias"][model.vocabulary_.unknown] = 100
    assert "<unk>" not in "".join(model.generate("", 200, seed=0))
    assert not any("<unk>" in one.text for one in model.complete("a", 9, length=3))


@pytest.mark.parametrize("stop", ["a", ["zz", "a"], "at", ["t s", "o"]])
def test_writing_ends_with_what_stops_it(stop: Any) -> None:
    model = LanguageModel(
        hidden_size=24, steps=150, learning_rate=0.02, batch_size=4, sequence_length=16,
        random_state=0,
    ).fit(ENGLISH * 40)  # fmt: skip
    stops = [stop] if isinstance(stop, str) else stop
    for seed in range(5):
        text = "".join(model.generate("the", 300, stop=stop, seed=seed))
        assert any(text.endswith(one) for one in stops), text
        assert not any(one in text[:-1] for one in stops), text
        whole = "".join(model.generate("the", 300, seed=seed))
        assert whole.startswith(text)


def test_a_stop_may_end_within_a_token() -> None:
    model = untrained(level="word")
    for seed in range(5):
        text = "".join(model.generate("", 200, stop="a", seed=seed))
        assert "a" in text.split(" ")[-1]
        assert "a" not in " ".join(text.split(" ")[:-1])


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((b"the", 3), {}, "prompt"),
        ((None, 3), {}, "prompt"),
        (("the", -1), {}, "length"),
        (("the", 3), {"temperature": -1}, "temperature"),
        (("the", 3), {"temperature": math.nan}, "temperature"),
        (("the", 3), {"top_k": 0}, "top_k"),
        (("the", 3), {"top_k": 1.5}, "top_k"),
        (("the", 3), {"top_p": 0}, "top_p"),
        (("the", 3), {"top_p": 1.1}, "top_p"),
        (("the", 3), {"stop": ""}, "stop"),
        (("the", 3), {"stop": 3}, "stop"),
        (("the", 3), {"stop": [b"a"]}, "stop"),
        (("the", 3), {"seed": -1}, "seed"),
    ],
)
def test_wrong_arguments_of_generate_raise_at_the_call(
    arguments: tuple[Any, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        untrained().generate(*arguments, **options)


@pytest.mark.parametrize("cell", ["lstm", "rnn"])
def test_a_reader_reads_as_the_network_does(cell: str) -> None:
    network = untrained(cell=cell, num_layers=2, dtype=np.float64).network_
    ids = np.random.default_rng(0).integers(0, network.outputs, 20)
    reader = Reader(network, ids[:5])
    for id_ in ids[5:]:
        reader.read(int(id_))
    assert_close(reader.logits(), plain_logits(network, ids[:, np.newaxis])[-1, 0], 1e-12)


# --- completing -----------------------------------------------------------------------------------


def every_continuation(model: LanguageModel, prompt: str, length: int) -> dict[str, float]:
    """Log-probabilities of all texts of so many characters."""
    characters = model.vocabulary_.to_json()["characters"]
    texts = ["".join(some) for some in itertools.product(characters, repeat=length)]
    return {text: float(model.log_prob(prompt + text)[len(prompt) :].sum()) for text in texts}


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_wide_beam_finds_the_likeliest_of_all(length: int) -> None:
    model = untrained("abcd", dtype=np.float64)
    expected = every_continuation(model, "ab", length)
    best = sorted(expected, key=lambda text: -expected[text])
    found = model.complete("ab", 5, length=length, beam_width=1000)
    assert [one.text for one in found] == best[: min(5, len(best))]
    for one in found:
        assert one.log_prob == pytest.approx(expected[one.text], rel=1e-10)


def test_completions_end_with_what_stops_them() -> None:
    """Of all continuations up to 3 long, those that end in their first "a", or never have one."""
    model = untrained("abcd", dtype=np.float64)
    expected = {
        text: log_prob
        for length in (1, 2, 3)
        for text, log_prob in every_continuation(model, "b", length).items()
        if "a" not in text[:-1] and (text.endswith("a") or length == 3)
    }
    best = sorted(expected, key=lambda text: -expected[text])
    found = model.complete("b", 6, length=3, stop="a", beam_width=1000)
    assert [one.text for one in found] == best[:6]


@pytest.mark.parametrize("level", LEVELS)
def test_completions_have_the_log_probability_that_the_model_gives(level: str) -> None:
    model = untrained(level=level, dtype=np.float64)
    found = model.complete("the cat", 4, length=3)
    values = [one.log_prob for one in found]
    assert values == sorted(values, reverse=True)
    assert len({one.text for one in found}) == 4 or level == "subword"
    if level == "char":
        for text, log_prob in found:
            expected = model.log_prob("the cat" + text)[-3:].sum()
            assert log_prob == pytest.approx(expected, rel=1e-10)


def test_there_may_be_fewer_completions_than_asked_for() -> None:
    assert len(untrained("a").complete("a", 9, length=2)) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "n: expected"), ({"length": 0}, "length"), ({"beam_width": 2}, "beam_width"),
        ({"beam_width": 0}, "beam_width"), ({"stop": ""}, "stop"),
    ],
)  # fmt: skip
def test_completions_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        untrained().complete("the", **options)
