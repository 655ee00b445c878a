"""LanguageModel: probabilities beside a float64 computation of its own, training, files."""

from __future__ import annotations

import math
import os
import pickle
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score

from fastlstm import storage
from fastlstm.storage import FormatError
from fastlstm.tasks import LanguageModel
from fastlstm.tasks.language_model.network import LanguageNetwork
from fastlstm.tasks.language_model.use import joined
from fastlstm.tasks.language_model.vocabularies import CODE_POINTS, Characters
from tests.support import Array, assert_same_bits
from tests.test_language_network import plain_logits

ENGLISH = "the cat sat on the mat; the dog sat on the log.\n"
CHINESE = "話說天下大勢，分久必合，合久必分。\n"
LEVELS = ("char", "word", "whitespace", "subword")
SMALL = {"hidden_size": 8, "batch_size": 4, "sequence_length": 16, "random_state": 0}
WITNESSES = Path(__file__).parent / "witnesses" / "language_models"


def untrained(text: str = ENGLISH, dtype: Any = np.float32, **options: Any) -> LanguageModel:
    """A model with random weights."""
    most = 300 if options.get("level") == "subword" else None
    model = LanguageModel(**{**SMALL, "max_vocabulary": most, "min_frequency": 1, **options})
    model._start([text], 3)
    model.network_ = model._network(np.random.default_rng(3), dtype)
    return model


def plain_log_probs(model: LanguageModel, text: str) -> Array:
    """Of each token of a text, in float64 and step by step."""
    vocabulary = model.vocabulary_
    ids = vocabulary.encode(text)
    read = np.concatenate(([vocabulary.start], ids[:-1]))
    logits = plain_logits(model.network_, read[:, np.newaxis])[:, 0]
    rows = np.log(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))
    found = []
    for row, id_ in zip(rows, ids.tolist(), strict=True):
        if not isinstance(vocabulary, Characters):
            found.append(row[id_])
        elif id_ < len(row):
            found.append(row[id_] + math.log(1 - vocabulary.unknown_probability))
        else:
            others = CODE_POINTS - len(vocabulary.characters)
            found.append(math.log(vocabulary.unknown_probability / others))
    return np.array(found)


# --- probabilities --------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"tied": True}, {"cell": "rnn"}])
def test_log_probabilities_are_those_of_a_literal_computation(
    level: str, dtype: type, options: dict[str, Any]
) -> None:
    model = untrained(dtype=dtype, level=level, **options)
    for text in ("t", "the dog sat", "a new one: ß and 合!\n", "合", "\ud800 the"):
        expected = plain_log_probs(model, text)
        found = model.log_prob(text)
        np.testing.assert_allclose(found, expected, 1e-5 if dtype is np.float32 else 1e-12)
        assert found.dtype == np.float64
        assert len(model.tokens(text)) == len(found)


def test_figures_follow_from_the_log_probabilities() -> None:
    for level in LEVELS:
        model = untrained(level=level)
        texts = ["the dog", "a cat; a dog\nthe log"]
        each = [model.log_prob(text) for text in texts]
        total, count = sum(x.sum() for x in each), sum(map(len, each))
        assert model.score(texts) == pytest.approx(total / count, rel=1e-12)
        assert model.perplexity(texts) == pytest.approx(math.exp(-total / count), rel=1e-12)
        characters = sum(map(len, texts))
        bits = -total / math.log(2) / characters
        assert model.bits_per_character(texts) == pytest.approx(bits, rel=1e-12)
        assert model.score(texts[0]) == pytest.approx(each[0].mean(), rel=1e-12)


def test_probabilities_of_all_of_unicode_add_up_to_one() -> None:
    model = untrained("abc" * 9 + "d")
    model.vocabulary_ = Characters("abcd", 0.25)
    known = sum(math.exp(model.log_prob(c)[0]) for c in "abcd")
    unknown = math.exp(model.log_prob("合")[0]) * (CODE_POINTS - 4)
    assert known == pytest.approx(0.75, rel=1e-6)
    assert known + unknown == pytest.approx(1, rel=1e-6)


