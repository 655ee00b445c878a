"""Translator: sentences in, sentences out; scores, attention, files, and what is refused."""

from __future__ import annotations

import itertools
import pickle
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sacrebleu
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from fastlstm import _core
from fastlstm.storage import FormatError
from fastlstm.tasks import SequenceClassifier, Translator
from fastlstm.tasks.text.tokenizer import BEGIN, END, PADDING, UNKNOWN
from fastlstm.tasks.translation import translator as home
from fastlstm.tasks.translation.network import TranslationBatch
from tests.support import assert_same_bits

LETTERS = "abcde"

needs_kernels = pytest.mark.skipif(
    not _core.VECTOR[4],
    reason=f"instruction set {_core.ISA} has no packed kernels, and BLAS promises no bits",
)


def swaps(letters: str = LETTERS) -> tuple[list[str], list[str]]:
    """Two words, and the same ones the other way round with something between."""
    pairs = list(itertools.product(letters, repeat=2))
    return [f"{a} {b}" for a, b in pairs], [f"{b} and {a}" for a, b in pairs]


SMALL: dict[str, Any] = {
    "hidden_size": 24, "embedding_size": 12, "level": "word", "dropout": 0.0, "epochs": 40,
    "batch_size": 8, "learning_rate": 0.03, "validation_fraction": 0.0, "random_state": 0,
}  # fmt: skip


def small(**options: Any) -> Translator:
    return Translator(**{**SMALL, **options})


def quick(**options: Any) -> Translator:
    """One that has been trained, but hardly."""
    return small(epochs=1, **options).fit(*swaps())


@pytest.fixture(scope="module")
def fitted() -> Translator:
    sources, targets = swaps()
    return small().fit(sources[1:], targets[1:])


# --- learning -------------------------------------------------------------------------------------


def test_it_learns_to_swap_words(fitted: Translator) -> None:
    sources, targets = swaps()
    assert fitted.predict(sources) == targets  # the first of which it has not seen


@pytest.mark.parametrize(
    "options",
    [
        {"cell": "rnn"},
        {"bidirectional": False},
        {"num_layers": 2, "dropout": 0.1},
        {"attention": "dot"},
        {"attention": "additive", "label_smoothing": 0.0},
        {"level": "char"},
        {"level": "whitespace", "joint_vocabulary": True},
        {"level": "subword", "max_vocabulary": 270},
    ],
    ids=str,
)
def test_it_learns_with_every_option(options: dict[str, Any]) -> None:
    sources, targets = swaps("abc")
    translator = small(epochs=15, **options).fit(sources, targets)
    losses = translator.history_.losses
    assert np.mean(losses[-4:]) < 0.6 * losses[0]
    assert len(translator.predict(sources)) == 9


def test_the_best_weights_on_what_is_held_out_are_kept() -> None:
    sources, targets = swaps()
    held = ["a a", "b c"], ["a and a", "c and b"]
    translator = small(learning_rate=0.1, epochs=30, patience=3).fit(sources, targets, held)
    losses = [loss for _, loss in translator.history_.validations]
    assert len(losses) < 30
    assert losses.index(min(losses)) == len(losses) - 4
    log_probs = translator.log_prob(*held)
    assert -log_probs.sum() / 8 == pytest.approx(min(losses), rel=1e-6)


def test_what_is_held_out_is_in_no_vocabulary() -> None:
    sources, targets = swaps()
    translator = small(epochs=1).fit(sources, targets, (["x y"], ["y und x"]))
    assert not {"x", "y", "und"} & {
        *translator.source_tokenizer_.vocabulary, *translator.target_tokenizer_.vocabulary
    }  # fmt: skip
    sources[0], targets[0] = "x y", "y und x"
    translator = small(epochs=1, validation_fraction=0.5).fit(sources, targets)
    assert len(translator.history_.validations) == 1


def test_the_same_seed_learns_the_same() -> None:
    log_probs = [quick(dropout=0.3).log_prob(*swaps()) for _ in range(2)]
    assert_same_bits(log_probs[0], log_probs[1])
    other = quick(dropout=0.3, random_state=1).log_prob(*swaps())
    assert not np.array_equal(other, log_probs[0])


