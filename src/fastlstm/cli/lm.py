"""``fastlstm lm``: the parser of its three commands, and the two that use a model."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import fields
from typing import Any

from fastlstm.cli import lm_train
from fastlstm.cli.arguments import add_command, real, use_threads, whole
from fastlstm.cli.errors import CommandError
from fastlstm.cli.lm_train import Settings
from fastlstm.storage import FormatError
from fastlstm.tasks.corpus import CorpusError, read_corpus
from fastlstm.tasks.language_model import CharacterModel

TRAIN_DESCRIPTION = """\
Learn to write like a text: a character language model from any UTF-8 text file, in any language.

The last 5 % of the text are held out. When training ends, the model is in MODEL, its loss curve in
a PNG of the same name, and printed are the bits per character on what was held out (lower is
better; 8 would be no model at all for ASCII) and a sample. Ctrl-C saves a checkpoint beside the
model and says how to go on; one is also written every --checkpoint-every steps.
"""
TRAIN_EPILOG = """\
examples:
  fastlstm lm train --out manual.safetensors
      learn Python's own manual (pydoc_data.topics), in about two minutes on two cores
  fastlstm lm train dream.txt --out dream.safetensors --steps 5000 --hidden 512 --dropout 0.2
      a bigger model, for longer
  fastlstm lm train dream.txt --out dream.safetensors --resume
      go on after Ctrl-C or a crash, to the same bits as without; the settings are remembered
"""
GENERATE_EPILOG = """\
examples:
  fastlstm lm generate manual.safetensors --prompt "The import statement"
  fastlstm lm generate manual.safetensors --temperature 0.5 --seed 1 --length 2000 > out.txt
      more cautious, and the same text every time
  fastlstm lm generate manual.safetensors --temperature 0
      always the likeliest character
"""
EVALUATE_EPILOG = """\
examples:
  fastlstm lm evaluate manual.safetensors chapter.txt
  fastlstm lm evaluate manual.safetensors chapter.txt --json
