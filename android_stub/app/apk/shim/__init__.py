"""Lets glibc load Android's x86_64 libraries as they are: a libc.so of trampolines, and what lies behind them.

Two libraries are needed: in one, ``dlsym`` would find the trampoline itself. Tests the libraries of the APK, their JNI
and the keep rules on this machine; says nothing of arm64 or of ART.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from apk.paths import run

SOURCES = Path(__file__).parent
DATA = ("__sF", "stderr")


def build(libraries: Sequence[Path], out: Path) -> None:
    """Writes libc.so, libm.so, libdl.so, liblog.so and libshim_real.so for ``libraries`` into ``out``, with gcc."""
    told = "".join(run("readelf", "--dyn-syms", "-W", library) for library in libraries)
    versions = dict(re.findall(r" UND (\w+)@(LIBC\w*)", told))
    names = sorted(set(versions) - set(DATA))
    wrapped = set(re.findall(r"\bb_(\w+)\(", (SOURCES / "bionic.c").read_text(encoding="utf-8")))
    rows = [f"ROW({name}, {f'b_{name}' if name in wrapped else 0})" for name in names]
    (out / "symbols.h").write_text("#define SYMBOLS " + " \\\n".join(rows) + "\n", encoding="utf-8")
    (out / "trampolines.S").write_text(_trampolines(names), encoding="utf-8")
    late = "; ".join(name for name in names if versions[name] != "LIBC")
    script = "LIBC { global: *; };\n" + (f"LIBC_N {{ global: {late}; }} LIBC;\n" if late else "")
    (out / "versions.map").write_text(script, encoding="utf-8")
    (out / "empty.c").write_text("int shim_empty;\n", encoding="utf-8")
    shared = ("gcc", "-O1", "-fPIC", "-shared", "-w")
    run(*shared, f"-I{out}", "-Wl,-soname,libshim_real.so", "-o", out / "libshim_real.so", SOURCES / "bionic.c", "-ldl")
    run(*shared, "-Wl,-soname,liblog.so", "-o", out / "liblog.so", SOURCES / "log.c")
    plain = (*shared, "-nostdlib", f"-Wl,--version-script,{out / 'versions.map'}")
    real = (f"-L{out}", "-lshim_real")
    run(*plain, "-Wl,-soname,libc.so", "-o", out / "libc.so", out / "trampolines.S", *real)
    for name in ("libm.so", "libdl.so"):
        run(*plain, f"-Wl,-soname,{name}", "-o", out / name, out / "empty.c")


def _trampolines(names: Sequence[str]) -> str:
    """Returns assembly: each name jumps through its slot of the table; ``__sF`` and ``stderr`` are bionic's."""
    jumps = [
        f".globl {name}\n.type {name},@function\n{name}: mov shim_slots@GOTPCREL(%rip),%r11\n jmp *{8 * i}(%r11)\n"
        f".size {name},.-{name}\n"
        for i, name in enumerate(names)
    ]
    data = (
        ".bss\n.globl __sF\n.type __sF,@object\n.size __sF,456\n__sF:\nsF_local: .space 456\n"
        ".text\nsetup: lea sF_local(%rip),%rdi\n jmp shim_set_sF@PLT\n"
        ".data\n.globl stderr\n.type stderr,@object\n.size stderr,8\nstderr: .quad sF_local+304\n"
        '.section .init_array,"aw"\n.quad setup\n.section .note.GNU-stack,"",@progbits\n'
    )
    return ".text\n" + "".join(jumps) + data
