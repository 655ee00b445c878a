"""Tables that commands read and write: CSV, TSV and JSON Lines, from files or pipes."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fastlstm.cli.errors import CommandError

STDIN = "-"
_LONGEST_FIELD = 2**31 - 1


def read_lines(path: str) -> list[str]:
    """The lines of a UTF-8 file, or of stdin for "-", without their ends."""
    try:
        data = sys.stdin.buffer.read() if path == STDIN else Path(path).read_bytes()
    except FileNotFoundError:
        raise CommandError(f"{path}: no such file") from None
    except OSError as error:
        raise CommandError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CommandError(
            f"{path}: is no UTF-8 text (byte 0x{data[error.start]:02x} at offset {error.start})"
        ) from None
    lines = text.replace("\r\n", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def read_table(path: str, *columns: str) -> list[dict[str, Any]]:
    """The rows of a table, each of which has these columns.

    The suffix says what it is: ".jsonl" JSON Lines, ".tsv" separated by tabs, all else CSV with a
    line of names. "-" is CSV on stdin, or JSON Lines if it begins with a brace.

    Raises
    ------
    CommandError
        If there is no such file or column, or a line is not what it should be.
    """
    lines = read_lines(path)
    if path.endswith((".jsonl", ".ndjson")) or (
        path == STDIN and lines[:1] and lines[0][:1] == "{"
    ):
        rows = [_json_row(path, k, line) for k, line in enumerate(lines, 1) if line.strip()]
    else:
        csv.field_size_limit(_LONGEST_FIELD)
        reader = csv.DictReader(
            (line + "\n" for line in lines), delimiter="\t" if path.endswith(".tsv") else ","
        )
        try:
            rows = list(reader)
        except csv.Error as error:
            raise CommandError(f"{path}: line {reader.line_num}: {error}") from None
    for k, row in enumerate(rows, 1):
        for column in columns:
            if row.get(column) is None:
                found = ", ".join(str(name) for name in row if name is not None)
                raise CommandError(f"{path}: row {k} has no column {column!r}; it has {found}")
    if not rows:
        raise CommandError(f"{path}: has no rows")
    return rows


def write_rows(rows: Iterable[Mapping[str, Any]]) -> None:
    """JSON Lines to stdout, each line as soon as it is there."""
    for row in rows:
        print(json.dumps(row, ensure_ascii=False), flush=True)


def _json_row(path: str, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise CommandError(f"{path}: line {number} is no JSON: {error}") from None
    if not isinstance(row, dict):
        raise CommandError(f"{path}: line {number}: expected a JSON object, got {line[:40]}")
    return row
