"""The measurements beside other libraries: what is compared, and what the figures say."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import chart, grid, limits, memory, peers
from benchmarks.engines import ENGINES, OURS, Engine
from benchmarks.limits import Limits
from benchmarks.measurement import Measurement, Rates, largest_error, measure, reading
from benchmarks.tasks import INFER, MODES, STEP, TRAIN, Job, Shape, Task
from benchmarks.workers import workers

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")

# --- what is compared -----------------------------------------------------------------------------


def test_a_peer_that_computes_something_else_is_noticed() -> None:
    results = {"output": np.ones(3, np.float32), "h_n": np.ones(2, np.float32)}
    assert largest_error(results, results) == 0
    assert largest_error({**results, "h_n": np.float32([1, 1.5])}, results) == 0.5
    assert largest_error({**results, "h_n": np.float32([1, np.nan])}, results) == math.inf
    with pytest.raises(ValueError, match="name"):
        largest_error({"output": results["output"]}, results)
    with pytest.raises(ValueError, match="is not"):
        largest_error({**results, "h_n": np.ones(3, np.float32)}, results)


def test_a_ratio_is_that_of_the_rounds_and_the_best_peer_that_of_the_times() -> None:
    seconds = {OURS: [1.0, 10.0, 1.0], "torch": [2.0, 20.0, 3.0], "jax": [2.5, 2.5, 2.5]}
    measurement = Measurement(Task(Shape(1, 1, 1, 1), INFER, 1), seconds, {})
    assert measurement.ratio("torch") == 2
    assert measurement.time("torch") == 3
    assert measurement.best_peer() == "jax"
    assert measurement.record()["ratio"] == measurement.ratio("jax") == 2.5


def test_ours_by_another_door_is_not_the_best_of_peers() -> None:
    seconds = {OURS: [1.0], "in-torch": [1.1], "torch": [2.0]}
    measurement = Measurement(Task(Shape(1, 1, 1, 1), TRAIN, 1), seconds, {})
    assert measurement.best_peer() == "torch"
    assert measurement.record()["ratios"]["in-torch"] == 1.1
    del seconds["torch"]
    assert measurement.best_peer() == "in-torch"


def test_operations_are_those_of_the_products() -> None:
    assert Shape(10, 2, 3, 5).operations(INFER) == 2 * 10 * 2 * 20 * (3 + 5)
    assert Shape(10, 2, 3, 5, 2).operations(TRAIN) == 3 * 2 * 10 * 2 * 20 * (3 + 5 + 5 + 5)


def compare_with_ours(peer: str, mode: str) -> None:
    """Another library's results are ours, on sizes that fit no tile."""
    layers = 1 if mode == STEP else 2
    task = Task(Shape(1 if mode == STEP else 7, 3, 4, 5, layers), mode, threads=1)
    ours, theirs = (ENGINES[name].job(task).compute() for name in (OURS, peer))
    assert len(ours) == {INFER: 3, TRAIN: 12, STEP: 2}[mode]
    assert largest_error(ours, theirs) < 1e-5


@pytest.mark.parametrize("mode", [INFER, STEP])
def test_our_engine_computes_what_the_numpy_loop_does(mode: str) -> None:
    compare_with_ours("numpy", mode)


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("peer", "mode"),
    [(peer, mode) for peer in ENGINES if peer != OURS for mode in ENGINES[peer].modes],
)
def test_engines_agree(peer: str, mode: str) -> None:
    for package in ENGINES[peer].packages:
        pytest.importorskip(package)
    compare_with_ours(peer, mode)


def test_a_peer_that_is_not_installed_is_left_out_with_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(ENGINES, "absent", Engine(ENGINES[OURS].job, MODES, ("no_such_module",)))
    assert peers.available(["absent", "numpy"], INFER) == ["numpy"]
    assert "absent is left out: no_such_module missing" in capsys.readouterr().err
    assert peers.available(["numpy"], TRAIN) == []


def test_workers_take_turns() -> None:
    with workers(["fastlstm", "fastlstm"], threads=1) as team:
        measurement = measure(team, Task(Shape(3, 2, 2, 2), TRAIN, 1), rounds=2, turn=0.001)
    assert len(measurement.seconds["fastlstm"]) == 4
    assert measurement.errors == {"fastlstm": 0}


# --- what the figures say -------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_a_task_at_batch_1_reads_its_recurrent_weights_in_every_step(mode: str) -> None:
    shape = Shape(1 if mode == STEP else 10, 1, 3, 5)
    footprint, total, operations = reading(Task(shape, mode, 1))
    recurrent, of_input = 4 * (20 * 5), 4 * (20 * 3)
    passes = {INFER: 1, TRAIN: 2, STEP: 1}[mode]
    assert footprint == recurrent + (of_input if mode == STEP else 0)
    assert total == passes * shape.steps * footprint
    # Forward: the projection of x. Backward: the gradients of x and of both weights.
    projection, recurrence = 2 * 10 * 20 * 3, 2 * 10 * 20 * 5
    others = {INFER: projection, TRAIN: 3 * projection + recurrence, STEP: 0}
    assert operations == others[mode]


def test_shares_are_those_of_the_rounds() -> None:
    task = Task(Shape(10, 1, 4, 8), INFER, 1)
    operations, bytes_read = 2 * 10 * 32 * 12, 10 * 32 * 8 * 4
    others = 2 * 10 * 32 * 4
    seconds = {OURS: [1.0, 2.0, 4.0], "torch": [1.0, 1.0, 1.0]}
    rates = [Rates(fma, 2.0 * bytes_read) for fma in (2.0 * operations, 1.0 * operations, 1e9)]
    measurement = Measurement(task, seconds, {}, rates)
    assert measurement.fma_share() == 0.5  # of 0.5, 0.5 and very little
    shares = [0.5 / (s - others / r.fma) for s, r in zip(seconds[OURS], rates, strict=True)]
    assert measurement.bandwidth_share() == pytest.approx(sorted(shares)[1])
    batch = Measurement(Task(Shape(10, 2, 4, 8), INFER, 1), seconds, {}, rates)
    assert batch.bandwidth_share() is None
    assert Measurement(task, seconds, {}).fma_share() is None


