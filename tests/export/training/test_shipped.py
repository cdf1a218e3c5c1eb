"""A training program leaves as bundles do: signature, hash, flatbuffer, parity, each catching what is its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pytest

from export import verify_bundle
from export.benchmark import open_for_benchmark
from export.bundles.folder import Trust, canonical_json, read_bundle, sha256, write_bundle
from export.bundles.signing import KeyFiles, new_key, read_signing_key
from export.pages import page_resources
from export.tflite.graph import read_graph
from export.training.apart import CONTRACT, PROGRAM
from export.training.program import TrainingProgram, build_training_program
from export.training.replay import GOLDEN
from export.training.shipped import is_program, ship_program, verify_program
from fl_mobile.errors import ConfigError, ExportError, VerifyError

pytestmark = pytest.mark.tf
Files = dict[str, bytes]


@pytest.fixture(scope="module")
def program() -> TrainingProgram:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [layers.Input((6,)), layers.Dense(5, activation="relu"), layers.BatchNormalization(), layers.Dense(3)],
        name="small",
    )
    return build_training_program(model, batch_size=4)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeyFiles:
    return new_key(tmp_path_factory.mktemp("keys") / "release")


@pytest.fixture(scope="module")
def shipped(program: TrainingProgram, keys: KeyFiles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signed program folder; tests must not change it."""
    out = tmp_path_factory.mktemp("shipped") / "program"
    ship_program(out, program, sign_with=read_signing_key(keys.private))
    return out


def test_what_was_shipped_is_proven_by_its_key_on_every_runtime(shipped: Path, keys: KeyFiles) -> None:
    proof = verify_program(shipped, trust=Trust(keys.key, required=True))
    assert proof.signature.checked
    assert proof.files == 4
    assert proof.weights == 6 * 5 + 5 + 4 * 5 + 5 * 3 + 3
    assert {"litert", "litert-compiled"} <= proof.differences.keys()
    assert max(proof.differences.values()) < 1e-5
    assert is_program(shipped)
    assert not verify_program(shipped).signature.checked


def test_the_same_program_and_key_give_the_same_bytes(
    program: TrainingProgram, keys: KeyFiles, shipped: Path, tmp_path: Path
) -> None:
    ship_program(tmp_path / "again", program, sign_with=read_signing_key(keys.private))
    one, other = ({file.name: file.read_bytes() for file in path.iterdir()} for path in (shipped, tmp_path / "again"))
    assert one == other


def test_a_folder_that_exists_is_left_alone(program: TrainingProgram, shipped: Path) -> None:
    with pytest.raises(ExportError, match="not overwritten"):
        ship_program(shipped, program)


def cut(files: Files) -> None:
    files[PROGRAM] = files[PROGRAM][:-64]


def cut_and_told(files: Files) -> None:
    """A file cut short whose contract was made to fit."""
    cut(files)
    told(files, lambda c: {**c, "file_bytes": len(files[PROGRAM]), "sha256": sha256(files[PROGRAM])})


def told(files: Files, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    files[CONTRACT] = canonical_json(change(json.loads(files[CONTRACT])))


def one_signature_less(files: Files) -> None:
    told(files, lambda c: {**c, "signatures": [s for s in c["signatures"] if s["name"] != "infer"]})


def transposed(files: Files) -> None:
    def change(contract: dict[str, Any]) -> dict[str, Any]:
        first, *others = contract["weights"]
        return {**contract, "weights": [{**first, "shape": first["shape"][::-1]}, *others]}

    told(files, change)


def other_port(files: Files) -> None:
    def change(contract: dict[str, Any]) -> dict[str, Any]:
        first, *others = contract["signatures"]
        inputs = [{**port, "dtype": "int8"} for port in first["inputs"]]
        return {**contract, "signatures": [{**first, "inputs": inputs}, *others]}

    told(files, change)


def with_flex(files: Files) -> None:
    """An operation renamed to a custom one, in a file whose contract fits."""
    damaged = _custom_op(files[PROGRAM])
    assert read_graph(damaged).foreign_ops
    files[PROGRAM] = damaged
    told(files, lambda c: {**c, "file_bytes": len(damaged), "sha256": sha256(damaged)})


def _custom_op(tflite: bytes) -> bytes:
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(tflite, 0))
    code = model.operatorCodes[0]
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode = b"FlexReluGrad"
    builder = flatbuffers.Builder(len(tflite))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def recorded(files: Files, change: Callable[[dict[str, Any]], None]) -> None:
    golden = json.loads(files[GOLDEN])
    change(golden)
    files[GOLDEN] = canonical_json(golden)


