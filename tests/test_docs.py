"""What the documentation shows is what happens: its examples are run, its links lead somewhere."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import pytest

import fastlstm

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
SOURCES = sorted((ROOT / "src" / "fastlstm").rglob("*.py"))
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def run_examples(test: doctest.DocTest) -> int:
    """Run a text's examples, which share their names; return how many there were."""
    report: list[str] = []
    outcome = doctest.DocTestRunner().run(test, out=report.append)
    assert outcome.failed == 0, "".join(report)
    return outcome.attempted


def examples_of_page(path: Path) -> doctest.DocTest:
    """All the sessions of a page (fenced blocks with prompts), one after another."""
    text = path.read_text(encoding="utf-8")
    # Everything else becomes empty lines, so that a failure names the line of the page.
    kept, at = "", 0
    for block in FENCED.finditer(text):
        kept += "\n" * text.count("\n", at, block.start(2))
        kept += block[2] if ">>>" in block[2] else "\n" * block[2].count("\n")
        at = block.end(2)
    return doctest.DocTestParser().get_doctest(kept, {}, relative(path), str(path), 0)


@pytest.mark.parametrize("path", PAGES, ids=relative)
def test_examples_of_pages(path: Path) -> None:
    run_examples(examples_of_page(path))


def test_the_page_on_the_backward_step_has_its_numbers_from_its_examples() -> None:
    assert run_examples(examples_of_page(ROOT / "docs" / "backward.md")) >= 50


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_examples_of_docstrings(path: Path) -> None:
    if ">>>" not in path.read_text(encoding="utf-8"):
        return
    parts = path.relative_to(ROOT / "src").with_suffix("").parts
    module = importlib.import_module(".".join(parts).removesuffix(".__init__"))
    found = doctest.DocTestFinder(exclude_empty=True).find(module)
    assert sum(run_examples(test) for test in found) > 0


@pytest.mark.parametrize("name", ["LSTM", "Parameters", "Stream"])
def test_the_main_classes_show_an_example(name: str) -> None:
    assert ">>> " in (getattr(fastlstm, name).__doc__ or "")


@pytest.mark.parametrize("path", PAGES, ids=relative)
def test_links_to_files_lead_somewhere(path: Path) -> None:
    text = FENCED.sub("", path.read_text(encoding="utf-8"))
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    local = [target for target in targets if not re.match(r"\w+:", target)]
    assert [target for target in local if not (path.parent / target).exists()] == []


def test_pages_that_the_code_names_exist() -> None:
    named = {
        (relative(path), page)
        for path in SOURCES
        for page in re.findall(r"docs/[\w-]+\.md", path.read_text(encoding="utf-8"))
    }
    assert ("src/fastlstm/lstm.py", "docs/backward.md") in named
    assert [entry for entry in sorted(named) if not (ROOT / entry[1]).exists()] == []
