"""``fastlstm lm``: the parser of its three commands, and the two that use a model."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from fastlstm.cli import lm_train
from fastlstm.cli.arguments import add_command, real, use_threads, whole
from fastlstm.cli.errors import CommandError
from fastlstm.cli.lm_train import UNITS, Settings, measured
from fastlstm.cli.tables import write_rows
from fastlstm.storage import FormatError
from fastlstm.tasks.corpus import CorpusError, read_corpus

if TYPE_CHECKING:  # what needs scikit-learn is imported where it is used
    from fastlstm.tasks import LanguageModel

TRAIN_DESCRIPTION = """\
Learn to write like a text: a language model from any UTF-8 text file, in any language, over
characters, words, or pieces of words.

The last 5 % of the text are held out. When training ends, the model is in MODEL, its loss curve in
a PNG of the same name, and printed are a sample and what the model makes of what was held out: bits
per character (lower is better; 8 would be no model at all for ASCII), of words the perplexity.
Ctrl-C saves a checkpoint beside the model and says how to go on; one is also written every
--checkpoint-every steps.
"""
TRAIN_EPILOG = """\
examples:
  fastlstm lm train --out manual.safetensors
      learn Python's own manual (pydoc_data.topics), in about two minutes on two cores
  fastlstm lm train dream.txt --out dream.safetensors --steps 5000 --hidden 512 --dropout 0.2
      a bigger model, for longer
  fastlstm lm train words.txt --out words.safetensors --level word --tied --dropout 0.4
      over words, with the output's weights shared with the embeddings
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
  fastlstm lm generate words.safetensors --prompt "It was" --top-p 0.9 --stop . --length 50
      from the likeliest words that together have 0.9; no further than a full stop
"""
COMPLETE_EPILOG = """\
examples:
  fastlstm lm complete manual.safetensors "The import stat" --stop " "
      ways to complete the word under way
  fastlstm lm complete manual.safetensors "raises a " -n 5 --length 12 --json
"""
EVALUATE_EPILOG = """\
examples:
  fastlstm lm evaluate manual.safetensors chapter.txt
  fastlstm lm evaluate manual.safetensors chapter.txt --json
  fastlstm lm evaluate words.safetensors chapter.txt --dynamic
      also of a model that learns from each part of the text once it was measured on it
"""
CHOICES = {"level": tuple(UNITS), "optimiser": ("adamw", "sgd")}
# The help of each field of Settings, in the order in which it is shown.
SETTINGS_HELP = {
    "steps": "steps of training; each one reads --batch times --sequence characters (or words)",
    "level": "what is predicted: char, word, whitespace (what stands between blanks, for texts "
    "that are tokenised already), or subword",
    "vocabulary": "the most characters, words or pieces (default: all; 8000 pieces)",
    "min_frequency": "what comes less often is unknown (default: 1 for characters, else 2)",
    "hidden": "units of each LSTM layer: more learn more, and cost more time",
    "layers": "LSTM layers",
    "embedding": "numbers that stand for a character (default: 64; --hidden for words)",
    "tied": "let the embeddings be the output's weights, too: for words",
    "batch": "places of the text that are read at the same time (fewer for a short text)",
    "sequence": "characters over which a step looks back (truncated backpropagation through time)",
    "optimiser": "adamw, or sgd, which wants a far higher --lr and a smaller --max-norm",
    "lr": "the highest learning rate; it rises at first and falls along a cosine to 0",
    "weight_decay": "how much the weights shrink by themselves",
    "max_norm": "gradients of a larger norm are scaled down to it",
    "dropout": "part of the units' outputs that is dropped, against overfitting a small text",
    "input_dropout": "part of the embeddings' numbers that is dropped",
    "locked_dropout": "drop the same ones at all places of a sequence",
    "weight_dropout": "part of the recurrent weights that is dropped",
    "seed": "of all that is random: the same seed learns the same model",
}


def add_parser(commands: Any) -> None:
    """Add ``lm`` and its commands to the subparsers of `fastlstm`."""
    lm = commands.add_parser(
        "lm",
        help="train a language model on a text, and let it write",
        description="Language models: train one, let it write, measure it.",
        allow_abbrev=False,
    )
    kinds = lm.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_train(kinds)
    _add_generate(kinds)
    _add_complete(kinds)
    _add_evaluate(kinds)


def _add_train(kinds: Any) -> None:
    train = add_command(kinds, "train", "learn a text", TRAIN_DESCRIPTION, TRAIN_EPILOG)
    train.add_argument(
        "corpus", nargs="?", metavar="CORPUS",
        help="a UTF-8 text file (default: the language reference that comes with Python)",
    )  # fmt: skip
    train.add_argument("--out", required=True, metavar="MODEL", help="the file to write")
    train.add_argument(
        "--held-out", metavar="FILE", help="hold this text out, and not the last 5 %% of CORPUS"
    )
    for field in fields(Settings):
        _add_setting(train, field.name, field.default)
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


def _add_setting(train: Any, name: str, default: Any) -> None:
    """An option; what was not given is None, so that a checkpoint's value can take its place."""
    option, words = f"--{name.replace('_', '-')}", SETTINGS_HELP[name]
    if default is False:
        train.add_argument(option, action="store_true", default=None, help=words)
        return
    kind: Any = whole(1)
    if name == "seed":
        kind = whole(0)
    elif name in ("lr", "max_norm"):
        kind = real(above=0)
    elif name == "weight_decay":
        kind = real(least=0)
    elif name.endswith("dropout"):
        kind = real(least=0, below=1)
    given = "" if default is None else f" (default: {default})"
    if name in CHOICES:
        train.add_argument(option, choices=CHOICES[name], help=words + given)
    else:
        metavar = "X" if isinstance(default, float) else "N"
        train.add_argument(option, type=kind, metavar=metavar, help=words + given)


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
        "--top-k", type=whole(1), metavar="N",
        help="draw from the N likeliest characters, words or pieces only",
    )  # fmt: skip
    generate.add_argument(
        "--top-p", type=real(above=0), metavar="X",
        help="draw from the likeliest ones only that together have this probability",
    )  # fmt: skip
    generate.add_argument(
        "--stop", action="append", metavar="TEXT",
        help="write no more once this was written; may be given several times",
    )  # fmt: skip
    generate.add_argument(
        "--seed", type=whole(0), metavar="N",
        help="the same seed writes the same text (default: a new one each time)",
    )  # fmt: skip
    generate.set_defaults(run=generate_text)


