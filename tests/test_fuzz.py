"""Loaders and files that are nearly right: a result or a FormatError, and nothing else happens.

This feeds a few hundred to each; `make fuzz` feeds 100,000.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.fuzz.__main__ import CORPUS, run
from tests.fuzz.loaders import LOADERS
from tests.processes import run_python

COUNT = 300
EACH = [
    pytest.param(name, marks=pytest.mark.oracle if loader.package == "torch" else [])
    for name, loader in LOADERS.items()
]


@pytest.mark.parametrize("name", EACH)
def test_a_changed_file_is_loaded_or_refused(name: str) -> None:
    pytest.importorskip(LOADERS[name].package)
    report = run(name, 0, 0, COUNT)
    assert report.failures == {}
    assert report.counts["valid"] + report.counts["refused"] == COUNT - report.library.total()
    # Changes that nobody survives, or that nobody sees, would show nothing.
    assert min(report.counts["valid"], report.counts["refused"]) > COUNT // 20


@pytest.mark.parametrize("name", EACH)
def test_what_once_failed_fails_no_more(name: str) -> None:
    pytest.importorskip(LOADERS[name].package)
    paths = sorted(map(str, (CORPUS / name).glob("*.bin")))
    if paths:
        assert run_python("-m", "tests.fuzz.worker", name, *paths) == ""


def test_an_input_is_known_by_its_number() -> None:
    code = (
        "import hashlib; from tests.fuzz.loaders import LOADERS;"
        "from tests.fuzz.worker import input_of; seeds = LOADERS['lstm'].seeds();"
        "contents = [input_of('lstm', 3, k, seeds) for k in {}];"
        "print(*(hashlib.sha256(content).hexdigest() for content in contents))"
    )
    forwards = run_python("-c", code.format("range(50)")).split()
    backwards = run_python("-c", code.format("range(49, -1, -1)")).split()
    assert forwards == backwards[::-1]
    assert len(set(forwards)) > 40


# What no loader may do, and how that is called when it is seen.
WRONG = {
    "raise ValueError('no')": "ValueError at the test: no",
    "raise KeyboardInterrupt": "KeyboardInterrupt",
    "raise FormatError('no')": "FormatError that does not name the file",
    "exec('1')": "asked for: compile",
    "import this": "asked for: import",
    "open(sys.executable)": "asked for: open",
    "open(path, 'a')": "asked for: open",
    "os.system('true')": "asked for: os.system",
    "socket.socket().close()": "asked for: socket",
    # About so much: what else comes or goes meanwhile is counted too.
    "len(b'x' * 30_500_000)": "memory: 30",
    "bytearray(10**11)": "MemoryError",
}


def test_what_a_loader_must_not_do_is_seen() -> None:
    functions = "\n".join(f"def f{k}(path): {wrong}" for k, wrong in enumerate(WRONG))
    code = f"""
import json, os, socket, sys
from dataclasses import replace
from fastlstm.storage import FormatError
from tests.fuzz.loaders import LOADERS
from tests.fuzz.worker import feed_files
{functions}
FUNCTIONS = [{", ".join(f"f{k}" for k in range(len(WRONG)))}]
def load(path):
    content = path.read_bytes()
    if content.startswith(b"!"):
        FUNCTIONS[int(content[1:])](path)
loader = replace(LOADERS["lstm"], load=load, multiple=1)
wrong = [b"!%d" % k for k in range(len(FUNCTIONS))]
print(json.dumps(feed_files(loader, [c for pair in zip(wrong, wrong[::-1]) for c in pair])))
print(json.dumps(feed_files(loader, [b"harmless"])))
"""
    seen, harmless = map(json.loads, run_python("-c", code).splitlines()[-2:])
    expected = list(WRONG.values())
    for found, part in zip(seen[::2], expected, strict=True):
        assert part in found
    for found, part in zip(seen[1::2], expected[::-1], strict=True):
        # A module is imported once; all else is seen each time, whatever came before.
        assert part in found or part == "asked for: import"
    assert harmless == [""]


def test_the_memory_that_a_hostile_header_takes_is_within_the_promise() -> None:
    """JSON of brackets alone needs most for each byte, and a character of four makes it more."""
    code = """
import json, safetensors.numpy
from fastlstm import storage
from tests.fuzz.loaders import LOADERS
from tests.fuzz.worker import feed_files
deep = json.loads("[" + ("[" * 900 + "]" * 900 + ",") * 600 + "0]")
contents = []
for header in ({"config": deep}, {"\U0001f600": deep}, {"config": [[]] * 400_000}):
    fields = {"format": "fastlstm", "version": 1, "kind": "lstm", "header": header}
    fields["checksum"] = storage._checksum(fields, {})
    text = json.dumps(fields, ensure_ascii=False)
    contents.append(safetensors.numpy.save({}, {"fastlstm": text}))
    table = json.dumps({"a": header}, ensure_ascii=False).encode()
    contents.append(len(table).to_bytes(8, "little") + table)
print([len(content) > 1_000_000 for content in contents], feed_files(LOADERS["lstm"], contents))
"""
    assert run_python("-c", code) == f"{[True] * 6} {[''] * 6}\n"


def test_the_corpus_holds_each_input_under_its_name() -> None:
    for path in Path(CORPUS).glob("*/*.bin"):
        assert path.stem == hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        assert path.stat().st_size < 300_000
