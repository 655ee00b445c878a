"""Writes speech.npz: features of sound as torchaudio.compliance.kaldi computes them, in float64.

    python -m tests.witnesses.make_speech

Needs torchaudio (2.11 was used; its wheel on PyPI is for CUDA, and without the folder lib/ in it
the Python part goes with torch for the CPU); reading the file (tests/test_features.py) does not.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torchaudio
from torchaudio.compliance import kaldi

FILE = Path(__file__).with_name("speech.npz")
# Rate, bands, coefficients, window and step in ms, low and high in Hz (0 is half the rate).
CASES = (
    (8000, 40, 13, 25.0, 10.0, 20.0, 0.0),
    (16000, 23, 13, 25.0, 10.0, 20.0, 0.0),
    (16000, 64, 20, 32.0, 8.0, 80.0, 7600.0),
    (22050, 30, 30, 20.0, 10.0, 0.0, 8000.0),
)


def draw_sound(seed: int, rate: int) -> np.ndarray:
    """A rising tone with overtones in some noise, (N,) of float32 from -1 to 1."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(0.15 * rate)) / rate
    phase = 2 * np.pi * (150 + 200 * seed) * time * (1 + time)
    tone = sum(np.sin(k * phase) / k for k in range(1, 6)) * np.hanning(len(time))
    return (0.2 * tone + 0.01 * rng.standard_normal(len(time))).astype(np.float32)


def main() -> None:
    arrays = {}
    for seed, (rate, bands, coefficients, window, step, low, high) in enumerate(CASES):
        samples = draw_sound(seed, rate)
        wave = torch.tensor(32768 * samples.astype(np.float64))[None]
        options = {
            "sample_frequency": float(rate), "num_mel_bins": bands, "frame_length": window,
            "frame_shift": step, "low_freq": low, "high_freq": high, "dither": 0.0,
            "use_energy": False,
        }  # fmt: skip
        cepstra = kaldi.mfcc(wave, num_ceps=coefficients, **options)
        speed = torchaudio.functional.compute_deltas(cepstra.T[None], win_length=5)[0].T
        arrays |= {
            f"samples{seed}": samples,
            f"log_mel{seed}": kaldi.fbank(wave, **options).numpy(),
            f"mfcc{seed}": torch.cat([cepstra, speed], dim=1).numpy(),
        }
    np.savez_compressed(FILE, cases=np.array(CASES), **arrays)
    print(f"{FILE.name}: {len(CASES)} cases, {FILE.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
