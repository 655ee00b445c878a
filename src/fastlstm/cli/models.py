"""The model files of commands: written where nothing else is lost, read with one line of errors."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from fastlstm import storage
from fastlstm.cli import plots
from fastlstm.cli.errors import CommandError, Interrupted

Model = TypeVar("Model")


def check_target(path: Path, kind: str, *, option: str = "--out") -> None:
    """Refuse a model file that could not be written at the end, or would replace another file.

    Parameters
    ----------
    path : Path
        The argument of `option`.
    kind : str
        One of `storage.KINDS`; a file of this kind may be replaced.
    option : str
        For messages.

    Raises
    ------
    CommandError
    """
    try:
        if not path.parent.is_dir():
            raise CommandError(f"{option} {path}: there is no folder {path.parent}")
        if path.is_dir():
            raise CommandError(f"{option} {path}: is a folder; expected the name of a file")
        if path.exists():
            storage.load(path, kind)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".fastlstm-"):
            pass
    except storage.FormatError as error:
        raise CommandError(f"{error}; it is not overwritten, choose another {option}") from None
    except ImportError as error:
        raise CommandError(str(error)) from None
    except OSError as error:
        raise CommandError(f"{option} {path}: cannot be written: {reason(error)}") from None


def check_picture(option: str, path: str | None, software: str) -> None:
    """Refuse a picture that cannot be drawn, or would replace another one.

    Parameters
    ----------
    option : str
        That names it, such as "--plot".
    path : str, optional
    software : str
        What is written into pictures of this kind, which may be replaced; see `plots.is_ours`.

    Raises
    ------
    CommandError
    """
    if path is None:
        return
    if not plots.can_plot():
        raise CommandError(f"{option}: needs matplotlib: pip install 'fastlstm[plot]'")
    target = Path(path)
    try:
        if not target.parent.is_dir():
            raise CommandError(f"{option} {path}: there is no folder {target.parent}")
        if target.exists() and not plots.is_ours(target, software):
            raise CommandError(
                f"{option} {path}: exists and is no {software.removeprefix('fastlstm ')} of "
                "fastlstm's, so it is not overwritten"
            )
    except OSError as error:
        raise CommandError(f"{option} {path}: {reason(error)}") from None


def load_model(load: Callable[[str], Model], path: str) -> Model:
    """The model in a file; a CommandError says what is wrong with it."""
    try:
        return load(path)
    except FileNotFoundError:
        raise CommandError(f"{path}: no such file") from None
    except (storage.FormatError, ImportError) as error:
        raise CommandError(str(error)) from None
    except OSError as error:
        raise CommandError(f"{path}: cannot be read: {reason(error)}") from None


def fit_and_save(estimator: Any, fit: Callable[[], object], path: Path) -> None:
    """Train an estimator, and save it; after Ctrl-C what it has learnt so far.

    Raises
    ------
    CommandError
        If the arguments or the data are not possible, or the file cannot be written.
    Interrupted
        After Ctrl-C.
    """
    try:
        fit()
    except KeyboardInterrupt:
        if not hasattr(estimator, "network_"):
            raise
        _save(estimator, path)
        raise Interrupted(f"the best model so far is in {path}") from None
    except FloatingPointError as error:
        raise CommandError(f"training came apart: {error}; try a smaller --lr", status=1) from None
    except (TypeError, ValueError, ImportError) as error:
        raise CommandError(str(error)) from None
    except BrokenPipeError:  # stderr's reader has gone
        raise
    except OSError as error:  # of a file that is read in training
        name = f"{error.filename}: " if error.filename else ""
        raise CommandError(f"{name}{reason(error)}") from None
    _save(estimator, path)


def _save(estimator: Any, path: Path) -> None:
    try:
        estimator.save(path)
    except OSError as error:
        raise CommandError(f"{path}: cannot be written: {reason(error)}", status=1) from None


def reason(error: OSError) -> str:
    """Why, in the system's words."""
    return error.strerror or str(error)


def remark(text: str) -> None:
    """A line to stderr."""
    print(text, file=sys.stderr, flush=True)
