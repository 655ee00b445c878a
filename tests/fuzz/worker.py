"""One process that loads one file after another, and watches what each does.

    python -m tests.fuzz.worker LOADER SEED START STOP PROGRESS
    python -m tests.fuzz.worker LOADER FILE...

What goes wrong is a line of JSON on stdout. PROGRESS is a file that says how far it is, for whoever
has to go on after this process has died. Without it, the files are those that are named.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import mmap
import random
import resource
import struct
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fastlstm.storage import FormatError
from tests.fuzz.loaders import LOADERS, Loader

# Bytes beside the multiple of a file's size: memory comes in pages, and whatever a library makes
# once for itself.
SLACK = 16 << 20
# Bytes that a process may take beyond what it has when it begins: far more than any file's right.
LIMIT = 2 << 30
# Index, files that loaded, files that were refused, failures; the largest growth of memory and the
# size of the file that did it; the largest multiple of a file of over a megabyte, in thousandths.
FIELDS = ("index", "valid", "refused", "failed", "growth", "growth_size", "multiple")
PROGRESS = struct.Struct(f"<{len(FIELDS)}Q")

# What no loader has any business to do. Files other than the one that is loaded are in `open`.
FORBIDDEN = (
    "exec", "compile", "import", "code.__new__", "marshal.", "pickle.", "os.", "subprocess.",
    "socket.", "ctypes.", "shutil.", "tempfile.", "glob.", "pathlib.", "urllib.", "sqlite3.",
    "webbrowser.", "pty.", "signal.", "sys.settrace", "sys.setprofile", "sys.addaudithook",
)  # fmt: skip


class Watch:
    """Records what the interpreter is asked to do while a file is loaded."""

    def __init__(self) -> None:
        self._path: str | None = None
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if self._path is None:
            return
        if event == "open":
            if str(arguments[0]) != self._path or set(str(arguments[1])) & set("wax+"):
                self.seen.append(f"open {arguments[0]!r} {arguments[1]!r}")
        elif event == "import":
            self.seen.append(f"import {arguments[0]}")
        elif event.startswith(FORBIDDEN):
            self.seen.append(f"{event} {str(arguments)[:200]}")

    @contextmanager
    def over(self, path: Path) -> Iterator[None]:
        self.seen = []
        self._path = str(path)
        try:
            yield
        finally:
            self._path = None


class Memory:
    """The most that the process held since `begin`, beyond what it held then."""

    def __init__(self) -> None:
        self._before = 0
        self._trim = ctypes.CDLL(None).malloc_trim

    def begin(self) -> None:
        self._trim(0)  # what was freed counts again when it is taken again
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        self._before = _status("VmRSS")

    def growth(self) -> int:
        return max(0, _status("VmHWM") - self._before)


def _status(field: str) -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        for line in file:
            if line.startswith(field):
                return 1024 * int(line.split()[1])
    raise AssertionError(field)


def input_of(name: str, seed: int, index: int, seeds: list[bytes]) -> bytes:
    """The changed file of this number, the same in every process."""
    rng = random.Random(f"{name} {seed} {index}")
    return LOADERS[name].change(rng, rng.choice(seeds), seeds)


class Failure(Exception):  # noqa: N818
    """What a loader must not do."""


def feed(loader: Loader, path: Path, watch: Watch, memory: Memory) -> tuple[bool, int]:
    """Load one file: whether it was taken, and by how much memory grew; raises Failure."""
    own = f"import {loader.package}."
    for _ in range(10):
        memory.begin()
        taken = _load(loader, path, watch)
        growth = memory.growth()
        # A library may import more of itself when that is first needed. The next time it does not.
        if not watch.seen or not watch.seen[0].startswith(own):
            break
    size = path.stat().st_size
    if watch.seen:
        raise Failure(f"asked for: {watch.seen[0]}")
    if growth > SLACK + loader.multiple * size:
        raise Failure(f"memory: {growth} bytes for a file of {size}")
    return taken, growth


def _load(loader: Loader, path: Path, watch: Watch) -> bool:
    try:
        with watch.over(path):
            loader.load(path)
    except FormatError as error:
        if str(path) not in str(error):
            raise Failure(f"FormatError that does not name the file: {error}") from None
        return False
    except BaseException as error:  # noqa: BLE001
        raise Failure(_signature(error)) from None
    return True


def _signature(error: BaseException) -> str:
    """The error, and the innermost line of ours that it went through."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "fastlstm" in f.filename]
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "the test"
    return f"{type(error).__name__} at {place}: {error!s:.200}"


