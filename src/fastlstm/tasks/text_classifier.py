"""The classifier of texts: strings in, labels out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from fastlstm._validate import Array, check_names, check_size
from fastlstm.tasks._batches import Ragged, in_chunks
from fastlstm.tasks._classes import (
    check_labels,
    check_several,
    class_weights,
    cross_entropy,
    softmax,
)
from fastlstm.tasks._estimator import Estimator, labels_from_json, labels_to_json
from fastlstm.tasks._networks import Start
from fastlstm.tasks._sklearn import ClassifierMixin
from fastlstm.tasks._text_network import VECTORS, TextNetwork
from fastlstm.tasks._vectors import read_vectors
from fastlstm.tasks.explanation import Explanation, integrated_gradients, tokens_of
from fastlstm.tasks.text import SPECIALS, UNKNOWN, Tokenizer, check_texts

# Texts that are predicted at once.
_AT_ONCE = 256
# Dimensions of the words' vectors where none are said.
_EMBEDDING = 100


class TextClassifier(ClassifierMixin, Estimator):
    """A class for each text, by an LSTM that reads its words.

    Parameters
    ----------
    hidden_size : int
        Units of each layer and direction.
    level : {"word", "whitespace", "subword", "char", "auto"}
        What is read: words (of Chinese and Japanese, characters); what stands between blanks, for
        texts that are tokenised already; pieces of words, learnt from the texts (BPE); characters;
        characters where most of the texts is Chinese or Japanese and words otherwise.
    lowercase : bool
    min_frequency : int
        Words that come less often in the texts of `fit` are unknown.
    max_vocabulary : int, optional
        The most words, or pieces (8000 by default).
    vectors : str or path, optional
        A text file of word vectors, as those of GloVe, word2vec and fastText, with which the
        vocabulary begins; read once, in `fit`. Words that it lacks begin at random.
    train_vectors : bool
        Whether the words' vectors are learnt, or stay as they began.
    embedding_size : int, optional
        Numbers that stand for a word: by default those of `vectors`, or 100.
    num_layers : int
    bidirectional : bool
        Also read from the end to the beginning.
    dropout : float
        Of the words' vectors, between layers and of the output.
    word_dropout : float
        Part of the words that are taken for unknown in training, so that unknown ones mean
        something.
    pooling : {"last", "mean", "max", "attention"}
        What represents the text; see `fastlstm.pooling.Pooling`.
    cell : {"lstm", "rnn"}
        "rnn" is the plain recurrent network, for comparison.
    class_weight : None, "balanced" or dict
        What each class counts in the loss: alike, inverse to its frequency, or by label.
    epochs : int
        The most passes over the training part.
    batch_size : int
    learning_rate : float
        Its height; it rises to it in the first twentieth of the steps and falls along a cosine.
    weight_decay : float
        As ``torch.optim.AdamW`` has it.
    max_norm : float
        Gradients of a larger global norm are scaled down to it.
    validation_fraction : float
        Part of the texts that is held out; the weights with the lowest loss on it are kept. 0
        trains on all, for all epochs.
    patience : int, optional
        Stop after so many epochs without a new lowest loss.
    random_state : int, RandomState or None
        Of weights, batches, dropout and what is held out.
    verbose : bool
        Show progress on stderr.

    Attributes
    ----------
    classes_ : ndarray (n_classes,)
    tokenizer_ : Tokenizer
        With the vocabulary.
    best_validation_score_ : float or None
        Accuracy on what `fit` held out, with the weights that it kept.
    history_ : History
        Losses of the steps, and validations.

    Examples
    --------
    >>> texts = ["a good film", "a bad film", "good fun", "a bad idea"] * 10
    >>> labels = ["pos", "neg", "pos", "neg"] * 10
    >>> classifier = TextClassifier(8, epochs=30, random_state=0).fit(texts, labels)
    >>> classifier.predict(["good", "what a bad film"]).tolist()
    ['pos', 'neg']
    """

    _kind = "text-classifier"

    def __init__(
        self,
        hidden_size: int = 64,
        *,
        level: str = "word",
        lowercase: bool = True,
        min_frequency: int = 1,
        max_vocabulary: int | None = None,
        vectors: str | os.PathLike[str] | None = None,
        train_vectors: bool = True,
        embedding_size: int | None = None,
        num_layers: int = 1,
        bidirectional: bool = True,
        dropout: float = 0.5,
        word_dropout: float = 0.1,
        pooling: str = "max",
        cell: str = "lstm",
        class_weight: Any = None,
        epochs: int = 10,
        batch_size: int = 32,
        learning_rate: float = 2e-3,
        weight_decay: float = 0.01,
        max_norm: float = 1.0,
        validation_fraction: float = 0.1,
        patience: int | None = 5,
        random_state: Any = None,
        verbose: bool | int = False,
    ) -> None:
        self.hidden_size = hidden_size
        self.level = level
        self.lowercase = lowercase
        self.min_frequency = min_frequency
        self.max_vocabulary = max_vocabulary
        self.vectors = vectors
        self.train_vectors = train_vectors
        self.embedding_size = embedding_size
        self.num_layers = num_layers
        self.bidirectional = bidirectional
        self.dropout = dropout
        self.word_dropout = word_dropout
        self.pooling = pooling
        self.cell = cell
        self.class_weight = class_weight
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.max_norm = max_norm
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        return tags

    # --- training ---------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any) -> Self:
        """Train.

        Parameters
        ----------
        X : iterable of str
            Texts: a list, an array, a pandas Series. Empty ones may be among them.
        y : array_like (n,)
            Classes: numbers or strings.

        Raises
        ------
        TypeError, ValueError
            If an argument is not possible: X is one string, or what is no string is in it; lengths
            of X and y differ; there is a single class.
        OSError
            If `vectors` cannot be read.
        KeyboardInterrupt
            After Ctrl-C; the estimator is then at the best weights so far.
        """
        texts = check_texts(X)
        classes, targets = np.unique(check_labels(y, len(texts)), return_inverse=True)
        check_several(classes)
        seed = self._new_seed()
        training, validation = self._split(len(texts), seed=seed, stratify=targets)
        weights = class_weights(self.class_weight, classes, targets[training])[targets]
        tokenizer, network = self._begin([texts[i] for i in training], len(classes), seed)
        sequences = tokenizer.encode_many(texts)

        def validate() -> float:
            logits = _logits(network, sequences.take(validation))
            return cross_entropy(logits, (targets[validation], weights[validation]))[0]

        self.classes_, self.tokenizer_ = classes, tokenizer
        self.best_validation_score_: float | None = None
        self._train(
            network,
            lambda k: _batch(sequences, targets, weights, training[k]),
            len(training),
            seed=seed,
            validate=validate if len(validation) else None,
            lengths=sequences.lengths[training],
        )
        if len(validation):
            logits = _logits(network, sequences.take(validation))
            hits = logits.argmax(axis=1) == targets[validation]
            self.best_validation_score_ = float(hits.mean())
        return self

    def _begin(self, texts: list[str], outputs: int, seed: int) -> tuple[Tokenizer, TextNetwork]:
        """A vocabulary, and a network of random weights and given vectors."""
        tokenizer = Tokenizer.fit(
            texts,
            level=self.level,
            lowercase=self.lowercase,
            min_frequency=self.min_frequency,
            max_vocabulary=self.max_vocabulary,
        )
        rng = np.random.default_rng(seed)
        if self.vectors is None:
            size = _EMBEDDING if self.embedding_size is None else self.embedding_size
            return tokenizer, self._network(rng, outputs, len(tokenizer), size)
        if tokenizer.level == "subword":
            raise ValueError("vectors: are of words, and level 'subword' has none")
        vectors, which = read_vectors(self.vectors, tokenizer.vocabulary)
        size = vectors.shape[1]
        if self.embedding_size not in (None, size):
            raise ValueError(
                f"embedding_size: expected {size}, as {self.vectors} has, or None, "
                f"got {self.embedding_size!r}"
            )
        network = self._network(rng, outputs, len(tokenizer), size)
        with network.embedding.editing() as parameters:
            weight = parameters["weight"]
            weight *= vectors.std() / weight.std()  # those that begin at random are as large
            weight[which + len(SPECIALS)] = vectors
        return tokenizer, network

    def _network(
        self, start: Start, outputs: int, vocabulary: int, embedding_size: int
    ) -> TextNetwork:
        return TextNetwork(
            outputs,
            start=start,
            vocabulary=vocabulary,
            features=check_size("embedding_size", embedding_size),
            hidden_size=self.hidden_size,
            num_layers=self.num_layers,
            bidirectional=self.bidirectional,
            dropout=self.dropout,
            word_dropout=self.word_dropout,
            train_vectors=self.train_vectors,
            pooling=self.pooling,
            cell=self.cell,
        )

    # --- prediction -------------------------------------------------------------------------------

    def predict_proba(self, X: Any) -> Array:
        """Probabilities of the classes, (n, n_classes) of float64, in the order of `classes_`."""
        self._check_is_fitted()
        sequences = self.tokenizer_.encode_many(check_texts(X))
        return softmax(_logits(self.network_, sequences))

    def predict(self, X: Any) -> Array:
        """The likeliest class of each text, (n,)."""
        proba = self.predict_proba(X)
        best: Array = self.classes_[proba.argmax(axis=1)]
        return best

    def explain(self, text: str, label: Any = None) -> Explanation:
        """What each word adds to the log-odds of a class.

        Parameters
        ----------
        text : str
        label : object, optional
            One of `classes_`; by default the likeliest.

        Raises
        ------
        TypeError, ValueError
            If `text` is no string, or `label` is no class.
        """
        self._check_is_fitted()
        (text,) = check_texts([text], "text")
        network, ids = self.network_, self.tokenizer_.encode(text)
        vectors = network.embedding(ids)
        logits = network.logits_of(vectors[:, np.newaxis])
        place = int(logits.argmax()) if label is None else self._place(label)

        def gradient(line: Array) -> tuple[Array, Array]:
            values, d_line = network.gradient(line, lambda each: _d_log_odds(each, place))
            return _log_odds(values, place), d_line

        baseline = network.embedding(np.full_like(ids, UNKNOWN))
        added = np.zeros(0)
        if len(ids):
            added = integrated_gradients(gradient, baseline, vectors)
        log_odds = float(_log_odds(logits, place)[0])
        start = float(_log_odds(network.logits_of(baseline[:, np.newaxis]), place)[0])
        return Explanation(
            text,
            self.classes_[place],
            float(softmax(logits)[0, place]),
            log_odds,
            start,
            tokens_of(text, self.tokenizer_.spans(text), added),
            log_odds - start - float(added.sum()),
        )

    def _place(self, label: Any) -> int:
        places = np.flatnonzero(self.classes_ == label)
        if len(places) != 1:
            raise ValueError(f"label: expected one of {self.classes_.tolist()}, got {label!r:.80}")
        return int(places[0])

    # --- files ------------------------------------------------------------------------------------

    def _fitted(self) -> tuple[dict[str, Any], dict[str, Array]]:
        embedding = self.network_.embedding
        fitted = {
            "classes": labels_to_json(self.classes_),
            "tokenizer": self.tokenizer_.to_json(),
            "embedding_size": embedding.embedding_dim,
        }
        # Those that are trained are among the network's.
        return fitted, {} if self.train_vectors else {"vectors": embedding.weight}

    def _restore(
        self, fitted: Mapping[str, Any], arrays: Mapping[str, Array], network: Mapping[str, Array]
    ) -> None:
        if fitted.keys() != {"classes", "tokenizer", "embedding_size"}:
            raise ValueError(f"unknown or missing fields: {list(fitted)}")
        check_names("arrays", arrays, () if self.train_vectors else ("vectors",))
        if not self.train_vectors:
            network = {**network, VECTORS: arrays["vectors"]}
        self.classes_ = labels_from_json(fitted["classes"])
        self.tokenizer_ = Tokenizer.from_json(fitted["tokenizer"])
        self.network_ = self._network(
            network, len(self.classes_), len(self.tokenizer_), fitted["embedding_size"]
        )


def _batch(sequences: Ragged, targets: Array, weights: Array, which: Array) -> Any:
    return (*sequences.padded(which), (targets[which], weights[which]))


def _logits(network: TextNetwork, sequences: Ragged) -> Array:
    """(n, n_classes); texts of similar lengths are taken together."""
    order = np.argsort(sequences.lengths, kind="stable")
    parts = [order[part] for part in in_chunks(len(sequences), _AT_ONCE)]
    logits = np.concatenate([network(*sequences.padded(part)) for part in parts])
    return logits[np.argsort(order)]


def _log_odds(logits: Array, place: int) -> Array:
    """log(p / (1 - p)) of a class, (B,) of float64."""
    exact = logits.astype(np.float64)
    others = np.delete(exact, place, axis=1)
    odds: Array = exact[:, place] - np.logaddexp.reduce(others, axis=1)
    return odds


def _d_log_odds(logits: Array, place: int) -> Array:
    """The gradient of `_log_odds`: 1 for the class, and shares of -1 for the others."""
    d_logits = np.zeros(logits.shape)
    others = np.delete(np.arange(logits.shape[1]), place)
    d_logits[:, others] = -softmax(logits[:, others])
    d_logits[:, place] = 1
    return d_logits.astype(logits.dtype)
