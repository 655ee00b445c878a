"""Publish what asv has measured: ``python -m benchmarks.dashboard``.

The pages that asv writes load their libraries from public servers, and stay blank where those
cannot be reached. Here npm fetches the same libraries, they are put beside the pages, and the pages
load those. What was published before is replaced at the very end, so a failure leaves it as it was.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

CONFIG = Path(__file__).parent / "asv.conf.json"
HOUSE = CONFIG.parent.parent / ".asv"  # where CONFIG has asv keep what it makes
PAGES = HOUSE / "html"
ARCHIVES = HOUSE / "libraries"
# The folder of the libraries, beside the pages.
FOLDER = "libraries"


@dataclass(frozen=True)
class Library:
    """A package of the npm registry, and which of its files stand for what asv's pages load."""

    name: str
    version: str
    integrity: str  # of the archive: sha512, in base64
    files: dict[str, str]  # the end of an address in a page -> a file in the package
    beside: tuple[str, ...] = ()  # what those files load in turn

    @property
    def archive(self) -> str:
        return f"{self.name}-{self.version}.tgz"


# What the pages of asv 0.6.4 to 0.6.6 ask for. Those of jquery, flot-orderbars, blueimp-md5 and
# bootstrap are byte for byte the files that asv loads, by the hashes in its page. The package flot
# holds the same version not minified. stupidtable 1.0.1 is not in the registry, and 1.1.3, its one
# version there, does all that asv's pages ask of it.
LIBRARIES = (
    Library(
        "jquery",
        "3.3.1",
        "Ubldcmxp5np52/ENotGxlLe6aGMvmF4R8S6tZjsP6Knsaxd/xp3Zrh50cG93lR6nPXyUFwzN3ZSOQI0wRJNdGg==",
        {"jquery-3.3.1.min.js": "dist/jquery.min.js"},
    ),
    Library(
        "flot",
        "0.8.3",
        "xg2otcTJDvS+ERK+my4wxG/ASq90QURXtoM4LhacCq0jQW2jbyjdttbRNqU2cPykrpMvJ6b2uSp6SAgYAzj9tQ==",
        {
            f"flot/0.8.3/{part}.min.js": f"{part}.js"
            for part in (
                "jquery.flot",
                "jquery.flot.time",
                "jquery.flot.selection",
                "jquery.flot.categories",
            )
        },
    ),
    Library(
        "flot-orderbars",
        "1.0.0",
        "Jv51fvzevUjNXEeozpwEKfPjhiZhfiJddv0WHjduUTCmSF+7T5K7C9c9Y1wIVmUhDBv5fLMjgbwKecT0GIKPZA==",
        {"flot-orderbars@1.0.0/js/jquery.flot.orderBars.js": "js/jquery.flot.orderBars.js"},
    ),
    Library(
        "stupid-table-plugin",
        "1.1.3",
        "2Vk7XouQPxUQPRe9w0Fu7ZZ8kHLK7rDoLMsCgtKxRNJ7f4dSOGvW9CkHsq5wD6QsaEnWoyLBYH3xOEsrK3yWBg==",
        {"stupidtable/1.0.1/stupidtable.min.js": "stupidtable.min.js"},
    ),
    Library(
        "blueimp-md5",
        "2.19.0",
        "DRQrD6gJyy8FbiE4s+bDoXS9hiW3Vbx5uCdwvcCf3zLHL+Iv7LtGHLpr+GZV8rHG8tK766FGYBwRbu8pELTt+w==",
        {"blueimp-md5/2.19.0/js/md5.min.js": "js/md5.min.js"},
    ),
    Library(
        "bootstrap",
        "3.1.1",
        "TAzqS8E/ISpVHP29gYhy+1NSV+FJwApDVQhDfgLYsIuUDJiqJzH2DfORN5tiu+Ie2iBLrzEG34t4Rf465cigqg==",
        {
            "bootstrap@3.1.1/dist/js/bootstrap.min.js": "dist/js/bootstrap.min.js",
            "bootstrap@3.1.1/dist/css/bootstrap.min.css": "dist/css/bootstrap.min.css",
        },
        beside=tuple(
            f"dist/fonts/glyphicons-halflings-regular.{kind}"
            for kind in ("eot", "svg", "ttf", "woff")
        ),
    ),
)


class DashboardError(Exception):
    """The pages cannot be made; the message says why, and what to do."""


# --- The libraries --------------------------------------------------------------------------------


def integrity(data: bytes) -> str:
    return base64.b64encode(hashlib.sha512(data).digest()).decode()


