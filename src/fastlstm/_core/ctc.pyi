from fastlstm._validate import Array

def ctc_loss(
    d_logits: Array,
    losses: Array,
    logits: Array,
    labels: Array,
    starts: Array,
    lengths: Array,
    factors: Array,
    blank: int,
    zero_infinity: bool,
    scratch: Array,
) -> None: ...
def scratch_size(steps: int, size: int, classes: int) -> int: ...
