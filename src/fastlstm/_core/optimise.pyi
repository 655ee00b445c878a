from fastlstm._validate import Array

def sgd(
    weight: Array,
    grad: Array,
    moment: Array | None,
    lr: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    threads: int,
) -> None: ...
def adam(
    weight: Array,
    grad: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    rate: float,
    root: float,
    beta_1: float,
    beta_2: float,
    eps: float,
    weight_decay: float,
    kept: float,
    threads: int,
) -> None: ...
def sum_of_squares(a: Array) -> float: ...
