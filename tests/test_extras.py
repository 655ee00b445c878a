"""Optional packages that are absent: an error names the extra, and the command that installs it."""

from __future__ import annotations

import re
from importlib.metadata import requires
from pathlib import Path

import pytest

from fastlstm._extras import import_extra
from tests.processes import ROOT, run_python

WITNESSES = Path(__file__).parent / "witnesses"
# For each optional package the public calls that need it, and the extra that brings it along: with
# `path`, a file of the kind that the call reads.
SAVED = "saved/lstm.safetensors"
CALLS = {
    ("safetensors", "train"): [
        (SAVED, "storage.save(path, 'lstm', {}, {})"),
        (SAVED, "storage.load(path)"),
        (SAVED, "fastlstm.save(lstm, path)"),
        (SAVED, "fastlstm.load(path)"),
        (SAVED, "checkpoints.load(path)"),
        (SAVED, "tasks.LanguageModel.load(path)"),
        (SAVED, "tasks.LanguageModel(hidden_size=2, steps=1).fit('ab').save(path)"),
        (SAVED, "fastlstm.Trainer(lstm, sgd, checkpoint=path, progress=False)"),
    ],
    ("tqdm", "train"): [(SAVED, "fastlstm.Trainer(lstm, sgd)")],
    ("safetensors", "torch"): [
        ("torch/bare.safetensors", "torch.from_file(path)"),
        ("torch/bare.safetensors", "torch.read_state_dict(path)"),
    ],
    ("torch", "torch"): [
        ("torch/bare.pt", "torch.from_file(path)"),
        ("torch/bare.pt", "torch.read_state_dict(path)"),
        (SAVED, "torch.to_torch(lstm)"),
        (SAVED, "torch.LSTM(2, 3)"),
    ],
    ("onnx", "onnx"): [
        ("onnx/torch_ragged.onnx", "onnx.load(path)"),
        ("onnx/torch_ragged.onnx", "onnx.read_lstms(path)"),
        (SAVED, "onnx.to_onnx(lstm)"),
        (SAVED, "onnx.save(lstm, path + '.new')"),
    ],
    ("h5py", "keras"): [
        ("keras/functional.h5", "keras.load(path)"),
        ("keras/functional-torch.keras", "keras.load(path)"),
        ("keras/functional.weights.h5", "keras.load(path)"),
        (SAVED, "keras.save(lstm, path + '.new.keras')"),
        (SAVED, "keras.save_weights(lstm, path + '.new.weights.h5')"),
    ],
    ("keras", "keras"): [(SAVED, "keras.to_keras(lstm)")],
}
PROGRAM = """
import sys
sys.modules[{package!r}] = None
import fastlstm
from fastlstm import checkpoints, storage, tasks
from fastlstm.interop import keras, onnx, torch
lstm = fastlstm.LSTM(2, 3, rng=0)
sgd = fastlstm.SGD(lstm.parameters(), 0.1)
for path, call in {calls!r}:
    try:
        eval(call)
    except ImportError as error:
        print(call, "|", type(error).__name__, error.name, "|", error)
    else:
        print(call, "| no error")
"""


@pytest.mark.parametrize(("package", "extra"), CALLS)
def test_a_call_that_needs_an_extra_says_which(package: str, extra: str) -> None:
    calls = [(str(WITNESSES / path), call) for path, call in CALLS[package, extra]]
    lines = run_python("-c", PROGRAM.format(package=package, calls=calls)).splitlines()
    for line, (_, call) in zip(lines, calls, strict=True):
        assert line.startswith(f"{call} | ImportError {package} | "), line
        assert f"need {package}" in line
        assert f"pip install 'fastlstm[{extra}]'" in line


def test_an_extra_brings_along_what_it_is_named_for() -> None:
    brought = {
        (re.split(r"[<>=;\s]", line)[0], re.findall(r'extra == "(\w+)"', line)[0])
        for line in requires("fastlstm") or []
        if "extra ==" in line
    }
    assert {*CALLS, ("matplotlib", "plot")} <= brought


def test_without_matplotlib_there_is_no_plot_and_a_line_says_how_to_get_it() -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from fastlstm.cli import plots\n"
        "print(plots.can_plot(), plots.HOW_TO_GET)"
    )
    assert run_python("-c", code).startswith("False no loss curve: it needs matplotlib: pip insta")


def test_every_extra_that_is_named_exists() -> None:
    """In the sources, and in what a user reads."""
    known = set(re.findall(r"^(\w+) = \[", _section("project.optional-dependencies"), re.M))
    assert {"train", "plot", "torch", "keras", "onnx"} <= known
    named = set()
    for path in [*ROOT.glob("src/fastlstm/**/*.py"), *ROOT.glob("docs/*.md"), ROOT / "README.md"]:
        for extras in re.findall(r"fastlstm\[([\w,]+)\]", path.read_text("utf-8")):
            named |= set(extras.split(","))
    assert named <= known


def _section(name: str) -> str:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    return text.partition(f"[{name}]")[2].partition("\n[")[0]


def test_what_is_broken_says_more_than_that_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half_there.py").write_text("import nowhere_to_be_found")
    monkeypatch.syspath_prepend(str(tmp_path))
    expected = r"pictures need half_there \(No module named 'nowhere_to_be_found'\): pip install"
    with pytest.raises(ImportError, match=expected):
        import_extra("half_there", extra="plot", purpose="pictures")
