"""`fastlstm translate`: pairs of sentences in files become a model, which translates lines."""

from __future__ import annotations

import inspect
import itertools
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
import sacrebleu

from fastlstm.cli import main, plots, translate
from fastlstm.tasks import Translator
from fastlstm.tasks.text.tokenizer import LEVELS

PAIRS = [(f"{a} {b}", f"{b} and {a}") for a, b in itertools.product("abcde", repeat=2)]
SMALL = [
    "--hidden", "24", "--embedding", "12", "--batch", "8", "--lr", "0.03", "--dropout", "0",
    "--level", "word", "--held-out", "0",
]  # fmt: skip


class Desk:
    """A folder with pairs in every form, and the command run in this process."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys
        self.model = folder / "model.safetensors"
        self.source = self.write("pairs.src", *(source for source, _ in PAIRS))
        self.target = self.write("pairs.trg", *(target for _, target in PAIRS))
        self.files = ["--source", self.source, "--target", self.target]
        self.out = self.err = ""

    def write(self, name: str, *lines: str) -> Path:
        path = self.folder / name
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return path

    def run(self, *arguments: object) -> int:
        status = main(["translate", *map(str, arguments)])
        self.out, self.err = self._capsys.readouterr()
        return status

    def train(self, *arguments: object) -> int:
        return self.run("train", *(arguments or self.files), "--out", self.model, *SMALL)

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
    pairs, model = folder / "pairs.txt", folder / "model.safetensors"
    pairs.write_text("".join(f"{a}\t{b}\n" for a, b in PAIRS), encoding="utf-8")
    command = ["translate", "train", str(pairs), "--out", str(model), *SMALL, "--epochs", "40"]
    assert main(command) == 0
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
    assert desk.train(*desk.files, "--epochs", 2, "--validation-source", desk.source,
                      "--validation-target", desk.target) == 0  # fmt: skip
    assert re.fullmatch(r"held-out loss: \d\.\d{4} nats a token\n", desk.out)
    assert "25 pairs" in desk.err
    assert f"the model is in {desk.model}" in desk.err
    translator = Translator.load(desk.model)
    sources, targets = zip(*PAIRS, strict=True)
    loss = -translator.log_prob(sources, targets).sum() / 100
    assert float(desk.out.split()[2]) == pytest.approx(loss, abs=1e-4)


def test_all_forms_of_pairs_train_the_same_model(desk: Desk) -> None:
    tsv = desk.write("p.tsv", "de\ten", *(f"{a}\t{b}" for a, b in PAIRS))
    jsonl = desk.write("p.jsonl", *(json.dumps({"source": a, "target": b}) for a, b in PAIRS))
    lines = desk.write("p.txt", *(f"{a}\t{b}" for a, b in PAIRS))
    columns = ["--source-column", "de", "--target-column", "en"]
    contents = set()
    for arguments in (desk.files, [tsv, *columns], [jsonl], [lines]):
        assert desk.train(*arguments, "--epochs", 1) == 0
        contents.add(desk.model.read_bytes())
    assert len(contents) == 1


def test_pairs_with_a_blank_side_are_left_out(desk: Desk) -> None:
    pairs = desk.write("p.txt", "a\tb", " \tb", "c\t", "a b\tb a")
    assert desk.train(pairs, "--epochs", 1, "--validation", pairs) == 0
    assert desk.err.count("2 pairs with a blank side are left out") == 2
    assert "2 pairs\n" in desk.err
    assert desk.train(desk.write("q.txt", "\tb")) == 2
    desk.assert_fails("no pair has two sentences")


def test_a_checkpoint_is_kept_and_gone_on_from(desk: Desk) -> None:
    checkpoint = desk.folder / "run.checkpoint"
    again = [*desk.files, "--epochs", 2, "--checkpoint", checkpoint]
    assert desk.train(*again) == 0
    model = desk.model.read_bytes()
    assert checkpoint.exists()
    assert desk.train(*again) == 0  # there is nothing left to do
    assert desk.model.read_bytes() == model
    assert desk.train(*again, "--seed", 1) == 2
    assert "the run was begun with other settings" in desk.err


def test_what_cannot_be_learnt_from_is_said_in_one_line(desk: Desk) -> None:
    short = desk.write("short.trg", "a")
    empty = desk.write("empty.txt")
    for arguments, message in (
        ([], "expected a file of pairs, or --source and --target"),
        (["--source", desk.source], "expected a file of pairs, or --source and --target"),
        (["--source", desk.source, "--target", short], "has 25 lines and .* has 1; a sentence"),
        (["--source", desk.folder / "no", "--target", short], "no: no such file"),
        (["--source", empty, "--target", empty], "empty.txt: is empty"),
        ([short, *desk.files], "give either one file of pairs, or --source and --target"),
        ([short], "line 1: expected a sentence, a tab and its translation, got 'a'"),
        ([desk.write("t.csv", "source,to", "a,b")], "row 1 has no column 'target'"),
        ([*desk.files, "--validation-source", desk.source], "or --validation-source and --valid"),
        ([*desk.files, "--hidden", "5"], "hidden_size: expected an even number"),
    ):
        assert desk.run("train", *arguments, "--out", desk.model) == 2
        message_line = desk.err.splitlines()[-1]
        assert re.search(message, message_line), desk.err
        assert message_line.startswith("fastlstm: error: ")
        assert not desk.model.exists()


def test_train_overwrites_no_file_of_others(desk: Desk, trained: Path) -> None:
    desk.model.write_text("a novel", encoding="utf-8")
    assert desk.train() == 2
    desk.assert_fails("it is not overwritten, choose another --out")
    assert desk.model.read_text(encoding="utf-8") == "a novel"
    desk.model.unlink()
    assert desk.train(*desk.files, "--checkpoint", trained) == 2
    desk.assert_fails("it is not overwritten, choose another --checkpoint")


def test_ctrl_c_saves_what_was_learnt(desk: Desk) -> None:
    command = [sys.executable, "-m", "fastlstm", "translate", "train", *map(str, desk.files)]
    process = subprocess.Popen(
        [*command, "--out", str(desk.model), *SMALL, "--epochs", "100000"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8",
    )  # fmt: skip
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
    assert len(Translator.load(desk.model).predict(["a b"])) == 1


# --- predict --------------------------------------------------------------------------------------


def test_predict_translates_line_by_line(desk: Desk, trained: Path) -> None:
    lines = desk.write("new.src", "a b", "", "e d")
    assert desk.run("predict", trained, lines) == 0
    assert desk.out == "b and a\n\nd and e\n"
    assert desk.err == ""


def test_predict_reads_pipes(desk: Desk, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for text, expected in (
        ("c b", "b and c\n"),
        ("c b\r\na a\r\n", "b and c\na and a\n"),
        ("", ""),
    ):
        type_in(monkeypatch, text)
        assert desk.run("predict", trained) == 0
        assert desk.out == expected


def test_predict_prints_scores_of_several_translations(desk: Desk, trained: Path) -> None:
    lines = desk.write("new.src", "a b", "")
    search = ["--beam", 4, "--length-penalty", 0.5]
    assert desk.run("predict", trained, lines, "--output", "jsonl", "--n-best", 3, *search) == 0
    found = Translator.load(trained).translate(
        ["a b", ""], beam_size=4, length_penalty=0.5, n_best=3
    )
    for row, line, own in zip(desk.rows(), ["a b", ""], found, strict=True):
        assert row == {
            "source": line,
            "translations": [
                {"text": one.text, "score": one.score, "log_prob": one.log_prob} for one in own
            ],
        }
    assert len(desk.rows()[0]["translations"]) == 3


def test_lines_stay_lines(desk: Desk, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of characters can make a line break."""
    translator = Translator.load(trained)
    ((one,),) = translator.translate(["a b"])
    object.__setattr__(one, "text", "b\nand\u2028a")
    monkeypatch.setattr(Translator, "translate", lambda *_, **__: [[one]])
    assert desk.run("predict", trained, desk.write("new.src", "a b")) == 0
    assert desk.out == "b and a\n"


