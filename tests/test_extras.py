"""Optional packages that are absent: an error names the extra, and the command that installs it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fastlstm._extras import import_extra
from tests.processes import ROOT, run_python

WITNESSES = Path(__file__).parent / "witnesses"
# For each optional package the public calls that need it, and the extra that brings it along. In
# each, `path` is a file of the kind that the call reads or writes.
SETUP = """
import sys
sys.modules[{package!r}] = None
import fastlstm, numpy as np
from fastlstm import checkpoints, storage
from fastlstm.interop import onnx as our_onnx, torch as our_torch
from fastlstm.tasks.language_model import CharacterModel
path = {path!r}
lstm = fastlstm.LSTM(2, 3, rng=0)
try:
    {call}
except ImportError as error:
    print(type(error).__name__, error.name, "|", error)
else:
    print("no error")
"""
TRAINER = (
    "fastlstm.Trainer(lstm, fastlstm.SGD(lstm.parameters(), 0.1), checkpoint=path, progress={})"
)
SAVED = "saved/lstm.safetensors"
ONNX = "onnx/torch_ragged.onnx"
CALLS = [
    ("safetensors", "train", SAVED, "storage.save(path, 'lstm', {}, {})"),
    ("safetensors", "train", SAVED, "storage.load(path)"),
    ("safetensors", "train", SAVED, "fastlstm.save(lstm, path)"),
    ("safetensors", "train", SAVED, "fastlstm.load(path)"),
    ("safetensors", "train", SAVED, "checkpoints.load(path)"),
    ("safetensors", "train", SAVED, "CharacterModel.load(path)"),
    ("safetensors", "train", SAVED, "CharacterModel('ab').save(path)"),
    ("safetensors", "train", SAVED, TRAINER.format(False)),
    ("tqdm", "train", SAVED, TRAINER.format(True)),
    ("safetensors", "torch", "torch/bare.safetensors", "our_torch.from_file(path)"),
    ("safetensors", "torch", "torch/bare.safetensors", "our_torch.read_state_dict(path)"),
    ("torch", "torch", "torch/bare.pt", "our_torch.from_file(path)"),
    ("torch", "torch", "torch/bare.pt", "our_torch.read_state_dict(path)"),
    ("torch", "torch", SAVED, "our_torch.to_torch(lstm)"),
    ("onnx", "onnx", ONNX, "our_onnx.load(path)"),
    ("onnx", "onnx", ONNX, "our_onnx.read_lstms(path)"),
    ("onnx", "onnx", ONNX, "our_onnx.to_onnx(lstm)"),
    ("onnx", "onnx", ONNX, "our_onnx.save(lstm, path + '.new')"),
]


def error_of(package: str, path: str, call: str) -> str:
    code = SETUP.format(package=package, path=str(WITNESSES / path), call=call)
    return run_python("-c", code).strip()


@pytest.mark.parametrize(("package", "extra", "path", "call"), CALLS)
def test_a_call_that_needs_an_extra_says_which(
    package: str, extra: str, path: str, call: str
) -> None:
    error = error_of(package, path, call)
    assert error.startswith(f"ImportError {package} | "), error
    assert f"need {package}" in error
    assert f"pip install 'fastlstm[{extra}]'" in error


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