def fetch(libraries: Sequence[Library], archives: Path) -> None:
    """Have npm fetch the archives that are not there yet, and check them all."""
    archives.mkdir(parents=True, exist_ok=True)
    missing = [library for library in libraries if not (archives / library.archive).exists()]
    if missing:
        names = [f"{library.name}@{library.version}" for library in missing]
        # It would rather wait for more than a minute until it says that there is no network.
        options = ["--loglevel=error", "--fetch-retries=1", "--fetch-retry-mintimeout=1000"]
        command = ["npm", "pack", *options, "--pack-destination", str(archives), *names]
        try:
            done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
        except FileNotFoundError:
            raise DashboardError(
                f"npm is not installed, and has to fetch {', '.join(names)}"
            ) from None
        if done.returncode:
            raise DashboardError(
                f"npm could not fetch {', '.join(names)} (above it says why); "
                "once they have been fetched, no network is needed"
            )
    for library in libraries:
        archive = archives / library.archive
        actual = integrity(archive.read_bytes())
        if actual != library.integrity:
            archive.unlink()
            raise DashboardError(
                f"{library.archive}: expected sha512 {library.integrity}, got {actual}; deleted"
            )


def unpack(library: Library, archives: Path, pages: Path) -> None:
    """Put what the pages load of a library, and its licence, beside them."""
    target = pages / FOLDER / library.name
    with tarfile.open(archives / library.archive) as archive:
        names = archive.getnames()
        licences = [name for name in names if name.startswith("package/LICENSE")]
        files = [f"package/{name}" for name in (*library.files.values(), *library.beside)]
        for name in (*files, *licences):
            file = archive.extractfile(name)
            if file is None:
                raise DashboardError(f"{library.archive}: {name} is no file")
            path = target / name.removeprefix("package/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.read())


# --- The pages ------------------------------------------------------------------------------------


class _Loads(HTMLParser):
    """The addresses on other servers from which a page loads something, links aside."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            loads = name == "src" or (name == "href" and tag == "link")
            if loads and re.match(r"\s*(https?:)?//", value or "", re.IGNORECASE):
                self.found.append(str(value))


def remote_loads(page: str) -> list[str]:
    parser = _Loads()
    parser.feed(page)
    parser.close()
    return parser.found


def localized(page: str, libraries: Sequence[Library]) -> str:
    """The page with each library loaded from the folder beside it."""
    local = {
        end: f"{FOLDER}/{library.name}/{file}"
        for library in libraries
        for end, file in library.files.items()
    }

    def rewrite(match: re.Match[str]) -> str:
        tag = match[0]
        for address in remote_loads(tag):
            for end, path in local.items():
                if address.endswith("/" + end):
                    # These go with the other server's file, and a minified one has another hash.
                    tag = re.sub(r'\s(integrity|crossorigin|referrerpolicy)="[^"]*"', "", tag)
                    tag = tag.replace(f'"{address}"', f'"{path}"')
        return tag

    page = re.sub(r"<(script|link)\b[^>]*>", rewrite, page)
    left = remote_loads(page)
    if left:
        raise DashboardError(
            f"asv's page loads what LIBRARIES in benchmarks/dashboard.py does not have: "
            f"{', '.join(left)}"
        )
    return page


def make_self_contained(pages: Path, archives: Path, libraries: Sequence[Library]) -> None:
    """Rewrite the pages in a folder that asv has published, and put the libraries into it."""
    for path in sorted(pages.rglob("*.html")):
        path.write_text(localized(path.read_text("utf-8"), libraries), "utf-8")
    for library in libraries:
        unpack(library, archives, pages)


def replace(old: Path, new: Path) -> None:
    """Let a folder take the place of another, which need not exist."""
    aside = old.with_name(old.name + ".old")
    shutil.rmtree(aside, ignore_errors=True)
    if old.exists():
        old.rename(aside)
    new.rename(old)
    shutil.rmtree(aside, ignore_errors=True)


def publish(pages: Path, archives: Path, libraries: Sequence[Library]) -> None:
    fetch(libraries, archives)
    new = pages.with_name(pages.name + ".new")
    command = [sys.executable, "-m", "asv", "publish", "--config", str(CONFIG)]
    done = subprocess.run([*command, "--html-dir", str(new.absolute())], check=False)
    if done.returncode:
        raise DashboardError(f"asv publish: exit status {done.returncode}")
    make_self_contained(new, archives, libraries)
    replace(pages, new)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=PAGES, metavar="FOLDER", help="of the pages")
    pages = parser.parse_args().out
    try:
        publish(pages, ARCHIVES, LIBRARIES)
    except DashboardError as error:
        state = "are as they were" if pages.exists() else "are not there yet"
        print(f"dashboard.py: {error}. The pages in {pages} {state}.", file=sys.stderr)
        return 1
    print(f"{pages}: look at it with {sys.executable} -m http.server -d {pages}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
