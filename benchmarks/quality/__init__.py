"""Whether the networks learn what they should, beside a baseline that is known.

``python -m benchmarks.quality TASK`` does the runs of a task that results/TASK.json lacks and
prints a table; ``--small`` tries everything on a slice of the data within seconds, ``--time`` steps
through training beside torch.

A task is a module of tasks/ with a ``TASK`` (harness.Task). Its data come from data.py, in the
split that stands there; systems are made by rivals.py (fastlstm, plain RNN and torch from one
estimator) and baselines.py. Torch trains whatever is fitted inside of ``torch_twin.by_torch()``; a
network of a new kind needs a twin in twins.py, registered with `twin_of`. Arguments of an estimator
stand in the module's ``SETTINGS``, chosen by the training part; changing one makes runs void.
"""
