"""fastlstm lm beyond characters: words, pieces, a held-out file, completions, dynamic figures."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from fastlstm.cli import main
from fastlstm.tasks import LanguageModel
from tests.test_cli import TEXT, Desk

WORDS = ["--hidden", "12", "--batch", "4", "--sequence", "8", "--steps", "8"]


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, capsys)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the words of TEXT."""
    folder = tmp_path_factory.mktemp("words")
    corpus, model = folder / "corpus.txt", folder / "model.safetensors"
    corpus.write_text(TEXT, encoding="utf-8")
    options = ["--level", "word", "--tied", *WORDS, "--steps", "60", "--lr", "0.02"]
    assert main(["lm", "train", str(corpus), "--out", str(model), *options]) == 0
    return model


@pytest.mark.parametrize("level", ["word", "whitespace", "subword"])
def test_words_and_pieces_are_learnt_and_written(desk: Desk, level: str) -> None:
    options = ["--vocabulary", 300] if level == "subword" else []
    out = ("--out", desk.model, "--level", level, *options)
    assert desk.run("lm", "train", desk.corpus, *out, *WORDS) == 0
    model = LanguageModel.load(desk.model)
    held_out = TEXT[len(TEXT) - len(TEXT) // 20 :]
    perplexity = model.perplexity(held_out)
    count = len(model.vocabulary_.encode(held_out))
    unit = "pieces" if level == "subword" else "words"
    assert desk.out.startswith(f"held-out perplexity: {perplexity:.2f} ({count} {unit})\n")
    assert f"8 steps of 4 × 8 {unit}" in desk.err
    assert "perplexity=" in desk.err
    assert (desk.folder / "model.png").exists()


def test_settings_reach_the_model(desk: Desk) -> None:
    options = {
        "--level": "word", "--vocabulary": 30, "--min-frequency": 3, "--layers": 2,
        "--dropout": 0.1, "--input-dropout": 0.2, "--weight-dropout": 0.3, "--weight-decay": 0.01,
        "--optimiser": "sgd", "--lr": 2, "--max-norm": 0.25,
    }  # fmt: skip
    given = [word for pair in options.items() for word in pair]
    out = ("--out", desk.model, "--tied", "--locked-dropout", *WORDS, "--steps", 2)
    assert desk.run("lm", "train", desk.corpus, *given, *out) == 0
    model = LanguageModel.load(desk.model)
    found = model.get_params()
    expected = {
        "level": "word", "max_vocabulary": 30, "min_frequency": 3, "num_layers": 2, "tied": True,
        "dropout": 0.1, "input_dropout": 0.2, "weight_dropout": 0.3, "locked_dropout": True,
        "weight_decay": 0.01, "hidden_size": 12, "batch_size": 4, "sequence_length": 8,
        "steps": 2, "learning_rate": 2, "random_state": 0, "embedding_size": None,
        "optimiser": "sgd", "max_norm": 0.25,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected
    assert model.vocabulary_.outputs <= 32


def test_a_file_may_be_held_out(desk: Desk) -> None:
    other = desk.folder / "other.txt"
    other.write_text("the cat sat on mat 3.\n", encoding="utf-8")
    assert desk.train("--steps", 3, "--held-out", other) == 0
    model = LanguageModel.load(desk.model)
    bits = model.bits_per_character(other.read_text(encoding="utf-8"))
    assert desk.out.startswith(f"held-out bits per character: {bits:.4f} (22 characters)\n")
    assert desk.train("--steps", 3, "--held-out", desk.folder / "nothing") == 2
    desk.assert_fails("nothing: no such file")


def test_what_contradicts_itself_is_refused(desk: Desk) -> None:
    assert desk.train("--tied", "--steps", 2) == 2
    assert "error: no model of this size or kind can be made: tied" in desk.err
    assert not desk.model.exists()


@pytest.mark.parametrize(
    "arguments",
    [["--level", "letter"], ["--weight-decay", "-1"], ["--input-dropout", "1"],
     ["--vocabulary", "0"], ["--min-frequency", "0"], ["--optimiser", "lion"], ["--max-norm", "0"]],
)  # fmt: skip
def test_wrong_settings_end_with_status_2(desk: Desk, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        desk.train(*arguments)
    assert caught.value.code == 2


def test_resume_refuses_another_level(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastlstm.tasks.language_model.network import LanguageNetwork

    def interrupting(*_: Any) -> Any:
        raise KeyboardInterrupt

    original = LanguageNetwork.loss_and_grads
    calls: list[int] = []

    def thrice(*arguments: Any) -> Any:
        calls.append(1)
        return (interrupting if len(calls) == 4 else original)(*arguments)

    monkeypatch.setattr(LanguageNetwork, "loss_and_grads", thrice)
    assert desk.train("--steps", 8, "--checkpoint-every", 1) == 130
    monkeypatch.undo()
    assert desk.train("--resume", "--level", "word") == 2
    desk.assert_fails("--level word differs from the checkpoint's char")
    assert desk.train("--resume", "--locked-dropout") == 2
    desk.assert_fails("--locked-dropout True differs from the checkpoint's False")
    assert desk.train("--resume") == 0


# --- generate, complete, evaluate -----------------------------------------------------------------


def test_generate_has_the_options_of_the_model(desk: Desk, words: Path) -> None:
    options = ("--prompt", "the cat", "--length", 30, "--seed", 2, "--temperature", 1)
    model = LanguageModel.load(words)
    for given, expected in (
        (["--top-k", 3], {"top_k": 3}),
        (["--top-p", 0.5], {"top_p": 0.5}),
        (["--stop", ".", "--stop", "\n"], {"stop": [".", "\n"]}),
    ):
        assert desk.run("lm", "generate", words, *options, *given) == 0
        pieces = model.generate("the cat", 30, seed=2, **expected)
        assert desk.out == "the cat" + "".join(pieces) + "\n"
    assert desk.run("lm", "generate", words, "--top-p", 1.5) == 2
    desk.assert_fails("top_p: expected")
    assert desk.run("lm", "generate", words, "--stop", "") == 2
    desk.assert_fails("stop: expected")


def test_complete_shows_the_likeliest(desk: Desk, words: Path) -> None:
    expected = LanguageModel.load(words).complete("the cat sat", 4, length=3)
    assert desk.run("lm", "complete", words, "the cat sat", "-n", 4, "--length", 3) == 0
    lines = [f"{one.log_prob:8.3f}  {json.dumps(one.text)}" for one in expected]
    assert desk.out.splitlines() == lines
    assert desk.run("lm", "complete", words, "the cat sat", "-n", 4, "--length", 3, "--json") == 0
    rows = [json.loads(line) for line in desk.out.splitlines()]
    assert rows == [one._asdict() for one in expected]
    assert desk.run("lm", "complete", words, "the", "--stop", "") == 2
    desk.assert_fails("stop: expected")
    assert desk.run("lm", "complete", desk.corpus, "the") == 2
    desk.assert_fails("no file of fastlstm's")


def test_evaluate_words_and_dynamically(desk: Desk, words: Path) -> None:
    text = "the zebra sat on mat 3.\n" * 3
    desk.corpus.write_text(text, encoding="utf-8")
    model = LanguageModel.load(words)
    assert desk.run("lm", "evaluate", words, desk.corpus, "--dynamic") == 0
    shown = dict(re.split(r"  +", line) for line in desk.out.splitlines())
    assert shown == {
        "bits per character": f"{model.bits_per_character(text):.4f}",
        "perplexity": f"{model.perplexity(text):.4f}",
        "characters": str(len(text)),
        "tokens": str(len(model.tokens(text))),
        "unknown words": "3",
        "dynamic perplexity": f"{model.dynamic_perplexity(text):.4f}",
    }
    assert desk.run("lm", "evaluate", words, desk.corpus, "--json", "--dynamic", 0.5) == 0
    found = json.loads(desk.out)["dynamic_perplexity"]
    assert found == model.dynamic_perplexity(text, learning_rate=0.5)


def test_a_file_of_a_character_model_is_used(desk: Desk) -> None:
    old = Path(__file__).parent / "witnesses" / "language_models" / "character-model.safetensors"
    assert desk.run("lm", "generate", old, "--length", 5, "--seed", 0) == 0
    assert len(desk.out) == 6
    assert desk.run("lm", "evaluate", old, desk.corpus) == 0


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("train", ["--level", "--tied", "--held-out", "over words"]),
        ("generate", ["--top-k", "--top-p", "--stop"]),
        ("complete", ["examples:", "--stop", "beam search", "-n N"]),
        ("evaluate", ["--dynamic", "perplexity"]),
    ],
)
def test_help_teaches(capsys: pytest.CaptureFixture[str], command: str, shown: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["lm", command, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for part in shown:
        assert part in text, part
    assert max(map(len, text.splitlines())) <= 100
