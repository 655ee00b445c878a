"""`fastlstm recognize`: recordings, drawings and sequences in files become a model, then texts."""

from __future__ import annotations

import inspect
import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import wavfile

from fastlstm.cli import main, recognize
from fastlstm.storage import load as load_file
from fastlstm.storage import save as save_file
from fastlstm.tasks import SequenceRecognizer
from fastlstm.tasks.features import mfcc, normalise, read_wav
from tests.support import Array

RATE = 8000
SMALL = ["--hidden", 16, "--epochs", 25, "--lr", 0.02, "--dropout", 0]
PITCHES = {"a": 300.0, "b": 900.0, "c": 2000.0}


@cache
def tune(text: str, seed: int) -> Array:
    """A tone for each letter, of 80 to 120 ms, with pauses and a little noise."""
    rng = np.random.default_rng(seed)
    parts = [np.zeros(400)]
    for letter in text:
        time_ = np.arange(rng.integers(640, 960)) / RATE
        parts += [0.3 * np.sin(2 * np.pi * PITCHES[letter] * time_), np.zeros(400)]
    sound = np.concatenate(parts)
    return (sound + 0.003 * rng.standard_normal(len(sound))).astype(np.float32)


def texts(count: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(list("abc"), rng.integers(1, 4))) for _ in range(count)]


def write_tunes(folder: Path, count: int, seed: int) -> Path:
    """WAV files, and a table of them."""
    folder.mkdir(exist_ok=True)
    lines = ["path,text"]
    for k, text in enumerate(texts(count, seed)):
        wavfile.write(folder / f"{seed}_{k}.wav", RATE, tune(text, 1000 * seed + k))
        lines.append(f"{seed}_{k}.wav,{text}")
    table = folder / f"{seed}.csv"
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return table


class Desk:
    """The command run in this process, on files that were written once."""

    def __init__(self, folder: Path, made: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.made, self._capsys = folder, made, capsys
        self.model, self.trained = folder / "model.safetensors", made / "model.safetensors"
        self.out = self.err = ""

    def write(self, name: str, *rows: dict[str, Any]) -> Path:
        path = self.folder / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    def run(self, *arguments: object) -> int:
        status = main(["recognize", *map(str, arguments)])
        self.out, self.err = self._capsys.readouterr()
        return status

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]

    def assert_fails(self, message: str) -> None:
        """The last command said one line of error on stderr, and nothing on stdout."""
        *remarks, error = self.err.splitlines()
        assert re.search(message, error), self.err
        assert error.startswith("fastlstm: error: ")
        assert all(re.search(r"\.(jsonl|csv): \d+ ", remark) for remark in remarks), self.err
        assert self.out == ""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tunes")
    table = write_tunes(folder, 60, 1)
    write_tunes(folder, 12, 2)
    model = folder / "model.safetensors"
    assert main(["recognize", "train", *map(str, [table, "--out", model, *SMALL])]) == 0
    return folder


@pytest.fixture
def desk(tmp_path: Path, made: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, made, capsys)


