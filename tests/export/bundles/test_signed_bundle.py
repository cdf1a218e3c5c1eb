"""Signature, then hash, then flatbuffer, then parity: each layer catches what is its own, and nothing passes unsaid."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from export import CORE_RECIPES, export_model, verify_bundle
from export.bundles.folder import (
    LAYERS,
    MANIFEST,
    SIGNATURE_FILE,
    Trust,
    canonical_json,
    read_bundle,
    sha256,
    write_bundle,
)
from export.bundles.signing import KeyFiles, SigningKey, new_key, read_signing_key, sign
from export.report.facts import TrainingFacts
from export.tflite.metadata import read_metadata
from fl_mobile.errors import ExportError, VerifyError
from tests.export.convert.topologies import LABELS, Digits

pytestmark = pytest.mark.tf
ROOT = Path(__file__).parents[3]
FACTS = TrainingFacts(model="digit-cnn", license="Apache-2.0", rounds=3, dataset="digits", held_out_is_new=True)
Bundle = dict[str, bytes]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeyFiles:
    return new_key(tmp_path_factory.mktemp("keys") / "release")


@pytest.fixture(scope="module")
def key(keys: KeyFiles) -> SigningKey:
    return read_signing_key(keys.private)


@pytest.fixture(scope="module")
def twice(model: Any, data: Digits, key: SigningKey, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two exports of one model: every core recipe, metadata, card and signature."""
    outs = [tmp_path_factory.mktemp("signed") / name for name in ("one", "other")]
    for out in outs:
        export_model(
            model,
            out,
            recipes=CORE_RECIPES,
            labels=LABELS,
            representative=data.x_train[:50],
            x_test=data.x_test,
            y_test=data.y_test,
            provenance={"experiment": "0123abcd"},
            training=FACTS,
            sign_with=key,
        )
    return outs[0], outs[1]


