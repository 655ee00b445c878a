"""Language models: what comes next in a text, by characters, words or pieces of words."""

from __future__ import annotations

import math
import sys
import zlib
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, Self

import numpy as np

from fastlstm import storage
from fastlstm._validate import Array, check_choice, check_flag, check_number, check_size
from fastlstm.optim import SGD, AdamW
from fastlstm.schedules import cosine
from fastlstm.tasks._base.batches import StreamBatches
from fastlstm.tasks._base.networks import Network, Start
from fastlstm.tasks.language_model.character_models import upgraded
from fastlstm.tasks.language_model.network import LanguageNetwork, parameters_of
from fastlstm.tasks.language_model.use import LanguageUse, Texts, as_list, joined
from fastlstm.tasks.language_model.vocabularies import LEVELS, vocabulary_from_json, vocabulary_of
from fastlstm.tasks.language_model.writing import Completion as Completion
from fastlstm.training import Trainer

KIND = "language-model"
# Where a checkpoint has what is ours.
ABOUT = "language model"
# Steps in which the learning rate rises; fewer in a short run.
_WARMUP = 100
# Tokens after which a stream forgets its past.
_RESET = 2048
# Validations in a run; fewer where they would take long.
_VALIDATIONS = 20
_UNITS = {"char": "character", "word": "word", "whitespace": "word", "subword": "piece"}
_OPTIMISERS: dict[str, type[AdamW | SGD]] = {"adamw": AdamW, "sgd": SGD}
# Arguments that have no say in what is learnt.
_FREE = ("verbose",)


