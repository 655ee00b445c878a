"""The Trainer's steps, validation, early stopping, progress bar, and what it refuses."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastlstm.optim import SGD, Adam
from fastlstm.parameters import Parameters
from fastlstm.training import Trainer
from tests.support import Array, assert_same_bits

Grads = dict[str, Array]


class Line:
    """Fits w to the mean of the numbers it sees, (w - batch)² / 2, and notes all it is handed."""

    def __init__(self, change: Callable[[int], tuple[float, float]] | None = None) -> None:
        self._parameters = Parameters({"w": np.zeros(2)})
        self._change = change
        self.batches: list[float] = []
        self.states: list[Any] = []
        self.draws: list[float] = []

    def parameters(self) -> Parameters:
        return self._parameters

    def loss_and_grads(
        self, batch: float, state: Any, rng: np.random.Generator
    ) -> tuple[float, Grads, Any]:
        self.batches.append(batch)
        self.states.append(state)
        self.draws.append(float(rng.random()))
        distance = self._parameters["w"] - batch
        loss, grads = float(distance @ distance) / 2, {"w": distance}
        if self._change is not None:
            factor, grad = self._change(len(self.batches))
            loss, grads = loss * factor, {"w": distance * grad}
        return loss, grads, (np.array([len(self.batches)]),)


class Spy(SGD):
    """Notes the rate and the norm of each step."""

    def __init__(self, parameters: Parameters, lr: float) -> None:
        super().__init__(parameters, lr)
        self.steps: list[tuple[float | None, float]] = []

    def step(self, grads: Any, *, lr: float | None = None) -> None:
        self.steps.append((lr, float(np.linalg.norm(grads["w"]))))
        super().step(grads, lr=lr)


def trainer_of(model: Line, lr: float = 0.1, **options: Any) -> Trainer:
    return Trainer(model, SGD(model.parameters(), lr), **{"progress": False, **options})


# --- steps ----------------------------------------------------------------------------------------


def test_training_does_what_the_formula_says() -> None:
    model = Line()
    history = trainer_of(model, 0.25).fit([1.0, 3.0], steps=5)
    w, losses = 0.0, []
    for batch in (1.0, 3.0, 1.0, 3.0, 1.0):
        losses.append((w - batch) ** 2)
        w -= 0.25 * (w - batch)
    assert history.losses == losses
    assert history.steps == [1, 2, 3, 4, 5]
    assert model.parameters()["w"].tolist() == [w, w]


@pytest.mark.parametrize(
    ("limits", "steps"),
    [
        ({"epochs": 2}, 6), ({"steps": 4}, 4), ({"epochs": 2, "steps": 4}, 4),
        ({"epochs": 1, "steps": 9}, 3), ({"steps": 0}, 0), ({"epochs": 0}, 0),
    ],
)  # fmt: skip
def test_a_run_ends_at_its_epochs_or_steps(limits: dict[str, int], steps: int) -> None:
    model = Line()
    history = trainer_of(model).fit([1.0, 2.0, 3.0], **limits)
    assert len(history.losses) == steps
    assert model.batches == ([1.0, 2.0, 3.0] * 3)[:steps]


def test_batches_need_nothing_but_a_length_and_an_index() -> None:
    class Squares:
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> float:
            return float(index**2)

    model = Line()
    trainer_of(model).fit(Squares(), epochs=1)  # type: ignore[arg-type]
    assert model.batches == [0.0, 1.0, 4.0, 9.0]


def test_shuffling_takes_every_batch_once_an_epoch_in_an_order_of_seed_and_epoch() -> None:
    orders = []
    for seed in (0, 0, 1):
        model = Line()
        trainer_of(model, shuffle=True, seed=seed).fit([float(k) for k in range(50)], epochs=3)
        orders.append(np.reshape(model.batches, (3, 50)))
        assert (np.sort(orders[-1], axis=1) == np.arange(50)).all()
    first, again, other = orders
    assert (first == again).all()
    epochs = [*first, *other, np.arange(50)]
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs)


def test_the_order_and_the_models_generator_are_not_the_same_random_numbers() -> None:
    """SeedSequence(s) and SeedSequence([s, 0]) are one stream: a trap for (seed, epoch)."""
    model = Line()
    trainer_of(model, shuffle=True, seed=3).fit([float(k) for k in range(9)], epochs=1)
    order = np.random.Generator(np.random.PCG64(3)).permutation(9)
    assert model.batches != order.tolist()
    assert model.draws == np.random.Generator(np.random.PCG64(3)).random(9).tolist()


def test_a_carried_state_goes_from_step_to_step_and_ends_with_the_epoch() -> None:
    model = Line()
    trainer_of(model, carry_state=True).fit([1.0, 2.0, 3.0], epochs=2)
    assert [state and state[0].tolist() for state in model.states] == [
        None, [1], [2], None, [4], [5],
    ]  # fmt: skip
    model = Line()
    trainer_of(model).fit([1.0, 2.0, 3.0], epochs=2)
    assert model.states == [None] * 6


def test_a_carried_state_has_the_layout_that_it_would_have_after_a_resume() -> None:
    model = Line()
    train = model.loss_and_grads
    transposed = (np.arange(6.0).reshape(2, 3).T,)
    model.loss_and_grads = lambda *a: (*train(*a)[:2], transposed)  # type: ignore[method-assign]
    trainer_of(model, carry_state=True).fit([1.0, 2.0], steps=2)
    (carried,) = model.states[1]
    assert carried.flags.c_contiguous
    assert_same_bits(carried, transposed[0])


def test_a_schedule_gives_the_rate_of_each_step() -> None:
    model = Line()
    spy = Spy(model.parameters(), 0.5)
    Trainer(model, spy, schedule=lambda step: 1 / (step + 1), progress=False).fit([1.0], steps=4)
    assert [lr for lr, _ in spy.steps] == [0.5, 0.25, 0.5 / 3, 0.125]


def test_gradients_are_clipped_to_max_norm() -> None:
    model = Line()
    spy = Spy(model.parameters(), 1e-3)
    Trainer(model, spy, max_norm=0.75, progress=False).fit([100.0, 0.1], steps=2)
    norms = [norm for _, norm in spy.steps]
    assert norms == [pytest.approx(0.75, rel=1e-12), pytest.approx(0.1 * math.sqrt(2), rel=0.02)]


def test_on_step_sees_every_step_after_it_is_done() -> None:
    model, seen = Line(), []

    def on_step(step: int, loss: float) -> None:
        seen.append((step, loss, float(model.parameters()["w"][0])))

    history = trainer_of(model, 0.5, on_step=on_step).fit([2.0], steps=2)
    assert seen == [(1, history.losses[0], 1.0), (2, history.losses[1], 1.5)]


# --- what is not finite ---------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["loss", "gradient"])
@pytest.mark.parametrize("max_norm", [None, 1.0])
def test_what_is_not_finite_never_reaches_the_weights(
    where: str, bad: float, max_norm: float | None, tmp_path: Path
) -> None:
    def change(step: int) -> tuple[float, float]:
        if step < 3:
            return 1.0, 1.0
        return (bad, 1.0) if where == "loss" else (1.0, bad)

    path = tmp_path / "checkpoint"
    model, whole = Line(change), Line()
    adam = Adam(model.parameters())
    trainer = Trainer(
        model, adam, max_norm=max_norm, checkpoint=path, checkpoint_every=1, progress=False
    )
    message = f"the loss is {bad} in step 3" if where == "loss" else "w"
    with pytest.raises(FloatingPointError, match=message):
        trainer.fit([1.0], steps=9)
    Trainer(whole, Adam(whole.parameters()), max_norm=max_norm, progress=False).fit([1.0], steps=2)
    assert_same_bits(model.parameters()["w"], whole.parameters()["w"])
    assert adam.state_dict()["step"] == 2
    assert len(trainer.history.losses) == 2
    fresh = Line()
    resumed = Trainer(fresh, Adam(fresh.parameters()), progress=False)
    resumed.resume(path)
    assert_same_bits(fresh.parameters()["w"], whole.parameters()["w"])


def test_a_validation_that_is_not_finite_ends_training() -> None:
    values = iter([1.0, math.nan])
    trainer = trainer_of(Line(), validate=lambda: next(values))
    with pytest.raises(FloatingPointError, match="the validation after step 4 gave nan"):
        trainer.fit([1.0, 2.0], epochs=5)
    assert trainer.history.validations == [(2, 1.0)]


# --- validation and early stopping ----------------------------------------------------------------


def run_with_validations(values: list[float], **options: Any) -> tuple[Line, Trainer, list[Array]]:
    """A run whose validations give these values; also the weights at each of them."""
    model = Line()
    weights: list[Array] = []

    def validate() -> float:
        weights.append(model.parameters()["w"].copy())
        return values[len(weights) - 1]

    trainer = trainer_of(model, validate=validate, **options)
    trainer.fit([1.0, 2.0], epochs=len(values))
    return model, trainer, weights


def test_validation_comes_with_every_epoch_or_every_few_steps() -> None:
    _, trainer, _ = run_with_validations([3.0, 2.0, 4.0])
    assert trainer.history.validations == [(2, 3.0), (4, 2.0), (6, 4.0)]
    _, trainer, _ = run_with_validations([3.0, 2.0, 4.0], validate_every=4)
    assert trainer.history.validations == [(4, 3.0)]


def test_training_stops_after_patience_validations_without_a_new_best() -> None:
    values = [5.0, 4.0, 4.5, 4.0, 3.9, 3.95, 4.0, 3.9, 1.0, 0.0]
    model, trainer, weights = run_with_validations(values, patience=3)
    assert [value for _, value in trainer.history.validations] == values[:8]
    assert_same_bits(model.parameters()["w"], weights[4])
    trainer.fit([1.0, 2.0], epochs=99)
    assert len(trainer.history.losses) == 16


def test_the_best_weights_are_put_back_also_when_patience_was_not_used_up() -> None:
    model, trainer, weights = run_with_validations([5.0, 4.0, 4.5], patience=3)
    assert len(trainer.history.losses) == 6
    assert_same_bits(model.parameters()["w"], weights[1])


def test_without_patience_the_last_weights_stay() -> None:
    model, _, weights = run_with_validations([5.0, 4.0, 4.5])
    assert_same_bits(model.parameters()["w"], weights[2])


# --- checkpoints (that they resume is in test_resume.py) ------------------------------------------


@pytest.mark.parametrize(
    ("every", "saved"), [(None, [3, 6, 8]), (1, list(range(1, 9))), (5, [5, 8]), (4, [4, 8])]
)
def test_checkpoints_come_with_every_epoch_or_every_few_steps_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int | None, saved: list[int]
) -> None:
    from fastlstm import checkpoints

    steps = []
    save = checkpoints.save

    def note(*arguments: Any) -> None:
        steps.append(arguments[3].step)
        save(*arguments)

    monkeypatch.setattr(checkpoints, "save", note)
    trainer = trainer_of(Line(), checkpoint=tmp_path / "file", checkpoint_every=every)
    trainer.fit([1.0, 2.0, 3.0], steps=8)
    trainer.fit([1.0, 2.0, 3.0], steps=8)
    assert steps == saved


def test_a_checkpoint_that_cannot_be_written_ends_training(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    trainer = trainer_of(Line(), checkpoint=folder / "file")
    folder.rmdir()
    with pytest.raises(FileNotFoundError, match="folder"):
        trainer.fit([1.0], steps=3)


# --- the progress bar -----------------------------------------------------------------------------


def test_the_bar_goes_to_stderr_and_shows_figures_units_and_time(
    capsys: pytest.CaptureFixture[str],
) -> None:
    trainer = trainer_of(
        Line(), progress=True, describe=lambda loss: {"bits": f"{loss / math.log(2):.3f}"},
        unit="char", units_per_step=1000,
    )  # fmt: skip
    history = trainer.fit([1.0, 2.0], steps=40)
    out, err = capsys.readouterr()
    assert out == ""
    last = err.split("\r")[-1]
    mean = math.fsum(history.losses[-20:]) / 20
    assert "100%" in last
    assert "40.0k/40.0k" in last
    assert "char/s" in last
    assert f"loss={mean:.3f}, bits={mean / math.log(2):.3f}" in last


def test_the_bar_of_a_resumed_run_starts_where_that_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer_of(Line(), checkpoint=tmp_path / "file").fit([1.0], steps=30)
    trainer = trainer_of(Line(), progress=True)
    trainer.resume(tmp_path / "file")
    trainer.fit([1.0], steps=40)
    first, *_, last = capsys.readouterr().err.strip().split("\r")
    assert "30/40" in first
    assert "40/40" in last


def test_without_progress_nothing_is_written(capfd: pytest.CaptureFixture[str]) -> None:
    trainer_of(Line(), describe=lambda _: {"never": "asked"}).fit([1.0], steps=30)
    assert capfd.readouterr() == ("", "")


def test_the_bar_is_closed_when_training_fails(capsys: pytest.CaptureFixture[str]) -> None:
    trainer = trainer_of(Line(lambda step: (math.nan, 1) if step == 9 else (1, 1)), progress=True)
    with pytest.raises(FloatingPointError):
        trainer.fit([1.0], steps=30)
    assert capsys.readouterr().err.endswith("\n")


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_norm": 0}, ValueError, "max_norm: expected a finite number > 0, got 0"),
        ({"max_norm": "1"}, TypeError, "max_norm: expected a number, got '1'"),
        ({"carry_state": 1}, TypeError, "carry_state: expected True or False, got 1"),
        ({"shuffle": None}, TypeError, "shuffle: expected True or False, got None"),
        ({"shuffle": True, "carry_state": True}, ValueError, "shuffle: .* must stay in"),
        ({"seed": -1}, ValueError, "seed: expected a whole number >= 0, got -1"),
        ({"seed": 1.5}, TypeError, "seed: expected a whole number, got 1.5"),
        ({"seed": True}, TypeError, "seed: expected a whole number, got True"),
        ({"checkpoint": 3}, TypeError, "checkpoint: expected a path, got 3"),
        ({"checkpoint": "nowhere/file"}, FileNotFoundError, "checkpoint: there is no folder"),
        ({"checkpoint_every": 2}, ValueError, "checkpoint_every: .* without checkpoint"),
        ({"checkpoint": "file", "checkpoint_every": 0}, ValueError, "checkpoint_every: expected"),
        ({"validate": 3}, TypeError, "validate: expected a function or None, got 3"),
        ({"validate_every": 2}, ValueError, "validate_every: .* without validate"),
        ({"validate": float, "validate_every": 0.5}, TypeError, "validate_every: expected"),
        ({"patience": 2}, ValueError, "patience: .* without validate"),
        ({"validate": float, "patience": 0}, ValueError, "patience: expected"),
        ({"progress": 1}, TypeError, "progress: expected True or False, got 1"),
        ({"schedule": 0.5}, TypeError, "schedule: expected a function or None, got 0.5"),
        ({"describe": "bits"}, TypeError, "describe: expected a function or None, got 'bits'"),
        ({"on_step": 1}, TypeError, "on_step: expected a function or None, got 1"),
        ({"units_per_step": 0}, ValueError, "units_per_step: expected"),
        ({"settings": {"a": (1, 2)}}, TypeError, "settings: expected a JSON object"),
        ({"settings": {"trainer": 1}}, ValueError, "settings: the name 'trainer' is taken"),
    ],
)
def test_options_that_are_not_possible_are_refused_by_name(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        trainer_of(Line(), **options)


@pytest.mark.parametrize(
    ("batches", "limits", "error", "message"),
    [
        ([1.0], {}, ValueError, "epochs, steps: expected at least one of them, got neither"),
        ([], {"steps": 1}, ValueError, "batches: expected at least one batch, got none"),
        (3, {"steps": 1}, TypeError, "batches: expected a sequence .* got 3"),
        (
            iter([1.0]),
            {"steps": 1},
            TypeError,
            "expected a sequence of batches, got <list_iterator",
        ),
        ([1.0], {"steps": 1.0}, TypeError, "steps: expected a whole number, got 1.0"),
        ([1.0], {"epochs": -1}, ValueError, "epochs: expected a whole number >= 0, got -1"),
    ],
)
def test_fit_names_what_is_wrong(
    batches: Any, limits: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        trainer_of(Line()).fit(batches, **limits)


def test_an_optimiser_over_other_weights_is_found_out() -> None:
    model, other = Line(), Line()
    trainer = Trainer(model, SGD(other.parameters(), 0.1), progress=False)
    with pytest.raises(ValueError, match="optimiser: its step did not change the model's"):
        trainer.fit([1.0], steps=1)


@pytest.mark.parametrize("state", [np.zeros(2), [np.zeros(2)], ((np.zeros(2),),), (1.0,), "h"])
def test_a_state_that_a_checkpoint_cannot_hold_is_refused(state: Any) -> None:
    model = Line()
    train = model.loss_and_grads
    model.loss_and_grads = lambda *a: (*train(*a)[:2], state)  # type: ignore[method-assign]
    with pytest.raises(TypeError, match="model: with carry_state, loss_and_grads must return"):
        trainer_of(model, carry_state=True).fit([1.0], steps=1)
    assert model.parameters().version == 0


@pytest.mark.parametrize("missing", ["tqdm", "safetensors"])
def test_a_missing_extra_is_named_before_training_begins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=rf"{missing}: pip install 'fastlstm\[train\]'"):
        trainer_of(Line(), progress=True, checkpoint=tmp_path / "file")
    history = trainer_of(Line(), progress=False).fit([1.0], steps=2)
    assert len(history.losses) == 2
