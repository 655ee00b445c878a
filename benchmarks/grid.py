"""The shapes that libraries are measured at."""

from __future__ import annotations

from benchmarks.tasks import INFER, STEP, Shape

# What people run: a stream's worth of steps at batch 1, and batches that fill the core.
USUAL = (
    Shape(1000, 1, 32, 32),
    Shape(100, 1, 64, 64),
    Shape(100, 1, 128, 128),
    Shape(100, 1, 256, 256),
    Shape(100, 1, 512, 512),
    Shape(50, 1, 1024, 1024),
    Shape(100, 8, 256, 256),
    Shape(100, 16, 128, 128),
    Shape(100, 64, 64, 64),
    Shape(100, 64, 256, 256),
    Shape(50, 128, 512, 512),
    Shape(100, 256, 128, 128),
    Shape(35, 20, 650, 650, num_layers=2),  # Zaremba, Sutskever & Vinyals 2014, medium
    Shape(100, 32, 128, 256, num_layers=2),
)

# B, I, H that fill no register tile.
_ODD = (
    *((1, 1, 1), (17, 3, 1)),
    *((1, 3, 7), (3, 1, 7), (17, 80, 7)),
    *((1, 1, 33), (1, 80, 33), (5, 3, 33), (17, 80, 33)),
    *((1, 3, 100), (1, 80, 100), (3, 80, 100), (5, 1, 100), (17, 80, 100)),
    *((1, 1, 257), (1, 80, 257), (3, 3, 257), (5, 80, 257), (17, 80, 257)),
    *((1, 80, 650), (3, 1, 650), (5, 80, 650), (17, 80, 650)),
    *((1, 3, 1000), (3, 80, 1000), (5, 1, 1000), (17, 80, 1000)),
)

# One step each: a stream, and batches of streams.
STREAMS = (
    *(Shape(1, 1, size, size) for size in (32, 64, 128, 256, 512, 1024)),
    *(Shape(1, batch, size, size) for batch in (16, 64) for size in (64, 256)),
)


def _long_enough(batch: int, input_size: int, hidden_size: int) -> Shape:
    """As many steps, 100 at most, as make a call of tens of milliseconds at most."""
    step = Shape(1, batch, input_size, hidden_size).operations(INFER)
    return Shape(min(100, 3_000_000_000 // step), batch, input_size, hidden_size)


ODD = tuple(_long_enough(*sizes) for sizes in _ODD)
ODD_STREAMS = tuple(Shape(1, batch, *sizes) for batch, *sizes in _ODD if batch == 1)


def shapes(mode: str, *, full: bool = False) -> tuple[Shape, ...]:
    """The grid of a mode, with the odd sizes if `full`."""
    usual, odd = (STREAMS, ODD_STREAMS) if mode == STEP else (USUAL, ODD)
    return usual + odd if full else usual
