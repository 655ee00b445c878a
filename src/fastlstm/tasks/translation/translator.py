"""Translation: sentences of one language into sentences of another, learnt from pairs."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np

from fastlstm._extras import import_extra
from fastlstm._validate import Array, check_flag, check_number, check_size
from fastlstm.tasks._base.batches import Ragged, in_chunks
from fastlstm.tasks._base.estimator import Estimator
from fastlstm.tasks._base.networks import Start
from fastlstm.tasks.text.tokenizer import BEGIN, END, PADDING, UNKNOWN, Tokenizer, check_texts
from fastlstm.tasks.translation.network import (
    Hypotheses,
    TranslationBatch,
    TranslationNetwork,
)
from fastlstm.tasks.translation.result import Translation as Translation
from fastlstm.tasks.translation.search import Hypothesis, beam_search

# Sentences that are read at once; those that are translated at once have a beam besides.
_AT_ONCE = 64
# A translation may have so many tokens more than its source's length lets expect.
_SPARE = 10
# Of the lengths of training pairs, the ratio that so many do not exceed; and no ratio is larger.
_QUANTILE, _LARGEST_RATIO = 0.99, 1000.0

Pairs = tuple[Iterable[str], Iterable[str]]


class Translator(Estimator):
    """Translates sentences, by an LSTM that reads and one that writes and attends to what was read.

    Luong et al. 2015 ("Effective approaches to attention-based neural machine translation") without
    input feeding, over subwords (Sennrich et al. 2016).

    Parameters
    ----------
    hidden_size : int
        Units of each layer; the encoder's directions have half of them each.
    embedding_size : int
        Of a token's vector.
    num_layers : int
        Of the encoder, and of the decoder.
    bidirectional : bool
        Whether the encoder also reads from the end to the beginning.
    attention : {"general", "dot", "additive"}
        How the fit of a source token is scored; see `fastlstm.attention.Attention`.
    dropout : float
        Of tokens' vectors, between layers, and of outputs.
    label_smoothing : float
        Part of the probability that training spreads over all tokens.
    level : {"subword", "word", "whitespace", "char", "auto"}
        What tokens are; see `fastlstm.tasks.text.Tokenizer`. "whitespace" is for texts that are
        tokenised already.
    max_vocabulary : int, optional
        The most tokens of a language; by default 8000 subwords, or all words.
    joint_vocabulary : bool
        One vocabulary for both languages.
    lowercase : bool
    beam_size : int
        Hypotheses that are followed at once; 1 is greedy search.
    length_penalty : float
        Translations are compared by log-probability / length ** length_penalty: 0 prefers short
        ones, 1 compares means.
    cell : {"lstm", "rnn"}
    epochs, batch_size, learning_rate, weight_decay, max_norm, validation_fraction, patience,
    random_state, verbose
        As of `SequenceClassifier`.

    Attributes
    ----------
    source_tokenizer_, target_tokenizer_ : Tokenizer
    length_ratio_ : float
        Tokens of a target for each one of its source, which hardly a training pair exceeds.
    history_ : History
        Losses of the steps, and validations: the mean cross-entropy of a token, in nats.

    Examples
    --------
    >>> sources = [f"{a} {b}" for a in "abcd" for b in "abcd"]
    >>> targets = [f"{b} and {a}" for a, b in map(str.split, sources)]
    >>> translator = Translator(
    ...     32, embedding_size=16, level="word", dropout=0, epochs=60, batch_size=4,
    ...     learning_rate=0.01, validation_fraction=0, random_state=0,
    ... )
    >>> translator.fit(sources, targets).predict(["a c", "d b"])
    ['c and a', 'b and d']
    """

    _kind = "translator"

    hidden_size: int
    embedding_size: int
    num_layers: int
    bidirectional: bool
    attention: str
    dropout: float
    label_smoothing: float
    level: str
    max_vocabulary: int | None
    joint_vocabulary: bool
    lowercase: bool
    beam_size: int
    length_penalty: float
    cell: str

    def __init__(
        self,
        hidden_size: int = 512,
        *,
        embedding_size: int = 256,
        num_layers: int = 1,
        bidirectional: bool = True,
        attention: str = "general",
        dropout: float = 0.3,
        label_smoothing: float = 0.1,
        level: str = "subword",
        max_vocabulary: int | None = None,
        joint_vocabulary: bool = False,
        lowercase: bool = False,
        beam_size: int = 5,
        length_penalty: float = 1.0,
        cell: str = "lstm",
        epochs: int = 20,
        batch_size: int = 64,
        learning_rate: float = 2e-3,
        weight_decay: float = 0.0,
        max_norm: float = 1.0,
        validation_fraction: float = 0.05,
        patience: int | None = 5,
        random_state: Any = None,
        verbose: bool | int = False,
    ) -> None:
        self._keep(locals())

    # --- training ---------------------------------------------------------------------------------

    def fit(
        self,
        sources: Iterable[str],
        targets: Iterable[str],
        validation: Pairs | None = None,
        *,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Train.

        Parameters
        ----------
        sources, targets : iterable of str (n,)
            Sentences and their translations.
        validation : pair of iterable of str, optional
            Sources and targets to validate with, in place of `validation_fraction`.
        checkpoint : path, optional
            A file that is written after each epoch. If it is there, training goes on from it, to
            the same bits as without a break: for that `random_state` has to be an int.

        Raises
        ------
        TypeError, ValueError
            If an argument is not possible, there are no sentences or not as many of both, or one
            of them is blank; or if the checkpoint belongs to another run.
        KeyboardInterrupt
            After Ctrl-C; the estimator is then at the best weights so far.
        """
        with self._as_before_if_refused():
            self._check_training()
            pairs = _check_pairs(sources, targets, "sources", "targets")
            seed = self._new_seed()
            own, held_out = self._hold_out(pairs, validation, seed)
            self._learn_tokens(*own)
            source, target = self._encode(*own)
            ratios = (target.lengths - 2) / np.maximum(source.lengths - 1, 1)
            self.length_ratio_ = min(float(np.quantile(ratios, _QUANTILE)), _LARGEST_RATIO)
            network = self._network(np.random.default_rng(seed))
            held = self._encode(*held_out) if held_out[0] else None
            self._train(
                network,
                lambda which: TranslationBatch(source.padded(which), target.padded(which)),
                len(source),
                seed=seed,
                validate=None if held is None else lambda: self._loss(network, *held),
                # By target, and by source where those are as long.
                lengths=target.lengths + source.lengths / (source.lengths.max() + 1),
                checkpoint=checkpoint,
                settings=None if checkpoint is None else self._fingerprint(own, held_out),
            )
        return self

    def _hold_out(
        self, pairs: tuple[list[str], list[str]], validation: Pairs | None, seed: int
    ) -> tuple[list[list[str]], list[list[str]]]:
        """Sources and targets to train on, and those to validate with."""
        if validation is None:
            parts = self._split(len(pairs[0]), seed=seed)
            own, held_out = ([[texts[i] for i in part] for texts in pairs] for part in parts)
            return own, held_out
        if not isinstance(validation, (tuple, list)) or len(validation) != 2:
            raise TypeError(
                f"validation: expected a pair (sources, targets), got {validation!r:.80}"
            )
        return list(pairs), list(_check_pairs(*validation, "validation[0]", "validation[1]"))

    def _learn_tokens(self, sources: list[str], targets: list[str]) -> None:
        options: Any = {
            "level": self.level,
            "lowercase": check_flag("lowercase", self.lowercase),
            "max_vocabulary": self.max_vocabulary,
        }
        if check_flag("joint_vocabulary", self.joint_vocabulary):
            joint = Tokenizer.fit(sources + targets, **options)
            self.source_tokenizer_ = self.target_tokenizer_ = joint
        else:
            self.source_tokenizer_ = Tokenizer.fit(sources, **options)
            self.target_tokenizer_ = Tokenizer.fit(targets, **options)

    def _encode(self, sources: Sequence[str], targets: Sequence[str]) -> tuple[Ragged, Ragged]:
        """Sources and their ends; targets between begin and end."""
        return (
            self.source_tokenizer_.encode_many(sources, end=True),
            self.target_tokenizer_.encode_many(targets, begin=True, end=True),
        )

    def _fingerprint(self, *texts: Sequence[Sequence[str]]) -> dict[str, Any]:
        """What a run is made of, for its checkpoint."""
        params = self.get_params(deep=False)
        for name in ("verbose", "beam_size", "length_penalty"):
            params.pop(name)
        content = "\0".join(text for pair in texts for side in pair for text in side)
        return {
            "params": {name: _plain_param(value) for name, value in params.items()},
            "crc32": zlib.crc32(content.encode(errors="surrogatepass")),
        }

    def _network(self, start: Start) -> TranslationNetwork:
        return TranslationNetwork(
            len(self.source_tokenizer_),
            len(self.target_tokenizer_),
            embedding_size=self.embedding_size,
            hidden_size=self.hidden_size,
            num_layers=self.num_layers,
            bidirectional=self.bidirectional,
            dropout=self.dropout,
            cell=self.cell,
            attention=self.attention,
            label_smoothing=self.label_smoothing,
            start=start,
        )

    # --- translation ------------------------------------------------------------------------------

    def predict(self, sources: Iterable[str]) -> list[str]:
        """The best translation of each sentence; that of a blank one is empty.

        Raises
        ------
        TypeError, ValueError
            If `sources` is one string, or empty, or holds anything but strings.
        """
        return [found[0].text for found in self.translate(sources)]

    def translate(
        self,
        sources: Iterable[str],
        *,
        beam_size: int | None = None,
        length_penalty: float | None = None,
        n_best: int = 1,
        return_attention: bool = False,
    ) -> list[list[Translation]]:
        """The best translations of each sentence, best first.

        Parameters
        ----------
        sources : iterable of str (n,)
        beam_size : int, optional
        length_penalty : float, optional
            In place of the estimator's own.
        n_best : int
            How many translations of each; at most `beam_size`. There are fewer where a beam of this
            size finds fewer.
        return_attention : bool
            Whether each has its `attention`.

        Raises
        ------
        TypeError, ValueError
            If an argument is not possible; see `predict`.
        FloatingPointError
            If the network says NaN, as one does that has a NaN among its weights.
        """
        self._check_is_fitted()
        texts = check_texts(sources, "sources")
        beam = check_size("beam_size", self.beam_size if beam_size is None else beam_size)
        penalty = check_number(
            "length_penalty",
            self.length_penalty if length_penalty is None else length_penalty,
            least=0,
        )
        wanted = check_size("n_best", n_best, most=beam)
        with_attention = check_flag("return_attention", return_attention)
        ids = self.source_tokenizer_.encode_many(texts, end=True)
        results = [[Translation("", 0.0, 0.0)] for _ in texts]
        for which in _chunks_by_length(ids.lengths, np.flatnonzero(ids.lengths > 1)):
            found = self._search(ids, which, beam, wanted, penalty)
            if not all(found):
                raise FloatingPointError("the network's probabilities are not numbers")
            for i, hypotheses in zip(which, found, strict=True):
                tokens = self.source_tokenizer_.pieces(_row(ids, i)[:-1])
                results[i] = [self._translation(tokens, one) for one in hypotheses]
            if with_attention:
                self._attend(ids, which, found, results)
        return results

    def log_prob(self, sources: Iterable[str], targets: Iterable[str]) -> Array:
        """Log-probability of each target as the translation of its source, (n,) of float64.

        In nats, summed over its tokens and its end.

        Raises
        ------
        TypeError, ValueError
            If an argument is no iterable of strings, or there are not as many of both.
        """
        self._check_is_fitted()
        pairs = _check_pairs(sources, targets, "sources", "targets", blank=True)
        each = self._log_probs(self.network_, *self._encode(*pairs))
        return np.array([log_probs.sum() for log_probs in each])

    def score(
        self, sources: Iterable[str], targets: Iterable[str], *, tokenize: str = "13a"
    ) -> float:
        """BLEU of `predict`, from 0 to 100, by sacrebleu (extra ``translate``).

        Parameters
        ----------
        sources, targets : iterable of str
        tokenize : str
            sacrebleu's name of what cuts sentences into words; "none" for text that is tokenised.
        """
        pairs = _check_pairs(sources, targets, "sources", "targets", blank=True)
        sacrebleu = import_extra("sacrebleu", extra="translate", purpose="BLEU scores")
        bleu = sacrebleu.metrics.BLEU(tokenize=tokenize, force=tokenize == "none")
        return float(bleu.corpus_score(self.predict(pairs[0]), [pairs[1]]).score)

    def _search(
        self, ids: Ragged, which: Array, beam: int, n_best: int, penalty: float
    ) -> list[list[Hypothesis]]:
        padded, lengths = ids.padded(which)
        limits = np.ceil(self.length_ratio_ * (lengths - 1)).astype(np.int64) + _SPARE
        hypotheses = Hypotheses(self.network_, *self.network_.read(padded, lengths), beam_size=beam)
        return beam_search(
            hypotheses, limits, beam_size=beam, n_best=n_best, length_penalty=penalty,
            begin=BEGIN, end=END, barred=(PADDING, UNKNOWN, BEGIN),
        )  # fmt: skip

    def _translation(self, source_tokens: Sequence[str], found: Hypothesis) -> Translation:
        tokenizer = self.target_tokenizer_
        return Translation(
            tokenizer.decode(found.ids), found.log_prob, found.score, tuple(source_tokens),
            tuple(tokenizer.pieces(found.ids)),
        )  # fmt: skip

    def _attend(
        self,
        ids: Ragged,
        which: Array,
        found: list[list[Hypothesis]],
        results: list[list[Translation]],
    ) -> None:
        """Put attention to the results of these sentences: each is said once more, at once."""
        padded, lengths = ids.padded(which)
        memory, state = self.network_.read(padded, lengths)
        for rank in range(max(map(len, found))):
            some = np.array([b for b, own in enumerate(found) if len(own) > rank])
            said = [np.append(BEGIN, found[b][rank].ids) for b in some]
            read, steps = Ragged.of(said, np.empty(0, np.int64)).padded()
            parts = tuple(part[:, some] for part in state)
            _, weights, _ = self.network_.say(read, steps, memory.take(some), parts)
            for row, b in enumerate(some):
                own = results[which[b]]
                attention = weights[row, : steps[row], : lengths[b]].copy()
                own[rank] = replace(own[rank], attention=attention)

    def _loss(self, network: TranslationNetwork, source: Ragged, target: Ragged) -> float:
        """Mean cross-entropy of a token, in nats, without smoothing."""
        return -float(np.concatenate(self._log_probs(network, source, target)).mean())

    def _log_probs(
        self, network: TranslationNetwork, source: Ragged, target: Ragged
    ) -> list[Array]:
        """Of the tokens of each target, an array of each."""
        results: list[Array] = [np.empty(0)] * len(source)
        for which in _chunks_by_length(target.lengths):
            batch = TranslationBatch(source.padded(which), target.padded(which))
            ends = np.cumsum(batch.lengths)[:-1]
            for i, own in zip(which, np.split(network.log_probs(batch), ends), strict=True):
                results[i] = own
        return results

    # --- files ------------------------------------------------------------------------------------

    def _fitted(self) -> tuple[dict[str, Any], dict[str, Array]]:
        joint = self.source_tokenizer_ is self.target_tokenizer_
        return {
            "source": self.source_tokenizer_.to_json(),
            "target": None if joint else self.target_tokenizer_.to_json(),
            "length_ratio": self.length_ratio_,
        }, {}

    def _restore(
        self, fitted: Mapping[str, Any], arrays: Mapping[str, Array], network: Mapping[str, Array]
    ) -> None:
        if arrays:
            raise ValueError(f"arrays: unexpected {sorted(arrays)}")
        self.source_tokenizer_ = self.target_tokenizer_ = Tokenizer.from_json(fitted["source"])
        if fitted["target"] is not None:
            self.target_tokenizer_ = Tokenizer.from_json(fitted["target"])
        self.length_ratio_ = check_number(
            "length_ratio", fitted["length_ratio"], least=0, most=_LARGEST_RATIO
        )
        self.network_ = self._network(network)


