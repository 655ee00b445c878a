"""The character language model, against a float64 computation of its own and against laws."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from fastlstm import storage
from fastlstm.optim import Adam, clip_grad_norm
from fastlstm.storage import FormatError
from fastlstm.tasks.corpus import CorpusError, default_corpus, read_corpus, split_corpus
from fastlstm.tasks.language_model import CharacterModel, StreamBatches
from tests.support import assert_same_bits, plain_lstm

ENGLISH = "the cat sat on the mat; the dog sat on the log.\n"
CHINESE = "話說天下大勢，分久必合，合久必分。\n"


def small_model(text: str = ENGLISH, **options: object) -> CharacterModel:
    sizes = {"embedding_size": 5, "hidden_size": 7, "rng": 3}
    return CharacterModel.for_text(text, **(sizes | options))


def plain_logits(model: CharacterModel, text: str) -> np.ndarray:
    """Logits (T, V) for each character of the text, in float64 and character by character."""
    weights = {name: array.astype(np.float64) for name, array in model.parameters().items()}
    read = [model.characters.find(character) for character in text[:-1]]
    embedded = [np.zeros(model.embedding_size)]
    embedded += [
        weights["embedding.weight"][at] if at >= 0 else np.zeros(model.embedding_size)
        for at in read
    ]
    output, _ = plain_lstm(model.lstm, np.array(embedded)[:, np.newaxis])
    return output[:, 0] @ weights["head.weight"].T + weights["head.bias"]


def plain_bits(model: CharacterModel, text: str) -> float:
    unknown = model.unknown_probability
    bits = 0.0
    for logits, character in zip(plain_logits(model, text), text, strict=True):
        probabilities = np.exp(logits) / np.exp(logits).sum()
        at = model.characters.find(character)
        if at >= 0:
            bits -= math.log2((1 - unknown) * probabilities[at])
        else:
            bits -= math.log2(unknown / (0x110000 - len(model.characters)))
    return bits / len(text)


def train(model: CharacterModel, text: str, steps: int, lr: float = 0.02) -> list[float]:
    """A training loop in its plainest form; returns the losses."""
    batches = StreamBatches(model.encode(text), 4, 16)
    optimiser = Adam(model.parameters(), lr)
    losses, state = [], None
    for step in range(steps):
        batch = batches[step % len(batches)]
        state = None if step % len(batches) == 0 else state
        loss, grads, state = model.loss_and_grads(batch, state, None)
        optimiser.step(clip_grad_norm(grads, 1.0)[0])
        losses.append(loss)
    return losses


# --- bits per character ---------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("text", ["t", "the dog sat", "a new one: ß and 合!", "合"])
def test_bits_are_those_of_a_literal_computation(dtype: type, layers: int, text: str) -> None:
    model = small_model(dtype=dtype, num_layers=layers)
    tolerance = 1e-5 if dtype is np.float32 else 1e-12
    assert model.bits_per_character(text) == pytest.approx(plain_bits(model, text), rel=tolerance)


def test_bits_do_not_depend_on_how_a_long_text_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model(dtype=np.float64)
    text = ENGLISH * 3
    whole = model.bits_per_character(text)
    monkeypatch.setattr("fastlstm.tasks.language_model.SCORED_AT_ONCE", 10)
    reported: list[int] = []
    assert model.bits_per_character(text, on_progress=reported.append) == pytest.approx(
        whole, rel=1e-12
    )
    assert sum(reported) == len(text)
    assert max(reported) == 10


def test_probabilities_of_all_of_unicode_add_up_to_one() -> None:
    model = small_model("abc" * 9 + "d", unknown_probability=0.25)
    known = sum(2 ** -model.bits_per_character(character) for character in model.characters)
    unknown = 2 ** -model.bits_per_character("合") * (0x110000 - len(model.characters))
    assert known == pytest.approx(0.75, rel=1e-6)
    assert known + unknown == pytest.approx(1, rel=1e-6)


def test_unknown_characters_share_what_turing_estimates() -> None:
    # "d" and "e" came once in 20 characters.
    assert small_model("abc" * 6 + "de").unknown_probability == pytest.approx(3 / 22)
    assert small_model("ab").unknown_probability == pytest.approx(3 / 4)


def test_an_untrained_reserved_id_is_embedded_as_zeros_and_stays_so() -> None:
    model = small_model()
    train(model, ENGLISH * 4, 10)
    weight = model.parameters()["embedding.weight"]
    assert not weight[model.unknown_id].any()
    assert weight[:-1].all()


def test_bits_of_an_empty_text_raise() -> None:
    with pytest.raises(ValueError, match="text: expected at least one character"):
        small_model().bits_per_character("")


# --- learning -------------------------------------------------------------------------------------


def test_a_periodic_text_is_learnt_and_written() -> None:
    period = "abcaabbc\n"  # what follows "a" or "b" depends on more than one character before
    model = CharacterModel.for_text(period * 40, embedding_size=8, hidden_size=24, rng=0)
    losses = train(model, period * 40, 250)
    assert losses[-1] < 0.02 < 1 < losses[0]
    assert model.bits_per_character(period * 20) < 0.2
    written = "".join(model.generate(period * 2, 45, temperature=0))
    assert written == period * 5


def test_forget_gates_begin_open() -> None:
    parameters = small_model(num_layers=2).parameters()
    for layer in range(2):
        bias = parameters[f"lstm.bias_ih_l{layer}"] + parameters[f"lstm.bias_hh_l{layer}"]
        assert (bias[7:14] == 1).all()
        assert (np.abs(bias[:7]) < 1).all()


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_gradients_are_finite_differences(dropout: float) -> None:
    """With dropout the masks are drawn from the same seed each time."""
    model = small_model(dtype=np.float64, num_layers=2, dropout=dropout)
    ids = model.encode("the dog合sat on the ß mat")
    batch = ids[:20].reshape(4, 5).T, ids[1:21].reshape(4, 5).T
    generator = np.random.default_rng(5)
    state = tuple(generator.standard_normal((2, 4, 7)) for _ in range(2))

    def loss() -> float:
        return model.loss_and_grads(batch, state, np.random.default_rng(9))[0]

    _, grads, _ = model.loss_and_grads(batch, state, np.random.default_rng(9))
    assert grads.keys() == model.parameters().keys()
    for name, grad in grads.items():
        direction = generator.standard_normal(grad.shape)
        ends = []
        for step in (1e-5, -2e-5):
            with model.parameters().editing() as parameters:
                parameters[name] += step * direction
            ends.append(loss())
        with model.parameters().editing() as parameters:
            parameters[name] += 1e-5 * direction
        slope = (ends[0] - ends[1]) / 2e-5
        assert slope == pytest.approx(float((grad * direction).sum()), rel=1e-6, abs=1e-9), name


def test_dropout_acts_in_training_only() -> None:
    model = small_model(dropout=0.5)
    batch = StreamBatches(model.encode(ENGLISH), 2, 8)[0]
    dropped = [model.loss_and_grads(batch, None, np.random.default_rng(k))[0] for k in (0, 0, 1)]
    assert dropped[0] == dropped[1] != dropped[2]
    plain = model.loss_and_grads(batch, None, None)[0]
    assert plain != dropped[0]
    # The loss knows nothing of unknown characters; bits per character do.
    known = math.log2(1 - model.unknown_probability)
    batches = StreamBatches(model.encode(ENGLISH), 2, 1000)
    bits = model.loss_and_grads(batches[0], None, None)[0] / math.log(2)
    assert model.bits_per_character_of(batches) == pytest.approx(bits - known, rel=1e-6)


def test_bits_of_streams_do_not_depend_on_their_windows() -> None:
    model = small_model(dtype=np.float64)
    ids = model.encode(ENGLISH.replace("c", "ß") * 2)
    short, whole = StreamBatches(ids, 3, 7), StreamBatches(ids, 3, 1000)
    assert len(whole) == 1
    expected = model.bits_per_character_of(whole)
    assert model.bits_per_character_of(short) == pytest.approx(expected, rel=1e-12)


def test_bits_of_one_stream_are_those_of_the_text_but_for_its_first_character() -> None:
    """An unknown first character: nothing is known before the second one in either case."""
    model = small_model(dtype=np.float64)
    text = "合" + ENGLISH + "ß"
    total = model.bits_per_character(text[1:]) * len(text[1:])
    bits = model.bits_per_character_of(StreamBatches(model.encode(text), 1, 20))
    assert bits * len(text[1:]) == pytest.approx(total, rel=1e-12)


def test_unknown_targets_are_left_out_of_the_loss() -> None:
    model = small_model(dtype=np.float64)
    ids = model.encode("the cat sat")
    targets = np.where(np.arange(11) % 2, model.unknown_id, ids)
    inputs = np.concatenate(([model.unknown_id], ids[:-1]))
    loss, _, _ = model.loss_and_grads((inputs[:, None], targets[:, None]), None, None)
    expected = [
        np.log(np.exp(row).sum()) - row[target]
        for row, target in zip(plain_logits(model, "the cat sat"), targets, strict=True)
        if target != model.unknown_id
    ]
    assert len(expected) == 6
    assert loss == pytest.approx(np.mean(expected), rel=1e-12)


# --- writing --------------------------------------------------------------------------------------


def test_the_same_seed_writes_the_same_text() -> None:
    model = small_model()
    first, same, other = ("".join(model.generate("the", 60, seed=k)) for k in (1, 1, 2))
    assert first == same != other
    assert len(first) == 60
    assert set(first) <= set(ENGLISH)


def test_characters_come_with_the_probabilities_of_the_model() -> None:
    """3000 first characters against the softmax, within five standard deviations."""
    model = small_model("abcd", unknown_probability=0.5)
    expected = np.exp(plain_logits(model, "ab")[1] / 0.7)
    expected /= expected.sum()
    generator = np.random.default_rng(0)
    drawn = [next(model.generate("a", 1, temperature=0.7, seed=generator)) for _ in range(3000)]
    counts = np.array([drawn.count(character) for character in model.characters])
    deviations = np.abs(counts - 3000 * expected) / np.sqrt(3000 * expected * (1 - expected))
    assert deviations.max() < 5


def test_writing_is_greedy_as_the_temperature_falls_to_zero() -> None:
    model = small_model()
    greedy = "".join(model.generate("sat", 40, temperature=0))
    text = "sat"
    for character in greedy:
        assert character == model.characters[plain_logits(model, text + "?")[-1].argmax()]
        text += character
    for temperature in (1e-4, 1e-300, 5e-324):
        assert "".join(model.generate("sat", 40, temperature=temperature, seed=1)) == greedy


def test_a_prompt_may_be_empty_or_unknown() -> None:
    model = small_model()
    assert len("".join(model.generate("", 5, seed=0))) == 5
    assert len("".join(model.generate("合\ud800", 5, seed=0))) == 5
    assert "".join(model.generate("the", 0)) == ""


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((b"the", 3), {}, "prompt"),
        (("the", -1), {}, "length"),
        (("the", 3), {"temperature": -1}, "temperature"),
        (("the", 3), {"temperature": math.nan}, "temperature"),
        (("the", 3), {"seed": -1}, "seed"),
    ],
)
def test_wrong_arguments_of_generate_raise_at_the_call(
    arguments: tuple, options: dict, message: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        small_model().generate(*arguments, **options)


# --- text and ids ---------------------------------------------------------------------------------


def test_encode_and_decode_are_inverse_on_known_text() -> None:
    model = small_model(CHINESE + ENGLISH + "😀")
    text = "合久必分😀 the\n"
    assert model.decode(model.encode(text)) == text
    assert model.encode("").tolist() == []
    assert model.decode(model.encode("a§c")) == "a\N{REPLACEMENT CHARACTER}c"


def test_ids_are_places_in_the_vocabulary_in_any_order() -> None:
    model = CharacterModel("zaß合b", hidden_size=2, rng=0)
    assert model.encode("abzß合c\ud800").tolist() == [1, 4, 0, 2, 3, 5, 5]


@pytest.mark.parametrize(
    ("characters", "error"), [("", ValueError), ("aba", ValueError), (b"ab", TypeError),
                              ("a\ud800", ValueError)],
)  # fmt: skip
def test_a_vocabulary_is_distinct_characters(characters: str, error: type[Exception]) -> None:
    with pytest.raises(error, match="characters: expected"):
        CharacterModel(characters)


# --- batches --------------------------------------------------------------------------------------


@pytest.mark.parametrize("characters", [2, 9, 65, 66, 100, 1000])
@pytest.mark.parametrize(("batch", "steps"), [(1, 1), (3, 7), (8, 64), (1, 2000)])
def test_windows_go_on_where_the_ones_before_ended(characters: int, batch: int, steps: int) -> None:
    ids = np.arange(characters)
    if characters < batch + 1:
        with pytest.raises(ValueError, match="ids: expected at least"):
            StreamBatches(ids, batch, steps)
        return
    batches = StreamBatches(ids, batch, steps)
    inputs, targets = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    assert_same_bits(targets, inputs + 1)
    assert (np.diff(inputs, axis=0) == 1).all()
    # The streams in a row are the text, less a rest shorter than the number of streams.
    assert_same_bits(inputs.T.reshape(-1), ids[: inputs.size])
    assert 0 <= characters - 1 - inputs.size < batch
    assert batches.characters == inputs.size
    lengths = {len(window) for window, _ in batches}
    assert max(lengths) <= steps
    assert max(lengths) - min(lengths) <= 1


def test_batches_are_a_sequence() -> None:
    batches = StreamBatches(np.arange(100), 2, 10)
    assert_same_bits(batches[-1][0], batches[len(batches) - 1][0])
    assert len(batches[1:3]) == 2
    with pytest.raises(IndexError):
        batches[len(batches)]
    batches[0][0][:] = 0
    assert batches[0][0].any(), "a batch is a copy"


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_saved_model_is_the_same_to_the_bit(tmp_path: Path, dtype: type) -> None:
    model = small_model(CHINESE + ENGLISH, num_layers=2, dropout=0.25, dtype=dtype)
    model.save(tmp_path / "model.safetensors")
    loaded = CharacterModel.load(tmp_path / "model.safetensors")
    assert repr(loaded) == repr(model)
    assert loaded.characters == model.characters
    assert loaded.unknown_probability == model.unknown_probability
    for name, array in model.parameters().items():
        assert_same_bits(loaded.parameters()[name], array, name)
    assert loaded.bits_per_character(CHINESE) == model.bits_per_character(CHINESE)
    written = ["".join(m.generate("分久", 30, seed=4)) for m in (model, loaded)]
    assert written[0] == written[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 8}, "expected shape"),
        ({"hidden_size": 10**9}, "expected shape"),
        ({"num_layers": 2}, "lstm.weight_hh_l1"),
        ({"num_layers": 10**9}, "lstm.weight_hh_l"),
        ({"characters": "ab"}, "expected shape"),
        ({"characters": ["a"]}, "characters"),
        ({"dropout": 2.0}, "dropout"),
        ({"unknown_probability": 0.0}, "unknown_probability"),
        ({"dtype": "int8"}, "dtype"),
        ({"dtype": "float64"}, "float"),
        ({"further": 1}, "further"),
        ({"dropout": None}, "dropout"),
    ],
)
def test_a_header_that_does_not_fit_its_arrays_is_refused(
    tmp_path: Path, change: dict, message: str
) -> None:
    model = small_model()
    path = tmp_path / "model.safetensors"
    model.save(path)
    file = storage.load(path)
    storage.save(path, "language-model", file.arrays, file.header | change)
    with pytest.raises(FormatError, match=message):
        CharacterModel.load(path)


def test_arrays_that_are_missing_or_of_another_shape_are_refused(tmp_path: Path) -> None:
    model = small_model()
    path = tmp_path / "model.safetensors"
    model.save(path)
    file = storage.load(path)
    for name, array in file.arrays.items():
        rest = {k: v for k, v in file.arrays.items() if k != name}
        for arrays in (rest, rest | {name: array[:-1]}, rest | {name: array.astype(np.float64)}):
            storage.save(path, "language-model", arrays, file.header)
            with pytest.raises(FormatError, match=name):
                CharacterModel.load(path)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    storage.save(tmp_path / "lstm", "lstm", {}, {})
    with pytest.raises(FormatError, match="language-model"):
        CharacterModel.load(tmp_path / "lstm")
    with pytest.raises(FileNotFoundError):
        CharacterModel.load(tmp_path / "nothing")


# --- corpus ---------------------------------------------------------------------------------------


def test_a_corpus_is_read_as_text(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"\xef\xbb\xbf" + CHINESE.encode() + b"two\r\nthree\rfour\n")
    assert read_corpus(path) == CHINESE + "two\nthree\rfour\n"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b" \r\n\t", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"caf\xe9 au lait", r"no UTF-8 text \(byte 0xe9 at offset 3\)"),
        ("text".encode("utf-16"), "no UTF-8 text"),
        ("text".encode("utf-16-le"), r"binary \(a NUL at offset 1\)"),
        ("合".encode()[:2], "no UTF-8 text"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(CorpusError, match=message) as caught:
        read_corpus(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_no_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no such file"):
        read_corpus(tmp_path / "nothing")
    with pytest.raises(CorpusError, match="is a folder"):
        read_corpus(tmp_path)


def test_the_default_corpus_is_pythons_manual() -> None:
    text = default_corpus()
    assert text.startswith('The "assert" statement\n')
    assert len(text) > 400_000


def test_the_last_twentieth_is_held_out() -> None:
    text = "".join(chr(48 + k) for k in range(1039))
    training, held_out = split_corpus(text)
    assert training + held_out == text
    assert len(held_out) == 51
