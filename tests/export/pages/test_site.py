"""What the page is told about a bundle, and which bundles it does not get."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_sim.cli.in_browser import bundle_in
from export.bundles.folder import read_bundle
from export.model.serving import SIGNATURE
from export.pages import PAGES, page_resources
from export.pages.camera import described
from export.pages.site import page_of, refuse, suiting
from export.runtimes import answers, real_values
from export.tflite.graph import read_graph
from export.verify.golden import unpack_golden
from fl_mobile.errors import ConfigError, ExportError, VerifyError
from tests.export.pages.conftest import RECIPES_HERE

pytestmark = pytest.mark.tf


def test_the_page_is_told_the_truth(whole_bundle: Path) -> None:
    bundle = read_bundle(whole_bundle)
    told = described(bundle)
    golden = unpack_golden(bundle.files["golden.npz"])
    assert told["input"] == {
        "name": "image",
        "dtype": "uint8",
        "shape": [8, 8, 1],
        "height": 8,
        "width": 8,
        "channels": 1,
    }
    assert told["labels"] == [f"digit {n}" for n in range(10)]
    assert base64.b64decode(told["golden"]["frames"]) == golden.frames["image"].tobytes()
    for variant in told["variants"]:
        data = bundle.files[variant["url"][1:]]
        end = read_graph(data).signature(SIGNATURE).outputs[0]
        rows = real_values(end, answers("litert", data, golden.frames["image"]))
        assert variant["golden"] == rows.argmax(axis=1).tolist()
        stored = {"dtype": end.dtype, "scale": end.scale, "zeroPoint": end.zero_point}
        assert variant["output"] == {"name": end.name, **stored}
        assert variant["bytes"] == len(data)
    assert json.loads(json.dumps(told)) == told


def damage_artifact(bundle: Path) -> None:
    file = bundle / "int8.tflite"
    file.write_bytes(file.read_bytes()[:-1] + b"\xff")


def add_file(bundle: Path) -> None:
    (bundle / "extra.js").write_text("alert(1)")


def rename_labels(bundle: Path) -> None:
    (bundle / "labels.txt").write_text("cat\n" * 10)


@pytest.mark.parametrize("damage", [damage_artifact, add_file, rename_labels])
def test_a_damaged_bundle_is_not_served(damage: Callable[[Path], None], whole_bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(whole_bundle, tmp_path / "bundle"))
    damage(copy)
    with pytest.raises(VerifyError):
        page_resources(copy)[1]


def test_a_bundle_that_lies_with_good_hashes_is_not_served(whole_bundle: Path, tmp_path: Path) -> None:
    """The manifest fits, but the artifact does not answer the golden frames as the bundle says."""
    from export.bundles.folder import write_bundle

    bundle = read_bundle(whole_bundle)
    files = dict(bundle.files)
    golden = unpack_golden(files["golden.npz"])
    from export.verify.golden import Golden, pack_golden

    outputs = {recipe: rows["probabilities"] for recipe, rows in golden.outputs.items()}
    wrong = {recipe: {"probabilities": np.roll(rows, 1, axis=1)} for recipe, rows in outputs.items()}
    files["golden.npz"] = pack_golden(Golden(golden.frames, golden.labels, golden.keras, wrong))
    about = {k: v for k, v in bundle.manifest.items() if k not in ("files", "schema", "manifest_sha256")}
    write_bundle(tmp_path / "lie", files, about)
    with pytest.raises(VerifyError, match="golden outputs differ"):
        page_resources(tmp_path / "lie")


@pytest.mark.parametrize(
    ("shape", "dtype"), [([1, 30], "float32"), ([1, 8, 8, 1], "float32"), ([1, 8, 8, 2], "uint8"), ([1, 64], "uint8")]
)
def test_other_inputs_are_refused_by_name(shape: list[int], dtype: str, whole_bundle: Path) -> None:
    bundle = read_bundle(whole_bundle)
    report: dict[str, Any] = json.loads(bundle.files["report.json"])
    report["model"]["inputs"] = [{"name": "image", "shape": shape, "dtype": dtype}]
    changed = type(bundle)(bundle.path, {**bundle.files, "report.json": json.dumps(report).encode()}, bundle.manifest)
    with pytest.raises(ExportError, match=rf"camera page needs .* this one takes {dtype}\["):
        refuse(changed, "camera")
    refuse(bundle, "camera")


@pytest.mark.slow
def test_only_the_bundle_and_the_page_are_in_it(browser: None, digits_bundle: Path) -> None:
    paths = set(page_resources(digits_bundle)[1])
    assert {f"/{name}.tflite" for name in RECIPES_HERE} <= paths
    assert {"/", "/bundle.json", "/camera.js"} <= paths
    assert not paths & {"/golden.npz", "/manifest.json", "/report.json", "/runner.js"}


def test_every_bundle_gets_the_page_of_its_task(
    whole_bundle: Path, keyboard_bundle: Path, shaking_bundle: Path, tmp_path: Path
) -> None:
    pages = {"camera": whole_bundle, "keyboard": keyboard_bundle, "sensor": shaking_bundle}
    for name, path in pages.items():
        assert page_of(path) == name
        for other, row in PAGES.items():
            assert (row.refused(read_bundle(path)) == "") == (other == name), (name, other)
    run = tmp_path / "run"
    shutil.copytree(keyboard_bundle, run / "bundle")
    assert bundle_in(run) == run / "bundle", "a run is as good as its bundle"
    assert bundle_in(keyboard_bundle) == keyboard_bundle


def test_a_task_without_a_page_is_refused_by_name(keyboard_bundle: Path) -> None:
    bundle = read_bundle(keyboard_bundle)
    told = json.loads(bundle.files["task.json"])
    del told["output"]["next"]
    files = {**bundle.files, "task.json": json.dumps(told).encode()}
    tags = type(bundle)(bundle.path, files, bundle.manifest)
    with pytest.raises(ExportError, match=r"no page shows this model: .*camera page.*keyboard page.*task sequence"):
        suiting(tags)
    with pytest.raises(ConfigError, match="unknown page 'keybord'"):
        page_resources(keyboard_bundle, page="keybord")
