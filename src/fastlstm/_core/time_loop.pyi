from fastlstm._validate import Array

def forward(
    h: Array,
    c: Array | None,
    gates: Array | None,
    pre: Array,
    h_n: Array,
    c_n: Array,
    x: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias: Array,
    offsets: Array,
    chunks: Array,
    blocks: Array,
    shares: Array,
    backwards: bool,
    keep: bool,
    zero_state: bool,
    packed: bool,
) -> None: ...
def backward(
    gates: Array,
    d_h: Array,
    d_c: Array,
    d_output: Array,
    c: Array,
    c_0: Array,
    weight_hh: Array,
    offsets: Array,
    blocks: Array,
    shares: Array,
    backwards: bool,
    packed: bool,
) -> None: ...
def previous_h(
    out: Array, h: Array, h_0: Array, offsets: Array, first: int, last: int, backwards: bool
) -> None: ...
