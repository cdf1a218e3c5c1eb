"""Tensors that never leave a device: which ones, and the two halves of a model.

FedBN (Li et al., ICLR 2021) keeps batch-norm layers local; a per-device head keeps the last layer local (Arivazhagan et
al., "Federated learning with personalization layers", arXiv 1912.00818).
"""

from __future__ import annotations

from collections.abc import Collection
from fnmatch import fnmatchcase

from fl_mobile.errors import ConfigError, nearest
from fl_mobile.tensors import Spec

NONE, BATCH_NORM, HEAD = "none", "batch-norm", "head"
PRIVATE = (NONE, BATCH_NORM, HEAD)


def private_paths(spec: Spec, private: str) -> frozenset[str]:
    """Returns the tensors of a model that stay on devices.

    Args:
        spec: All that local training changes.
        private: ``none``, ``batch-norm`` (layers that own statistics), ``head`` (the last layer), or a pattern of
            paths or of their ends, in which ``*`` stands for anything.

    Raises:
        ConfigError: Nothing in this model is meant, or nothing would be left to travel.

    >>> from fl_mobile.tensors import TensorSpec
    >>> spec = {"conv/kernel": TensorSpec((3,)), "out/kernel": TensorSpec((2,)), "out/bias": TensorSpec((1,))}
    >>> sorted(private_paths(spec, "head"))
    ['out/bias', 'out/kernel']
    """
    if private == NONE:
        return frozenset()
    if private == BATCH_NORM:
        layers: Collection[str] = {_layer(path) for path, tensor in spec.items() if not tensor.trainable}
        chosen = frozenset(path for path in spec if _layer(path) in layers)
    elif private == HEAD:
        chosen = head_paths(spec)
    else:
        # Keras puts a model's name before its layers' in some topologies and not in others.
        chosen = frozenset(path for path in spec if fnmatchcase(path, private) or fnmatchcase(path, f"*/{private}"))
    if not chosen:
        hint = nearest(private, [*PRIVATE, *spec])
        raise ConfigError(f"personal.private '{private}' names no tensor of this model.{hint}")
    if not any(tensor.trainable for path, tensor in spec.items() if path not in chosen):
        raise ConfigError(f"personal.private '{private}' leaves nothing to train together: every weight is private")
    return chosen


def head_paths(spec: Spec) -> frozenset[str]:
    """Returns the tensors of the last layer that trains."""
    last = _layer([path for path, tensor in spec.items() if tensor.trainable][-1])
    return frozenset(path for path in spec if _layer(path) == last)


def _layer(path: str) -> str:
    return path.rpartition("/")[0]
