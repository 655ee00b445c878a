"""Sequences of vectors in, sequences of labels out: speech and handwriting, by CTC.

Graves et al. 2006: a recurrent network says at each step how likely each label and a blank are, and
the loss sums over all alignments of the labels with the steps (ctc.py). So training needs to know
what was said, and not when.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Self, cast

import numpy as np
from scipy.special import log_softmax

from fastlstm._validate import Array, check_choice, check_size
from fastlstm.decoding import Hypothesis, ctc_beam_search
from fastlstm.tasks._base.batches import Ragged, in_groups
from fastlstm.tasks._base.networks import Start, StepNetwork
from fastlstm.tasks._base.numeric import AT_ONCE, NumericEstimator
from fastlstm.tasks._base.scaling import Scaling
from fastlstm.tasks.augmentation import Augment
from fastlstm.tasks.metrics import error_rate
from fastlstm.tasks.recognition.ngram import NGram
from fastlstm.tasks.recognition.transcripts import (
    BLANK,
    Ids,
    as_objects,
    best_paths,
    check_labels,
    check_room,
    classes_of,
    ctc,
    joined_targets,
    log_likelihoods,
)

_DECODERS = ("greedy", "beam")

LanguageModel = Callable[[Any, Any], float]


class Transcript(NamedTuple):
    """What a sequence may say, by `SequenceRecognizer.transcribe`."""

    #: A string, if the training labels were strings, or else a list of labels.
    labels: Any
    #: What transcripts are ranked by: log_prob, the weighted language model and the bonus.
    score: float
    #: log p(labels) by the network, as far as the beam has followed their alignments.
    log_prob: float


class SequenceRecognizer(NumericEstimator):
    """The labels of each sequence of vectors, without knowing where they are in it.

    Features are standardised inside, by the mean and the deviation of all training steps.

    Parameters
    ----------
    hidden_size : int
        Units of each layer and direction.
    num_layers : int
    bidirectional : bool
        Also read from the end to the beginning.
    dropout : float
        Between layers, and of the output.
    noise : float
        Deviation of the normal noise that is added to the standardised features in training.
    stack : int
        Read so many steps as one: a part of the time, and of the room for labels (Sak et al. 2015,
        "Fast and accurate recurrent neural network acoustic models for speech recognition").
    cell : {"lstm", "rnn"}
        "rnn" is the plain recurrent network, for comparison.
    augment : callable, optional
        ``augment(sequence, rng)`` changes each training sequence anew in each epoch; see
        `fastlstm.tasks.augmentation`. Not kept in files.
    ngram_order : int
        Of the n-grams counted in the training labels, for ``language_model="ngram"``.
    front_end : mapping, optional
        What made the features, in whatever words JSON can hold: it is kept in files for those who
        will have to make them anew, and not looked at. ``fastlstm recognize`` has its own there.
    epochs : int
        The most passes over the training part.
    batch_size : int
        Sequences of similar lengths that are trained on together.
    learning_rate : float
        Its height; it rises to it in the first twentieth of the steps and falls along a cosine.
    weight_decay : float
        As ``torch.optim.AdamW`` has it.
    max_norm : float
        Gradients of a larger global norm are scaled down to it.
    validation_fraction : float
        Part of the samples that is held out; the weights with the lowest loss on it are kept. 0
        trains on all, for all epochs. (Not with the lowest label error rate: before a network has
        learnt to say blank, its noise may be nearer to the labels than what it says next.)
    patience : int, optional
        Stop after so many epochs without a new lowest loss.
    random_state : int, RandomState or None
        Of weights, batches, dropout, augmentation and what is held out.
    verbose : bool
        Show progress on stderr.

    Attributes
    ----------
    classes_ : ndarray of object (n_classes,)
        The labels, sorted if they can be. The blank is none of them.
    n_features_in_ : int
        Features of a step.
    history_ : History
        Losses of the steps, and validations: each -log p(labels) for each label.
    validation_error_ : float or None
        The label error rate on what was held out; None without, and after `load`.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> y = ["".join(rng.choice(list("ab"), 3)) for _ in range(60)]
    >>> X = [np.repeat([[c == "a", c == "b"] for c in "_".join(s)], 3, axis=0) for s in y]
    >>> recognizer = SequenceRecognizer(16, epochs=30, learning_rate=0.02, random_state=0)
    >>> recognizer.fit(X, y).predict(X[:2]) == y[:2]
    True
    """

    _kind = "sequence-recognizer"

    classes_: Array
    validation_error_: float | None

    def __init__(
        self,
        hidden_size: int = 128,
        *,
        num_layers: int = 1,
        bidirectional: bool = True,
        dropout: float = 0.2,
        noise: float = 0.0,
        stack: int = 1,
        cell: str = "lstm",
        augment: Augment | None = None,
        ngram_order: int = 3,
        front_end: Mapping[str, Any] | None = None,
        epochs: int = 50,
        batch_size: int = 16,
        learning_rate: float = 5e-3,
        weight_decay: float = 0.01,
        max_norm: float = 1.0,
        validation_fraction: float = 0.1,
        patience: int | None = 10,
        random_state: Any = None,
        verbose: bool | int = False,
    ) -> None:
        self._keep(locals())

    # --- training ---------------------------------------------------------------------------------

    def fit(self, X: Any, y: Sequence[Any], *, lengths: Any = None) -> Self:
        """Train.

        Parameters
        ----------
        X : list of array_like (T_i, F), or array_like (n, T, F) or (n, T)
        y : list of str, or list of lists (n,)
            What each sequence says: strings, whose characters are the labels, or lists of labels
            of any hashable kind. Empty ones are allowed.
        lengths : array_like of int (n,), optional
            Steps of each padded sequence.

        Raises
        ------
        TypeError, ValueError
            If an argument is not possible, lengths of X and y differ, there is no label at all, a
            NaN or infinite number in X, or a sequence has fewer steps than its labels need: one
            for each, and one between two that are alike.
        KeyboardInterrupt
            After Ctrl-C; the estimator is then at the best weights so far.
        """
        sequences = self._check_input(X, lengths)
        stack = check_size("stack", self.stack)
        order = check_size("ngram_order", self.ngram_order, most=16)
        labels, joined = check_labels(y, len(sequences))
        classes = classes_of(labels)
        number = {label: k for k, label in enumerate(classes, 1)}
        targets = [tuple(number[label] for label in one) for one in labels]
        check_room(sequences.lengths, targets, stack)
        seed = self._new_seed()
        training, validation = self._split(len(targets), seed=seed)

        self.classes_, self._joined = classes, joined
        self.validation_error_ = None
        self._scaling = Scaling.of(sequences.take(training).rows)
        self.n_features_in_ = len(self._scaling.mean)
        self._ngram = NGram.of((targets[k] for k in training), len(classes), order)
        network = self._network(np.random.default_rng(seed))
        scaled = self._scaled(sequences)

        def make_batch(which: Array, rng: np.random.Generator | None = None) -> Any:
            chosen = [targets[k] for k in which]
            if rng is None or self.augment is None:
                batch = scaled.take(which)
            else:
                changed = self._augmented(sequences.take(which), rng)
                check_room(changed.lengths, chosen, self.stack)
                batch = self._scaled(changed)
            return (*batch.padded(), (batch.lengths, *joined_targets(chosen)))

        def validate() -> float:
            losses = [
                network.loss(make_batch(validation[which])) * len(which)
                for which in in_groups(scaled.lengths[validation], AT_ONCE)
            ]
            return sum(losses) / len(validation)

        self._train(
            network,
            lambda which, rng: make_batch(training[which], rng),
            len(training),
            seed=seed,
            validate=validate if len(validation) else None,
            lengths=scaled.lengths[training],
            draws=True,
        )
        if len(validation):
            found = best_paths(self._read(list(sequences.take(validation)), None))
            self.validation_error_ = error_rate((targets[k] for k in validation), found)
        return self

    def _scaled(self, sequences: Ragged) -> Ragged:
        return super()._scaled(sequences).stacked(self.stack)

    # --- predicting -------------------------------------------------------------------------------

    def predict(
        self,
        X: Any,
        *,
        lengths: Any = None,
        decoder: str = "greedy",
        beam_width: int = 16,
        language_model: LanguageModel | str | None = None,
        weight: float = 1.0,
        insertion_bonus: float = 0.0,
    ) -> list[Any]:
        """What each sequence says: a list of strings, or of lists of labels, as in training.

        Parameters
        ----------
        X, lengths
            As `fit` takes them.
        decoder : {"greedy", "beam"}
            The labels of the likeliest alignment, or `transcribe`'s first.
        beam_width, language_model, weight, insertion_bonus
            Of "beam"; see `transcribe`.

        Raises
        ------
        TypeError, ValueError
            If an argument is not possible.
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        """
        check_choice("decoder", decoder, _DECODERS)
        if decoder == "greedy":
            if language_model is not None:
                raise ValueError("language_model: needs decoder='beam'; 'greedy' has no use for it")
            return [self._labels_of(ids) for ids in best_paths(self._read(X, lengths))]
        found = self.transcribe(
            X, lengths=lengths, beam_width=beam_width, language_model=language_model,
            weight=weight, insertion_bonus=insertion_bonus,
        )  # fmt: skip
        return [best.labels for best, *_ in found]

    def transcribe(
        self,
        X: Any,
        *,
        lengths: Any = None,
        n_best: int = 1,
        beam_width: int = 16,
        language_model: LanguageModel | str | None = None,
        weight: float = 1.0,
        insertion_bonus: float = 0.0,
    ) -> list[list[Transcript]]:
        """The likeliest readings of each sequence, by `fastlstm.ctc_beam_search`.

        Parameters
        ----------
        X, lengths
            As `fit` takes them.
        n_best : int
            How many readings, `beam_width` at most.
        beam_width : int
            Prefixes that are kept at each step.
        language_model : callable or "ngram", optional
            ``language_model(prefix, label)`` returns the log-probability of `label` after the
            labels `prefix`: a string, or a tuple. "ngram" is counted from the training labels
            (Witten & Bell 1991).
        weight : float
            Of the language model's log-probabilities.
        insertion_bonus : float
            Added for each label; against the language model, which prefers few labels.

        Returns
        -------
        list of lists of Transcript
            The best one first, or fewer if no more are possible.

        Raises
        ------
        TypeError, ValueError, sklearn.exceptions.NotFittedError
            As `predict`.
        """
        log_probs = self._read(X, lengths)
        model = self._language_model(language_model)
        found = []
        for one in log_probs:
            best = ctc_beam_search(
                one, blank=BLANK, n_best=n_best, beam_width=beam_width, language_model=model,
                weight=weight, insertion_bonus=insertion_bonus,
            )  # fmt: skip
            found.append(
                [
                    Transcript(self._labels_of(ids), *scores)
                    for ids, *scores in cast(list[Hypothesis], best)
                ]
            )
        return found

    def predict_log_proba(self, X: Any, *, lengths: Any = None) -> list[Array]:
        """Log-probabilities at each step, (T_i, 1 + n_classes) of float64: blank, then `classes_`.

        T_i is the number of steps divided by `stack`, rounded up.
        """
        return list(self._read(X, lengths))

    def log_likelihood(self, X: Any, y: Sequence[Any], *, lengths: Any = None) -> Array:
        """log p(labels | sequence), (n,) of float64, over all alignments.

        -inf where the sequence has too few steps, or a label was not in the training labels.
        """
        log_probs = self._read(X, lengths)
        labels, _ = check_labels(y, len(log_probs))
        number = {label: k for k, label in enumerate(self.classes_, 1)}
        known = np.array([all(label in number for label in one) for one in labels])
        targets = [tuple(number.get(label, 1) for label in one) for one in labels]
        return np.where(known, log_likelihoods(log_probs, targets), -np.inf)

    def score(
        self,
        X: Any,
        y: Sequence[Any],
        *,
        lengths: Any = None,
        decoder: str = "greedy",
        beam_width: int = 16,
        language_model: LanguageModel | str | None = None,
        weight: float = 1.0,
        insertion_bonus: float = 0.0,
    ) -> float:
        """1 less the label error rate of `predict`, whose arguments these are.

        The rate is that of `fastlstm.tasks.metrics.error_rate`: edits over all sequences, for each
        label of `y`. A label that was not in the training labels counts as an error. Below 0 there
        are more edits than labels.
        """
        found = self.predict(
            X, lengths=lengths, decoder=decoder, beam_width=beam_width,
            language_model=language_model, weight=weight, insertion_bonus=insertion_bonus,
        )  # fmt: skip
        labels, _ = check_labels(y, len(found))
        return 1 - error_rate(labels, found)

    def _read(self, X: Any, lengths: Any) -> Ragged:
        """Log-probabilities of all sequences, one behind the other."""
        logits, steps = self._apply(X, lengths)
        return Ragged(log_softmax(logits.astype(np.float64), axis=1), steps)

    def _language_model(self, model: LanguageModel | str | None) -> Any:
        """A language model over labels as one over their numbers."""
        if model is None:
            return None
        if model == "ngram":
            return self._ngram
        if not callable(model):
            raise TypeError(f"language_model: expected a callable or 'ngram', got {model!r:.80}")
        classes, joined = self.classes_, self._joined

        def numbered(prefix: Ids, label: int) -> float:
            known = (classes[k - 1] for k in prefix)
            return model("".join(known) if joined else tuple(known), classes[label - 1])

        return numbered

    def _labels_of(self, ids: Sequence[int]) -> Any:
        labels = [self.classes_[k - 1] for k in ids]
        return "".join(labels) if self._joined else labels

    # --- network ----------------------------------------------------------------------------------

    def _network(self, start: Start) -> StepNetwork:
        return StepNetwork(
            1 + len(self.classes_),
            loss=ctc,
            start=start,
            **{**self._encoder(), "features": self.n_features_in_ * self.stack},
        )

    # --- files ------------------------------------------------------------------------------------

    def _fitted(self) -> tuple[dict[str, Any], dict[str, Array]]:
        for label in self.classes_:
            if not isinstance(label, (str, bool, int, float)):
                raise TypeError(
                    f"classes_: a file holds labels that are text or numbers, got {label!r:.80}"
                )
        _, arrays = super()._fitted()
        fitted = {"classes": list(self.classes_), "joined": self._joined}
        return fitted, arrays | self._ngram.arrays()

    def _restore(
        self, fitted: Mapping[str, Any], arrays: Mapping[str, Array], network: Mapping[str, Array]
    ) -> None:
        classes, self._joined = fitted["classes"], fitted["joined"]
        kinds = (str,) if self._joined else (str, bool, int, float)
        if not isinstance(self._joined, bool) or not isinstance(classes, list) or not classes:
            raise ValueError("classes, joined: expected a list of labels and true or false")
        if not all(isinstance(label, kinds) for label in classes):
            raise ValueError("classes: expected labels that are text or numbers")
        if len(set(classes)) < len(classes):
            raise ValueError("classes: expected each label once")
        self.classes_ = as_objects(classes)
        self.validation_error_ = None
        check_size("stack", self.stack)
        self._ngram = NGram.from_arrays(arrays, len(classes))
        super()._restore(fitted, arrays, network)
