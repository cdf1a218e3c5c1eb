"""The command without TensorFlow: help, tables, and every mistake that is found before anything is loaded."""

from __future__ import annotations

import errno
import inspect
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from device_sim.cli import VERBS, make_app
from device_sim.cli.edge import exit_code_of, exit_codes, message_of
from device_sim.datasets import DATASETS, load_dataset
from device_sim.experiment.experiment import Experiment
from device_sim.experiment.toml import read_experiment
from fl_mobile.errors import DataError, FlMobileError
from tests.device_sim.cli_runs import SMALL, command, environment, fl_mobile, the_message

NAMES = [verb.__name__ for verb in VERBS]


def examples(verb: str) -> list[list[str]]:
    """Returns the command lines of a verb's help, without the program's name."""
    doc = inspect.cleandoc(next(v for v in VERBS if v.__name__ == verb).__doc__ or "")
    told = doc.partition("Examples:")[2] or doc.partition("Example:")[2]
    return [shlex.split(line)[1:] for line in told.splitlines() if line.strip().startswith("fl-mobile ")]


@pytest.mark.parametrize("verb", NAMES)
def test_help_shows_options_and_an_example_of_this_verb(verb: str) -> None:
    shown = CliRunner().invoke(make_app(), [verb, "--help"])
    assert shown.exit_code == 0
    assert "--format" in shown.output
    assert examples(verb)
    for arguments in examples(verb):
        assert arguments[0] == verb
        assert f"fl-mobile {verb}" in shown.output


def test_help_lists_every_verb_and_every_exit_code() -> None:
    shown = CliRunner().invoke(make_app(), ["--help"]).output
    codes = dict(exit_codes())
    assert set(codes) == {0, *range(1, 13), 130}
    for kind in (FlMobileError, *FlMobileError.__subclasses__()):
        assert kind.exit_code in codes
    for code, meaning in codes.items():
        assert f"{code}  {meaning}" in " ".join(shown.split(" ")), meaning
    for name in NAMES:
        assert name in shown


