"""A training program as it leaves for phones: a bundle like that of an inference artifact, signed alike, proven alike.

```
program/
├── train.tflite    what the phone runs
├── train.json      its contract
├── report.json     what it costs on any phone, and the losses of its first steps
├── manifest.json   length and SHA-256 of every file above, and of itself
└── manifest.sig    optional: who vouches for the manifest
```
No time and no place is in it: the same model, options and key give the same bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from export.bundle.folder import (
    ANYONE,
    TRAINING_PROGRAM,
    Bundle,
    Signature,
    Trust,
    canonical_json,
    layer,
    read_bundle,
    write_bundle,
)
from export.bundle.signing import SigningKey
from export.convert.scratch import scratch_folder
from export.runtimes import choose_runtimes
from export.tflite.graph import read_graph
from export.training.apart import CONTRACT, PROGRAM, write_program
from export.training.contract import Contract, check_bindings, contract_from_json, signature_in
from export.training.program import TrainingProgram
from export.training.replay import replay_apart
from export.training.report import ProgramReport, report_on
from export.training.session import SESSIONS
from fl_mobile.errors import ConfigError, VerifyError

REPORT = "report.json"
_TOLERANCE = 1e-3
"""Of a loss, relative: batch statistics of few examples amplify the rounding in which processors differ."""


@dataclass(frozen=True)
class ProgramProof:
    """What was proven about a program folder.

    Attributes:
        signature: Of its manifest; read it before you believe the rest.
        files: Number of files whose SHA-256 was compared.
        weights: Numbers that travel.
        differences: Runtime → largest difference of a loss of the first steps, relative.
    """

    signature: Signature
    files: int
    weights: int
    differences: Mapping[str, float]


def is_program(folder: Path) -> bool:
    """Returns whether ``folder`` says that it holds a training program; nothing is proven by that."""
    return (folder / CONTRACT).is_file()


def ship_program(folder: Path, program: TrainingProgram, *, sign_with: SigningKey | None = None) -> ProgramReport:
    """Measures ``program`` and writes it with contract, report and manifest into a new folder, whole or not at all.

    What was measured on this host is returned, not written.

    Raises:
        ExportError: ``folder`` exists.
        VerifyError: The program does not run here.
    """
    with scratch_folder("program") as name:
        write_program(Path(name), program.tflite, program.contract)
        report = report_on(Path(name), program.tflite, program.contract)
        losses = replay_apart(Path(name), "litert")
    lasting = {key: value for key, value in report.to_json().items() if key != "measured"}
    files = {
        PROGRAM: program.tflite,
        CONTRACT: canonical_json(program.contract.to_json()),
        REPORT: canonical_json({**lasting, "losses": losses}),
    }
    about = {"holds": TRAINING_PROGRAM, "versions": dict(program.contract.versions)}
    write_bundle(folder, files, about, prove=verify_program, sign_with=sign_with)
    return report


def verify_program(folder: Path, *, runtimes: Sequence[str] = (), trust: Trust = ANYONE) -> ProgramProof:
    """Returns the proof that the program in ``folder`` is whole and trains as it did when it was written.

    The layers of `export.verify.bundle`: signature, hash, flatbuffer (contract and file agree, builtin ops only),
    parity (weights come out as they went in, and the first losses), on every installed runtime that trains.

    Args:
        folder: What `ship_program` wrote.
        runtimes: Rows of `SESSIONS` to replay on instead.
        trust: Whose signature is wanted.

    Raises:
        ConfigError: A runtime is not known, not here, or cannot train.
        VerifyError: It is damaged or behaves differently; the message names the layer and what differed.
    """
    chosen = _training_runtimes(runtimes)
    bundle = read_bundle(folder, trust)
    with layer("flatbuffer"):
        bundle.expect(TRAINING_PROGRAM)
        contract, losses = _read_content(bundle)
    with layer("parity"):
        differences = _replay(bundle.files[PROGRAM], contract, losses, chosen)
    weights = sum(math.prod(w.shape) for w in contract.weights)
    return ProgramProof(bundle.signature, len(bundle.files), weights, differences)


def _training_runtimes(names: Sequence[str]) -> list[str]:
    for name in names:
        if name not in SESSIONS:
            raise ConfigError(f"runtime {name!r} does not open training programs. Take {', '.join(SESSIONS)}.")
    return [name for name in choose_runtimes(names) if name in SESSIONS]


def _read_content(bundle: Bundle) -> tuple[Contract, list[float]]:
    """Holds program, contract and report against each other, without running anything."""
    for name in (PROGRAM, CONTRACT, REPORT):
        if name not in bundle.files:
            raise VerifyError(f"{bundle.path / name} is missing; every training program has one")
    try:
        contract = contract_from_json(json.loads(bundle.files[CONTRACT]))
        losses = [float(loss) for loss in json.loads(bundle.files[REPORT])["losses"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise VerifyError(f"{bundle.path}: contract or report cannot be read ({error!r})") from error
    contract.check(bundle.files[PROGRAM])
    graph = read_graph(bundle.files[PROGRAM])
    if graph.foreign_ops:
        raise VerifyError(f"{bundle.path / PROGRAM} needs operations no phone has: {', '.join(graph.foreign_ops)}")
    for signature in contract.signatures:
        if signature_in(graph, signature.name) != signature:
            raise VerifyError(f"{bundle.path / PROGRAM}: signature {signature.name!r} is not as {CONTRACT} has it")
    check_bindings(contract.weights, contract.signatures)
    return contract, losses


def _replay(tflite: bytes, contract: Contract, losses: Sequence[float], runtimes: Sequence[str]) -> dict[str, float]:
    differences = {}
    with scratch_folder("program") as name:
        write_program(Path(name), tflite, contract)
        for runtime in runtimes:
            found = replay_apart(Path(name), runtime)
            pairs = list(zip(found, losses, strict=len(found) == len(losses)))
            worst = max((abs(a - b) / max(abs(b), 1.0) for a, b in pairs), default=math.inf)
            if len(found) != len(losses) or not worst <= _TOLERANCE:
                raise VerifyError(f"{PROGRAM} on {runtime}: expected the losses {losses}, found {found}")
            differences[runtime] = worst
    return differences
