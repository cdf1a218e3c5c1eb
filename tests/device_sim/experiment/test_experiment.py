"""The experiment file: round trip, strictness, and errors a user can act on."""

from __future__ import annotations

import itertools
import math
import shlex
from dataclasses import dataclass, fields, is_dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sim.experiment.data import Data
from device_sim.experiment.experiment import Engine, Experiment, Server, Train, experiment_hash
from device_sim.experiment.toml import all_keys, parse_experiment, read_experiment, to_toml
from device_sim.experiment.tuning import Qat
from fl_mobile.algorithms import ALGORITHMS, AlgorithmRow, ServerPlan
from fl_mobile.errors import ConfigError
from fl_mobile.parameters import parameter
from fl_mobile.records import FitPlan
from fl_mobile.tensors import TensorSpec
from fl_mobile.wire.pruning_mask import PruningPlan


@pytest.mark.parametrize("comments", [True, False])
def test_toml_round_trip(comments: bool) -> None:
    experiment = Experiment(seed=7, data=Data(dataset='we"ird\n', alpha=0.1), train=Train(rounds=3, cohort=2))
    assert parse_experiment(to_toml(experiment, comments=comments)) == experiment


@given(
    sparsity=st.floats(1e-9, 0.999),
    begin=st.integers(0, 9),
    end=st.integers(0, 9),
    run=st.integers(1, 9),
    qat=st.integers(-1, 79),
)
def test_round_trip_of_tables_in_tables(sparsity: float, begin: int, end: int, run: int, qat: int) -> None:
    pruning = PruningPlan(sparsity, begin, begin + end, "constant", run)
    experiment = Experiment(train=Train(pruning=pruning, qat=Qat(qat)))
    for comments in (False, True):
        assert parse_experiment(to_toml(experiment, comments=comments)) == experiment
    assert experiment_hash(experiment) != experiment_hash(replace(experiment, train=Train(pruning=pruning, epochs=99)))


@given(seed=st.integers(0, 2**31), rate=st.floats(1e-6, 10), epochs=st.integers(1, 99), name=st.text(max_size=20))
def test_round_trip_of_any_values(seed: int, rate: float, epochs: int, name: str) -> None:
    experiment = Experiment(seed=seed, data=Data(path=name), train=Train(learning_rate=rate, epochs=epochs))
    assert parse_experiment(to_toml(experiment)) == experiment


def test_every_key_has_help_and_can_be_set() -> None:
    def check_help(record: object) -> None:
        for field in fields(record):  # type: ignore[arg-type]
            inner = getattr(record, field.name)
            if "rows" in field.metadata:
                for row in field.metadata["rows"].values():
                    check_help(row.parameters())
            elif is_dataclass(inner):
                assert (inner.__doc__ or "").partition(": ")[2], field.name
                check_help(inner)
            else:
                assert field.metadata["doc"], field.name

    check_help(Experiment())
    defaults, commented = to_toml(Experiment()), to_toml(Experiment(), comments=True)
    for key in all_keys():
        section, _, name = key.rpartition(".")
        inside = commented.partition(f"[{section}]\n")[2] if section else commented
        line = next(line for line in inside.splitlines() if line.removeprefix("# ").startswith(f"{name} = "))
        value = line.partition(" = ")[2].partition("  # ")[0]
        if line.startswith("# "):
            with pytest.raises(ConfigError, match=f"^--set {key}=.*: {key} does nothing with .*; it is read with "):
                parse_experiment("", [f"{key}={value}"])
            parse_experiment(f"[{section}]\n{name} = {value}")  # as files of earlier versions have it
        else:
            parse_experiment("", [f"{key}={value}"])
            assert f"\n{line.partition('  # ')[0]}\n" in f"\n{defaults}"


def rows_of_parameters() -> dict[str, str]:
    """Returns key of a parameter → the change by which some row that reads it is chosen."""
    out = {}
    for section in fields(Experiment):
        of = getattr(Experiment(), section.name)
        for f in (f for f in (fields(of) if is_dataclass(of) else ()) if "rows" in f.metadata):
            name = section.name.replace("_", "-")
            for row, record in f.metadata["rows"].items():
                for p in fields(record.parameters):
                    out.setdefault(f"{name}.{p.name.replace('_', '-')}", f"{name}.{f.metadata['by']}={row}")
    return out


