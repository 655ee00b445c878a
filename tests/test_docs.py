"""What the documentation shows is what happens: its examples are run, its links lead somewhere."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import inspect
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import fastlstm
from fastlstm.cli import build_parser
from tests.pages import PAGES, ROOT, blocks, needed, prose, relative, session, shell_commands

SOURCES = sorted((ROOT / "src" / "fastlstm").rglob("*.py"))
INTEROP = [
    importlib.import_module(f"fastlstm.interop.{folder.name}")
    for folder in sorted((ROOT / "src" / "fastlstm" / "interop").iterdir())
    if (folder / "__init__.py").exists()
]
PEERED = [path for path in PAGES if needed(path)]


@pytest.fixture
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder for the files that examples write, and Keras on the backend that is installed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_BACKEND", "torch")


def run_examples(test: doctest.DocTest) -> int:
    """Run a text's examples, which share their names; return how many there were."""
    report: list[str] = []
    outcome = doctest.DocTestRunner().run(test, out=report.append)
    assert outcome.failed == 0, "".join(report)
    return outcome.attempted


@pytest.mark.usefixtures("_elsewhere")
@pytest.mark.parametrize("path", PAGES, ids=relative)
def test_examples_of_pages(path: Path) -> None:
    run_examples(session(path, everything=False))


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")  # what other packages warn of, among themselves
@pytest.mark.usefixtures("_elsewhere")
@pytest.mark.parametrize("path", PEERED, ids=relative)
def test_examples_of_pages_that_need_other_packages(path: Path) -> None:
    for package in needed(path):
        pytest.importorskip(package)
    run_examples(session(path, everything=True))


def test_the_page_on_the_backward_step_has_its_numbers_from_its_examples() -> None:
    assert run_examples(session(ROOT / "docs" / "backward.md", everything=False)) >= 50


@pytest.mark.parametrize("path", PAGES, ids=relative)
def test_every_block_is_one_that_is_run_or_checked(path: Path) -> None:
    for block in blocks(path):
        where = f"{relative(path)}:{block.line}"
        if block.language in ("python", "pycon"):
            assert block.is_session, f"{where}: code without prompts is not run"
        else:
            assert block.language in ("sh", "math", "text", "") or block.language[0] == "{", where
            assert not block.is_session, f"{where}: a session of no language"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_examples_of_docstrings(path: Path) -> None:
    if ">>>" not in path.read_text(encoding="utf-8"):
        return
    parts = path.relative_to(ROOT / "src").with_suffix("").parts
    name = ".".join(parts).removesuffix(".__init__")
    load = pytest.importorskip if "interop" in parts else importlib.import_module
    module = load(name)
    found = doctest.DocTestFinder(exclude_empty=True).find(module)
    assert sum(run_examples(test) for test in found) > 0


@pytest.mark.parametrize("name", ["LSTM", "Parameters", "Stream"])
def test_the_main_classes_show_an_example(name: str) -> None:
    assert ">>> " in (getattr(fastlstm, name).__doc__ or "")


# --- shell ----------------------------------------------------------------------------------------


def check_command(command: list[str]) -> None:
    """A command of ours takes these arguments; of others, those exist that a page may use."""
    match command:
        case ["fastlstm", *arguments]:
            build_parser().parse_args(arguments)
        case ["make", *arguments]:
            targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
            assert {word for word in arguments if "=" not in word} <= set(targets)
        case ["pip", "install", *arguments]:
            check_requirements([word for word in arguments if word != "-e"])
        case ["python", "-m", module, *_]:
            assert importlib.util.find_spec(module) is not None
        case [("git" | "cd"), *_]:
            pass
        case _:
            raise AssertionError("no page needs this command")


def check_requirements(requirements: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for requirement in requirements:
        found = re.fullmatch(r"(\.|fastlstm)(?:\[([\w,]+)\])?", requirement)
        assert found, f"{requirement}: not our package"
        extras = set(found[2].split(",")) if found[2] else set()
        assert extras <= project["optional-dependencies"].keys()


@pytest.mark.parametrize("path", PAGES, ids=relative)
def test_commands_for_the_shell_are_possible(path: Path) -> None:
    for command in shell_commands(path):
        try:
            check_command(command)
        except (AssertionError, SystemExit) as error:
            pytest.fail(f"{' '.join(command)}: {error!r}")


@pytest.mark.parametrize(
    "command",
    [
        ["fastlstm", "lm", "sing"],
        ["make", "tea"],
        ["pip", "install", ".[coffee]"],
        ["pip", "install", "numpy-of-the-day"],
        ["python", "-m", "benchmarks.tea"],
        ["curl", "somewhere"],
    ],
    ids=" ".join,
)
def test_an_impossible_command_is_found(command: list[str]) -> None:
    with pytest.raises((AssertionError, SystemExit)):
        check_command(command)


# --- links ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES, ids=relative)
def test_links_to_files_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", prose(path))
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


# --- the reference --------------------------------------------------------------------------------


def test_the_reference_has_every_public_name() -> None:
    shown, module = set(), ""
    for path in sorted(ROOT.glob("docs/api/*.md")):
        text = path.read_text(encoding="utf-8")
        for kind, name in re.findall(r"^\.\. (\w+):: ([\w.]+)", text, re.MULTILINE):
            if kind == "currentmodule":
                module = name
            shown.add(name if name.startswith("fastlstm") else f"{module}.{name}")
    public = {
        f"{module.__name__}.{name}"
        for module in (fastlstm, *INTEROP)
        for name in getattr(module, "__all__", vars(module))
        if not name.startswith("_") and not isinstance(vars(module).get(name), ModuleType)
    }
    assert public - shown == set()


def test_the_features_have_every_option_of_the_lstm() -> None:
    text = (ROOT / "docs" / "features.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"`(\w+)`", text))
    assert inspect.signature(fastlstm.LSTM).parameters.keys() - shown == set()
