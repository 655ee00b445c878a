"""Tables that commands read and write: CSV, TSV and JSON Lines, from files or pipes."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastlstm.cli.errors import CommandError

STDIN = "-"
_JSON = (".jsonl", ".ndjson")
_TABLES = (".csv", ".tsv", *_JSON)
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
    return _rows(path, read_lines(path), columns)


def read_texts(
    path: str,
    text_column: str,
    label_column: str | None = None,
    *,
    line: str = "a label, a tab and a text",
) -> tuple[list[str], list[str]]:
    """Texts, and their labels if a column of these is named.

    A table is as `read_table` takes it. A file whose suffix is none of a table, and stdin that
    does not begin with a brace, has a text on each line, or "label<TAB>text"; `line` is what the
    latter is called in messages.

    Raises
    ------
    CommandError
        If there is no such file or column, or a line is not what it should be.
    """
    lines = read_lines(path)
    columns = [text_column] if label_column is None else [text_column, label_column]
    if not path.endswith(_TABLES) and not _is_json(path, lines):
        return _plain_texts(path, lines, None if label_column is None else line)
    rows = _rows(path, lines, columns)
    for k, row in enumerate(rows, 1):
        if not isinstance(row[text_column], str):
            found = json.dumps(row[text_column])
            raise CommandError(f"{path}: row {k}: expected a text, got {found:.40}")
    labels = [] if label_column is None else [str(row[label_column]) for row in rows]
    return [row[text_column] for row in rows], labels


def write_rows(rows: Iterable[Mapping[str, Any]]) -> None:
    """JSON Lines to stdout, each line as soon as it is there."""
    for row in rows:
        print(json.dumps(row, ensure_ascii=False), flush=True)


def _is_json(path: str, lines: Sequence[str]) -> bool:
    return path.endswith(_JSON) or (path == STDIN and lines[:1] != [] and lines[0][:1] == "{")


def _rows(path: str, lines: Sequence[str], columns: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of a table, once each has these columns."""
    if _is_json(path, lines):
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


def _plain_texts(
    path: str, lines: Sequence[str], expected: str | None
) -> tuple[list[str], list[str]]:
    """Of lines that are texts, or "label<TAB>text" if something is expected."""
    if not lines:
        raise CommandError(f"{path}: is empty")
    if expected is None:
        return list(lines), []
    pairs = [line.split("\t", 1) for line in lines]
    for k, pair in enumerate(pairs, 1):
        if len(pair) != 2:
            raise CommandError(
                f"{path}: line {k}: expected {expected}, got {lines[k - 1]!r:.60} "
                f"(tables end in {', '.join(_TABLES)})"
            )
    return [text for _, text in pairs], [label for label, _ in pairs]


def _json_row(path: str, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise CommandError(f"{path}: line {number} is no JSON: {error}") from None
    if not isinstance(row, dict):
        raise CommandError(f"{path}: line {number}: expected a JSON object, got {line[:40]}")
    return row
