"""The command `fastlstm`: what it does, what it prints where, and how it fails."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fastlstm import storage
from fastlstm._version import __version__
from fastlstm.cli import lm_train, main, plots
from fastlstm.tasks import LanguageModel
from fastlstm.tasks.language_model.network import LanguageNetwork
from tests.support import assert_same_bits

# 120 lines with the 1st … 120th number in words would be nicer, but this is enough to learn from.
TEXT = "".join(f"line {k}: the cat sat on mat {k % 7}.\n" for k in range(120))
SMALL = ["--hidden", "12", "--embedding", "6", "--batch", "4", "--sequence", "16"]


class Desk:
    """A folder with a corpus, and the command run in this process."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys
        self.corpus, self.model = folder / "corpus.txt", folder / "model.safetensors"
        self.checkpoint = folder / "model.safetensors.checkpoint"
        self.corpus.write_text(TEXT, encoding="utf-8")
        self.out = self.err = ""

    def run(self, *arguments: object) -> int:
        status = main([str(argument) for argument in arguments])
        self.out, self.err = self._capsys.readouterr()
        return status

    def train(self, *arguments: object, corpus: Path | None = None) -> int:
        return self.run(
            "lm", "train", corpus or self.corpus, "--out", self.model, *SMALL, *arguments
        )

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
    """A model of TEXT, trained for a few steps."""
    folder = tmp_path_factory.mktemp("trained")
    corpus, model = folder / "corpus.txt", folder / "model.safetensors"
    corpus.write_text(TEXT, encoding="utf-8")
    assert main(["lm", "train", str(corpus), "--out", str(model), "--steps", "30", *SMALL]) == 0
    return model


def start(*arguments: object, **options: object) -> subprocess.Popen[str]:
    """``python -m fastlstm`` as a process of its own."""
    command = [sys.executable, "-m", "fastlstm", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen(command, text=True, encoding="utf-8", **pipes)


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)


def assert_same_models(one: Path, other: Path) -> None:
    first, second = LanguageModel.load(one), LanguageModel.load(other)
    assert first.vocabulary_.to_json() == second.vocabulary_.to_json()
    for name, array in first.network_.parameters().items():
        assert_same_bits(second.network_.parameters()[name], array, name)


# --- train ----------------------------------------------------------------------------------------


