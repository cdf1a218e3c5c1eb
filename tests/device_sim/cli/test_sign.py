"""Keys, signed exports and their proof through the real command."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import pytest

from device_sim.cli.export import decisive_command
from tests.device_sim.cli_runs import Ended, fl_mobile, the_message

pytestmark = pytest.mark.tf
EXPORT = ("export", "logistic", "--dataset", "digits", "--recipe", "float32", "--license", "CC0-1.0")


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    """A folder with keys ``mine`` and ``other``, and a bundle signed with ``mine``; tests must not change it."""
    path = tmp_path_factory.mktemp("signed")
    for name in ("mine", "other"):
        assert fl_mobile("keys", "new", "--out", path / name).code == 0
    ended = fl_mobile(*EXPORT, "--out", path / "bundle", "--sign", path / "mine.pem")
    assert ended.code == 0, ended.err
    return path, ended


def test_keys_are_told_and_kept(tmp_path: Path) -> None:
    made = fl_mobile("keys", "new", "--out", tmp_path / "keys" / "release", "--format", "json").json
    assert stat.S_IMODE(Path(made["private"]).stat().st_mode) == 0o600
    for half in ("private", "public"):
        shown = fl_mobile("keys", "show", made[half], "--format", "json").json
        assert (shown["key_id"], shown["sha256"]) == (made["key_id"], made["sha256"])
    before = Path(made["private"]).read_bytes()
    again = fl_mobile("keys", "new", "--out", tmp_path / "keys" / "release")
    assert (again.code, Path(made["private"]).read_bytes()) == (3, before)
    assert "never overwritten" in the_message(again)


@pytest.mark.parametrize("arguments", [["keys"], ["keys", "show"], ["keys", "new", "mine"], ["keys", "old"]])
def test_a_keys_command_that_cannot_be_read_exits_2(arguments: list[str], tmp_path: Path) -> None:
    assert fl_mobile(*arguments, cwd=tmp_path).code == 2
    assert list(tmp_path.iterdir()) == []


def test_the_printed_command_proves_the_signature(signed: tuple[Path, Ended]) -> None:
    path, ended = signed
    last = ended.out.splitlines()[-1]
    assert last == f"Prove it: fl-mobile verify {path / 'bundle'} --public-key {path / 'mine.pub.pem'}"
    proven = fl_mobile(*last.split()[3:])
    assert proven.code == 0, proven.err
    assert "verified, signed" in proven.out
    assert fl_mobile(*last.split()[3:], "--format", "json").json["signature_checked"] is True


def test_a_signature_nobody_checked_is_told(signed: tuple[Path, Ended]) -> None:
    shown = fl_mobile("verify", signed[0] / "bundle")
    assert shown.code == 0
    assert "NOT CHECKED" in shown.out
    assert "who made it was not checked" in shown.out
    assert fl_mobile("verify", signed[0] / "bundle", "--format", "json").json["signature_checked"] is False


UNPROVEN = (
    (["--public-key", "other.pub.pem"], 9, "failed at signature, hash, flatbuffer, parity not checked"),
    (["--require-signature"], 9, "give its public key"),
    (["--public-key", "mine.pem"], 3, "expected a public key"),
    (["--public-key", "none.pem"], 3, "No such file"),
)
READERS = ("verify", "benchmark", "camera")


@pytest.mark.parametrize(("options", "code", "words"), UNPROVEN)
def test_every_verb_that_reads_bundles_refuses_alike(
    options: list[str], code: int, words: str, signed: tuple[Path, Ended]
) -> None:
    told = set()
    for verb in READERS:
        ended = fl_mobile(verb, "bundle", *options, cwd=signed[0])
        assert ended.code == code
        assert words in the_message(ended)
        told.add(the_message(ended))
    assert len(told) == 1


def test_a_benchmark_says_whether_it_checked(signed: tuple[Path, Ended]) -> None:
    quick = ("--runs", "10", "--threads", "1", "--quiet", "--format", "json")
    for options, checked in ((["--public-key", "mine.pub.pem"], True), ([], False)):
        ended = fl_mobile("benchmark", "bundle", *quick, *options, cwd=signed[0])
        assert ended.code == 0, ended.err
        assert ended.json["signature_checked"] is checked


def test_a_signed_program_is_proven_by_the_command_it_prints(signed: tuple[Path, Ended], tmp_path: Path) -> None:
    path, _ = signed
    made = fl_mobile("export", "logistic", "--training", "--out", tmp_path / "program", "--sign", path / "mine.pem")
    assert made.code == 0, made.err
    proven = fl_mobile(*made.out.splitlines()[-1].split()[3:])
    assert proven.code == 0, proven.err
    assert "verified, signed" in proven.out
    assert "cases as Keras on litert" in proven.out
    refused = fl_mobile("verify", tmp_path / "program", "--public-key", path / "other.pub.pem")
    assert refused.code == 9
    assert "failed at signature" in the_message(refused)
    odd = fl_mobile("verify", tmp_path / "program", "--layers")
    assert (odd.code, "--layers" in the_message(odd)) == (3, True)


def test_a_removed_signature_is_refused(signed: tuple[Path, Ended], tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(signed[0] / "bundle", tmp_path / "bundle"))
    (bundle / "manifest.sig").unlink()
    ended = fl_mobile("verify", bundle, "--public-key", signed[0] / "mine.pub.pem")
    assert ended.code == 9
    assert "is unsigned" in the_message(ended)


def test_the_same_export_elsewhere_gives_the_same_bytes(signed: tuple[Path, Ended], tmp_path: Path) -> None:
    path, _ = signed
    ended = fl_mobile(*EXPORT, "-q", "--sign", path / "mine.pem", "--out", tmp_path / "again", "--format", "json")
    assert ended.code == 0, ended.err
    one, other = (
        {file.name: file.read_bytes() for file in folder.iterdir()} for folder in (path / "bundle", tmp_path / "again")
    )
    assert one == other


def test_the_card_of_first_weights_claims_no_training(signed: tuple[Path, Ended]) -> None:
    card = (signed[0] / "bundle" / "model_card.md").read_text()
    assert "None: these are first weights" in card
    assert "Licence: CC0-1.0." in card
    assert f"`{decisive_command(EXPORT)}`" in card


def test_a_key_that_cannot_sign_is_told_before_anything_is_loaded(tmp_path: Path) -> None:
    for command in (EXPORT, ("export", "logistic", "--training")):
        ended = fl_mobile(*command, "--out", "bundle", "--sign", "none.pem", cwd=tmp_path)
        assert ended.code == 3
        assert "none.pem" in the_message(ended)
        assert list(tmp_path.iterdir()) == []