def test_help_and_tables_load_no_tensorflow(tmp_path: Path) -> None:
    light = [
        ["--help"],
        ["doctor"],
        ["codecs"],
        ["models"],
        ["datasets"],
        ["datasets", "digits"],
        ["new", str(tmp_path / "x")],
    ]
    code = (
        "import sys; from typer.testing import CliRunner; from device_sim.cli import make_app\n"
        f"codes = [CliRunner().invoke(make_app(), a).exit_code for a in {light!r}]\n"
        "heavy = {'tensorflow', 'keras', 'sklearn', 'matplotlib'} & sys.modules.keys()\n"
        "print(codes, sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment())
    assert done.stdout.strip() == f"{[0] * len(light)} []", done.stderr


@pytest.mark.parametrize("verb", ["codecs", "models", "datasets"])
def test_tables_say_the_same_as_text_and_json(verb: str) -> None:
    rows = json.loads(CliRunner().invoke(make_app(), [verb, "--format", "json"]).stdout)
    text = CliRunner().invoke(make_app(), [verb]).stdout
    assert len(rows) > 5
    assert len({row["name"] for row in rows}) == len(rows)
    for row in rows:
        assert row["name"] in text
        assert all(value is not None for value in row.values()) or verb == "models"


def test_datasets_shows_who_holds_what() -> None:
    arguments = ["datasets", "digits", "--set", "data.partition=shards", "--set", "data.devices=20"]
    shown = json.loads(CliRunner().invoke(make_app(), [*arguments, "--format", "json"]).stdout)
    assert shown["train_examples"] + shown["test_examples"] == 1797
    assert sum(shown["dealt_out"]["examples_per_device"]) == shown["train_examples"]
    assert shown["dealt_out"]["label_skew_mean"] > shown["dealt_out"]["label_skew_if_iid"]
    assert shown["fingerprint"] in CliRunner().invoke(make_app(), arguments).stdout


def test_new_writes_a_commented_file_that_reads_back_and_is_not_overwritten(tmp_path: Path) -> None:
    shown = fl_mobile("new", tmp_path / "camera", "--set", "train.rounds=7", "--format", "json")
    path = Path(shown.json["experiment"])
    assert path == tmp_path / "camera" / "experiment.toml"
    assert read_experiment(path, ["train.rounds=80"]) == Experiment()
    assert read_experiment(path).train.rounds == 7
    assert all("#" in line for line in path.read_text().splitlines() if "=" in line)
    before = path.read_bytes()
    again = fl_mobile("new", tmp_path / "camera")
    assert (again.code, path.read_bytes()) == (3, before)
    assert "not overwritten" in the_message(again)


MISTAKES = {
    "unknown dataset": (["--set", "data.dataset=mnist-5kk"], 3, ["mnist-5kk", "Did you mean 'mnist-5k'?"]),
    "unknown codec": (["--set", "upload.codec=q4+deflat"], 3, ["deflat", "Did you mean 'deflate'?"]),
    "unknown key": (["--set", "train.learning-rat=1"], 3, ["learning-rat", "Did you mean 'train.learning-rate'?"]),
    "unknown partition": (["--set", "data.partition=dirichlett"], 3, ["dirichlett", "Did you mean 'dirichlet'?"]),
    "unknown engine": (["--set", "engine.name=kerras"], 3, ["kerras", "Did you mean 'keras'?"]),
    "unknown link": (["--set", "fleet.link=6g"], 3, ["6g", "Did you mean '5g'?"]),
    "unknown algorithm": (["--set", "server.algorithm=fedavgg"], 3, ["fedavgg", "Did you mean 'fedavg'?"]),
    "wrong type": (["--set", "train.rounds=many"], 3, ["train.rounds", "whole number", "many"]),
    "no value": (["--set", "train.rounds"], 3, ["key=value"]),
    "out of range": (["--rounds", "0"], 3, ["train.rounds", "above 0", "0"]),
    "more devices than examples": (
        ["--set", "data.dataset=digits", "--set", "data.devices=5000"],
        4,
        ["1438 examples", "5000 devices"],
    ),
    "cohort larger than the fleet": (["--set", "data.devices=3"], 3, ["cohort (10)", "devices (3)"]),
    "path of no use": (["--set", "data.path=/tmp"], 3, ["mnist-5k", "reads no path"]),
    "data file missing": (["--set", "data.dataset=npz", "--set", "data.path=nope.npz"], 4, ["nope.npz"]),
    "experiment file missing": (["nope.toml"], 3, ["nope.toml", "fl-mobile new"]),
    "nothing to resume": (["--resume"], 7, ["holds no run", "`fl-mobile simulate --out run` makes one"]),
}


@pytest.mark.parametrize(("arguments", "code", "words"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_message_and_nothing_is_written(
    tmp_path: Path, arguments: list[str], code: int, words: list[str]
) -> None:
    ended = fl_mobile("simulate", *arguments, "--out", "run", cwd=tmp_path)
    message = the_message(ended)
    assert ended.code == code
    assert ended.out == ""
    for word in words:
        assert word in message
    assert list(tmp_path.iterdir()) == []


FILES = {
    "not TOML": (b"[data\ndevices = 3", ["line 1"]),
    "not UTF-8": (b"seed = 1 # \xff\xfe", ["UTF-8"]),
    "cut in the middle": (b'[upload]\ncodec = "q4+def', ["not valid TOML"]),
    "unknown section": (b"[trian]\nrounds = 3\n", ["line 1", "Did you mean 'train'?"]),
    "unknown key": (b"[train]\nround = 3\n", ["line 2", "Did you mean 'rounds'?"]),
    "wrong type": (b'[train]\nrounds = "3"\n', ["line 2", "whole number"]),
    "a key that is a table": (b"[seed]\na = 1\n", ["seed"]),
}


@pytest.mark.parametrize(("content", "words"), FILES.values(), ids=FILES)
def test_a_broken_experiment_file_is_told_with_its_line(tmp_path: Path, content: bytes, words: list[str]) -> None:
    (tmp_path / "e.toml").write_bytes(content)
    ended = fl_mobile("simulate", "e.toml", "--out", "run", cwd=tmp_path)
    message = the_message(ended)
    assert ended.code == 3
    for word in ("e.toml", *words):
        assert word in message
    assert [path.name for path in tmp_path.iterdir()] == ["e.toml"]


def test_a_folder_that_exists_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    ended = fl_mobile("simulate", *SMALL, "--out", tmp_path)
    assert ended.code == 7
    assert "--resume" in the_message(ended)
    assert "Loading" not in ended.err
    assert (tmp_path / "precious").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["verify", "nope"], 9, "neither a bundle"),
        (["export", "nope.keras", "--out", "b"], 3, "--dataset"),
        (["datasets", "digitss"], 3, "Did you mean 'digits'?"),
        (["new", "/proc/no/where"], 12, "/proc/no"),
    ],
)
def test_mistakes_with_other_verbs(tmp_path: Path, arguments: list[str], code: int, word: str) -> None:
    ended = fl_mobile(*arguments, cwd=tmp_path)
    assert ended.code == code
    assert word in the_message(ended)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [["simulat"], ["simulate", "--round", "3"], ["codecs", "--format", "xml"], ["simulate", "--rounds", "x"]],
)
def test_a_command_line_that_cannot_be_read_exits_2(arguments: list[str]) -> None:
    ended = fl_mobile(*arguments)
    assert ended.code == 2
    assert "Traceback" not in ended.err
    assert arguments[-1].strip("-") in ended.err or "simulat" in ended.err


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    ended = fl_mobile("--debug", "simulate", "--set", "nope=1", cwd=tmp_path)
    assert ended.code == 1
    assert "Traceback" in ended.err
    assert "ConfigError" in ended.err


