"""Files of torch's weights: read with and without torch; FormatError for whatever is none."""

from __future__ import annotations

import json
import pickle
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

import fastlstm
from fastlstm import LSTM
from fastlstm.interop.torch import from_file, read_state_dict
from fastlstm.storage import FormatError
from tests.processes import run_python
from tests.support import Array, assert_close, assert_same_bits, tolerance_of

WITNESSES = Path(__file__).parent.parent / "witnesses" / "torch"
NAMES = ["stacked", "bare", "projected"]
STATE = LSTM(3, 4, rng=0).state_dict()


def stored(name: str) -> dict[str, Array]:
    with np.load(WITNESSES / f"{name}.npz") as arrays:
        return dict(arrays)


def read(path: str | Path, name: str, prefix: str) -> LSTM:
    lstm = from_file(path, prefix=prefix, batch_first=name == "projected")
    assert isinstance(lstm, LSTM)
    return lstm


def assert_is_stored(lstm: LSTM, name: str) -> None:
    """Parameters to the bit, results as torch had them."""
    expected = stored(name)
    for key, array in lstm.state_dict().items():
        assert_same_bits(array, expected[key], key)
    output, (h_n, c_n) = lstm(expected["x"])
    for key, array in {"output": output, "h_n": h_n, "c_n": c_n}.items():
        assert_close(array, expected[key], tolerance_of(lstm.dtype), key)


# --- what torch wrote -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_safetensors(name: str) -> None:
    path = WITNESSES / f"{name}.safetensors"
    assert_is_stored(read(path, name, prefix="encoder.rnn"), name)
    lstm = read(str(path), name, prefix="encoder.rnn.")
    assert lstm.batch_first is (name == "projected")


@pytest.mark.oracle
@pytest.mark.parametrize("name", NAMES)
def test_torchs_own_format(name: str) -> None:
    pytest.importorskip("torch")
    path = WITNESSES / f"{name}.pt"
    assert_is_stored(read(path, name, prefix="model.encoder.rnn"), name)
    state = read_state_dict(path, prefix="model.")
    expected = safetensors.numpy.load_file(WITNESSES / f"{name}.safetensors")
    assert state.keys() == expected.keys()
    for key, array in expected.items():
        assert_same_bits(state[key], array, key)


@pytest.mark.oracle
def test_torchs_format_of_before_1_6(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    state = {name: torch.from_numpy(array) for name, array in STATE.items()}
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for name, array in from_file(tmp_path / "old.pth").state_dict().items():
        assert_same_bits(array, STATE[name], name)


def test_safetensors_need_no_torch() -> None:
    path = WITNESSES / "stacked.safetensors"
    run_python(
        "-c",
        "import sys; sys.modules['torch'] = None\n"
        "from fastlstm.interop.torch import from_file, from_torch, read_state_dict\n"
        f"lstm = from_file({str(path)!r}, prefix='encoder.rnn')\n"
        f"assert from_torch(read_state_dict({str(path)!r}), prefix='encoder.rnn').num_layers == 2\n"
        "assert lstm.num_layers == 2",
    )


def test_without_torch_an_error_says_how_to_convert(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"pip install 'fastlstm\[torch\]'.*save_file.*tensors'"):
        from_file(WITNESSES / "bare.pt")


@pytest.mark.oracle
def test_a_torch_that_runs_code_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch, "__version__", "2.5.1+cpu")
    with pytest.raises(ImportError, match=r"torch 2.5.1\+cpu is not safe"):
        from_file(WITNESSES / "bare.pt")


def test_all_arrays_of_a_file() -> None:
    path = WITNESSES / "stacked.safetensors"
    everything = read_state_dict(path)
    assert {"encoder.embedding.weight", "head.bias"} < everything.keys()
    head = read_state_dict(path, prefix="head.")
    assert head.keys() == {"weight", "bias"}
    assert_same_bits(head["weight"], everything["head.weight"])


def test_our_own_files_are_such_files(tmp_path: Path) -> None:
    lstm = LSTM(3, 4, 2, rng=0)
    fastlstm.save(lstm, tmp_path / "ours.safetensors")
    read = from_file(tmp_path / "ours.safetensors")
    assert read.get_config() == lstm.get_config()


