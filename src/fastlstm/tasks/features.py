"""What estimators read of sound and of handwriting: vectors for each step.

Sound: `read_wav`, then `log_mel` or `mfcc` as Kaldi computes them, by kaldi-native-fbank
(``pip install 'fastlstm[speech]'``). Handwriting: `strokes`.
"""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Sequence
from math import gcd
from typing import Any

import numpy as np

from fastlstm._extras import import_extra
from fastlstm._validate import Array, check_flag, check_number, check_size

# What Kaldi reads are the numbers of 16-bit files; its floor of energies is meant for these.
_FULL_SCALE = 32768.0
_LEAST_BANDS = 3


# --- sound ----------------------------------------------------------------------------------------


def read_wav(
    path: str | os.PathLike[str],
    *,
    rate: int | None = None,
    resample: bool = False,
    mono: bool = False,
) -> tuple[Array, int]:
    """Read a WAV file.

    Parameters
    ----------
    path : str or path
        Of PCM with 8, 16, 24 or 32 bits, or of floating-point numbers.
    rate : int, optional
        The samples per second that are wanted; without it those of the file.
    resample : bool
        Convert a file of another rate, by ``scipy.signal.resample_poly``. Otherwise it is refused.
    mono : bool
        Take the mean of several channels. Otherwise they are refused.

    Returns
    -------
    samples : ndarray of float32 (N,)
        From -1 to 1, as a full scale of PCM is; of floating-point numbers as they stand.
    rate : int
        Samples per second.

    Raises
    ------
    FileNotFoundError
        If there is no such file (another OSError if it cannot be read).
    ValueError
        If it is no WAV file, or one of another rate or with several channels, if it is cut short,
        has no samples or a NaN among them.
    """
    resample, mono = check_flag("resample", resample), check_flag("mono", mono)
    wanted = None if rate is None else check_size("rate", rate)
    found, data = _read_samples(path)
    samples = _to_full_scale(path, data)
    if samples.ndim == 2:
        if not mono:
            raise ValueError(
                f"{path}: expected one channel, got {samples.shape[1]}; mono=True takes their mean"
            )
        samples = samples.mean(axis=1)
    if not samples.size:
        raise ValueError(f"{path}: has no samples")
    if not np.isfinite(samples).all():
        raise ValueError(f"{path}: expected finite samples, got a NaN or infinity")
    if wanted is not None and wanted != found:
        if not resample:
            raise ValueError(
                f"{path}: expected {wanted} samples per second, got {found}; resample=True "
                "converts them"
            )
        samples = _resampled(samples, found, wanted)
        found = wanted
    return samples.astype(np.float32), found


def log_mel(
    samples: Array,
    rate: int,
    *,
    bands: int = 40,
    window: float = 0.025,
    step: float = 0.010,
    low: float = 20.0,
    high: float | None = None,
) -> Array:
    """Logarithms of the energy in bands of the mel scale, as Kaldi computes them.

    Each window loses its mean, is pre-emphasised (0.97) and weighted (Povey's window); bands are
    triangles, evenly spaced on the mel scale. Without dither, so the same sound has the same bits.

    Parameters
    ----------
    samples : array_like (N,)
        From -1 to 1, as `read_wav` returns.
    rate : int
        Samples per second.
    bands : int
        3 at least.
    window, step : float
        Seconds: what a frame looks at, and from a frame to the next.
    low, high : float
        Hz: the first band's beginning and the last one's end; None is half the rate.

    Returns
    -------
    ndarray of float32 (T, bands)
        For all windows that fit into the samples.

    Raises
    ------
    TypeError, ValueError
        If an argument is not possible, the samples are fewer than a window, or there is a NaN.
    ImportError
        If kaldi-native-fbank is not installed.
    """
    knf = _import_kaldi()
    options = knf.FbankOptions()
    _set_frames(options, rate, window, step)
    _set_bands(options, rate, bands, low, high)
    return _frames(knf.OnlineFbank, options, samples, rate)


def mfcc(
    samples: Array,
    rate: int,
    *,
    coefficients: int = 13,
    deltas: int = 2,
    bands: int = 23,
    window: float = 0.025,
    step: float = 0.010,
    low: float = 20.0,
    high: float | None = None,
) -> Array:
    """Mel-frequency cepstral coefficients as Kaldi computes them, and their derivatives.

    Davis & Mermelstein 1980, "Comparison of parametric representations for monosyllabic word
    recognition". The discrete cosine transform of `log_mel`, liftered (22); the first coefficient
    is that of the cosine, not the energy.

    Parameters
    ----------
    samples, rate, bands, window, step, low, high
        As `log_mel`.
    coefficients : int
        At most `bands`.
    deltas : int
        Derivatives that are appended, by regression over two frames each way (The HTK Book 5.9):
        0 none, 1 speed, 2 acceleration as well.

    Returns
    -------
    ndarray of float32 (T, coefficients · (1 + deltas))

    Raises
    ------
    TypeError, ValueError, ImportError
        As `log_mel`.
    """
    knf = _import_kaldi()
    options = knf.MfccOptions()
    _set_frames(options, rate, window, step)
    _set_bands(options, rate, bands, low, high)
    options.num_ceps = check_size("coefficients", coefficients, most=bands)
    options.use_energy = False
    deltas = check_size("deltas", deltas, least=0, most=2)
    found = _frames(knf.OnlineMfcc, options, samples, rate)
    if not deltas:
        return found
    appended: Array = knf.compute_deltas(knf.DeltaOptions(order=deltas, window=2), found)
    return appended