def type_in(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """What the command reads from stdin."""

    class Stdin:
        class buffer:  # noqa: N801
            @staticmethod
            def read() -> bytes:
                return text.encode()

    monkeypatch.setattr(sys, "stdin", Stdin)


# --- sound ----------------------------------------------------------------------------------------


def test_tunes_are_learnt_and_written_down(desk: Desk) -> None:
    assert desk.run("predict", desk.trained, desk.made / "2.csv") == 0
    rows = desk.rows()
    assert [row["text"] for row in rows] == texts(12, 2)
    assert [row["name"] for row in rows] == [str(desk.made / f"2_{k}.wav") for k in range(12)]
    assert all(-5 < row["log_prob"] <= 0 for row in rows)
    assert desk.run("predict", desk.trained, desk.made / "2.csv", "--output", "text") == 0
    assert desk.out.splitlines() == texts(12, 2)


def test_train_says_what_it_does(desk: Desk) -> None:
    options = ["--out", desk.model, *SMALL, "--epochs", 1]
    assert desk.run("train", desk.made / "1.csv", *options) == 0
    assert re.fullmatch(r"held-out label error rate: \d\.\d{4}\n", desk.out)
    assert "60 WAV files" in desk.err
    assert f"the model, with 3 labels, is in {desk.model}" in desk.err
    before = desk.model.read_bytes()
    assert desk.run("train", desk.made / "1.csv", *options) == 0
    assert desk.model.read_bytes() == before


def test_a_model_knows_how_its_features_were_made(desk: Desk) -> None:
    recognizer = SequenceRecognizer.load(desk.trained)
    assert recognizer.front_end == {
        "source": "path", "features": "mfcc", "rate": RATE, "spacing": 0.05,
    }  # fmt: skip
    assert recognizer.stack == 3
    path = desk.made / "2_0.wav"
    assert recognizer.predict([normalise(mfcc(*read_wav(path)))]) == texts(1, 2)


def test_wav_files_may_be_named_one_by_one(desk: Desk) -> None:
    paths = [desk.made / f"2_{k}.wav" for k in (3, 1)]
    assert desk.run("predict", desk.trained, *paths, "--output", "text") == 0
    assert desk.out.splitlines() == [texts(12, 2)[k] for k in (3, 1)]


def test_the_beam_gives_several_texts(desk: Desk) -> None:
    path = desk.made / "2_0.wav"
    beam = ["--beam", 8, "--ngram", 0.3, "--bonus", 0.1]
    assert desk.run("predict", desk.trained, path, *beam, "--n-best", 3) == 0
    (row,) = desk.rows()
    assert [reading.keys() for reading in row["readings"]] == [{"text", "log_prob", "score"}] * 3
    assert row["readings"][0]["text"] == texts(1, 2)[0]
    scores = [reading["score"] for reading in row["readings"]]
    assert scores == sorted(scores, reverse=True)
    expected = SequenceRecognizer.load(desk.trained).transcribe(
        [normalise(mfcc(*read_wav(path)))], n_best=3, beam_width=8, language_model="ngram",
        weight=0.3, insertion_bonus=0.1,
    )[0]  # fmt: skip
    assert scores == pytest.approx([reading.score for reading in expected], rel=1e-5)
    assert desk.run("predict", desk.trained, path, *beam) == 0
    assert desk.rows()[0]["text"] == texts(1, 2)[0]


def test_evaluate_counts_edits_of_characters_and_words(desk: Desk) -> None:
    table = desk.folder / "wrong.csv"
    expected = texts(12, 2)
    wrong = [text + " b" if k == 0 else text for k, text in enumerate(expected)]
    lines = [f"2_{k}.wav,{text}" for k, text in enumerate(wrong)]
    table.write_text("path,text\n" + "\n".join(lines) + "\n")
    assert desk.run("evaluate", desk.trained, table, "--folder", desk.made, "--json") == 0
    (figures,) = desk.rows()
    labels = sum(map(len, expected)) + 2
    assert figures == {
        "label_error_rate": 2 / labels, "word_error_rate": 1 / 13, "exact": 11, "rows": 12,
        "labels": labels, "words": 13,
    }  # fmt: skip
    assert desk.run("evaluate", desk.trained, desk.made / "2.csv", "--beam", 4) == 0
    assert desk.out.splitlines() == [
        f"character error rate  0.0000  ({labels - 2})",
        "word error rate       0.0000  (12)",
        "without an error      12 of 12",
    ]


def test_another_rate_and_two_channels_are_refused_or_converted(desk: Desk) -> None:
    path = desk.folder / "a.wav"
    sound = np.repeat(tune("ab", 5), 2)
    wavfile.write(path, 2 * RATE, sound)
    assert desk.run("predict", desk.trained, path) == 2
    desk.assert_fails(r"a\.wav: expected 8000 samples per second, got 16000; --resample converts")
    assert desk.run("predict", desk.trained, path, "--resample", "--output", "text") == 0
    assert desk.out == "ab\n"
    wavfile.write(path, RATE, np.column_stack([tune("ba", 6)] * 2))
    assert desk.run("predict", desk.trained, path) == 2
    desk.assert_fails(r"a\.wav: expected one channel, got 2; --mono takes their mean")
    assert desk.run("predict", desk.trained, path, "--mono", "--output", "text") == 0
    assert desk.out == "ba\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"a\.wav: no such file"),
        (b"", r"a\.wav: is no WAV file that can be read"),
        (b"cut", r"a\.wav: is cut short"),
        (np.zeros(100, np.float32), r"a\.wav: samples: expected at least a window of 200, got 100"),
        (np.full(5000, np.nan, np.float32), r"a\.wav: expected finite samples, got a NaN"),
        (np.zeros(0, np.float32), r"a\.wav: has no samples"),
    ],
)
def test_what_is_no_sound_is_refused(desk: Desk, content: Any, message: str) -> None:
    path = desk.folder / "a.wav"
    if isinstance(content, np.ndarray):
        wavfile.write(path, RATE, content)
    elif content == b"cut":
        path.write_bytes((desk.made / "2_0.wav").read_bytes()[:999])
    elif content is not None:
        path.write_bytes(content)
    assert desk.run("predict", desk.trained, path) == 2
    desk.assert_fails(message)
    table = desk.write("a.jsonl", {"path": "a.wav", "text": "a"})
    assert desk.run("train", table, "--out", desk.model) == 2
    desk.assert_fails(message)
    assert not desk.model.exists()


