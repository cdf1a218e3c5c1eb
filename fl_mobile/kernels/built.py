"""Machine code made ahead of time: one file that holds what a run needs of it, read instead of compiling.

`fl_mobile/kernels/build.py` makes the file. It lies in a wheel beside this module, or else among what is compiled here
(`fl_mobile/kernels/compiled.py`), and is called ``loops.<Python and platform>.zip``: ``set.json``, which says what it
was made of and for, and for every loop and signature what numba itself keeps of one. It is read where all of that fits:
the loops' sources, numba and llvmlite, and a processor that can do what `BASELINES` asks. Whatever does not fit or
cannot be read is compiled as if there were no file; a damaged one is noticed by the checksums of its members.

What numba keeps are pickles, so no file is read but these two, which can be changed only by who can change the sources
or the user's own cache.
"""

from __future__ import annotations

import functools
import hashlib
import json
import platform
import sysconfig
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ABOUT = "set.json"
"""The member that says what a set was made of and for."""


class Baseline(NamedTuple):
    """What machine code may use of a processor: all of its kind have it.

    Attributes:
        cpu: LLVM's name of it.
        features: What a processor must have, by LLVM's names.
    """

    cpu: str
    features: tuple[str, ...]


BASELINES = {
    "x86_64": Baseline(
        "x86-64-v3",
        (
            *("cx16", "sahf", "popcnt", "sse3", "ssse3", "sse4.1", "sse4.2", "avx", "avx2", "bmi", "bmi2", "f16c"),
            *("fma", "lzcnt", "movbe", "xsave"),
        ),
    ),
    "aarch64": Baseline("generic", ("neon",)),
}
"""Machine → baseline. Elsewhere nothing is built. x86-64-v3: Intel since 2013, AMD since 2015."""


def set_name() -> str:
    """Returns how the file of this Python on this platform is called."""
    return f"loops.{sysconfig.get_config_var('SOABI') or 'unknown'}.zip"


def facts(loops: str) -> dict[str, str]:
    """Returns what a set must have been made of to be used here.

    Args:
        loops: `fl_mobile.kernels.cache.loops_hash` of the sources.
    """
    import llvmlite
    import numba

    plays = hashlib.sha256(Path(__file__).with_name("plays.py").read_bytes()).hexdigest()[:12]
    return {
        "loops": loops,
        "plays": plays,
        "numba": numba.__version__,
        "llvmlite": llvmlite.__version__,
        "cpu": BASELINES[platform.machine()].cpu if platform.machine() in BASELINES else "",
    }


@functools.cache
def misfit() -> str:
    """Returns why no set can be used in this process, empty if one can."""
    import llvmlite.binding
    from numba import config

    changed = [f"NUMBA_{name}" for name in ("BOUNDSCHECK", "DEBUGINFO_DEFAULT", "DISABLE_JIT") if getattr(config, name)]
    changed += [f"NUMBA_{name}" for name in ("CPU_NAME", "CPU_FEATURES") if getattr(config, name) is not None]
    changed += ["NUMBA_OPT"] if int(config.OPT) != 3 else []
    if changed:
        return f"{', '.join(changed)} is set"
    if platform.machine() not in BASELINES:
        return f"nothing is built for processors of kind {platform.machine()}"
    cpu, features = BASELINES[platform.machine()]
    here = llvmlite.binding.get_host_cpu_features()
    missing = [name for name in features if not here.get(name)]
    return f"this processor is no {cpu}: it lacks {', '.join(missing)}" if missing else ""


def find_set(folders: tuple[Path, ...], loops: str) -> Path | None:
    """Returns the first set in these folders that fits, None if there is none.

    Args:
        loops: `fl_mobile.kernels.cache.loops_hash` of the sources.
    """
    for file in (folder / set_name() for folder in folders):
        try:
            stat = file.stat()
        except OSError:
            continue
        if _fits(file, loops, (stat.st_mtime_ns, stat.st_size)) and not misfit():
            return file
    return None


@functools.lru_cache(maxsize=8)
def _fits(file: Path, loops: str, changed: tuple[int, int]) -> bool:
    try:
        with zipfile.ZipFile(file) as archive:
            return bool(json.loads(archive.read(ABOUT)) == facts(loops))
    except Exception:  # whatever is wrong with it, the loops are compiled instead
        return False


def member(function: Callable[..., Any], signature: Any) -> str:
    """Returns the name of the member that holds a function compiled for a tuple of numba's types."""
    text = f"{function.__module__}.{function.__qualname__}{tuple(signature)}"
    return hashlib.sha256(text.encode()).hexdigest()[:24]


class LoopCache:
    """Where numba asks for the machine code of one function: the set first, then its own cache on this computer.

    It has the methods of ``numba.core.caching.Cache``, and knows nothing of what is compiled without it.

    Args:
        function: The plain function.
        find: Returns the set's file, None if there is none.
        own: numba's own cache, which also gets what the set does not hold.
    """

    def __init__(self, function: Callable[..., Any], find: Callable[[], Path | None], own: Any) -> None:
        self._function, self._find, self.own = function, find, own

    @property
    def cache_path(self) -> Any:
        """numba's own folder."""
        return self.own.cache_path

    def load_overload(self, signature: Any, context: Any) -> Any:
        """Returns what was compiled for a signature, None if that is nowhere."""
        file = self._find()
        found = read_member(file, member(self._function, signature), context) if file else None
        return self.own.load_overload(signature, context) if found is None else found

    def save_overload(self, signature: Any, made: Any) -> None:
        """Keeps what numba has compiled, in its own cache."""
        self.own.save_overload(signature, made)

    def enable(self) -> None:
        """Turns numba's own cache on."""
        self.own.enable()

    def disable(self) -> None:
        """Turns numba's own cache off."""
        self.own.disable()

    def flush(self) -> None:
        """Empties numba's own cache."""
        self.own.flush()


def read_member(file: Path, name: str, context: Any) -> Any:
    """Returns numba's ``CompileResult``, None if the file does not hold it or holds it damaged."""
    from numba import cloudpickle

    from fl_mobile.kernels import private_api

    try:
        with zipfile.ZipFile(file) as archive:
            data = archive.read(name)
        context.refresh()
        return private_api.rebuilt(context, cloudpickle.loads(data))
    except Exception:  # not in the set, or damaged: then it is compiled
        return None


def as_member(kept: Any) -> bytes:
    """Returns the bytes of what numba keeps of a ``CompileResult``, as `read_member` reads them."""
    from numba.core.serialize import dumps

    data: bytes = dumps(kept)
    return data
