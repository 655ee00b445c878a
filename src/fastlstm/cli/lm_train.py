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
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastlstm import checkpoints, storage
from fastlstm._validate import Array
from fastlstm.cli import plots
from fastlstm.cli.arguments import use_threads
from fastlstm.cli.errors import CommandError, Interrupted
from fastlstm.tasks.corpus import (
    DEFAULT_CORPUS,
    CorpusError,
    default_corpus,
    read_corpus,
    split_corpus,
)

if TYPE_CHECKING:  # what needs scikit-learn is imported where it is used
    from fastlstm.tasks import LanguageModel

KIND = "language-model"
ABOUT = "language model"  # where a checkpoint has what is ours
# What a validation reads while training goes on: a part of the held-out text.
VALIDATED = 32_768
SAMPLE_LENGTH, SAMPLE_TEMPERATURE = 400, 0.8


@dataclass(frozen=True)
class Settings:
    """What a run is made of, beside its corpus; a checkpoint goes on under the same ones only."""

    steps: int = 3000
    level: str = "char"
    vocabulary: int | None = None
    min_frequency: int | None = None
    hidden: int = 256
    layers: int = 1
    embedding: int | None = None
    tied: bool = False
    batch: int = 32
    sequence: int = 64
    optimiser: str = "adamw"
    lr: float = 4e-3
    weight_decay: float = 0.0
    max_norm: float = 1.0
    dropout: float = 0.0
    input_dropout: float = 0.0
    locked_dropout: bool = False
    weight_dropout: float = 0.0
    seed: int = 0

    def params(self) -> dict[str, Any]:
        """As arguments of LanguageModel."""
        return {PARAMS.get(f.name, f.name): getattr(self, f.name) for f in fields(self)}

    @classmethod
    def of_params(cls, params: dict[str, Any]) -> Settings:
        """What `params` gave. Raises KeyError or TypeError if it is something else."""
        return cls(**{f.name: params[PARAMS.get(f.name, f.name)] for f in fields(cls)})


# Settings whose name is another one in LanguageModel.
PARAMS = {
    "vocabulary": "max_vocabulary", "hidden": "hidden_size", "layers": "num_layers",
    "embedding": "embedding_size", "batch": "batch_size", "sequence": "sequence_length",
    "lr": "learning_rate", "seed": "random_state",
}  # fmt: skip


@dataclass(frozen=True)
class Corpus:
    """A text that can be learnt from."""

    name: str
    training: str
    held_out: str

    @property
    def validated(self) -> str:
        """What is measured while training goes on: for the curve, nothing is chosen by it."""
        return self.held_out[:VALIDATED]


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
    corpus = _read_corpus(options.corpus, options.held_out)
    settings = _settings(options, files, corpus)

    _remark(
        f"{corpus.name}: {len(corpus.training):,} characters, {len(corpus.held_out):,} more "
        "held out"
    )
    model = _fit(corpus, settings, files, options)
    _attempt(model.save, files.model)
    files.checkpoint.unlink(missing_ok=True)
    _remark(f"the model is in {files.model}")
    _report(model, corpus, settings, files)
    return 0


# --- before any work ------------------------------------------------------------------------------


def _check_packages() -> None:
    try:
        import safetensors  # noqa: F401
        import tqdm  # noqa: F401
    except ImportError as error:
        raise CommandError(f"training needs {error.name}: pip install 'fastlstm[train]'") from None
    try:
        from fastlstm.tasks import LanguageModel  # noqa: F401
    except ImportError as error:
        raise CommandError(str(error)) from None


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


