"""A bundle is whole or refused, and the refusal names the file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export import verify_bundle
from export.benchmark.latency import host_latency
from export.bundles.folder import MANIFEST, canonical_json, read_bundle, sha256, write_bundle
from export.convert.recipes import RECIPES
from export.verify.golden import Golden, choose_frames, pack_golden, unpack_golden
from fl_mobile.errors import ExportError, VerifyError
from tests.export.convert.topologies import LABELS, Digits

pytestmark = pytest.mark.tf
ROOT = Path(__file__).parents[3]
FILES = ["float32.tflite", "int8.tflite", "labels.txt", "golden.npz", "report.json", "report.md", "model_card.md"]
FILES.append(MANIFEST)


@pytest.fixture
def bundle(whole_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole_bundle, tmp_path / "bundle"))


def forge(bundle: Path, change: Callable[[dict[str, bytes]], None]) -> None:
    """Changes files and writes a manifest that fits them, as a careful forger would."""
    manifest = json.loads((bundle / MANIFEST).read_bytes())
    files = {name: (bundle / name).read_bytes() for name in manifest["files"]}
    change(files)
    about = {key: manifest[key] for key in ("provenance", "versions", "weights_sha256")}
    shutil.rmtree(bundle)
    write_bundle(bundle, files, about)


def edit_report(files: dict[str, bytes], change: Callable[[Any], object]) -> None:
    report = json.loads(files["report.json"])
    change(report)
    files["report.json"] = canonical_json(report)


def test_whole_bundle_is_proven(bundle: Path, model: Any, data: Digits) -> None:
    assert sorted(os.listdir(bundle)) == sorted(FILES)
    proof = verify_bundle(bundle, model=model, x=data.x_test, y=data.y_test)
    assert {r.recipe for r in proof.replays} == {"float32", "int8"}
    assert {"litert", "litert-compiled"} <= {r.runtime for r in proof.replays}
    assert {r.frames for r in proof.replays} == {16}
    assert [parity.recipe for parity in proof.parities] == ["float32", "int8"]


def test_report_says_what_was_measured(bundle: Path, model: Any, data: Digits) -> None:
    report = json.loads((bundle / "report.json").read_text())
    assert report["labels"] == {"probabilities": LABELS}
    assert [end["head"] for end in report["model"]["outputs"]] == ["logits"]
    assert report["provenance"] == {"experiment": "0123abcd"}
    assert report["calibration"]["frames"] == 100
    for variant in report["variants"]:
        artifact = (bundle / variant["file"]).read_bytes()
        assert variant["bytes"] == len(artifact)
        assert variant["sha256"] == sha256(artifact)
        assert 0 < variant["zipped_bytes"] < variant["bytes"]
        assert variant["weights"] == report["model"]["parameters"]
        assert variant["builtin_ops_only"] is True
    text = (bundle / "report.md").read_text()
    assert all(f"`{variant['recipe']}`" in text for variant in report["variants"])


@pytest.mark.parametrize("name", FILES)
def test_flipped_byte_anywhere_is_found(name: str, bundle: Path) -> None:
    good = (bundle / name).read_bytes()
    for place in np.linspace(0, len(good) - 1, 12, dtype=int):
        for mask in (0x01, 0x80):
            damaged = bytearray(good)
            damaged[place] ^= mask
            (bundle / name).write_bytes(damaged)
            with pytest.raises(VerifyError, match=name.replace(".", r"\.")):
                verify_bundle(bundle)


@pytest.mark.parametrize("name", FILES)
def test_truncated_longer_or_missing_file_is_found(name: str, bundle: Path) -> None:
    good = (bundle / name).read_bytes()
    for damaged in (good[:-1], good[: len(good) // 2], b"", good + b"\n"):
        (bundle / name).write_bytes(damaged)
        with pytest.raises(VerifyError, match=name.replace(".", r"\.")):
            verify_bundle(bundle)
    (bundle / name).unlink()
    with pytest.raises(VerifyError, match=name.replace(".", r"\.")):
        verify_bundle(bundle)


def test_extra_file_link_and_no_folder(bundle: Path, tmp_path: Path) -> None:
    (bundle / "extra.bin").write_bytes(b"1")
    with pytest.raises(VerifyError, match=r"extra\.bin is not in the manifest"):
        verify_bundle(bundle)
    (bundle / "extra.bin").unlink()
    (bundle / "labels.txt").rename(tmp_path / "labels.txt")
    (bundle / "labels.txt").symlink_to(tmp_path / "labels.txt")
    with pytest.raises(VerifyError, match="not a regular file"):
        verify_bundle(bundle)
    with pytest.raises(VerifyError, match="not a bundle folder"):
        verify_bundle(tmp_path / "nowhere")


@pytest.mark.parametrize("evil", ["../labels.txt", "/etc/passwd", "a/b", "", ".hidden", "manifest\n"])
def test_manifest_cannot_name_other_places(evil: str, bundle: Path) -> None:
    manifest = json.loads((bundle / MANIFEST).read_bytes())
    del manifest["manifest_sha256"]
    manifest["files"][evil] = {"bytes": 1, "sha256": "0" * 64}
    body = {**manifest, "manifest_sha256": sha256(canonical_json(manifest))}
    (bundle / MANIFEST).write_bytes(canonical_json(body))
    with pytest.raises(VerifyError, match="plain file names"):
        read_bundle(bundle)


def zero_a_kernel(files: dict[str, bytes]) -> None:
    from tests.export.verify.test_verify import overwrite_buffers

    files["int8.tflite"] = overwrite_buffers(files["int8.tflite"], lambda b: bytes(len(b)))


def swap_artifacts(files: dict[str, bytes]) -> None:
    files["int8.tflite"], files["float32.tflite"] = files["float32.tflite"], files["int8.tflite"]


def shuffle_labels(files: dict[str, bytes]) -> None:
    files["labels.txt"] = b"".join(reversed(files["labels.txt"].splitlines(keepends=True)))


def other_golden_frames(files: dict[str, bytes]) -> None:
    golden = unpack_golden(files["golden.npz"])
    turned = {name: frames[::-1] for name, frames in golden.frames.items()}
    files["golden.npz"] = pack_golden(Golden(turned, golden.labels, golden.keras, golden.outputs))


def drop_golden_output(files: dict[str, bytes]) -> None:
    golden = unpack_golden(files["golden.npz"])
    outputs = {"float32": golden.outputs["float32"]}
    files["golden.npz"] = pack_golden(Golden(golden.frames, golden.labels, golden.keras, outputs))


FORGERIES: dict[str, tuple[Callable[[dict[str, bytes]], None], str]] = {
    "zeroed-kernel": (zero_a_kernel, r"int8\.tflite on litert: golden outputs differ"),
    "swapped-artifacts": (swap_artifacts, r"\.tflite: ops differ from the report"),
    "shuffled-labels": (shuffle_labels, r"labels\.txt: expected the 10 labels of report\.json in their order"),
    "golden-frames": (other_golden_frames, "golden outputs differ"),
    "golden-output-missing": (drop_golden_output, "golden output; at odds: int8"),
    "garbage-artifact": (lambda f: f.update({"int8.tflite": b"garbage!"}), r"int8\.tflite: not a TFLite flatbuffer"),
    "garbage-golden": (lambda f: f.update({"golden.npz": b"PK"}), "golden.npz cannot be read"),
    "garbage-report": (lambda f: f.update({"report.json": b"{"}), r"report\.json is not JSON"),
    "empty-report": (lambda f: f.update({"report.json": b"{}"}), "lists no variants"),
    "report-without-model": (lambda f: edit_report(f, lambda r: r.pop("model")), r"report\.json lacks.*model"),
    "hollow-report": (lambda f: f.update({"report.json": b'{"variants": [{}]}'}), "report.json lacks"),
    "no-labels": (lambda f: f.pop("labels.txt"), r"labels\.txt is missing"),
    "unlisted-artifact": (lambda f: f.update({"old.tflite": f["int8.tflite"]}), "artifact; at odds: old"),
    "wrong-weights": (
        lambda f: edit_report(f, lambda r: r["variants"][0].update(weights=1)),
        r"float32\.tflite: weights differ from the report",
    ),
    "wrong-signature": (
        lambda f: edit_report(f, lambda r: r["variants"][1]["signature"]["inputs"][0].update(scale=0.5)),
        r"int8\.tflite: signature differ",
    ),
    "unknown-recipe": (
        lambda f: edit_report(f, lambda r: r["variants"][1].update(recipe="int7")),
        "not a known recipe",
    ),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_consistent_forgery_is_found(forgery: str, bundle: Path) -> None:
    change, message = FORGERIES[forgery]
    forge(bundle, change)
    with pytest.raises(VerifyError, match=message):
        verify_bundle(bundle)


def test_another_model_is_refused(bundle: Path, model_of: Any) -> None:
    with pytest.raises(VerifyError, match="made from weights"):
        verify_bundle(bundle, model=model_of("functional-batchnorm"))
    for half in ({"x": 1, "y": 1}, {"model": 1, "x": 1}, {"y": 1}):
        with pytest.raises(VerifyError, match="together"):
            verify_bundle(bundle, **half)


def test_verifying_needs_no_tensorflow(bundle: Path) -> None:
    script = (
        "import sys\n"
        "sys.modules['tensorflow'] = None; sys.modules['keras'] = None\n"
        "from export import verify_bundle\n"
        "proof = verify_bundle(sys.argv[1])\n"
        "print(sorted({r.runtime for r in proof.replays}), proof.missing_runtimes['tf-lite'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(bundle)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("['litert', 'litert-compiled'")
    assert "tensorflow is not installed" in done.stdout


def test_importing_export_loads_no_tensorflow() -> None:
    script = "import sys, export; sys.exit(any(name in sys.modules for name in ('tensorflow', 'keras', 'tf_keras')))"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0


def test_failed_proof_and_full_disk_leave_nothing(tmp_path: Path) -> None:
    def refuse(_: Path) -> None:
        raise VerifyError("no")

    with pytest.raises(VerifyError):
        write_bundle(tmp_path / "out", {"a.txt": b"1"}, {}, prove=refuse)

    def disk_full(_: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_bundle(tmp_path / "out", {"a.txt": b"1"}, {}, prove=disk_full)
    assert list(tmp_path.iterdir()) == []


def test_existing_folder_is_never_overwritten(tmp_path: Path) -> None:
    write_bundle(tmp_path / "out", {"a.txt": b"1"}, {})
    before = (tmp_path / "out" / MANIFEST).read_bytes()
    with pytest.raises(ExportError, match="exists already"):
        write_bundle(tmp_path / "out", {"a.txt": b"2"}, {})
    assert (tmp_path / "out" / MANIFEST).read_bytes() == before

    def appear(_: Path) -> None:
        (tmp_path / "late").mkdir()

    with pytest.raises(ExportError, match="exists already"):
        write_bundle(tmp_path / "late", {"a.txt": b"1"}, {}, prove=appear)


@pytest.mark.parametrize("name", ["../a", "a/b", MANIFEST, "", ".x"])
def test_bundle_file_names_are_plain(name: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="not plain"):
        write_bundle(tmp_path / "out", {name: b"1"}, {})


def test_golden_round_trip_is_exact_and_reproducible() -> None:
    rng = np.random.default_rng(1)
    golden = Golden(
        {"image": rng.integers(0, 256, (4, 2, 2, 1)).astype(np.uint8), "file": rng.random((4, 5), np.float32)},
        {"digit": np.arange(4)},
        {"digit": rng.random((4, 3), np.float32), "angle": rng.random((4, 1), np.float32)},
        {"int8": {"digit": rng.integers(0, 256, (4, 3)).astype(np.uint8), "angle": rng.random((4, 1), np.float32)}},
    )
    packed = pack_golden(golden)
    assert packed == pack_golden(golden)
    back = unpack_golden(packed)
    for ours, theirs in (
        (back.frames, golden.frames),
        (back.labels, golden.labels),
        (back.keras, golden.keras),
        (back.outputs["int8"], golden.outputs["int8"]),
    ):
        assert list(ours) == list(theirs)
        assert all((ours[name] == theirs[name]).all() for name in theirs)


def test_golden_survives_any_bytes() -> None:
    zeros = {"a": np.zeros((2, 3), np.float32)}
    good = pack_golden(Golden(zeros, {"a": np.arange(2)}, zeros, {"int8": zeros}))
    rng = np.random.default_rng(2)
    for _ in range(800):
        bad = bytearray(good[: rng.integers(0, len(good) + 1)])
        for place in rng.integers(0, max(1, len(bad)), 3):
            bad[place : place + 1] = bytes([rng.integers(0, 256)])
        try:
            unpack_golden(bytes(bad))
        except VerifyError:
            continue


def test_golden_refuses_a_claim_of_terabytes_and_objects() -> None:
    import io
    import zipfile

    for descr, shape in (("<f4", (10**13,)), ("|O", (1,))):
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": descr, "fortran_order": False, "shape": shape})
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("frames.npy", header.getvalue())
        with pytest.raises(VerifyError, match=r"but holds 0|Python objects"):
            unpack_golden(archive.getvalue())


def test_choose_frames_shows_every_class_first() -> None:
    labels = np.array([3] * 50 + [1, 2, 0])
    chosen = choose_frames(labels)
    assert len(chosen) == 16
    assert set(labels[chosen]) == {0, 1, 2, 3}


def test_latency_says_how_it_was_taken(whole_bundle: Path, data: Digits) -> None:
    artifact = (whole_bundle / "float32.tflite").read_bytes()
    latency = host_latency(artifact, {"image": data.x_test[0]}, threads=2, runs=20)
    assert (latency.threads, latency.runs, latency.runtime) == (2, 20, "litert")
    assert 0 < latency.p50_ms <= latency.p90_ms
    assert latency.label == "this host, not a phone"


def test_tolerances_replay_tighter_than_parity() -> None:
    for recipe in RECIPES.values():
        assert 0 < recipe.tolerance.replay_abs <= recipe.tolerance.max_abs
