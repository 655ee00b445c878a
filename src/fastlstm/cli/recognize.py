"""``fastlstm recognize``: speech and handwriting into text, from the command line."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastlstm._validate import Array
from fastlstm.cli.arguments import add_command, real, use_threads, whole
from fastlstm.cli.errors import CommandError
from fastlstm.cli.models import check_target, fit_and_save, load_model, remark
from fastlstm.cli.recordings import (
    SOUND,
    SOURCES,
    FrontEnd,
    Sample,
    name_samples,
    read_samples,
    vectors_of,
)
from fastlstm.cli.tables import STDIN, write_rows

if TYPE_CHECKING:
    from fastlstm.tasks import SequenceRecognizer

KIND = "sequence-recognizer"
# Sequences that are read before the first is printed.
AT_ONCE = 64
# Steps of sound that are read as one.
STACK_OF_SOUND = 3

FILES = """\
MANIFEST is a table with a line of names (.csv, .tsv) or JSON Lines (.jsonl). Each row has a text in
the column --text-column, and one of these:
  path       a WAV file, beside the table or in --folder (needs: pip install 'fastlstm[speech]')
  strokes    a pen's drawing, in JSON Lines: [[[x, y], [x, y], ...], ...], a list for each stroke
  sequence   anything else, in JSON Lines: [[...], [...], ...], a list of numbers for each step
"""
TRAIN_DESCRIPTION = f"""\
Learn to write down what is said or drawn, from examples of which only the text is known and not
where each letter of it is (CTC).

{FILES}
A tenth of the rows is held out: training ends when it gets no better on these. Printed is the
error rate on them. Ctrl-C saves the best model so far.
"""
TRAIN_EPILOG = """\
examples:
  fastlstm recognize train digits.csv --out digits.safetensors
      learn from rows like "zero.wav,0"
  fastlstm recognize train speech.csv --out m.safetensors --labels words --folder recordings
      learn whole words; for a few words that all come often
  fastlstm recognize train drawings.jsonl --out pen.safetensors --augment
      learn from rows like {"strokes": [[[0, 0], [1, 2]], [[1, 0], [0, 2]]], "text": "x"}
"""
PREDICT_DESCRIPTION = """\
Write down what is said or drawn. A FILE is a WAV file, or a table as for `recognize train` without
texts; without one, JSON Lines come from stdin. Printed are JSON Lines with the text and the
logarithm of its probability.
"""
PREDICT_EPILOG = """\
examples:
  fastlstm recognize predict digits.safetensors a.wav b.wav --output text
  fastlstm recognize predict digits.safetensors new.csv > texts.jsonl
  fastlstm recognize predict digits.safetensors a.wav --beam 32 --n-best 5 --ngram 0.5
      the five likeliest texts, with n-grams of the training texts as a language model
"""
EVALUATE_DESCRIPTION = f"""\
Measure a model on texts that are known: edits for each character (or label) and for each word that
should be there; 0 is perfect.

{FILES}"""
EVALUATE_EPILOG = """\
examples:
  fastlstm recognize evaluate digits.safetensors test.csv
  fastlstm recognize evaluate digits.safetensors test.csv --beam 32 --json
