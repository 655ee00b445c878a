from fastlstm._validate import Array

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
def matmul_batch(
    out: Array,
    a: Array,
    b: Array,
    transpose_a: bool,
    transpose_b: bool,
    accumulate: bool,
    threads: int,
    packed: bool,
) -> None: ...
def matmul_panels(
    out: Array, initial: Array | None, a: Array, panels: Array, accumulate: bool, threads: int
) -> None: ...
def sum_rows(out: Array, partial: Array, a: Array, accumulate: bool, threads: int) -> None: ...
def scatter_add_rows(out: Array, ids: Array, rows: Array) -> None: ...
def softmax_batch(out: Array, x: Array, lengths: Array, threads: int) -> None: ...
def cross_entropy(
    d_logits: Array,
    sums: Array,
    shifted: Array,
    logits: Array,
    targets: Array,
    ignored: int,
    counted: float,
    smoothing: float,
    threads: int,
) -> None: ...
