"""_interrupt: Ctrl-C at exact places in a training run, and the signal handler as a guest."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastlstm import checkpoints
from fastlstm.training import Trainer
from tests.training_job import STEPS, assert_same_weights, batches, build, resumed, uninterrupted


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("place", ["loss_and_grads", "optimiser", "on_step"])
def test_ctrl_c_lets_the_step_under_way_finish_and_saves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def note(step: int, _: float) -> None:
        seen.append(step)
        if place == "on_step" and step == 31:
            press_ctrl_c()

    def interrupted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            if len(seen) == 30:
                press_ctrl_c()
            return function(*arguments, **more)

        return call

    seen: list[int] = []
    path = tmp_path / "checkpoint"
    network, trainer = build("carried", checkpoint=path, on_step=note)
    if place == "loss_and_grads":
        monkeypatch.setattr(network, "loss_and_grads", interrupted(network.loss_and_grads))
    elif place == "optimiser":
        monkeypatch.setattr(trainer._optimiser, "step", interrupted(trainer._optimiser.step))
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(batches(), steps=STEPS)
    assert seen == list(range(1, 32))
    assert checkpoints.load(path).run.step == 31
    assert_same_weights(checkpoints.load(path).parameters, network.parameters().state_dict())
    network, _ = resumed("carried", path)
    assert_same_weights(network.parameters(), uninterrupted("carried")[0])


def interrupt_validation(trainer: Trainer, number: int) -> list[float]:
    """Let Ctrl-C come at the end of a validation; return a list of those that began."""
    validate, calls = trainer._validate_model, []
    assert validate is not None

    def interrupted() -> float:
        value = validate()
        calls.append(value)
        if len(calls) == number:
            press_ctrl_c()
            calls.append(float("nan"))  # not reached
        return value

    trainer._validate_model = interrupted
    return calls


def test_ctrl_c_cuts_a_validation_short_and_it_is_done_again(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    network, trainer = build("stopping", checkpoint=path)
    calls = interrupt_validation(trainer, 3)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(batches(), steps=STEPS)
    assert len(calls) == 3
    run = checkpoints.load(path).run
    assert run.step == 27
    assert [step for step, _ in run.history.validations] == [9, 18]
    assert_same_weights(checkpoints.load(path).parameters, network.parameters().state_dict())
    network, _ = resumed("stopping", path)
    assert_same_weights(network.parameters(), uninterrupted("stopping")[0])


def test_a_last_validation_that_is_done_again_is_in_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    _, trainer = build("stopping", checkpoint=path)
    interrupt_validation(trainer, 3)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(batches(), steps=27)
    _, trainer = build("stopping", checkpoint=path)
    trainer.resume(path)
    assert len(trainer.fit(batches(), steps=27).validations) == 3
    assert checkpoints.load(path).run.history == trainer.history


def test_a_second_ctrl_c_interrupts_at_once_and_saves_nothing_half_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint"
    network, trainer = build("carried", checkpoint=path, checkpoint_every=10)
    reached = []
    train = network.loss_and_grads

    def impatient(*arguments: Any) -> Any:
        if len(trainer.history.losses) == 15:
            press_ctrl_c()
            reached.append("after the first")
            press_ctrl_c()
            reached.append("after the second")
        return train(*arguments)

    monkeypatch.setattr(network, "loss_and_grads", impatient)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(batches(), steps=STEPS)
    assert reached == ["after the first"]
    assert checkpoints.load(path).run.step == 10
    network, _ = resumed("carried", path)
    assert_same_weights(network.parameters(), uninterrupted("carried")[0])


def test_ctrl_c_in_the_last_moment_is_not_lost(tmp_path: Path) -> None:
    def at_the_end(step: int, _: float) -> None:
        if step == 20:
            press_ctrl_c()

    _, trainer = build("carried", checkpoint=tmp_path / "checkpoint", on_step=at_the_end)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(batches(), steps=20)
    assert checkpoints.load(tmp_path / "checkpoint").run.step == 20


def test_without_a_checkpoint_ctrl_c_still_ends_training_between_steps() -> None:
    network, trainer = build("carried", on_step=lambda step, _: step == 5 and press_ctrl_c())
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(batches(), steps=STEPS)
    assert_same_weights(network.parameters(), uninterrupted("carried", 5)[0])


# --- the signal handler is a guest ----------------------------------------------------------------


class Stop(Exception):  # noqa: N818
    pass


@pytest.mark.parametrize("error", [None, Stop, KeyboardInterrupt, FloatingPointError])
def test_the_handler_before_is_put_back(error: type[BaseException] | None) -> None:
    def mine(*_: object) -> None:
        raise AssertionError("not while fit runs")

    during = []

    def on_step(step: int, _: float) -> None:
        during.append(signal.getsignal(signal.SIGINT))
        if step == 3 and error is not None:
            raise error

    _, trainer = build("carried", on_step=on_step)
    before = signal.signal(signal.SIGINT, mine)
    try:
        if error is None:
            trainer.fit(batches(), steps=3)
        else:
            with pytest.raises(error):
                trainer.fit(batches(), steps=3)
        assert signal.getsignal(signal.SIGINT) is mine
        assert len(during) == 3
        assert mine not in during
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_ignored_ctrl_c_stays_ignored() -> None:
    _, trainer = build("carried", on_step=lambda step, _: step == 3 and press_ctrl_c())
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert trainer.fit(batches(), steps=5).steps == [1, 2, 3, 4, 5]
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_train_without_touching_signals() -> None:
    expected, _ = uninterrupted("carried", 30)
    before = signal.getsignal(signal.SIGINT)
    seen = set()
    networks = []

    def train() -> None:
        network, trainer = build(
            "carried", on_step=lambda *_: seen.add(signal.getsignal(signal.SIGINT))
        )
        trainer.fit(batches(), steps=30)
        networks.append(network)

    threads = [threading.Thread(target=train) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {before}
    assert len(networks) == 3
    for network in networks:
        assert_same_weights(network.parameters(), expected)
