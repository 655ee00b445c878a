"""Long runs that may be cut: language models fitted with a checkpoint, and what that took."""

from __future__ import annotations

import json
import time
import zlib
from pathlib import Path
from typing import Any

from benchmarks.quality.rivals import Seconds
from fastlstm.tasks import LanguageModel, language_model

FOLDER = Path("build/quality")
# Steps from one checkpoint to the next.
EVERY = 500


def fit(name: str, model: LanguageModel, training: str, validation: str) -> Seconds:
    """Fit a model, or go on where the same run was cut.

    A run that was cut counts until its last checkpoint: what came after that is done again.
    """
    trainer = language_model.Trainer.__name__
    run = json.dumps([model.get_params(), trainer, len(training), len(validation)], sort_keys=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    checkpoint = FOLDER / f"{name}-{zlib.crc32(run.encode()):08x}.checkpoint"
    clock = checkpoint.with_suffix(".json")
    before = _before(checkpoint, clock)
    clock.write_text(json.dumps({"before": before, "since": time.time()}), encoding="utf-8")
    start = time.perf_counter()
    how: dict[str, Any] = {"checkpoint_every": EVERY, "resume": checkpoint.exists()}
    model.fit(training, validation=validation, checkpoint=checkpoint, **how)
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
