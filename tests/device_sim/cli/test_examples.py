"""Every example in every verb's help, run to its end in one folder, in the order of the help."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from device_sim.datasets import load_dataset
from device_sim.experiment.toml import parse_experiment, to_toml
from export.runtimes import RUNTIMES
from tests.device_sim.cli.test_cli import NAMES, examples
from tests.device_sim.cli_runs import SMALL, command, environment, fl_mobile, interruptible

pytestmark = [pytest.mark.tf, pytest.mark.slow]

MAKERS = ("simulate", "keys")
"""Their examples make what other verbs' examples read."""

SERVING = ("camera", "demo")
"""They end with Ctrl-C."""

TOGETHER = ("serve", "client")
"""Each needs the other: tests/device_sim/deploy/test_commands.py runs their examples side by side."""

DEMO = ("simulate", "--out", "runs/demo", "--rounds", "25", "--quiet")
"""What other verbs find in ``runs/demo`` is `make demo` with fewer rounds: a model that has learnt its digits.

Two rounds are an example of `simulate`, but what they leave (46 % accuracy) is rightly refused by the tuned recipes."""

SEARCH = """
trials = 1
seeds = 1
[experiment]
data = { dataset = "digits" }
model = { name = "logistic" }
train = { rounds = 1 }
[search]
"train.learning-rate" = { low = 0.01, high = 0.3, log = true }
"""

PHONE_LOG = """\
Num threads: [1]
Graph: [/data/local/tmp/int8.tflite]
The input model file size (MB): {megabytes}
count=50 first=33228 curr=33130 min=32687 max=33239 avg=33071.8 std=129
Inference timings in us: Init: 3501, First inference: 156677, Warmup (avg): 43268.1, Inference (avg): 3.30718e+04
Memory footprint delta from the start of the tool (MB): init=54.2852 overall=73.4102
"""


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    """What ``ray start --head`` starts; an example takes for given that one runs, and finds it as users do."""
    pytest.importorskip("ray", reason="Ray is an extra: pip install 'fl-mobile[ray]'")
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "RAY_ADDRESS", cluster.address)
        yield
    cluster.shutdown()


@pytest.fixture(scope="module")
def workplace(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the examples take for given: files of the user's own, and the runs that `simulate` makes."""
    here = tmp_path_factory.mktemp("examples")
    (here / "search.toml").write_text(SEARCH)
    (here / "experiment.toml").write_text(to_toml(parse_experiment("", [c for c in SMALL if c != "--set"])))
    digits = load_dataset("mnist-5k", seed=0).train
    np.savez(here / "mine.npz", x=np.roll(digits.x[:2000], 1, axis=2), y=digits.y[:2000])  # others than devices hold
    for verb in MAKERS:
        for arguments in examples(verb):
            ended = fl_mobile(*arguments, cwd=here)
            assert ended.code == 0, (arguments, ended.err)
    shutil.rmtree(here / "runs/demo")
    ended = fl_mobile(*DEMO, cwd=here)
    assert ended.code == 0, ended.err
    megabytes = (here / "runs/demo/bundle/int8.tflite").stat().st_size / 1e6
    for number in (1, 2):
        (here / f"int8-{number}.txt").write_text(PHONE_LOG.format(megabytes=megabytes))
    shutil.copytree(here / "runs/digits", here / "runs/none")
    return here


@pytest.mark.parametrize("verb", [name for name in NAMES if name not in (*MAKERS, *TOGETHER)])
def test_every_example_in_the_help_really_works(workplace: Path, verb: str) -> None:
    for arguments in examples(verb):
        if "litert-js" in arguments and RUNTIMES["litert-js"].missing():
            continue
        if verb in SERVING:
            _serves_until_ctrl_c(arguments, workplace)
        else:
            ended = fl_mobile(*arguments, cwd=workplace)
            assert ended.code == 0, (arguments, ended.err)


def _serves_until_ctrl_c(arguments: list[str], cwd: Path) -> None:
    child = subprocess.Popen(
        command(*arguments),
        cwd=cwd,
        env=environment(BROWSER="true"),
        preexec_fn=interruptible,
        text=True,  # type: ignore[arg-type]
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stdout.readline(), "it ended before it served"
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 0, (arguments, out, err)