def test_messages_and_codes_of_system_errors() -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "runs/a/model.keras")
    assert message_of(full).startswith("runs/a/model.keras: No space left on device. Make room")
    assert message_of(PermissionError(errno.EACCES, "Permission denied", "/root/x")) == "/root/x: Permission denied"
    assert message_of(OSError("odd")) == "odd"
    assert (exit_code_of(full), exit_code_of(KeyboardInterrupt())) == (12, 130)


def test_a_reader_that_goes_away_is_no_error() -> None:
    line = "fl_mobile() { " + shlex.join([sys.executable, "-c", "from device_sim.cli import main; main()"]) + ' "$@"; }'
    done = subprocess.run(
        ["bash", "-c", f"{line}; fl_mobile codecs --format json | head -c 1"], capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("[", "")


@pytest.mark.parametrize("name", DATASETS)
def test_datasets_that_are_said_to_be_here_open_and_others_say_why(name: str) -> None:
    missing = DATASETS[name].missing()
    if not missing:
        assert len(load_dataset(name, seed=0).train) > 0
    elif name not in ("mnist", "fashion-mnist"):  # Keras would go and download those
        with pytest.raises(DataError):
            load_dataset(name, seed=0)


PRINTED = {"--help": "simulate", "datasets": "mnist", "codecs --format json": "ecsq", "simulate --set x=–": "x="}


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
@pytest.mark.parametrize("line", PRINTED)
def test_an_output_that_lacks_a_character_loses_no_result(encoding: str, line: str) -> None:
    """A run trained to its end, then ended with UnicodeEncodeError at its closing table."""
    env = environment(PYTHONIOENCODING=encoding, LC_ALL="C.UTF-8")
    done = subprocess.run(command(*line.split()), capture_output=True, env=env, timeout=120)
    assert done.returncode == (3 if "simulate" in line else 0), done.stderr
    told = (done.stdout or done.stderr).decode(encoding)
    assert PRINTED[line] in told
    if "json" in line:
        assert json.loads(told) == json.loads(fl_mobile(*line.split()).out), "JSON loses no character at all"
