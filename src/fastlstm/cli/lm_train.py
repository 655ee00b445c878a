"""``fastlstm lm train``: from a corpus to a model, its loss curve and a sample.

In order: everything that can be wrong is looked at, before any work; the Trainer runs; the model is
saved; only then is it measured, drawn and made to write, so that Ctrl-C costs nothing any more.
"""

from __future__ import annotations

import argparse
import math
import shlex
import sys
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from fastlstm import checkpoints, storage
from fastlstm.cli import plots
from fastlstm.cli.arguments import use_threads
from fastlstm.cli.errors import CommandError, Interrupted
from fastlstm.optim import Adam
from fastlstm.schedules import cosine
from fastlstm.tasks.corpus import (
    DEFAULT_CORPUS,
    CorpusError,
    default_corpus,
    read_corpus,
    split_corpus,
)
from fastlstm.tasks.language_model import KIND, CharacterModel, StreamBatches
from fastlstm.training import History, Trainer

MAX_NORM = 1.0  # of the gradients
WARMUP = 100  # steps; fewer in a short run
VALIDATIONS = 15  # in a whole run
# What a validation reads while training goes on: a part of the held-out text, in parallel streams.
VALIDATED, VALIDATION_STREAMS, VALIDATION_STEPS = 32_768, 16, 64
ABOUT = "language model"  # where a checkpoint has what is ours
SAMPLE_LENGTH, SAMPLE_TEMPERATURE = 400, 0.8


@dataclass(frozen=True)
class Settings:
    """What a run is made of, beside its corpus; a checkpoint goes on under the same ones only."""

    steps: int = 3000
    hidden: int = 256
    layers: int = 1
    embedding: int = 64
    batch: int = 32
    sequence: int = 64
    lr: float = 4e-3
    dropout: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Corpus:
    """A text that can be learnt from."""

    name: str
    training: str
    held_out: str

    def fingerprint(self) -> dict[str, Any]:
        """What a checkpoint remembers of it."""
        text = self.training + self.held_out
        return {"characters": len(text), "crc32": zlib.crc32(text.encode())}


@dataclass(frozen=True)
class Files:
    """Where a run writes."""

    model: Path
    checkpoint: Path
    plot: Path

    @classmethod
    def beside(cls, out: str) -> Files:
        model = Path(out)
        return cls(model, model.with_name(model.name + ".checkpoint"), model.with_suffix(".png"))


def train(options: argparse.Namespace) -> int:
    """``fastlstm lm train``."""
    use_threads(options)
    if not options.out.strip() or not Path(options.out).name:
        raise CommandError(f"--out: expected the name of a file, got {options.out!r}")
    files = Files.beside(options.out)
    _check_packages()
    _check_files(files, options)
    corpus = _read_corpus(options.corpus)
    settings = _settings(options, files, corpus)

    model = _model(settings, corpus)
    _describe(model, corpus, settings)
    history = _fit(model, corpus, settings, files, options)
    _attempt(model.save, files.model)
    files.checkpoint.unlink(missing_ok=True)
    _remark(f"the model is in {files.model}")
    _report(model, corpus, history, settings, files)
    return 0


# --- before any work ------------------------------------------------------------------------------


def _check_packages() -> None:
    try:
        import safetensors  # noqa: F401
        import tqdm  # noqa: F401
    except ImportError as error:
        raise CommandError(f"training needs {error.name}: pip install 'fastlstm[train]'") from None


def _check_files(files: Files, options: argparse.Namespace) -> None:
    """Refuse what would fail at the end of training, or destroy what is not ours."""
    model, checkpoint = files.model, files.checkpoint
    if model.suffix.lower() == ".png":
        raise CommandError(
            f"--out {model}: that name is the loss curve's; name the model otherwise"
        )
    try:
        if not model.parent.is_dir():
            raise CommandError(f"--out {model}: there is no folder {model.parent}")
        _check_replaceable(model, KIND)
        _check_replaceable(checkpoint, checkpoints.KIND)
        if files.plot.exists() and not plots.is_ours(files.plot):
            raise CommandError(
                f"{files.plot}: exists and is no loss curve of fastlstm's, so it is not "
                "overwritten; choose another --out"
            )
        with tempfile.NamedTemporaryFile(dir=model.parent, prefix=".fastlstm-"):
            pass
    except OSError as error:
        raise CommandError(f"--out {model}: cannot be written: {_reason(error)}") from None
    if options.resume and not checkpoint.exists():
        raise CommandError(f"--resume: there is no checkpoint {checkpoint}")
    if checkpoint.exists() and not (options.resume or options.restart):
        raise CommandError(
            f"{checkpoint} holds an interrupted run: go on with --resume, or start over with "
            "--restart"
        )


