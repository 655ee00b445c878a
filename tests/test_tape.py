"""The tape: one use, one owner, one version of the weights."""

from __future__ import annotations

import copy
import pickle

import pytest

from fastlstm.tape import Tape, check_tape


class Owner:
    """Stands for a layer."""


def test_take_gives_what_was_saved_once() -> None:
    saved = (1, "two")
    tape = Tape(Owner(), 3, saved, (2, 4))
    assert tape.d_shape == (2, 4)
    assert tape.take(3) is saved
    with pytest.raises(RuntimeError, match="used already"):
        tape.take(3)


@pytest.mark.parametrize("version", [2, 4])
def test_another_version_of_the_weights_is_refused(version: int) -> None:
    tape = Tape(Owner(), 3, (), ())
    with pytest.raises(RuntimeError, match=f"version 3 then, {version} now"):
        tape.take(version)


def test_a_tape_lets_go_of_what_it_saved() -> None:
    """Or the memory of a whole pass would live as long as the tape's name."""
    import gc
    import weakref

    kept = Owner()
    alive = weakref.ref(kept)
    tape = Tape(None, 0, (kept,), ())
    (kept,) = tape.take(0)
    del kept
    gc.collect()
    assert alive() is None
    assert "used" in repr(tape)


def test_check_tape_knows_its_owner() -> None:
    owner = Owner()
    tape = Tape(owner, 0, (), ())
    assert check_tape(tape, owner) is tape
    with pytest.raises(ValueError, match="another layer"):
        check_tape(tape, Owner())
    with pytest.raises(TypeError, match="NoneType"):
        check_tape(None, owner)


def test_repr_tells_owner_shape_and_use() -> None:
    tape = Tape(Owner(), 0, (), (2, 4))
    assert repr(tape) == "<Tape of Owner, output (2, 4), unused>"
    tape.take(0)
    assert repr(tape) == "<Tape of Owner, output (2, 4), used>"


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_tape_cannot_be_copied(duplicate: object) -> None:
    """A copy would be a second use."""
    with pytest.raises(TypeError, match="copied"):
        duplicate(Tape(Owner(), 0, (), ()))  # type: ignore[operator]
