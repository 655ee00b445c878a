"""``fastlstm translate``: sentences into sentences, from the command line."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastlstm._extras import import_extra
from fastlstm.cli import plots
from fastlstm.cli.arguments import add_command, real, use_threads, whole
from fastlstm.cli.errors import CommandError
from fastlstm.cli.models import (
    check_picture,
    check_target,
    fit_and_save,
    load_model,
    reason,
    remark,
)
from fastlstm.cli.tables import STDIN, read_lines, read_texts, write_rows

if TYPE_CHECKING:
    from fastlstm.tasks import Translation, Translator

KIND = "translator"
# Sentences that are translated before the first is printed.
AT_ONCE = 64

PAIRS = """\
Pairs are the lines of two files, --source and --target, or one FILE: a table with a line of names
(.csv, .tsv) or JSON Lines (.jsonl) with the columns --source-column and --target-column; any other
file has a sentence, a tab and its translation on each line.
"""
TRAIN_DESCRIPTION = f"""\
Learn to translate from pairs of sentences, in any languages. Some thousand pairs of short sentences
are the least; training takes minutes to hours.

{PAIRS}
Part of the pairs is held out, or others are given: training ends when it gets no better on these.
Pairs of which one side is blank are left out. Ctrl-C saves the best model so far; with --checkpoint
the same command goes on where it was, also after a crash.
"""
TRAIN_EPILOG = """\
examples:
  fastlstm translate train --source train.de --target train.en --out de-en.safetensors
      learn from two files of as many lines
  fastlstm translate train --source train.de --target train.en --validation-source val.de \\
      --validation-target val.en --checkpoint de-en.checkpoint --out de-en.safetensors
      validate with others, and keep a checkpoint
  fastlstm translate train pairs.txt --level word --out model.safetensors
      lines of "sentence<TAB>translation"; words in place of pieces of words
"""
PREDICT_DESCRIPTION = """\
Translate the lines of a FILE or of stdin: a line of output for each line of input. The translation
of a blank line is blank.
"""
PREDICT_EPILOG = """\
examples:
  echo "ein hund läuft im schnee ." | fastlstm translate predict de-en.safetensors
  fastlstm translate predict de-en.safetensors test.de > test.hyp
  fastlstm translate predict de-en.safetensors test.de --output jsonl --n-best 3
      three translations of each with their log-probabilities
  fastlstm translate predict de-en.safetensors test.de --attention pictures
      draw what each word looked at: pictures/00001.png and so on
"""
EVALUATE_DESCRIPTION = f"""\
Measure a model on pairs of sentences: BLEU and chrF by sacrebleu, with the signatures that say how
they were computed.

{PAIRS}"""
EVALUATE_EPILOG = """\
examples:
  fastlstm translate evaluate de-en.safetensors --source test.de --target test.en
  fastlstm translate evaluate de-en.safetensors --source test.de --target test.en --tokenize none
      for text that is tokenised already
