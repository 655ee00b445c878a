"""show_config(): how this copy of fastlstm was built, and what it found at import."""

from __future__ import annotations

import platform

import numpy as np

from fastlstm import _core
from fastlstm._version import __version__
from fastlstm.threads import blas_libraries, get_num_threads


def config() -> dict[str, str]:
    """The facts that `show_config` prints, by name."""
    return {
        "fastlstm": __version__,
        "Python": platform.python_version(),
        "NumPy": np.__version__,
        "compiler": _core.COMPILER,
        "flags": _core.FLAGS,
        "debug": "yes" if _core.DEBUG else "no",
        "OpenMP": "yes" if _core.OPENMP else "no: one thread",
        "BLAS": f"{blas_libraries()}, {_core.BLAS_INTEGER_BITS}-bit integers",
        "instruction set": _core.ISA,
        "threads": str(get_num_threads()),
    }


def show_config() -> None:
    """Print how fastlstm was built (compiler, flags, OpenMP, debug) and what it found at import.

    Please include the output in a bug report.
    """
    facts = config()
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:<{width}}  {value}")
