"""Long runs that may be cut: estimators fitted with a checkpoint, and what that took."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.quality.rivals import Seconds
from fastlstm.tasks import LanguageModel
from fastlstm.tasks._base import estimator as base
from fastlstm.tasks.language_model import model as language_model

FOLDER = Path("build/quality")
# Steps from one checkpoint to the next.
EVERY = 500


def fit(name: str, model: LanguageModel, training: str, validation: str) -> Seconds:
    """Fit a language model, or go on where the same run was cut."""
    trainer = language_model.Trainer.__name__
    run = [model.get_params(), trainer, len(training), len(validation)]

    def train(checkpoint: Path) -> None:
        how: dict[str, Any] = {"checkpoint_every": EVERY, "resume": checkpoint.exists()}
        model.fit(training, validation=validation, checkpoint=checkpoint, **how)

    return timed(name, run, train)


def fit_by_epochs(name: str, estimator: Any, *parts: Any) -> Seconds:
    """Fit an estimator that goes on from the checkpoint it is told, as Translator does.

    What it is fitted on must be told apart by its lengths.
    """
    run = [estimator.get_params(), base.Trainer.__name__, *map(len, parts)]
    return timed(name, run, lambda checkpoint: estimator.fit(*parts, checkpoint=checkpoint))


def timed(name: str, run: list[Any], train: Callable[[Path], object]) -> Seconds:
    """Seconds of ``train(checkpoint)``, those of earlier tries at the same run counted in.

    A run that was cut counts until its last checkpoint: what came after that is done again.
    """
    key = zlib.crc32(json.dumps(run, sort_keys=True).encode())
    FOLDER.mkdir(parents=True, exist_ok=True)
    checkpoint = FOLDER / f"{name}-{key:08x}.checkpoint"
    clock = checkpoint.with_suffix(".json")
    before = _before(checkpoint, clock)
    clock.write_text(json.dumps({"before": before, "since": time.time()}), encoding="utf-8")
    start = time.perf_counter()
    train(checkpoint)
    seconds = before + time.perf_counter() - start
    checkpoint.unlink(missing_ok=True)
    clock.unlink(missing_ok=True)
    return Seconds(seconds)


def _before(checkpoint: Path, clock: Path) -> float:
    """Seconds that the checkpoint stands for."""
    if not checkpoint.exists() or not clock.exists():
        checkpoint.unlink(missing_ok=True)
        return 0.0
    kept = json.loads(clock.read_text(encoding="utf-8"))
    return float(kept["before"]) + max(0.0, checkpoint.stat().st_mtime - float(kept["since"]))
