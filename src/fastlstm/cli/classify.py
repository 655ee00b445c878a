"""``fastlstm classify``: texts into classes, from the command line."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
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
from fastlstm.cli.tables import STDIN, read_texts, write_rows

if TYPE_CHECKING:
    from fastlstm.tasks import TextClassifier

KIND = "text-classifier"
# Texts that are predicted before the first is printed.
AT_ONCE = 256

FILES = """\
FILE is a table with a line of names (.csv, .tsv) or JSON Lines (.jsonl), whose columns
--text-column and --label-column name; any other file has a label, a tab and a text on each line.
"""
TRAIN_DESCRIPTION = f"""\
Learn to put texts into classes: sentiment, topics, languages, spam. Any language will do.

{FILES}
All texts are learnt from. With --held-out 0.1 a tenth of them is not: training ends when it gets no
better on these, and the accuracy on them is printed. Ctrl-C saves the model as it is by then.
"""
TRAIN_EPILOG = """\
examples:
  fastlstm classify train reviews.csv --text-column review --label-column stars --out m.safetensors
      learn from a table
  fastlstm classify train spam.txt --out spam.safetensors
      learn from lines of "label<TAB>text"
  fastlstm classify train reviews.csv --out m.safetensors --vectors glove.6B.100d.txt
      begin with word vectors that others have trained
"""
PREDICT_DESCRIPTION = """\
Put texts into classes. Without a FILE they come from stdin, one on each line, or as JSON Lines.
Printed are JSON Lines with the likeliest label and the probability of each.
"""
PREDICT_EPILOG = """\
examples:
  echo "what a lovely film" | fastlstm classify predict m.safetensors
  fastlstm classify predict m.safetensors new.csv --text-column review > labels.jsonl
  fastlstm classify predict m.safetensors new.txt --output text
      "label<TAB>text", as `classify train` reads it
  echo "what a lovely film" | fastlstm classify predict m.safetensors --explain --output text
      the words in colours: green speaks for the label, red against
"""
EVALUATE_DESCRIPTION = f"""\
Measure a model on texts whose labels are known: accuracy, each label's precision, recall and F1,
and what was taken for what.

{FILES}"""
EVALUATE_EPILOG = """\
examples:
  fastlstm classify evaluate m.safetensors test.csv --text-column review --label-column stars
  fastlstm classify evaluate m.safetensors test.txt --json --picture confusion.png
