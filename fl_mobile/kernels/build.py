"""Makes the machine code of the compiled loops ahead of time: ``python -m fl_mobile.kernels.build [--beside]``.

What a run calls is found by playing it (`fl_mobile/kernels/plays.py`), in a process that compiles for the baseline of
this kind of processor and not for this one. A second process compiles the loop that takes longest meanwhile, and both
share what is compiled. A third plays again with nothing but the new set, which is kept only if nothing had to be
compiled, cut to what was read: loops within loops are part of those.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fl_mobile.errors import ConfigError
from fl_mobile.kernels import private_api
from fl_mobile.kernels.built import ABOUT, BASELINES, as_member, facts, find_set, member, misfit, set_name
from fl_mobile.kernels.compiled import BESIDE, LOOPS, built_set, cache_folder, is_cold, which_code
from fl_mobile.kernels.plays import play, read_noise
from fl_mobile.storage.files import write_atomic

SECONDS = 900.0
"""No part takes longer, on a machine that gets anything done; then there is no set."""

CANNOT = "machine code of the loops cannot be made ahead of time"

DRAFT = "draft.zip"
_PREFIX = "fl-mobile-loops-"
FAILED = "no-set.txt"
"""Why a set could not be made: it is not tried again for this version of the loops."""


def _dispatchers() -> Iterator[Any]:
    """Yields the compiled functions of all modules that are loaded, each once."""
    for name, module in sorted(sys.modules.items()):
        if name.startswith("fl_mobile."):
            for value in vars(module).values():
                if getattr(value, "__module__", "") == name and hasattr(value, "overloads"):
                    yield value


def compiled_all_the_same() -> list[str]:
    """Returns the loops that this process has compiled."""
    return sorted({each.py_func.__qualname__ for each in _dispatchers() if each.stats.cache_misses})


def _kept_of(dispatcher: Any, signature: Any, made: Any) -> Any:
    """Returns what numba keeps of a loop; of one that another process compiled only its cache has all of that."""
    kept = private_api.kept_by(private_api.cache_of(dispatcher).own, signature, dispatcher.targetctx.codegen())
    return private_api.reduced(made) if kept is None else kept


def _zipped(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted({ABOUT: json.dumps(facts(LOOPS)).encode(), **members}.items()):
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return out.getvalue()


@contextlib.contextmanager
def built_beside(tell: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Makes a set for the user's cache in other processes where there is none, unless that has failed before.

    Yields a function that waits for it, or gives up for the reason it tells: loops are then compiled when first called.

    Args:
        tell: Takes a line for the user.
    """
    if reason := _why_not():
        if is_cold():
            tell(f"the codec's inner loops are compiled with the first round, a minute, once per version: {reason}")
        yield lambda: None
        return
    tell("the codec's inner loops are compiled meanwhile, in processes of their own: a minute, once per version")
    command = [sys.executable, "-m", "fl_mobile.kernels.build"]
    with tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True) as made:
        # In a session of their own, so that all of them end with a Ctrl-C meant for us, and in a folder of ours,
        # because one that is killed clears nothing up.
        builds = subprocess.Popen(
            command,
            env={**os.environ, "TMPDIR": made},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

        def wait() -> None:
            try:
                _ended(builds, 3 * SECONDS)  # its parts give up before, and it remembers that
            except ConfigError as error:
                tell(f"{error}; the loops are compiled when they are first called")

        try:
            yield wait
        finally:
            _end(builds)


def _why_not() -> str:
    """Returns why no set is made, empty if one is."""
    code = which_code()
    if code in ("built", "plain Python"):
        return code
    folder = cache_folder()
    if folder is None:
        return "no folder for them can be written"
    return misfit() or ((folder / FAILED).read_text() if (folder / FAILED).is_file() else "")


def _end(builds: subprocess.Popen[str]) -> None:
    """Ends the processes of a build that nobody waits for any more."""
    for number in (signal.SIGINT, signal.SIGKILL):
        if builds.poll() is None:
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(builds.pid, number)
                builds.wait(timeout=5)


def build() -> bytes:
    """Returns the bytes of a set that a play needs nothing else for.

    Raises:
        ConfigError: None can be used or made here.
    """
    if reason := misfit():
        raise ConfigError(f"{CANNOT}: {reason}")
    cpu, _ = BASELINES[platform.machine()]
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as made:
        home = Path(made)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
        kept |= {"XDG_CACHE_HOME": made, "OPENBLAS_NUM_THREADS": "1"}
        baseline = kept | {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": "", "NUMBA_DISABLE_INTEL_SVML": "1"}
        with _part("make", home, baseline) as makes, _part("begin", home, baseline) as begins:
            _ended(makes)
            _ended(begins)
        (folder,) = (home / "fl-mobile").glob("compiled-*")
        os.replace(home / DRAFT, folder / set_name())
        for file in folder.glob("*/*"):
            file.unlink()
        with _part("check", home, kept) as checks:
            _ended(checks)
        return (home / DRAFT).read_bytes()


@contextlib.contextmanager
def _part(name: str, home: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "fl_mobile.kernels.build", "--part", name, str(home)]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as part:
        try:
            yield part
        finally:
            part.kill()


def _ended(part: subprocess.Popen[str], seconds: float = SECONDS) -> None:
    try:
        _, told = part.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        raise ConfigError(f"{CANNOT}: it took longer than {seconds:.0f} s") from None
    if part.returncode:
        reason = (told.strip().splitlines() or ["no reason was told"])[-1]
        raise ConfigError(reason if reason.startswith(CANNOT) else f"{CANNOT}: {reason}")


def _make(home: Path) -> None:
    play()
    members = {
        member(each.py_func, signature): as_member(_kept_of(each, signature, made))
        for each in _dispatchers()
        for signature, made in each.overloads.items()
    }
    write_atomic(home / DRAFT, _zipped(members))


def _begin(home: Path) -> None:
    read_noise()


def _check(home: Path) -> None:
    """Leaves of the draft what was read, unless something was compiled all the same."""
    file = built_set()
    if file is None:
        raise ConfigError("what was made does not fit here")
    play()
    if missed := compiled_all_the_same():
        raise ConfigError(f"with it these loops were compiled all the same: {', '.join(missed)}")
    names = {member(each.py_func, signature) for each in _dispatchers() for signature in each.stats.cache_hits}
    with zipfile.ZipFile(file) as archive:
        write_atomic(home / DRAFT, _zipped({name: archive.read(name) for name in names}))


PARTS: dict[str, Callable[[Path], None]] = {"make": _make, "begin": _begin, "check": _check}
"""What the processes of `build` do."""


def main(arguments: list[str]) -> int:
    """Returns the exit code; a set that fits is left as it is."""
    options = argparse.ArgumentParser(
        prog="python -m fl_mobile.kernels.build", description=(__doc__ or "").splitlines()[0]
    )
    options.add_argument("--beside", action="store_true", help="beside the sources, for wheels and images")
    options.add_argument("--part", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    chosen = options.parse_args(arguments)
    folder: Path | None = None
    try:
        if chosen.part:
            name, home = chosen.part
            PARTS[name](Path(home))
            return 0
        folder = BESIDE if chosen.beside else cache_folder()
        if folder is None:
            raise ConfigError("there is no cache folder that can be written; --beside puts it beside the sources")
        if (find_set((BESIDE,), LOOPS) if chosen.beside else built_set()) is not None:
            return 0
        write_atomic(folder / set_name(), build())
    except (ConfigError, OSError) as error:
        print(error, file=sys.stderr)
        if folder and not chosen.beside and isinstance(error, ConfigError):
            with contextlib.suppress(OSError):
                write_atomic(folder / FAILED, str(error).encode())
        return 1
    print(folder / set_name())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
