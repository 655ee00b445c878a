"""benchmarks.quality: data sets are read as they are, baselines do what they are called."""

from __future__ import annotations

import wave
import zipfile
from pathlib import Path

import numpy as np
import pytest

from benchmarks.quality import baselines, data
from benchmarks.quality.data import Labelled, Texts
from benchmarks.quality.lexicon import Lexicon
from tests.support import Array, assert_close

# --- readers --------------------------------------------------------------------------------------


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv(data.VARIABLE, str(tmp_path))
    return tmp_path


def put(path: Path, text: str, encoding: str = "utf-8") -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text.encode(encoding))


def test_labelled_lines_are_read_in_their_encoding(root: Path) -> None:
    put(root / "sentiment" / "stsa.binary.dev", "1 a fine film\n0 a bad  one \n")
    put(root / "sentiment" / "rt-polarity.all", "0 clichés\n1 good\n" * 10, "latin-1")
    found = data.stsa("dev")
    assert found.texts == ["a fine film", "a bad  one"]
    assert found.labels.tolist() == [1, 0]
    training, test = data.rt_polarity_fold(4)
    assert (len(training), len(test)) == (18, 2)
    assert sorted(test.texts) == ["clichés", "good"]


def test_folds_share_out_every_class_and_cover_everything() -> None:
    labels = np.random.default_rng(0).integers(0, 3, 101)
    fold = data.folds(labels, 10)
    assert np.ptp(np.bincount(fold)) <= 1
    for label in range(3):
        assert np.ptp(np.bincount(fold[labels == label], minlength=10)) <= 1
    np.testing.assert_array_equal(fold, data.folds(labels, 10))


def test_words_end_with_their_lines(root: Path) -> None:
    put(root / "ptb" / "ptb.test.txt", " no <unk> N \n it was \n")
    assert data.ptb("test") == ["no", "<unk>", "N", "<eos>", "it", "was", "<eos>"]


def test_the_last_tenth_of_a_text_validates(root: Path) -> None:
    put(root / "tinyshakespeare" / "input.txt", "0123456789" * 2)
    assert data.tinyshakespeare() == ("012345678901234567", "89")


def test_sentences_stand_beside_their_translations(root: Path) -> None:
    put(root / "multi30k" / "val.de", "ein hund .\nzwei\n")
    put(root / "multi30k" / "val.en", "a dog .\ntwo\n")
    assert data.multi30k("val") == (["ein hund .", "zwei"], ["a dog .", "two"])
    put(root / "multi30k" / "val.en", "a dog .\n")
    with pytest.raises(ValueError, match="2 sentences beside 1"):
        data.multi30k("val")


