"""checkpoints: training that is stopped or killed goes on to the same bits; what is refused."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastlstm import checkpoints, storage
from fastlstm.optim import Adam, AdamW
from fastlstm.storage import FormatError
from fastlstm.training import Trainer
from tests.support import Array
from tests.training_job import (
    STEPS,
    Network,
    assert_same_weights,
    batches,
    build,
    fingerprint,
    resumed,
    uninterrupted,
)

VARIANTS = ["carried", "shuffled", "stopping"]


def test_the_variants_go_through_all_that_they_are_for() -> None:
    """Early stopping happens within the run, after the best validation and not at the last one."""
    _, history = uninterrupted("stopping")
    values = [value for _, value in history.validations]
    assert 100 < history.steps[-1] < STEPS
    assert 0 < np.argmin(values) < len(values) - 1
    assert uninterrupted("carried")[1].steps[-1] == uninterrupted("shuffled")[1].steps[-1] == STEPS


# --- killed, interrupted, and gone on -------------------------------------------------------------


def run_job(*arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.training_job", *map(str, arguments)],
        cwd=Path(__file__).parents[1], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_process_that_is_stopped_at_any_time_is_resumed_to_the_same_bits(
    tmp_path: Path, variant: str, ending: signal.Signals
) -> None:
    rng = random.Random(f"{variant} {ending}")
    path = tmp_path / "checkpoint"
    job = run_job("--train", variant, STEPS, path)
    assert job.stdout is not None
    last = str(rng.randrange(20, 100))
    assert any(line.strip() == last for line in job.stdout), "it ended too early"
    time.sleep(rng.uniform(0, 0.01))
    job.send_signal(ending)
    _, errors = job.communicate(timeout=60)
    assert job.returncode == -ending, errors
    assert ("KeyboardInterrupt" in errors) == (ending == signal.SIGINT)

    expected, history = uninterrupted(variant)
    assert 0 < checkpoints.load(path).run.step < history.steps[-1]
    network, found = resumed(variant, path)
    assert found == history
    assert_same_weights(network.parameters(), expected)


def test_kills_while_checkpoints_are_written_leave_a_state_that_was_reached(
    tmp_path: Path,
) -> None:
    printed, errors = run_job("--killed", "20", tmp_path / "killed").communicate(timeout=60)
    assert errors == ""
    lines = [line.split() for line in printed.splitlines()]
    found = {int(step): content for step, content in lines}
    assert len(lines) == 20
    assert len(found) > 10

    expected = {}
    path = tmp_path / "whole"
    _, trainer = build("carried", checkpoint=path)
    for step in range(max(found) + 1):
        trainer.fit(batches(), steps=step)
        if step in found:
            expected[step] = fingerprint(checkpoints.load(path))
    assert found == expected


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("stop", [0, 1, 12, 13, 14, 27, 99])
def test_a_run_in_two_parts_has_the_bits_of_a_run_in_one(
    tmp_path: Path, variant: str, stop: int
) -> None:
    expected, history = uninterrupted(variant, 100)
    _, first = build(variant, checkpoint=tmp_path / "checkpoint")
    first.fit(batches(), steps=stop)
    network, found = resumed(variant, tmp_path / "checkpoint", 100)
    assert found == history
    assert_same_weights(network.parameters(), expected)


def test_a_trainer_that_has_trained_can_take_up_an_earlier_place(tmp_path: Path) -> None:
    expected, _ = uninterrupted("shuffled", 100)
    path = tmp_path / "checkpoint"
    build("shuffled", checkpoint=path)[1].fit(batches(), steps=5)
    network, trainer = build("shuffled")
    trainer.fit(batches(), steps=30)
    trainer.resume(path)
    trainer.fit(batches(), steps=100)
    assert_same_weights(network.parameters(), expected)


def test_fit_goes_on_where_it_stopped_in_the_same_process_too() -> None:
    expected, _ = uninterrupted("carried", 40)
    network, trainer = build("carried")
    for steps in (5, 13, 13, 39, 40, 3):
        trainer.fit(batches(), steps=steps)
    assert_same_weights(network.parameters(), expected)


# --- what resume refuses --------------------------------------------------------------------------


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    _, trainer = build("carried", checkpoint=tmp_path / "checkpoint", settings={"data": [1, "a"]})
    trainer.fit(batches(), steps=20)
    return tmp_path / "checkpoint"


def assert_refused(path: Path, message: str, error: type[Exception], **options: Any) -> None:
    """Resuming raises, and the Trainer then does what it would have done without."""
    options = {"settings": {"data": [1, "a"]}, **options}
    network, trainer = build("carried", **options)
    with pytest.raises(error, match=message):
        trainer.resume(path)
    trainer.fit(batches(), steps=5)
    assert_same_weights(network.parameters(), uninterrupted("carried", 5)[0])


def test_resume_names_a_setting_that_differs(checkpoint: Path) -> None:
    message = r"begun with other settings: data was \[1, 'a'\], is 2"
    assert_refused(checkpoint, message, ValueError, settings={"data": 2})
    network = Network()
    for optimiser, more in [
        (AdamW(network.parameters()), {"carry_state": True, "seed": 5}),
        (Adam(network.parameters()), {"carry_state": True, "seed": 6}),
        (Adam(network.parameters()), {"carry_state": False, "seed": 5}),
        (Adam(network.parameters()), {"shuffle": True, "seed": 5}),
    ]:
        trainer = Trainer(
            network,
            optimiser,
            progress=False,
            settings={"data": [1, "a"]},
            **more,  # type: ignore[arg-type]
        )
        with pytest.raises(ValueError, match="other settings: trainer was"):
            trainer.resume(checkpoint)


def test_resume_refuses_a_missing_file_and_other_files(tmp_path: Path, checkpoint: Path) -> None:
    assert_refused(tmp_path / "nowhere", "nowhere", FileNotFoundError)
    storage.save(tmp_path / "model", "language-model", {}, {})
    assert_refused(tmp_path / "model", "expected a file of kind 'checkpoint'", FormatError)
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1])
    assert_refused(checkpoint, "damaged or cut short", FormatError)


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: arrays.update({"best.head.bias": np.zeros(1)}),
        lambda arrays: arrays.pop("parameters.head.bias"),
        lambda arrays: arrays.update({"parameters.x": np.zeros(1)}),
        lambda arrays: arrays.pop("optimiser.step"),
        lambda arrays: arrays.update({"optimiser.lr": np.array(-1.0)}),
    ],
    ids=[
        "other best weights",
        "missing weight",
        "unknown weight",
        "missing memory",
        "impossible rate",
    ],
)
def test_a_checkpoint_of_another_model_changes_nothing(
    checkpoint: Path, change: Callable[[dict[str, Array]], Any]
) -> None:
    file = storage.load(checkpoint)
    change(file.arrays)
    storage.save(checkpoint, "checkpoint", file.arrays, file.header)
    assert_refused(checkpoint, "does not fit model and optimiser: ", ValueError)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batches", 12), ("batches", 13.0), ("batches", 0), ("epoch", 2), ("epoch", -1),
        ("index", 6), ("index", -6), ("index", True), ("waited", -1), ("waited", None),
        ("carried", 3), ("carried", None), ("carried", -1), ("carried", 10**30),
        ("best", "low"), ("rng", {}), ("rng", {"bit_generator": "MT19937"}), ("settings", []),
        ("new", 1),
        ("rng", {"bit_generator": "PCG64", "state": {"state": -1, "inc": 1},
                 "has_uint32": 0, "uinteger": 0}),
        ("rng", {"bit_generator": "PCG64", "state": {"state": 2**200, "inc": "1"},
                 "has_uint32": 0, "uinteger": 0}),
    ],
)  # fmt: skip
def test_a_header_that_makes_no_sense_is_refused(checkpoint: Path, name: str, value: Any) -> None:
    file = storage.load(checkpoint)
    storage.save(checkpoint, "checkpoint", file.arrays, {**file.header, name: value})
    assert_refused(checkpoint, "checkpoint", FormatError)


@pytest.mark.parametrize(
    "change",
    [
        {"history.losses": np.zeros(19)},
        {"history.losses": np.zeros((4, 5))},
        {"history.losses": np.zeros(20, np.float32)},
        {"history.validations": np.zeros(1)},
        {"history.more": np.zeros(1)},
        {"carried.2": np.zeros(1)},
        {"carried.x": np.zeros(1)},
        {"secrets.a": np.zeros(1)},
        {"plain": np.zeros(1)},
    ],
    ids=str,
)
def test_arrays_that_make_no_sense_are_refused(checkpoint: Path, change: dict[str, Array]) -> None:
    file = storage.load(checkpoint)
    storage.save(checkpoint, "checkpoint", {**file.arrays, **change}, file.header)
    assert_refused(checkpoint, "checkpoint", FormatError)


def test_another_number_of_batches_is_refused(checkpoint: Path) -> None:
    _, trainer = build("carried", settings={"data": [1, "a"]})
    trainer.resume(checkpoint)
    with pytest.raises(ValueError, match="batches: the run began with 13 an epoch, got 12"):
        trainer.fit(batches(12), steps=40)