"""

# The options of `train`: the argument of Translator, its type and default, and what it says.
OPTIONS: dict[str, tuple[str, Any, Any, str]] = {
    "hidden": ("hidden_size", whole(1), 512, "units of each LSTM layer"),
    "embedding": ("embedding_size", whole(1), 256, "numbers that stand for a token"),
    "layers": ("num_layers", whole(1), 1, "LSTM layers of the reader, and of the writer"),
    "max-vocabulary": ("max_vocabulary", whole(1), None,
                       "the most tokens of a language (default: 8000 pieces, all words)"),
    "dropout": ("dropout", real(least=0, below=1), 0.3, "against learning the pairs by heart"),
    "label-smoothing": ("label_smoothing", real(least=0, below=1), 0.1,
                        "part of the probability that is spread over all tokens"),
    "epochs": ("epochs", whole(1), 20, "the most passes over the pairs"),
    "patience": ("patience", whole(1), 5, "stop after so many passes that were no better"),
    "batch": ("batch_size", whole(1), 64, "pairs a step"),
    "lr": ("learning_rate", real(above=0), 2e-3, "the highest learning rate"),
    "held-out": ("validation_fraction", real(least=0, below=1), 0.05,
                 "part of the pairs that is held out; 0 trains on all, for all epochs"),
}  # fmt: skip


def add_parser(commands: Any) -> None:
    """Add ``translate`` and its commands to the subparsers of `fastlstm`."""
    translate = commands.add_parser(
        "translate",
        help="translate sentences",
        description="Translate: learn from pairs of sentences, translate, measure.",
        allow_abbrev=False,
    )
    kinds = translate.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_train(kinds)
    _add_predict(kinds)
    _add_evaluate(kinds)


def _add_train(kinds: Any) -> None:
    train = add_command(
        kinds, "train", "learn from pairs of sentences", TRAIN_DESCRIPTION, TRAIN_EPILOG
    )
    _add_pairs(train)
    train.add_argument("--out", required=True, metavar="MODEL", help="the file to write")
    train.add_argument("--validation", metavar="FILE", help="pairs to validate with")
    for side in ("source", "target"):
        train.add_argument(
            f"--validation-{side}", metavar="FILE", help=f"the {side}s of pairs to validate with"
        )
    train.add_argument(
        "--checkpoint", metavar="FILE",
        help="written after each pass; if it is there, training goes on from it",
    )  # fmt: skip
    train.add_argument(
        "--level", choices=("subword", "word", "whitespace", "char", "auto"), default="subword",
        help="what is read and written: pieces of words, words (of Chinese, characters), what "
        "stands between blanks, characters, or characters for Chinese and Japanese and words else "
        "(default: %(default)s)",
    )  # fmt: skip
    train.add_argument("--joint", action="store_true", help="one vocabulary for both languages")
    train.add_argument("--lowercase", action="store_true", help="lower-case everything")
    train.add_argument(
        "--score", choices=("general", "dot", "additive"), default="general",
        help="how attention compares (default: %(default)s)",
    )  # fmt: skip
    for name, (_, kind, default, text) in OPTIONS.items():
        metavar = "N" if kind.__name__ == "whole number" else "X"
        train.add_argument(
            f"--{name}", type=kind, default=default, metavar=metavar,
            help=text + ("" if default is None else " (default: %(default)s)"),
        )  # fmt: skip
    train.add_argument(
        "--seed", type=whole(0), default=0, metavar="N",
        help="of all that is random: the same seed learns the same model (default: %(default)s)",
    )  # fmt: skip
    train.set_defaults(run=train_model)


def _add_predict(kinds: Any) -> None:
    predict = add_command(kinds, "predict", "translate lines", PREDICT_DESCRIPTION, PREDICT_EPILOG)
    predict.add_argument("model", metavar="MODEL", help="what `fastlstm translate train` wrote")
    predict.add_argument(
        "file", metavar="FILE", nargs="?", default=STDIN, help="sentences (default: stdin)"
    )
    _add_search(predict)
    predict.add_argument(
        "--n-best", type=whole(1), default=1, metavar="N",
        help="translations of each sentence, with --output jsonl (default: %(default)s)",
    )  # fmt: skip
    predict.add_argument(
        "--output", choices=("text", "jsonl"), default="text",
        help="lines of text, or JSON Lines with scores (default: %(default)s)",
    )  # fmt: skip
    predict.add_argument(
        "--attention", metavar="FOLDER", help="draw what was looked at, a PNG for each line"
    )
    predict.set_defaults(run=predict_lines)


def _add_evaluate(kinds: Any) -> None:
    evaluate = add_command(
        kinds, "evaluate", "measure a model", EVALUATE_DESCRIPTION, EVALUATE_EPILOG
    )
    evaluate.add_argument("model", metavar="MODEL", help="what `fastlstm translate train` wrote")
    _add_pairs(evaluate)
    _add_search(evaluate)
    evaluate.add_argument(
        "--tokenize", choices=("13a", "intl", "char", "zh", "none"), default="13a",
        help="what cuts sentences into words for BLEU (default: %(default)s)",
    )  # fmt: skip
    evaluate.add_argument("--json", action="store_true", help="print a JSON object")
    evaluate.set_defaults(run=evaluate_model)


def _add_pairs(command: Any) -> None:
    command.add_argument("file", metavar="FILE", nargs="?", help='pairs; "-" is stdin')
    for side in ("source", "target"):
        command.add_argument(f"--{side}", metavar="FILE", help=f"the {side}s, one on each line")
        command.add_argument(
            f"--{side}-column", default=side, metavar="NAME",
            help=f"the column of the {side}s in a table (default: %(default)s)",
        )  # fmt: skip


def _add_search(command: Any) -> None:
    command.add_argument(
        "--beam", type=whole(1), metavar="N",
        help="hypotheses that are followed at once; 1 is greedy (default: the model's, 5)",
    )  # fmt: skip
    command.add_argument(
        "--length-penalty", type=real(least=0), metavar="X",
        help="0 prefers short translations, 1 compares means over tokens (default: the model's)",
    )  # fmt: skip


# --- train ----------------------------------------------------------------------------------------


def train_model(options: argparse.Namespace) -> int:
    """``fastlstm translate train``."""
    use_threads(options)
    translator_class = _translator()
    out = Path(options.out)
    check_target(out, KIND)
    if options.checkpoint is not None:
        check_target(Path(options.checkpoint), "checkpoint", option="--checkpoint")
    pairs = _without_blanks(_read_pairs(options, ""))
    validation = None
    if options.validation or options.validation_source or options.validation_target:
        validation = _without_blanks(_read_pairs(options, "validation-"))
    translator = translator_class(
        level=options.level,
        joint_vocabulary=options.joint,
        lowercase=options.lowercase,
        attention=options.score,
        random_state=options.seed,
        verbose=True,
        **{
            argument: getattr(options, name.replace("-", "_"))
            for name, (argument, *_) in OPTIONS.items()
        },
    )
    remark(f"{len(pairs[0]):,} pairs")
    fit_and_save(
        translator,
        lambda: translator.fit(*pairs, validation, checkpoint=options.checkpoint),
        out,
    )
    remark(f"the model is in {out}")
    validations = translator.history_.validations
    if validations:
        print(f"held-out loss: {min(loss for _, loss in validations):.4f} nats a token")
    return 0


def _read_pairs(options: argparse.Namespace, prefix: str) -> tuple[list[str], list[str]]:
    """Pairs of two files or of one, whatever was named by the options of this prefix."""
    option = prefix.replace("-", "_")
    single = getattr(options, option.rstrip("_") or "file")
    source, target = getattr(options, f"{option}source"), getattr(options, f"{option}target")
    both = f"--{prefix}source and --{prefix}target"
    if single is not None:
        if source is not None or target is not None:
            raise CommandError(f"{single}: give either one file of pairs, or {both}")
        targets, sources = read_texts(
            single, options.target_column, options.source_column,
            line="a sentence, a tab and its translation",
        )  # fmt: skip
        return sources, targets
    if source is None or target is None:
        raise CommandError(f"expected a file of pairs, or {both}")
    sources, targets = read_lines(source), read_lines(target)
    if len(sources) != len(targets):
        raise CommandError(
            f"{source} has {len(sources)} lines and {target} has {len(targets)}; a sentence and "
            "its translation stand on the same line"
        )
    if not sources:
        raise CommandError(f"{source}: is empty")
    return sources, targets


def _without_blanks(pairs: tuple[list[str], list[str]]) -> tuple[list[str], list[str]]:
    kept = [(a, b) for a, b in zip(*pairs, strict=True) if a.strip() and b.strip()]
    if not kept:
        raise CommandError("no pair has two sentences")
    if len(kept) < len(pairs[0]):
        remark(f"{len(pairs[0]) - len(kept)} pairs with a blank side are left out")
    return [a for a, _ in kept], [b for _, b in kept]


def _translator() -> type[Translator]:
    try:
        from fastlstm.tasks import Translator
    except ImportError as error:
        raise CommandError(str(error)) from None
    return Translator


# --- predict --------------------------------------------------------------------------------------


def predict_lines(options: argparse.Namespace) -> int:
    """``fastlstm translate predict``."""
    use_threads(options)
    if options.n_best > 1 and options.output == "text":
        raise CommandError("--n-best: several translations of a line need --output jsonl")
    folder = None if options.attention is None else _check_folder(options.attention)
    translator = load_model(_translator().load, options.model)
    lines = read_lines(options.file)
    rows = _translated(translator, lines, options, folder)
    if options.output == "jsonl":
        write_rows(
            {
                "source": line,
                "translations": [
                    {"text": one.text, "score": one.score, "log_prob": one.log_prob} for one in own
                ],
            }
            for line, own in rows
        )
        return 0
    for _, own in rows:
        print(" ".join(own[0].text.splitlines()), flush=True)
    return 0


def _translated(
    translator: Translator, lines: Sequence[str], options: argparse.Namespace, folder: Path | None
) -> Iterator[tuple[str, list[Translation]]]:
    """Each line and its translations; those of a number of lines are made at once."""
    beam = translator.beam_size if options.beam is None else options.beam
    if options.n_best > beam:
        raise CommandError(f"--n-best: expected at most --beam, which is {beam}")
    for start in range(0, len(lines), AT_ONCE):
        some = lines[start : start + AT_ONCE]
        found = translator.translate(
            some, beam_size=beam, length_penalty=options.length_penalty, n_best=options.n_best,
            return_attention=folder is not None,
        )  # fmt: skip
        for number, (line, own) in enumerate(zip(some, found, strict=True), start + 1):
            if folder is not None and own[0].attention is not None:
                _draw(own[0], folder / f"{number:05d}.png")
            yield line, own


def _check_folder(name: str) -> Path:
    """A folder for pictures, made if it is not there, in which no other pictures are lost."""
    folder = Path(name)
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise CommandError(f"--attention {name}: {reason(error)}") from None
    for path in [folder / "00001.png", *sorted(folder.glob("[0-9][0-9][0-9][0-9][0-9]*.png"))]:
        check_picture("--attention", str(path), plots.ATTENTION)
    return folder


def _draw(translation: Translation, path: Path) -> None:
    try:
        plots.save(translation.plot(), path, plots.ATTENTION)
    except OSError as error:
        raise CommandError(f"--attention {path}: {reason(error)}", status=1) from None


# --- evaluate -------------------------------------------------------------------------------------


def evaluate_model(options: argparse.Namespace) -> int:
    """``fastlstm translate evaluate``."""
    use_threads(options)
    try:
        metrics: Any = import_extra("sacrebleu", extra="translate", purpose="BLEU and chrF").metrics
    except ImportError as error:
        raise CommandError(str(error)) from None
    translator = load_model(_translator().load, options.model)
    sources, targets = _read_pairs(options, "")
    found = translator.translate(
        sources, beam_size=options.beam, length_penalty=options.length_penalty
    )
    said = [own[0].text for own in found]
    rows = {}
    for metric in (
        metrics.BLEU(tokenize=options.tokenize, force=options.tokenize == "none"),
        metrics.CHRF(),
    ):
        score = metric.corpus_score(said, [targets])
        rows[score.name.replace("2", "")] = (score.score, str(metric.get_signature()))
    if options.json:
        figures = {
            name: {"score": value, "signature": signature}
            for name, (value, signature) in rows.items()
        }
        print(json.dumps({**figures, "sentences": len(sources)}))
        return 0
    for name, (value, signature) in rows.items():
        print(f"{name:5} {value:6.2f}   {signature}")
    return 0
