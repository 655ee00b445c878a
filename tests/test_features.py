"""Features of sound and of handwriting: beside torchaudio's, by laws, and on bad input."""

from __future__ import annotations

import struct
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.io import wavfile

from fastlstm.tasks.features import log_mel, mfcc, normalise, read_wav, strokes
from tests.processes import run_python
from tests.support import Array

STORED = np.load(Path(__file__).with_name("witnesses") / "speech.npz", allow_pickle=False)
CASES = range(len(STORED["cases"]))


def tone(rate: int = 8000, seconds: float = 0.5, pitch: float = 440) -> Array:
    return 0.5 * np.sin(2 * np.pi * pitch * np.arange(round(rate * seconds)) / rate)


def write_pcm(path: Path, samples: Array, width: int, rate: int = 8000, channels: int = 1) -> None:
    """By the standard library's wave, from samples that are whole numbers."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        if width == 1:
            file.writeframes((samples + 128).astype(np.uint8).tobytes())
        else:
            wide = np.ascontiguousarray(samples.ravel().astype("<i4")).view(np.uint8)
            file.writeframes(wide.reshape(-1, 4)[:, :width].tobytes())


# --- WAV files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_full_scale_is_one_at_every_width(tmp_path: Path, width: int) -> None:
    top = 2 ** (8 * width - 1)
    whole = np.array([0, 1, -1, top // 2, -top // 2, top - 1, -top])
    write_pcm(tmp_path / "a.wav", whole, width)
    samples, rate = read_wav(tmp_path / "a.wav")
    assert rate == 8000
    assert samples.dtype == np.float32
    np.testing.assert_array_equal(samples, (whole / top).astype(np.float32))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floating_point_samples_stand_as_they_are(tmp_path: Path, dtype: Any) -> None:
    wavfile.write(tmp_path / "a.wav", 44100, tone().astype(dtype))
    samples, rate = read_wav(tmp_path / "a.wav")
    assert rate == 44100
    np.testing.assert_array_equal(samples, tone().astype(np.float32))


def test_another_rate_is_refused_or_converted(tmp_path: Path) -> None:
    wavfile.write(tmp_path / "a.wav", 44100, tone(44100))
    with pytest.raises(ValueError, match=r"a\.wav: expected 8000 samples per second, got 44100; r"):
        read_wav(tmp_path / "a.wav", rate=8000)
    samples, rate = read_wav(tmp_path / "a.wav", rate=8000, resample=True)
    assert rate == 8000
    assert len(samples) == 4000
    np.testing.assert_allclose(samples[200:-200], tone(8000)[200:-200], atol=2e-3)


def test_several_channels_are_refused_or_averaged(tmp_path: Path) -> None:
    left = np.array([100, 200, 300])
    write_pcm(tmp_path / "a.wav", np.column_stack([left, 3 * left]), 2, channels=2)
    with pytest.raises(ValueError, match=r"expected one channel, got 2; mono=True takes"):
        read_wav(tmp_path / "a.wav")
    samples, _ = read_wav(tmp_path / "a.wav", mono=True)
    np.testing.assert_array_equal(samples, (2 * left / 32768).astype(np.float32))


def test_chunks_of_other_programs_are_passed_over(tmp_path: Path) -> None:
    write_pcm(tmp_path / "a.wav", np.arange(5), 2)
    content = (tmp_path / "a.wav").read_bytes() + b"note" + struct.pack("<I", 4) + b"abcd"
    (tmp_path / "a.wav").write_bytes(
        content[:4] + struct.pack("<I", len(content) - 8) + content[8:]
    )
    assert len(read_wav(tmp_path / "a.wav")[0]) == 5


@pytest.mark.parametrize("left", [100, 41])
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, left: int) -> None:
    write_pcm(tmp_path / "a.wav", np.arange(500), 2)
    (tmp_path / "a.wav").write_bytes((tmp_path / "a.wav").read_bytes()[:left])
    with pytest.raises(ValueError, match=r"a\.wav: (is cut short|is no WAV file)"):
        read_wav(tmp_path / "a.wav")


@pytest.mark.parametrize("content", [b"", b"RIFF", b"RIFF....WAVE", b"OggS" + bytes(100), b"a,b\n"])
def test_what_is_no_wav_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.wav: is no WAV file that can be read: "):
        read_wav(tmp_path / "a.wav")


def test_any_damage_is_a_value_error(tmp_path: Path) -> None:
    write_pcm(tmp_path / "a.wav", np.arange(50), 3)
    content = (tmp_path / "a.wav").read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(content[: rng.integers(1, len(content) + 1)])
        for place in rng.integers(0, min(len(damaged), 60), rng.integers(1, 4)):
            damaged[place] = rng.integers(256)
        (tmp_path / "b.wav").write_bytes(damaged)
        try:
            samples, rate = read_wav(tmp_path / "b.wav", mono=True)
        except ValueError:
            refused += 1
        else:
            assert samples.ndim == 1
            assert np.isfinite(samples).all()
            assert rate > 0
    assert 150 < refused < 300


def test_no_samples_and_no_numbers_are_refused(tmp_path: Path) -> None:
    write_pcm(tmp_path / "a.wav", np.empty(0), 2)
    with pytest.raises(ValueError, match=r"a\.wav: has no samples"):
        read_wav(tmp_path / "a.wav")
    wavfile.write(tmp_path / "a.wav", 8000, np.array([0, np.nan, 1], np.float32))
    with pytest.raises(ValueError, match=r"a\.wav: expected finite samples, got a NaN"):
        read_wav(tmp_path / "a.wav")
    with pytest.raises(FileNotFoundError):
        read_wav(tmp_path / "b.wav")


# --- spectra --------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", CASES)
def test_log_mel_is_torchaudios(k: int) -> None:
    rate, bands, _, window, step, low, high = STORED["cases"][k].tolist()
    found = log_mel(
        STORED[f"samples{k}"], int(rate), bands=int(bands), window=window / 1000, step=step / 1000,
        low=low, high=high or None,
    )  # fmt: skip
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, STORED[f"log_mel{k}"], atol=1e-3)


@pytest.mark.parametrize("k", CASES)
def test_mfcc_and_their_speed_are_torchaudios(k: int) -> None:
    rate, bands, coefficients, window, step, low, high = STORED["cases"][k].tolist()
    options: dict[str, Any] = {
        "bands": int(bands), "window": window / 1000, "step": step / 1000, "low": low,
        "high": high or None, "coefficients": int(coefficients),
    }  # fmt: skip
    samples, expected = STORED[f"samples{k}"], STORED[f"mfcc{k}"]
    found = mfcc(samples, int(rate), deltas=1, **options)
    np.testing.assert_allclose(found, expected, atol=3e-3)
    alone = mfcc(samples, int(rate), deltas=0, **options)
    np.testing.assert_array_equal(alone, found[:, : int(coefficients)])
    twice = mfcc(samples, int(rate), deltas=2, **options)
    assert twice.shape == (len(found), 3 * int(coefficients))
    np.testing.assert_array_equal(twice[:, : found.shape[1]], found)


def test_acceleration_is_the_speed_of_speed_away_from_the_ends() -> None:
    features = mfcc(tone(seconds=0.4) * np.linspace(0, 1, 3200), 8000)
    speed, acceleration = features[:, 13:26], features[:, 26:]
    expected = (
        sum(j * (np.roll(speed, -j, axis=0) - np.roll(speed, j, axis=0)) for j in (1, 2)) / 10
    )
    np.testing.assert_allclose(acceleration[4:-4], expected[4:-4], atol=1e-3)


def test_a_louder_sound_is_shifted_in_every_band() -> None:
    rng = np.random.default_rng(0)
    sound = tone() + 0.1 * rng.standard_normal(4000)
    shift = log_mel(sound, 8000) - log_mel(sound / 10, 8000)
    np.testing.assert_allclose(shift, np.log(100), rtol=1e-4)


def test_a_tone_is_in_the_band_of_its_pitch() -> None:
    edges = 700 * (
        np.exp(np.linspace(*(1127 * np.log(1 + np.array([20, 4000]) / 700)), 42) / 1127) - 1
    )
    for pitch in (300, 1000, 3000):
        band = log_mel(tone(pitch=pitch), 8000).mean(axis=0).argmax()
        assert edges[band] < pitch < edges[band + 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bands": 2}, "bands: expected a whole number >= 3, got 2"),
        ({"bands": 300}, "bands: 300 are too many for a window of 25 ms"),
        ({"window": 0.0001}, "window: expected a finite number >= 0.00025, got 0.0001"),
        ({"step": 0.00001}, "step: expected a finite number >= 0.000125, got 1e-05"),
        ({"step": float("nan")}, "step: expected"),
        ({"low": -5.0}, "low, high: expected 0 <= low < high <= 4000, half the rate, got -5"),
        ({"high": 5000.0}, "low, high: expected 0 <= low < high <= 4000"),
        ({"low": 500.0, "high": 400.0}, "low, high: expected"),
    ],
)
def test_impossible_settings_are_refused(options: dict[str, Any], message: str) -> None:
    for extract in (log_mel, mfcc):
        with pytest.raises(ValueError, match=message):
            extract(tone(), 8000, **options)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (tone()[:199], "samples: expected at least a window of 200, got 199"),
        (np.empty(0), "samples: expected at least a window of 200, got 0"),
        (
            np.array([[0.0, 1.0]]),
            r"samples: expected floating-point numbers of shape \(N,\), got f",
        ),
        (np.arange(500), r"samples: expected floating-point numbers of shape \(N,\), got int64"),
        (np.array([0.0, np.nan] * 300), "samples: expected finite numbers, got a NaN"),
    ],
)
def test_impossible_samples_are_refused(samples: Array, message: str) -> None:
    for extract in (log_mel, mfcc):
        with pytest.raises(ValueError, match=message):
            extract(samples, 8000)


def test_counts_of_coefficients_and_deltas_have_bounds() -> None:
    with pytest.raises(ValueError, match="coefficients: expected"):
        mfcc(tone(), 8000, coefficients=24)
    with pytest.raises(ValueError, match="deltas: expected"):
        mfcc(tone(), 8000, deltas=3)
    with pytest.raises(TypeError, match="rate: expected"):
        log_mel(tone(), 8000.5)  # type: ignore[arg-type]


def test_without_the_extra_a_line_says_how_to_get_it() -> None:
    code = (
        "import sys; sys.modules['kaldi_native_fbank'] = None\n"
        "from fastlstm.tasks.features import log_mel\n"
        "try: log_mel([], 8000)\n"
        "except ImportError as error: print(error)"
    )
    expected = "features of sound need kaldi_native_fbank: pip install 'fastlstm[speech]'"
    assert run_python("-c", code).strip() == expected


def test_normalised_features_have_no_mean_and_a_deviation_of_one() -> None:
    rng = np.random.default_rng(0)
    features = np.column_stack([rng.normal(5, 3, 50), np.full(50, 7.0)])
    found = normalise(features)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(found.std(axis=0), [1, 0], atol=1e-6)
    shifted = normalise(features, variance=False)
    np.testing.assert_allclose(shifted[:, 0], features[:, 0] - features[:, 0].mean(), rtol=1e-5)
    for bad in (np.empty((0, 3)), np.zeros(3), np.array([["a"]])):
        with pytest.raises(ValueError, match=r"features: expected numbers of shape \(T, F\)"):
            normalise(bad)


# --- handwriting ----------------------------------------------------------------------------------

CROSS = [np.array([[0.0, 0], [10, 10]]), np.array([[0.0, 10], [10, 0]])]


def test_a_cross_is_two_strokes_with_a_jump_between_them() -> None:
    found = strokes(CROSS, spacing=np.sqrt(2) / 4)
    assert found.shape == (10, 6)
    assert found.dtype == np.float32
    dx, dy, begins, ends, x, y = found.T
    np.testing.assert_array_equal(np.flatnonzero(begins), [0, 5])
    np.testing.assert_array_equal(np.flatnonzero(ends), [4, 9])
    np.testing.assert_allclose(x[:5], [-0.5, -0.25, 0, 0.25, 0.5], atol=1e-6)
    np.testing.assert_allclose(y[5:], [0.5, 0.25, 0, -0.25, -0.5], atol=1e-6)
    assert (dx[0], dy[0]) == (0, 0)
    np.testing.assert_allclose(np.hypot(dx, dy)[begins == 0], np.sqrt(2) / 4, rtol=1e-5)
    np.testing.assert_allclose([dx[5], dy[5]], [-1, 0], atol=1e-6)


curves = hnp.arrays(np.float64, (12, 2), elements=st.floats(-100, 100, width=32), unique=True)


@given(curves, st.floats(0.1, 50), st.floats(-1000, 1000))
@settings(max_examples=50, deadline=None)
def test_neither_place_nor_size_counts(points: Array, scale: float, shift: float) -> None:
    drawing = [points[:5], points[5:]]
    moved = [scale * line + shift for line in drawing]
    found, expected = strokes(moved, spacing=0.07), strokes(drawing, spacing=0.07)
    if found.shape == expected.shape:  # a length may round to another number of points
        np.testing.assert_allclose(found, expected, atol=1e-3)
    assert abs(len(found) - len(expected)) <= 2


@given(curves)
@settings(max_examples=50, deadline=None)
def test_steps_of_a_stroke_are_about_even_and_stay_in_the_box(points: Array) -> None:
    moves, places = strokes([points], spacing=0.05)[1:, :2], strokes([points])[:, 4:]
    assert np.hypot(*moves.T).max() < 0.1
    assert np.abs(places).max() <= 0.5 + 1e-6


def test_time_is_not_looked_at_and_flags_part_strokes() -> None:
    timed = [np.column_stack([line, [0.0, 7.0]]) for line in CROSS]
    expected = strokes(CROSS)
    np.testing.assert_array_equal(strokes(timed), expected)
    points = np.concatenate(CROSS)
    np.testing.assert_array_equal(strokes(points, [0, 1, 0, 0]), expected)
    np.testing.assert_array_equal(strokes(points, np.array([0, 1, 0, 1], bool)), expected)


def test_a_dot_is_one_step() -> None:
    np.testing.assert_array_equal(strokes([[[3.0, 4.0]]]), [[0, 0, 1, 1, 0, 0]])
    np.testing.assert_array_equal(strokes([[[3, 4], [3, 4]], []]), [[0, 0, 1, 1, 0, 0]])


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (([],), ValueError, "drawing: expected at least one point, got none"),
        (([[]],), ValueError, "drawing: expected at least one point, got none"),
        (("abc",), TypeError, "drawing: expected a list of strokes, got a str"),
        (([[[0, np.nan]]],), ValueError, r"drawing\[0\]: expected finite numbers"),
        (([[[0, 1]], [[1, 2, 3, 4]]],), ValueError, r"drawing\[1\]: expected shape \(N, 2\)"),
        (([[[0, "a"]]],), ValueError, r"drawing\[0\]: expected points of numbers"),
        ((np.zeros((4, 2)),), ValueError, "pen_up: is needed where the drawing is one array"),
        ((np.zeros((4, 2)), [0, 1]), ValueError, "pen_up: expected 4 flags"),
        ((np.zeros((2, 2)), [0, 5]), ValueError, "pen_up: expected 2 flags"),
    ],
)
def test_impossible_drawings_are_refused(
    arguments: tuple[Any, ...], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        strokes(*arguments)


def test_an_impossible_spacing_is_refused() -> None:
    with pytest.raises(ValueError, match="spacing: expected a finite number > 0"):
        strokes(CROSS, spacing=0)
