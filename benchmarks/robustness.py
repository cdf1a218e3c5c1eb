"""Rules × attacks: what 20 % malicious phones cost, by rule (issue 16).

    python benchmarks/robustness.py digits [--seeds 3] [--out FOLDER]
    python benchmarks/robustness.py mnist

`fl-mobile sweep` over two keys, on a network of NumPy (one hidden layer of 32 units with batch normalization) so that
it takes minutes and no TensorFlow: everything else, from the partition to codec, wire and server, is the product's.
100 phones, Dirichlet 0.5, 20 of them malicious, whoever is asked. Accuracy in %, mean of the last ten rounds and of the
seeds; killed, it goes on where it was. Leaves sweep.json and heat-map.svg in the folder.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from device_sim.client_data.data import DealtData
from device_sim.experiment.experiment import Experiment
from device_sim.experiment.toml import parse_experiment, to_toml
from device_sim.federation.dealing import deal_out, open_dataset
from device_sim.federation.federation import Federation, assemble
from device_sim.fleet.devices.timing import Workload
from device_sim.run.log import Round
from device_sim.sweep.files import write_results
from device_sim.sweep.heat_map import draw_heat_map, grid_of
from device_sim.sweep.plan import SweepPlan
from device_sim.sweep.run import Sweep, run_sweep
from device_sim.sweep.search import open_search
from tests.crossings.numpy_mlp import NumpyMlp, engine_of

HIDDEN = 32
SHARED = """
[data]
devices = 100
alpha = 0.5
[train]
rounds = 30
batch-size = 10
learning-rate = 0.1
[fleet]
link = "wifi"
[output]
keep-updates = 0
recipes = []
timeline-rounds = 0
"""
TASKS = {
    "digits": ("data.dataset=digits", "train.cohort=50", "train.epochs=3"),
    "mnist": ("data.dataset=mnist-5k", "train.cohort=30", "train.epochs=1"),
}
RULES = ("mean", "norm-bound", "multi-krum", "fltrust", "median", "centered-clipping")
ATTACKS = ("none", "label-flip", "sign-flip", "gaussian", "alie", "ipm", "min-max")


def opened(experiment: Experiment) -> Federation:
    """Returns the federation on a NumPy engine."""
    dataset = open_dataset(experiment)
    data = DealtData(dataset.train, tuple(deal_out(experiment, dataset)))
    inputs = dataset.train.x[0].size
    engine = engine_of(NumpyMlp(inputs, (HIDDEN,), dataset.num_classes, norm=True, seed=experiment.seed))
    return assemble(experiment, dataset, data, engine, Workload(5000, 5000, 5000), lambda: None)


def watch(title: str, rounds: Iterator[Round], _: int) -> None:
    """Plays a run and prints what it reached."""
    (*_, last) = rounds
    print(f"{title}: {last.accuracy:.3f}", flush=True)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rules", nargs="+", default=RULES)
    parser.add_argument("--attacks", nargs="+", default=ATTACKS)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    base = parse_experiment(SHARED, TASKS[asked.task])
    space = {"server.aggregation": tuple(asked.rules), "attack.name": tuple(asked.attacks)}
    plan = SweepPlan(base, space, seeds=asked.seeds, sampler="grid", objectives=("accuracy",))
    out = asked.out or Path("runs") / f"robustness-{asked.task}"
    results = run_sweep(Sweep(base, asked.seeds, out, watch, open=opened), open_search(plan))
    search = {key: list(values) for key, values in space.items()}
    write_results(out, {"experiment": to_toml(base), "seeds": asked.seeds, "search": search}, results, ["accuracy"])
    grid = grid_of(results, base, search)
    assert grid is not None
    draw_heat_map(grid, out / "heat-map.svg")
    print(f"\n| rule | {' | '.join(grid.columns)} |\n|{'---|' * (1 + len(grid.columns))}")
    for row in grid.told():
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