"""

# The options of `train`: the argument of SequenceRecognizer, its type and default, and what it is.
OPTIONS: dict[str, tuple[str, Any, Any, str]] = {
    "hidden": ("hidden_size", whole(1), 128, "units of each LSTM layer and direction"),
    "layers": ("num_layers", whole(1), 1, "LSTM layers"),
    "dropout": ("dropout", real(least=0, below=1), 0.2, "against learning the rows by heart"),
    "epochs": ("epochs", whole(1), 50, "the most passes over the rows"),
    "patience": ("patience", whole(1), 10, "stop after so many passes that were no better"),
    "batch": ("batch_size", whole(1), 16, "rows a step"),
    "lr": ("learning_rate", real(above=0), 5e-3, "the highest learning rate"),
    "held-out": ("validation_fraction", real(least=0, below=1), 0.1,
                 "part of the rows that is held out; 0 trains on all, for all epochs"),
}  # fmt: skip


def add_parser(commands: Any) -> None:
    """Add ``recognize`` and its commands to the subparsers of `fastlstm`."""
    recognize = commands.add_parser(
        "recognize",
        help="write down speech and handwriting",
        description="Recognise sequences of labels: learn from examples, write down, measure.",
        allow_abbrev=False,
    )
    kinds = recognize.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_train(kinds)
    _add_predict(kinds)
    _add_evaluate(kinds)


def _add_train(kinds: Any) -> None:
    train = add_command(kinds, "train", "learn from examples", TRAIN_DESCRIPTION, TRAIN_EPILOG)
    train.add_argument("manifest", metavar="MANIFEST", help='a table; "-" is stdin')
    train.add_argument("--out", required=True, metavar="MODEL", help="the file to write")
    _add_columns(train, texts=True)
    train.add_argument(
        "--labels", choices=("characters", "words"), default="characters",
        help="what is told apart (default: %(default)s)",
    )  # fmt: skip
    train.add_argument(
        "--features", choices=SOUND, default="mfcc",
        help="of sound: cepstral coefficients and their derivatives, or logarithms of energies "
        "(default: %(default)s)",
    )  # fmt: skip
    train.add_argument(
        "--rate", type=whole(1), metavar="HZ",
        help="of sound: samples per second (default: those of the first recording)",
    )  # fmt: skip
    _add_conversions(train)
    train.add_argument(
        "--stack", type=whole(1), metavar="N",
        help=f"steps that are read as one (default: {STACK_OF_SOUND} of sound, else 1)",
    )  # fmt: skip
    train.add_argument(
        "--augment", action="store_true",
        help="change sound (SpecAugment) and drawings (slant, size, order) anew in each pass",
    )  # fmt: skip
    for name, (_, kind, default, text) in OPTIONS.items():
        metavar = "N" if kind.__name__ == "whole number" else "X"
        train.add_argument(
            f"--{name}", type=kind, default=default, metavar=metavar,
            help=f"{text} (default: %(default)s)",
        )  # fmt: skip
    train.add_argument(
        "--seed", type=whole(0), default=0, metavar="N",
        help="of all that is random: the same seed learns the same model (default: %(default)s)",
    )  # fmt: skip
    train.set_defaults(run=train_model)


def _add_predict(kinds: Any) -> None:
    predict = add_command(
        kinds, "predict", "write down what is said or drawn", PREDICT_DESCRIPTION, PREDICT_EPILOG
    )
    predict.add_argument("model", metavar="MODEL", help="what `fastlstm recognize train` wrote")
    predict.add_argument(
        "files", metavar="FILE", nargs="*", default=[STDIN],
        help="WAV files or tables (default: stdin)",
    )  # fmt: skip
    _add_columns(predict, texts=False)
    _add_conversions(predict)
    _add_decoding(predict)
    predict.add_argument(
        "--n-best", type=whole(1), default=1, metavar="N",
        help="how many texts for each, N at most --beam (default: %(default)s)",
    )  # fmt: skip
    predict.add_argument(
        "--output", choices=("jsonl", "text"), default="jsonl",
        help="JSON Lines, or the texts alone (default: %(default)s)",
    )  # fmt: skip
    predict.set_defaults(run=predict_texts)


def _add_evaluate(kinds: Any) -> None:
    evaluate = add_command(
        kinds, "evaluate", "measure a model", EVALUATE_DESCRIPTION, EVALUATE_EPILOG
    )
    evaluate.add_argument("model", metavar="MODEL", help="what `fastlstm recognize train` wrote")
    evaluate.add_argument("manifest", metavar="MANIFEST", help='a table; "-" is stdin')
    _add_columns(evaluate, texts=True)
    _add_conversions(evaluate)
    _add_decoding(evaluate)
    evaluate.add_argument("--json", action="store_true", help="print a JSON object")
    evaluate.set_defaults(run=evaluate_model)


def _add_columns(command: Any, *, texts: bool) -> None:
    command.add_argument(
        "--path-column", default="path", metavar="NAME",
        help="the column of the WAV files (default: %(default)s)",
    )  # fmt: skip
    command.add_argument(
        "--folder", metavar="FOLDER", help="where they are (default: that of the table)"
    )
    if texts:
        command.add_argument(
            "--text-column", default="text", metavar="NAME",
            help="the column of the texts (default: %(default)s)",
        )  # fmt: skip


def _add_conversions(command: Any) -> None:
    command.add_argument(
        "--resample", action="store_true", help="convert WAV files of another rate"
    )
    command.add_argument("--mono", action="store_true", help="take the mean of several channels")


def _add_decoding(command: Any) -> None:
    command.add_argument(
        "--beam", type=whole(1), metavar="N",
        help="search the likeliest text among N at a time (default: the likeliest alignment)",
    )  # fmt: skip
    command.add_argument(
        "--ngram", type=real(least=0), default=0.0, metavar="X",
        help="weight of n-grams of the training texts, with --beam (default: %(default)s)",
    )  # fmt: skip
    command.add_argument(
        "--bonus", type=real(), default=0.0, metavar="X",
        help="for each label, with --beam; against --ngram, which prefers few (default: 0)",
    )  # fmt: skip


# --- train ----------------------------------------------------------------------------------------


def train_model(options: argparse.Namespace) -> int:
    """``fastlstm recognize train``."""
    use_threads(options)
    recognizer_class = _recognizer()
    out = Path(options.out)
    check_target(out, KIND)
    source, samples = _samples([options.manifest], options, options.text_column)
    front_end = FrontEnd(source, options.features, options.rate or _rate_of(source, samples))
    vectors = vectors_of(front_end, samples, resample=options.resample, mono=options.mono)
    texts = [_labels(sample.text, options.labels) for sample in samples]
    recognizer = recognizer_class(
        stack=options.stack or (STACK_OF_SOUND if source == "path" else 1),
        augment=_augmentation(source, options.features) if options.augment else None,
        front_end=front_end.settings(),
        random_state=options.seed,
        verbose=True,
        **{
            argument: getattr(options, name.replace("-", "_"))
            for name, (argument, *_) in OPTIONS.items()
        },
    )
    remark(f"{options.manifest}: {len(samples):,} {SOURCES[source]}")

    def fit() -> None:
        try:
            recognizer.fit(vectors, texts)
        except (TypeError, ValueError) as error:
            raise type(error)(name_samples(str(error), samples)) from None

    fit_and_save(recognizer, fit, out)
    remark(f"the model, with {len(recognizer.classes_):,} labels, is in {out}")
    if recognizer.validation_error_ is not None:
        print(f"held-out label error rate: {recognizer.validation_error_:.4f}")
    return 0


def _rate_of(source: str, samples: Sequence[Sample]) -> int:
    """Of the first recording."""
    if source != "path":
        return 0
    from fastlstm.tasks.features import read_wav

    try:
        return read_wav(samples[0].value, mono=True)[1]
    except (OSError, ValueError):
        return 0  # what is wrong with it is said when it is read


def _augmentation(source: str, features: str) -> Any:
    from fastlstm.tasks.augmentation import SpecAugment, StrokeDistortion

    if source == "sequence":
        raise CommandError("--augment: is for sound and drawings, not for sequences of anything")
    if source == "strokes":
        return StrokeDistortion()
    # Neighbouring bands sound alike; cepstral coefficients are no neighbours in this sense.
    return SpecAugment() if features == "log-mel" else SpecAugment(feature_masks=0)


def _labels(text: Any, level: str) -> Any:
    return text.split() if level == "words" and isinstance(text, str) else text


def _samples(
    files: Sequence[str], options: argparse.Namespace, text_column: str | None
) -> tuple[str, list[Sample]]:
    return read_samples(
        files, path_column=options.path_column, text_column=text_column, folder=options.folder
    )


def _recognizer() -> type[SequenceRecognizer]:
    try:
        from fastlstm.tasks import SequenceRecognizer
    except ImportError as error:
        raise CommandError(str(error)) from None
    return SequenceRecognizer


# --- predict --------------------------------------------------------------------------------------


def predict_texts(options: argparse.Namespace) -> int:
    """``fastlstm recognize predict``."""
    use_threads(options)
    if options.n_best > (options.beam or 1):
        raise CommandError("--n-best: needs a --beam that is as large at least")
    recognizer, front_end = _load(options)
    source, samples = _samples(options.files, options, None)
    _check_source(front_end, source, options.files[0])
    rows = _readings(recognizer, front_end, samples, options)
    if options.output == "jsonl":
        write_rows(rows)
        return 0
    for row in rows:
        for reading in row.get("readings", [row]):
            print(reading["text"], flush=True)
    return 0


def _readings(
    recognizer: SequenceRecognizer,
    front_end: FrontEnd,
    samples: Sequence[Sample],
    options: argparse.Namespace,
) -> Iterator[Mapping[str, Any]]:
    for start in range(0, len(samples), AT_ONCE):
        some = samples[start : start + AT_ONCE]
        vectors = vectors_of(front_end, some, resample=options.resample, mono=options.mono)
        for sample, row in zip(some, _rows(recognizer, vectors, options), strict=True):
            yield {"name": sample.name, **row}


def _rows(
    recognizer: SequenceRecognizer, vectors: list[Array], options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    try:
        if options.beam is None:
            found = recognizer.predict(vectors)
            exact = recognizer.log_likelihood(vectors, found)
            for labels, log_prob in zip(found, exact, strict=True):
                yield {"text": _text(labels), "log_prob": _rounded(log_prob)}
            return
        for readings in recognizer.transcribe(vectors, n_best=options.n_best, **_beam(options)):
            rows = [
                {"text": _text(labels), "log_prob": _rounded(log_prob), "score": _rounded(score)}
                for labels, score, log_prob in readings
            ]
            yield rows[0] if options.n_best == 1 else {"readings": rows}
    except (TypeError, ValueError) as error:
        raise CommandError(str(error)) from None


def _beam(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "beam_width": options.beam,
        "language_model": "ngram" if options.ngram else None,
        "weight": options.ngram,
        "insertion_bonus": options.bonus,
    }


def _load(options: argparse.Namespace) -> tuple[SequenceRecognizer, FrontEnd]:
    if options.beam is None and (options.ngram or options.bonus):
        raise CommandError("--ngram, --bonus: have no meaning without --beam")
    recognizer = load_model(_recognizer().load, options.model)
    return recognizer, FrontEnd.of_model(options.model, recognizer.front_end)


def _check_source(front_end: FrontEnd, source: str, file: str) -> None:
    if source != front_end.source:
        raise CommandError(
            f"{file}: holds {SOURCES[source]}, and the model has learnt {SOURCES[front_end.source]}"
        )


def _text(labels: Any) -> str:
    return labels if isinstance(labels, str) else " ".join(map(str, labels))


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


# --- evaluate -------------------------------------------------------------------------------------


def evaluate_model(options: argparse.Namespace) -> int:
    """``fastlstm recognize evaluate``."""
    use_threads(options)
    recognizer, front_end = _load(options)
    from fastlstm.tasks.metrics import error_rate

    source, samples = _samples([options.manifest], options, options.text_column)
    _check_source(front_end, source, options.manifest)
    vectors = vectors_of(front_end, samples, resample=options.resample, mono=options.mono)
    decoding = {} if options.beam is None else {"decoder": "beam", **_beam(options)}
    try:
        found = recognizer.predict(vectors, **decoding)
    except (TypeError, ValueError) as error:
        raise CommandError(name_samples(str(error), samples)) from None
    joined = all(isinstance(labels, str) for labels in found)
    truth = [_labels(sample.text, "characters" if joined else "words") for sample in samples]
    texts = [_text(labels) for labels in truth]
    words = [text.split() for text in texts]
    figures = {
        "label_error_rate": error_rate(truth, found),
        "word_error_rate": error_rate(words, [_text(labels).split() for labels in found]),
        "exact": sum(text == _text(labels) for text, labels in zip(texts, found, strict=True)),
        "rows": len(samples),
        "labels": sum(map(len, truth)),
        "words": sum(map(len, words)),
    }
    if options.json:
        print(json.dumps(figures))
        return 0
    name = "character" if joined else "label"
    print(f"{name + ' error rate':<22}{figures['label_error_rate']:.4f}  ({figures['labels']})")
    print(f"{'word error rate':<22}{figures['word_error_rate']:.4f}  ({figures['words']})")
    print(f"{'without an error':<22}{figures['exact']} of {len(samples)}")
    return 0
