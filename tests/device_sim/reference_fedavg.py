"""Federated averaging as a reader of McMahan et al. (2017) would write it: loops, float64, only our seeds.

Softmax regression on flat inputs in [0, 1]; every device trains from the global model, the server averages the models.
"""

from __future__ import annotations

import numpy as np

from fl_mobile.seeds import rng_for, seed_for


def federated_averaging(x, y, shards, *, seed, rounds, cohort, epochs, batch, rate, classes):  # type: ignore[no-untyped-def]
    """Returns kernel and bias after ``rounds``."""
    kernel, bias = np.zeros((x.shape[1], classes)), np.zeros(classes)
    for round_num in range(rounds):
        chosen = rng_for(seed, round_num, "cohort").permutation(len(shards))[:cohort]
        total, kernels, biases = 0, np.zeros_like(kernel), np.zeros_like(bias)
        for device in chosen:
            rows = shards[device]
            own = mix(seed_for(seed, round_num, "train") + (int(device) + 1) * 0x9E3779B97F4A7C15)
            local = train(x[rows], y[rows], kernel, bias, own, epochs, batch, rate)
            kernels += len(rows) * local[0]
            biases += len(rows) * local[1]
            total += len(rows)
        kernel, bias = kernels / total, biases / total
    return kernel, bias


def train(x, y, kernel, bias, seed, epochs, batch, rate):  # type: ignore[no-untyped-def]
    """Returns one device's model after its local epochs."""
    kernel, bias = kernel.copy(), bias.copy()
    for epoch in range(epochs):
        order = sorted(range(len(y)), key=lambda i: mix(seed + ((epoch << 32) + i + 1) * 0x9E3779B97F4A7C15))
        for at in range(0, len(y), batch):
            rows = order[at : at + batch]
            gradient_kernel, gradient_bias = np.zeros_like(kernel), np.zeros_like(bias)
            for i in rows:
                scores = x[i] @ kernel + bias
                p = np.exp(scores - scores.max())
                p /= p.sum()
                p[y[i]] -= 1
                gradient_kernel += np.outer(x[i], p) / len(rows)
                gradient_bias += p / len(rows)
            kernel -= rate * gradient_kernel
            bias -= rate * gradient_bias
    return kernel, bias


def mix(z: int) -> int:
    """SplitMix64's finaliser, as its authors print it."""
    z %= 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)
