"""Every engine that can run an artifact here, as one table.

To add a runtime: one file with a ``Runtime``, one row below; ``tests/export/test_runtimes.py`` walks the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from export.convert.quiet import captured_stderr
from export.model.frames import in_batches
from export.model.serving import SIGNATURE
from export.runtimes.litert import LITERT
from export.runtimes.litert_compiled import LITERT_COMPILED
from export.runtimes.litert_js import LITERT_JS
from export.runtimes.runtime import Runtime, Session
from export.runtimes.tf_lite import TF_LITE
from export.runtimes.tflite_runtime import TFLITE_RUNTIME
from export.tflite.graph import Artifact, Signature, TensorInfo, read_graph
from fl_mobile.errors import ConfigError, VerifyError, nearest

RUNTIMES: dict[str, Runtime] = {
    "litert": LITERT,
    "litert-compiled": LITERT_COMPILED,
    "tf-lite": TF_LITE,
    "tflite-runtime": TFLITE_RUNTIME,
    "litert-js": LITERT_JS,
}

_ON_REQUEST = "starts a browser, so it is asked only by name: fl-mobile verify BUNDLE --runtime litert-js"


def missing_runtimes() -> dict[str, str]:
    """Returns the runtimes that are not used unasked, with the reason of each: not here, or only when named."""
    reasons = {name: _ON_REQUEST if r.on_request else r.missing() for name, r in RUNTIMES.items()}
    return {name: reason for name, reason in reasons.items() if reason is not None}


def choose_runtimes(names: Sequence[str]) -> list[str]:
    """Returns ``names`` when all can run here, or without names every runtime that needs no asking.

    Raises:
        ConfigError: A name is not known or cannot run here, or no runtime is installed.
    """
    missing = missing_runtimes()
    if not names and len(missing) == len(RUNTIMES):
        raise ConfigError(f"no runtime can run artifacts here: {'; '.join(missing.values())}")
    for name in names:
        _require(name)
    return list(dict.fromkeys(names)) or [name for name in RUNTIMES if name not in missing]


def open_session(runtime: str, artifact: Artifact, *, signature: str = SIGNATURE, threads: int = 1) -> Session:
    """Returns a reusable session of ``runtime`` over ``artifact``.

    The bytes are walked by ``read_graph`` first: native loaders get nothing that is cut short or needs Flex.

    Raises:
        ConfigError: No runtime of that name, or it is not installed.
        VerifyError: The bytes are damaged, need operations the runtime lacks, or it refuses them.
    """
    _require(runtime)
    graph = read_graph(artifact)
    graph.signature(signature)
    if graph.foreign_ops:
        raise VerifyError(f"the artifact needs {', '.join(graph.foreign_ops)}, which no plain runtime has")
    try:
        return RUNTIMES[runtime].load(graph.data, signature, threads)
    except Exception as error:  # native loaders raise ValueError, RuntimeError and types of their own
        raise VerifyError(f"runtime {runtime!r} refuses the artifact: {error}") from error


def _require(runtime: str) -> None:
    if runtime not in RUNTIMES:
        raise ConfigError(f"runtime {runtime!r} is not known.{nearest(runtime, RUNTIMES)}")
    reason = RUNTIMES[runtime].missing()
    if reason is not None:
        raise ConfigError(f"runtime {runtime!r} cannot run here: {reason}")


def run(runtime: str, artifact: Artifact, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the raw outputs of one run; for many frames keep the session of ``open_session``."""
    return open_session(runtime, artifact).run(inputs)


def run_frames(runtime: str, artifact: Artifact, frames: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the raw stored rows of every output of ``artifact``, ``[n, ...]`` by name, one run per frame
    or, of an artifact that takes several at once, per batch.

    Args:
        runtime: Name from ``RUNTIMES``.
        artifact: The flatbuffer.
        frames: Input name → ``[n, ...]`` in the input's dtype.

    Raises:
        ConfigError: As ``open_session``.
        VerifyError: The artifact is damaged, the frames do not fit its inputs, or the runtime fails on one.
    """
    graph = read_graph(artifact)
    signature = graph.signature(SIGNATURE)
    count = _check_frames(signature, frames)
    rows = {end.name: np.empty((count, *end.shape[1:]), end.dtype) for end in signature.outputs}
    done = 0
    with captured_stderr():  # LiteRT reports loading and freeing; the session must be gone before the block ends
        session = open_session(runtime, graph)
        for batch, size in in_batches(frames, signature.inputs[0].shape[0]):
            try:
                answer = session.run(batch)
                for name, part in rows.items():
                    part[done : done + size] = answer[name][:size]
            except Exception as error:  # as in open_session: native code
                raise VerifyError(f"runtime {runtime!r} fails on frame {done}: {error}") from error
            done += size
        del session
    return rows


def answers(runtime: str, artifact: Artifact, frames: np.ndarray) -> np.ndarray:
    """Returns ``run_frames`` of an artifact with one input and one output as one array.

    Raises:
        ConfigError: As ``open_session``.
        VerifyError: As ``run_frames``, or the artifact has several inputs or outputs.
    """
    graph = read_graph(artifact)
    signature = graph.signature(SIGNATURE)
    if len(signature.inputs) != 1 or len(signature.outputs) != 1:
        raise VerifyError(
            f"expected one input and one output, got {len(signature.inputs)} and {len(signature.outputs)}"
        )
    return run_frames(runtime, graph, {signature.inputs[0].name: frames})[signature.outputs[0].name]


def _check_frames(signature: Signature, frames: Mapping[str, np.ndarray]) -> int:
    """Returns the number of frames."""
    takes = {entry.name: (entry.dtype, entry.shape[1:]) for entry in signature.inputs}
    given = {name: (str(part.dtype), part.shape[1:]) for name, part in frames.items()}
    counts = {len(part) for part in frames.values()}
    if takes != given or len(counts) != 1:
        raise VerifyError(
            f"the artifact takes {_forms(takes)}, the frames are {_forms(given)},"
            f" {' and '.join(map(str, sorted(counts)))} of them"
        )
    return counts.pop()


def _forms(ends: Mapping[str, tuple[str, tuple[int, ...]]]) -> str:
    return ", ".join(f"{name} {dtype}[n, {', '.join(map(str, shape))}]" for name, (dtype, shape) in ends.items())


def real_values(end: TensorInfo, rows: np.ndarray) -> np.ndarray:
    """Returns stored rows as float32: ``scale · (stored − zero_point)``, or as they are when not quantised."""
    if not end.scale:
        return rows.astype(np.float32)
    return ((rows.astype(np.float64) - end.zero_point) * end.scale).astype(np.float32)