"""

# The options of `train`: the argument of TextClassifier, its type and default, and what it says.
OPTIONS: dict[str, tuple[str, Any, Any, str]] = {
    "hidden": ("hidden_size", whole(1), 64, "units of each LSTM layer and direction"),
    "layers": ("num_layers", whole(1), 1, "LSTM layers"),
    "embedding": ("embedding_size", whole(1), None,
                  "numbers that stand for a word (default: 100, or those of --vectors)"),
    "min-frequency": ("min_frequency", whole(1), 2, "words that come less often are unknown"),
    "max-vocabulary": ("max_vocabulary", whole(1), None,
                       "the most words, or pieces (default: all words, 8000 pieces)"),
    "dropout": ("dropout", real(least=0, below=1), 0.5, "against learning the texts by heart"),
    "word-dropout": ("word_dropout", real(least=0, below=1), 0.2,
                     "part of the words taken for unknown in training"),
    "epochs": ("epochs", whole(1), 7, "passes over the texts"),
    "patience": ("patience", whole(1), 5,
                 "with --held-out: stop after so many passes that were no better"),
    "batch": ("batch_size", whole(1), 32, "texts a step"),
    "lr": ("learning_rate", real(above=0), 2e-3, "the highest learning rate"),
    "held-out": ("validation_fraction", real(least=0, below=1), 0.0,
                 "part of the texts that is held out, to measure and to stop by"),
}  # fmt: skip


def add_parser(commands: Any) -> None:
    """Add ``classify`` and its commands to the subparsers of `fastlstm`."""
    classify = commands.add_parser(
        "classify",
        help="put texts into classes: sentiment, topics, spam",
        description="Classify texts: learn from examples, predict, measure.",
        allow_abbrev=False,
    )
    kinds = classify.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_train(kinds)
    _add_predict(kinds)
    _add_evaluate(kinds)


def _add_train(kinds: Any) -> None:
    train = add_command(
        kinds, "train", "learn from labelled texts", TRAIN_DESCRIPTION, TRAIN_EPILOG
    )
    train.add_argument("file", metavar="FILE", help='labelled texts; "-" is stdin')
    train.add_argument("--out", required=True, metavar="MODEL", help="the file to write")
    _add_columns(train, labels=True)
    train.add_argument(
        "--level", choices=("word", "whitespace", "subword", "char", "auto"), default="word",
        help="what is read: words (of Chinese, characters), what stands between blanks, pieces of "
        "words, characters, or characters for Chinese and Japanese and words else "
        "(default: %(default)s)",
    )  # fmt: skip
    train.add_argument(
        "--case", action="store_true", help="tell upper from lower case (default: do not)"
    )
    train.add_argument(
        "--pooling", choices=("last", "mean", "max", "attention"), default="max",
        help="what represents a text (default: %(default)s)",
    )  # fmt: skip
    train.add_argument(
        "--vectors", metavar="FILE",
        help="word vectors to begin with: a text file of GloVe, word2vec or fastText (default: "
        "what the texts themselves tell)",
    )  # fmt: skip
    train.add_argument(
        "--letters", action=argparse.BooleanOptionalAction, default=True,
        help="know words by their letters, too, so that unknown ones mean something (default: do)",
    )  # fmt: skip
    train.add_argument(
        "--balanced", action="store_true", help="let rare labels count as much as common ones"
    )
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
    predict = add_command(
        kinds, "predict", "put texts into classes", PREDICT_DESCRIPTION, PREDICT_EPILOG
    )
    predict.add_argument("model", metavar="MODEL", help="what `fastlstm classify train` wrote")
    predict.add_argument(
        "file", metavar="FILE", nargs="?", default=STDIN,
        help="a table, or a text on each line (default: stdin)",
    )  # fmt: skip
    _add_columns(predict, labels=False)
    predict.add_argument(
        "--output", choices=("jsonl", "text"), default="jsonl",
        help='JSON Lines, or lines of "label<TAB>text" (default: %(default)s)',
    )  # fmt: skip
    predict.add_argument(
        "--explain", action="store_true",
        help="what each word adds to the log-odds of the label; with --output text, in colours",
    )  # fmt: skip
    predict.set_defaults(run=predict_texts)


def _add_evaluate(kinds: Any) -> None:
    evaluate = add_command(
        kinds, "evaluate", "measure a model", EVALUATE_DESCRIPTION, EVALUATE_EPILOG
    )
    evaluate.add_argument("model", metavar="MODEL", help="what `fastlstm classify train` wrote")
    evaluate.add_argument("file", metavar="FILE", help='labelled texts; "-" is stdin')
    _add_columns(evaluate, labels=True)
    evaluate.add_argument("--json", action="store_true", help="print a JSON object")
    evaluate.add_argument("--picture", metavar="PNG", help="draw the confusion matrix to this file")
    evaluate.set_defaults(run=evaluate_model)


def _add_columns(command: Any, *, labels: bool) -> None:
    command.add_argument(
        "--text-column", default="text", metavar="NAME",
        help="the column of the texts (default: %(default)s)",
    )  # fmt: skip
    if labels:
        command.add_argument(
            "--label-column", default="label", metavar="NAME",
            help="the column of the labels (default: %(default)s)",
        )  # fmt: skip


# --- train ----------------------------------------------------------------------------------------


def train_model(options: argparse.Namespace) -> int:
    """``fastlstm classify train``."""
    use_threads(options)
    classifier_class = _text_classifier()
    out = Path(options.out)
    check_target(out, KIND)
    texts, labels = read_texts(options.file, options.text_column, options.label_column)
    classifier = classifier_class(
        level=options.level,
        lowercase=not options.case,
        pooling=options.pooling,
        letters=options.letters,
        vectors="texts" if options.vectors is None else Path(options.vectors),
        class_weight="balanced" if options.balanced else None,
        random_state=options.seed,
        verbose=True,
        **{
            argument: getattr(options, name.replace("-", "_"))
            for name, (argument, *_) in OPTIONS.items()
        },
    )
    remark(f"{options.file}: {len(texts):,} texts, {len(set(labels))} labels")
    fit_and_save(classifier, lambda: classifier.fit(texts, labels), out)
    words = len(classifier.tokenizer_.vocabulary)
    remark(f"the model, with {words:,} {_UNITS[classifier.tokenizer_.level]}, is in {out}")
    score = classifier.best_validation_score_
    if score is not None:
        print(f"held-out accuracy: {score:.4f}")
    else:
        remark("how good it is, `fastlstm classify evaluate` tells, on other texts")
    return 0


_UNITS = {"word": "words", "whitespace": "words", "subword": "pieces", "char": "characters"}


def _text_classifier() -> type[TextClassifier]:
    try:
        from fastlstm.tasks import TextClassifier
    except ImportError as error:
        raise CommandError(str(error)) from None
    return TextClassifier


# --- predict --------------------------------------------------------------------------------------


def predict_texts(options: argparse.Namespace) -> int:
    """``fastlstm classify predict``."""
    use_threads(options)
    classifier = load_model(_text_classifier().load, options.model)
    texts, _ = read_texts(options.file, options.text_column)
    if options.output == "jsonl":
        write_rows(_predictions(classifier, texts, explain=options.explain))
        return 0
    for row in _predictions(classifier, texts, explain=False):
        if options.explain:
            explanation = classifier.explain(row["text"])
            shown = explanation.to_terminal() if sys.stdout.isatty() else str(explanation)
            print(f"{row['label']}\t{shown}" if sys.stdout.isatty() else shown, flush=True)
        else:
            print(f"{row['label']}\t{row['text']}", flush=True)
    return 0


def _predictions(
    classifier: TextClassifier, texts: Sequence[str], *, explain: bool
) -> Iterator[Mapping[str, Any]]:
    names = [str(label) for label in classifier.classes_]
    for start in range(0, len(texts), AT_ONCE):
        some = texts[start : start + AT_ONCE]
        for text, proba in zip(some, classifier.predict_proba(some), strict=True):
            row = {
                "text": text,
                "label": names[proba.argmax()],
                "probabilities": dict(zip(names, map(_rounded, proba), strict=True)),
            }
            if explain:
                row["explanation"] = [
                    {
                        "token": token.text,
                        "start": token.start,
                        "stop": token.stop,
                        "contribution": _rounded(token.contribution),
                    }
                    for token in classifier.explain(text).tokens
                ]
            yield row


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


# --- evaluate -------------------------------------------------------------------------------------


def evaluate_model(options: argparse.Namespace) -> int:
    """``fastlstm classify evaluate``."""
    use_threads(options)
    check_picture("--picture", options.picture, plots.CONFUSION)
    classifier = load_model(_text_classifier().load, options.model)
    texts, labels = read_texts(options.file, options.text_column, options.label_column)
    metrics: Any = import_extra("sklearn.metrics", extra="tasks", purpose="measures of classes")
    known = [str(label) for label in classifier.classes_]
    names = [*known, *sorted(set(labels) - set(known))]  # labels of these texts alone, too
    predicted = [str(label) for label in classifier.predict(texts)]
    counts = metrics.confusion_matrix(labels, predicted, labels=names).tolist()
    accuracy = float(metrics.accuracy_score(labels, predicted))
    report: Any = metrics.classification_report(
        labels, predicted, labels=names, output_dict=True, zero_division=0
    )
    if options.json:
        figures = {
            "accuracy": accuracy,
            "texts": len(texts),
            "labels": {name: report[name] for name in names},
            "macro avg": report["macro avg"],
            "confusion": {"labels": names, "counts": counts},
        }
        print(json.dumps(figures, ensure_ascii=False))
    else:
        print(f"accuracy  {accuracy:.4f}  ({len(texts)} texts)\n")
        print(_measures(report, names), _confusions(counts, names), sep="\n\n")
    if options.picture is not None:
        _draw(Path(options.picture), counts, names, f"accuracy {accuracy:.3f}")
    return 0


def _measures(report: Any, names: Sequence[str]) -> str:
    """Precision, recall and F1 of each label, and their means."""
    rows = [["label", "precision", "recall", "F1", "texts"]]
    for name in [*names, "macro avg"]:
        of = report[name]
        figures = (f"{of[key]:.3f}" for key in ("precision", "recall", "f1-score"))
        rows.append([name, *figures, str(int(of["support"]))])
    return _aligned(rows)


def _confusions(counts: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    """Rows are labels, columns what was predicted."""
    head = ["label \\ predicted", *names]
    rows = [[name, *map(str, row)] for name, row in zip(names, counts, strict=True)]
    return _aligned([head, *rows])


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if k else cell.ljust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def _draw(path: Path, counts: Sequence[Sequence[int]], names: Sequence[str], title: str) -> None:
    try:
        plots.confusion_matrix(path, counts, names, title)
    except OSError as error:
        raise CommandError(f"--picture {path}: {reason(error)}", status=1) from None
    remark(f"the confusion matrix is in {path}")