def test_a_recording_too_short_for_its_text_is_named(desk: Desk) -> None:
    wavfile.write(desk.folder / "a.wav", RATE, tune("a", 0))
    table = desk.write("a.jsonl", *[{"path": "a.wav", "text": "abababababab"}] * 3)
    assert desk.run("train", table, "--out", desk.model) == 2
    desk.assert_fails(r"a\.wav: expected at least 12 steps after stacking 3 as one for 12 labels")


# --- drawings and sequences -----------------------------------------------------------------------

SHAPES = {"v": [[0, 0], [1, 2], [2, 0]], "-": [[0, 1], [2, 1]], "/": [[0, 0], [2, 2]]}


def drawing(text: str, rng: np.random.Generator) -> list[list[list[float]]]:
    """The shapes beside each other, a little shaken."""
    return [
        (np.array(SHAPES[letter]) + [3 * k, 0] + 0.05 * rng.standard_normal((1, 2))).tolist()
        for k, letter in enumerate(text)
    ]


def drawn(count: int, seed: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    found = ["".join(rng.choice(list(SHAPES), 3)) for _ in range(count)]
    return [{"text": text, "strokes": drawing(text, rng)} for text in found]


def test_drawings_are_read_from_json_lines(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    table = desk.write("drawings.jsonl", *drawn(60, 0))
    assert desk.run("train", table, "--out", desk.model, *SMALL, "--augment") == 0
    assert "60 drawings" in desk.err
    test = drawn(10, 1)
    type_in(monkeypatch, "".join(json.dumps({"strokes": row["strokes"]}) + "\n" for row in test))
    assert desk.run("predict", desk.model, "--output", "text") == 0
    assert desk.out.splitlines() == [row["text"] for row in test]


def test_sequences_may_have_words_or_lists_of_labels(desk: Desk) -> None:
    names = {"a": [1, 0], "b": [0, 1]}

    def row(said: str, **more: Any) -> dict[str, Any]:
        steps = [step for letter in said for step in ([0, 0], names[letter], names[letter])]
        return {"sequence": [*steps, [0, 0]], **more}

    texts = ["ab", "ba", "b", "aab", "bb"] * 8
    words = desk.write("w.jsonl", *(row(text, text=" ".join(text.upper())) for text in texts))
    lists = desk.write("l.jsonl", *(row(text, text=list(text.upper())) for text in texts))
    options = [*SMALL, "--epochs", 30, "--batch", 4]
    assert desk.run("train", words, "--out", desk.model, "--labels", "words", *options) == 0
    model = desk.model.read_bytes()
    assert desk.run("train", lists, "--out", desk.model, *options) == 0
    assert desk.model.read_bytes() == model
    assert desk.run("predict", desk.model, lists, "--output", "text") == 0
    assert desk.out.splitlines()[:5] == ["A B", "B A", "B", "A A B", "B B"]
    for table in (words, lists):
        assert desk.run("evaluate", desk.model, table) == 0
        assert desk.out.splitlines()[0] == "label error rate      0.0000  (80)"


# --- what goes wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "a"}, r"row 1: expected a column 'path', 'strokes', 'sequence', got text"),
        ({"sequence": [[1]]}, r"row 1 has no column 'text'; it has sequence"),
        ({"sequence": [[1], [2, 3]], "text": "a"}, r"row 1: "),
        ({"sequence": [["x"]], "text": "a"}, r"row 1: "),
        ({"sequence": 5, "text": "a"}, r"row 1: expected shape"),
        ({"strokes": [], "text": "a"}, r"row 1: drawing: expected at least one point, got none"),
        ({"strokes": [[[0, None]]], "text": "a"}, r"row 1: drawing\[0\]: expected"),
        ({"sequence": [[1], [1]], "text": 5}, r"row 1: expected a text or a list of labels, got 5"),
        ({"path": 5, "text": "a"}, r"row 1: expected a path, got 5"),
        ({"path": "a\0b", "text": "a"}, r"row 1: expected a path"),
    ],
)
def test_a_row_that_is_wrong_is_named(desk: Desk, row: dict[str, Any], message: str) -> None:
    assert desk.run("train", desk.write("a.jsonl", row), "--out", desk.model) == 2
    desk.assert_fails(rf"a\.jsonl: {message}")
    assert not desk.model.exists()