def test_recordings_are_split_by_their_index(root: Path) -> None:
    (root / "spoken_digits").mkdir()
    for name in ("3_theo_4", "3_theo_5"):
        with wave.open(str(root / "spoken_digits" / f"{name}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes(np.array([0, 16384, -32768], "<i2").tobytes())
    (training,), (test,) = data.spoken_digits()
    assert (training.digit, training.speaker, training.index) == (3, "theo", 5)
    assert test.index == 4
    assert test.samples.dtype == np.float32
    assert test.samples.tolist() == [0, 0.5, -1]


def test_a_ts_file_has_a_dimension_between_colons(root: Path) -> None:
    for part in ("TRAIN", "TEST"):
        text = "# said\n@dimensions 2\n@data\n1,2,3:4,5,6:9\n7,8:9,0:2\n"
        put(root / "japanese_vowels" / f"JapaneseVowels_{part}.ts", text)
    training, _ = data.japanese_vowels()
    assert [x.tolist() for x in training.sequences] == [[[1, 4], [2, 5], [3, 6]], [[7, 9], [8, 0]]]
    assert training.labels.tolist() == [9, 2]


def test_digits_are_eight_positions(root: Path) -> None:
    row = ", ".join(map(str, range(16)))
    put(root / "pendigits" / "pendigits.train.csv", "input,class\n" + f"{row}, 7\n" * 10)
    training, test = data.pendigits()
    assert (len(training), len(test)) == (8, 2)
    np.testing.assert_array_equal(test.sequences[0], np.arange(16).reshape(8, 2))


def test_drawings_are_strokes_of_writers(root: Path) -> None:
    (root / "omniglot").mkdir()
    with zipfile.ZipFile(root / "omniglot" / "strokes_background_small1.zip", "w") as archive:
        for writer in (16, 17):
            name = f"Greek/character02/0108_{writer:02}.txt"
            text = "START\n1,-2,0\n2,-3,15\nBREAK\n4.5,-6,20\nBREAK\n"
            archive.writestr(f"strokes_background_small1/{name}", text)
        archive.writestr("__MACOSX/strokes_background_small1/Greek/._0108_01.txt", "x")
    (training,), (test,) = data.omniglot()
    assert (training.writer, test.writer) == (16, 17)
    assert training.character == "Greek/character02"
    assert [stroke.tolist() for stroke in test.strokes] == [
        [[1, -2, 0], [2, -3, 15]],
        [[4.5, -6, 20]],
    ]


def test_hours_are_scaled_by_the_training_part(root: Path) -> None:
    values = np.random.default_rng(0).normal(3, 2, (14500, 2))
    lines = [f"h{k},{a!r},{b!r}" for k, (a, b) in enumerate(values.tolist())]
    put(root / "ett" / "ETTh1.csv", "\n".join(["date,HUFL,OT", *lines]) + "\n")
    hourly = data.etth1()
    assert (hourly.training_end, hourly.validation_end, hourly.test_end) == (8640, 11520, 14400)
    scaled = hourly.standardised()
    assert len(scaled) == 14400
    assert_close(scaled[:8640].mean(axis=0) + 1, np.ones(2), 1e-12)
    assert_close(scaled[:8640].std(axis=0), np.ones(2), 1e-12)


# --- baselines ------------------------------------------------------------------------------------


def drawn(rng: np.random.Generator, count: int) -> Labelled:
    """Sequences of 3 to 8 steps of two features, which rise in class 1 and fall in class 0."""
    labels = rng.integers(0, 2, count)
    sequences = []
    for label in labels:
        ramp = np.linspace(0, 1, int(rng.integers(3, 9)))[:, np.newaxis]
        sequences.append((2 * label - 1) * ramp + rng.normal(0, 0.7, (len(ramp), 2)))
    return Labelled(sequences, labels)


def plain_dtw(a: Array, b: Array) -> float:
    """The least sum of squared distances along a path of steps (1, 0), (0, 1) and (1, 1)."""
    least = np.full((len(a) + 1, len(b) + 1), np.inf)
    least[0, 0] = 0
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            before = min(least[i, j], least[i, j + 1], least[i + 1, j])
            least[i + 1, j + 1] = before + ((x - y) ** 2).sum()
    return float(least[-1, -1])


@pytest.mark.oracle
def test_a_neighbour_under_dtw_is_the_one_of_the_recurrence() -> None:
    pytest.importorskip("dtaidistance")
    rng = np.random.default_rng(0)
    training, test = drawn(rng, 20), drawn(rng, 70)
    nearest = [
        min(range(20), key=lambda k: plain_dtw(x, training.sequences[k])) for x in test.sequences
    ]
    expected = float((training.labels[nearest] == test.labels).mean())
    assert baselines.dtw_neighbour(training, test) == expected
    assert 0.5 < expected < 1


def test_a_neighbour_is_the_nearest_after_stretching() -> None:
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(1)
    training, test = drawn(rng, 20), drawn(rng, 30)
    longest = max(map(len, training.sequences + test.sequences))

    def stretched(x: Array) -> Array:
        return np.stack([np.interp(np.linspace(0, 1, longest), np.linspace(0, 1, len(x)), column)
                         for column in x.T], axis=1)  # fmt: skip

    right = 0
    for x, label in zip(test.sequences, test.labels, strict=True):
        distances = [((stretched(x) - stretched(y)) ** 2).sum() for y in training.sequences]
        right += training.labels[int(np.argmin(distances))] == label
    assert baselines.nearest_neighbour(training, test) == right / 30


@pytest.mark.oracle
def test_hidden_markov_models_know_what_comes_first() -> None:
    """The same steps in another order are another class; a bag of steps could not tell."""
    pytest.importorskip("hmmlearn")
    rng = np.random.default_rng(2)

    def part(count: int) -> Labelled:
        labels = np.arange(count) % 2
        ramp = np.linspace(-1, 1, 9)[:, np.newaxis]
        steps = [(1 if label else -1) * ramp + rng.normal(0, 0.3, (9, 1)) for label in labels]
        return Labelled(steps, labels)

    value, states = baselines.hidden_markov(part(40), part(40), states=(1, 3))
    assert value == 1
    assert states == 3


def test_bags_of_ngrams_learn_the_word_that_tells() -> None:
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(3)
    texts = [f"a {rng.choice(['film', 'play'])} that is {word}" for word in ["good", "bad"] * 30]
    labels = np.array([1, 0] * 30)
    found = baselines.bags_of_ngrams(
        Texts(texts, labels), Texts(["so good", "so bad , bad"], np.array([1, 0]))
    )
    assert found == {"logistic regression": 1.0, "naive Bayes": 1.0}


def test_a_lexicon_finds_which_word_belongs_to_which() -> None:
    sources = ["das haus", "das buch", "ein buch", "das alte haus", "ein alter"]
    targets = ["the house", "the book", "a book", "the old house", "an old one"]
    lexicon = Lexicon(sources, targets, rounds=30)
    assert lexicon.translate("das buch") == "the book"
    assert lexicon.translate("ein haus mit das") == "a house mit the"


def test_windows_end_where_forecasts_begin() -> None:
    values = np.arange(40.0).reshape(20, 2)
    past, future = baselines.strided(values, 10, 16, 5, 3)
    assert past.shape == (4, 5, 2)
    assert_close(past[1], values[6:11], 0)
    assert_close(future[1], values[11:14], 0)
    assert_close(future[-1], values[13:16], 0)
