"""The tasks, a module for each: it has ``TASK``, a `benchmarks.quality.harness.Task`."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from benchmarks.quality.harness import Task

# In the order of the tables.
_ORDER = [
    "stsa_binary", "rt_polarity", "trec", "tinyshakespeare", "ptb", "multi30k", "spoken_digits",
    "spoken_strings", "pendigits", "omniglot", "japanese_vowels", "etth1",
]  # fmt: skip
NAMES = [name for name in _ORDER if Path(__file__).with_name(f"{name}.py").is_file()]


def load(name: str) -> Task:
    """The task of this name."""
    task: Task = import_module(f"{__name__}.{name}").TASK
    return task