def test_mixed_and_missing_things_are_refused(desk: Desk) -> None:
    mixed = desk.write(
        "a.jsonl", {"sequence": [[1]], "text": "a"}, {"strokes": [[[1, 2]]], "text": "a"}
    )
    assert desk.run("train", mixed, "--out", desk.model) == 2
    desk.assert_fails("expected one kind of thing, got sequences and drawings")
    assert desk.run("train", desk.folder / "none.csv", "--out", desk.model) == 2
    desk.assert_fails(r"none\.csv: no such file")
    assert desk.run("train", "a.wav", "--out", desk.model) == 2
    desk.assert_fails(r"a\.wav: expected a table with a column 'text'")
    sequences = desk.write("s.jsonl", {"sequence": [[1]], "text": "a"})
    assert desk.run("predict", desk.trained, sequences) == 2
    desk.assert_fails(r"s\.jsonl: holds sequences, and the model has learnt WAV files")
    assert desk.run("train", sequences, "--out", desk.model, "--augment") == 2
    desk.assert_fails("--augment: is for sound and drawings")


def test_ways_of_decoding_need_each_other(desk: Desk) -> None:
    path = desk.made / "2_0.wav"
    assert desk.run("predict", desk.trained, path, "--ngram", 1) == 2
    desk.assert_fails("--ngram, --bonus: have no meaning without --beam")
    assert desk.run("predict", desk.trained, path, "--beam", 2, "--n-best", 3) == 2
    desk.assert_fails("--n-best: needs a --beam that is as large at least")


def test_only_a_model_of_this_command_is_used_or_overwritten(desk: Desk) -> None:
    desk.model.write_bytes(b"a letter to my aunt")
    assert desk.run("train", desk.made / "1.csv", "--out", desk.model) == 2
    desk.assert_fails("it is not overwritten, choose another --out")
    assert desk.model.read_bytes() == b"a letter to my aunt"
    assert desk.run("predict", desk.model, desk.made / "2_0.wav") == 2
    desk.assert_fails(r"model\.safetensors")
    assert desk.run("predict", desk.folder / "none", desk.made / "2_0.wav") == 2
    desk.assert_fails("none: no such file")


@pytest.mark.parametrize(
    "front_end",
    [
        None,
        {"source": "path"},
        {"source": [], "features": "mfcc", "rate": 8000, "spacing": 0.05},
        {"source": "path", "features": "eval", "rate": 8000, "spacing": 0.05},
        {"source": "path", "features": "mfcc", "rate": 1.5, "spacing": 0.05},
        {"source": "path", "features": "mfcc", "rate": -1, "spacing": 0.05},
        {"source": "strokes", "features": "mfcc", "rate": 0, "spacing": 0.0},
    ],
)
def test_a_model_must_say_how_its_features_are_made(desk: Desk, front_end: Any) -> None:
    file = load_file(desk.trained)
    file.header["params"]["front_end"] = front_end
    save_file(desk.model, file.kind, file.arrays, file.header)
    assert desk.run("predict", desk.model, desk.made / "2_0.wav") == 2
    desk.assert_fails("does not say how its features are made")


def test_bands_are_hidden_only_where_neighbours_are_alike() -> None:
    mfcc_, mel = (recognize._augmentation("path", kind) for kind in ("mfcc", "log-mel"))
    assert mfcc_.feature_masks == 0 < mel.feature_masks
    assert mfcc_.time_masks == mel.time_masks > 0


def test_the_options_have_the_defaults_of_the_estimator() -> None:
    parameters = inspect.signature(SequenceRecognizer).parameters
    for argument, _, default, _ in recognize.OPTIONS.values():
        assert parameters[argument].default == default, argument


def test_ctrl_c_saves_the_best_model_so_far(desk: Desk) -> None:
    command = [sys.executable, "-m", "fastlstm", "recognize", "train", str(desk.made / "1.csv"),
               "--out", str(desk.model), "--epochs", "100000", "--patience", "100000"]  # fmt: skip
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if "60 WAV files" in line:
            break
    time.sleep(3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert f"interrupted; the best model so far is in {desk.model}" in err
    assert SequenceRecognizer.load(desk.model).classes_.tolist() == ["a", "b", "c"]
