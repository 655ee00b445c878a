"""Mutations of the optimisers' steps and of the norm of gradients."""

from __future__ import annotations

from tests.mutations.mutation import OPTIMISERS, Mutation

MUTATIONS = [
    Mutation(
        "sgd: threads leave an element between them out",
        OPTIMISERS,
        "<real>weight_decay, n * part // parts, n * (part + 1) // parts)",
        "<real>weight_decay, n * part // parts, n * (part + 1) // parts - (part + 1 < parts))",
    ),
    Mutation(
        "sgd: Nesterov's step without the gradient",
        OPTIMISERS,
        "g = g + momentum * moment[k] if",
        "g = momentum * moment[k] if",
    ),
    Mutation(
        "adam: threads begin at the same element",
        OPTIMISERS,
        "_adam_run(&weight[first], &grad[first]",
        "_adam_run(&weight[first], &grad[0]",
    ),
    Mutation(
        "adam: the decay goes the wrong way",
        OPTIMISERS,
        "g = grad[k] + weight_decay * weight[k] if weight_decay != 0 else grad[k]\n        # Not",
        "g = grad[k] - weight_decay * weight[k] if weight_decay != 0 else grad[k]\n        # Not",
    ),
    Mutation(
        "adam: the mean takes the gradient whole",
        OPTIMISERS,
        "+ rest_1 * g\n",
        "+ g\n",
    ),
    Mutation(
        "adam: eps under the root's correction",
        OPTIMISERS,
        "(_root(exp_avg_sq[k]) / root + eps)",
        "((_root(exp_avg_sq[k]) + eps) / root)",
    ),
    Mutation(
        "adam: subnormal moments stay",
        OPTIMISERS,
        "cdef uint64_t mode = fastlstm_flush_begin()\n    _adam_run(",
        "cdef uint64_t mode = 0\n    _adam_run(",
    ),
    Mutation(
        "adamw: the weights do not shrink",
        OPTIMISERS,
        "weight[k] = kept * weight[k] -",
        "weight[k] = weight[k] -",
    ),
    Mutation(
        "norm: squares in the dtype of the gradient",
        OPTIMISERS,
        "sums[lane] += <double>a[block * LANES + lane] * <double>a[block * LANES + lane]",
        "sums[lane] += a[block * LANES + lane] * a[block * LANES + lane]",
    ),
    Mutation(
        "norm: without the elements at the end",
        OPTIMISERS,
        "for k in range(n - n % LANES, n):",
        "for k in range(0):",
    ),
    Mutation(
        "norm: without the last run",
        OPTIMISERS,
        "(n + RUN - 1) // RUN",
        "n // RUN",
    ),
]
