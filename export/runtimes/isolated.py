"""Runs artifacts in a child process, so that bytes from elsewhere cannot take this one down.

A flatbuffer can be well formed and still make a native runtime read where it must not: of 400 mutants that the
reader let through, some killed the process on LiteRT 2.3. A bundle that is being verified is such bytes. The
child gets files, writes files and has a time limit; if it dies, the artifact it was working on is to blame.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from export.convert.child import child_environment
from export.convert.scratch import scratch_folder
from fl_mobile.errors import VerifyError
from fl_mobile.models.private_api import interpreter_without_the_rest
from fl_mobile.storage.npz import read_arrays

_TIME_LIMIT_SECONDS = 300
_FRAMES = "frames.npz"
_CHILD = "import sys; from export.runtimes.isolated import main; main(sys.argv[1:])"


Rows = dict[str, np.ndarray]


def isolated_replies(
    runtimes: Sequence[str], artifacts: Mapping[str, bytes], frames: Mapping[str, np.ndarray]
) -> dict[tuple[str, str], Rows | VerifyError]:
    """Returns the raw rows of every output by (runtime, artifact name), one child per runtime, all at the same time.

    An artifact that was refused, failed, ran out of time or killed its child has a ``VerifyError`` instead, which
    names both; those after it get a child of their own.

    Args:
        runtimes: Installed runtimes of ``RUNTIMES``.
        artifacts: Plain name → flatbuffer bytes that ``read_graph`` accepted.
        frames: Input name → ``[k, ...]`` in the artifacts' input dtype.
    """
    with scratch_folder("replay") as name:
        folder = Path(name)
        _save(folder / _FRAMES, frames)
        for artifact, data in artifacts.items():
            (folder / f"{artifact}.tflite").write_bytes(data)
        replies: dict[tuple[str, str], Rows | VerifyError] = {}
        pending = {runtime: list(artifacts) for runtime in runtimes}
        while pending := {runtime: names for runtime, names in pending.items() if names}:
            children = {runtime: _start(runtime, folder, names) for runtime, names in pending.items()}
            try:
                for runtime, child in children.items():
                    found = _collect(runtime, child, folder, pending[runtime])
                    replies.update({(runtime, artifact): reply for artifact, reply in found.items()})
                    pending[runtime] = pending[runtime][len(found) :]
            finally:
                for child in children.values():
                    child.kill()
                    child.communicate()
        return {(runtime, artifact): replies[runtime, artifact] for runtime in runtimes for artifact in artifacts}


def _start(runtime: str, folder: Path, artifacts: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", _CHILD, runtime, str(folder), *artifacts],
        env=child_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def _collect(
    runtime: str, child: subprocess.Popen[bytes], folder: Path, artifacts: list[str]
) -> dict[str, Rows | VerifyError]:
    """Returns the replies of one child up to the artifact that killed it."""
    try:
        _, chatter = child.communicate(timeout=_TIME_LIMIT_SECONDS)
        ended = f"ended with code {child.returncode}"
    except subprocess.TimeoutExpired:
        child.kill()
        _, chatter = child.communicate()
        ended = f"did not finish within {_TIME_LIMIT_SECONDS} s"
    replies: dict[str, Rows | VerifyError] = {}
    for artifact in artifacts:
        answer, refusal = folder / f"{runtime}-{artifact}.npz", folder / f"{runtime}-{artifact}.txt"
        where = f"{artifact}.tflite on {runtime}"
        if answer.exists():
            replies[artifact] = _load(answer)
        elif refusal.exists():
            replies[artifact] = VerifyError(f"{where}: {refusal.read_text(encoding='utf-8')}")
        else:
            last = chatter.decode(errors="replace").strip().splitlines()[-1:]
            replies[artifact] = VerifyError(f"{where}: its process {ended} {' '.join(last)}".rstrip())
            break
    return replies


def _save(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes ``arrays`` by number: ``np.savez`` takes names as arguments, and ``file`` is one of its own."""
    names = np.array(list(arrays), dtype=str)
    np.savez(path, names, *arrays.values())


def _load(path: Path) -> dict[str, np.ndarray]:
    stored = read_arrays(path)
    return {str(name): stored[f"arr_{index}"] for index, name in enumerate(stored["arr_0"], start=1)}


def main(arguments: Sequence[str]) -> None:
    """The child: answers every named artifact of the folder in turn and writes one file for each."""
    from export.runtimes import run_frames

    runtime, folder, *artifacts = arguments
    if runtime == "tf-lite":
        interpreter_without_the_rest()
    frames = _load(Path(folder) / _FRAMES)
    for artifact in artifacts:
        stem = Path(folder) / f"{runtime}-{artifact}"
        try:
            rows = run_frames(runtime, (Path(folder) / f"{artifact}.tflite").read_bytes(), frames)
        except VerifyError as error:
            Path(f"{stem}.txt").write_text(str(error), encoding="utf-8")
            continue
        _save(Path(f"{stem}.partial.npz"), rows)
        os.replace(f"{stem}.partial.npz", f"{stem}.npz")
