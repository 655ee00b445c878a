"""What a language model is used for: probabilities of texts, and writing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from fastlstm._validate import Array, check_flag, check_generator, check_number, check_size
from fastlstm.tasks._base.batches import StreamBatches
from fastlstm.tasks._base.estimator import Estimator
from fastlstm.tasks.language_model.dynamic import Adaptation, followed, root_mean_squares
from fastlstm.tasks.language_model.network import LanguageNetwork, State
from fastlstm.tasks.language_model.vocabularies import Vocabulary
from fastlstm.tasks.language_model.writing import Completion, Drawing, check_stops, complete, write
from fastlstm.tasks.text.tokenizer import check_texts

# Tokens that are scored in one call; bounds the memory, not the result.
SCORED_AT_ONCE = 512

Texts = str | Sequence[str]


class LanguageUse(Estimator):
    """The part of `LanguageModel` that needs it to be fitted."""

    vocabulary_: Vocabulary

    # --- probabilities ----------------------------------------------------------------------------

    def tokens(self, text: str) -> list[str]:
        """What the model sees of a text: characters, words and "<eos>", or pieces."""
        self._check_is_fitted()
        return self.vocabulary_.tokens(self.vocabulary_.encode(as_text("text", text)))

    def log_prob(self, text: str, *, on_progress: Callable[[int], None] | None = None) -> Array:
        """Log-probability of each token of a text, given all before it.

        An unknown character has its share of what is granted to unknown ones, ``p / (0x110000 -
        known)``; a known one that of the softmax times ``1 - p``. An unknown word has the
        probability of "<unk>".

        Parameters
        ----------
        text : str
            At least one token.
        on_progress : callable, optional
            Called with the number of tokens scored since its last call.

        Returns
        -------
        ndarray (N,)
            float64, in nats.
        """
        self._check_is_fitted()
        ids = self.vocabulary_.encode(as_text("text", text))
        if not len(ids):
            raise ValueError(f"text: expected at least one token, got {text!r:.40}")
        inputs = np.concatenate(([self.vocabulary_.start], ids[:-1]))
        state: State | None = None
        parts = []
        for start in range(0, len(ids), SCORED_AT_ONCE):
            chunk = slice(start, start + SCORED_AT_ONCE)
            part, state = self.network_.log_prob(inputs[chunk], ids[chunk], state)
            parts.append(part)
            if on_progress is not None:
                on_progress(len(part))
        return self.vocabulary_.with_unknown(np.concatenate(parts), ids)

    def score(self, texts: Texts, y: object = None) -> float:  # noqa: ARG002
        """Mean log-probability of a token in nats: of one text, or of all tokens of several."""
        total, count = self._total("texts", texts, None)
        return total / count

    def perplexity(
        self, texts: Texts, *, on_progress: Callable[[int], None] | None = None
    ) -> float:
        """exp(-`score`): among so many equally likely tokens the model seems to choose."""
        return _perplexity(*self._total("texts", texts, on_progress))

    def bits_per_character(
        self, texts: Texts, *, on_progress: Callable[[int], None] | None = None
    ) -> float:
        """-log2 of the probability of texts, over the number of their characters.

        At the level "char" that is of all that a text says, the first character included; "word"
        and "whitespace" know nothing of blanks within a line, and pay for an unknown word as for
        "<unk>", so there it is less than the truth.
        """
        total, _ = self._total("texts", texts, on_progress)
        characters = len(texts) if isinstance(texts, str) else sum(map(len, texts))
        return -total / math.log(2) / characters

    def _total(
        self, name: str, texts: Texts, on_progress: Callable[[int], None] | None
    ) -> tuple[float, int]:
        """Log-probability of all tokens together, and how many there are."""
        total, count = 0.0, 0
        for text in as_list(name, texts):
            found = self.log_prob(text, on_progress=on_progress)
            total, count = total + float(found.sum()), count + len(found)
        return total, count

    def dynamic_perplexity(
        self,
        texts: Texts,
        *,
        learning_rate: float = 0.1,
        decay: float = 0.0,
        window: int = 20,
        training: Texts | None = None,
        keep: bool = False,
    ) -> float:
        """Perplexity of a model that learns from each part of the texts once it is scored.

        Dynamic evaluation (Krause et al. 2018): the weights follow the text by gradient descent,
        which suits texts that repeat themselves, such as names within an article.

        Parameters
        ----------
        texts : str or list of str
        learning_rate : float
            About 0.1, or 0.002 with `training`; best chosen on a text of its own.
        decay : float
            How fast the weights go back to those of before, at each step.
        window : int
            Tokens from one step to the next.
        training : str or list of str, optional
            Part of what the model was trained on: gradients are divided by their root mean squares
            there, and not followed as they are.
        keep : bool
            Keep what was learnt; otherwise the model is the same afterwards.
        """
        self._check_is_fitted()
        checked = as_list("texts", texts)
        window = check_size("window", window)
        adaptation = Adaptation(
            check_number("learning_rate", learning_rate, least=0),
            check_number("decay", decay, least=0, most=1),
            None if training is None else self._root_mean_squares(training, window),
        )
        keep = check_flag("keep", keep)
        network: LanguageNetwork = self.network_
        first = network.parameters().state_dict()
        total, count = 0.0, 0
        try:
            for text in checked:
                ids, _ = joined(self.vocabulary_, [text])
                zeros = np.zeros(len(ids) - 1)
                total += sum(followed(network, first, ids, window, adaptation))
                total += float(self.vocabulary_.with_unknown(zeros, ids[1:]).sum())
                count += len(zeros)
        except BaseException:
            keep = False
            raise
        finally:
            if not keep:
                network.parameters().load_state_dict(first)
        return _perplexity(total, count)

    def _root_mean_squares(self, texts: Texts, window: int) -> dict[str, Array]:
        ids, begins = joined(self.vocabulary_, as_list("training", texts))
        return root_mean_squares(self.network_, StreamBatches(ids, 1, window, begins))

    # --- writing ----------------------------------------------------------------------------------

    def generate(
        self,
        prompt: str = "",
        length: int = 200,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        stop: str | Sequence[str] | None = None,
        seed: np.random.Generator | int | None = None,
    ) -> Iterator[str]:
        """Go on from a prompt: up to `length` tokens, each one as soon as it is drawn.

        Parameters
        ----------
        prompt : str
            What was written so far; may be empty. Unknown characters and words are read as such,
            and none is ever written.
        length : int
            Tokens to write.
        temperature : float
            Divides the logits: 1 draws as the model predicts, less is more cautious, 0 always
            takes the likeliest token.
        top_k : int, optional
            Draw from so many of the likeliest tokens only.
        top_p : float, optional
            Draw from the likeliest tokens only whose probabilities together reach this (nucleus
            sampling, Holtzman et al. 2020).
        stop : str or list of str, optional
            Write no more once one of these was written; it is the last of what comes.
        seed : numpy.random.Generator or int, optional
            The same seed writes the same text.

        Returns
        -------
        iterator of str
            What each token adds to the text.
        """
        self._check_is_fitted()
        return write(
            self.network_,
            self.vocabulary_,
            as_text("prompt", prompt),
            check_size("length", length, least=0),
            Drawing.checked(temperature, top_k, top_p),
            check_stops(stop),
            check_generator("seed", seed),
        )

    def complete(
        self,
        prompt: str,
        n: int = 3,
        *,
        length: int = 20,
        stop: str | Sequence[str] | None = None,
        beam_width: int | None = None,
    ) -> list[Completion]:
        """The likeliest continuations of a prompt, the best one first, by beam search.

        Parameters
        ----------
        prompt : str
        n : int
            How many of them; fewer if there are no more.
        length : int
            Tokens of the longest one.
        stop : str or list of str, optional
            A continuation ends once one of these was written: a blank for the word under way, a
            line end for the line.
        beam_width : int, optional
            Continuations that are followed side by side; by default 2 · n, and 8 at least.

        Returns
        -------
        list of Completion
            Their `text`, and the `log_prob` of the whole of it.
        """
        self._check_is_fitted()
        n = check_size("n", n)
        width = max(8, 2 * n) if beam_width is None else check_size("beam_width", beam_width)
        if width < n:
            raise ValueError(f"beam_width: expected n = {n} or more, got {width}")
        return complete(
            self.network_,
            self.vocabulary_,
            as_text("prompt", prompt),
            n=n,
            length=check_size("length", length),
            stops=check_stops(stop),
            beam_width=width,
        )


def as_text(name: str, text: object) -> str:
    if not isinstance(text, str):
        raise TypeError(f"{name}: expected a str, got a {type(text).__name__}")
    return text


def as_list(name: str, texts: object) -> list[str]:
    """One text, or several, as a list; at least one character in all."""
    checked = [texts] if isinstance(texts, str) else check_texts(texts, name)
    if not any(checked):
        raise ValueError(f"{name}: expected at least one character, got an empty string")
    return checked


def joined(vocabulary: Vocabulary, texts: Sequence[str]) -> tuple[Array, Array | None]:
    """Ids of all texts (N,), and where one begins: with what stands before a text.

    That is never twice in a row: where a text ends in it, it begins the next one, too. No places
    if there is one text.
    """
    start = np.array([vocabulary.start])
    parts, begins, length = [start], [0], 1
    for text in texts:
        ids = vocabulary.encode(text)
        if not len(ids):
            continue
        if length > 1:
            if parts[-1][-1] != start[0]:
                parts.append(start)
                length += 1
            begins.append(length - 1)
        parts.append(ids)
        length += len(ids)
    places = np.zeros(length, bool)
    places[begins] = True
    return np.concatenate(parts), places if len(begins) > 1 else None


def _perplexity(log_prob: float, count: int) -> float:
    try:
        return math.exp(-log_prob / count)
    except OverflowError:
        return math.inf
