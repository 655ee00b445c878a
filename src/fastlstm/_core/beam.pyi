from fastlstm._validate import Array

def advance(
    tree: Array,
    added: Array,
    beam: Array,
    probs: Array,
    counts: Array,
    log_probs: Array,
    extra: Array | None,
    bonus: float,
    least: float,
    blank: int,
    numbers: Array,
    origins: Array,
    inside: Array,
) -> None: ...