# --- what does not fit ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefix", "said"),
    [
        ("", r"stacked.safetensors: state_dict: expected .*; there is .* prefix='encoder.rnn.'"),
        ("encoder.run", r"under 'encoder.run.'.*; there is an LSTM under prefix='encoder.rnn.'"),
        ("head", r"found 'head.(weight|bias)', 'head"),
    ],
)
def test_the_lstms_of_a_file_are_named(prefix: str, said: str) -> None:
    with pytest.raises(FormatError, match=said):
        from_file(WITNESSES / "stacked.safetensors", prefix=prefix)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({k: v.astype(np.float16) for k, v in STATE.items()}, "expected float32 .*got float16"),
        ({**STATE, "bias_ih_l0": np.ones(16)}, "'bias_ih_l0'.*float32, got float64"),
        ({**STATE, "bias_ih_l0": np.ones(15, np.float32)}, r"\(16,\), got \(15,\)"),
        ({**STATE, "weight_ih_l0": np.ones((16, 0), np.float32)}, "input_size"),
        ({}, "found none"),
    ],
)
def test_arrays_that_do_not_fit(arrays: dict[str, Array], said: str, tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    safetensors.numpy.save_file(arrays, path)
    with pytest.raises(FormatError, match=said):
        from_file(path)


def test_dtypes_that_numpy_lacks(tmp_path: Path) -> None:
    table = {"weight_ih_l0": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}
    text = json.dumps(table).encode()
    path = tmp_path / "file.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
    with pytest.raises(FormatError, match="'weight_ih_l0' is BF16, which NumPy lacks"):
        read_state_dict(path)


def test_other_files(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(FileNotFoundError):
        from_file(path)
    with pytest.raises(IsADirectoryError):
        from_file(tmp_path)
    whole = (WITNESSES / "bare.safetensors").read_bytes()
    for content in (b"", b"{}", b"A text", bytes(100), whole[:9], whole[:-1], whole + b"x"):
        path.write_bytes(content)
        with pytest.raises(FormatError, match=str(path)):
            from_file(path, prefix="encoder.rnn")


# --- files that mean harm -------------------------------------------------------------------------


@pytest.fixture(name="save")
def _save(tmp_path: Path) -> Callable[[object], Path]:
    torch = pytest.importorskip("torch")

    def save(content: object) -> Path:
        torch.save(content, tmp_path / "file.pt")
        return tmp_path / "file.pt"

    return save


@pytest.mark.oracle
def test_a_whole_module_is_refused(save: Callable[[object], Path]) -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(FormatError, match=r"expected the state_dict\(\) of a module"):
        from_file(save(torch.nn.LSTM(2, 3)))


class Harm:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("harm"),)


@pytest.mark.oracle
def test_no_code_is_run(
    save: Callable[[object], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bare").write_bytes(pickle.dumps({"weight_ih_l0": Harm()}, protocol=2))
    for path in (save({"weight_ih_l0": Harm()}), tmp_path / "bare"):
        with pytest.raises(FormatError):
            from_file(path)
    assert not (tmp_path / "harm").exists()


def peak_of(call: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        with pytest.raises(FormatError):
            call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.oracle
def test_strides_do_not_make_memory(save: Callable[[object], Path]) -> None:
    torch = pytest.importorskip("torch")
    one = torch.zeros(1)
    path = save(
        {"weight_ih_l0": one.expand(40_000, 30_000), "weight_hh_l0": one.expand(40_000, 10_000)}
    )
    assert peak_of(lambda: from_file(path)) < 10_000_000
    assert peak_of(lambda: read_state_dict(path)) < 10_000_000


@pytest.mark.oracle
def test_a_compressed_archive_is_refused(save: Callable[[object], Path], tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    packed = tmp_path / "packed.pt"
    with (
        zipfile.ZipFile(save({"weight_ih_l0": torch.zeros(10_000)})) as source,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(FormatError, match="a compressed archive"):
        from_file(packed)


@pytest.mark.oracle
def test_dicts_within_themselves_and_beside_other_things(save: Callable[[object], Path]) -> None:
    torch = pytest.importorskip("torch")
    state = {name: torch.from_numpy(array) for name, array in STATE.items()}
    content: dict[Any, Any] = {"rnn": state, "epoch": 3, 5: {"x": torch.ones(2)}, "name": "a"}
    content["self"] = content
    lstm = from_file(save(content), prefix="rnn")
    assert_same_bits(lstm.weight_hh_l0, STATE["weight_hh_l0"])
    for other in ([1, 2], torch.ones(3), 5):
        with pytest.raises(FormatError, match="expected a dict"):
            from_file(save(other))


@pytest.mark.oracle
@pytest.mark.parametrize("kind", ["bfloat16", "float16", "sparse", "meta"])
def test_tensors_that_numpy_lacks(save: Callable[[object], Path], kind: str) -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.ones(16, 3)
    made = {
        "bfloat16": lambda: tensor.bfloat16(),
        "float16": lambda: tensor.half(),
        "sparse": lambda: tensor.to_sparse(),
        "meta": lambda: tensor.to("meta"),
    }
    state: dict[str, Any] = {name: torch.from_numpy(array) for name, array in STATE.items()}
    path = save({**state, "weight_ih_l0": made[kind]()})
    with pytest.raises(FormatError, match="'weight_ih_l0'"):
        from_file(path)


def mutated(content: bytes, edits: list[tuple[int, int]], cut: int) -> bytes:
    changed = bytearray(content)
    for position, value in edits:
        changed[position % len(changed)] = value
    return bytes(changed[: len(changed) - cut % 50 if cut % 3 == 0 else None])


EDITS = st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), max_size=4)


@settings(max_examples=300, deadline=None)
@given(edits=EDITS, cut=st.integers(0, 1000))
def test_mutated_safetensors(
    edits: list[tuple[int, int]], cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert_read_or_refused(tmp_path_factory, "bare.safetensors", edits, cut, "encoder.rnn")


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")  # torch warns of some
@settings(max_examples=300, deadline=None)
@given(edits=EDITS, cut=st.integers(0, 1000))
def test_mutated_files_of_torchs(
    edits: list[tuple[int, int]], cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    pytest.importorskip("torch")
    assert_read_or_refused(tmp_path_factory, "bare.pt", edits, cut, "model.encoder.rnn")


def assert_read_or_refused(
    factory: pytest.TempPathFactory, name: str, edits: list[tuple[int, int]], cut: int, prefix: str
) -> None:
    path = factory.getbasetemp() / f"mutated-{name}"
    path.write_bytes(mutated((WITNESSES / name).read_bytes(), edits, cut))
    try:
        lstm = from_file(path, prefix=prefix)
    except FormatError:
        return
    assert lstm.hidden_size == 6, "what was read has the sizes of what was written"
