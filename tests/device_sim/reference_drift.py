"""SCAFFOLD, FedNova and FedDyn as their papers print them: loops, float64, and only our seeds.

Softmax regression on flat inputs in [0, 1]. Karimireddy et al. 2020, Algorithm 1, option II; Wang et al. 2020,
equation 10; Acar et al. 2021, Algorithm 1.
"""

from __future__ import annotations

import numpy as np

from fl_mobile.seeds import rng_for, seed_for
from tests.device_sim.reference_fedavg import mix


def federate(name, x, y, shards, *, seed, rounds, cohort, epochs, batch, rate, classes, alpha=0.1, damage=""):  # type: ignore[no-untyped-def]
    """Returns weights ``[inputs + 1, classes]``, the bias last; ``damage`` leaves one thing out."""
    size = (x.shape[1] + 1, classes)
    w, server = np.zeros(size), np.zeros(size)  # server: c of SCAFFOLD, h of FedDyn
    own = [np.zeros(size) for _ in shards]  # c_i of SCAFFOLD, the gradient at the last local model of FedDyn
    for round_num in range(rounds):
        chosen = rng_for(seed, round_num, "cohort").permutation(len(shards))[:cohort]
        examples = sum(len(shards[k]) for k in chosen)
        before, mean, direction, length, change = server.copy(), np.zeros(size), np.zeros(size), 0.0, np.zeros(size)
        for k in chosen:
            part = len(shards[k]) / examples
            device_seed = mix(seed_for(seed, round_num, "train") + (int(k) + 1) * 0x9E3779B97F4A7C15)
            add, mu = np.zeros(size), 0.0
            if name == "scaffold":
                add = before - own[k]
            if name == "feddyn":
                add, mu = -own[k], alpha
            after, steps = train(x[shards[k]], y[shards[k]], w, device_seed, epochs, batch, rate, add, mu)
            mean += part * (after - w)
            direction += part * (after - w) / steps
            length += part * steps
            if name == "scaffold" and damage != "variates":
                new = own[k] - before + (w - after) / (steps * rate)
                change += part * (new - own[k])
                own[k] = new
            if name == "feddyn" and damage != "variates":
                own[k] = own[k] - alpha * (after - w)
        share = examples / sum(map(len, shards))  # |S|/N of the papers, where clients count by their examples
        if name == "scaffold" and damage != "server":
            server = before + share * change
        if name == "feddyn" and damage != "server":
            server = before - alpha * share * mean
        if name == "scaffold":
            w = w + mean
        if name == "fednova":
            w = w + (mean if damage else length * direction)
        if name == "feddyn":
            w = w + mean - server / alpha
    return w


def train(x, y, start, seed, epochs, batch, rate, add, mu):  # type: ignore[no-untyped-def]
    """Returns one device's weights and how many steps it made."""
    w, steps = start.copy(), 0
    for epoch in range(epochs):
        order = sorted(range(len(y)), key=lambda i: mix(seed + ((epoch << 32) + i + 1) * 0x9E3779B97F4A7C15))
        for at in range(0, len(y), batch):
            gradient = np.zeros_like(w)
            rows = order[at : at + batch]
            for i in rows:
                one = np.append(x[i], 1.0)
                p = np.exp(one @ w - (one @ w).max())
                p /= p.sum()
                p[y[i]] -= 1
                gradient += np.outer(one, p) / len(rows)
            w = w - rate * (gradient + add + mu * (w - start))
            steps += 1
    return w, steps