def test_predict_draws_attention(desk: Desk, trained: Path) -> None:
    lines = desk.write("new.src", "a b", "", "日本 $x$ \\")
    folder = desk.folder / "pictures"
    for _ in range(2):  # the second time over the pictures of the first
        assert desk.run("predict", trained, lines, "--attention", folder) == 0
        assert sorted(path.name for path in folder.iterdir()) == ["00001.png", "00003.png"]
        assert all(plots.is_ours(path, plots.ATTENTION) for path in folder.iterdir())
    (folder / "00002.png").write_bytes(b"a portrait")
    assert desk.run("predict", trained, lines, "--attention", folder) == 2
    desk.assert_fails("00002.png: exists and is no attention of fastlstm's")
    assert desk.run("predict", trained, lines, "--attention", desk.folder / "no" / "folder") == 2
    desk.assert_fails("--attention .*No such file or directory")
    assert desk.run("predict", trained, lines, "--attention", lines) == 2
    desk.assert_fails("--attention .*File exists")


def test_predictions_that_cannot_be_are_refused(desk: Desk, trained: Path) -> None:
    lines = desk.write("new.src", "a b")
    assert desk.run("predict", trained, lines, "--n-best", 2) == 2
    desk.assert_fails("--n-best: several translations of a line need --output jsonl")
    assert desk.run("predict", trained, lines, "--n-best", 6, "--output", "jsonl") == 2
    desk.assert_fails("--n-best: expected at most --beam, which is 5")
    assert desk.run("predict", desk.folder / "no.safetensors", lines) == 2
    desk.assert_fails("no.safetensors: no such file")
    assert desk.run("predict", lines, lines) == 2
    desk.assert_fails("no file of fastlstm's")


