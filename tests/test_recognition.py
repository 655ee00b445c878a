"""SequenceRecognizer: what it learns, decodes, keeps, refuses; metrics, n-grams, augmentation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from fastlstm.decoding import ctc_beam_search, ctc_greedy
from fastlstm.storage import FormatError
from fastlstm.tasks import SequenceClassifier, SequenceRecognizer
from fastlstm.tasks._base.batches import Ragged
from fastlstm.tasks._base.networks import StepNetwork
from fastlstm.tasks.augmentation import SpecAugment, StrokeDistortion
from fastlstm.tasks.features import strokes
from fastlstm.tasks.metrics import edit_distance, error_rate
from fastlstm.tasks.recognition.ngram import NGram
from fastlstm.tasks.recognition.transcripts import ctc
from tests.finite_differences import assert_gradients
from tests.support import Array, assert_close, assert_same_bits, normal

QUICK: dict[str, Any] = {"epochs": 20, "learning_rate": 0.02, "dropout": 0.0, "random_state": 0}


def say(text: Sequence[Any], rng: np.random.Generator) -> Array:
    """Each letter of "abc" as a bump of its own feature, of 3 to 5 steps, with pauses and noise."""
    parts = [np.zeros((rng.integers(1, 3), 3))]
    for letter in text:
        bump = np.zeros((rng.integers(3, 6), 3))
        bump[:, "abc".index(letter)] = 1
        parts += [bump, np.zeros((rng.integers(1, 3), 3))]
    sound = np.concatenate(parts)
    return (sound + 0.1 * rng.standard_normal(sound.shape)).astype(np.float32)


@cache
def spoken(count: int = 80, seed: int = 0) -> tuple[list[Array], list[str]]:
    rng = np.random.default_rng(seed)
    texts = ["".join(rng.choice(list("abc"), rng.integers(0, 5))) for _ in range(count)]
    return [say(text, rng) for text in texts], texts


@cache
def learnt() -> SequenceRecognizer:
    """Fitted once for the tests that only look."""
    return SequenceRecognizer(16, **QUICK).fit(*spoken())


TEST = spoken(30, seed=1)


# --- learning and decoding ------------------------------------------------------------------------


def test_what_is_said_is_recognised_without_knowing_when() -> None:
    assert learnt().score(*TEST) > 0.98
    assert learnt().classes_.tolist() == ["a", "b", "c"]
    found = learnt().predict(TEST[0])
    assert all(isinstance(one, str) for one in found)
    assert learnt().score(*TEST) == pytest.approx(1 - error_rate(TEST[1], found))


def test_frames_may_be_stacked_and_cells_be_plain() -> None:
    for options in ({"stack": 2}, {"cell": "rnn"}, {"num_layers": 2, "epochs": 30}):
        recognizer = SequenceRecognizer(16, **{**QUICK, **options}).fit(*spoken())
        assert recognizer.score(*TEST) > 0.9, options
        steps = -(-len(TEST[0][0]) // options.get("stack", 1))
        assert recognizer.predict_log_proba(TEST[0][:1])[0].shape == (steps, 4)


def test_labels_may_be_anything_that_can_be_told_apart() -> None:
    names = {"a": ("first", 1), "b": 7, "c": "see"}
    X, texts = spoken()
    y = [[names[letter] for letter in text] for text in texts]
    recognizer = SequenceRecognizer(16, **QUICK).fit(X, y)
    found = recognizer.predict(TEST[0])
    assert found == [[names[letter] for letter in text] for text in learnt().predict(TEST[0])]
    numbers = [np.array(["abc".index(letter) for letter in text], np.int16) for text in texts]
    recognizer = SequenceRecognizer(16, **QUICK).fit(X, numbers)
    assert [type(label) for label in recognizer.classes_] == [int, int, int]
    assert recognizer.predict(TEST[0][:1]) == [["abc".index(k) for k in TEST[1][0]]]


def test_log_probabilities_decode_to_what_is_predicted() -> None:
    log_probs = learnt().predict_log_proba(TEST[0])
    for one, x, text in zip(log_probs, TEST[0], learnt().predict(TEST[0]), strict=True):
        assert one.shape == (len(x), 4)
        assert one.dtype == np.float64
        np.testing.assert_allclose(np.exp(one).sum(axis=1), 1, rtol=1e-12)
        assert "".join(" abc"[k] for k in ctc_greedy(one)) == text
    for one, (best, *_) in zip(log_probs, learnt().transcribe(TEST[0]), strict=True):
        (expected,) = ctc_beam_search(one)
        assert best.labels == "".join(" abc"[k] for k in expected.labels)
        assert (best.score, best.log_prob) == (expected.score, expected.log_prob)


def test_padded_sequences_are_the_same_as_a_list() -> None:
    lengths = np.array([len(x) for x in TEST[0]])
    padded = np.full((len(lengths), lengths.max(), 3), 9.0)
    for row, x in zip(padded, TEST[0], strict=True):
        row[: len(x)] = x
    assert learnt().predict(padded, lengths=lengths) == learnt().predict(TEST[0])
    assert learnt().score(padded, TEST[1], lengths=lengths) == learnt().score(*TEST)


def test_the_likelihood_sums_over_all_alignments() -> None:
    x = TEST[0][0][:5]
    (log_probs,) = learnt().predict_log_proba([x])
    for text in ("", "a", "ab", "aa", "cab"):
        paths = (
            path for path in itertools.product(range(4), repeat=5)
            if "".join(" abc"[k] for k, _ in itertools.groupby(path) if k) == text
        )  # fmt: skip
        expected = math.log(sum(math.exp(log_probs[range(5), path].sum()) for path in paths))
        assert learnt().log_likelihood([x], [text])[0] == pytest.approx(expected, rel=1e-9)
    found = learnt().log_likelihood([x, x, x], ["abcabc", "ax", "a"])
    assert np.isneginf(found).tolist() == [True, True, False]


def test_the_beam_gives_the_best_first() -> None:
    for readings in learnt().transcribe(TEST[0], n_best=4, beam_width=8):
        scores = [reading.score for reading in readings]
        assert scores == sorted(scores, reverse=True)
        assert len({reading.labels for reading in readings}) == len(readings) == 4


def test_a_language_model_is_asked_for_labels_and_can_forbid_them() -> None:
    asked = set()

    def never_b(prefix: Any, label: Any) -> float:
        asked.add((prefix, label))
        return -math.inf if label == "b" else -1.0

    options = {"decoder": "beam", "language_model": never_b}
    assert not any("b" in text for text in learnt().predict(TEST[0], **options))
    assert {label for _, label in asked} == {"a", "b", "c"}
    assert all(isinstance(prefix, str) and set(prefix) <= set("abc") for prefix, _ in asked)
    free = {**options, "weight": 0.0, "language_model": lambda *_: -1.0}
    assert learnt().predict(TEST[0], **free) == learnt().predict(TEST[0], decoder="beam")
    assert learnt().score(*TEST, **options) < learnt().score(*TEST)


def test_an_insertion_bonus_makes_for_more_labels() -> None:
    few, many = (
        sum(map(len, learnt().predict(TEST[0], decoder="beam", insertion_bonus=bonus)))
        for bonus in (-20.0, 20.0)
    )
    assert few < sum(map(len, TEST[1])) < many


def test_n_grams_of_the_training_labels_decide_where_the_sound_does_not() -> None:
    rng = np.random.default_rng(0)
    texts = ["abab"[k % 2 :][: 2 + k % 3] for k in range(60)]  # always one after the other
    X = [say(text, rng) for text in texts]
    recognizer = SequenceRecognizer(16, **QUICK).fit(X, texts)
    doubtful = say("ab", rng)
    doubtful[doubtful[:, 1] > 0.5, :2] = 0.5
    found = {
        weight: recognizer.predict(
            [doubtful], decoder="beam", language_model="ngram", weight=weight
        )[0]
        for weight in (0.0, 3.0)
    }
    assert not {"aa", "bb"} & {found[3.0][k : k + 2] for k in range(9)}
    prefix_probabilities = [recognizer._ngram((1,), k) for k in (1, 2)]
    assert prefix_probabilities[0] < prefix_probabilities[1]


# --- training -------------------------------------------------------------------------------------


def test_gradients_of_the_loss_are_those_of_finite_differences() -> None:
    network = StepNetwork(
        4, loss=ctc, start=np.random.default_rng(0), features=2, hidden_size=3, dtype=np.float64,
        bidirectional=True,
    )  # fmt: skip
    rng = np.random.default_rng(1)
    lengths = np.array([5, 0, 3])
    target = lengths, np.array([1, 1, 3, 2]), np.array([3, 0, 1])
    batch = normal(rng, (5, 3, 2)), lengths, target

    def loss(arrays: dict[str, Array]) -> float:
        network.parameters().load_state_dict(arrays)
        return network.loss_and_grads(batch, None, None)[0]

    _, grads, _ = network.loss_and_grads(batch, None, None)
    assert_gradients(loss, network.parameters().state_dict(), grads)


@pytest.mark.oracle
def test_the_loss_is_torchs() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    lengths, sizes = np.array([6, 4, 9]), np.array([2, 0, 4])
    rows, labels = normal(rng, (19, 5)), rng.integers(1, 5, 6)
    logits = torch.tensor(rows, requires_grad=True)
    padded = torch.nn.utils.rnn.pad_sequence(torch.split(logits, lengths.tolist()))
    expected = torch.nn.functional.ctc_loss(
        padded.log_softmax(-1), torch.tensor(labels), torch.tensor(lengths), torch.tensor(sizes)
    )
    expected.backward()
    loss, d_rows = ctc(rows, (lengths, labels, sizes))
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    assert_close(d_rows, logits.grad.numpy(), 1e-12)


def test_the_same_seed_learns_the_same_and_another_does_not() -> None:
    runs = [
        SequenceRecognizer(4, **{**QUICK, "epochs": 2, "random_state": seed})
        .fit(*spoken())
        .predict_log_proba(TEST[0][:1])[0]
        for seed in (0, 0, 1)
    ]
    assert_same_bits(runs[0], runs[1])
    assert (runs[0] != runs[2]).any()


def test_the_weights_of_the_lowest_validation_are_kept() -> None:
    recognizer = SequenceRecognizer(8, **{**QUICK, "epochs": 6, "patience": 2}).fit(*spoken())
    losses = [loss for _, loss in recognizer.history_.validations]
    assert all(loss > 0 for loss in losses)
    everything = SequenceRecognizer(8, **{**QUICK, "validation_fraction": 0.0, "epochs": 2})
    assert everything.fit(*spoken()).history_.validations == []


def test_training_sequences_are_changed_anew_each_time_and_others_never() -> None:
    X, y = spoken()
    before = [x.copy() for x in X]
    seen: list[Array] = []

    def louder(sequence: Array, rng: np.random.Generator) -> Array:
        seen.append(sequence)
        return sequence * rng.uniform(0.5, 2)

    settings = {**QUICK, "epochs": 2, "augment": louder}
    runs = [SequenceRecognizer(4, **settings).fit(X, y) for _ in range(2)]
    assert len(seen) == 2 * 2 * 72
    for x, same in zip(X, before, strict=True):
        assert_same_bits(x, same)
    plain = SequenceRecognizer(4, **{**settings, "augment": None}).fit(X, y)
    first, second, third = (run.history_.losses for run in (*runs, plain))
    assert first == second != third


def test_a_classifier_changes_its_training_sequences_too() -> None:
    X, texts = spoken()
    y = ["a" in text for text in texts]
    seen: list[Array] = []

    def louder(sequence: Array, rng: np.random.Generator) -> Array:
        seen.append(sequence)
        return np.repeat(sequence * rng.uniform(0.5, 2), 2, axis=0)

    settings = {"epochs": 2, "validation_fraction": 0.25, "random_state": 0, "augment": louder}
    first, second = (SequenceClassifier(4, **settings).fit(X, y) for _ in range(2))
    assert len(seen) == 2 * 2 * 60
    assert first.history_.losses == second.history_.losses
    assert first.history_.validations == second.history_.validations
    plain = SequenceClassifier(4, **{**settings, "augment": None}).fit(X, y)
    assert plain.history_.losses != first.history_.losses
    first.partial_fit(X, y)
    assert len(seen) == 2 * 2 * 60 + 80
    with pytest.raises(TypeError, match="augment: expected a callable or None, got 5"):
        SequenceClassifier(4, augment=5).fit(X, y)


def test_noise_is_of_training_alone() -> None:
    runs = [
        SequenceRecognizer(4, **{**QUICK, "epochs": 2, "noise": noise}).fit(*spoken())
        for noise in (0.0, 0.0, 0.5)
    ]
    first, second, noisy = (run.history_.losses for run in runs)
    assert first == second != noisy
    assert runs[2].predict(TEST[0]) == runs[2].predict(TEST[0])


def test_sequences_may_be_changed_to_other_lengths() -> None:
    X, y = spoken()
    settings = {**QUICK, "epochs": 2, "augment": lambda x, _: np.repeat(x, 2, axis=0)}
    SequenceRecognizer(4, **settings).fit(X, y)
    for augment, message in (
        (lambda x, _: x[:1], "expected at least"),
        (lambda x, _: x[:, :2], r"augment: expected finite numbers of shape \(T, 3\), got"),
        (lambda x, _: x * np.nan, r"augment: expected finite numbers of shape \(T, 3\), got"),
    ):
        with pytest.raises(ValueError, match=message):
            SequenceRecognizer(4, **{**QUICK, "augment": augment}).fit(X, y)


def test_ctrl_c_leaves_what_was_best_so_far() -> None:
    calls = itertools.count()

    def stop(sequence: Array, _: np.random.Generator) -> Array:
        if next(calls) == 72 * 5:
            raise KeyboardInterrupt
        return sequence

    recognizer = SequenceRecognizer(16, **{**QUICK, "augment": stop})
    with pytest.raises(KeyboardInterrupt):
        recognizer.fit(*spoken())
    best = min(recognizer.history_.validations, key=lambda pair: pair[1])[1]
    assert len(recognizer.history_.validations) == 5
    assert recognizer.predict(TEST[0][:2])
    assert best < 3


def test_scikit_learn_can_clone_it_and_set_its_arguments() -> None:
    recognizer = SequenceRecognizer(7, stack=3, augment=SpecAugment(time_masks=1))
    copy = clone(recognizer)
    assert copy.get_params() == recognizer.get_params()
    assert copy.set_params(dropout=0.7).dropout == 0.7


# --- files ----------------------------------------------------------------------------------------


def test_a_file_gives_the_same_bits_and_the_same_n_grams(tmp_path: Path) -> None:
    learnt().save(tmp_path / "a.safetensors")
    loaded = SequenceRecognizer.load(tmp_path / "a.safetensors")
    assert loaded.get_params() == learnt().get_params()
    for found, expected in zip(
        loaded.predict_log_proba(TEST[0]), learnt().predict_log_proba(TEST[0]), strict=True
    ):
        assert_same_bits(found, expected)
    options = {"decoder": "beam", "language_model": "ngram", "weight": 2.0}
    assert loaded.predict(TEST[0], **options) == learnt().predict(TEST[0], **options)
    loaded.save(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_labels_of_text_and_numbers_come_back_and_others_are_refused(tmp_path: Path) -> None:
    X, texts = spoken(20)
    for names in ([1, 2, 3], ["one", "two", "thr\0"], [0.5, 1, "x"], [("a",), "b", "c"]):
        y = [[names["abc".index(letter)] for letter in text] for text in texts]
        recognizer = SequenceRecognizer(4, **{**QUICK, "epochs": 1}).fit(X, y)
        if names[0] == ("a",):
            with pytest.raises(TypeError, match=r"classes_: a file holds labels that are text or"):
                recognizer.save(tmp_path / "a.safetensors")
        else:
            recognizer.save(tmp_path / "a.safetensors")
            loaded = SequenceRecognizer.load(tmp_path / "a.safetensors")
            assert loaded.classes_.tolist() == recognizer.classes_.tolist()
            assert loaded.predict(X) == recognizer.predict(X)


def test_functions_are_not_kept_in_a_file(tmp_path: Path) -> None:
    recognizer = SequenceRecognizer(4, **{**QUICK, "epochs": 1, "augment": SpecAugment()})
    recognizer.fit(*spoken(20)).save(tmp_path / "a.safetensors")
    assert SequenceRecognizer.load(tmp_path / "a.safetensors").augment is None


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        SequenceRecognizer.load(tmp_path / "a.safetensors")
    (tmp_path / "a.safetensors").write_bytes(b"no model")
    with pytest.raises(FormatError):
        SequenceRecognizer.load(tmp_path / "a.safetensors")


# --- what is refused ------------------------------------------------------------------------------

GOOD = [np.zeros((4, 2)), np.ones((5, 2))]


@pytest.mark.parametrize(
    ("X", "y", "kind", "message"),
    [
        (GOOD, ["ab"], ValueError, "y: expected 2 sequences of labels, as X has, got 1"),
        (GOOD, "ab", TypeError, "y: expected a list of strings or of lists of labels, got 'ab'"),
        (GOOD, None, TypeError, "y: expected a list of strings"),
        (GOOD, ["a", ["b"]], TypeError, r"y\[0\]: expected strings alone, or lists of labels"),
        (GOOD, [["a"], 5], TypeError, r"y\[1\]: expected strings alone, or lists of labels"),
        (GOOD, [["a"], [["b"]]], TypeError, r"y\[1\]: expected labels that can be told apart"),
        (GOOD, [[1.0], [math.nan]], TypeError, r"y\[1\]: expected labels that can be told apart"),
        (GOOD, ["", ""], ValueError, "y: expected at least one label, got empty sequences alone"),
        (GOOD, ["a", "ababab"], ValueError, r"X\[1\]: expected at least 6 steps for 6 labels"),
        (
            GOOD,
            ["aaa", "a"],
            ValueError,
            r"X\[0\]: expected at least 5 steps for 3 labels .* got 4",
        ),
        ([np.zeros((4, 2)), np.zeros((4, 3))], ["a", "b"], ValueError, r"X\[1\]: expected 2 feat"),
        ([np.zeros((4, 2)), np.full((4, 2), np.nan)], ["a", "b"], ValueError, "X: expected finite"),
        ([], [], ValueError, "X: expected at least one sequence"),
        (
            [np.zeros((0, 2)), np.zeros((0, 2))],
            ["", "a"],
            ValueError,
            "X: expected at least one step",
        ),
    ],
)
def test_impossible_data_are_refused(X: Any, y: Any, kind: type[Exception], message: str) -> None:
    recognizer = SequenceRecognizer(4, validation_fraction=0.0)
    with pytest.raises(kind, match=message):
        recognizer.fit(X, y)
    assert not hasattr(recognizer, "network_")


def test_room_is_that_after_stacking() -> None:
    message = r"X\[1\]: expected at least 3 steps after stacking 3 as one for 3 labels .* got 2"
    with pytest.raises(ValueError, match=message):
        SequenceRecognizer(4, stack=3, validation_fraction=0.0).fit(GOOD, ["a", "aba"])


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"stack": 0}, ValueError, "stack: expected a whole number >= 1, got 0"),
        ({"ngram_order": 0}, ValueError, "ngram_order: expected a whole number >= 1, got 0"),
        ({"augment": 5}, TypeError, "augment: expected a callable or None, got 5"),
        ({"cell": "gru"}, ValueError, "gru"),
        ({"dropout": 1.5}, ValueError, "dropout"),
    ],
)
def test_impossible_arguments_are_refused(
    options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        SequenceRecognizer(4, **options).fit(*spoken())


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"decoder": "best"}, ValueError, "decoder: expected one of greedy, beam, got 'best'"),
        ({"language_model": "ngram"}, ValueError, "language_model: needs decoder='beam'"),
        ({"decoder": "beam", "language_model": "bible"}, TypeError, "language_model: expected a c"),
        ({"decoder": "beam", "beam_width": 0}, ValueError, "beam_width: expected"),
        ({"decoder": "beam", "weight": math.nan}, ValueError, "weight: expected"),
        ({"decoder": "beam", "insertion_bonus": "x"}, TypeError, "insertion_bonus: expected"),
    ],
)
def test_impossible_ways_of_decoding_are_refused(
    options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    for use in (learnt().predict, lambda X, **more: learnt().score(X, TEST[1], **more)):
        with pytest.raises(kind, match=message):
            use(TEST[0], **options)


def test_what_was_never_learnt_is_an_error_in_the_score() -> None:
    X, texts = TEST
    strange = [text.replace("c", "z") for text in texts]
    expected = sum(text.count("c") for text in texts) / sum(map(len, texts))
    assert learnt().score(X, strange) == pytest.approx(
        learnt().score(X, texts) - expected, abs=0.01
    )
    with pytest.raises(ValueError, match="y: expected 30 sequences of labels"):
        learnt().score(X, texts[1:])
    with pytest.raises(ValueError, match=r"X\[0\]: expected 3 features a step, got 2"):
        learnt().predict([np.zeros((4, 2))])


def test_what_is_not_fitted_says_so() -> None:
    for call in ("predict", "transcribe", "predict_log_proba"):
        with pytest.raises(NotFittedError, match="This SequenceRecognizer instance is not fitted"):
            getattr(SequenceRecognizer(), call)(GOOD)


# --- stacking -------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 7), min_size=1, max_size=6), st.integers(1, 4))
def test_stacked_steps_have_all_features_in_order(lengths: list[int], count: int) -> None:
    rows = 1 + np.arange(sum(lengths) * 2, dtype=np.float32).reshape(-1, 2)
    table = Ragged(rows, np.array(lengths))
    stacked = table.stacked(count)
    for one, whole in zip(stacked, table, strict=True):
        flat = np.zeros(-(-len(whole) // count) * count * 2, np.float32)
        flat[: whole.size] = whole.ravel()
        assert_same_bits(one, flat.reshape(-1, 2 * count))


# --- metrics --------------------------------------------------------------------------------------

words = st.text("abc", max_size=7)


@given(words, words)
def test_the_distance_is_that_of_its_recursion(a: str, b: str) -> None:
    @cache
    def distance(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        return min(
            distance(i - 1, j) + 1,
            distance(i, j - 1) + 1,
            distance(i - 1, j - 1) + (a[i - 1] != b[j - 1]),
        )

    assert edit_distance(a, b) == distance(len(a), len(b)) == edit_distance(list(b), tuple(a))


@pytest.mark.oracle
@given(st.lists(st.integers(0, 5), max_size=12), st.lists(st.integers(0, 5), max_size=12))
@settings(deadline=None)
def test_the_distance_is_nltks(a: list[int], b: list[int]) -> None:
    distance = pytest.importorskip("nltk.metrics.distance").edit_distance
    assert edit_distance(a, b) == distance(a, b)


def test_the_rate_is_of_all_labels_together() -> None:
    assert error_rate(["abcd", "a"], ["abcd", "b"]) == 1 / 5
    assert error_rate([["the", "cat"]], [["a", "cat", "sat"]]) == 1
    assert error_rate(["a"], ["bcd"]) == 3
    assert error_rate([""], [""]) == 0
    assert error_rate([""], ["ab"]) == 2
    with pytest.raises(ValueError, match="zip"):
        error_rate(["a", "b"], ["a"])


# --- n-grams --------------------------------------------------------------------------------------


@given(st.lists(st.lists(st.integers(1, 4), max_size=6), max_size=8), st.integers(1, 4))
def test_probabilities_of_n_grams_sum_to_one_and_come_back_from_a_file(
    sequences: list[list[int]], order: int
) -> None:
    model = NGram.of(sequences, 5, order)
    again = NGram.from_arrays(model.arrays(), 5)
    for prefix in ((), (1,), (1, 2), (5, 5, 5, 5), *map(tuple, sequences[:3])):
        found = [model(prefix, label) for label in range(1, 6)]
        assert sum(map(math.exp, found)) == pytest.approx(1)
        assert found == [again(prefix, label) for label in range(1, 6)]


def test_n_grams_are_those_of_witten_and_bell() -> None:
    model = NGram.of([[1, 2, 1, 2, 2]], 3, 2)
    one = (2 + 2 / 3) / (5 + 2), (3 + 2 / 3) / (5 + 2)  # p(1), p(2): two of three labels seen
    assert math.exp(model((3,), 1)) == pytest.approx(one[0])
    assert math.exp(model((1,), 2)) == pytest.approx((2 + 1 * one[1]) / (2 + 1))
    assert math.exp(model((), 1)) == pytest.approx((1 + 1 * one[0]) / (1 + 1))


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"ngram.labels": np.array([[9]], np.int32)}, IndexError),
        ({"ngram.labels": np.array([[-1]], np.int32)}, ValueError),
        ({"ngram.labels": np.array([[1.0]])}, TypeError),
        ({"ngram.labels": np.empty((1, 0), np.int32)}, ValueError),
        ({"ngram.counts": np.array([0])}, IndexError),
        ({"ngram.counts": np.array([1, 2])}, ValueError),
    ],
)
def test_n_grams_of_a_file_are_checked(change: dict[str, Array], kind: type[Exception]) -> None:
    arrays = {"ngram.labels": np.array([[1]], np.int32), "ngram.counts": np.array([1])}
    NGram.from_arrays(arrays, 3)
    with pytest.raises(kind):
        NGram.from_arrays(arrays | change, 3)


# --- augmentation ---------------------------------------------------------------------------------


def test_masks_hide_bands_and_stretches_behind_the_mean() -> None:
    rng = np.random.default_rng(0)
    sound = rng.standard_normal((50, 20)).astype(np.float32)
    mean = sound.mean(axis=0)
    hidden_bands, hidden_steps = [], []
    for _ in range(200):
        masked = SpecAugment(1, 5, 1, 30, 0.2)(sound, rng)
        assert masked.dtype == np.float32
        hidden = masked != sound
        np.testing.assert_array_equal(masked[hidden], np.broadcast_to(mean, (50, 20))[hidden])
        bands, steps = hidden.all(axis=0), hidden.all(axis=1)
        assert (hidden == (bands | steps[:, np.newaxis])).all()
        hidden_bands.append(bands.sum())
        hidden_steps.append(steps.sum())
    assert (min(hidden_bands), max(hidden_bands)) == (0, 5)
    assert (min(hidden_steps), max(hidden_steps)) == (0, 10)
    assert SpecAugment()(sound[:0], rng).shape == (0, 20)
    assert_same_bits(SpecAugment(0, 5, 0, 5)(sound, rng), sound)


SQUARE = [[[0, 0], [4, 0], [4, 4]], [[4, 4], [0, 4]], [[0, 4], [0, 0]]]


def lines_of(drawing: Array) -> set[tuple[tuple[float, ...], ...]]:
    """The points of each stroke, from whichever end."""
    parts = np.split(drawing[:, 4:].round(5), np.flatnonzero(drawing[1:, 2]) + 1)
    return {min(tuple(map(tuple, part)), tuple(map(tuple, part[::-1]))) for part in parts}


def test_strokes_are_distorted_and_stay_strokes() -> None:
    rng = np.random.default_rng(0)
    drawing = strokes(SQUARE)
    found = StrokeDistortion(tremble=0, reverse=0, reorder=0)(drawing, rng)
    assert found.shape == drawing.shape
    assert found.dtype == np.float32
    assert (found[:, 2:4] == drawing[:, 2:4]).all()
    assert np.abs(found - drawing).max() > 0.01
    # All of it by one affine map.
    places = np.column_stack([drawing[:, 4:], np.ones(len(drawing))])
    _, residual, *_ = np.linalg.lstsq(places, found[:, 4:], rcond=None)
    assert residual.max() < 1e-9
    moves = np.diff(found[:, 4:], axis=0, prepend=found[:1, 4:])
    np.testing.assert_allclose(found[:, :2], moves, atol=1e-6)
    still = StrokeDistortion(0, 0, 0, 0, 0, 0, 0)(drawing, rng)
    np.testing.assert_allclose(still, drawing, atol=1e-6)


def test_strokes_may_come_in_another_order_and_from_the_other_end() -> None:
    rng = np.random.default_rng(0)
    drawing = strokes(SQUARE)
    orders = set()
    for _ in range(30):
        found = StrokeDistortion(0, 0, 0, 0, 0, reverse=0.5, reorder=1.0)(drawing, rng)
        assert lines_of(found) == lines_of(drawing)
        for mark in (2, 3):
            assert found[:, mark].sum() == 3
        begins, ends = np.flatnonzero(found[:, 2]), np.flatnonzero(found[:, 3])
        assert (begins[1:] == ends[:-1] + 1).all()
        assert (begins[0], ends[-1]) == (0, len(found) - 1)
        moves = np.diff(found[:, 4:], axis=0, prepend=found[:1, 4:])
        np.testing.assert_allclose(found[:, :2], moves, atol=1e-6)
        orders.add(tuple(found[:, 4]))
    assert len(orders) > 10


def test_impossible_augmentation_is_refused() -> None:
    with pytest.raises(ValueError, match="time_part: expected a finite number >= 0 and <= 1"):
        SpecAugment(time_part=2)
    with pytest.raises(ValueError, match="feature_width: expected"):
        SpecAugment(feature_width=-1)
    with pytest.raises(ValueError, match="shear: expected"):
        StrokeDistortion(shear=-1)
    with pytest.raises(ValueError, match="reverse: expected a finite number >= 0 and <= 1"):
        StrokeDistortion(reverse=2)
    with pytest.raises(ValueError, match="sequence: expected 6 features, as of strokes, got 3"):
        StrokeDistortion()(np.zeros((4, 3)), np.random.default_rng(0))