def normalise(features: Array, *, variance: bool = True) -> Array:
    """Take the mean of a recording's features from them, and divide by their deviation.

    What a microphone, a room or a voice changes for good is then gone (cepstral mean and variance
    normalisation). A feature that never changes is only shifted.

    Parameters
    ----------
    features : ndarray (T, F)
        Of one recording.
    variance : bool
        Divide by the deviation.

    Returns
    -------
    ndarray of float32 (T, F)
    """
    array = np.asarray(features)
    if array.ndim != 2 or array.dtype.kind not in "iuf" or not len(array):
        raise ValueError(
            f"features: expected numbers of shape (T, F) with a step at least, got {array.dtype} "
            f"of shape {array.shape}"
        )
    mean = array.mean(axis=0, dtype=np.float64)
    deviation = array.std(axis=0, dtype=np.float64) if check_flag("variance", variance) else 1.0
    scaled = (array - mean) / np.where(deviation > 0, deviation, 1.0)
    return np.asarray(scaled, np.float32)


def _read_samples(path: str | os.PathLike[str]) -> tuple[int, Array]:
    """The rate, and the samples (N,) or (N, channels), as the file has them."""
    from scipy.io import wavfile

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", wavfile.WavFileWarning)  # chunks of other programs
            warnings.filterwarnings("error", "Reached EOF prematurely")
            rate, data = wavfile.read(path)
    except wavfile.WavFileWarning:
        raise ValueError(f"{path}: is cut short: it has fewer samples than it says") from None
    except (ArithmeticError, MemoryError, NameError, TypeError, ValueError, struct.error) as error:
        # What SciPy meets in a damaged file, where it takes sizes for granted.
        raise ValueError(f"{path}: is no WAV file that can be read: {error}") from None
    if rate < 1:
        raise ValueError(f"{path}: is no WAV file that can be read: it has {rate} samples a second")
    return int(rate), data


def _to_full_scale(path: str | os.PathLike[str], data: Array) -> Array:
    """Samples as float64, where full scale is 1. SciPy has 24 bits at the top of 32."""
    match data.dtype.kind, data.dtype.itemsize:
        case "u", 1:
            return (data.astype(np.float64) - 128) / 128
        case "i", size:
            return data.astype(np.float64) / 2.0 ** (8 * size - 1)
        case "f", _:
            return data.astype(np.float64)
    raise ValueError(f"{path}: has samples of a kind that is not known: {data.dtype}")