def _check_replaceable(path: Path, kind: str) -> None:
    """A file in the place of one that we write must be of the same kind."""
    if not path.exists():
        return
    if path.is_dir():
        raise CommandError(f"--out: {path} is a folder; expected the name of a file")
    try:
        storage.load(path, kind)
    except storage.FormatError as error:
        raise CommandError(f"{error}; it is not overwritten, choose another --out") from None


def _read_corpus(path: str | None) -> Corpus:
    try:
        text = default_corpus() if path is None else read_corpus(path)
    except CorpusError as error:
        raise CommandError(str(error)) from None
    return Corpus(DEFAULT_CORPUS if path is None else path, *split_corpus(text))


def _settings(options: argparse.Namespace, files: Files, corpus: Corpus) -> Settings:
    """What was given, else the checkpoint's when it is resumed, else the defaults."""
    given = {
        field.name: getattr(options, field.name)
        for field in fields(Settings)
        if getattr(options, field.name) is not None
    }
    if options.resume:
        return _resumed_settings(files.checkpoint, given, corpus)
    settings = Settings(**given)
    if "batch" not in given:
        fitting = (len(corpus.training) - 1) // settings.sequence
        settings = Settings(**{**given, "batch": max(1, min(settings.batch, fitting))})
    _check_length(corpus, settings)
    return settings


def _check_length(corpus: Corpus, settings: Settings) -> None:
    """A batch needs a full window in each stream; what is held out must have two characters."""
    needed = settings.batch * settings.sequence + 1
    if len(corpus.training) < needed or len(corpus.held_out) < 2:
        characters = len(corpus.training) + len(corpus.held_out)
        # The smallest text whose training part, all but the last 5 %, is long enough.
        least = max(40, math.ceil(needed / 0.95))
        raise CommandError(
            f"{corpus.name}: too short: {characters} characters, and --batch {settings.batch} "
            f"--sequence {settings.sequence} need about {least}"
        )


def _resumed_settings(path: Path, given: dict[str, Any], corpus: Corpus) -> Settings:
    try:
        saved = checkpoints.load(path).settings[ABOUT]
        settings, fingerprint = Settings(**saved["settings"]), dict(saved["corpus"])
    except (storage.FormatError, KeyError, TypeError, ValueError) as error:
        raise CommandError(f"--resume: {path} is no checkpoint of `lm train`: {error}") from None
    for name, value in given.items():
        before = getattr(settings, name)
        if value != before:
            raise CommandError(
                f"--resume: --{name} {value} differs from the checkpoint's {before}; leave it out "
                "to go on, or start over with --restart"
            )
    mine = corpus.fingerprint()
    if mine != fingerprint:
        raise CommandError(
            f"--resume: the corpus {corpus.name} ({mine['characters']} characters) differs from "
            f"the checkpoint's ({fingerprint.get('characters')} characters)"
        )
    return settings


def _model(settings: Settings, corpus: Corpus) -> CharacterModel:
    try:
        return CharacterModel.for_text(
            corpus.training,
            embedding_size=settings.embedding,
            hidden_size=settings.hidden,
            num_layers=settings.layers,
            dropout=settings.dropout,
            rng=settings.seed,
        )
    except (ValueError, MemoryError) as error:  # what is left to be wrong is the size
        raise CommandError(f"no model of this size can be made: {error}") from None


# --- training -------------------------------------------------------------------------------------


def _describe(model: CharacterModel, corpus: Corpus, settings: Settings) -> None:
    parameters = sum(array.size for array in model.parameters().values())
    _remark(
        f"{corpus.name}: {len(corpus.training):,} characters, {len(model.characters)} different "
        f"ones, {len(corpus.held_out):,} more held out\n"
        f"{settings.layers} layer(s) of {settings.hidden} units, {parameters:,} parameters; "
        f"{settings.steps} steps of {settings.batch} × {settings.sequence} characters"
    )