# --- arguments ------------------------------------------------------------------------------------


def _check_pairs(
    sources: Any, targets: Any, source_name: str, target_name: str, *, blank: bool = False
) -> tuple[list[str], list[str]]:
    """Two lists of as many texts, none of them without a character unless that is allowed."""
    pairs = check_texts(sources, source_name), check_texts(targets, target_name)
    if len(pairs[0]) != len(pairs[1]):
        raise ValueError(
            f"{target_name}: expected {len(pairs[0])} sentences, as {source_name} has, got "
            f"{len(pairs[1])}"
        )
    for name, texts in zip((source_name, target_name), pairs, strict=True):
        for i, text in enumerate(() if blank else texts):
            if not text.strip():
                raise ValueError(
                    f"{name}[{i}]: expected a sentence, got {text!r}; leave the pair out"
                )
    return pairs


def _plain_param(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _row(ids: Ragged, i: int) -> Array:
    start = int(ids.lengths[:i].sum())
    return ids.rows[start : start + int(ids.lengths[i])]


def _chunks_by_length(lengths: Array, which: Array | None = None) -> Iterator[Array]:
    """Numbers of sequences, all or these, in chunks of similar lengths."""
    which = np.arange(len(lengths)) if which is None else which
    order = which[np.argsort(lengths[which], kind="stable")]
    for part in in_chunks(len(order), _AT_ONCE):
        yield order[part]