@contextmanager
def ready(loader: Loader, seeds: list[bytes]) -> Iterator[tuple[Path, Watch, Memory]]:
    """A place for files, and those who watch; the process is warm, and limited in its memory."""
    warnings.simplefilter("ignore")
    faulthandler.enable()
    watch, memory = Watch(), Memory()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        path = Path(folder) / f"input{loader.suffix}"
        _warm_up(loader, seeds, path)
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + LIMIT, most))
        yield path, watch, memory


def feed_files(loader: Loader, contents: list[bytes]) -> list[str]:
    """What goes wrong with each of these files, "" where nothing does."""
    found = []
    with ready(loader, loader.seeds()) as (path, watch, memory):
        for content in contents:
            path.write_bytes(content)
            try:
                feed(loader, path, watch, memory)
                found.append("")
            except Failure as failure:
                found.append(str(failure))
    return found


def feed_inputs(name: str, seed: int, start: int, stop: int, progress: Path) -> None:
    """Feed the inputs of these numbers."""
    loader = LOADERS[name]
    seeds = loader.seeds()
    with ready(loader, seeds) as (path, watch, memory), progress.open("r+b") as file:
        state = mmap.mmap(file.fileno(), PROGRESS.size)
        counts = dict(zip(FIELDS, PROGRESS.unpack(state[:]), strict=True))
        for index in range(start, stop):
            counts["index"] = index
            state[:] = PROGRESS.pack(*counts.values())
            try:
                content = input_of(name, seed, index, seeds)
                path.write_bytes(content)
                good, growth = feed(loader, path, watch, memory)
            except Exception as failure:  # noqa: BLE001
                counts["failed"] += 1
                what = str(failure) if isinstance(failure, Failure) else f"no input: {failure!r}"
                print(json.dumps({"index": index, "what": what}), flush=True)
                continue
            counts["valid" if good else "refused"] += 1
            if growth > counts["growth"]:
                counts["growth"], counts["growth_size"] = growth, len(content)
            if len(content) > 1 << 20:
                counts["multiple"] = max(counts["multiple"], 1000 * growth // len(content))
        counts["index"] = stop
        state[:] = PROGRESS.pack(*counts.values())


def _warm_up(loader: Loader, seeds: list[bytes], path: Path) -> None:
    """Whatever a library imports and makes when it is first used, for good files and bad ones."""
    "".encode("cp437")  # of names in zip archives
    for content in seeds:
        path.write_bytes(content)
        loader.load(path)
        for damaged in (
            content[: len(content) // 2],
            content[:-1],
            content[:9],
            b"",
            b"PK\x03\x04",
        ):
            path.write_bytes(damaged)
            with suppress(FormatError):
                loader.load(path)


def main(name: str, *arguments: str) -> None:
    if len(arguments) == 4 and arguments[0].isdigit():
        seed, start, stop = map(int, arguments[:3])
        feed_inputs(name, seed, start, stop, Path(arguments[3]))
        return
    contents = [Path(argument).read_bytes() for argument in arguments]
    for argument, what in zip(arguments, feed_files(LOADERS[name], contents), strict=True):
        if what:
            print(json.dumps({"file": Path(argument).name, "what": what}))


if __name__ == "__main__":
    main(*sys.argv[1:])