def _fit(
    model: CharacterModel,
    corpus: Corpus,
    settings: Settings,
    files: Files,
    options: argparse.Namespace,
) -> History:
    batches = StreamBatches(model.encode(corpus.training), settings.batch, settings.sequence)
    trainer = Trainer(
        model,
        Adam(model.parameters(), settings.lr),
        schedule=cosine(settings.steps, warmup=min(WARMUP, settings.steps // 10)),
        max_norm=MAX_NORM,
        carry_state=True,
        seed=settings.seed,
        checkpoint=files.checkpoint,
        checkpoint_every=options.checkpoint_every,
        validate=_validation(model, corpus.held_out),
        validate_every=max(1, settings.steps // VALIDATIONS),
        describe=_bits,
        unit="char",
        units_per_step=round(batches.characters / len(batches)),
        settings={ABOUT: {"settings": asdict(settings), "corpus": corpus.fingerprint()}},
    )
    if options.resume:
        try:
            trainer.resume(files.checkpoint)
        except ValueError as error:
            raise CommandError(f"--resume: {error}") from None
    try:
        return trainer.fit(batches, steps=settings.steps)
    except KeyboardInterrupt:
        raise Interrupted(_how_to_go_on(files.checkpoint, options.arguments)) from None
    except FloatingPointError as error:
        raise CommandError(
            f"training came apart: {error}; start over with --restart and a smaller --lr than "
            f"{settings.lr:g}",
            status=1,
        ) from None
    except BrokenPipeError:  # stderr's reader has gone
        raise
    except OSError as error:
        raise CommandError(f"{files.checkpoint}: {_reason(error)}", status=1) from None


def _validation(model: CharacterModel, text: str) -> Callable[[], float]:
    """Bits per character on the beginning of a text, quickly: for the curve, not for the result."""
    ids = model.encode(text[:VALIDATED])
    streams = max(1, min(VALIDATION_STREAMS, len(ids) // VALIDATION_STEPS))
    batches = StreamBatches(ids, streams, VALIDATION_STEPS)

    return lambda: model.bits_per_character_of(batches)


def _bits(loss: float) -> dict[str, str]:
    """What the progress bar shows beside the loss."""
    return {"bits": f"{loss / math.log(2):.3f}"}


def _how_to_go_on(checkpoint: Path, arguments: list[str]) -> str:
    if not checkpoint.exists():
        return ""
    kept = [argument for argument in arguments if argument not in ("--resume", "--restart")]
    program = ["fastlstm"]
    if Path(sys.argv[0]).name == "__main__.py":
        program = [Path(sys.executable).name, "-m", "fastlstm"]
    command = shlex.join([*program, *kept, "--resume"])
    return f"what was learnt so far is in {checkpoint}; to go on:\n  {command}"


# --- the end --------------------------------------------------------------------------------------


def _report(
    model: CharacterModel, corpus: Corpus, history: History, settings: Settings, files: Files
) -> None:
    """Print the held-out bits per character and a sample; draw the loss curve."""
    bits = scored(model, corpus.held_out)
    if plots.can_plot():
        training = (history.steps, [loss / math.log(2) for loss in history.losses])
        points = [*history.validations, (settings.steps, bits)]
        held_out = ([step for step, _ in points], [value for _, value in points])
        title = f"{bits:.3f} bits per character on what was held out"
        _attempt(lambda path: plots.loss_curve(path, training, held_out, title), files.plot)
        _remark(f"its loss curve is in {files.plot}")
    else:
        _remark(plots.HOW_TO_GET)
    print(f"held-out bits per character: {bits:.4f} ({len(corpus.held_out)} characters)")
    print("\na sample:\n")
    sys.stdout.flush()
    pieces = model.generate("", SAMPLE_LENGTH, temperature=SAMPLE_TEMPERATURE, seed=settings.seed)
    for piece in pieces:
        sys.stdout.write(piece)
        sys.stdout.flush()
    print()


def scored(model: CharacterModel, text: str) -> float:
    """Bits per character of a text, with a progress bar where that takes its time."""
    try:
        from tqdm import tqdm
    except ImportError:  # not worth an error: the result is the same
        return model.bits_per_character(text)
    with tqdm(total=len(text), desc="scoring", unit="char", unit_scale=True, leave=False,
              delay=2) as bar:  # fmt: skip
        return model.bits_per_character(text, on_progress=bar.update)


def _attempt(write: Callable[[Path], None], path: Path) -> None:
    try:
        write(path)
    except OSError as error:
        raise CommandError(f"{path}: cannot be written: {_reason(error)}", status=1) from None


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def _remark(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
