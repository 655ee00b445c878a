from fastlstm._validate import Array

def cells(
    c: Array,
    gates: Array,
    h: Array,
    pre: Array,
    c_0: Array,
    weight_hh: Array,
    offsets: Array,
    first: int,
    last: int,
    blocks: Array,
    shares: Array,
    backwards: bool,
    packed: bool,
) -> None: ...