@pytest.fixture
def signed(twice: tuple[Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(twice[0], tmp_path / "bundle"))


def content(bundle: Path) -> Bundle:
    return {path.name: path.read_bytes() for path in bundle.iterdir()}


def refused(bundle: Path, layer: str, words: str, trust: Trust) -> None:
    """The refusal names the layer and says that those after it were not looked at."""
    later = LAYERS[LAYERS.index(layer) + 1 :]
    told = rf"failed at {layer}" + (f", {', '.join(later)} not checked" if later else "") + rf": .*{words}"
    with pytest.raises(VerifyError, match=told):
        verify_bundle(bundle, trust=trust)


def test_same_model_and_recipes_give_the_same_bytes(twice: tuple[Path, Path]) -> None:
    one, other = map(content, twice)
    assert (
        one.keys()
        == other.keys()
        == {
            *(f"{recipe}.tflite" for recipe in CORE_RECIPES),
            *("labels.txt", "golden.npz", "report.json", "report.md", "model_card.md", MANIFEST, SIGNATURE_FILE),
        }
    )
    for name in one:
        assert one[name] == other[name], name


def test_every_artifact_names_its_classes_and_model(signed: Path) -> None:
    for recipe in CORE_RECIPES:
        found = read_metadata((signed / f"{recipe}.tflite").read_bytes())
        assert found.labels == {"probabilities": tuple(LABELS)}
        assert (found.about.name, found.about.license) == ("digit-cnn", "Apache-2.0")
        assert recipe in found.about.description


def test_a_proof_says_what_is_known_of_the_signature(signed: Path, key: SigningKey, whole_bundle: Path) -> None:
    told = verify_bundle(signed, trust=Trust(key.public)).signature
    assert (told.key_id, told.checked) == (key.public.key_id, True)
    told = read_bundle(signed).signature
    assert (told.key_id, told.checked) == (key.public.key_id, False)
    assert "NOT CHECKED" in str(told)
    told = read_bundle(whole_bundle).signature
    assert (told.key_id, told.checked) == (None, False)
    assert "unsigned" in str(told)


@pytest.mark.parametrize("trust", ["key", "required"])
def test_unsigned_is_refused_when_a_signature_is_wanted(trust: str, whole_bundle: Path, key: SigningKey) -> None:
    wanted = {"key": Trust(key.public), "required": Trust(required=True)}[trust]
    refused(whole_bundle, "signature", "is unsigned", wanted)


def test_a_signature_of_a_key_that_was_not_given_does_not_count(signed: Path, key: SigningKey, tmp_path: Path) -> None:
    refused(signed, "signature", f"claims to be of key {key.public.key_id}; give its public key", Trust(required=True))
    other = new_key(tmp_path / "other").key
    refused(signed, "signature", f"signed by key {key.public.key_id}, but the public key given is", Trust(other))


@pytest.mark.parametrize("name", [MANIFEST, SIGNATURE_FILE])
def test_a_flipped_bit_in_manifest_or_signature(name: str, signed: Path, key: SigningKey) -> None:
    good = (signed / name).read_bytes()
    for place in range(0, len(good), max(1, len(good) // 40)):
        bad = bytearray(good)
        bad[place] ^= 0x01
        (signed / name).write_bytes(bad)
        refused(signed, "signature", "", Trust(key.public))


def test_a_flipped_bit_in_any_file(signed: Path, key: SigningKey) -> None:
    for path in sorted(signed.iterdir()):
        if path.name in (MANIFEST, SIGNATURE_FILE):
            continue
        good = path.read_bytes()
        for place in (0, len(good) // 2, len(good) - 1):
            path.write_bytes(good[:place] + bytes([good[place] ^ 0x10]) + good[place + 1 :])
            refused(signed, "hash", path.name, Trust(key.public))
        path.write_bytes(good)
    verify_bundle(signed, trust=Trust(key.public))


def exchange(folder: Path) -> None:
    one, other = folder / "int8.tflite", folder / "float32.tflite"
    one_bytes = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(one_bytes)


def shuffle(folder: Path) -> None:
    lines = (folder / "labels.txt").read_bytes().splitlines(keepends=True)
    (folder / "labels.txt").write_bytes(b"".join([lines[1], lines[0], *lines[2:]]))


def cut_zip(folder: Path) -> None:
    path = folder / "int8.tflite"
    path.write_bytes(path.read_bytes()[:-20])


TAMPERED: dict[str, tuple[Callable[[Path], object], str]] = {
    "exchanged artifacts": (exchange, r"(int8|float32)\.tflite: "),
    "shuffled labels": (shuffle, r"labels\.txt: expected SHA-256"),
    "cut zip": (cut_zip, r"int8\.tflite: expected \d+ bytes"),
    "unknown file": (lambda b: (b / "run.sh").write_text("rm"), r"run\.sh is not in the manifest"),
    "missing card": (lambda b: (b / "model_card.md").unlink(), r"model_card\.md is missing"),
}


@pytest.mark.parametrize("how", TAMPERED)
def test_what_the_signed_manifest_does_not_list_is_found(how: str, signed: Path, key: SigningKey) -> None:
    change, words = TAMPERED[how]
    change(signed)
    refused(signed, "hash", words, Trust(key.public))
    refused(signed, "hash", words, Trust())  # the same without a key: hashes need none


def test_a_removed_signature_is_found_without_any_key(signed: Path) -> None:
    (signed / SIGNATURE_FILE).unlink()
    with pytest.raises(VerifyError, match=r"failed at signature.*removed or exchanged"):
        read_bundle(signed)


def test_an_exchanged_signature_is_found_without_any_key(signed: Path, tmp_path: Path) -> None:
    other = read_signing_key(new_key(tmp_path / "other").private)
    (signed / SIGNATURE_FILE).write_bytes(sign((signed / MANIFEST).read_bytes(), other))
    with pytest.raises(VerifyError, match=r"failed at signature.*removed or exchanged"):
        read_bundle(signed)


def test_a_rewritten_manifest_is_found_with_the_key_and_called_unsigned_without(signed: Path, key: SigningKey) -> None:
    (signed / SIGNATURE_FILE).unlink()
    shuffle(signed)
    body = json.loads((signed / MANIFEST).read_bytes())
    del body["manifest_sha256"]
    labels = (signed / "labels.txt").read_bytes()
    body |= {"signed_by": None}
    body["files"]["labels.txt"] = {"bytes": len(labels), "sha256": sha256(labels)}
    (signed / MANIFEST).write_bytes(canonical_json({**body, "manifest_sha256": sha256(canonical_json(body))}))
    refused(signed, "signature", "is unsigned", Trust(key.public))
    assert read_bundle(signed).signature.key_id is None
    refused(signed, "flatbuffer", r"labels\.txt: expected the 10 labels", Trust())


def relabel_inside(files: Bundle) -> None:
    data = files["int8.tflite"]
    place = data.rindex(b"PK\x03\x04")
    swapped = [LABELS[1], LABELS[0], *LABELS[2:]]
    file = io.BytesIO(data[:place])
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("labels.txt", "".join(f"{label}\n" for label in swapped))
    files["int8.tflite"] = file.getvalue()
    report = json.loads(files["report.json"])
    variant = next(v for v in report["variants"] if v["recipe"] == "int8")
    variant["bytes"] = len(files["int8.tflite"])
    files["report.json"] = canonical_json(report)


def strip_metadata(files: Bundle) -> None:
    data = files["int8.tflite"]
    files["int8.tflite"] = data.replace(b"TFLITE_METADATA", b"TFLITE_METADATX")


FORGED: dict[str, tuple[Callable[[Bundle], None], str, str]] = {
    "other labels inside": (relabel_inside, "flatbuffer", r"int8\.tflite: the labels inside it"),
    "no metadata": (strip_metadata, "flatbuffer", r"int8\.tflite: it holds no TFLite metadata"),
    "other golden answers": (lambda f: f.update({"golden.npz": f["report.md"]}), "flatbuffer", r"golden\.npz cannot"),
}


@pytest.mark.parametrize("how", FORGED)
def test_later_layers_do_not_lean_on_the_signature(how: str, signed: Path, key: SigningKey) -> None:
    """Whoever signs can sign rubbish: a valid signature does not spare the other layers."""
    change, layer, words = FORGED[how]
    manifest = json.loads((signed / MANIFEST).read_bytes())
    files = {name: (signed / name).read_bytes() for name in manifest["files"]}
    change(files)
    shutil.rmtree(signed)
    about = {name: manifest[name] for name in ("provenance", "versions", "weights_sha256")}
    write_bundle(signed, files, about, sign_with=key)
    refused(signed, layer, words, Trust(key.public))


WATCHED = """
import sys
seen = []
sys.addaudithook(lambda event, args: seen.append(event) if event == "subprocess.Popen" else None)
from export import verify_bundle
from fl_mobile.errors import VerifyError
try:
    verify_bundle(sys.argv[1])
except VerifyError as error:
    print(error)
print(seen, [name for name in sys.modules if name.startswith("ai_edge_litert.") or name == "tensorflow"])
"""


def test_nothing_native_is_loaded_before_the_hashes_fit(signed: Path) -> None:
    """For a folder with one bad byte no runtime is imported and no child is started."""
    path = signed / "float16.tflite"
    path.write_bytes(path.read_bytes()[:-1])
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, str(signed)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    message, seen = done.stdout.splitlines()
    assert "failed at hash, flatbuffer, parity not checked" in message
    assert seen == "[] []", done.stderr


def test_the_folder_name_of_the_signature_is_taken(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="not plain"):
        write_bundle(tmp_path / "out", {SIGNATURE_FILE: b"x"}, {})
