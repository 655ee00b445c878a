"""The classifier of texts: strings in, labels out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from fastlstm._validate import Array, check_flag, check_names, check_size
from fastlstm.tasks._base.batches import in_groups
from fastlstm.tasks._base.estimator import Estimator
from fastlstm.tasks._base.networks import Start
from fastlstm.tasks._base.numeric import AT_ONCE
from fastlstm.tasks._base.sklearn import ClassifierMixin
from fastlstm.tasks._base.supervision import (
    as_they_are,
    check_classes,
    check_labels,
    check_sample_weight,
    check_several,
    cross_entropy,
    encode,
    labels_from_json,
    labels_to_json,
    mean_one,
    sample_weights,
    softmax,
)
from fastlstm.tasks.text.corpus_vectors import corpus_vectors
from fastlstm.tasks.text.explanation import Explanation, integrated_gradients, tokens_of
from fastlstm.tasks.text.network import SCALE, TextNetwork
from fastlstm.tasks.text.spelling import Spelling
from fastlstm.tasks.text.tokenizer import SPECIALS, Tokenizer, check_texts
from fastlstm.tasks.text.vector_files import read_vectors
from fastlstm.tasks.text.words import TextExamples, Texts

# Dimensions of the words' vectors where none are said.
_EMBEDDING = 100


# Levels whose tokens have letters.
_OF_WORDS = ("word", "whitespace")


@dataclass(frozen=True)
class _New:
    """What training begins with."""

    tokenizer: Tokenizer
    spelling: Spelling | None
    network: TextNetwork


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
    letters : bool
        Whether a word is also known by its groups of three and four letters, so that rare and
        unknown ones mean something. Concerns the levels of words.
    vectors : "texts", None, str or path
        What words begin with: what the texts of `fit` tell of them, by their neighbours and
        letters; nothing, numbers at random; or the vectors of a text file as those of GloVe,
        word2vec and fastText. The file is read once, in `fit`, and words that it lacks begin at
        random.
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
        Passes over the texts, or the most of them where some are held out.
    batch_size : int
    learning_rate : float
        Its height; it rises to it in the first twentieth of the steps and falls along a cosine.
    weight_decay : float
        As ``torch.optim.AdamW`` has it.
    max_norm : float
        Gradients of a larger global norm are scaled down to it.
    validation_fraction : float
        Part of the texts that is held out; the weights with the lowest loss on it are kept. By
        default all are learnt from, for all epochs.
    patience : int, optional
        Stop after so many epochs without a new lowest loss on what is held out.
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

    hidden_size: int
    level: str
    lowercase: bool
    min_frequency: int
    max_vocabulary: int | None
    letters: bool
    vectors: str | os.PathLike[str] | None
    train_vectors: bool
    embedding_size: int | None
    num_layers: int
    bidirectional: bool
    dropout: float
    word_dropout: float
    pooling: str
    cell: str
    class_weight: Any

    classes_: Array
    tokenizer_: Tokenizer
    _spelling: Spelling | None
    best_validation_score_: float | None

    def __init__(
        self,
        hidden_size: int = 64,
        *,
        level: str = "word",
        lowercase: bool = True,
        min_frequency: int = 2,
        max_vocabulary: int | None = None,
        letters: bool = True,
        vectors: str | os.PathLike[str] | None = "texts",
        train_vectors: bool = True,
        embedding_size: int | None = None,
        num_layers: int = 1,
        bidirectional: bool = True,
        dropout: float = 0.5,
        word_dropout: float = 0.2,
        pooling: str = "max",
        cell: str = "lstm",
        class_weight: Any = None,
        epochs: int = 7,
        batch_size: int = 32,
        learning_rate: float = 2e-3,
        weight_decay: float = 0.01,
        max_norm: float = 1.0,
        validation_fraction: float = 0.0,
        patience: int | None = 5,
        random_state: Any = None,
        verbose: bool | int = False,
    ) -> None:
        self._keep(locals())

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        return tags

    # --- training ---------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train a new network.

        Parameters
        ----------
        X : iterable of str
            Texts: a list, an array, a pandas Series. Empty ones may be among them.
        y : array_like (n,)
            Classes: numbers, bools or strings.
        sample_weight : array_like (n,), optional
            What the loss of each text is multiplied by; only the proportions matter.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            If an argument is not possible: X is one string, or what is no string is in it; lengths
            of X and y differ; there is a single class. What was fitted before is left as it was.
        OSError
            If `vectors` cannot be read.
        KeyboardInterrupt
            After Ctrl-C; the estimator then has the best weights so far and can be used.
        """
        self._check_training()
        texts = check_texts(X)
        classes, codes = encode(check_labels(y, len(texts)))
        given = check_sample_weight(sample_weight, len(texts))
        weights = mean_one(sample_weights(given, self.class_weight, classes, codes))
        seed = self._new_seed()
        training, validation = self._split(len(texts), seed=seed, stratify=codes)
        new = self._begin([texts[i] for i in training], len(classes), seed)
        everything = Texts.read(texts, new.tokenizer, new.spelling)
        examples = TextExamples(everything, codes, weights)
        learnt, held_out = examples.take(training), examples.take(validation)
        self._take(new, classes)
        self._train(
            new.network,
            learnt.batch,
            len(training),
            seed=seed,
            validate=(lambda: _loss(new.network, held_out)) if len(validation) else None,
            lengths=learnt.texts.lengths,
        )
        if len(validation):
            hits = _logits(new.network, held_out.texts).argmax(axis=1) == held_out.codes
            self.best_validation_score_ = float(hits.mean())
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Train on, by one pass over these texts; nothing is held out.

        The vocabulary is that of `fit`, or of the first call, which needs all classes that will
        come in `classes`. The learning rate stays at its height.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`.
        classes : array_like (n_classes,), optional
            Needed in the first call.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            As `fit`; or if a label is none of the classes, these are not said in a first call or
            others later, or `class_weight` is "balanced", which needs all texts at once.
        KeyboardInterrupt
            After Ctrl-C; what was learnt is kept.
        """
        self._check_training()
        texts = check_texts(X)
        labels = check_labels(y, len(texts))
        known = check_classes(classes, self.classes_ if self._is_fitted() else None)
        _, codes = encode(labels, known)
        if self.class_weight == "balanced":
            raise ValueError("class_weight: 'balanced' needs all texts at once; pass a dict")
        given = check_sample_weight(sample_weight, len(texts))
        weights = as_they_are(sample_weights(given, self.class_weight, known, codes))
        if not self._is_fitted():
            new = self._begin(texts, len(known), self._new_seed())
            self._take(new, known)
            self._take_untrained(new.network)
        examples = TextExamples(self._read(texts), codes, weights)
        self._train_further(examples.batch, len(texts), lengths=examples.texts.lengths)
        return self

    def _begin(self, texts: list[str], outputs: int, seed: int) -> _New:
        """A vocabulary, and a network with words' vectors to begin with."""
        tokenizer = Tokenizer.fit(
            texts,
            level=self.level,
            lowercase=self.lowercase,
            min_frequency=self.min_frequency,
            max_vocabulary=self.max_vocabulary,
        )
        spelling = None
        if check_flag("letters", self.letters) and tokenizer.level in _OF_WORDS:
            spelling = Spelling.of({word for text in texts for word in tokenizer.cut(text)})
            spelling = spelling if len(spelling) else None
        rng = np.random.default_rng(seed)
        size = _EMBEDDING if self.embedding_size is None else self.embedding_size
        given = None
        if self.vectors not in ("texts", None):
            if tokenizer.level == "subword":
                raise ValueError("vectors: are of words, and level 'subword' has none")
            given = read_vectors(self.vectors, tokenizer.vocabulary)
            size = given[0].shape[1]
            if self.embedding_size not in (None, size):
                raise ValueError(
                    f"embedding_size: expected {size}, as {self.vectors} has, or None, "
                    f"got {self.embedding_size!r}"
                )
        network = self._network(rng, outputs, len(tokenizer), _groups(spelling), size)
        if self.vectors == "texts":
            network.words.begin_with(
                *corpus_vectors(
                    Texts.read(texts, tokenizer, spelling), len(tokenizer), size, SCALE, rng
                )
            )
        elif given is not None:
            network.words.begin_with_some(*given, first=len(SPECIALS))
        return _New(tokenizer, spelling, network)

    def _network(
        self, start: Start, outputs: int, vocabulary: int, groups: int, size: int
    ) -> TextNetwork:
        return TextNetwork(
            outputs,
            start=start,
            vocabulary=vocabulary,
            groups=groups,
            size=check_size("embedding_size", size),
            hidden_size=self.hidden_size,
            num_layers=self.num_layers,
            bidirectional=self.bidirectional,
            dropout=self.dropout,
            word_dropout=self.word_dropout,
            train_vectors=self.train_vectors,
            pooling=self.pooling,
            cell=self.cell,
        )

    def _take(self, new: _New, classes: Array) -> None:
        """Have what prediction needs besides a network, before training begins."""
        self.classes_, self.tokenizer_, self._spelling = classes, new.tokenizer, new.spelling
        self.best_validation_score_ = None

    def _read(self, texts: list[str]) -> Texts:
        return Texts.read(texts, self.tokenizer_, self._spelling)

    # --- prediction -------------------------------------------------------------------------------

    def predict_proba(self, X: Any) -> Array:
        """Probabilities of the classes, (n, n_classes) of float64, in the order of `classes_`."""
        self._check_is_fitted()
        return softmax(_logits(self.network_, self._read(check_texts(X))))

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
        network = self.network_
        words, _ = self._read([text]).padded(np.array([0]))
        vectors = network.words(words)[:, 0]
        logits = network.logits_of(vectors[:, np.newaxis])
        place = int(logits.argmax()) if label is None else self._place(label)

        def gradient(line: Array) -> tuple[Array, Array]:
            values, d_line = network.gradient(line, lambda each: _d_log_odds(each, place))
            return _log_odds(values, place), d_line

        baseline = np.broadcast_to(network.words.unknown(), vectors.shape)
        added = np.zeros(0)
        if len(vectors):
            added = integrated_gradients(gradient, baseline, vectors)
        log_odds = float(_log_odds(logits, place)[0])
        start = float(_log_odds(network.logits_of(baseline[:, np.newaxis]), place)[0])
        return Explanation(
            text,
            self.classes_.tolist()[place],
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
        words = self.network_.words
        fitted = {
            "classes": labels_to_json(self.classes_),
            "tokenizer": self.tokenizer_.to_json(),
            "letters": None if self._spelling is None else list(self._spelling.groups),
            "embedding_size": words.own.embedding_dim,
        }
        # Those that are trained are among the network's.
        return fitted, {} if self.train_vectors else {
            f"words.{name}": array for name, array in words.parameters().items()
        }

    def _restore(
        self, fitted: Mapping[str, Any], arrays: Mapping[str, Array], network: Mapping[str, Array]
    ) -> None:
        check_names("fitted", fitted, ("classes", "tokenizer", "letters", "embedding_size"))
        groups = fitted["letters"]
        if not isinstance(groups, list) and groups is not None:
            raise ValueError(f"letters: expected a list or null, got {groups!r:.80}")
        self.classes_ = check_several(labels_from_json(fitted["classes"]), "classes")
        self.tokenizer_ = Tokenizer.from_json(fitted["tokenizer"])
        self._spelling = None if groups is None else Spelling(groups)
        self.network_ = self._network(
            {**network, **arrays},
            len(self.classes_),
            len(self.tokenizer_),
            _groups(self._spelling),
            fitted["embedding_size"],
        )
        own = () if self.train_vectors else self.network_.words.parameters()
        check_names("arrays", arrays, [f"words.{name}" for name in own])
        self.best_validation_score_ = None


def _groups(spelling: Spelling | None) -> int:
    return 0 if spelling is None else len(spelling)


def _logits(network: TextNetwork, texts: Texts) -> Array:
    """(n, n_classes)."""
    logits = np.empty((len(texts), network.reader.head.out_features), np.float32)
    for which in in_groups(texts.lengths, AT_ONCE):
        logits[which] = network(*texts.padded(which))
    return logits


def _loss(network: TextNetwork, examples: TextExamples) -> float:
    """The mean over examples, without dropout."""
    target = (examples.codes, examples.weights)
    return cross_entropy(_logits(network, examples.texts), target)[0]


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
