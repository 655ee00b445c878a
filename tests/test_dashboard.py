"""The asv pages are self-contained, and the suite that fills them runs on this commit."""

from __future__ import annotations

import io
import itertools
import re
import sys
import tarfile
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from benchmarks import dashboard
from benchmarks.dashboard import LIBRARIES, DashboardError, Library, localized, remote_loads
from benchmarks.suite import lstm as lstm_suite
from benchmarks.suite import words as words_suite

# The tags of asv 0.6.6's index.html, as it has them, the hashes cut short.
CDNJS = "https://cdnjs.cloudflare.com/ajax/libs"
JSDELIVR = "https://cdn.jsdelivr.net/npm"
REST = 'crossorigin="anonymous" referrerpolicy="no-referrer" onerror="js_load_failure()"'
PAGE = f"""<!doctype html>
<html>
  <head>
    <script type="text/javascript">
      function js_load_failure() {{ window.location = "error.html"; }}
    </script>
    <script src="https://code.jquery.com/jquery-3.3.1.min.js" integrity="sha256-F" {REST}></script>
    <script src="{CDNJS}/flot/0.8.3/jquery.flot.min.js" integrity="sha512-eO1=" {REST}></script>
    <script src="{CDNJS}/flot/0.8.3/jquery.flot.time.min.js" integrity="sha512-lc=" {REST}></script>
    <script src="{CDNJS}/flot/0.8.3/jquery.flot.selection.min.js" {REST}></script>
    <script src="{CDNJS}/flot/0.8.3/jquery.flot.categories.min.js" {REST}></script>
    <script language="javascript" src="jquery.flot.axislabels.js"></script>
    <script src="{JSDELIVR}/flot-orderbars@1.0.0/js/jquery.flot.orderBars.js" {REST}></script>
    <script src="{CDNJS}/stupidtable/1.0.1/stupidtable.min.js" {REST}></script>
    <script src="{CDNJS}/blueimp-md5/2.19.0/js/md5.min.js" {REST}></script>
    <script src="{JSDELIVR}/bootstrap@3.1.1/dist/js/bootstrap.min.js" {REST}></script>
    <link rel="stylesheet" href="{JSDELIVR}/bootstrap@3.1.1/dist/css/bootstrap.min.css" {REST}>
    <script language="javascript" type="text/javascript"
            src="asv.js">
    </script>
    <link href="asv.css" rel="stylesheet" type="text/css"/>
  </head>
  <body><a href="https://github.com/airspeed-velocity/asv/"><img src="swallow.png"></a></body>
</html>
"""


class _Loads(HTMLParser):
    """All that a page loads: unlike the code under test, without a look at what it begins with."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [str(v) for k, v in attrs if k == "src" or (k == "href" and tag != "a")]


# --- The pages ------------------------------------------------------------------------------------


def test_a_page_loads_every_library_from_beside_it() -> None:
    page = localized(PAGE, LIBRARIES)
    loads = _Loads(page).found
    assert len(loads) == len(_Loads(PAGE).found)
    assert not [address for address in loads if "//" in address]
    # each file of each library once, in the order of the tags, and nothing else was changed
    ours = [path for path in loads if path.startswith("libraries/")]
    names = {f"libraries/{lib.name}/{file}" for lib in LIBRARIES for file in lib.files.values()}
    assert len(ours) == 10
    assert set(ours) == names
    assert ours[:2] == ["libraries/jquery/dist/jquery.min.js", "libraries/flot/jquery.flot.js"]
    assert [path for path in loads if path not in ours] == [
        "jquery.flot.axislabels.js", "asv.js", "asv.css", "swallow.png",
    ]  # fmt: skip
    assert page.count("js_load_failure()") == PAGE.count("js_load_failure()")
    assert '<a href="https://github.com/airspeed-velocity/asv/">' in page
    assert not re.search("integrity|crossorigin|referrerpolicy", page)
    assert localized(page, LIBRARIES) == page


@pytest.mark.parametrize(
    "tag",
    [
        '<script src="https://example.org/jquery-3.4.0.min.js"></script>',  # another version
        '<script src="https://example.org/not-jquery-3.3.1.min.js"></script>',
        "<script src='http://example.org/other.js'></script>",
        "<script src=HTTPS://example.org/other.js></script>",
        "<SCRIPT SRC=//example.org/other.js></SCRIPT>",
        '<link rel="stylesheet" href="https://example.org/a.css">',
        '<img src="https://example.org/a.png">',
    ],
)
def test_a_page_that_would_still_load_from_elsewhere_is_refused(tag: str) -> None:
    with pytest.raises(DashboardError, match=r"LIBRARIES .*//example\.org/"):
        localized(PAGE.replace("</head>", tag + "</head>"), LIBRARIES)


def test_the_pages_of_the_asv_that_is_installed() -> None:
    asv = pytest.importorskip("asv")
    pages = sorted((Path(asv.__file__).parent / "www").glob("*.html"))
    assert pages
    for path in pages:
        page = path.read_text("utf-8")
        assert not remote_loads(localized(page, LIBRARIES)), path.name
    for path in (Path(asv.__file__).parent / "www").glob("*.[cj]s*"):
        assert not re.search(r"(url\(|@import|script src)[^)]*//", path.read_text("utf-8")), path


# --- Fetching and publishing ----------------------------------------------------------------------

TOY_PAGE = '<script src="https://example.org/toy-1.2.js" integrity="x"></script><a href="//x">x</a>'
TOY_FILES = {"toy.js": b"toy = 1\n", "font.woff": b"font", "LICENSE": b"MIT", "test/big": b"0" * 99}


def pack(path: Path, files: dict[str, bytes]) -> Library:
    """Write a package as npm packs it; returns how the dashboard would name it."""
    with tarfile.open(path / "toy-1.2.tgz", "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    digest = dashboard.integrity((path / "toy-1.2.tgz").read_bytes())
    return Library("toy", "1.2", digest, {"toy-1.2.js": "toy.js"}, beside=("font.woff",))


def program(path: Path, lines: str) -> None:
    path.write_text(f"#!{sys.executable}\n{lines}\n")
    path.chmod(0o755)


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages, and in the place of npm and asv what reads them and writes a page."""
    folder, programs = tmp_path / "registry", tmp_path / "programs"
    folder.mkdir()
    programs.mkdir()
    program(
        programs / "npm",
        f"import shutil, sys\n"
        f"target = sys.argv[sys.argv.index('--pack-destination') + 1]\n"
        f"shutil.copy({str(folder)!r} + '/' + sys.argv[-1].replace('@', '-') + '.tgz', target)",
    )
    (programs / "asv.py").write_text(
        f"import pathlib, sys\n"
        f"folder = pathlib.Path(sys.argv[sys.argv.index('--html-dir') + 1])\n"
        f"folder.mkdir(parents=True, exist_ok=True)\n"
        f"(folder / 'index.html').write_text({TOY_PAGE!r})\n"
    )
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("PYTHONPATH", str(programs))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if not p.is_dir()}