# --- searching ------------------------------------------------------------------------------------


def test_log_probabilities_are_those_of_the_translations(fitted: Translator) -> None:
    sources, _ = swaps()
    for penalty in (0.0, 1.0, 1.5):
        found = fitted.translate(sources, n_best=3, length_penalty=penalty)
        for source, own in zip(sources, found, strict=True):
            assert [one.score for one in own] == sorted((one.score for one in own), reverse=True)
            expected = fitted.log_prob([source] * len(own), [one.text for one in own])
            for one, log_prob in zip(own, expected, strict=True):
                assert one.log_prob == pytest.approx(log_prob, rel=1e-5)
                lengths = len(one.tokens) + 1
                assert one.score == pytest.approx(one.log_prob / lengths**penalty, rel=1e-12)


def test_a_wide_beam_finds_the_best_of_all_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home, "_SPARE", 1)  # tokens more than the sources', which have one
    translator = small(epochs=3).fit(["x", "y"], ["p", "q"])
    texts = [" ".join(words) for n in range(3) for words in itertools.product("pq", repeat=n)]
    found = translator.translate(["x", "y"], beam_size=7, n_best=7, length_penalty=0)
    for source, own in zip(["x", "y"], found, strict=True):
        log_probs = translator.log_prob([source] * 7, texts)
        order = np.argsort(-log_probs)
        assert [one.text for one in own] == [texts[k] for k in order]
        np.testing.assert_allclose([one.log_prob for one in own], log_probs[order], rtol=1e-5)


def test_a_beam_of_one_is_greedy() -> None:
    translator = quick()
    for source in swaps()[0][:6]:
        ids = translator.source_tokenizer_.encode(source, end=True)[:, np.newaxis]
        memory, state = translator.network_.read(ids, np.array([len(ids)]))
        said = [BEGIN]
        while len(said) <= 12:
            features, _, state = translator.network_.say(
                np.array([[said[-1]]]), None, memory, state
            )
            logits = translator.network_.head(features)[0, 0]
            logits[[PADDING, UNKNOWN, BEGIN]] = -np.inf
            if logits.argmax() == END:
                break
            said.append(int(logits.argmax()))
        ((one,),) = translator.translate([source], beam_size=1)
        assert one.text == translator.target_tokenizer_.decode(np.array(said[1:]))


@needs_kernels
def test_a_sentence_is_translated_as_if_it_were_alone() -> None:
    sources = [*swaps()[0], "a b c d e", "a", "b a b a b a b a"] * 4
    translator = quick()
    together = translator.translate(sources, n_best=2, return_attention=True)
    for source, own in zip(sources[:28], together, strict=False):
        (alone,) = translator.translate([source], n_best=2, return_attention=True)
        for one, other in zip(own, alone, strict=True):
            assert (one.text, one.log_prob, one.score) == (
                other.text, other.log_prob, other.score
            )  # fmt: skip
            assert one.attention is not None
            assert other.attention is not None
            assert_same_bits(one.attention, other.attention)


def test_no_translation_is_much_longer_than_those_that_were_learnt() -> None:
    translator = quick()
    assert translator.length_ratio_ == 1.5
    with translator.network_.head.editing() as parameters:
        parameters["bias"][END] = -1e3
    for one in translator.translate(["a b", "a b c d"], beam_size=2):
        assert len(one[0].tokens) == 1.5 * len(one[0].source_tokens) + 10


def test_the_estimators_beam_and_penalty_are_those_of_predict() -> None:
    translator = quick().set_params(beam_size=2, length_penalty=0.3)
    sources = swaps()[0]
    expected = translator.translate(sources, beam_size=2, length_penalty=0.3)
    assert translator.predict(sources) == [own[0].text for own in expected]


def test_a_network_that_says_nan_is_no_translator() -> None:
    translator = quick()
    with translator.network_.combine.editing() as parameters:
        parameters["bias"][0] = np.nan
    with pytest.raises(FloatingPointError, match=r"^the network's probabilities are not numbers"):
        translator.predict(["a b"])


# --- attention ------------------------------------------------------------------------------------


