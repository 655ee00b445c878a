from collections.abc import Sequence

from fastlstm._validate import Array

SCRATCH: int

class Cell:
    zoneout_h: float
    zoneout_c: float
    def __init__(
        self,
        activations: Sequence[tuple[int, float, float]],
        input_forget: bool,
        clip: float | None,
        zoneout: tuple[float, float],
    ) -> None: ...
    def weigh(
        self, like: Array, peepholes: Array | None, gain_c: Array | None, bias_c: Array | None
    ) -> None: ...

def variant_forward(
    cell: Cell,
    h: Array,
    c: Array,
    m: Array | None,
    z: Array,
    normal: Array | None,
    scale: Array | None,
    h_n: Array,
    c_n: Array,
    weight_hh: Array,
    weight_hr: Array | None,
    gain_hh: Array | None,
    bias_hh: Array | None,
    drop_h: Array | None,
    held_c: Array | None,
    held_h: Array | None,
    dropped_h: Array | None,
    scratch: Array,
    offsets: Array,
    first_step: int,
    last_step: int,
    blocks: Array,
    backwards: bool,
    keep: bool,
    packed: bool,
) -> None: ...
def variant_backward(
    cell: Cell,
    z: Array,
    d_raw: Array | None,
    d_projected: Array | None,
    sums: Array | None,
    d_h: Array,
    d_c: Array,
    d_output: Array,
    c: Array,
    c_0: Array,
    normal: Array | None,
    scale: Array | None,
    weight_hh: Array,
    weight_hr: Array | None,
    gain_hh: Array | None,
    drop_h: Array | None,
    held_c: Array | None,
    held_h: Array | None,
    d_m: Array | None,
    c_prev: Array,
    past_h: Array | None,
    past_c: Array | None,
    scratch: Array,
    offsets: Array,
    blocks: Array,
    backwards: bool,
    packed: bool,
) -> None: ...
def normalize(z: Array, normal: Array, scale: Array, gain: Array, bias: Array | None) -> None: ...
def normalize_back(d_raw: Array, d_z: Array, gain: Array, normal: Array, scale: Array) -> None: ...
