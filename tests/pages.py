"""The pages of the documentation as their tests see them: the fenced blocks, and what each needs.

A page's examples are sessions with prompts; they share their names from block to block. A comment
above a block, which no reader sees, names the packages that it needs beyond our own::

    <!-- needs: torch onnxruntime -->

The word "packed" stands for a processor with packed kernels: what such a block shows holds there.
"""

from __future__ import annotations

import doctest
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from fastlstm import _core

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])

_FENCED = re.compile(
    r"^(?:<!-- needs: (?P<needs>[\w ]+) -->\n+)?```(?P<language>[^\n]*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes
    ----------
    line : int
        Of the page, counted from 0, on which its text begins.
    language : str
        What stands behind the opening fence.
    text : str
    needs : frozenset of str
        Packages without which it cannot run.
    """

    line: int
    language: str
    text: str
    needs: frozenset[str]

    @property
    def is_session(self) -> bool:
        return ">>> " in self.text


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path) -> list[Block]:
    text = path.read_text(encoding="utf-8")
    return [
        Block(
            text.count("\n", 0, found.start("text")),
            found["language"],
            found["text"],
            frozenset((found["needs"] or "").split()),
        )
        for found in _FENCED.finditer(text)
    ]


def prose(path: Path) -> str:
    """A page without its blocks."""
    return _FENCED.sub("", path.read_text(encoding="utf-8"))


def needed(path: Path) -> list[str]:
    """The packages that any block of a page needs."""
    return sorted(frozenset[str]().union(*(block.needs for block in blocks(path))) - {"packed"})


def _can_run(block: Block, everything: bool) -> bool:
    return (everything or block.needs <= {"packed"}) and (
        "packed" not in block.needs or _core.VECTOR[4] > 0
    )


def session(path: Path, *, everything: bool) -> doctest.DocTest:
    """All the sessions of a page, one after another; without `everything`, those with no needs."""
    # Everything else becomes empty lines, so that a failure names the line of the page.
    kept, at = "", 0
    for block in blocks(path):
        if block.is_session and _can_run(block, everything):
            kept += "\n" * (block.line - at) + block.text
            at = block.line + block.text.count("\n")
    return doctest.DocTestParser().get_doctest(kept, {}, relative(path), str(path), 0)


def shell_commands(path: Path) -> list[list[str]]:
    """The commands of a page's shell blocks, each as its words, without variables set before it."""
    commands = []
    for block in blocks(path):
        if block.language != "sh":
            continue
        for line in block.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words:
                end = words.index("&&") if "&&" in words else len(words)
                command, words = words[:end], words[end + 1 :]
                while command and re.fullmatch(r"[A-Z_]+=.*", command[0]):
                    del command[0]
                commands.append(command)
    return commands