class LanguageModel(LanguageUse):
    """The probability of a text, and more of it: Embedding, LSTM and Linear.

    Each text is read from its beginning, in training, too, where a list's texts follow one another
    in parallel streams. A long text also begins anew now and then, every two thousand tokens or so,
    from wherever it is: otherwise a model would hardly know what to make of a prompt.

    Parameters
    ----------
    level : {"char", "word", "whitespace", "subword"}
        What is predicted: characters; words and punctuation marks; what stands between blanks, for
        corpora that are tokenised already (a word "<unk>" then is the unknown one); pieces of
        byte-level BPE, in which nothing is unknown. Line ends are tokens of their own.
    max_vocabulary : int, optional
        The most characters, words or pieces; by default all, and 8000 pieces.
    min_frequency : int, optional
        What comes less often is unknown; by default 2, but 1 for "char" and "whitespace".
    embedding_size : int, optional
        Numbers that stand for a token; by default 64 for characters, else `hidden_size`.
    hidden_size, num_layers : int
        Of the recurrent layers.
    tied : bool
        The output's weights are the embeddings, which then have `hidden_size` numbers (Press &
        Wolf 2017). For large vocabularies: fewer weights, and mostly better ones.
    cell : {"lstm", "rnn"}
        "rnn" is the plain recurrent network, for comparison.
    dropout : float
        Of what leaves each recurrent layer.
    input_dropout : float
        Of the embeddings.
    locked_dropout : bool
        Drop the same features at all steps of a sequence (Gal & Ghahramani 2016).
    weight_dropout : float
        Of the recurrent weights (DropConnect; Merity, Keskar & Socher 2018).
    epochs : int
        Passes over the training part.
    steps : int, optional
        Steps of training, instead of `epochs`.
    batch_size : int
        Places of the text that are read side by side; fewer for a short text.
    sequence_length : int
        Tokens over which a step looks back (truncated backpropagation through time).
    optimiser : {"adamw", "sgd"}
        "sgd" wants far higher learning rates and a smaller `max_norm`, such as 20 and 0.25, as
        Zaremba, Sutskever & Vinyals 2014 train models of words; there it gets further in few
        epochs.
    learning_rate : float
        Its height; it rises in the first hundred steps and falls along a cosine to 0.
    weight_decay : float
        As ``torch.optim.AdamW`` has it, or ``torch.optim.SGD``.
    max_norm : float
        Gradients of a larger global norm are scaled down to it.
    validation_fraction : float
        Part of the text that is held out, at its end; or of the texts. 0 holds nothing out.
    keep_best : bool
        Whether, of all validations, the weights of the lowest one are kept, or the last weights.
    patience : int, optional
        Stop after so many validations, of up to 20 in a run, without a new lowest loss.
    random_state : int, RandomState or None
    verbose : bool
        Show progress on stderr.

    Attributes
    ----------
    vocabulary_ : object
        Its tokens.
    network_ : LanguageNetwork
    history_ : History
        Losses of the steps, and validations, in nats a token.

    Examples
    --------
    >>> model = LanguageModel(hidden_size=32, steps=200, random_state=0)
    >>> model = model.fit("the cat sat on the mat; the rat sat on the cat.\\n" * 40)
    >>> model.perplexity("the rat sat on the mat.") < 3
    True
    >>> "".join(model.generate("the r", 6, temperature=0))
    'at sat'
    """

    _kind = KIND

    def __init__(
        self,
        level: str = "char",
        *,
        max_vocabulary: int | None = None,
        min_frequency: int | None = None,
        embedding_size: int | None = None,
        hidden_size: int = 256,
        num_layers: int = 1,
        tied: bool = False,
        cell: str = "lstm",
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        locked_dropout: bool = False,
        weight_dropout: float = 0.0,
        epochs: int = 10,
        steps: int | None = None,
        batch_size: int = 32,
        sequence_length: int = 64,
        optimiser: str = "adamw",
        learning_rate: float = 4e-3,
        weight_decay: float = 0.0,
        max_norm: float = 1.0,
        validation_fraction: float = 0.05,
        keep_best: bool = True,
        patience: int | None = None,
        random_state: Any = None,
        verbose: bool | int = False,
    ) -> None:
        self._keep(locals())

    # --- training ---------------------------------------------------------------------------------

    def fit(
        self,
        texts: Texts,
        y: object = None,  # noqa: ARG002
        *,
        validation: Texts | None = None,
        checkpoint: str | PathLike[str] | None = None,
        checkpoint_every: int | None = None,
        resume: bool = False,
    ) -> Self:
        """Train.

        Parameters
        ----------
        texts : str or list of str
        y : None
            Not looked at; scikit-learn passes it.
        validation : str or list of str, optional
            What to validate with, instead of a part of `texts`.
        checkpoint : str or path, optional
            A file that the run is saved to as it goes on, and when Ctrl-C ends it.
        checkpoint_every : int, optional
            Steps from one checkpoint to the next; by default an epoch.
        resume : bool
            Go on from the checkpoint, to the same bits as without the break. Arguments and texts
            must be the same; `random_state` must be an int.

        Raises
        ------
        TypeError, ValueError
            If an argument is not possible, the texts are empty, or the checkpoint is another run's.
        FloatingPointError
            If training comes apart: a loss is not finite.
        KeyboardInterrupt
            After Ctrl-C; the estimator is then at the best weights so far.
        """
        with self._as_before_if_refused():
            self._check_training()
            training, held_out = self._split_texts(as_list("texts", texts), validation)
            self._check_checkpoint(checkpoint, resume=resume)
            seed = self._new_seed()
            network = self._start(training, seed)
            batches = self._streams(*joined(self.vocabulary_, training), reset=_RESET)
            steps = self._steps(len(batches))
            validate = None if held_out is None else self._validation(network, held_out)
            trainer = Trainer(
                network,
                self._new_optimiser(network),
                schedule=cosine(steps, warmup=min(_WARMUP, steps // 10)),
                max_norm=self.max_norm,
                seed=seed,
                checkpoint=checkpoint,
                checkpoint_every=checkpoint_every,
                validate=validate,
                validate_every=None if validate is None else validate.every(steps),
                patience=None if validate is None else self._patience(steps),
                settings={ABOUT: self._about([*training, *(held_out or ())])},
                **self._shown(batches),
            )
            if resume:
                trainer.resume(str(checkpoint))
        self._describe(network, batches, steps)
        self._run(network, trainer, batches, steps)
        return self

    def partial_fit(self, texts: Texts, y: object = None) -> Self:  # noqa: ARG002
        """Train further on these texts: one pass, all at `learning_rate`.

        The first call on an estimator that is not fitted makes the vocabulary, which then stays.
        What the optimiser has seen is remembered from call to call, but in no file.

        Parameters
        ----------
        texts : str or list of str
        y : None

        Raises
        ------
        TypeError, ValueError, FloatingPointError, KeyboardInterrupt
            As `fit`; a ValueError also if nothing in the texts is known.
        """
        with self._as_before_if_refused():
            self._check_training()
            checked = as_list("texts", texts)
            if not self._is_fitted():
                self._take_untrained(self._start(checked, self._new_seed()))
            ids, begins = joined(self.vocabulary_, checked)
            if not (ids[1:] < self.vocabulary_.outputs).any():
                raise ValueError("texts: expected something that is known, got nothing of it")
            batches = self._streams(ids, begins, reset=_RESET)
        self._run_further(lambda _: batches, **self._shown(batches))
        return self

    def _check_training(self) -> None:
        super()._check_training()
        check_choice("optimiser", self.optimiser, _OPTIMISERS)

    def _new_optimiser(self, network: Network) -> AdamW | SGD:
        make = _OPTIMISERS[self.optimiser]
        return make(network.parameters(), self.learning_rate, weight_decay=self.weight_decay)

    def _check_checkpoint(self, checkpoint: object, *, resume: bool) -> None:
        if check_flag("resume", resume) and checkpoint is None:
            raise ValueError("resume: needs a checkpoint")
        if checkpoint is not None and not isinstance(self.random_state, (int, np.integer)):
            raise ValueError(
                f"random_state: a run with a checkpoint needs an int, so that it can go on, got "
                f"{self.random_state!r:.80}"
            )

    def _start(self, texts: Sequence[str], seed: int) -> LanguageNetwork:
        """The vocabulary of some texts, and a network that knows nothing yet."""
        level = check_choice("level", self.level, LEVELS)
        _check_unicode(texts)
        self.vocabulary_ = vocabulary_of(
            texts,
            level=level,
            min_frequency=_size_or_none("min_frequency", self.min_frequency),
            most=_size_or_none("max_vocabulary", self.max_vocabulary),
        )
        return self._network(np.random.default_rng(seed))

    def _steps(self, per_epoch: int) -> int:
        if self.steps is not None:
            return check_size("steps", self.steps)
        return per_epoch * check_size("epochs", self.epochs)

    def _patience(self, steps: int) -> int | None:
        if check_flag("keep_best", self.keep_best):
            return steps if self.patience is None else check_size("patience", self.patience)
        if self.patience is not None:
            raise ValueError("patience: stops at the best weights, so it needs keep_best=True")
        return None

    def _network(self, start: Start, dtype: Any = np.float32) -> LanguageNetwork:
        size = self.embedding_size
        if size is None:
            size = 64 if self.level == "char" and not self.tied else self.hidden_size
        return LanguageNetwork(
            self.vocabulary_.inputs,
            self.vocabulary_.outputs,
            start=start,
            embedding_size=size,
            hidden_size=self.hidden_size,
            num_layers=self.num_layers,
            cell=self.cell,
            tied=self.tied,
            dropout=self.dropout,
            input_dropout=self.input_dropout,
            locked_dropout=self.locked_dropout,
            weight_dropout=self.weight_dropout,
            small=self.level != "char" or self.tied,
            dtype=dtype,
        )

    # --- texts ------------------------------------------------------------------------------------

    def _split_texts(
        self, texts: list[str], validation: Texts | None
    ) -> tuple[list[str], list[str] | None]:
        """What to train on and to validate with: `validation`, or the end of the texts."""
        fraction = check_number("validation_fraction", self.validation_fraction, least=0, below=1)
        if validation is not None:
            return texts, as_list("validation", validation)
        if not fraction:
            return texts, None
        if len(texts) > 1:
            cut = len(texts) - max(1, int(len(texts) * fraction))
            return texts[:cut], texts[cut:]
        (text,) = texts
        cut = len(text) - int(len(text) * fraction)
        if self.level != "char":  # not within a word
            cut = max(text.rfind(blank, 0, cut) for blank in " \n") + 1
        if not 0 < cut < len(text):
            return texts, None
        return [text[:cut]], [text[cut:]]

    def _streams(
        self, ids: Array, begins: Array | None, *, reset: int | None = None
    ) -> StreamBatches:
        steps = check_size("sequence_length", self.sequence_length)
        most = max(1, (len(ids) - 1) // steps)
        if len(ids) < 2:
            raise ValueError("texts: expected at least one token, got none but blanks")
        streams = min(check_size("batch_size", self.batch_size), most)
        return StreamBatches(ids, streams, steps, begins, reset=reset)

    def _validation(self, network: LanguageNetwork, texts: Sequence[str]) -> _Validation | None:
        ids, begins = joined(self.vocabulary_, texts)
        if not (ids[1:] < network.outputs).any():
            return None  # nothing that is known, so nothing to choose by
        return _Validation(network, self._streams(ids, begins))

    # --- what is shown ----------------------------------------------------------------------------

    def _about(self, texts: Sequence[str]) -> dict[str, Any]:
        """What must be the same for a run to go on."""
        params = {k: v for k, v in self._plain_params().items() if k not in _FREE}
        return {"params": params, "texts": fingerprint(texts)}

    def _shown(self, batches: StreamBatches) -> dict[str, Any]:
        """What the Trainer is told of the batches, and shows of them."""

        def figures(loss: float) -> dict[str, str]:
            if self.level == "char":
                return {"bits": f"{loss / math.log(2):.3f}"}
            return {"perplexity": f"{math.exp(min(loss, 99)):.1f}"}

        return {
            "carry_state": True,
            "progress": bool(self.verbose),
            "describe": figures,
            "unit": "char" if self.level == "char" else _UNITS[self.level],
            "units_per_step": round(batches.predicted / len(batches)),
        }

    def _describe(self, network: LanguageNetwork, batches: StreamBatches, steps: int) -> None:
        if self.verbose:
            streams, window = batches[0][0].shape[1], self.sequence_length
            print(
                f"{self.vocabulary_!r}; {self.num_layers} layer(s) of {self.hidden_size} units, "
                f"{parameters_of(network):,} parameters; {steps} steps of {streams} × "
                f"{window} {_UNITS[self.level]}s",
                file=sys.stderr,
                flush=True,
            )

    # --- files ------------------------------------------------------------------------------------

    @classmethod
    def _upgraded(cls, file: storage.File) -> storage.File:
        return upgraded(file)

    def _fitted(self) -> tuple[dict[str, Any], dict[str, Array]]:
        return {"vocabulary": self.vocabulary_.to_json()}, {}

    def _restore(
        self, fitted: Mapping[str, Any], arrays: Mapping[str, Array], network: Mapping[str, Array]
    ) -> None:
        if arrays:
            raise ValueError(f"unknown arrays {list(arrays)!r:.80}")
        self.vocabulary_ = vocabulary_from_json(fitted["vocabulary"])
        if self.vocabulary_.level != self.level:
            raise ValueError(f"level: {self.level!r:.80} has a vocabulary of another level")
        dtype = network["embedding.weight"].dtype
        storage.check_dtype_name(dtype.name)
        self.network_ = self._network(network, dtype)


class _Validation:
    """The mean loss of a network over streams: what a Trainer calls."""

    def __init__(self, network: LanguageNetwork, batches: StreamBatches) -> None:
        self._network, self._batches = network, batches

    def __call__(self) -> float:
        return self._network.mean_loss(self._batches)

    def every(self, steps: int) -> int:
        """Steps from one validation to the next, so that the last one is at the end, or nearly.

        No more often than there are windows to read: reading one costs a third of a step.
        """
        least = min(steps, max(1, steps // _VALIDATIONS, len(self._batches)))
        return min(range(least, min(steps, 2 * least) + 1), key=lambda every: steps % every)


def fingerprint(texts: Sequence[str]) -> dict[str, int]:
    """What a checkpoint remembers of the texts that it was made of."""
    checksum = 0
    for text in texts:
        checksum = zlib.crc32(text.encode(errors="surrogatepass") + b"\0", checksum)
    return {"characters": sum(map(len, texts)), "crc32": checksum}


def _check_unicode(texts: Sequence[str]) -> None:
    """Refuse to learn halves of surrogate pairs, which no file can hold."""
    for text in texts:
        if text.isascii():
            continue
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"texts: expected Unicode characters, got the surrogate {text[error.start]!r} at "
                f"place {error.start}"
            ) from None


def _size_or_none(name: str, value: int | None) -> int | None:
    return None if value is None else check_size(name, value)