def test_train_leaves_a_model_a_curve_and_a_sample(desk: Desk) -> None:
    assert desk.train("--steps", 12) == 0
    held_out = TEXT[len(TEXT) - len(TEXT) // 20 :]
    model = LanguageModel.load(desk.model)
    bits = model.bits_per_character(held_out)
    first, *_, sample = desk.out.split("\n", 4)
    assert first == f"held-out bits per character: {bits:.4f} ({len(held_out)} characters)"
    assert "a sample:" in desk.out
    assert len(sample) == 401
    assert (desk.folder / "model.png").read_bytes().startswith(b"\x89PNG")
    assert not desk.checkpoint.exists()
    for shown in ("loss=", "bits=", "char/s", "held out", str(desk.model)):
        assert shown in desk.err, shown
    assert sorted(path.name for path in desk.folder.iterdir()) == [
        "corpus.txt", "model.png", "model.safetensors",
    ]  # fmt: skip


def test_the_vocabulary_is_that_of_the_training_part(desk: Desk) -> None:
    desk.corpus.write_text(TEXT + "合", encoding="utf-8")
    assert desk.train("--steps", 2) == 0
    model = LanguageModel.load(desk.model)
    assert model.vocabulary_.to_json()["characters"] == "".join(sorted(set(TEXT)))


def test_a_held_out_part_of_unknown_characters_is_no_obstacle(desk: Desk) -> None:
    desk.corpus.write_text(TEXT + "合" * (len(TEXT) // 19), encoding="utf-8")
    assert desk.train("--steps", 2) == 0
    assert float(re.search(r"bits per character: ([\d.]+)", desk.out)[1]) > 20


def test_train_learns(desk: Desk) -> None:
    assert desk.train("--steps", 400, "--lr", 0.02) == 0
    bits = float(re.search(r"bits per character: ([\d.]+)", desk.out)[1])
    assert bits < 1.5 < math.log2(len(set(TEXT)))
    assert "the cat sat on mat" in desk.out


def test_the_seed_decides(desk: Desk) -> None:
    models = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        path = desk.folder / name
        options = ("--out", path, "--steps", 3, "--seed", seed, "--dropout", 0.3, *SMALL)
        assert desk.run("lm", "train", desk.corpus, *options) == 0
        models.append(path)
    assert_same_models(models[0], models[1])
    with pytest.raises(AssertionError, match="bits differ"):
        assert_same_models(models[0], models[2])


def test_chinese_goes_in_and_out(desk: Desk) -> None:
    text = "話說天下大勢，分久必合，合久必分。周末七國分爭，併入於秦。\n" * 30
    desk.corpus.write_text(text, encoding="utf-8")
    assert desk.train("--steps", 200, "--lr", 0.02) == 0
    assert "分" in desk.out
    assert desk.run("lm", "generate", desk.model, "--prompt", "分久", "--temperature", 0) == 0
    assert desk.out.startswith("分久必合，合久必分。")
    assert set(desk.out) <= set(text)


def test_a_short_text_is_read_at_fewer_places(desk: Desk) -> None:
    desk.corpus.write_text(TEXT[:400], encoding="utf-8")
    out = ("--out", desk.model, "--steps", 2, "--hidden", 4)
    assert desk.run("lm", "train", desk.corpus, *out) == 0
    assert "2 steps of 5 × 64 characters" in desk.err


def test_without_a_corpus_it_learns_pythons_manual(desk: Desk) -> None:
    out = ("--out", desk.model, "--steps", 1, "--hidden", 2, "--batch", 2)
    assert desk.run("lm", "train", *out) == 0
    assert "pydoc_data.topics: 4" in desk.err


def test_without_matplotlib_a_line_says_how_to_get_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, "find_spec", lambda _: None)
    assert desk.train("--steps", 2) == 0
    assert "pip install 'fastlstm[plot]'" in desk.err
    assert not (desk.folder / "model.png").exists()
    assert desk.model.exists()


@pytest.mark.parametrize("package", ["tqdm", "safetensors"])
def test_without_a_package_a_line_says_how_to_get_it(
    desk: Desk, trained: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.setitem(sys.modules, name, None)
    assert desk.train("--steps", 2) == 2
    desk.assert_fails(f"{package}: pip install 'fastlstm\\[train\\]'")
    if package == "safetensors":
        assert desk.run("lm", "generate", trained) == 2
        desk.assert_fails("pip install 'fastlstm\\[train\\]'")
    else:
        assert desk.run("lm", "evaluate", trained, desk.corpus) == 0


def test_a_model_of_ours_is_replaced(desk: Desk) -> None:
    assert desk.train("--steps", 2) == 0
    before = desk.model.read_bytes()
    assert desk.train("--steps", 3) == 0
    assert desk.model.read_bytes() != before


# --- what train refuses ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"\xff\xfeh\0i\0", "no UTF-8 text"),
        (b"caf\xe9" * 100, "no UTF-8 text"),
        (b"text\0" * 100, "binary"),
        (b"too short", "too short: 9 characters"),
    ],
)
@pytest.mark.parametrize("settings", [(), SMALL])
def test_a_corpus_that_is_no_text_is_refused(
    desk: Desk, data: bytes, message: str, settings: list[str]
) -> None:
    desk.corpus.write_bytes(data)
    assert desk.run("lm", "train", desk.corpus, "--out", desk.model, *settings) == 2
    desk.assert_fails(message)
    assert not desk.model.exists()


def test_a_corpus_that_is_not_there_or_a_folder_is_refused(desk: Desk) -> None:
    assert desk.train(corpus=desk.folder / "nothing.txt") == 2
    desk.assert_fails("nothing.txt: no such file")
    assert desk.train(corpus=desk.folder) == 2
    desk.assert_fails("is a folder")


def test_the_length_that_a_corpus_is_asked_for_is_the_least_that_trains(desk: Desk) -> None:
    desk.corpus.write_text("ab" * 10, encoding="utf-8")
    assert desk.train() == 2
    desk.assert_fails("--batch 4 --sequence 16 need about")
    least = int(re.search(r"about (\d+)", desk.err)[1])
    desk.corpus.write_text(("ab" * least)[:least], encoding="utf-8")
    assert desk.train("--steps", 1) == 0
    desk.corpus.write_text(("ab" * least)[: least - 2], encoding="utf-8")
    assert desk.train("--steps", 1) == 2


def test_an_out_that_cannot_be_written_is_refused_before_training(desk: Desk) -> None:
    for out, message in (
        (desk.folder / "no" / "model", "there is no folder"),
        (desk.folder, "is a folder"),
        (desk.corpus / "model", "there is no folder"),
        ("", "expected the name of a file"),
        ("m.png", "is the loss curve's"),
        (desk.folder / ("x" * 300), "cannot be written: File name too long"),
        ("/proc/model", "cannot be written"),
    ):
        assert desk.run("lm", "train", desk.corpus, "--out", out) == 2
        desk.assert_fails(message)


@pytest.mark.parametrize("name", ["model.safetensors", "model.safetensors.checkpoint", "model.png"])
def test_a_file_that_is_not_ours_is_never_overwritten(desk: Desk, name: str) -> None:
    (desk.folder / name).write_text("my diary", encoding="utf-8")
    assert desk.train("--restart") == 2
    desk.assert_fails("overwritten")
    assert (desk.folder / name).read_text(encoding="utf-8") == "my diary"


def test_the_corpus_itself_is_never_overwritten(desk: Desk) -> None:
    assert desk.run("lm", "train", desk.corpus, "--out", desk.corpus) == 2
    desk.assert_fails("not overwritten")
    assert desk.corpus.read_text(encoding="utf-8") == TEXT


def test_a_model_of_another_kind_is_not_overwritten(desk: Desk) -> None:
    storage.save(desk.model, "lstm", {}, {})
    assert desk.train() == 2
    desk.assert_fails("not overwritten")


def test_a_model_too_large_to_be_made_is_refused(desk: Desk) -> None:
    assert desk.run("lm", "train", desk.corpus, "--out", desk.model, "--hidden", 2**30) == 2
    remark, error = desk.err.splitlines()
    assert remark.startswith(f"{desk.corpus}: ")
    assert "error: no model of this size or kind can be made: hidden_size" in error


@pytest.mark.parametrize(
    "arguments",
    [
        ["--steps", "0"], ["--steps", "x"], ["--steps", "1.5"], ["--hidden", "-3"],
        ["--lr", "0"], ["--lr", "nan"], ["--lr", "inf"], ["--dropout", "1"], ["--dropout", "-0.1"],
        ["--seed", "-1"], ["--threads", "0"], ["--resume", "--restart"], ["--hid", "3"], ["b.txt"],
    ],
)  # fmt: skip
def test_wrong_arguments_end_with_status_2(desk: Desk, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        desk.train(*arguments)
    assert caught.value.code == 2


# --- interrupted, killed, resumed -----------------------------------------------------------------


def run_options(desk: Desk, model: Path, steps: int = 100) -> list[object]:
    return [
        "lm", "train", desk.corpus, "--out", model, "--steps", steps, "--checkpoint-every", 1,
        "--dropout", 0.2, "--layers", 2, *SMALL,
    ]  # fmt: skip


def test_ctrl_c_saves_and_says_how_to_go_on_to_the_same_bits(desk: Desk) -> None:
    whole = desk.folder / "whole"
    assert desk.run(*run_options(desk, whole)) == 0
    process = start(*run_options(desk, desk.model))
    wait_for(desk.checkpoint, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert out == ""
    assert "Traceback" not in err
    done = len(storage.load(desk.checkpoint).arrays["history.losses"])
    assert 0 < done < 100, "the run was to be interrupted in its middle"
    assert not desk.model.exists()

    said = err.rsplit("to go on:\n", 1)[1].split()
    program = [Path(sys.executable).name, "-m", "fastlstm"]
    expected = [*program, *map(str, run_options(desk, desk.model)), "--resume"]
    assert said == expected
    assert desk.run(*said[3:]) == 0
    assert not desk.checkpoint.exists()
    assert_same_models(whole, desk.model)


def test_kill_and_resume_give_the_same_bits(desk: Desk) -> None:
    whole = desk.folder / "whole"
    assert desk.run(*run_options(desk, whole)) == 0
    process = start(*run_options(desk, desk.model))
    wait_for(desk.checkpoint, process)
    process.kill()
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL
    # Settings that are left out are the checkpoint's.
    short = ("lm", "train", desk.corpus, "--out", desk.model, "--resume")
    assert desk.run(*short) == 0
    assert "100 steps of 4 × 16 characters" in desk.err
    assert_same_models(whole, desk.model)


@pytest.fixture
def interrupted(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A desk with the checkpoint of a run that Ctrl-C ended after three steps."""
    original = LanguageNetwork.loss_and_grads
    calls = []

    def interrupting(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return original(*arguments)

    monkeypatch.setattr(LanguageNetwork, "loss_and_grads", interrupting)
    assert desk.train("--steps", 8) == 130
    monkeypatch.setattr(LanguageNetwork, "loss_and_grads", original)
    assert len(storage.load(desk.checkpoint).arrays["history.losses"]) == 3
    return desk


def test_the_command_to_go_on_is_quoted(interrupted: Desk) -> None:
    assert "interrupted; what was learnt so far is in" in interrupted.err
    assert interrupted.err.endswith(" --resume\n")
    assert "Traceback" not in interrupted.err


def test_a_checkpoint_is_not_lost_by_starting_over_in_error(interrupted: Desk) -> None:
    before = interrupted.checkpoint.read_bytes()
    assert interrupted.train("--steps", 8) == 2
    interrupted.assert_fails("go on with --resume, or start over with --restart")
    assert interrupted.checkpoint.read_bytes() == before
    assert interrupted.train("--steps", 8, "--restart") == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", 9], "--steps 9 differs from the checkpoint's 8"),
        (["--seed", 5], "--seed 5 differs from the checkpoint's 0"),
        (["--lr", 0.5], "--lr 0.5 differs"),
        (["--hidden", 13], "--hidden 13 differs from the checkpoint's 12"),
    ],
)
def test_resume_refuses_other_settings(
    interrupted: Desk, arguments: list[object], message: str
) -> None:
    assert interrupted.train("--resume", *arguments) == 2
    interrupted.assert_fails(message)


def test_resume_refuses_another_corpus(interrupted: Desk) -> None:
    interrupted.corpus.write_text(TEXT.replace("cat", "dog"), encoding="utf-8")
    assert interrupted.train("--resume") == 2
    interrupted.assert_fails("differs from the checkpoint's")
    interrupted.corpus.write_text(TEXT + TEXT, encoding="utf-8")
    assert interrupted.train("--resume") == 2
    interrupted.assert_fails(rf"the checkpoint's \({len(TEXT)} characters\)")


def test_resume_takes_the_same_corpus_by_another_name(interrupted: Desk) -> None:
    other = interrupted.folder / "moved.txt"
    interrupted.corpus.rename(other)
    assert interrupted.train("--resume", corpus=other) == 0


def test_resume_needs_a_checkpoint_of_ours(desk: Desk) -> None:
    assert desk.train("--resume") == 2
    desk.assert_fails("--resume: there is no checkpoint")
    storage.save(desk.checkpoint, "checkpoint", {}, {})
    assert desk.train("--resume") == 2
    desk.assert_fails("is no checkpoint of `lm train`")


def test_a_loss_that_explodes_ends_with_status_1(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = LanguageNetwork.loss_and_grads

    def exploding(*arguments: object) -> object:
        _, grads, state = original(*arguments)
        return math.inf, grads, state

    monkeypatch.setattr(LanguageNetwork, "loss_and_grads", exploding)
    assert desk.train("--steps", 5) == 1
    assert "error: training came apart: the loss is inf" in desk.err
    assert "Traceback" not in desk.err
    assert not desk.model.exists()


def test_a_checkpoint_that_cannot_be_written_ends_with_status_1(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lm_train.checkpoints, "save", full)
    assert desk.train("--steps", 5) == 1
    assert "No space left on device" in desk.err
    assert "Traceback" not in desk.err


# --- generate -------------------------------------------------------------------------------------


def test_generate_writes_the_prompt_and_what_follows(desk: Desk, trained: Path) -> None:
    options = ("--prompt", "the cat", "--length", 80, "--seed", 3)
    assert desk.run("lm", "generate", trained, *options) == 0
    expected = LanguageModel.load(trained).generate("the cat", 80, temperature=0.8, seed=3)
    assert desk.out == "the cat" + "".join(expected) + "\n"
    assert desk.err == ""


def test_generate_is_random_without_a_seed(desk: Desk, trained: Path) -> None:
    texts = set()
    for _ in range(2):
        assert desk.run("lm", "generate", trained) == 0
        texts.add(desk.out)
    assert len(texts) == 2


def test_generate_at_temperature_0_is_greedy(desk: Desk, trained: Path) -> None:
    assert desk.run("lm", "generate", trained, "--temperature", 0, "--length", 50) == 0
    expected = "".join(LanguageModel.load(trained).generate("", 50, temperature=0))
    assert desk.out == expected + "\n"


def test_generate_streams(trained: Path) -> None:
    """The first characters are there long before the last one, also in a pipe."""
    process = start("lm", "generate", trained, "--length", 10**8)
    assert process.stdout is not None
    assert len(process.stdout.read(300)) == 300
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err


def test_generate_ends_quietly_when_its_reader_goes_away(trained: Path) -> None:
    process = start("lm", "generate", trained, "--length", 10**8)
    assert process.stdout is not None
    process.stdout.read(10)
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=30)
    assert process.returncode == 141
    assert err == ""


def test_a_character_that_the_terminal_cannot_show_ends_nothing(trained: Path) -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    options = ("--prompt", "合 cat", "--length", 5)
    process = start("lm", "generate", trained, *options, env=environment)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert out.startswith("? cat")


# --- evaluate -------------------------------------------------------------------------------------


def test_evaluate_measures_a_text(desk: Desk, trained: Path) -> None:
    text = "the cat sat on the 合 mat\n"
    desk.corpus.write_text(text, encoding="utf-8")
    bits = LanguageModel.load(trained).bits_per_character(text)
    assert desk.run("lm", "evaluate", trained, desk.corpus) == 0
    assert desk.out.splitlines() == [
        f"bits per character  {bits:.4f}",
        f"perplexity          {2**bits:.4f}",
        f"characters          {len(text)}",
        f"tokens              {len(text)}",
        "unknown characters  1",
    ]
    assert desk.run("lm", "evaluate", trained, desk.corpus, "--json") == 0
    found = json.loads(desk.out)
    assert found.pop("perplexity") == pytest.approx(2**bits)
    expected = {"bits_per_character": bits, "characters": len(text), "tokens": len(text)}
    assert found == expected | {"unknown": 1}


@pytest.mark.parametrize("command", ["generate", "evaluate"])
def test_a_file_that_is_no_model_is_refused(desk: Desk, trained: Path, command: str) -> None:
    further = [] if command == "generate" else [desk.corpus]
    model = desk.model
    whole = trained.read_bytes()
    newer = whole.replace(b'\\"version\\": 1', b'\\"version\\": 9')
    assert newer != whole
    for content, message in (
        (None, "no such file"),
        (TEXT.encode(), "no file of fastlstm's"),
        (b"", "no file of fastlstm's"),
        (whole[: len(whole) // 2], "damaged or cut short"),
        (newer, "newer"),
    ):
        if content is not None:
            model.write_bytes(content)
        assert desk.run("lm", command, model, *further) == 2
        desk.assert_fails(message)
    assert desk.run("lm", command, desk.folder, *further) == 2
    desk.assert_fails("cannot be read: Is a directory")
    storage.save(model, "checkpoint", {"a": np.zeros(1)}, {})
    assert desk.run("lm", command, model, *further) == 2
    desk.assert_fails("expected a file of kind 'language-model'")


def test_evaluate_refuses_what_is_no_text(desk: Desk, trained: Path) -> None:
    assert desk.run("lm", "evaluate", trained, trained) == 2
    desk.assert_fails("no UTF-8 text|binary")


@pytest.mark.parametrize(
    "arguments",
    [["--temperature", "-1"], ["--temperature", "nan"], ["--length", "-1"], ["--seed", "x"]],
)
def test_wrong_arguments_of_generate_end_with_status_2(
    desk: Desk, trained: Path, arguments: list[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        desk.run("lm", "generate", trained, *arguments)
    assert caught.value.code == 2


# --- the rest -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ([], ["fastlstm lm train --out manual.safetensors", "config"]),
        (["lm"], ["train", "generate", "evaluate"]),
        (["lm", "train"], ["examples:", "--resume", "--sequence", "(default: 256)", "Ctrl-C"]),
        (["lm", "generate"], ["examples:", "--temperature", "(default: 0.8)"]),
        (["lm", "evaluate"], ["examples:", "--json", "unknown"]),
        (["config"], ["how this copy was built"]),
    ],
)
def test_help_teaches(
    capsys: pytest.CaptureFixture[str], command: list[str], shown: list[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*command, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for words in shown:
        assert words in text, words
    assert max(map(len, text.splitlines())) <= 100


def test_version_and_config(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"fastlstm {__version__}\n"
    assert main(["config"]) == 0
    assert "instruction set" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["lm"], ["sing"], ["lm", "sing"]])
def test_no_command_is_an_error(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def test_threads_are_set(desk: Desk, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers: list[int] = []
    monkeypatch.setattr("fastlstm.cli.arguments.set_num_threads", numbers.append)
    assert desk.run("lm", "generate", trained, "--threads", 1, "--length", 1) == 0
    assert desk.run("lm", "evaluate", trained, desk.corpus, "--threads", 3) == 0
    assert desk.train("--steps", 1, "--threads", 2) == 0
    assert numbers == [1, 3, 2]
