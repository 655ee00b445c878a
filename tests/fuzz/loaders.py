"""What is fed, and with what: for each loader, files that it takes, and changes that fit them."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import safetensors.numpy

import fastlstm
from fastlstm import checkpoints, storage
from fastlstm.interop import keras, onnx, torch
from fastlstm.storage import FormatError
from fastlstm.tasks import LanguageModel, SequenceClassifier, SequenceRegressor, SequenceTagger
from fastlstm.tasks.forecasting.forecaster import Forecaster
from fastlstm.tasks.recognition.recognizer import SequenceRecognizer
from tests.fuzz.mutations import mutate
from tests.fuzz.structures import (
    dump,
    mutate_json,
    mutate_member,
    mutate_message,
    mutate_ours,
    mutate_table,
)
from tests.support import Array

WITNESSES = Path(__file__).parent.parent / "witnesses"
HDF5_LANDMARKS = (
    b"\x89HDF", b"TREE", b"HEAP", b"SNOD", b"GCOL", b"OHDR", b"OCHK", b"FRHP", b"\x01\x00",
    b"lstm", b"vars", b"kernel", b"layers", b"\x11\x20", b"\xff" * 8,
)  # fmt: skip

Change = Callable[[random.Random, bytes, Sequence[bytes]], bytes]


@dataclass(frozen=True)
class Loader:
    """One loader.

    `multiple` is what its documentation promises: memory, in bytes for each byte of the file.
    """

    seeds: Callable[[], list[bytes]]
    change: Change
    load: Callable[[Path], None]
    multiple: int
    suffix: str = ""
    package: str = "safetensors"
    library_may_die: bool = False  # of C that is not ours


# --- files that are right -------------------------------------------------------------------------


def _written(write: Callable[[Path], None]) -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        write(path)
        return path.read_bytes()


def _kept(pattern: str, *, but: str = "") -> list[bytes]:
    paths = [path for path in sorted(WITNESSES.glob(pattern)) if path.name != but]
    return [path.read_bytes() for path in paths]


def _lstm_seeds() -> list[bytes]:
    layers = [
        fastlstm.LSTM(2, 3, rng=0),
        fastlstm.LSTM(3, 4, 2, bidirectional=True, dropout=0.5, dtype=np.float64, rng=0),
        fastlstm.LSTM(3, 4, proj_size=2, zoneout=0.1, rng=0),
        fastlstm.LSTM(3, 4, peepholes=True, clip=1.0, activations=("relu", ("elu", 0.5), "tanh"),
                      rng=0),
        fastlstm.LSTM(3, 4, layer_norm=True, reverse=True, rng=0),
    ]  # fmt: skip
    large = fastlstm.LSTM(64, 128, rng=0)
    return [_written(partial(fastlstm.save, layer)) for layer in [*layers, large]] + _kept(
        "saved/lstm*.safetensors", but="lstm-cell.safetensors"
    )


def _language_model_seeds() -> list[bytes]:
    text = "añ日😀 ab ab\nab\n"
    sizes = {"embedding_size": 3, "hidden_size": 3, "steps": 1, "random_state": 0}
    options: list[dict[str, Any]] = [
        {},
        {"tied": True, "num_layers": 2, "dropout": 0.5},
        {"level": "word", "cell": "rnn"},
        {"level": "whitespace", "tied": True, "weight_dropout": 0.5},
        {"level": "subword", "max_vocabulary": 257},
    ]
    models = [LanguageModel(**sizes, **some).fit(text) for some in options]
    kept = _kept("language_models/*.safetensors")
    return [_written(model.save) for model in models] + kept


def _text_classifier_seeds() -> list[bytes]:
    from fastlstm.tasks import TextClassifier

    small: dict[str, Any] = {
        "embedding_size": 2, "epochs": 1, "validation_fraction": 0, "random_state": 0,
    }  # fmt: skip
    texts = ["a good one", "bad, too", "日本"] * 2
    models = [
        TextClassifier(2, pooling="max", **small).fit(texts, ["pos", "neg", "neg"] * 2),
        TextClassifier(3, level="subword", max_vocabulary=260, num_layers=2, **small).fit(
            texts, [0, 1, 2] * 2
        ),
        TextClassifier(
            3, level="char", train_vectors=False, pooling="attention", cell="rnn",
            class_weight={"a": 2.0}, **small,
        ).fit(texts, ["a", "b", "b"] * 2),
    ]  # fmt: skip
    return [_written(model.save) for model in models]


def _translator_seeds() -> list[bytes]:
    from fastlstm.tasks import Translator

    small: dict[str, Any] = {
        "embedding_size": 2, "epochs": 1, "validation_fraction": 0, "random_state": 0,
    }  # fmt: skip
    sources, targets = ["a good one", "bad, too", "日本"], ["一", "to , bad", "japan"]
    models = [
        Translator(2, level="word", **small).fit(sources, targets),
        Translator(2, max_vocabulary=260, joint_vocabulary=True, num_layers=2, **small).fit(
            sources, targets
        ),
        Translator(
            3, level="char", cell="rnn", bidirectional=False, attention="additive", **small
        ).fit(sources, targets),
    ]
    return [_written(model.save) for model in models]


def _forecaster_seeds() -> list[bytes]:
    import pandas

    options: dict[str, Any] = {
        "horizon": 2, "lookback": 3, "patch_length": 2, "hidden_size": 2, "epochs": 1,
        "random_state": 0,
    }  # fmt: skip
    y = np.sin(np.arange(40.0))
    dates = pandas.date_range("2024-01-01", periods=40, freq="h", tz="Europe/Rome")
    frame = pandas.DataFrame({"load": y, "oil": -y}, dates)
    forecasters = [
        Forecaster(**options).fit(y),
        Forecaster(**options, quantiles=None, num_layers=2, cell="rnn").fit([y, 3 * y[:30]]),
        Forecaster(**options, mixing=True, calendar=("hour", "weekend")).fit(frame, y),
        Forecaster(**options).fit(
            pandas.Series(y, pandas.period_range("2024", periods=40, freq="M"))
        ),
        Forecaster(**options).fit(pandas.Series(y, name=3)),
    ]
    return [_written(forecaster.save) for forecaster in forecasters]


def _checkpoint_seeds() -> list[bytes]:
    parameters: dict[str, Array] = {"w": np.ones((2, 3), np.float32), "b": np.zeros(2)}
    runs = [
        checkpoints.Run(checkpoints.new_rng(0)),
        checkpoints.Run(
            checkpoints.new_rng(1), batches=2, epoch=1, index=0, carried=(np.zeros(3),),
            history=checkpoints.History([1.0, 0.5], [(2, 0.5)]), best=0.5,
            best_parameters=parameters, waited=1,
        ),
    ]  # fmt: skip

    def write(run: checkpoints.Run, path: Path) -> None:
        checkpoints.save(path, parameters, {"step": np.array(3)}, run, {"sizes": [1, 2]})

    return [_written(partial(write, run)) for run in runs]


def _recognizer_seeds() -> list[bytes]:
    X = [np.tile(np.eye(2, dtype=np.float32), (3, 1)), np.zeros((4, 2), np.float32)]
    seeds = []
    for y, options in (
        (["ab", ""], {}),
        ([[1, "one", 0.5], [True]], {"num_layers": 2, "stack": 2, "bidirectional": False}),
        (["añ", "日"], {"cell": "rnn", "ngram_order": 1}),
    ):
        recognizer = SequenceRecognizer(
            3, epochs=1, validation_fraction=0.0, random_state=0, **options
        )
        seeds.append(_written(recognizer.fit(X, y).save))
    return seeds


def _sequence_estimator_seeds(make: Any, *many: tuple[Any, dict[str, Any]]) -> list[bytes]:
    """Of targets for three sequences of two features, and of further arguments."""
    X = [np.eye(2, dtype=np.float32), np.zeros((1, 2)), np.ones((3, 2))]
    seeds = []
    for y, options in many:
        settings = {"epochs": 1, "validation_fraction": 0.0, "random_state": 0, **options}
        seeds.append(_written(make(2, **settings).fit(X, y).save))
    return seeds


def _sequence_classifier_seeds() -> list[bytes]:
    return _sequence_estimator_seeds(
        SequenceClassifier,
        (["a", "b", "a"], {"class_weight": {"a": 2.0}}),
        ([3, 1, 2], {"pooling": "attention", "num_layers": 2}),
        ([True, False, True], {"pooling": "max", "cell": "rnn", "bidirectional": False}),
    )


def _sequence_regressor_seeds() -> list[bytes]:
    return _sequence_estimator_seeds(
        SequenceRegressor,
        ([1.0, 2.0, 3.0], {}),
        ([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], {"pooling": "last", "cell": "rnn"}),
    )


def _sequence_tagger_seeds() -> list[bytes]:
    return _sequence_estimator_seeds(
        SequenceTagger,
        ([["a", "b"], ["日"], ["a", "b", "a"]], {"class_weight": "balanced"}),
        ([[0, 1], [1], [1, 2, 0]], {"cell": "rnn", "num_layers": 2}),
    )


def _safetensors_seeds() -> list[bytes]:
    states = [
        fastlstm.LSTM(2, 3, rng=0).state_dict(),
        fastlstm.LSTM(3, 4, 2, bidirectional=True, dtype=np.float64, rng=0).state_dict(),
        {f"rnn.{k}": v for k, v in fastlstm.LSTM(2, 3, bias=False, rng=0).state_dict().items()},
        fastlstm.LSTM(64, 128, rng=0).state_dict(),
    ]
    return [safetensors.numpy.save(state) for state in states] + _kept("torch/*.safetensors")


def _pt_seeds() -> list[bytes]:
    import torch

    def saved(content: object, **options: bool) -> bytes:
        target = io.BytesIO()
        torch.save(content, target, **options)
        return target.getvalue()

    state = torch.nn.LSTM(2, 3, 2).state_dict()
    for k, tensor in enumerate(state.values()):
        tensor[...] = torch.linspace(-1, 1 + k, tensor.numel()).reshape(tensor.shape)
    return [
        saved(state),
        saved({"rnn": dict(state), "epoch": 3}),
        saved(state, _use_new_zipfile_serialization=False),
        *_kept("torch/*.pt"),
    ]


# --- changes --------------------------------------------------------------------------------------


def _change_ours(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    kind = rng.random()
    if kind < 0.6:
        return mutate_ours(rng, content)
    return _change_safetensors(rng, content, others)


def _change_safetensors(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    if rng.random() < 0.6:
        return mutate_table(rng, content)
    return mutate(rng, content, others)


def _change_pt(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    def change(_: str, member: bytes) -> bytes:
        return mutate(rng, member, [other[:200] for other in others])

    if content.startswith(b"PK") and rng.random() < 0.7:
        return mutate_member(rng, content, change)
    return mutate(rng, content, others, (b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"))


def _change_onnx(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    if rng.random() < 0.85:
        for _ in range(rng.choice([1, 1, 2, 3])):
            content = mutate_message(rng, content, others)
        return content
    return mutate(rng, content, others)


def _change_hdf5(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    start = content.find(b'{"')  # a configuration, in files of Keras 2
    if start >= 0 and rng.random() < 0.2:
        changed = _change_json_in_place(rng, content, start)
        if changed is not None:
            return changed
    return mutate(rng, content, others, HDF5_LANDMARKS)


def _change_json_in_place(rng: random.Random, content: bytes, start: int) -> bytes | None:
    """Another JSON text where one stands, if it is no longer; blanks fill the rest."""
    text = content[start:].split(b"\0", 1)[0]
    try:
        value, length = json.JSONDecoder().raw_decode(text.decode())
    except ValueError:
        return None
    changed = dump(mutate_json(rng, value))
    if len(changed) > length:
        return None
    return content[:start] + changed.ljust(length) + content[start + length :]


def _change_keras(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    def change(name: str, member: bytes) -> bytes:
        if name.endswith(".json") and rng.random() < 0.9:
            return dump(mutate_json(rng, json.loads(member)))
        return mutate(rng, member, [], HDF5_LANDMARKS if name.endswith(".h5") else ())

    if rng.random() < 0.85:
        return mutate_member(rng, content, change)
    return mutate(rng, content, others, (b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"))


# --- loading --------------------------------------------------------------------------------------


def _use(layer: fastlstm.LSTM | fastlstm.LSTMCell) -> None:
    """What has been loaded runs, if it is not too large for 100,000 times."""
    if sum(array.size for array in layer.parameters().values()) < 100_000:
        batched = isinstance(layer, fastlstm.LSTM) and not layer.batch_first
        shape = (2, 1) if batched else (1,)
        with np.errstate(all="ignore"):
            layer(np.ones((*shape, layer.input_size), layer.dtype))


def _load_lstm(path: Path) -> None:
    _use(fastlstm.load(path))


def _load_text_classifier(path: Path) -> None:
    from fastlstm.tasks import TextClassifier

    classifier = TextClassifier.load(path)
    with np.errstate(all="ignore"):
        classifier.predict(["a good one", "", "日本 😀"])


def _load_translator(path: Path) -> None:
    from fastlstm.tasks import Translator

    translator = Translator.load(path)
    parameters = translator.network_.parameters().values()
    finite = all(np.isfinite(array).all() for array in parameters)
    # A translation may be as long as the file says.
    if finite and sum(array.size for array in parameters) < 10_000 and translator.length_ratio_ < 9:
        with np.errstate(all="ignore"):
            translator.translate(["a good one", "", "日本 😀"], beam_size=2, length_penalty=1)


def _load_sequence_estimator(make: Any, path: Path) -> None:
    estimator = make.load(path)
    sizes = [array.size for array in estimator.network_.parameters().values()]
    if sum(sizes) < 100_000:
        with np.errstate(all="ignore"):
            estimator.predict([np.zeros((3, estimator.n_features_in_)), []])


def _load_forecaster(path: Path) -> None:
    forecaster = Forecaster.load(path)
    size = sum(array.size for array in forecaster.network_.parameters().values())
    # What has dates would have pandas open files of time zones.
    if size < 10_000 and all(index is None for index in forecaster._memory.indices):
        forecaster.predict()


def _load_torch(path: Path) -> None:
    try:
        names = torch.read_state_dict(path)
    except ImportError as error:
        # What begins as a .pt file does is torch's to read, and where torch is not, that is said.
        if error.name != "torch":
            raise
        raise FormatError(f"{path}: {error}") from None
    prefixes = (name.removesuffix("weight_ih_l0") for name in names if "weight_ih_l0" in name)
    _use(torch.from_file(path, prefix=next(prefixes, "").rstrip(".")))


def _load_onnx(path: Path) -> None:
    model = onnx.load(path, memory_limit=2**24)
    feeds, total = _feeds(model), 0
    for array in feeds.values():
        total += array.size
    if total < 10_000:
        model.run(feeds)


def _feeds(model: onnx.Model) -> dict[str, Array]:
    """Zeros for every input; sizes that the model leaves open are 2."""
    feeds = {}
    for wanted in model.inputs:
        shape = [2 if isinstance(size, str) else size for size in wanted.shape]
        if np.prod(shape, dtype=float) >= 10_000:
            return {wanted.name: np.empty(10_000)}  # too large to run
        feeds[wanted.name] = np.zeros(shape, wanted.dtype)
    return feeds


def _read_onnx(path: Path) -> None:
    for layer in onnx.read_lstms(path).values():
        _use(layer)


def _load_keras(path: Path) -> None:
    for layer in keras.load(path).values():
        _use(layer)


def _load_language_model(path: Path) -> None:
    model = LanguageModel.load(path)
    if sum(array.size for array in model.network_.parameters().values()) < 100_000:
        with np.errstate(all="ignore"):
            model.log_prob("ab 日\n")


LOADERS: dict[str, Loader] = {
    "lstm": Loader(_lstm_seeds, _change_ours, _load_lstm, 64),
    "language-model": Loader(
        _language_model_seeds, _change_ours, _load_language_model, 64, package="sklearn"
    ),
    "sequence-recognizer": Loader(
        _recognizer_seeds, _change_ours,
        lambda path: void(SequenceRecognizer.load(path)), 64, package="sklearn",
    ),
    "translator": Loader(
        _translator_seeds, _change_ours, _load_translator, 64, package="sklearn"
    ),
    "sequence-classifier": Loader(
        _sequence_classifier_seeds, _change_ours,
        partial(_load_sequence_estimator, SequenceClassifier), 64, package="sklearn",
    ),
    "sequence-regressor": Loader(
        _sequence_regressor_seeds, _change_ours,
        partial(_load_sequence_estimator, SequenceRegressor), 64, package="sklearn",
    ),
    "sequence-tagger": Loader(
        _sequence_tagger_seeds, _change_ours,
        partial(_load_sequence_estimator, SequenceTagger), 64, package="sklearn",
    ),
    "text-classifier": Loader(
        _text_classifier_seeds, _change_ours, _load_text_classifier, 64, package="sklearn"
    ),
    "forecaster": Loader(_forecaster_seeds, _change_ours, _load_forecaster, 64, package="pandas"),
    "checkpoint": Loader(
        _checkpoint_seeds, _change_ours, lambda path: void(checkpoints.load(path)), 64
    ),
    "storage": Loader(
        lambda: _lstm_seeds() + _language_model_seeds() + _checkpoint_seeds(),
        _change_ours, lambda path: void(storage.load(path)), 64,
    ),
    "torch-safetensors": Loader(_safetensors_seeds, _change_safetensors, _load_torch, 64),
    "torch-pt": Loader(_pt_seeds, _change_pt, _load_torch, 64, ".pt", "torch"),
    "onnx": Loader(partial(_kept, "onnx/*.onnx"), _change_onnx, _load_onnx, 64, ".onnx", "onnx"),
    "onnx-lstms": Loader(
        partial(_kept, "onnx/*.onnx"), _change_onnx, _read_onnx, 64, ".onnx", "onnx"
    ),
    "keras": Loader(
        partial(_kept, "keras/*.keras"), _change_keras, _load_keras, 64, ".keras", "h5py", True
    ),
    "keras-weights": Loader(
        partial(_kept, "keras/*.weights.h5"), _change_hdf5, _load_keras, 64, ".h5", "h5py", True
    ),
    "keras-legacy": Loader(
        lambda: [path.read_bytes() for path in sorted((WITNESSES / "keras").glob("*.h5"))
                 if not path.name.endswith(".weights.h5")],
        _change_hdf5, _load_keras, 64, ".h5", "h5py", True,
    ),
}  # fmt: skip


def void(_: object) -> None:
    """Loaded is all that it should be."""
