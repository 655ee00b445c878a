"""Parameters: read-only from outside, and every change through the one door moves the version."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from fastlstm.parameters import Layer, Parameters
from tests.support import Array, assert_same_bits

DUPLICATES = [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))]


def two_arrays() -> dict[str, Array]:
    return {"weight": np.arange(6.0).reshape(2, 3), "bias": np.arange(2, dtype=np.float32)}


def test_it_is_a_mapping_in_the_order_given() -> None:
    parameters = Parameters(two_arrays())
    assert isinstance(parameters, Mapping)
    assert list(parameters) == ["weight", "bias"]
    assert len(parameters) == 2
    assert "bias" in parameters
    with pytest.raises(KeyError):
        parameters["other"]
    for name, array in two_arrays().items():
        assert_same_bits(parameters[name], array, name)
    assert repr(parameters) == "Parameters(version=0: weight (2, 3), bias (2,))"


def test_the_initial_values_are_copied() -> None:
    arrays = two_arrays()
    parameters = Parameters(arrays)
    arrays["weight"][:] = -1
    assert_same_bits(parameters["weight"], two_arrays()["weight"])


def test_writing_raises_and_cannot_be_switched_on() -> None:
    parameters = Parameters(two_arrays())
    with pytest.raises(ValueError, match="read-only"):
        parameters["weight"][0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        parameters["weight"].T[0] += 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        parameters["weight"].flags.writeable = True
    with pytest.raises(TypeError):
        parameters["weight"] = np.zeros((2, 3))  # type: ignore[index]


def test_a_state_dict_is_made_of_copies() -> None:
    parameters = Parameters(two_arrays())
    taken = parameters.state_dict()
    taken["weight"][:] = -1
    assert_same_bits(parameters["weight"], two_arrays()["weight"])
    parameters.load_state_dict(taken)
    taken["weight"][:] = -2
    assert (parameters["weight"] == -1).all()


# --- the version ---------------------------------------------------------------------------------


def load(parameters: Parameters) -> None:
    parameters.load_state_dict(parameters.state_dict())


def edit(parameters: Parameters) -> None:
    with parameters.editing():
        pass


def update(parameters: Parameters) -> None:
    with parameters.updating():
        pass


@pytest.mark.parametrize("change", [load, edit, update])
def test_every_way_to_change_moves_the_version(change: Callable[[Parameters], None]) -> None:
    parameters = Parameters(two_arrays())
    versions = [parameters.version]
    for _ in range(3):
        change(parameters)
        versions.append(parameters.version)
    assert versions == sorted(set(versions))


def test_reading_does_not_move_the_version() -> None:
    parameters = Parameters(two_arrays())
    parameters.state_dict()
    dict(parameters)
    assert parameters.version == 0


def test_nothing_made_while_updating_passes_for_fresh() -> None:
    parameters = Parameters(two_arrays())
    before = parameters.version
    with parameters.updating() as owned:
        during = parameters.version
        owned["weight"][:] = 1
    assert before < during < parameters.version


def test_updating_writes_in_place_and_ends_even_when_it_fails() -> None:
    parameters = Parameters(two_arrays())
    seen = parameters["weight"]
    with pytest.raises(ValueError, match="broadcast"), parameters.updating() as owned:  # noqa: PT012
        owned["weight"][:] = 7
        owned["bias"][:] = np.zeros(5)
    assert (seen == 7).all(), "a view obtained before shows the change"
    assert parameters.version >= 2
    for array in (owned["weight"], owned["bias"]):
        assert not array.flags.writeable


# --- load_state_dict and editing -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"weight": None}, ValueError, r"missing \['weight'\]"),
        ({"extra": np.zeros(1)}, ValueError, r"unexpected \['extra'\]"),
        ({"bias": np.zeros(3, np.float32)}, ValueError, r"state_dict\['bias'\].*\(2,\).*\(3,\)"),
        ({"bias": np.zeros(2)}, TypeError, r"state_dict\['bias'\].*float32.*float64"),
        ({"bias": [0.0, 0.0]}, TypeError, r"state_dict\['bias'\].*list"),
    ],
)
def test_a_state_dict_that_does_not_fit_changes_nothing(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    parameters = Parameters(two_arrays())
    given = {"weight": np.full((2, 3), 9.0), "bias": np.full(2, 9, np.float32)} | change
    given = {name: array for name, array in given.items() if array is not None}
    with pytest.raises(error, match=message):
        parameters.load_state_dict(given)
    assert parameters.version == 0
    for name, array in two_arrays().items():
        assert_same_bits(parameters[name], array, name)


def test_a_state_dict_is_a_mapping() -> None:
    with pytest.raises(TypeError, match="state_dict"):
        Parameters(two_arrays()).load_state_dict([("weight", 1)])  # type: ignore[arg-type]


def test_its_own_views_in_another_order_may_be_loaded() -> None:
    parameters = Parameters({"a": np.array([1.0, 2.0]), "b": np.array([3.0, 4.0])})
    parameters.load_state_dict({"a": parameters["b"], "b": parameters["a"][::-1]})
    assert parameters["a"].tolist() == [3, 4]
    assert parameters["b"].tolist() == [2, 1]


def test_editing_takes_over_when_the_block_ends_and_not_when_it_raises() -> None:
    parameters = Parameters(two_arrays())
    with parameters.editing() as edited:
        edited["weight"][:] = 5
        edited["bias"] = np.full(2, 6, np.float32)
        assert_same_bits(parameters["weight"], two_arrays()["weight"])
    assert (parameters["weight"] == 5).all()
    assert (parameters["bias"] == 6).all()
    version = parameters.version
    with pytest.raises(ZeroDivisionError), parameters.editing() as edited:  # noqa: PT012
        edited["weight"][:] = 8
        raise ZeroDivisionError
    assert (parameters["weight"] == 5).all()
    assert parameters.version == version


# --- networks ------------------------------------------------------------------------------------


def test_parameters_over_somebody_elses_memory() -> None:
    memory = np.zeros((2, 3))
    shared = Parameters.over({"weight": memory[:]})
    memory[1, 2] = 5
    assert shared["weight"][1, 2] == 5
    assert np.shares_memory(shared["weight"], memory)
    with pytest.raises(ValueError, match="read-only"):
        shared["weight"][...] = 1


def test_joined_parameters_are_those_of_the_layers() -> None:
    one, other = Parameters(two_arrays()), Parameters({"weight": np.ones(1)})
    joined = Parameters.join({"first": one, "second": other})
    assert list(joined) == ["first.weight", "first.bias", "second.weight"]
    assert np.shares_memory(joined["first.weight"], one["weight"])
    versions = one.version, other.version, joined.version
    with joined.updating() as owned:
        owned["second.weight"][:] = 4
    assert other["weight"].tolist() == [4]
    assert (one.version, other.version, joined.version) > versions
    assert one.version > versions[0]  # whoever derived something from either finds it stale
    assert other.version > versions[1]
    before = joined.version
    update(one)
    assert joined.version > before, "a layer that changes makes the network's stale"


def test_joins_may_be_joined() -> None:
    inner = Parameters.join({"b": Parameters({"w": np.ones(1)})})
    outer = Parameters.join({"a": inner})
    assert list(outer) == ["a.b.w"]
    update(outer)
    assert inner.version > 0


# --- copies --------------------------------------------------------------------------------------


@pytest.mark.parametrize("duplicate", DUPLICATES)
def test_a_copy_lives_on_its_own(duplicate: Callable[[Parameters], Parameters]) -> None:
    parameters = Parameters(two_arrays())
    update(parameters)
    other = duplicate(parameters)
    assert other.version == parameters.version
    with other.updating() as owned:
        owned["weight"][:] = 3
    assert (other["weight"] == 3).all()
    assert_same_bits(parameters["weight"], two_arrays()["weight"])
    assert other.version > parameters.version
    with pytest.raises(ValueError, match="read-only"):
        other["weight"][:] = 1


@pytest.mark.parametrize("duplicate", DUPLICATES)
def test_a_copied_network_still_shares_with_its_own_layers(
    duplicate: Callable[[Any], Any],
) -> None:
    part = Parameters(two_arrays())
    network = {"part": part, "all": Parameters.join({"part": part})}
    other = duplicate(network)
    with other["all"].updating() as owned:
        owned["part.weight"][:] = 3
    assert (other["part"]["weight"] == 3).all()
    assert other["part"].version > part.version == 0


# --- layers --------------------------------------------------------------------------------------


class Scale(Layer):
    """A layer with one weight."""

    def __init__(self) -> None:
        self._parameters = Parameters({"factor": np.array([2.0])})


def test_a_layer_shows_its_weights_as_attributes() -> None:
    layer = Scale()
    assert layer.factor.tolist() == [2]
    assert layer.parameters()["factor"].tolist() == [2]
    with pytest.raises(AttributeError, match="'Scale' object has no attribute 'other'"):
        _ = layer.other
    with layer.editing() as edited:
        edited["factor"][:] = 5
    assert layer.factor.tolist() == [5]
    layer.load_state_dict({"factor": np.array([6.0])})
    assert layer.state_dict()["factor"].tolist() == [6]


def test_weights_cannot_be_assigned_to() -> None:
    layer = Scale()
    with pytest.raises(AttributeError, match="factor"):
        layer.factor = np.array([1.0])
    assert layer.parameters()["factor"].tolist() == [2]


def test_an_unfinished_layer_has_no_attributes_instead_of_recursing() -> None:
    with pytest.raises(AttributeError, match="factor"):
        _ = Scale.__new__(Scale).factor


@pytest.mark.parametrize("duplicate", DUPLICATES, ids=["deepcopy", "pickle"])
def test_copies_of_large_arrays_can_be_changed(duplicate: Callable[[Any], Any]) -> None:
    """A pickle keeps a large read-only array as bytes, of which NumPy makes no writable view."""
    layer = Parameters({"weight": np.zeros(5000)})
    network = Parameters.join({"layer": layer})
    layer, network = duplicate((layer, network))
    layer.load_state_dict({"weight": np.ones(5000)})
    assert (network["layer.weight"] == 1).all()
    network.load_state_dict({"layer.weight": np.full(5000, 2.0)})
    assert (layer["weight"] == 2).all()
    assert layer.version == network.version
    with pytest.raises(ValueError, match="read-only"):
        layer["weight"][0] = 1