def test_attention_looks_at_the_word_that_is_said(fitted: Translator) -> None:
    (one,), (other,) = fitted.translate(["a b", "d c"], return_attention=True)
    assert one.source_tokens == ("a", "b")
    assert one.tokens == ("b", "and", "a")
    for found in (one, other):
        assert found.attention is not None
        assert found.attention.shape == (4, 3)
        np.testing.assert_allclose(found.attention.sum(axis=1), 1, rtol=1e-5)


def test_attention_is_there_where_it_is_asked_for(fitted: Translator) -> None:
    found = fitted.translate(["a b", "", "c d e"], n_best=3, return_attention=True)
    for own in (found[0], found[2]):
        for one in own:
            assert one.attention is not None
            assert one.attention.shape == (len(one.tokens) + 1, len(one.source_tokens) + 1)
    assert fitted.translate(["a b"])[0][0].attention is None


def test_pieces_join_to_the_texts() -> None:
    translator = quick(level="subword", max_vocabulary=262)
    ((one,),) = translator.translate(["a 日本 é b"], return_attention=True)
    assert "".join(one.source_tokens) == "a 日本 é b"
    assert "".join(one.tokens) == one.text


# --- scores ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokenize", ["13a", "none"])
def test_the_score_is_sacrebleus(
    fitted: Translator, tokenize: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets = ["the cat sat on the mat.", "a dog (barks) all day long"]
    said = ["the cat sat on a mat.", "a dog (barks) all the day"]
    monkeypatch.setattr(Translator, "predict", lambda _, sources: said[: len(sources)])
    expected = sacrebleu.corpus_bleu(said, [targets], tokenize=tokenize).score
    assert 10 < expected < 90
    assert fitted.score(["a", "b"], targets, tokenize=tokenize) == pytest.approx(expected)


def test_log_probabilities_of_what_is_unknown_or_blank_are_numbers(fitted: Translator) -> None:
    log_probs = fitted.log_prob(["a b", "a b", ""], ["x y", "", "a"])
    assert np.isfinite(log_probs).all()
    assert (log_probs < 0).all()


# --- texts ----------------------------------------------------------------------------------------


def test_blank_sentences_have_blank_translations(fitted: Translator) -> None:
    assert fitted.predict(["", "a b", " \t\n", "\u3000"]) == ["", "b and a", "", ""]
    ((one,),) = fitted.translate([""], n_best=1)
    assert (one.text, one.log_prob, one.tokens) == ("", 0.0, ())


@pytest.mark.parametrize("level", ["word", "whitespace", "char", "subword"])
def test_unseen_characters_are_no_trouble(level: str) -> None:
    translator = quick(level=level, max_vocabulary=300)
    for text in translator.predict(["日本 語", "a \ud800 b", "\N{GRINNING FACE}", "A" * 200]):
        assert "\N{REPLACEMENT CHARACTER}" not in text or level == "subword"


def test_lower_case_is_read_if_it_is_learnt() -> None:
    sources, targets = swaps("abc")
    translator = small(lowercase=True, epochs=1).fit([s.upper() for s in sources], targets)
    assert translator.source_tokenizer_.vocabulary == ("a", "b", "c")
    assert translator.log_prob(["A b"], ["B and a"]) == translator.log_prob(["a B"], ["b AND a"])


def test_sentences_come_in_many_forms(fitted: Translator) -> None:
    expected = fitted.predict(["a b", "c d"])
    assert fitted.predict(np.array(["a b", "c d"])) == expected
    assert fitted.predict(text for text in ("a b", "c d")) == expected


# --- files and copies -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {}, {"joint_vocabulary": True}, {"level": "subword", "max_vocabulary": 300},
        {"cell": "rnn", "bidirectional": False, "attention": "additive", "num_layers": 2},
    ],
    ids=str,
)  # fmt: skip
def test_a_loaded_translator_translates_alike(options: dict[str, Any], tmp_path: Path) -> None:
    translator, path = quick(**options), tmp_path / "model.safetensors"
    translator.save(path)
    loaded = Translator.load(path)
    assert loaded.get_params() == translator.get_params()
    sources, targets = swaps()
    assert loaded.predict([*sources, "日 b"]) == translator.predict([*sources, "日 b"])
    assert_same_bits(loaded.log_prob(sources, targets), translator.log_prob(sources, targets))
    assert loaded.length_ratio_ == translator.length_ratio_
    joint = loaded.source_tokenizer_ is loaded.target_tokenizer_
    assert joint == translator.joint_vocabulary


