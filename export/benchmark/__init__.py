"""How fast, how large and how hungry each artifact of a bundle is: measured here, and read back from a phone.

```
bundle ─▶ host_benchmark ─▶ child process per artifact and thread count ─▶ HostBenchmark     (this host, not a phone)
      └─▶ adb_commands ─▶ benchmark_model on the phone ─▶ its log ─▶ read_phone ─▶ PhoneRun
```
Nothing is written into the bundle: its manifest lists every file it may hold.
"""

from export.benchmark.host import HostBenchmark, host_benchmark, open_for_benchmark
from export.benchmark.phone import PhoneRun, adb_commands, read_phone

__all__ = ["HostBenchmark", "PhoneRun", "adb_commands", "host_benchmark", "open_for_benchmark", "read_phone"]