def test_scores_do_not_depend_on_how_a_long_text_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    model, text = untrained(dtype=np.float64), ENGLISH * 3
    whole = model.log_prob(text)
    monkeypatch.setattr("fastlstm.tasks.language_model.use.SCORED_AT_ONCE", 10)
    reported: list[int] = []
    found = model.log_prob(text, on_progress=reported.append)
    np.testing.assert_allclose(found, whole, rtol=1e-12)
    assert sum(reported) == len(text)
    assert max(reported) == 10


def test_texts_of_a_list_are_each_read_from_their_beginning() -> None:
    model = untrained(level="word")
    alone = [model.log_prob(text) for text in ("the cat", "sat")]
    assert model.score(["the cat", "sat"]) == np.concatenate(alone).mean()


@pytest.mark.parametrize("method", ["score", "perplexity", "bits_per_character", "log_prob",
                                    "dynamic_perplexity"])  # fmt: skip
@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        ("", ValueError, "expected at least one"),
        (b"the", TypeError, "texts?: expected"),
        (None, TypeError, "texts?: expected"),
        ([], (TypeError, ValueError), "expected"),
        ([1], TypeError, "expected"),
        (["", ""], (TypeError, ValueError), "expected"),
    ],
)
def test_what_cannot_be_scored(
    method: str, texts: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        getattr(untrained(), method)(texts)


def test_blanks_are_no_words() -> None:
    with pytest.raises(ValueError, match="text: expected at least one token, got ' '"):
        untrained(level="word").log_prob(" ")


# --- learning -------------------------------------------------------------------------------------


def test_a_periodic_text_is_learnt_and_written() -> None:
    period = "abcaabbc\n"  # what follows "a" or "b" depends on more than one character before
    model = LanguageModel(
        embedding_size=8, hidden_size=24, steps=250, learning_rate=0.02, batch_size=4,
        sequence_length=16, random_state=0,
    )  # fmt: skip
    losses = model.fit(period * 40).history_.losses
    assert losses[-1] < 0.03 < 1 < losses[0]
    assert model.bits_per_character(period * 20) < 0.2
    assert "".join(model.generate(period * 2, 45, temperature=0)) == period * 5


@pytest.mark.parametrize("level", LEVELS)
def test_every_level_learns(level: str) -> None:
    model = LanguageModel(
        level, max_vocabulary=300 if level == "subword" else None, hidden_size=24, steps=120,
        learning_rate=0.02, batch_size=4, sequence_length=16, random_state=0,
    ).fit(ENGLISH * 40)  # fmt: skip
    assert model.perplexity(ENGLISH * 2) < 3
    assert len(model.vocabulary_.encode(ENGLISH)) > 5


def test_descent_moves_by_the_learning_rate_times_the_norm() -> None:
    """Of one step whose gradients are scaled down; AdamW would move all weights by its rate."""
    model = LanguageModel(
        optimiser="sgd", learning_rate=2, max_norm=1e-2, steps=1, validation_fraction=0, **SMALL
    )
    before = model._start([ENGLISH * 9], model._new_seed()).parameters()
    after = model.fit(ENGLISH * 9).network_.parameters()
    moved = [np.square(after[name] - before[name]).sum() for name in before]
    np.testing.assert_allclose(np.sqrt(np.sum(moved)), 2 * 1e-2, rtol=1e-4)


def test_the_seed_decides() -> None:
    options = {"steps": 5, "dropout": 0.3, "input_dropout": 0.2, **SMALL}
    first, same, other = (
        LanguageModel(**{**options, "random_state": seed}).fit(ENGLISH * 9) for seed in (1, 1, 2)
    )
    assert first.history_.losses == same.history_.losses != other.history_.losses
    assert first.perplexity(ENGLISH) == same.perplexity(ENGLISH)


def test_the_best_weights_of_the_validations_are_kept() -> None:
    """A text that contradicts what is learnt: the sooner the better."""
    options: dict[str, Any] = {"steps": 40, "learning_rate": 0.02, **SMALL}
    training, other = "ab" * 400, "aabb" * 30
    kept = LanguageModel(**options).fit(training, validation=other)
    last = LanguageModel(**options, keep_best=False).fit(training, validation=other)
    assert kept.history_.validations == last.history_.validations
    values = [value for _, value in kept.history_.validations]
    assert len(values) == 20
    assert min(values) < values[-1] - 0.1
    assert kept.perplexity(other) < last.perplexity(other)
    windows = kept._streams(*joined(kept.vocabulary_, [other]))
    assert kept.network_.mean_loss(windows) == min(values)


def test_patience_ends_a_run() -> None:
    model = LanguageModel(steps=400, learning_rate=0.02, patience=2, **SMALL)
    model.fit("ab" * 400, validation="aabb" * 30)
    assert len(model.history_.losses) < 400
    with pytest.raises(ValueError, match=r"patience: .* needs keep_best"):
        LanguageModel(patience=2, keep_best=False, **SMALL).fit(ENGLISH * 9)


def test_the_end_of_a_text_or_of_the_texts_is_held_out() -> None:
    model = LanguageModel(validation_fraction=0.25)
    assert model._split_texts(["abcdefgh"], None) == (["abcdef"], ["gh"])
    assert model._split_texts(["a", "b", "c", "d", "e"], None) == (["a", "b", "c", "d"], ["e"])
    assert model._split_texts(["abcdefgh"], "xy") == (["abcdefgh"], ["xy"])
    assert model._split_texts(["abc"], None) == (["abc"], None)
    words = LanguageModel("word", validation_fraction=0.25)
    assert words._split_texts(["abc def ghi jkl"], None) == (["abc def ghi "], ["jkl"])
    assert words._split_texts(["abcdefghijkl"], None) == (["abcdefghijkl"], None)
    assert LanguageModel(validation_fraction=0)._split_texts(["a" * 99], None)[1] is None


def test_a_vocabulary_is_that_of_the_training_part() -> None:
    model = LanguageModel(steps=1, validation_fraction=0.1, **SMALL).fit("ab" * 100 + "合" * 20)
    assert model.vocabulary_.to_json()["characters"] in ("ab", "ab合")
    model = LanguageModel(steps=1, **SMALL).fit("ab" * 100, validation="合合")
    assert model.vocabulary_.to_json()["characters"] == "ab"
    assert model.history_.validations == [], "there is nothing known to validate with"


def test_what_stands_before_a_text_is_embedded_as_zeros_for_ever() -> None:
    model = LanguageModel(steps=10, weight_decay=0.1, **SMALL).fit([ENGLISH, ENGLISH] * 20)
    weight = model.network_.parameters()["embedding.weight"]
    assert not weight[model.vocabulary_.start].any()
    assert weight[:-1].all()


def test_texts_of_a_list_are_kept_apart_by_what_stands_before_a_text() -> None:
    words = untrained(level="whitespace", text="a b\n")
    start, (a, b, _) = 1, words.vocabulary_.encode("a b\n")
    ids, begins = joined(words.vocabulary_, ["", "a b", "b\n", "", "a"])
    assert ids.tolist() == [start, a, b, start, b, start, a]
    assert begins is not None
    assert np.flatnonzero(begins).tolist() == [0, 3, 5]
    characters = untrained("ab").vocabulary_
    ids, begins = joined(characters, ["ab", "b"])
    assert ids.tolist() == [2, 0, 1, 2, 1]
    assert begins is not None
    assert begins.tolist() == [True, False, False, True, False]
    assert joined(characters, ["ab"])[1] is joined(characters, ["", "ab"])[1] is None


@pytest.mark.parametrize("level", ["char", "word"])
def test_texts_of_a_list_are_learnt_from_their_beginning_each(level: str) -> None:
    """The loss of all texts in one stream is the mean over all tokens, as `score` has it."""
    model = untrained(level=level)
    texts = ["the cat sat.", "a", "the dog sat on the log;", "the mat"]
    ids, begins = joined(model.vocabulary_, texts)
    kept = np.ones(len(ids), bool)
    if level == "word":  # the line ends between texts are learnt, and not scored
        kept[np.flatnonzero(begins)] = False
        ids = np.where(kept, ids, 1)
    found, _ = model.network_.log_prob(
        ids[:-1, np.newaxis], ids[1:, np.newaxis], None, np.array(begins)[:-1, np.newaxis]
    )
    scored = np.concatenate([model.log_prob(text) for text in texts])
    if level == "char":
        kept = ids < model.network_.outputs
        scored -= math.log1p(-model.vocabulary_.to_json()["unknown_probability"])
    np.testing.assert_allclose(found[kept[1:], 0], scored, rtol=1e-5)


def test_streams_of_a_long_text_begin_anew_in_training_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Or a model that always had a past would be lost without one."""
    seen: list[int | None] = []
    original = LanguageModel._streams

    def noting(*arguments: Any, reset: int | None = None) -> Any:
        seen.append(reset)
        return original(*arguments, reset=reset)

    monkeypatch.setattr(LanguageModel, "_streams", noting)
    model = LanguageModel(steps=1, **SMALL).fit(ENGLISH * 20).partial_fit(ENGLISH * 20)
    assert seen == [2048, None, 2048], "training, validation, further training"
    windows = model._streams(*joined(model.vocabulary_, [ENGLISH * 400]), reset=2048)
    begins = np.concatenate([window[2] for window in windows])
    assert (begins.sum(axis=0) >= len(begins) // 2048).all()


def test_short_texts_are_read_at_fewer_places() -> None:
    for text, streams in (("a", 1), ("ab" * 20, 2), ("ab" * 80, 4)):
        model = LanguageModel(steps=1, validation_fraction=0, **SMALL).fit(text)
        windows = model._streams(*joined(model.vocabulary_, [text]))
        assert windows[0][0].shape[1] == streams


@pytest.mark.parametrize("text", ["a", "\n", "one line", "one line\n", "合", "a" * 1000])
@pytest.mark.parametrize("level", LEVELS)
def test_a_corpus_of_a_line_or_a_character_trains(level: str, text: str) -> None:
    most = 260 if level == "subword" else None
    model = LanguageModel(level, steps=2, max_vocabulary=most, min_frequency=1, **SMALL).fit(text)
    assert math.isfinite(model.perplexity(text))
    assert math.isfinite(model.perplexity("something else"))
    assert isinstance("".join(model.generate("zebra", 3, seed=0)), str)


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        ("", ValueError, "texts: expected at least one character, got an empty string"),
        ([""], ValueError, "texts: expected at least one character"),
        ([], ValueError, "texts: expected at least one text"),
        (b"the cat", TypeError, "texts: expected a list of texts"),
        (7, TypeError, "texts: expected a list of texts"),
        ([b"a"], TypeError, r"texts\[0\]: expected a text"),
        (["a", float("nan")], ValueError, r"texts\[1\]: .* missing value"),
        ("a\ud800b", ValueError, r"texts: .* got the surrogate '\\ud800' at place 1"),
    ],
)
def test_what_cannot_be_learnt(texts: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        LanguageModel(steps=1, **SMALL).fit(texts)


def test_blanks_cannot_be_learnt_as_words() -> None:
    with pytest.raises(ValueError, match="texts: expected at least one token"):
        LanguageModel("word", steps=1, **SMALL).fit("   ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": "letter"}, "level: expected one of char, word"),
        ({"cell": "gru"}, "cell: expected one of"),
        ({"tied": True, "embedding_size": 4}, "tied"),
        ({"hidden_size": 0}, "hidden_size"),
        ({"epochs": 0}, "epochs"),
        ({"steps": 0}, "steps"),
        ({"batch_size": 0}, "batch_size"),
        ({"sequence_length": 0}, "sequence_length"),
        ({"optimiser": "lion"}, "optimiser: expected one of adamw, sgd"),
        ({"optimiser": ["sgd"]}, "optimiser"),
        ({"learning_rate": 0}, "learning_rate"),
        ({"weight_decay": -1}, "weight_decay"),
        ({"max_norm": 0}, "max_norm"),
        ({"dropout": 1.0}, "dropout"),
        ({"validation_fraction": 1}, "validation_fraction"),
        ({"min_frequency": 0}, "min_frequency"),
        ({"max_vocabulary": 0}, "max_vocabulary"),
        ({"keep_best": 1}, "keep_best"),
        ({"tied": "yes"}, "tied"),
    ],
)
def test_arguments_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        LanguageModel(**{**SMALL, **options}).fit(ENGLISH * 20)


def test_ctrl_c_leaves_a_model_that_can_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    original, calls = LanguageNetwork.loss_and_grads, []

    def interrupting(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return original(*arguments)

    monkeypatch.setattr(LanguageNetwork, "loss_and_grads", interrupting)
    model = LanguageModel(steps=50, **SMALL)
    with pytest.raises(KeyboardInterrupt):
        model.fit(ENGLISH * 20)
    assert len(model.history_.losses) == 3
    assert math.isfinite(model.perplexity(ENGLISH))


def test_figures_are_shown_on_stderr_alone(capsys: pytest.CaptureFixture[str]) -> None:
    LanguageModel(steps=3, verbose=True, **SMALL).fit(ENGLISH * 20)
    LanguageModel("word", steps=3, verbose=True, **SMALL).fit(ENGLISH * 20)
    out, err = capsys.readouterr()
    assert out == ""
    assert "16 characters; 1 layer(s) of 8 units" in err
    assert "3 steps of 4 × 16 characters" in err
    assert "bits=" in err
    assert "perplexity=" in err


# --- scikit-learn ---------------------------------------------------------------------------------


def test_scikit_learn_can_search_over_it() -> None:
    texts = [ENGLISH * 3] * 4
    estimator = LanguageModel(steps=3, validation_fraction=0, **SMALL)
    search = GridSearchCV(estimator, {"hidden_size": [2, 8]}, cv=2).fit(texts)
    assert search.best_params_["hidden_size"] in (2, 8)
    assert len(cross_val_score(estimator, texts, cv=2)) == 2
    assert search.best_estimator_.perplexity(ENGLISH) < 20


def test_arguments_are_stored_as_they_are_and_clones_are_not_fitted() -> None:
    model = untrained(tied=True)
    again = clone(model)
    assert again.get_params() == model.get_params()
    assert not hasattr(again, "network_")
    for use in (again.perplexity, again.generate, again.complete, again.tokens, again.log_prob):
        with pytest.raises(NotFittedError):
            use("the")
    with pytest.raises(NotFittedError):
        again.save("nowhere")


def test_a_pickle_is_the_same_model() -> None:
    model = LanguageModel(steps=2, **SMALL).fit(ENGLISH * 9).partial_fit(ENGLISH)
    again = pickle.loads(pickle.dumps(model))
    assert again.perplexity(ENGLISH) == model.perplexity(ENGLISH)
    assert again.partial_fit(ENGLISH).perplexity(ENGLISH) == (
        model.partial_fit(ENGLISH).perplexity(ENGLISH)
    )


# --- learning more --------------------------------------------------------------------------------


def test_partial_fit_learns_on_and_keeps_the_vocabulary() -> None:
    model = LanguageModel(steps=30, **SMALL).fit("the cat sat. " * 40)
    before = model.perplexity("tac eht tas. " * 3)
    vocabulary = model.vocabulary_
    for _ in range(3):
        model.partial_fit("tac eht tas. ß" * 40)
    assert model.vocabulary_ is vocabulary
    assert model.perplexity("tac eht tas. " * 3) < before / 1.5


def test_partial_fit_begins_where_there_is_nothing() -> None:
    model = LanguageModel(**SMALL)
    for _ in range(5):
        model.partial_fit("abab " * 60)
    assert model.perplexity("abab " * 3) < 3


def test_partial_fit_refuses_what_it_cannot_learn_from() -> None:
    model = untrained()
    with pytest.raises(ValueError, match="texts: expected something that is known"):
        model.partial_fit("合合合")
    with pytest.raises(ValueError, match="texts: expected at least one character"):
        model.partial_fit("")


def test_fit_forgets_what_was_there() -> None:
    model = LanguageModel(steps=4, **SMALL).fit("xyz" * 50).partial_fit("xyz" * 50)
    again = model.fit(ENGLISH * 9).perplexity(ENGLISH)
    assert again == LanguageModel(steps=4, **SMALL).fit(ENGLISH * 9).perplexity(ENGLISH)


# --- checkpoints ----------------------------------------------------------------------------------


def test_a_run_that_was_cut_goes_on_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"steps": 12, "dropout": 0.3, "num_layers": 2, **SMALL}
    whole = LanguageModel(**options).fit(ENGLISH * 20)
    original = LanguageNetwork.loss_and_grads
    path, calls = tmp_path / "checkpoint", []

    def failing(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 8:
            raise RuntimeError("the machine went down")
        return original(*arguments)

    monkeypatch.setattr(LanguageNetwork, "loss_and_grads", failing)
    with pytest.raises(RuntimeError, match="went down"):
        LanguageModel(**options).fit(ENGLISH * 20, checkpoint=path, checkpoint_every=5)
    monkeypatch.undo()
    resumed = LanguageModel(**options, verbose=False).fit(
        ENGLISH * 20, checkpoint=path, checkpoint_every=5, resume=True
    )
    assert len(resumed.history_.losses) == 12
    for name, array in whole.network_.parameters().items():
        assert_same_bits(resumed.network_.parameters()[name], array, name)

    with pytest.raises(ValueError, match="begun with other settings"):
        LanguageModel(**options).fit(ENGLISH * 21, checkpoint=path, resume=True)
    with pytest.raises(ValueError, match="begun with other settings"):
        LanguageModel(**{**options, "dropout": 0.4}).fit(ENGLISH * 20, checkpoint=path, resume=True)


@pytest.mark.parametrize(
    ("options", "arguments", "message"),
    [
        ({}, {"resume": True}, "resume: needs a checkpoint"),
        ({"random_state": None}, {"checkpoint": "c"}, "random_state: .* needs an int"),
        ({"random_state": np.random.RandomState(0)}, {"checkpoint": "c"}, "needs an int"),
    ],
)
def test_a_run_that_could_not_go_on_is_refused(
    options: dict[str, Any], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        LanguageModel(steps=1, **{**SMALL, **options}).fit(ENGLISH * 9, **arguments)


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("options", [{}, {"tied": True}, {"cell": "rnn", "num_layers": 2}])
def test_a_saved_model_is_the_same_to_the_bit(
    tmp_path: Path, level: str, options: dict[str, Any]
) -> None:
    model = untrained(CHINESE + ENGLISH, level=level, dropout=0.25, **options)
    model.save(tmp_path / "model.safetensors")
    loaded = LanguageModel.load(tmp_path / "model.safetensors")
    assert loaded.get_params() == model.get_params()
    assert loaded.vocabulary_.to_json() == model.vocabulary_.to_json()
    for name, array in model.network_.parameters().items():
        assert_same_bits(loaded.network_.parameters()[name], array, name)
    assert loaded.perplexity(CHINESE) == model.perplexity(CHINESE)
    written = ["".join(m.generate("分久", 30, seed=4)) for m in (model, loaded)]
    assert written[0] == written[1]


@pytest.mark.parametrize("name", ["character-model", "character-model-float64"])
def test_a_file_of_a_character_model_is_read_for_ever(name: str, tmp_path: Path) -> None:
    """Written by the class CharacterModel, from before there were words."""
    model = LanguageModel.load(WITNESSES / f"{name}.safetensors")
    with np.load(WITNESSES / f"{name}.npz") as witness:
        text, bits, logits = str(witness["text"]), float(witness["bits"]), witness["logits"]
    tolerance = 1e-12 if name.endswith("float64") else 1e-6
    assert model.bits_per_character(text) == pytest.approx(bits, rel=tolerance)
    read = np.concatenate(([model.vocabulary_.start], model.vocabulary_.encode(text)[:-1]))
    found = model.network_.head(model.network_.read(read)[0])
    np.testing.assert_allclose(found, logits, rtol=tolerance, atol=tolerance)
    model.save(tmp_path / "new")
    again = LanguageModel.load(tmp_path / "new")
    assert again.bits_per_character(text) == model.bits_per_character(text)
    if name == "character-model":
        assert (model.dropout, model.num_layers, model.tied) == (0.25, 2, False)
        model.set_params(learning_rate=1e-2).partial_fit(text * 9)


def test_a_changed_file_of_a_character_model_is_refused(tmp_path: Path) -> None:
    file = storage.load(WITNESSES / "character-model.safetensors")
    path = tmp_path / "model"
    changes: list[dict[str, Any]] = [
        {"hidden_size": 8}, {"hidden_size": 10**9}, {"num_layers": 3}, {"num_layers": 10**9},
        {"characters": "ab"}, {"characters": ["a"]}, {"dropout": 2.0},
        {"unknown_probability": 0.0}, {"dtype": "int8"}, {"dtype": "float64"}, {"further": 1},
        {"dropout": None},
    ]  # fmt: skip
    for change in changes:
        storage.save(path, "language-model", file.arrays, file.header | change)
        with pytest.raises(FormatError, match="model"):
            LanguageModel.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 9}, "arrays"),
        ({"hidden_size": 10**9}, "hidden_size"),
        ({"num_layers": 2}, "recurrent|arrays"),
        ({"num_layers": 10**9}, "num_layers: 1000000000 layers have more than"),
        ({"embedding_size": 3}, "arrays"),
        ({"tied": True, "embedding_size": 8}, "arrays"),
        ({"level": "word"}, "level"),
        ({"level": 3}, "level"),
        ({"cell": "gru"}, "cell"),
        ({"dropout": 2.0}, "dropout"),
        ({"further": 1}, "further"),
    ],
)
def test_a_header_that_does_not_fit_its_arrays_is_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "model"
    untrained().save(path)
    file = storage.load(path)
    header = file.header | {"params": file.header["params"] | change}
    storage.save(path, "language-model", file.arrays, header)
    with pytest.raises(FormatError, match=message):
        LanguageModel.load(path)


def test_a_vocabulary_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model"
    untrained().save(path)
    file = storage.load(path)
    vocabularies: list[Any] = [
        None,
        [],
        {"level": "char"},
        Characters("ab").to_json(),
        {"level": []},
    ]
    for saved in vocabularies:
        header = file.header | {"fitted": {"vocabulary": saved}}
        storage.save(path, "language-model", file.arrays, header)
        with pytest.raises(FormatError):
            LanguageModel.load(path)


def test_arrays_that_are_missing_or_of_another_shape_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model"
    untrained().save(path)
    file = storage.load(path)
    for name, array in file.arrays.items():
        rest = {k: v for k, v in file.arrays.items() if k != name}
        for arrays in (rest, rest | {name: array[:-1]}, rest | {name: array.astype(np.float64)}):
            storage.save(path, "language-model", arrays, file.header)
            with pytest.raises(FormatError, match=r"arrays|embedding"):
                LanguageModel.load(path)
    storage.save(path, "language-model", file.arrays | {"more": np.zeros(1)}, file.header)
    with pytest.raises(FormatError, match="more"):
        LanguageModel.load(path)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    storage.save(tmp_path / "lstm", "lstm", {}, {})
    with pytest.raises(FormatError, match="language-model"):
        LanguageModel.load(tmp_path / "lstm")
    with pytest.raises(FileNotFoundError):
        LanguageModel.load(tmp_path / "nothing")