def test_published_pages_have_all_that_they_load(registry: Path, tmp_path: Path) -> None:
    toy = pack(registry, TOY_FILES)
    pages, archives = tmp_path / "html", tmp_path / "archives"
    dashboard.publish(pages, archives, [toy])
    first = contents(pages)
    assert first == {
        "index.html": b'<script src="libraries/toy/toy.js"></script><a href="//x">x</a>',
        "libraries/toy/toy.js": TOY_FILES["toy.js"],
        "libraries/toy/font.woff": TOY_FILES["font.woff"],
        "libraries/toy/LICENSE": TOY_FILES["LICENSE"],
    }
    (pages / "old.json").write_text("of a benchmark that is no more")
    (registry / toy.archive).unlink()  # what was fetched once is not fetched again
    dashboard.publish(pages, archives, [toy])
    assert contents(pages) == first
    assert {path.name for path in tmp_path.iterdir()} == {
        "html", "archives", "registry", "programs",
    }  # fmt: skip


def no_npm(registry: Path) -> str:
    (registry.parent / "programs" / "npm").unlink()
    return r"npm is not installed, and has to fetch toy@1\.2"


def no_network(registry: Path) -> str:
    program(registry.parent / "programs" / "npm", "raise SystemExit(1)")
    return r"npm could not fetch toy@1\.2"


def another_package(registry: Path) -> str:
    pack(registry, TOY_FILES | {"toy.js": b"steal()\n"})
    return r"toy-1\.2\.tgz: expected sha512 .*==, got .*==; deleted"


def another_page(registry: Path) -> str:
    asv = registry.parent / "programs" / "asv.py"
    asv.write_text(asv.read_text().replace("toy-1.2.js", "toy-1.3.js"))
    return r"does not have: https://example\.org/toy-1\.3\.js"


def asv_fails(registry: Path) -> str:
    (registry.parent / "programs" / "asv.py").write_text("raise SystemExit(3)")
    return r"asv publish: exit status 3"


@pytest.mark.parametrize("fault", [no_npm, no_network, another_package, another_page, asv_fails])
def test_a_failure_leaves_the_published_pages_as_they_were(
    fault: Callable[[Path], str],
    registry: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    toy = pack(registry, TOY_FILES)
    pages, archives = tmp_path / "html", tmp_path / "archives"
    monkeypatch.setattr(dashboard, "LIBRARIES", [toy])
    monkeypatch.setattr(dashboard, "ARCHIVES", archives)
    monkeypatch.setattr(sys, "argv", ["dashboard.py", "--out", str(pages)])
    pages.mkdir()
    (pages / "index.html").write_text("as it was")
    expected = fault(registry)
    assert dashboard.main() == 1
    assert contents(pages) == {"index.html": b"as it was"}
    message = capsys.readouterr().err
    assert re.search(expected, message), message
    assert message.endswith(f"The pages in {pages} are as they were.\n")
    if fault is another_package:
        assert not list(archives.iterdir())


# --- The suite ------------------------------------------------------------------------------------


BENCHMARKS: list[tuple[Any, str]] = [
    (suite, method)
    for module in (lstm_suite, words_suite)
    for name, suite in vars(module).items()
    if isinstance(suite, type) and not name.startswith("_")
    for method in vars(suite)
    if method.startswith(("time_", "peakmem_"))
]


def test_the_suite_covers_what_it_says() -> None:
    assert {method for _, method in BENCHMARKS} == {
        "time_forward", "time_backward", "time_training", "peakmem_training", "time_step",
        "time_stream", "time_weight_gradients", "time_softmax_cross_entropy",
    }  # fmt: skip
    for suite, _ in BENCHMARKS:
        assert list(suite.params[-1]) == [1, 2], f"{suite.__name__}: threads"


@pytest.mark.parametrize(("suite", "method"), BENCHMARKS)
def test_a_benchmark_runs(suite: Any, method: str) -> None:
    parameters = min(itertools.product(*suite.params), key=str)
    benchmark = suite()
    benchmark.setup(*parameters)
    getattr(benchmark, method)(*parameters)
