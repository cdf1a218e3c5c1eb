"""A training program as it leaves for phones: a bundle like that of an inference artifact, signed alike, proven alike.

```
program/
├── train.tflite    what the phone runs
├── train.json      its contract
├── report.json     what it costs on any phone, and what was compared with Keras
├── golden.json     drawn cases with Keras' answers, which any runtime must repeat
├── manifest.json   length and SHA-256 of every file above, and of itself
└── manifest.sig    optional: who vouches for the manifest
```
No time and no place is in it: the same model, options and key give the same bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from export.bundles.folder import (
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
from export.bundles.signing import SigningKey
from export.convert.scratch import scratch_folder
from export.runtimes import choose_runtimes
from export.tflite.graph import read_graph
from export.training.apart import CONTRACT, PROGRAM, write_program
from export.training.contract import Contract, check_bindings, contract_from_json, signature_in
from export.training.options import options_of
from export.training.program import TrainingProgram
from export.training.proof.answers import WEIGHT
from export.training.proof.golden import Golden
from export.training.replay import GOLDEN, golden_to_json, read_golden, replay_apart, write_golden
from export.training.report import ProgramReport, report_on
from export.training.session import SESSIONS
from fl_mobile.errors import ConfigError, ExportError, VerifyError

REPORT = "report.json"


@dataclass(frozen=True)
class ProgramProof:
    """What was proven about a program folder.

    Attributes:
        signature: Of its manifest; read it before you believe the rest.
        files: Number of files whose SHA-256 was compared.
        weights: Numbers that travel.
        cases: Number of drawn cases whose answers were compared with Keras'.
        differences: Runtime → largest difference of an answer or of one tensor's steps, relative.
        compared: What was compared with the model itself, one line a case; empty where it was not given.
    """

    signature: Signature
    files: int
    weights: int
    cases: int
    differences: Mapping[str, float]
    compared: tuple[str, ...] = ()


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
    lasting = {key: value for key, value in report.to_json().items() if key != "measured"}
    files = {
        PROGRAM: program.tflite,
        CONTRACT: canonical_json(program.contract.to_json()),
        REPORT: canonical_json({**lasting, "compared_with_keras": [g.case.to_json() for g in program.proof.golden]}),
        GOLDEN: canonical_json(golden_to_json(program.proof.golden)),
    }
    about = {"holds": TRAINING_PROGRAM, "versions": dict(program.contract.versions)}
    write_bundle(folder, files, about, prove=verify_program, sign_with=sign_with)
    return report


def verify_program(
    folder: Path, *, runtimes: Sequence[str] = (), trust: Trust = ANYONE, model: Any = None
) -> ProgramProof:
    """Returns the proof that the program in ``folder`` is whole and trains as Keras does.

    The layers of `export.verify.bundle`: signature, hash, flatbuffer (contract and file agree, builtin ops only),
    parity (weights come out as they went in; answers, losses and every tensor's steps are those that Keras gave), on
    every installed runtime that trains.

    Args:
        folder: What `ship_program` wrote.
        runtimes: Rows of `SESSIONS` to replay on instead.
        trust: Whose signature is wanted.
        model: The Keras model, to ask it again instead of believing what was recorded; None where only files are here.

    Raises:
        ConfigError: A runtime is not known, not here, or cannot train.
        VerifyError: It is damaged or behaves differently; the message names the layer and what differed.
    """
    chosen = _training_runtimes(runtimes)
    bundle = read_bundle(folder, trust)
    with layer("flatbuffer"):
        bundle.expect(TRAINING_PROGRAM)
        contract, golden = _read_content(bundle)
    with layer("parity"):
        differences = _replay(bundle.files[PROGRAM], contract, golden, chosen)
        compared = () if model is None else _prove_again(bundle.files[PROGRAM], contract, model)
    weights = sum(math.prod(w.shape) for w in contract.weights)
    return ProgramProof(
        signature=bundle.signature,
        files=len(bundle.files),
        weights=weights,
        cases=len(golden),
        differences=differences,
        compared=compared,
    )


def _training_runtimes(names: Sequence[str]) -> list[str]:
    for name in names:
        if name not in SESSIONS:
            raise ConfigError(f"runtime {name!r} does not open training programs. Take {', '.join(SESSIONS)}.")
    return [name for name in choose_runtimes(names) if name in SESSIONS]


def _read_content(bundle: Bundle) -> tuple[Contract, list[Golden]]:
    """Holds program, contract and golden cases against each other, without running anything."""
    for name in (PROGRAM, CONTRACT, REPORT, GOLDEN):
        if name not in bundle.files:
            raise VerifyError(f"{bundle.path / name} is missing; every training program has one")
    try:
        contract = contract_from_json(json.loads(bundle.files[CONTRACT]))
        golden = read_golden(json.loads(bundle.files[GOLDEN]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise VerifyError(f"{bundle.path}: {CONTRACT} or {GOLDEN} cannot be read ({error!r})") from error
    contract.check(bundle.files[PROGRAM])
    graph = read_graph(bundle.files[PROGRAM])
    if graph.foreign_ops:
        raise VerifyError(f"{bundle.path / PROGRAM} needs operations no phone has: {', '.join(graph.foreign_ops)}")
    for signature in contract.signatures:
        if signature_in(graph, signature.name) != signature:
            raise VerifyError(f"{bundle.path / PROGRAM}: signature {signature.name!r} is not as {CONTRACT} has it")
    check_bindings(contract.weights, contract.signatures)
    _check_cases(contract, golden)
    return contract, golden


def _check_cases(contract: Contract, golden: Sequence[Golden]) -> None:
    """Checks that the cases leave out nothing this program can do, and no tensor."""
    wanted = {"gradient", "steps", *(["accumulated"] if contract.accumulate else [])}
    missing = wanted - {g.case.name for g in golden}
    tensors = {WEIGHT + w.path for w in contract.weights} | {"infer", "loss of evaluate", "loss of train"}
    for g in golden:
        missing |= tensors - g.sketches.keys()
    if missing:
        raise VerifyError(f"{GOLDEN} leaves out {', '.join(sorted(missing)[:3])}; export the training program again")


def _replay(tflite: bytes, contract: Contract, golden: Sequence[Golden], runtimes: Sequence[str]) -> dict[str, float]:
    differences = {}
    with scratch_folder("program") as name:
        write_program(Path(name), tflite, contract)
        write_golden(Path(name), golden)
        for runtime in runtimes:
            found = [
                (g, difference)
                for g, (answers, correct) in zip(golden, replay_apart(Path(name), runtime), strict=True)
                for difference in g.differences(answers, correct)
            ]
            apart = [(g, d) for g, d in found if not d.same]
            if apart:
                g, worst = max(apart, key=lambda pair: pair[1].off / pair[1].allowed)
                raise VerifyError(f"{PROGRAM} on {runtime} does not do what Keras did ({g.case.name}: {worst})")
            differences[runtime] = max(d.off for _, d in found)
    return differences


def _prove_again(tflite: bytes, contract: Contract, model: Any) -> tuple[str, ...]:
    """Holds the program against the model it is said to be of."""
    from export.training.proof.prove import prove
    from fl_mobile.models import keras_bridge

    spec = keras_bridge.spec_of(model)
    if [(s.shape, s.trainable) for s in spec.values()] != [(w.shape, w.trainable) for w in contract.weights]:
        raise VerifyError(f"model '{model.name}' has other weights than {CONTRACT} of '{contract.model}' lists")
    named = {w.path: path for w, path in zip(contract.weights, spec, strict=True)}
    mine = replace(contract, weights=tuple(replace(w, path=named[w.path]) for w in contract.weights))
    try:
        return prove(model, options_of(contract), tflite, mine).compared
    except ExportError as error:
        raise VerifyError(str(error)) from error
