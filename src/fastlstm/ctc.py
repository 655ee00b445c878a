"""Connectionist temporal classification: the loss of a labelling whose alignment is not known.

Graves, Fernández, Gomez & Schmidhuber 2006, "Connectionist Temporal Classification: Labelling
Unsegmented Sequence Data with Recurrent Neural Networks". A network emits a class or a blank at
each step; a path of such emissions means the labelling that is left when repetitions are merged
and blanks taken out. The probability of a labelling is the sum over all of its paths.
decoding.py goes the other way.
"""

from __future__ import annotations

from typing import Any, Literal, overload

import numpy as np

from fastlstm._core import ctc as _compiled
from fastlstm._validate import (
    Array,
    check_flag,
    check_floats,
    check_integers,
    check_shape,
    check_size,
    compact,
)
from fastlstm.threads import team

# What the softmax costs for each logit, and forward and backward for each state of each step, in
# floating-point operations.
_OPERATIONS = 40.0
_STATE_OPERATIONS = 60.0

_ANY_INTEGER = {"least": -(2**63), "most": 2**64 - 1}


@overload
def ctc_loss(
    logits: Array,
    targets: Array,
    input_lengths: Array | int,
    target_lengths: Array | int,
    *,
    blank: int = ...,
    reduction: Literal["mean", "sum"] = ...,
    zero_infinity: bool = ...,
) -> tuple[float, Array]: ...


@overload
def ctc_loss(
    logits: Array,
    targets: Array,
    input_lengths: Array | int,
    target_lengths: Array | int,
    *,
    blank: int = ...,
    reduction: Literal["none"],
    zero_infinity: bool = ...,
) -> tuple[Array, Array]: ...


