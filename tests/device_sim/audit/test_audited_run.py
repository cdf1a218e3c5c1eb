"""A run audited from the command line: numbers, page and pictures; the run itself is left as it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.device_sim.cli_runs import fl_mobile

pytestmark = pytest.mark.tf

RUN = (
    *("simulate", "--quiet", "--no-export", "--rounds", "2", "--set", "data.dataset=digits", "--set"),
    *("model.name=logistic", "--set", "train.epochs=1", "--set", "engine.workers=1"),
)


def test_a_run_is_audited_and_left_as_it_was(tmp_path: Path) -> None:
    made = fl_mobile(*RUN, "--set", "upload.codec=q8", "--out", "run", cwd=tmp_path)
    assert made.code == 0, made.err
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    done = fl_mobile("audit", "run", "--quiet", "--format", "json", cwd=tmp_path)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert all(path.read_bytes() == content for path, content in before.items())
    as_it_ran, noisy = found["canaries"]["as_it_ran"], found["canaries"]["with_noise"]
    assert as_it_ran["epsilon_low"] > noisy["epsilon_low"]
    assert noisy["epsilon_low"] <= noisy["claimed_epsilon"] == pytest.approx(4.377, abs=0.01)
    assert -1 <= found["membership"]["low"] <= found["membership"]["high"] <= 1
    by_update = {(one["batch"], one["update"]): one for one in found["reconstruction"]}
    (alone,) = by_update[1, "the update itself"]["psnr_db"]
    (guess,) = by_update[1, "the update itself"]["mean_picture_psnr_db"]
    (hidden,) = by_update[1, "clipped, noise 1"]["psnr_db"]
    assert by_update[1, "the update itself"]["method"] == "analytic"
    assert alone > 40 > guess
    assert hidden < guess
    (in_a_sum,) = by_update[1, "the sum of 10 clients, all that masks show"]["psnr_db"]
    assert in_a_sum < alone - 20
    assert by_update[1, "decoded from q8"]["psnr_db"][0] > guess
    page = (tmp_path / "run" / "audit.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 2
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")
    assert json.loads((tmp_path / "run" / "audit.json").read_text())["membership"] == found["membership"]


def test_mistakes_are_told_before_anything_is_loaded(tmp_path: Path) -> None:
    for arguments, says in (
        (("audit", "nowhere"), "holds no run"),
        (("audit", "nowhere", "--noise", "0.1"), "--noise must be from 0.3 to 1000, got 0.1"),
        (("audit", "nowhere", "--delta", "0"), "--delta must be above 0 and below 1"),
        (("audit", "nowhere", "--out", "audit.txt"), "an audit is an HTML file"),
    ):
        ended = fl_mobile(*arguments, cwd=tmp_path)
        assert ended.code in (3, 7)
        assert says in ended.err
        assert "Traceback" not in ended.err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "keys"),
    [
        ("central", ("selection.sampler=poisson", "upload.codec=auto")),
        ("local", ("upload.codec=none",)),
        ("distributed", ("masks.group=10", "upload.codec=sketch:k=256")),
    ],
)
def test_what_a_private_run_claims_is_not_exceeded(mode: str, keys: tuple[str, ...], tmp_path: Path) -> None:
    private = (f"mode={mode}", "noise-multiplier=1.0", "delta=1e-3", "reproducible=true")
    sets = [part for key in (*(f"privacy.{key}" for key in private), *keys) for part in ("--set", key)]
    made = fl_mobile(*RUN, *sets, "--out", "run", cwd=tmp_path)
    assert made.code == 0, made.err
    done = fl_mobile("audit", "run", "--quiet", "--format", "json", cwd=tmp_path)
    assert done.code == 0, done.err
    found = json.loads(done.out)["canaries"]["as_it_ran"]
    assert found["claimed_epsilon"] == pytest.approx({"local": 10.0}.get(mode, 4.377), abs=0.1)
    assert found["epsilon_low"] <= found["claimed_epsilon"]