def test_the_grid_has_the_sizes_that_fit_no_tile() -> None:
    full = grid.shapes(INFER, full=True)
    assert len(grid.shapes(INFER)) == 14
    assert len(set(full)) == len(full)
    assert {shape.hidden_size for shape in full} >= {1, 7, 33, 100, 257, 650, 1000}
    assert {shape.batch for shape in full} >= {1, 3, 5, 17}
    assert {shape.input_size for shape in full} >= {1, 3, 80}
    assert all(shape.steps == shape.num_layers == 1 for shape in grid.shapes(STEP, full=True))


# --- limits of the machine ------------------------------------------------------------------------


@needs_compiler
def test_the_work_that_limits_time_is_done() -> None:
    library = Limits(1)._library
    # Each chain of multiply-adds, halved and increased by 1, tends to 2.
    chains = library.fma_chains(60, 0.5, 1.0) / 2
    lanes = library.fma_operations() / 2 / chains
    assert lanes in (4, 8, 16)

    data = limits._aligned_bytes(3 * limits.GRAIN)
    data[:] = np.random.default_rng(0).integers(0, 256, data.size)
    numbers = data.view(np.int64).reshape(-1, int(lanes) // 2)
    expected = np.bitwise_xor.reduce(numbers[:, 0])
    assert library.read_all(data.ctypes.data, data.size, 1) == expected
    assert library.read_all(data.ctypes.data, data.size, 2) == 0


@needs_compiler
@pytest.mark.parametrize("threads", [1, 2])
def test_limits_are_rates(threads: int) -> None:
    measured = Limits(threads, seconds=0.001)
    assert measured.fma_rate() > 0
    for footprint in (16, 5000):
        assert measured.read_rate(footprint) > 0
    assert Limits(threads)._calls_per_second([lambda: None]) > 0


def test_without_a_compiler_limits_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(limits.BuildError, match="no C compiler"):
        Limits(1)


# --- memory ---------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux only")
def test_growth_is_what_a_step_needs_and_what_it_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []

    def job(task: Task) -> Job:
        size = 10_000_000 if task.shape.hidden_size == 7 else 1

        def call() -> None:
            kept.append(np.ones(size))
            np.ones(3 * size)

        return Job(call, dict)

    monkeypatch.setitem(ENGINES, "stub", Engine(job, MODES, ()))
    growth = memory.training_growth("stub", Task(Shape(1, 1, 1, 7), TRAIN, 1))
    assert growth.peak == pytest.approx(320e6, rel=0.05)
    assert growth.kept == pytest.approx(80e6, rel=0.05)


# --- the command ----------------------------------------------------------------------------------


def test_the_command_writes_a_record_a_shape(tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    options = ["--quick", "--mode", "step", "--peers", "numpy", "--only", "B1 .*H(32|64)$"]
    assert peers.main([*options, "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    assert found["machine"]["cores"] >= 1
    assert set(found["versions"]) == {"fastlstm", "numpy", "scipy"}
    assert len(found["measurements"]) == 2
    record = found["measurements"][0]
    assert record["shape"] == {"T": 1, "B": 1, "I": 32, "H": 32, "layers": 1}
    assert (record["mode"], record["threads"]) == (STEP, 1)
    assert record["ours_s"] > 0
    assert set(record["peers_s"]) == set(record["errors"]) == {"numpy"}
    assert record["ratio"] == record["ratios"]["numpy"]
    if found["limits"]:
        assert 0 < record["fma_share"] < 1


def test_the_command_refuses_what_it_cannot_measure(capsys: pytest.CaptureFixture[str]) -> None:
    for options, said in (
        (["--mode", "train", "--peers", "numpy"], "nobody to compare with in train"),
        (["--peers", "numpy", "--only", "H3$"], "no such shape"),
    ):
        with pytest.raises(SystemExit):
            peers.main(options)
        assert said in capsys.readouterr().err


# --- the picture ----------------------------------------------------------------------------------


def a_file(mode: str, threads: int) -> dict[str, Any]:
    seconds = {OURS: [1.0], "torch": [2.0], "numpy": [0.5]}
    task = Task(Shape(9, 1, 2, 3, num_layers=2), mode, threads)
    return {"measurements": [Measurement(task, seconds, {}).record()]}


def test_a_picture_has_a_panel_for_each_mode_and_number_of_threads(tmp_path: Path) -> None:
    files = [a_file(INFER, 2), a_file(INFER, 1), a_file(INFER, 1)]
    (first, records), (second, _) = chart.panels(files)
    assert (first, second) == ("inference, 1 thread", "inference, 2 threads")
    assert len(records) == 2
    assert chart.ratios(records[0]) == {"torch": 2, "numpy": 0.5}
    assert chart.name(records[0]["shape"]) == "T9 B1 I2 H3 L2"

    pytest.importorskip("matplotlib")
    for k, file in enumerate(files):
        (tmp_path / f"{k}.json").write_text(json.dumps(file))
    picture = tmp_path / "picture.png"
    chart.main([*map(str, sorted(tmp_path.glob("*.json"))), "--out", str(picture)])
    assert picture.read_bytes().startswith(b"\x89PNG")
