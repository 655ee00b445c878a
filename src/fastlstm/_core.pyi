from fastlstm._validate import Array

OPENMP: bool
DEBUG: bool
COMPILER: str
FLAGS: str
BLAS_INTEGER_BITS: int
ISA: str
VECTOR: dict[int, int]

def sigmoid(out: Array, x: Array) -> None: ...
def tanh(out: Array, x: Array) -> None: ...
def pack(panels: Array, b: Array) -> None: ...
def pack_gates(panels: Array, weight: Array) -> None: ...
def forward(
    h: Array,
    c: Array,
    gates: Array,
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
    backwards: bool,
    packed: bool,
) -> None: ...
def previous_h(out: Array, h: Array, h_0: Array, offsets: Array, backwards: bool) -> None: ...
def matmul(
    out: Array,
    a: Array,
    b: Array,
    transpose_a: bool,
    transpose_b: bool,
    accumulate: bool,
    threads: int,
    packed: bool,
) -> None: ...
def sum_rows(out: Array, partial: Array, a: Array) -> None: ...
def scatter_add_rows(out: Array, ids: Array, rows: Array) -> None: ...