def test_a_value_of_another_type_is_answered_with_an_example_that_the_key_takes() -> None:
    rows = rows_of_parameters()
    assert rows.keys() <= set(all_keys())
    for key in all_keys():
        chosen = [rows[key]] if key in rows else []
        section, _, name = key.rpartition(".")
        header = f"[{section}]\n" if section else ""
        for text, changes in (("", [f"{key}=[[1]]"]), (f"{header}{name} = [[1]]", [])):
            with pytest.raises(ConfigError, match=rf"{key} must be .*, got \[\[1\]\]; e\.g\. ") as caught:
                parse_experiment(text, [*chosen, *changes])
            example = str(caught.value).partition("; e.g. ")[2]
            assert not example.endswith(("=", '""', "[]", "[]'")), "an empty value tells nothing"
            if changes:
                option, change = shlex.split(example)
                assert option == "--set"
                told = refused("", [*chosen, change])
            else:
                told = refused(f"{header}{example}", chosen)
            # Fine, or another key is missing beside it; never its type, nor its range.
            assert not told or f"{key} does nothing with" in told or f"{key} is only for" in told, told


def refused(text: str, changes: list[str]) -> str:
    try:
        parse_experiment(text, changes)
    except ConfigError as error:
        return str(error)
    return ""


def test_the_example_for_a_size_of_pictures_is_one() -> None:
    with pytest.raises(ConfigError, match=r"quotes, got \[32, 32\]; e\.g\. --set data\.image-size=96x96$"):
        parse_experiment("", ["data.image-size=[32,32]"])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[trian]\nepochs = 1", ["line 1", "trian", "'train'"]),
        ("\n[train]\n\nepochz = 1", ["line 4", "epochz", "'epochs'"]),
        ("[train]\nepochs = 1.5", ["line 2", "train.epochs", "whole number", "1.5"]),
        ("[train]\nepochs = true", ["line 2", "whole number", "True"]),
        ("[train]\nepochs = 0", ["line 2", "train.epochs"]),
        ("[data]\ndevices = 5\n[train]\ncohort = 6", ["train.cohort (6)", "data.devices (5)"]),
        ("[upload]\ncodec = 'q9'", ["line 2", "q9", "'q8'"]),
        ("[upload]\ncodec = 'deflate+q8'", ["line 2", "prune → quantize → pack"]),
        ("[server]\nalgorithm = 'fedavgg'", ["line 2", "'fedavg'"]),
        ("[server]\nweighting = 'x'", ["line 2", "examples"]),
        ("train = 3", ["line 1", "must be a table"]),
        ("seed = 'x'", ["line 1", "whole number"]),
        ("[output]\nrecipes = [1]", ["line 2", "list of strings"]),
        ("[train]\n[train.pruning]\nsparsity = 1.5", ["line 3", "train.pruning.sparsity", "1.5"]),
        ("[train.pruning]\n\nsparsitty = 0.5", ["line 3", "'train.pruning.sparsitty'", "'sparsity'"]),
        ("[train.pruning]\nsparsity = 'most'", ["line 2", "train.pruning.sparsity", "a number"]),
        ("[train]\nepochs = 1\npruning.sparsity = 2", ["line 3", "train.pruning.sparsity"]),
        ("[train]\nepochs = 1\npruning = { schedule = 'x' }", ["line 3", "train.pruning.schedule"]),
        ("[train]\npruning = 0.8", ["line 2", "must be a table [train.pruning]"]),
        ("[train.prunning]\nsparsity = 0.8", ["line 1", "train.prunning", "'pruning'"]),
        (
            "[train]\nrounds = 5\n[train.pruning]\nsparsity = 0.8\nend-round = 5",
            ["end-round", "rounds is 5", "at most 4"],
        ),
        ("[train]\nrounds = 5\n[train.qat]\nbegin-round = 7", ["begin-round", "rounds is 5", "at most 4"]),
        ("[train.qat]\nbegin-round = -2", ["line 2", "-1 for off"]),
        ("[engine]\nname = 'litert'\n[train.qat]\nbegin-round = 1", ["litert", "rounding", "auto or keras"]),
        (
            "[personal]\nprivate = 'head'\n[output]\nrecipes = []\n[train.pruning]\nsparsity = 0.5",
            ["train.pruning", "personal.private 'head'", "to none"],
        ),
        ("[engine]\nname = 'litert'\n[train.pruning]\nsparsity = 0.5", ["litert", "keep zeros", "keras or vectorized"]),
        ("x = = 1", ["not valid TOML", "line 1"]),
    ],
)
def test_mistakes_name_line_and_remedy(text: str, told: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_experiment(text, where="mine.toml")
    for part in told:
        assert part in str(caught.value), str(caught.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("train.lr=1", "unknown key"),
        ("nonsense", "key=value"),
        ("train.epochs=many", "whole number"),
        ("=3", "key=value"),
    ],
)
def test_bad_set_options(change: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        parse_experiment("", [change])


def float_and_whole_keys() -> list[str]:
    """Every key that takes a number."""

    def of(record: object, path: tuple[str, ...] = ()) -> list[str]:
        out = []
        for f in fields(record):  # type: ignore[arg-type]
            value, at = getattr(record, f.name), (*path, f.name.replace("_", "-"))
            at = path if "rows" in f.metadata else at  # parameters stand beside the key that names their row
            out += of(value, at) if is_dataclass(value) else [".".join(at)] if type(value) in (int, float) else []
        return out

    return of(Experiment())


@pytest.mark.parametrize("value", ["nan", "-nan", "inf", "-inf", "1" + 400 * "0"])
@pytest.mark.parametrize("key", float_and_whole_keys())
def test_no_key_takes_a_number_that_is_not_finite(key: str, value: str) -> None:
    """House B4: nan and inf were written into the run's own experiment.toml, which could then not be read."""
    with pytest.raises(ConfigError, match=rf"^--set {key}=.*: {key} must be ") as told:
        parse_experiment("", [f"{key}={value}"])
    assert "\n" not in str(told.value)
    section, _, name = key.rpartition(".")
    with pytest.raises(ConfigError, match=rf"^mine\.toml, line {2 if section else 1}: {key} must be "):
        parse_experiment(f"[{section}]\n{name} = {value}" if section else f"{name} = {value}", where="mine.toml")


@pytest.mark.parametrize(
    ("kind", "section", "name"),
    [
        (kind, section.name, f.name)
        for section in fields(Experiment)
        if is_dataclass(kind := type(getattr(Experiment(), section.name)))
        for f in fields(kind)
        if type(getattr(getattr(Experiment(), section.name), f.name)) is float
    ],
)
def test_python_callers_are_refused_nan_too(kind: type, section: str, name: str) -> None:
    for value in (math.nan, math.inf):
        with pytest.raises(ConfigError):
            Experiment(**{section: kind(**{name: value})})


FEDADAM = "[server]\nalgorithm = 'fedadam'\nbeta1 = 0.8\n"


def test_keys_that_do_nothing_are_refused_where_they_are_written() -> None:
    for text, line, told in (
        ("[server]\n\nbeta1 = 0.8", 3, "server.beta1 does nothing with server.algorithm 'fedavg'; it is read with fed"),
        ("[fleet]\nmin-battery = 0.5", 2, "fleet.min-battery does nothing with fleet.availability 'always'"),
        ("[fleet]\navailability = 'diurnal'\navailability-file = 'x'", 3, "fleet.availability-file does nothing with"),
        ("[data]\nshards-per-device = 3", 2, "data.shards-per-device does nothing with data.partition ''"),
        ("[data]\npartition = 'iid'\nalpha = 0.5", 3, "data.alpha does nothing with data.partition 'iid'"),
        ("[policy]\nmin-update-norm = 1", 2, "policy.name 'every-round'; it is read with event"),
        ("[selection]\nexploration = 0.5", 2, "selection.sampler 'uniform'; it is read with oort"),
        ("[server]\naggregation = 'median'\ntrim = 0.2", 3, "'median'; it is read with trimmed-mean"),
        ("[train]\nmomentum = 0.5", 2, "train.momentum does nothing with train.optimizer 'sgd'"),
        ("[train.pruning]\nend-round = 7", 2, "does nothing with train.pruning.sparsity 0.0"),
        ("[train]\nepochs = 2\n[server]\nalgorithm = 'fedsgd'", 2, "train.epochs does nothing with server.algorithm"),
        ("[clock]\nbuffer = 3", 2, "clock.mode 'synchronous'; it is read with asynchronous"),
    ):
        with pytest.raises(ConfigError) as caught:
            parse_experiment(text, where="mine.toml")
        assert str(caught.value).startswith(f"mine.toml, line {line}: "), str(caught.value)
        assert told in str(caught.value)
    with pytest.raises(ConfigError, match=r"train\.momentum does nothing"):
        Experiment(train=Train(momentum=0.5))


def test_another_choice_takes_the_keys_of_the_first_away() -> None:
    """A change of the algorithm leaves out what the file says of the old one; it is no mistake to try another."""
    experiment = parse_experiment(FEDADAM, ["server.algorithm=fedprox", "server.proximal-mu=0.3"])
    assert experiment.server.build().plan(FitPlan()).proximal_mu == 0.3
    assert "beta1" not in to_toml(experiment)
    with pytest.raises(ConfigError, match=r"^--set server.beta1=0.7: server.beta1 does nothing"):
        parse_experiment(FEDADAM, ["server.algorithm=fedprox", "server.beta1=0.7"])
    kept = parse_experiment("[clock]\nmode = 'asynchronous'\nbuffer = 3", ["clock.mode=synchronous"])
    assert kept == Experiment()
    both = ["server.algorithm=fedprox", "server.beta1=0.7", "server.proximal-mu=0.3"]
    assert parse_experiment("", both, searched=True) == parse_experiment("", both[::2])


def test_parameters_belong_to_their_row() -> None:
    assert parse_experiment(FEDADAM).server == Server("fedadam", ALGORITHMS["fedadam"].parameters(beta1=0.8))
    with pytest.raises(ConfigError, match=r"server\.algorithm 'feddyn' takes the parameters Dynamic, got Proximal"):
        Server("feddyn", ALGORITHMS["fedprox"].parameters())
    trimmed = parse_experiment("", ["server.aggregation=trimmed-mean", "server.trim=0.4"]).server.rule()
    aggregate = trimmed.make({"w": TensorSpec((1,))})
    for value in (1.0, 2.0, 3.0, 4.0, 99.0):
        aggregate.add({"w": np.array([value], np.float32)}, 1)
    assert aggregate.result()["w"].tolist() == [3.0]


def test_a_new_row_brings_its_key_its_help_and_its_check(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True)
    class Patient(ServerPlan):
        patience: float = parameter(0.5, "how patient", at_least=0)

    monkeypatch.setitem(ALGORITHMS, "patient", AlgorithmRow(lambda p: ALGORITHMS["fedavg"].build(), Patient))
    assert "server.patience" in all_keys()
    experiment = parse_experiment("[server]\nalgorithm = 'patient'\npatience = 2")
    assert experiment.server.of_algorithm == Patient(patience=2.0)
    assert "patience = 2.0  # how patient" in to_toml(experiment, comments=True)
    assert "# patience = 0.5  # patient: how patient" in to_toml(Experiment(), comments=True)
    with pytest.raises(ConfigError, match=r"line 3: server.patience must be ≥ 0, got -1.0"):
        parse_experiment("[server]\nalgorithm = 'patient'\npatience = -1", where="mine.toml")


def test_set_wins_over_file_and_takes_bare_words() -> None:
    experiment = parse_experiment("[train]\nepochs = 2", ["train.epochs=3", "data.dataset=digits", "output.recipes=[]"])
    assert (experiment.train.epochs, experiment.data.dataset, experiment.output.recipes) == (3, "digits", ())


def test_set_reaches_tables_in_tables_and_tells_what_is_none() -> None:
    experiment = parse_experiment("[train]\nepochs = 2", ["train.pruning.sparsity=0.8", "train.qat.begin-round=3"])
    assert (experiment.train.epochs, experiment.train.pruning.sparsity, experiment.train.qat.begin_round) == (2, 0.8, 3)
    with pytest.raises(ConfigError, match=r"--set train\.pruning\.sparsity=2"):
        parse_experiment("", ["train.pruning.sparsity=2"])
    with pytest.raises(ConfigError, match=r"line 2: 'train\.pruning' must be a table"):
        parse_experiment("[train]\npruning = 3", ["train.pruning.sparsity=0.8"], where="mine.toml")
    with pytest.raises(ConfigError, match=r"unknown key.*'train\.pruning\.sparsity'"):
        parse_experiment("", ["train.pruning.sparsty=0.8"])


def test_missing_and_binary_files(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match="fl-mobile new"):
        read_experiment(tmp_path / "none.toml")
    (tmp_path / "bin.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="UTF-8"):
        read_experiment(tmp_path / "bin.toml")


def test_hash_ignores_speed_and_output_and_nothing_else() -> None:
    base = Experiment()
    assert experiment_hash(replace(base, engine=Engine(workers=7))) == experiment_hash(base)
    assert experiment_hash(replace(base, engine=Engine(name="litert"))) != experiment_hash(base)
    assert experiment_hash(replace(base, seed=1)) != experiment_hash(base)
    assert experiment_hash(parse_experiment("", ["upload.codec=q8"])) != experiment_hash(base)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "exponential", "inverse-sqrt"])
def test_schedules_start_at_the_rate_and_never_rise(schedule: str) -> None:
    train = Train(rounds=10, learning_rate=0.5, schedule=schedule)
    rates = [train.plan(t, from_logits=True).learning_rate for t in range(10)]
    assert rates[0] == 0.5
    assert all(a >= b > 0 for a, b in itertools.pairwise(rates))


def test_a_claim_about_examples_counts_where_it_tells_the_steps() -> None:
    parse_experiment("", ["server.algorithm=fednova", "server.weighting=uniform", "server.max-examples=50"])
    with pytest.raises(ConfigError, match=r"server\.max-examples does nothing with server\.weighting 'uniform'"):
        parse_experiment("", ["server.weighting=uniform", "server.max-examples=50"])