"""
# The help of each field of Settings, in the order in which it is shown.
SETTINGS_HELP = {
    "steps": "steps of training; each one reads --batch times --sequence characters",
    "hidden": "units of each LSTM layer: more learn more, and cost more time",
    "layers": "LSTM layers",
    "embedding": "numbers that stand for a character",
    "batch": "places of the text that are read at the same time (fewer for a short text)",
    "sequence": "characters over which a step looks back (truncated backpropagation through time)",
    "lr": "the highest learning rate; it rises at first and falls along a cosine to 0",
    "dropout": "part of the units' outputs that is dropped, against overfitting a small text",
    "seed": "of all that is random: the same seed learns the same model",
}


def add_parser(commands: Any) -> None:
    """Add ``lm`` and its commands to the subparsers of `fastlstm`."""
    lm = commands.add_parser(
        "lm",
        help="train a language model on a text, and let it write",
        description="Character language models: train one, let it write, measure it.",
        allow_abbrev=False,
    )
    kinds = lm.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_train(kinds)
    _add_generate(kinds)
    _add_evaluate(kinds)


def _add_train(kinds: Any) -> None:
    train = add_command(kinds, "train", "learn a text", TRAIN_DESCRIPTION, TRAIN_EPILOG)
    train.add_argument(
        "corpus", nargs="?", metavar="CORPUS",
        help="a UTF-8 text file (default: the language reference that comes with Python)",
    )  # fmt: skip
    train.add_argument("--out", required=True, metavar="MODEL", help="the file to write")
    kinds_of_values = {
        "lr": real(above=0), "dropout": real(least=0, below=1), "seed": whole(0),
    }  # fmt: skip
    for field in fields(Settings):
        train.add_argument(
            f"--{field.name}",
            type=kinds_of_values.get(field.name, whole(1)),
            metavar="X" if field.name in ("lr", "dropout") else "N",
            help=f"{SETTINGS_HELP[field.name]} (default: {field.default})",
        )
    train.add_argument(
        "--checkpoint-every", type=whole(1), default=100, metavar="N",
        help="steps from one checkpoint to the next (default: %(default)s)",
    )  # fmt: skip
    start = train.add_mutually_exclusive_group()
    start.add_argument(
        "--resume", action="store_true", help="go on from the checkpoint of an interrupted run"
    )
    start.add_argument(
        "--restart", action="store_true", help="start over although there is a checkpoint"
    )
    train.set_defaults(run=lm_train.train)


def _add_generate(kinds: Any) -> None:
    generate = add_command(
        kinds, "generate", "let a model write",
        "Let a model write: the prompt and what follows it, to stdout, as it comes.",
        GENERATE_EPILOG,
    )  # fmt: skip
    generate.add_argument("model", metavar="MODEL", help="what `fastlstm lm train` wrote")
    generate.add_argument(
        "--prompt", default="", metavar="TEXT", help="what to go on from (default: nothing)"
    )
    generate.add_argument(
        "--length", type=whole(0), default=500, metavar="N",
        help="characters to write after the prompt (default: %(default)s)",
    )  # fmt: skip
    generate.add_argument(
        "--temperature", type=real(least=0), default=0.8, metavar="X",
        help="1 is as varied as the text learnt, less is more cautious, 0 always takes the "
        "likeliest character (default: %(default)s)",
    )  # fmt: skip
    generate.add_argument(
        "--seed", type=whole(0), metavar="N",
        help="the same seed writes the same text (default: a new one each time)",
    )  # fmt: skip
    generate.set_defaults(run=generate_text)


def _add_evaluate(kinds: Any) -> None:
    evaluate = add_command(
        kinds, "evaluate", "measure a model on a text",
        "Measure how well a model predicts a text: bits per character, lower is better. The whole "
        "text\nis read in one go. A character that the model does not know costs what it grants "
        "to unknown\nones, spread evenly over all of Unicode.",
        EVALUATE_EPILOG,
    )  # fmt: skip
    evaluate.add_argument("model", metavar="MODEL", help="what `fastlstm lm train` wrote")
    evaluate.add_argument("corpus", metavar="CORPUS", help="a UTF-8 text file")
    evaluate.add_argument("--json", action="store_true", help="print a JSON object")
    evaluate.set_defaults(run=evaluate_text)


# --- commands -------------------------------------------------------------------------------------


def generate_text(options: argparse.Namespace) -> int:
    """``fastlstm lm generate``."""
    use_threads(options)
    model = _load_model(options.model)
    pieces = model.generate(
        options.prompt, options.length, temperature=options.temperature, seed=options.seed
    )
    try:
        sys.stdout.write(options.prompt)
        sys.stdout.flush()
        for piece in pieces:
            sys.stdout.write(piece)
            sys.stdout.flush()
    finally:
        sys.stdout.write("\n")
    return 0


def evaluate_text(options: argparse.Namespace) -> int:
    """``fastlstm lm evaluate``."""
    use_threads(options)
    model = _load_model(options.model)
    try:
        text = read_corpus(options.corpus)
    except CorpusError as error:
        raise CommandError(str(error)) from None
    bits = lm_train.scored(model, text)
    unknown = int((model.encode(text) == model.unknown_id).sum())
    if options.json:
        figures = {"bits_per_character": bits, "characters": len(text), "unknown": unknown}
        print(json.dumps(figures))
    else:
        print(f"bits per character  {bits:.4f}")
        print(f"characters          {len(text)}")
        print(f"unknown characters  {unknown}")
    return 0


def _load_model(path: str) -> CharacterModel:
    """The model in a file, or one line that says what is wrong with it."""
    try:
        return CharacterModel.load(path)
    except FileNotFoundError:
        raise CommandError(f"{path}: no such file") from None
    except (FormatError, ImportError) as error:
        raise CommandError(str(error)) from None
    except OSError as error:
        raise CommandError(f"{path}: cannot be read: {error.strerror}") from None