def _resampled(samples: Array, rate: int, wanted: int) -> Array:
    from scipy.signal import resample_poly

    common = gcd(rate, wanted)
    converted: Array = resample_poly(samples, wanted // common, rate // common)
    return converted


def _import_kaldi() -> Any:
    return import_extra("kaldi_native_fbank", extra="speech", purpose="features of sound")


def _set_frames(options: Any, rate: int, window: float, step: float) -> None:
    frames = options.frame_opts
    frames.samp_freq = rate = check_size("rate", rate)
    frames.dither = 0.0
    # The core of kaldi-native-fbank divides by these: they are samples, and at least one.
    frames.frame_length_ms = 1000 * check_number("window", window, least=2 / rate)
    frames.frame_shift_ms = 1000 * check_number("step", step, least=1 / rate)


def _set_bands(options: Any, rate: int, bands: int, low: float, high: float | None) -> None:
    mel = options.mel_opts
    mel.num_bins = check_size("bands", bands, least=_LEAST_BANDS)
    top = rate / 2 if high is None else check_number("high", high, above=0)
    if not 0 <= check_number("low", low) < top <= rate / 2:
        raise ValueError(
            f"low, high: expected 0 <= low < high <= {rate / 2:g}, half the rate, got {low:g} and "
            f"{top:g}"
        )
    mel.low_freq, mel.high_freq = low, top


def _frames(kind: Any, options: Any, samples: Array, rate: int) -> Array:
    """Run an extractor of kaldi-native-fbank over all samples."""
    checked = np.asarray(samples)
    if checked.ndim != 1 or checked.dtype.kind != "f":
        raise ValueError(
            f"samples: expected floating-point numbers of shape (N,), got {checked.dtype} of shape "
            f"{checked.shape}"
        )
    if not np.isfinite(checked).all():
        raise ValueError("samples: expected finite numbers, got a NaN or infinity")
    try:
        extractor = kind(options)
    except ValueError as error:
        raise ValueError(
            f"bands: {options.mel_opts.num_bins} are too many for a window of "
            f"{options.frame_opts.frame_length_ms:g} ms: {error}"
        ) from None
    extractor.accept_waveform(rate, (checked * _FULL_SCALE).tolist())
    extractor.input_finished()
    frames = [extractor.get_frame(k) for k in range(extractor.num_frames_ready)]
    if not frames:
        least = int(rate * options.frame_opts.frame_length_ms / 1000)
        raise ValueError(f"samples: expected at least a window of {least}, got {len(checked)}")
    return np.array(frames, np.float32)


# --- handwriting ----------------------------------------------------------------------------------


def strokes(drawing: Sequence[Any] | Array, pen_up: Any = None, *, spacing: float = 0.05) -> Array:
    """Features of a pen's drawing: where it goes, where it is, and when it is lifted.

    The drawing is moved and scaled so that the longer side of its bounding box is 1 and centred on
    0, as neither place nor size nor speed says which character it is; its strokes are resampled at
    even distances along the line. It is not rotated.

    Parameters
    ----------
    drawing : list of array_like (N_i, 2) or (N_i, 3), or array_like (N, 2) or (N, 3)
        Strokes one after the other, each x, y, and possibly the time, which is not used; or all
        points at once.
    pen_up : array_like of bool (N,), optional
        Beside all points at once: whether the pen is lifted after this one.
    spacing : float
        Distance of the points after scaling.

    Returns
    -------
    ndarray of float32 (T, 6)
        For each point: dx and dy from the point before, over a lifted pen as well; 1 where a stroke
        begins, 1 where one ends; x and y.

    Raises
    ------
    TypeError, ValueError
        If there is no point, a NaN, or another shape.
    """
    spacing = check_number("spacing", spacing, above=0)
    lines = _scaled(_check_strokes(drawing, pen_up))
    points, begins, ends = [], [], []
    for line in lines:
        even = _resampled_line(line, spacing)
        points.append(even)
        marks = np.zeros(len(even))
        marks[0] = 1
        begins.append(marks)
        ends.append(marks[::-1])
    places = np.concatenate(points)
    moves = np.diff(places, axis=0, prepend=places[:1])
    return np.column_stack([moves, np.concatenate(begins), np.concatenate(ends), places]).astype(
        np.float32
    )


def _check_strokes(drawing: Any, pen_up: Any) -> list[Array]:
    """The strokes, each (N_i, 2) of float64 with a point at least."""
    if pen_up is None:
        if isinstance(drawing, np.ndarray) and drawing.dtype != object and drawing.ndim == 2:
            raise ValueError("pen_up: is needed where the drawing is one array of all points")
        if isinstance(drawing, (str, bytes)) or not isinstance(drawing, (Sequence, np.ndarray)):
            raise TypeError(f"drawing: expected a list of strokes, got a {type(drawing).__name__}")
        lines = [_check_points(f"drawing[{k}]", line) for k, line in enumerate(drawing)]
    else:
        points = _check_points("drawing", drawing)
        flags = np.asarray(pen_up)
        if flags.shape != (len(points),) or not np.isin(flags, [0, 1]).all():
            raise ValueError(
                f"pen_up: expected {len(points)} flags, as the drawing has points, got "
                f"{flags.dtype} of shape {flags.shape}"
            )
        lines = np.split(points, np.flatnonzero(flags) + 1)
    lines = [line for line in lines if len(line)]
    if not lines:
        raise ValueError("drawing: expected at least one point, got none")
    return lines


def _check_points(name: str, value: Any) -> Array:
    try:
        points = np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: expected points of numbers: {error}") from None
    if points.ndim != 2 or points.shape[1] not in (2, 3):
        if points.size == 0:
            return np.empty((0, 2))
        raise ValueError(f"{name}: expected shape (N, 2) or (N, 3), got {points.shape}")
    if not np.isfinite(points).all():
        raise ValueError(f"{name}: expected finite numbers, got a NaN or infinity")
    return points[:, :2]


def _scaled(lines: list[Array]) -> list[Array]:
    """The strokes in a box around 0 whose longer side is 1."""
    places = np.concatenate(lines)
    least, most = places.min(axis=0), places.max(axis=0)
    side = float((most - least).max()) or 1.0
    return [(line - (least + most) / 2) / side for line in lines]


def _resampled_line(line: Array, spacing: float) -> Array:
    """Points at even distances along a stroke, its first and last one among them."""
    lengths = np.hypot(*np.diff(line, axis=0).T)
    along = np.concatenate([[0.0], np.cumsum(lengths)])
    count = max(round(along[-1] / spacing), 1) + 1 if along[-1] else 1
    wanted = np.linspace(0, along[-1], count)
    return np.column_stack([np.interp(wanted, along, line[:, k]) for k in range(2)])
