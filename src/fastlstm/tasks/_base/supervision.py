"""Classes, targets and weights of samples: what was handed in, as a loss takes it, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastlstm._validate import Array, check_number
from fastlstm.losses import softmax_cross_entropy
from fastlstm.tasks._base.sklearn import check_classification_targets, column_or_1d

_NUMBERS = frozenset(
    np.dtype(t).str
    for t in (
        np.bool_, np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32,
        np.uint64, np.float16, np.float32, np.float64,
    )
)  # fmt: skip


def check_labels(y: Any, count: int) -> Array:
    """Return labels (count,): numbers, bools or strings.

    Raises
    ------
    TypeError, ValueError
        If there are none, not one for each of `count` samples, or they are no classes.
    """
    if y is None:
        raise ValueError(
            "y: expected a class for each sample, got None (fit requires y to be passed, but the "
            "target y is None)"
        )
    if isinstance(y, (list, tuple)):
        _check_one_kind(y)
    labels: Array = column_or_1d(y, warn=True)
    if len(labels) != count:
        raise ValueError(f"y: expected {count} classes, as X has, got {len(labels)}")
    if labels.dtype == object:
        _check_one_kind(labels)
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise ValueError("y: expected classes. Input y contains NaN or infinity")
    check_classification_targets(labels)
    return labels


def _check_one_kind(labels: Any) -> None:
    """Raise for strings and others among them, of which NumPy would make strings, and for None."""
    kinds = sorted({type(label).__name__ for label in labels})
    some = any(isinstance(label, str) for label in labels)
    if "NoneType" in kinds or (some and not all(isinstance(label, str) for label in labels)):
        raise ValueError(f"y: expected classes of one kind, got {', '.join(kinds)}")


def check_label_sequences(y: Any, lengths: Array, *, padded: bool) -> Array:
    """Return the labels (N,) of all steps of sequences of these lengths.

    Parameters
    ----------
    y : list of array_like (T_i,), or array_like (n, T)
    lengths : ndarray (n,)
    padded : bool
        Whether there may be further labels past the ends of the sequences.
    """
    if y is None or isinstance(y, (str, bytes)) or not hasattr(y, "__len__"):
        raise TypeError(f"y: expected a list with the labels of each sequence, got {y!r:.80}")
    if len(y) != len(lengths):
        raise ValueError(f"y: expected the labels of {len(lengths)} sequences, got {len(y)}")
    parts = []
    for i, (one, length) in enumerate(zip(y, lengths.tolist(), strict=True)):
        if isinstance(one, (list, tuple)):
            _check_one_kind(one)
        labels = np.asarray(one)
        if labels.ndim != 1 or (len(labels) < length if padded else len(labels) != length):
            raise ValueError(
                f"y[{i}]: expected {length} labels, as X[{i}] has steps, got shape {labels.shape}"
            )
        if length:
            parts.append(labels[:length])
    if len({part.dtype.kind in "US" for part in parts}) > 1:
        raise ValueError("y: expected classes of one kind, got strings and others")
    return check_labels(np.concatenate(parts) if parts else np.empty(0), int(lengths.sum()))


def check_targets(y: Any, count: int) -> tuple[Array, bool]:
    """Return finite numbers (count, K) of float64, and whether they came without the last axis."""
    if y is None:
        raise ValueError(
            "y: expected a number for each sample, got None (fit requires y to be passed, but the "
            "target y is None)"
        )
    try:
        targets = np.asarray(y)
        if targets.dtype.kind in "cUSM":
            raise TypeError(f"they are of {targets.dtype}")
        targets = targets.astype(np.float64)
    except TypeError as error:
        raise TypeError(f"y: expected numbers: {error}") from None
    except ValueError as error:
        raise ValueError(f"y: expected numbers: {error}") from None
    if targets.ndim not in (1, 2) or targets.size == 0 or len(targets) != count:
        raise ValueError(
            f"y: expected shape ({count},) or ({count}, K), as X has samples, got {targets.shape}"
        )
    if not np.isfinite(targets).all():
        what = "NaN" if np.isnan(targets).any() else "infinity"
        raise ValueError(f"y: expected finite numbers. Input y contains {what}")
    return targets.reshape(count, -1), targets.ndim == 1


def check_several(classes: Array, name: str = "y") -> Array:
    """Return classes if they are two at least, else raise ValueError."""
    if len(classes) < 2:
        only = f"1 class: {classes[0]!r}" if len(classes) else "none"
        raise ValueError(f"{name}: expected at least two classes, got {only}")
    return classes


def encode(labels: Array, classes: Array | None = None) -> tuple[Array, Array]:
    """Classes in ascending order, and the number of each label's.

    `classes` are given, or found: two at least.
    """
    if classes is None:
        found, codes = np.unique(labels, return_inverse=True)
        return check_several(found), codes
    unknown = np.setdiff1d(labels, classes)
    if len(unknown):
        raise ValueError(
            f"y: expected the classes {_listed(classes)}, got {_listed(unknown)} as well"
        )
    return classes, np.searchsorted(classes, labels)


def check_classes(classes: Any, known: Array | None) -> Array:
    """Return the argument `classes` of `partial_fit`, in ascending order.

    `known`: those of the calls before, which have to be the same; then it may be None.
    """
    if classes is None:
        if known is None:
            raise ValueError("classes: all of them must be passed on the first call to partial_fit")
        return known
    array = np.unique(column_or_1d(np.asarray(classes)))
    if known is not None and not np.array_equal(array, known):
        raise ValueError(f"classes: expected {_listed(known)}, as before, got {_listed(array)}")
    return check_several(array, "classes")


def _listed(labels: Array) -> str:
    shown = ", ".join(repr(label) for label in labels[:5].tolist())
    return shown + (", …" if len(labels) > 5 else "")


def check_sample_weight(sample_weight: Any, count: int) -> Array | None:
    """Return weights (count,) of float64: finite, >= 0, one of them > 0."""
    if sample_weight is None:
        return None
    try:
        weights = np.array(sample_weight, np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"sample_weight: expected numbers: {error}") from None
    if weights.ndim == 0:
        weights = np.full(count, weights)
    if weights.shape != (count,):
        raise ValueError(
            f"sample_weight: expected shape ({count},), one for each sample, got {weights.shape}; "
            "Sample weights must be 1D array or scalar"
        )
    if not (np.isfinite(weights) & (weights >= 0)).all() or not weights.any():
        raise ValueError("sample_weight: expected finite numbers >= 0, and not all of them zero")
    return weights


def class_weights(class_weight: Any, classes: Array, targets: Array) -> Array:
    """What each class counts, (n_classes,) of float32.

    Parameters
    ----------
    class_weight : None, "balanced" or mapping
        All 1; n / (n_classes · n of the class), as scikit-learn has it; or by class, 1 where a
        class is not in it.
    classes : ndarray (n_classes,)
    targets : ndarray of integers (n,)
        Numbers of classes.

    Raises
    ------
    TypeError, ValueError
        If it is nothing of this, or names what is no class.
    """
    weights = np.ones(len(classes), np.float32)
    if class_weight is None:
        return weights
    if class_weight == "balanced":
        counts = np.bincount(targets, minlength=len(classes))
        balanced = len(targets) / (len(classes) * np.maximum(counts, 1))
        return balanced.astype(np.float32)
    if not isinstance(class_weight, Mapping):
        raise ValueError(
            f"class_weight: expected None, 'balanced' or a dict, got {class_weight!r:.80}"
        )
    names = classes.tolist()
    for label, weight in class_weight.items():
        if label not in names:
            raise ValueError(f"class_weight: {label!r:.80} is none of the classes")
        weights[names.index(label)] = check_number(f"class_weight[{label!r}]", weight, least=0)
    if not weights[np.unique(targets)].any():
        raise ValueError("class_weight: expected a weight above 0, got none")
    return weights


def sample_weights(
    sample_weight: Array | None, class_weight: Any, classes: Array, codes: Array
) -> Array | None:
    """A weight for each sample, of a class with this number; None: all alike."""
    if class_weight is None:
        return sample_weight
    by_class: Array = class_weights(class_weight, classes, codes)[codes].astype(np.float64)
    if sample_weight is None:
        return by_class
    weights: Array = by_class * sample_weight
    if not weights.any():
        raise ValueError("class_weight, sample_weight: expected a weight above zero, got none")
    return weights


def mean_one(weights: Array | None) -> Array | None:
    """Weights in proportion, as float32: how large they are all together does not matter."""
    return None if weights is None else (weights / weights.mean()).astype(np.float32)


def as_they_are(weights: Array | None) -> Array | None:
    """Weights as float32, for `partial_fit`, whose calls they compare."""
    return None if weights is None else weights.astype(np.float32)


# --- outputs --------------------------------------------------------------------------------------

# Numbers of classes, and what each counts, if they do not count alike.
Weighted = tuple[Array, Array | None]


def cross_entropy(logits: Array, target: Weighted) -> tuple[float, Array]:
    """The loss of the networks that tell classes, and its gradient."""
    codes, weights = target
    return softmax_cross_entropy(logits, codes, weights=weights)


def softmax(logits: Array) -> Array:
    """Probabilities (..., V) of float64."""
    exact = logits.astype(np.float64)
    weights = np.exp(exact - exact.max(axis=-1, keepdims=True))
    probabilities: Array = weights / weights.sum(axis=-1, keepdims=True)
    return probabilities


# --- files ----------------------------------------------------------------------------------------


def labels_to_json(classes: Array) -> dict[str, Any]:
    """Classes (n,) of numbers, bools or strings, for `labels_from_json`."""
    return {"dtype": classes.dtype.str, "values": classes.tolist()}


def labels_from_json(saved: Mapping[str, Any]) -> Array:
    """The array that `labels_to_json` was given.

    Raises
    ------
    KeyError, TypeError, ValueError
        If it is not what that gives. Nothing of a claimed size is made.
    """
    dtype, values = saved["dtype"], saved["values"]
    scalars = isinstance(values, list) and all(isinstance(v, (str, int, float)) for v in values)
    if not isinstance(dtype, str) or not scalars:
        raise ValueError("classes: expected a dtype and a list of labels")
    if dtype == "|O":
        return np.array(values, dtype=object)
    text = {isinstance(value, str) for value in values}
    if dtype.startswith("<U") and text == {True}:
        return np.array(values)
    if dtype in _NUMBERS and text == {False}:
        try:
            return np.array(values, np.dtype(dtype))
        except OverflowError as error:
            raise ValueError(f"classes: {error}") from None
    raise ValueError(f"classes: expected labels of their dtype, got {dtype!r:.80}")
