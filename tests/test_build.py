"""What a built package is: its flags, its files, what it needs and what it leaves alone.

Building itself, in all its variants, takes minutes: python -m tests.build_matrix does that.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import sys
import sysconfig
from importlib.metadata import metadata, requires, version
from pathlib import Path
from types import ModuleType

import pytest

import fastlstm
from fastlstm import _core
from fastlstm._core import beam, blas, ctc, dense, kernels, recompute, stream, time_loop, variants
from tests.processes import ROOT, run_python

PACKAGE = Path(str(fastlstm.__file__)).parent
SOURCE = ROOT / "src" / "fastlstm"
COMPILED = [beam, blas, ctc, dense, kernels, recompute, stream, time_loop, variants]


def _name(module: ModuleType) -> str:
    return module.__name__.rpartition(".")[2]


def _beside(module: ModuleType, suffix: str) -> Path:
    return PACKAGE / "_core" / f"{_name(module)}{suffix}"


def test_the_version_is_one() -> None:
    assert version("fastlstm") == fastlstm.__version__ == metadata("fastlstm")["Version"]


@pytest.mark.skipif(sys.platform == "win32", reason="other flags")
def test_floating_point_is_as_written() -> None:
    """-ffast-math and its kin would reorder sums and, at the link, flush subnormals everywhere."""
    flags = shlex.split(_core.FLAGS)
    assert "-ffp-contract=off" in flags
    forbidden = ("-ffast-math", "-Ofast", "-funsafe-math", "-fassociative", "-ffinite-math",
                 "-march=native", "-mtune=native", "-mdaz-ftz")  # fmt: skip
    assert not [flag for flag in flags if flag.startswith(forbidden)]
    linker = shlex.split(os.environ.get("LDFLAGS", "")) + shlex.split(
        str(sysconfig.get_config_var("LDSHARED"))
    )
    assert not [flag for flag in linker if flag.startswith(forbidden)]


def test_flags_and_facts_agree() -> None:
    flags = shlex.split(_core.FLAGS)
    assert any("openmp" in flag for flag in flags) == _core.OPENMP
    assert any("DNDEBUG" in flag for flag in flags) != _core.DEBUG
    assert _core.COMPILER
    assert _core.BLAS_INTEGER_BITS in (32, 64)
    assert _core.ISA in ("avx512", "avx2", "neon", "generic")


@pytest.mark.parametrize("module", COMPILED, ids=lambda module: str(module.__name__))
def test_the_stub_of_a_compiled_module_names_what_it_has(module: ModuleType) -> None:
    tree = ast.parse(_beside(module, ".pyi").read_text(encoding="utf-8"))
    named = {
        ast.unparse(node.target) if isinstance(node, ast.AnnAssign) else node.name
        for node in tree.body
        if isinstance(node, (ast.AnnAssign, ast.ClassDef, ast.FunctionDef))
    }
    own = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not hasattr(value, "__path__")
        and getattr(value, "__module__", module.__name__) in (module.__name__, None)
        and name not in sys.modules
    }
    assert named == own


@pytest.mark.skipif(not SOURCE.exists(), reason="no source tree")
@pytest.mark.parametrize("module", COMPILED, ids=lambda module: str(module.__name__))
def test_compiled_functions_take_what_their_stub_says(module: ModuleType) -> None:
    tree = ast.parse(_beside(module, ".pyi").read_text(encoding="utf-8"))
    stub = {
        node.name: [argument.arg for argument in node.args.args]
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
    }
    source = SOURCE / "_core" / f"{_name(module)}.pyx"
    text = re.sub(r"#.*", "", source.read_text(encoding="utf-8"))
    compiled = {}
    for name, arguments in re.findall(r"^def (\w+)\((.*?)\):", text, re.DOTALL | re.MULTILINE):
        typed = re.sub(r"\[[^]]*\]", "", arguments).split(",")
        compiled[name] = [argument.split()[-1] for argument in typed if argument.strip()]
    assert compiled == stub


def test_the_package_is_typed_and_has_no_sources_of_c_in_it() -> None:
    assert (PACKAGE / "py.typed").exists()
    assert not list(PACKAGE.rglob("*.c"))


def test_importing_needs_and_loads_no_extra() -> None:
    """The extras (train, plot) and the peers of the tests come in where they are used."""
    extras = [
        "safetensors",
        "tqdm",
        "matplotlib",
        "torch",
        "nltk",
        "Cython",
        "pytest",
        "hypothesis",
    ]
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({extras}));"  # None: importing one raises
        "import fastlstm, numpy as np;"
        "lstm = fastlstm.LSTM(2, 3);"
        "output, _, tape = lstm.forward(np.ones((4, 1, 2), np.float32));"
        "lstm.backward(tape, output); fastlstm.show_config();"
        f"assert not [name for name in {extras} if sys.modules[name] is not None]"
    )
    assert "instruction set" in run_python("-c", code)


def test_importing_starts_no_threads_and_writes_no_files() -> None:
    code = (
        "import sys, threading; opened = [];"
        "sys.addaudithook(lambda event, args: opened.append(args) if event == 'open' else None);"
        "import fastlstm;"
        "written = [a for a in opened if isinstance(a[1], str) and set(a[1]) & set('wax+')"
        "           and '__pycache__' not in str(a[0])];"
        "assert not written, written;"
        "assert threading.active_count() == 1"
    )
    run_python("-c", code)


def test_importing_leaves_random_state_and_error_handling_alone() -> None:
    code = (
        "import numpy as np, random, warnings, signal;"
        "before = np.geterr(), np.random.get_state()[1].tobytes(), random.getstate(), "
        "list(warnings.filters), signal.getsignal(signal.SIGINT);"
        "import fastlstm;"
        "lstm = fastlstm.LSTM(2, 3);"
        "lstm(np.ones((4, 1, 2), np.float32));"
        "after = np.geterr(), np.random.get_state()[1].tobytes(), random.getstate(), "
        "list(warnings.filters), signal.getsignal(signal.SIGINT);"
        "assert before == after"
    )
    run_python("-c", code)


def test_what_is_required_is_what_is_imported() -> None:
    """Every module outside of the standard library stands in the project's requirements.

    Those of the extra `peers` are for benchmarks/ alone.
    """
    named = {"numpy", "scipy", "threadpoolctl", "safetensors", "tqdm", "matplotlib"}
    named |= {"torch", "h5py", "keras", "onnx"}
    named |= {"scikit-learn", "tokenizers", "sacrebleu", "kaldi-native-fbank", "pandas"}
    lines = [line for line in requires("fastlstm") or [] if 'extra == "peers"' not in line]
    required = {line.split(">")[0].split(";")[0].split("[")[0].strip() for line in lines}
    assert required - {"fastlstm"} == named  # an extra may take another one in
    imported = {"scikit-learn": "sklearn", "kaldi-native-fbank": "kaldi_native_fbank"}
    known = set(sys.stdlib_module_names) | {imported.get(k, k) for k in named} | {"fastlstm"}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [str(node.module)]
            for module in modules:
                assert module.split(".")[0] in known, f"{path.name} imports {module}"


def test_the_core_takes_scipys_blas_and_no_other() -> None:
    """Linking to one of our own would bring a third pool of threads into the process."""
    if sys.platform != "linux":
        pytest.skip("reads ELF files")
    for module in COMPILED:
        binary = Path(str(module.__file__)).read_bytes()
        for library in (b"libopenblas", b"libblas.so", b"libmkl", b"libcblas"):
            assert library not in binary
