"""How long an import takes, in a process of its own each time."""

from __future__ import annotations


def timeraw_import_fastlstm() -> str:
    return "import fastlstm"


def timeraw_import_what_fastlstm_needs() -> str:
    """What the import of fastlstm cannot be faster than, to be set beside it."""
    return "import numpy, scipy.linalg.cython_blas"
