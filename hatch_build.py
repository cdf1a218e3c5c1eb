"""Puts machine code of the compiled loops into a wheel, where `python -m fl_mobile.kernels.build` has laid it.

``python -m fl_mobile.kernels.build --beside`` before ``python -m build --wheel`` with the same Python
gives a wheel for this Python on this platform; without that file a wheel is for all of them, and a machine's first run
compiles.
"""

from __future__ import annotations

import platform
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

LINUX = "manylinux_2_28"
"""numba's own wheels ask as much; the code calls what numba brings and the C library's mathematics, nothing else."""


class MachineCode(BuildHookInterface):
    """The hook; a checkout that is installed in place needs none."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Adds the file to the wheel and names the Python and the platform it is for."""
        name = f"fl_mobile/kernels/loops.{sysconfig.get_config_var('SOABI')}.zip"
        if version == "editable" or not Path(self.root, name).is_file():
            return
        python = f"cp{sys.version_info[0]}{sys.version_info[1]}"
        build_data["force_include"][str(Path(self.root, name))] = name
        build_data["pure_python"] = False
        build_data["tag"] = f"{python}-{python}-{LINUX}_{platform.machine()}"