def _add_complete(kinds: Any) -> None:
    complete = add_command(
        kinds, "complete", "show the likeliest ways to go on",
        "Show the likeliest continuations of a prompt, by beam search: log-probability and text, "
        "the\nbest one first.",
        COMPLETE_EPILOG,
    )  # fmt: skip
    complete.add_argument("model", metavar="MODEL", help="what `fastlstm lm train` wrote")
    complete.add_argument("prompt", metavar="TEXT", help="what to go on from")
    complete.add_argument(
        "-n", type=whole(1), default=3, metavar="N", help="how many (default: %(default)s)"
    )
    complete.add_argument(
        "--length", type=whole(1), default=20, metavar="N",
        help="the most characters, words or pieces (default: %(default)s)",
    )  # fmt: skip
    complete.add_argument(
        "--stop", action="append", metavar="TEXT",
        help="a continuation ends with this; may be given several times",
    )  # fmt: skip
    complete.add_argument("--json", action="store_true", help="print JSON Lines")
    complete.set_defaults(run=complete_text)


def _add_evaluate(kinds: Any) -> None:
    evaluate = add_command(
        kinds, "evaluate", "measure a model on a text",
        "Measure how well a model predicts a text: bits per character, lower is better; and its "
        "perplexity\na character, word or piece. The whole text is read in one go. A character "
        "that the model does not\nknow costs what it grants to unknown ones, spread evenly over "
        "all of Unicode; an unknown word what\n<unk> does.",
        EVALUATE_EPILOG,
    )  # fmt: skip
    evaluate.add_argument("model", metavar="MODEL", help="what `fastlstm lm train` wrote")
    evaluate.add_argument("corpus", metavar="CORPUS", help="a UTF-8 text file")
    evaluate.add_argument(
        "--dynamic", nargs="?", type=real(above=0), const=0.1, metavar="RATE",
        help="also let the model learn from each part of the text once it was measured on it, at "
        "this rate (default: %(const)s); MODEL stays as it is",
    )  # fmt: skip
    evaluate.add_argument("--json", action="store_true", help="print a JSON object")
    evaluate.set_defaults(run=evaluate_text)


# --- commands -------------------------------------------------------------------------------------


def generate_text(options: argparse.Namespace) -> int:
    """``fastlstm lm generate``."""
    use_threads(options)
    model = _load_model(options.model)
    try:
        pieces = model.generate(
            options.prompt, options.length, temperature=options.temperature,
            top_k=options.top_k, top_p=options.top_p, stop=options.stop, seed=options.seed,
        )  # fmt: skip
    except ValueError as error:
        raise CommandError(str(error)) from None
    try:
        sys.stdout.write(options.prompt)
        sys.stdout.flush()
        for piece in pieces:
            sys.stdout.write(piece)
            sys.stdout.flush()
    finally:
        sys.stdout.write("\n")
    return 0


def complete_text(options: argparse.Namespace) -> int:
    """``fastlstm lm complete``."""
    use_threads(options)
    model = _load_model(options.model)
    try:
        found = model.complete(options.prompt, options.n, length=options.length, stop=options.stop)
    except ValueError as error:
        raise CommandError(str(error)) from None
    if options.json:
        write_rows(one._asdict() for one in found)
    else:
        for one in found:
            print(f"{one.log_prob:8.3f}  {json.dumps(one.text, ensure_ascii=False)}")
    return 0


def evaluate_text(options: argparse.Namespace) -> int:
    """``fastlstm lm evaluate``."""
    use_threads(options)
    model = _load_model(options.model)
    try:
        text = read_corpus(options.corpus)
    except CorpusError as error:
        raise CommandError(str(error)) from None
    found = measured(model, text)
    figures = {
        "bits_per_character": found.bits,
        "perplexity": found.perplexity,
        "characters": found.characters,
        "tokens": found.tokens,
        "unknown": found.unknown,
    }
    if options.dynamic is not None:
        figures["dynamic_perplexity"] = model.dynamic_perplexity(
            text, learning_rate=options.dynamic
        )
    if options.json:
        print(json.dumps(figures))
        return 0
    for name, value in figures.items():
        shown = f"{value:.4f}" if isinstance(value, float) else str(value)
        print(f"{_LABELS[name].replace('UNITS', UNITS[model.level][1]):<20}{shown}")
    return 0


_LABELS = {
    "bits_per_character": "bits per character",
    "perplexity": "perplexity",
    "characters": "characters",
    "tokens": "tokens",
    "unknown": "unknown UNITS",
    "dynamic_perplexity": "dynamic perplexity",
}


def _load_model(path: str) -> LanguageModel:
    """The model in a file, or one line that says what is wrong with it."""
    try:
        from fastlstm.tasks import LanguageModel

        return LanguageModel.load(path)
    except FileNotFoundError:
        raise CommandError(f"{path}: no such file") from None
    except (FormatError, ImportError) as error:
        raise CommandError(str(error)) from None
    except OSError as error:
        raise CommandError(f"{path}: cannot be read: {error.strerror}") from None
