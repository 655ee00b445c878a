"""The command ``fastlstm``: its parser, and what every command shares.

Results go to stdout, progress and remarks to stderr. Exit statuses: 0 done, 1 failed, 2 wrong
arguments or files, 130 interrupted, 141 the reader of a pipe went away.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Sequence

from fastlstm._config import show_config
from fastlstm._version import __version__
from fastlstm.cli import classify, forecast, lm, recognize, translate
from fastlstm.cli.errors import CommandError, Interrupted

DESCRIPTION = """\
LSTM networks on the CPU. `fastlstm lm` trains and uses language models, `fastlstm classify` puts
texts into classes, `fastlstm translate` translates sentences, `fastlstm recognize` writes down
speech and handwriting, `fastlstm forecast` continues time series.
"""
EPILOG = """\
examples:
  fastlstm lm train --out manual.safetensors
      learn Python's own manual, in about two minutes
  fastlstm lm generate manual.safetensors --prompt "The import statement"
      go on from a prompt
  fastlstm classify train reviews.csv --text-column review --label-column stars --out m.safetensors
      learn to tell good reviews from bad ones
  fastlstm translate train --source train.de --target train.en --out de-en.safetensors
      learn to translate
  fastlstm recognize train digits.csv --out digits.safetensors
      learn to write down recordings, from rows like "zero.wav,0"
  fastlstm forecast train load.csv --target load --out load.safetensors
      learn to forecast a series
  fastlstm config
      how this copy was built, for a bug report
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser; each command's function is its default for `run`."""
    parser = argparse.ArgumentParser(
        prog="fastlstm",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"fastlstm {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    lm.add_parser(commands)
    classify.add_parser(commands)
    translate.add_parser(commands)
    recognize.add_parser(commands)
    forecast.add_parser(commands)
    config = commands.add_parser(
        "config",
        help="print how this copy was built",
        description="Print how this copy was built (compiler, flags, OpenMP) and what it found.",
    )
    config.set_defaults(run=_config)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` (default: this process's arguments) says; the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _make_output_safe()
    try:
        options = build_parser().parse_args(arguments)
        options.arguments = arguments
        status = int(options.run(options))
        sys.stdout.flush()
    except CommandError as error:
        print(f"fastlstm: error: {error}", file=sys.stderr)
        return error.status
    except MemoryError as error:
        print(f"fastlstm: error: out of memory: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        message = f"; {interrupt}" if isinstance(interrupt, Interrupted) and str(interrupt) else ""
        print(f"\nfastlstm: interrupted{message}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read the output has gone (`| head`). Python would complain once more at its exit,
        # when it flushes what is left.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return status


def _make_output_safe() -> None:
    """A terminal that cannot show a character shows a "?"; that ends no command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _config(_options: argparse.Namespace) -> int:
    show_config()
    return 0