# --- evaluate -------------------------------------------------------------------------------------


def test_evaluate_prints_what_sacrebleu_says(desk: Desk, trained: Path) -> None:
    sources = ["a b", "c d", "e e"] * 2
    targets = ["b and a", "d and x c", "e and e"] * 2
    files = ["--source", desk.write("t.src", *sources), "--target", desk.write("t.trg", *targets)]
    said = Translator.load(trained).predict(sources)
    bleu = sacrebleu.metrics.BLEU(tokenize="none")
    chrf = sacrebleu.metrics.CHRF()
    scores = [metric.corpus_score(said, [targets]).score for metric in (bleu, chrf)]

    assert desk.run("evaluate", trained, *files, "--tokenize", "none") == 0
    lines = desk.out.splitlines()
    assert lines[0].split() == ["BLEU", f"{scores[0]:.2f}", str(bleu.get_signature())]
    assert lines[1].split() == ["chrF", f"{scores[1]:.2f}", str(chrf.get_signature())]
    assert "tok:none" in lines[0]
    assert desk.run("evaluate", trained, *files, "--tokenize", "none", "--json") == 0
    figures = json.loads(desk.out)
    assert figures["BLEU"]["score"] == pytest.approx(scores[0])
    assert figures["chrF"]["score"] == pytest.approx(scores[1])
    assert figures["sentences"] == 6
    assert desk.run("evaluate", trained, "--source", desk.source) == 2
    desk.assert_fails("expected a file of pairs")


# --- help -----------------------------------------------------------------------------------------


def test_the_options_have_the_estimators_defaults() -> None:
    parameters = inspect.signature(Translator).parameters
    for argument, _, default, _ in translate.OPTIONS.values():
        assert parameters[argument].default == default, argument


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("train", "predict", "evaluate"):
        with pytest.raises(SystemExit) as caught:
            main(["translate", command, "--help"])
        assert caught.value.code == 0
        shown = capsys.readouterr().out
        assert "examples:" in shown
        assert command != "train" or all(level in shown for level in LEVELS)