def ctc_loss(
    logits: Array,
    targets: Array,
    input_lengths: Array | int,
    target_lengths: Array | int,
    *,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> tuple[float | Array, Array]:
    """-log p(targets) of a batch of sequences, as ``torch.nn.functional.ctc_loss`` of log_softmax.

    By the forward-backward algorithm of Graves et al. 2006, which runs in float64 for either dtype;
    the softmax at each step is of the dtype of the logits.

    Parameters
    ----------
    logits : ndarray (T, N, C) or (T, C)
        Unnormalised log-probabilities of C classes, the blank among them, of float32 or float64, in
        any memory layout: of N sequences, or of one. log_softmax is a part of this function, so
        log-probabilities are right as well. -inf is a class that cannot be.
    targets : ndarray of integers (N, S), (sum of target_lengths,), or (S,) beside logits (T, C)
        The labels of each sequence, from 0 to C - 1 and none of them the blank: padded to a common
        length with whatever is there, or one sequence behind the other.
    input_lengths : ndarray of integers (N,)
        Steps of each sequence, from 0 to T. What lies past them is never read. Beside logits (T, C)
        an int or an array of one.
    target_lengths : ndarray of integers (N,)
        Labels of each sequence, 0 among them. Beside logits (T, C) an int or an array of one.
    blank : int, default 0
        The class that stands for no label.
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" divides each loss by the number of its labels (by 1 if there are none), and takes the
        mean over the batch; "sum" adds the losses up; "none" leaves them.
    zero_infinity : bool, default False
        Count infinite losses, and their gradients, as zero.

    Returns
    -------
    loss : float, or ndarray of float64 (N,) or () for "none"
        Infinite for targets that cannot be: more labels, and blanks that repeated labels need
        between them, than there are steps. NaN if a row that counts has a NaN, a +inf, or nothing
        but -inf.
    d_logits : ndarray, of the shape of logits
        The gradient of the loss ("none": of each sequence's own): softmax less the posterior
        probability of each class at each step, over what "mean" divides by; zero past the input
        lengths; NaN in sequences whose loss is not finite. Fresh, of the dtype of the logits.

    Raises
    ------
    TypeError
        If an argument is no array of the kind stated.
    ValueError
        If the shapes or lengths do not fit, a target is the blank, or "mean" has no sequence.
    IndexError
        If a target is out of range.

    Examples
    --------
    Two steps, two classes and the blank: of nine paths, which are all alike here, three mean [1].

    >>> import numpy as np
    >>> loss, d_logits = ctc_loss(np.zeros((2, 3)), np.array([1]), 2, 1)
    >>> round(float(np.exp(-loss)), 6), d_logits[0].round(6)
    (0.333333, array([ 0.      , -0.333333,  0.333333]))
    """
    logits = check_floats("logits", logits, ("T", "C") if np.ndim(logits) == 2 else ("T", "N", "C"))
    alone = logits.ndim == 2
    batched = logits[:, None] if alone else logits
    steps, batch, classes = batched.shape
    blank = check_size("blank", blank, least=0, most=classes - 1)
    zero_infinity = check_flag("zero_infinity", zero_infinity)
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction: expected 'mean', 'sum' or 'none', got {reduction!r}")
    if reduction == "mean" and batch == 0:
        raise ValueError(f"logits: expected one sequence at least, got shape {logits.shape}")
    lengths = _check_lengths("input_lengths", input_lengths, alone, batch, steps)
    sizes = _check_lengths("target_lengths", target_lengths, alone, batch, None)
    labels = _check_targets(targets, sizes, alone, classes, blank)

    factors = np.ones(batch)
    if reduction == "mean":
        factors /= np.maximum(sizes, 1) * batch
    rows = compact(batched)
    d_logits = np.empty_like(rows)
    losses = np.empty(batch)
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    work = _OPERATIONS * rows.size + _STATE_OPERATIONS * float(lengths @ (2.0 * sizes + 1))
    most = int(lengths.max(initial=0)), int(sizes.max(initial=0))
    with team(work, blas=False) as threads:
        scratch = np.empty((min(threads, batch), _compiled.scratch_size(*most, classes)))
        if batch:
            _compiled.ctc_loss(
                d_logits, losses, rows, labels, starts, lengths, factors, blank, zero_infinity,
                scratch,
            )  # fmt: skip
    d_logits = d_logits.reshape(logits.shape)
    if reduction == "none":
        return losses.reshape(()) if alone else losses, d_logits
    with np.errstate(all="ignore"):
        return float((losses * factors).sum()), d_logits


def _check_lengths(name: str, value: object, alone: bool, batch: int, most: int | None) -> Array:
    """Return int64 lengths (batch,), each from 0 to `most`."""
    if alone and not isinstance(value, np.ndarray):
        return np.array([check_size(name, value, least=0, most=most)])
    shape: tuple[int | str, ...] = () if alone and np.ndim(value) == 0 else (batch,)  # type: ignore[arg-type]
    least_most: dict[str, Any] = {"least": 0, "most": 2**31 - 2 if most is None else most}
    try:
        return compact(check_integers(name, value, shape, **least_most).reshape(batch))
    except IndexError as error:
        raise ValueError(str(error)) from None


def _check_targets(value: object, sizes: Array, alone: bool, classes: int, blank: int) -> Array:
    """Return the labels of all sequences, one behind the other, without what lies past them."""
    padded = not alone and np.ndim(value) == 2  # type: ignore[arg-type]
    shape: tuple[int | str, ...] = (len(sizes), "S") if padded else ("S",)
    # Bounds are for what counts, and a shape (S,) for what has an axis at all.
    targets = check_integers("targets", value, shape, **_ANY_INTEGER)
    longest = int(sizes.max(initial=0))
    if padded or alone:
        if targets.shape[-1] < longest:
            raise ValueError(
                f"target_lengths: expected at most {targets.shape[-1]}, the labels that targets "
                f"have, got {longest}"
            )
        rows = targets.reshape(len(sizes), targets.shape[-1])
        labels = rows[np.arange(rows.shape[1]) < sizes[:, None]]
    else:
        labels = compact(check_shape("targets", targets, (int(sizes.sum()),)))
    check_integers("targets", labels, ("S",), least=0, most=classes - 1)
    if (labels == blank).any():
        raise ValueError(f"targets: expected labels other than the blank, got {blank}")
    return labels
