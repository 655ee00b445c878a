"""`fastlstm classify`: labelled texts in files become a model, which labels texts."""

from __future__ import annotations

import inspect
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fastlstm.cli import classify, main
from fastlstm.tasks import TextClassifier
from fastlstm.tasks.text.tokenizer import LEVELS

GOOD, BAD = ["good", "great", "fine", "funny"], ["bad", "awful", "dull", "sad"]
ROWS = [
    (f"the {thing} is {word}, truly", label)
    for thing in ("film", "plot", "actor", "scene", "song")
    for words, label in ((GOOD, "pos"), (BAD, "neg"))
    for word in words
]
SMALL = [
    "--epochs",
    "12",
    "--hidden",
    "8",
    "--embedding",
    "8",
    "--batch",
    "8",
    "--lr",
    "0.02",
    "--dropout",
    "0",
]


class Desk:
    """A folder with labelled texts in every form, and the command run in this process."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys
        self.model = folder / "model.safetensors"
        self.lines = self.write("reviews.txt", *(f"{label}\t{text}" for text, label in ROWS))
        self.csv = self.write(
            "reviews.csv", "id,review,stars", *(f'1,"{text}",{label}' for text, label in ROWS)
        )
        self.out = self.err = ""

    def write(self, name: str, *lines: str) -> Path:
        path = self.folder / name
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return path

    def run(self, *arguments: object) -> int:
        status = main(["classify", *map(str, arguments)])
        self.out, self.err = self._capsys.readouterr()
        return status

    def train(self, *arguments: object) -> int:
        return self.run("train", *(arguments or [self.lines]), "--out", self.model, *SMALL)

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]

    def assert_fails(self, message: str) -> None:
        """The last command said one line on stderr, and nothing on stdout."""
        assert re.search(message, self.err), self.err
        assert self.err.startswith("fastlstm: error: ")
        assert self.err.count("\n") == 1, self.err
        assert self.out == ""


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, capsys)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    texts, model = folder / "reviews.txt", folder / "model.safetensors"
    texts.write_text("".join(f"{label}\t{text}\n" for text, label in ROWS), encoding="utf-8")
    assert main(["classify", "train", str(texts), "--out", str(model), *SMALL]) == 0
    return model


def type_in(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """What the command reads from stdin."""

    class Stdin:
        class buffer:  # noqa: N801
            @staticmethod
            def read() -> bytes:
                return text.encode()

    monkeypatch.setattr(sys, "stdin", Stdin)


# --- train ----------------------------------------------------------------------------------------


def test_train_leaves_a_model_and_says_how_good_it_is(desk: Desk) -> None:
    assert desk.train(desk.lines, "--held-out", 0.2) == 0
    assert re.fullmatch(r"held-out accuracy: [01]\.\d{4}\n", desk.out)
    assert "40 texts, 2 labels" in desk.err
    assert str(desk.model) in desk.err
    assert TextClassifier.load(desk.model).score(*zip(*ROWS, strict=True)) == 1


def test_all_forms_of_a_file_train_the_same_model(desk: Desk) -> None:
    tsv = desk.write("reviews.tsv", "text\tlabel", *(f"{text}\t{label}" for text, label in ROWS))
    jsonl = desk.write(
        "reviews.jsonl", *(json.dumps({"text": text, "label": label}) for text, label in ROWS)
    )
    columns = ["--text-column", "review", "--label-column", "stars"]
    models = []
    for arguments in ([desk.lines], [desk.csv, *columns], [tsv], [jsonl]):
        assert desk.train(*arguments, "--epochs", 1) == 0
        models.append(desk.model.read_bytes())
    assert models == models[:1] * 4


def test_the_options_reach_the_classifier(desk: Desk) -> None:
    vectors = desk.write("vectors.txt", "good, 1 2 3", "bad, -1 -2 -3")
    assert desk.run(
        "train", desk.lines, "--out", desk.model, "--hidden", 5, "--layers", 2, "--epochs", 1,
        "--vectors", vectors, "--pooling", "mean", "--case", "--balanced", "--held-out", 0,
        "--word-dropout", 0.3, "--min-frequency", 2, "--level", "whitespace", "--seed", 4,
    ) == 0  # fmt: skip
    assert desk.out == ""
    params = TextClassifier.load(desk.model).get_params()
    assert params | {
        "hidden_size": 5, "num_layers": 2, "epochs": 1, "vectors": str(vectors),
        "pooling": "mean", "lowercase": False, "class_weight": "balanced",
        "validation_fraction": 0, "word_dropout": 0.3, "min_frequency": 2,
        "level": "whitespace", "random_state": 4,
    } == params  # fmt: skip


def test_defaults_are_those_of_the_classifier(capsys: pytest.CaptureFixture[str]) -> None:
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(TextClassifier).parameters.items()
    }
    for argument, _, default, _ in classify.OPTIONS.values():
        assert default == defaults[argument], argument
    with pytest.raises(SystemExit):
        main(["classify", "train", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for level in (*LEVELS, "auto"):
        assert level in shown
    assert f"what represents a text (default: {defaults['pooling']})" in shown


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "is empty"),
        (["pos\tgood", "bad"], "line 2: expected a label, a tab and a text"),
        (["pos\tgood", "pos\tbad"], "y: expected at least two classes"),
    ],
)
def test_files_that_nothing_can_be_learnt_from(desk: Desk, lines: list[str], message: str) -> None:
    assert desk.train(desk.write("broken.txt", *lines)) == 2
    desk.err = desk.err.splitlines(keepends=True)[-1]  # behind the remark on what was read
    desk.assert_fails(message)
    assert not desk.model.exists()


def test_columns_that_are_not_there(desk: Desk) -> None:
    assert desk.train(desk.csv) == 2
    desk.assert_fails("row 1 has no column 'text'; it has id, review, stars")
    assert desk.train(desk.write("numbers.jsonl", '{"text": 3, "label": 1}')) == 2
    desk.assert_fails("row 1: expected a text, got 3")
    assert desk.train(desk.folder / "nothing.csv") == 2
    desk.assert_fails("nothing.csv: no such file")


def test_nothing_of_others_is_overwritten(desk: Desk) -> None:
    precious = desk.write("precious.txt", "mine")
    assert desk.run("train", desk.lines, "--out", precious) == 2
    desk.assert_fails("not overwritten")
    assert precious.read_text() == "mine\n"
    assert desk.run("train", desk.lines, "--out", desk.folder) == 2
    desk.assert_fails("is a folder")
    assert desk.run("train", desk.lines, "--out", desk.folder / "no" / "model") == 2
    desk.assert_fails("there is no folder")
    assert desk.train() == desk.train() == 0  # one of its own kind is


def test_ctrl_c_saves_the_best_model_so_far(desk: Desk) -> None:
    command = [
        sys.executable, "-m", "fastlstm", "classify", "train", desk.lines, "--out", desk.model,
        "--epochs", "100000", "--held-out", "0", "--threads", "1",
    ]  # fmt: skip
    process = subprocess.Popen(
        list(map(str, command)), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    seen = ""
    while "%|" not in seen:  # the bar has been drawn: training has begun
        seen += process.stderr.read(1)
        assert process.poll() is None, seen
    time.sleep(0.2)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert f"interrupted; the best model so far is in {desk.model}" in err
    assert TextClassifier.load(desk.model).predict(["good"]).tolist() in (["pos"], ["neg"])


# --- predict --------------------------------------------------------------------------------------


def test_predict_prints_labels_and_probabilities(desk: Desk, trained: Path) -> None:
    texts = desk.write("new.txt", "a good song", "", "the awful plot")
    assert desk.run("predict", trained, texts) == 0
    rows = desk.rows()
    assert [row["text"] for row in rows] == ["a good song", "", "the awful plot"]
    assert [rows[0]["label"], rows[2]["label"]] == ["pos", "neg"]
    classifier = TextClassifier.load(trained)
    for row in rows:
        expected = classifier.predict_proba([row["text"]])[0]
        assert list(row["probabilities"]) == ["neg", "pos"]
        assert list(row["probabilities"].values()) == pytest.approx(expected, rel=1e-4)
    assert desk.err == ""


def test_predict_reads_pipes_and_tables(
    desk: Desk, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    type_in(monkeypatch, "a good song\nan awful one")
    assert desk.run("predict", trained, "--output", "text") == 0
    assert desk.out == "pos\ta good song\nneg\tan awful one\n"
    type_in(monkeypatch, '{"text": "a good song"}\n')
    assert desk.run("predict", trained) == 0
    assert desk.rows()[0]["label"] == "pos"
    assert desk.run("predict", trained, desk.csv, "--text-column", "review") == 0
    assert [row["label"] for row in desk.rows()] == [label for _, label in ROWS]


def test_predict_explains(desk: Desk, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    type_in(monkeypatch, "an awful song")
    assert desk.run("predict", trained, "--explain") == 0
    tokens = desk.rows()[0]["explanation"]
    assert [token["token"] for token in tokens] == ["an", "awful", "song"]
    assert [(token["start"], token["stop"]) for token in tokens] == [(0, 2), (3, 8), (9, 13)]
    assert max(tokens, key=lambda token: token["contribution"])["token"] == "awful"
    assert desk.run("predict", trained, "--explain", "--output", "text") == 0
    assert re.search(r"^neg: 0\.\d+ .*\n +\+\d\.\d+  awful$", desk.out, re.MULTILINE)


def test_files_that_are_no_model(desk: Desk) -> None:
    assert desk.run("predict", desk.lines) == 2
    desk.assert_fails("no file of fastlstm's")
    assert desk.run("predict", desk.folder / "nothing") == 2
    desk.assert_fails("no such file")


# --- evaluate -------------------------------------------------------------------------------------


def test_evaluate_measures(desk: Desk, trained: Path) -> None:
    test = desk.write(
        "test.txt", "pos\ta good song", "neg\ta good song", "neg\tan awful song", "so-so\tawful"
    )
    assert desk.run("evaluate", trained, test, "--json") == 0
    (figures,) = desk.rows()
    assert (figures["accuracy"], figures["texts"]) == (0.5, 4)
    assert figures["confusion"] == {
        "labels": ["neg", "pos", "so-so"], "counts": [[1, 1, 0], [0, 1, 0], [1, 0, 0]],
    }  # fmt: skip
    assert figures["labels"]["neg"] == {
        "precision": 0.5, "recall": 0.5, "f1-score": 0.5, "support": 2,
    }  # fmt: skip
    assert desk.run("evaluate", trained, test) == 0
    assert desk.out.startswith("accuracy  0.5000  (4 texts)\n")
    assert re.search(r"^pos +0\.500 +1\.000 +0\.667 +1$", desk.out, re.MULTILINE)
    assert re.search(r"^so-so +1 +0 +0$", desk.out, re.MULTILINE)


def test_evaluate_draws_what_was_taken_for_what(desk: Desk, trained: Path) -> None:
    pytest.importorskip("matplotlib")
    picture = desk.folder / "confusion.png"
    for _ in range(2):  # one of its own is overwritten
        assert desk.run("evaluate", trained, desk.lines, "--picture", picture) == 0
        assert picture.read_bytes().startswith(b"\x89PNG")
    picture.write_bytes(b"\x89PNG of somebody else's")
    assert desk.run("evaluate", trained, desk.lines, "--picture", picture) == 2
    desk.assert_fails("not overwritten")


def test_labels_that_are_numbers_in_a_model_are_compared_as_text(desk: Desk) -> None:
    texts, labels = zip(*ROWS, strict=True)
    numbers = [int(label == "pos") for label in labels]
    classifier = TextClassifier(4, epochs=2, validation_fraction=0, random_state=0)
    classifier.fit(texts, numbers).save(desk.model)
    rows = (json.dumps({"text": t, "label": n}) for t, n in zip(texts, numbers, strict=True))
    assert desk.run("evaluate", desk.model, desk.write("test.jsonl", *rows), "--json") == 0
    assert desk.rows()[0]["accuracy"] == pytest.approx(classifier.score(texts, numbers))
