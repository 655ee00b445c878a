"""show_config(), and what the environment settles at import: the instruction set."""

from __future__ import annotations

import platform
from functools import cache

import numpy as np
import pytest

import fastlstm
from fastlstm import _config
from tests.processes import run_python, start_python
from tests.support import Array, assert_close, tolerance_of

FIELDS = [
    "fastlstm", "Python", "NumPy", "compiler", "flags", "debug", "OpenMP", "BLAS",
    "instruction set", "threads",
]  # fmt: skip

# Prints the bytes of every result of a step of training, in float32 and in float64.
STEP = """
import numpy as np
from fastlstm import LSTM
for dtype in (np.float32, np.float64):
    rng = np.random.default_rng(7)
    lstm = LSTM(9, 21, 2, bidirectional=True, dtype=dtype, rng=3)
    x = 3 * rng.standard_normal((17, 5, 9)).astype(dtype)
    output, state, tape = lstm.forward(x, lengths=np.array([17, 3, 0, 9, 12]))
    d_x, d_state, grads = lstm.backward(tape, rng.standard_normal(output.shape).astype(dtype))
    for array in (output, *state, d_x, *d_state, *grads.values()):
        print(array.dtype, array.tobytes().hex())
"""


def parse_results(printed: str) -> list[Array]:
    pairs = (line.split() for line in printed.splitlines())
    return [np.frombuffer(bytes.fromhex(data), dtype) for dtype, data in pairs]


@cache
def results_of_best_isa() -> list[Array]:
    return parse_results(run_python("-c", STEP))


def test_config_has_every_field_with_a_value() -> None:
    facts = _config.config()
    assert list(facts) == FIELDS
    assert all(isinstance(value, str) and value for value in facts.values()), facts


def test_config_states_the_versions_and_threads_that_others_report() -> None:
    facts = _config.config()
    assert facts["fastlstm"] == fastlstm.__version__
    assert facts["Python"] == platform.python_version()
    assert facts["NumPy"] == np.__version__
    assert facts["threads"] == str(fastlstm.get_num_threads())
    assert facts["BLAS"].endswith("-bit integers")


def test_show_config_prints_each_field_on_a_line_of_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    fastlstm.show_config()
    lines = capsys.readouterr().out.splitlines()
    for line, (name, value) in zip(lines, _config.config().items(), strict=True):
        assert line.startswith(name)
        assert line.endswith(value)


def test_threads_are_those_of_now_not_those_of_import() -> None:
    before = fastlstm.get_num_threads()
    try:
        fastlstm.set_num_threads(before + 1)
        assert _config.config()["threads"] == str(before + 1)
    finally:
        fastlstm.set_num_threads(before)


@pytest.mark.parametrize("isa", ["generic", "avx2", "avx512", "neon"])
def test_every_instruction_set_computes_the_same(isa: str) -> None:
    done = start_python("-c", STEP, environment={"FASTLSTM_ISA": isa})
    if isa != "generic" and "ImportError: FASTLSTM_ISA" in done.stderr:
        pytest.skip(f"{isa} is not for this machine")
    assert done.returncode == 0, done.stderr
    results = zip(parse_results(done.stdout), results_of_best_isa(), strict=True)
    for k, (actual, expected) in enumerate(results):
        assert_close(actual, expected, tolerance_of(expected.dtype), f"result {k}")


@pytest.mark.parametrize("isa", ["generic", " Generic "])
def test_the_instruction_set_asked_for_is_the_one_reported(isa: str) -> None:
    code = "from fastlstm._config import config; print(config()['instruction set'])"
    assert run_python("-c", code, environment={"FASTLSTM_ISA": isa}).strip() == "generic"


def test_an_empty_setting_leaves_the_choice_to_the_processor() -> None:
    code = "from fastlstm._config import config; print(config()['instruction set'])"
    assert run_python("-c", code, environment={"FASTLSTM_ISA": ""}) == run_python("-c", code)


@pytest.mark.parametrize("isa", ["avx1024", "généric", "x" * 1000])
def test_an_unknown_instruction_set_is_an_import_error_that_lists_the_known_ones(isa: str) -> None:
    done = start_python("-c", "import fastlstm", environment={"FASTLSTM_ISA": isa})
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1
    assert last.startswith(f"ImportError: FASTLSTM_ISA={isa}: unknown")
    assert last.endswith("expected avx512, avx2, neon or generic")
