"""What the parsers of all commands are made of: a command, and numbers within bounds."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any

from fastlstm.threads import set_num_threads


def add_command(kinds: Any, name: str, summary: str, description: str, epilog: str) -> Any:
    """A command among subparsers, with the option --threads that all have."""
    command = kinds.add_parser(
        name,
        help=summary,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_argument(
        "--threads", type=whole(1), metavar="N", help="threads to use (default: all cores)"
    )
    return command


def use_threads(options: argparse.Namespace) -> None:
    """Do as --threads says."""
    if options.threads is not None:
        set_num_threads(options.threads)


def whole(least: int) -> Callable[[str], int]:
    """The type of an argument that is a whole number from `least` on."""

    def whole_number(text: str) -> int:
        value = int(text)
        if not least <= value < 2**31:
            raise argparse.ArgumentTypeError(f"expected a whole number >= {least}, got {text}")
        return value

    whole_number.__name__ = "whole number"
    return whole_number


def real(
    *, least: float = -math.inf, above: float = -math.inf, below: float = math.inf
) -> Callable[[str], float]:
    """The type of an argument that is a number within bounds."""

    def number(text: str) -> float:
        value = float(text)
        if not (least <= value and above < value < below):
            terms = {">=": least, ">": above, "<": below}
            bounds = " and ".join(f"{k} {v:g}" for k, v in terms.items() if math.isfinite(v))
            raise argparse.ArgumentTypeError(f"expected a number {bounds}, got {text}")
        return value

    return number