def other_losses(files: Files) -> None:
    def change(golden: dict[str, Any]) -> None:
        losses = golden["cases"][0]["answers"]["loss of train"]
        losses["numbers"] = [loss * 1.01 for loss in losses["numbers"]]

    recorded(files, change)


def fewer_losses(files: Files) -> None:
    recorded(files, lambda golden: golden["cases"][0]["answers"]["loss of train"]["numbers"].pop())


def one_case_less(files: Files) -> None:
    recorded(files, lambda golden: golden["cases"].pop())


def no_cases(files: Files) -> None:
    recorded(files, lambda golden: golden["cases"].clear())


def one_tensor_less(files: Files) -> None:
    recorded(files, lambda golden: golden["cases"][0]["answers"].pop("step of small/dense/kernel"))


def no_number(files: Files) -> None:
    def change(golden: dict[str, Any]) -> None:
        golden["cases"][0]["answers"]["infer"]["allowed"] = "nan"

    recorded(files, change)


def no_contract(files: Files) -> None:
    del files[CONTRACT]


@pytest.mark.parametrize(
    ("damage", "layer", "words"),
    [
        (no_contract, "flatbuffer", "train.json is missing"),
        (cut, "flatbuffer", "expected .* bytes, got"),
        (cut_and_told, "flatbuffer", "damaged|cut short"),
        (one_signature_less, "flatbuffer", "no signature infer"),
        (transposed, "flatbuffer", "lost weights"),
        (other_port, "flatbuffer", "is not as train.json has it"),
        (with_flex, "flatbuffer", "operations no phone has: CUSTOM:FlexReluGrad"),
        (one_case_less, "flatbuffer", "leaves out gradient"),
        (no_cases, "flatbuffer", "holds no case"),
        (one_tensor_less, "flatbuffer", "leaves out step of small/dense/kernel"),
        (no_number, "flatbuffer", "golden.json cannot be read"),
        (other_losses, "parity", "loss of train is off by"),
        (fewer_losses, "parity", "loss of train is off by"),
    ],
)
def test_it_catches(damage: Callable[[Files], None], layer: str, words: str, shipped: Path, tmp_path: Path) -> None:
    """Damage under a manifest that fits it: only what is behind the hashes can tell."""
    bundle = read_bundle(shipped)
    files = dict(bundle.files)
    damage(files)
    write_bundle(tmp_path / "program", files, {"holds": bundle.manifest["holds"]})
    with pytest.raises(VerifyError, match=rf"failed at {layer}.*({words})"):
        verify_program(tmp_path / "program", runtimes=["litert"])


def test_one_changed_byte_and_a_wrong_key_are_refused(shipped: Path, tmp_path: Path) -> None:
    other = new_key(tmp_path / "other").key
    with pytest.raises(VerifyError, match="failed at signature"):
        verify_program(shipped, trust=Trust(other))
    copy = Path(shutil.copytree(shipped, tmp_path / "program"))
    data = bytearray((copy / PROGRAM).read_bytes())
    data[-1] ^= 1
    (copy / PROGRAM).write_bytes(data)
    with pytest.raises(VerifyError, match=r"failed at hash.*SHA-256"):
        verify_program(copy)


def test_a_runtime_that_cannot_train_is_told(shipped: Path) -> None:
    with pytest.raises(ConfigError, match="'tf-lite' does not open training programs"):
        verify_program(shipped, runtimes=["tf-lite"])


@pytest.mark.parametrize("reader", [verify_bundle, open_for_benchmark, page_resources])
def test_readers_of_artifacts_say_that_this_is_none(reader: Callable[[Path], object], shipped: Path) -> None:
    with pytest.raises(VerifyError, match="holds 'training program', not inference artifacts"):
        reader(shipped)
