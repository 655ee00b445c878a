"""import fastlstm: what it takes along, and names that are there when they are asked for."""

from __future__ import annotations

import ast
import sys
from importlib.metadata import requires
from pathlib import Path
from types import ModuleType

import pytest

import fastlstm
from tests.processes import run_python

# What `python -c "import numpy, scipy.linalg.cython_blas"` is up to; that may import what it likes.
BASE = "import numpy, scipy.linalg.cython_blas"
# Names of modules where they are not those of the package.
EXTRAS = {"onnxscript", "onnxruntime", "tensorflow", "jax"}


def modules_after(code: str) -> set[str]:
    return set(run_python("-c", f"{code}\nimport sys\nprint(*sys.modules)").split())


def test_importing_takes_numpy_scipy_and_modules_of_its_own_and_no_more() -> None:
    base, ours = modules_after(BASE), modules_after("import fastlstm")
    added = {name.split(".")[0] for name in ours - base}
    # Cython shares types between its modules in one that has no file.
    foreign = {name for name in added - set(sys.stdlib_module_names) if "_cython_" not in name}
    assert foreign == {"fastlstm"}


def test_importing_takes_no_extra() -> None:
    lines = [line for line in requires("fastlstm") or [] if "extra ==" in line]
    names = {line.split(";")[0].split(">")[0].split("=")[0].strip() for line in lines}
    assert {"safetensors", "tqdm", "matplotlib", "torch", "onnx", "h5py"} <= names
    loaded = {name.split(".")[0] for name in modules_after("import fastlstm")}
    assert not loaded & (names | EXTRAS | {"threadpoolctl"})


def test_importing_takes_what_an_lstm_needs() -> None:
    """Files, training and the other layers come when they are asked for."""
    later = {
        f"fastlstm.{name}"
        for name in ("training", "checkpoints", "storage", "saving", "optim", "losses", "ctc",
                     "_core.ctc", "decoding", "_core.beam", "cli", "tasks", "interop")
    }  # fmt: skip
    assert not later & modules_after("import fastlstm")
    assert later & modules_after("import fastlstm; fastlstm.Trainer") >= {"fastlstm.training"}


def test_every_name_is_there_and_is_found_by_all_that_look() -> None:
    names = [*fastlstm._HOMES, *fastlstm._MODULES]
    for name in names:
        assert name in dir(fastlstm)
        assert hasattr(fastlstm, name)
        exec(f"from fastlstm import {name}")
    printed = run_python(
        "-c", f"import fastlstm\nfor name in {names}: print(getattr(fastlstm, name).__name__)"
    )
    assert [line.removeprefix("fastlstm.") for line in printed.split()] == names


def test_a_star_imports_all_names() -> None:
    names: dict[str, object] = {}
    exec("from fastlstm import *", names)
    assert {*fastlstm._HOMES, "LSTM", "get_num_threads", "__version__"} <= set(names)
    given = {name for name, value in vars(fastlstm).items() if not isinstance(value, ModuleType)}
    public = {name for name in given if not name.startswith("_")} - {"TYPE_CHECKING"}
    assert set(fastlstm.__all__) == public | {"__version__"}


def test_type_checkers_see_the_same_names_from_the_same_modules() -> None:
    tree = ast.parse(Path(str(fastlstm.__file__)).read_text("utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: node.module.rpartition(".")[2]
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
        if alias.asname == alias.name  # a type checker's sign that the name is public
    }
    modules = {name for name, home in seen.items() if home == "fastlstm"}
    assert {name: seen[name] for name in seen.keys() - modules} == fastlstm._HOMES
    assert modules <= set(fastlstm._MODULES)


def test_a_name_is_the_same_object_each_time_and_where_it_lives() -> None:
    from fastlstm.training import Trainer

    assert fastlstm.Trainer is fastlstm.Trainer is Trainer


def test_what_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'fastlstm' has no attribute 'GRU'"):
        fastlstm.GRU  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'GRU' from 'fastlstm'"):
        exec("from fastlstm import GRU")