def _read_corpus(path: str | None, held_out: str | None) -> Corpus:
    """The corpus, and what is held out: its last 5 %, or a file of its own."""
    try:
        text = default_corpus() if path is None else read_corpus(path)
        parts = split_corpus(text) if held_out is None else (text, read_corpus(held_out))
    except CorpusError as error:
        raise CommandError(str(error)) from None
    return Corpus(DEFAULT_CORPUS if path is None else path, *parts)


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
        fitting = max(1, len(corpus.training) // settings.sequence)
        settings = replace(settings, batch=min(settings.batch, fitting))
    _check_length(corpus, settings)
    return settings


def _check_length(corpus: Corpus, settings: Settings) -> None:
    """A batch needs a full window in each stream; what is held out must have two characters."""
    needed = settings.batch * settings.sequence + 1 if settings.level == "char" else 2
    if len(corpus.training) < needed or len(corpus.held_out) < 2:
        characters = len(corpus.training) + len(corpus.held_out)
        # The smallest text whose training part, all but the last 5 %, is long enough.
        least = max(40, math.ceil(needed / 0.95))
        raise CommandError(
            f"{corpus.name}: too short: {characters} characters, and --batch {settings.batch} "
            f"--sequence {settings.sequence} need about {least}"
        )


def _resumed_settings(path: Path, given: dict[str, Any], corpus: Corpus) -> Settings:
    from fastlstm.tasks.language_model.model import fingerprint

    try:
        saved = checkpoints.load(path).settings[ABOUT]
        settings, before = Settings.of_params(saved["params"]), dict(saved["texts"])
    except (storage.FormatError, KeyError, TypeError, ValueError) as error:
        raise CommandError(f"--resume: {path} is no checkpoint of `lm train`: {error}") from None
    for name, value in given.items():
        was = getattr(settings, name)
        if value != was:
            option = name.replace("_", "-")
            raise CommandError(
                f"--resume: --{option} {value} differs from the checkpoint's {was}; leave it out "
                "to go on, or start over with --restart"
            )
    mine = fingerprint([corpus.training, corpus.validated])
    if mine != before:
        raise CommandError(
            f"--resume: the corpus {corpus.name} ({mine['characters']} characters) differs from "
            f"the checkpoint's ({before.get('characters')} characters)"
        )
    return settings


# --- training -------------------------------------------------------------------------------------


def _fit(
    corpus: Corpus, settings: Settings, files: Files, options: argparse.Namespace
) -> LanguageModel:
    from fastlstm.tasks import LanguageModel

    model = LanguageModel(
        **settings.params(), validation_fraction=0.0, keep_best=False, verbose=True
    )
    try:
        return model.fit(
            corpus.training,
            validation=corpus.validated,
            checkpoint=files.checkpoint,
            checkpoint_every=options.checkpoint_every,
            resume=options.resume,
        )
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
    except (ValueError, MemoryError, ImportError) as error:
        what = "--resume" if options.resume else "no model of this size or kind can be made"
        raise CommandError(f"{what}: {error}") from None


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


def _report(model: LanguageModel, corpus: Corpus, settings: Settings, files: Files) -> None:
    """Print what the held-out text costs and a sample; draw the loss curve."""
    found = measured(model, corpus.held_out)
    if plots.can_plot():
        history = model.history_
        training = (history.steps, [loss / math.log(2) for loss in history.losses])
        points = [(step, loss / math.log(2)) for step, loss in history.validations]
        points.append((settings.steps, math.log2(found.perplexity)))
        held_out = ([step for step, _ in points], [value for _, value in points])
        title = f"{found.summary()} on what was held out"
        unit = UNITS[settings.level][0]
        _attempt(lambda path: plots.loss_curve(path, training, held_out, title, unit), files.plot)
        _remark(f"its loss curve is in {files.plot}")
    else:
        _remark(plots.HOW_TO_GET)
    if settings.level == "char":
        print(f"held-out bits per character: {found.bits:.4f} ({found.characters} characters)")
    else:
        unit = UNITS[settings.level][1]
        print(f"held-out perplexity: {found.perplexity:.2f} ({found.tokens} {unit})")
    print("\na sample:\n")
    sys.stdout.flush()
    pieces = model.generate(
        length=SAMPLE_LENGTH, temperature=SAMPLE_TEMPERATURE, seed=settings.seed
    )
    for piece in pieces:
        sys.stdout.write(piece)
        sys.stdout.flush()
    print()


UNITS = {
    "char": ("character", "characters"), "word": ("word", "words"),
    "whitespace": ("word", "words"), "subword": ("piece", "pieces"),
}  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """What a text costs a model."""

    level: str
    tokens: int
    characters: int
    unknown: int
    bits: float  # per character
    perplexity: float  # per token

    def summary(self) -> str:
        """The figure that is usual at this level."""
        if self.level == "char":
            return f"{self.bits:.3f} bits per character"
        return f"perplexity {self.perplexity:.2f}"


def measured(model: LanguageModel, text: str) -> Measured:
    """What a text costs, with a progress bar where that takes its time."""
    log_prob = _log_prob(model, text)
    total = float(log_prob.sum())
    return Measured(
        level=model.level,
        tokens=len(log_prob),
        characters=len(text),
        unknown=int((model.vocabulary_.encode(text) == model.vocabulary_.unknown).sum()),
        bits=-total / math.log(2) / len(text),
        perplexity=math.exp(min(700.0, -total / len(log_prob))),
    )


def _log_prob(model: LanguageModel, text: str) -> Array:
    try:
        from tqdm import tqdm
    except ImportError:  # not worth an error: the result is the same
        return model.log_prob(text)
    with tqdm(desc="scoring", unit="token", unit_scale=True, leave=False, delay=2) as bar:
        return model.log_prob(text, on_progress=bar.update)


def _attempt(write: Callable[[Path], None], path: Path) -> None:
    try:
        write(path)
    except OSError as error:
        raise CommandError(f"{path}: cannot be written: {_reason(error)}", status=1) from None


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def _remark(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
