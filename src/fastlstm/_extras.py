"""Packages that only some of fastlstm needs: imported where they are used, named where absent."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType


def import_extra(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import a module that an optional extra brings along.

    Parameters
    ----------
    module : str
        Such as "safetensors.numpy".
    extra : str
        The extra of ours that installs it.
    purpose : str
        What wants it, as the beginning of a sentence with a plural verb.

    Raises
    ------
    ImportError
        If it is not installed: names the package, the extra, and the command that installs it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        # A package that is there and broken has more to say than its name.
        why = "" if error.name == package else f" ({error})"
        raise ImportError(
            f"{purpose} need {package}{why}: pip install 'fastlstm[{extra}]'", name=package
        ) from None
