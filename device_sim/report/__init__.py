"""A run, or several beside each other, as one HTML file that needs no network; and as TensorBoard event files.

```
run folders ─▶ runs (read, checked) ─▶ series, devices, compare (numbers) ─▶ draw, svg (shapes) ─▶ page (HTML)
rounds ─▶ tensorboard (event file)
```
"""

from device_sim.report.page import page
from device_sim.report.runs import Run, read_runs

__all__ = ["Run", "page", "read_runs"]