def test_a_file_of_another_estimator_is_refused(fitted: Translator, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    fitted.save(path)
    with pytest.raises(FormatError, match="kind"):
        SequenceClassifier.load(path)


def test_it_is_an_estimator_of_scikit_learn(fitted: Translator) -> None:
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    for call in (
        copy.predict,
        copy.translate,
        lambda x: copy.log_prob(x, x),
        lambda _: copy.save("x"),
    ):
        with pytest.raises(NotFittedError, match="Translator"):
            call(["a"])
    assert pickle.loads(pickle.dumps(fitted)).predict(["a b"]) == ["b and a"]


# --- interruptions --------------------------------------------------------------------------------


def interrupt_at(
    step: int,
    monkeypatch: pytest.MonkeyPatch,
    interrupt: Callable[[int], object] = signal.raise_signal,
) -> list[int]:
    """Ctrl-C while that batch is made."""
    made: list[int] = []

    class Interrupting(TranslationBatch):
        def __init__(self, *pair: Any) -> None:
            super().__init__(*pair)
            made.append(len(made) + 1)
            if len(made) == step:
                interrupt(signal.SIGINT)

    monkeypatch.setattr(home, "TranslationBatch", Interrupting)
    return made


def test_ctrl_c_leaves_a_translator_that_can_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_at(40, monkeypatch)
    translator = small()
    with pytest.raises(KeyboardInterrupt):
        translator.fit(*swaps())
    assert len(translator.history_.losses) == 40
    assert len(translator.predict(["a b"])) == 1


def test_a_run_goes_on_from_its_checkpoint_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, options = tmp_path / "run.checkpoint", {"epochs": 6, "dropout": 0.2}
    whole = small(**options).fit(*swaps())
    with monkeypatch.context() as patched:
        interrupt_at(11, patched)
        with pytest.raises(KeyboardInterrupt):
            small(**options).fit(*swaps(), checkpoint=path)
    resumed = small(**options).fit(*swaps(), checkpoint=path)
    assert resumed.history_.losses == whole.history_.losses
    for name, array in whole.network_.parameters().items():
        assert_same_bits(resumed.network_.parameters()[name], array, name)


def test_a_run_that_was_killed_goes_on_from_its_last_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, options = tmp_path / "run.checkpoint", {"epochs": 4, "dropout": 0.2}
    whole = small(**options).fit(*swaps(), swaps("ab"))

    class Killed(BaseException):
        """Nothing catches it, as nothing catches SIGKILL."""

    def kill(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        made = interrupt_at(15, patched, kill)
        with pytest.raises(Killed):
            small(**options).fit(*swaps(), swaps("ab"), checkpoint=path)
    with monkeypatch.context() as patched:
        made = interrupt_at(0, patched)
        resumed = small(**options).fit(*swaps(), swaps("ab"), checkpoint=path)
    assert len(made) == 2 * 4 + 2  # two epochs of training, and their validations
    assert resumed.history_ == whole.history_
    assert_same_bits(resumed.log_prob(*swaps()), whole.log_prob(*swaps()))


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.checkpoint"
    translator = small(epochs=2).fit(*swaps(), checkpoint=path)
    before = translator.predict(["a b"])
    for changed, texts in (({"dropout": 0.1}, swaps()), ({}, swaps("abcd"))):
        with pytest.raises(ValueError, match="the run was begun with other settings"):
            small(epochs=2, **changed).fit(*texts, checkpoint=path)
    with pytest.raises(ValueError, match="other settings"):
        translator.fit(*swaps("abcd"), checkpoint=path)
    assert translator.predict(["a b"]) == before
    assert small(epochs=2, beam_size=2).fit(*swaps(), checkpoint=path).predict(["a b"])


# --- what is refused ------------------------------------------------------------------------------

REFUSED_TEXTS: list[tuple[Any, type[Exception], str]] = [
    ("a b", TypeError, "expected a list of texts, got one str"),
    (b"a b", TypeError, "expected a list of texts, got one bytes"),
    ([], ValueError, "expected at least one text"),
    (["a", 3], TypeError, r"\[1\]: expected a text, got 3"),
    (["a", None], TypeError, r"\[1\]: expected a text, got None"),
    (["a", b"b"], TypeError, r"\[1\]: expected a text, got b'b'; decode it"),
    (["a", float("nan")], ValueError, r"\[1\]: expected a text, got nan"),
    (None, TypeError, "expected a list of texts, got a NoneType"),
    (7, TypeError, "expected a list of texts, got a int"),
]


@pytest.mark.parametrize(("texts", "error", "match"), REFUSED_TEXTS, ids=repr)
def test_what_are_no_sentences_is_refused(
    fitted: Translator, texts: Any, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=rf"^sources(: )?{match}"):
        fitted.predict(texts)
    with pytest.raises(error, match=r"^targets"):
        fitted.log_prob(["a", "b"], texts)
    with pytest.raises(error, match=r"^sources"):
        small().fit(texts, ["a", "b"])
    with pytest.raises(error, match=r"^validation\[1\]"):
        small().fit(*swaps(), (["a", "b"], texts))


def test_pairs_are_pairs_and_none_is_blank(fitted: Translator) -> None:
    with pytest.raises(ValueError, match=r"^targets: expected 2 sentences, as sources has, got 1"):
        small().fit(["a", "b"], ["a"])
    with pytest.raises(ValueError, match=r"^targets: expected 1 sentences"):
        fitted.score(["a"], ["a", "b"])
    with pytest.raises(ValueError, match=r"^sources\[1\]: expected a sentence, got ' '; leave"):
        small().fit(["a", " "], ["a", "b"])
    with pytest.raises(ValueError, match=r"^validation\[1\]\[0\]: expected a sentence, got ''"):
        small().fit(*swaps(), (["a"], [""]))
    with pytest.raises(TypeError, match=r"^validation: expected a pair"):
        small().fit(*swaps(), "ab")


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"beam_size": 0}, ValueError, "beam_size: expected a whole number >= 1"),
        ({"beam_size": 1.5}, TypeError, "beam_size: expected a whole number"),
        ({"n_best": 6}, ValueError, "n_best: expected a whole number <= 5, got 6"),
        ({"n_best": 0}, ValueError, "n_best: expected a whole number >= 1"),
        ({"length_penalty": -1}, ValueError, "length_penalty: expected a finite number >= 0"),
        ({"return_attention": 1}, TypeError, "return_attention: expected True or False"),
    ],
    ids=str,
)
def test_a_search_that_cannot_be_is_refused(
    fitted: Translator, options: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=f"^{match}"):
        fitted.translate(["a b"], **options)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"hidden_size": 0}, ValueError, "hidden_size"),
        ({"hidden_size": 25}, ValueError, "hidden_size: expected an even number"),
        ({"embedding_size": "a"}, TypeError, "embedding_dim"),
        ({"num_layers": 0}, ValueError, "num_layers"),
        ({"attention": "sum"}, ValueError, "score: expected one of dot, general, additive"),
        ({"cell": "gru"}, ValueError, "cell: expected one of lstm, rnn"),
        ({"level": "syllable"}, ValueError, "level"),
        ({"max_vocabulary": 0}, ValueError, "max_vocabulary"),
        ({"joint_vocabulary": 1}, TypeError, "joint_vocabulary: expected True or False"),
        ({"lowercase": "no"}, TypeError, "lowercase: expected True or False"),
        ({"dropout": 1.5}, ValueError, "dropout: expected"),
        ({"label_smoothing": 2}, ValueError, "label_smoothing"),
        ({"epochs": 0}, ValueError, "epochs"),
        ({"learning_rate": 0}, ValueError, "learning_rate"),
        ({"validation_fraction": 1.0}, ValueError, "validation_fraction"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused_and_change_nothing(
    fitted: Translator, options: dict[str, Any], error: type[Exception], match: str
) -> None:
    translator = pickle.loads(pickle.dumps(fitted)).set_params(**options)
    with pytest.raises(error, match=match):
        translator.fit(*swaps("ab"))
    assert translator.predict(["a b"]) == ["b and a"]
