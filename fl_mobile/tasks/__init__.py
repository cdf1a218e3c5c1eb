"""Tasks: what is to be answered, what it costs to be wrong, and how good answers are. NumPy only.

```
targets ─▶ decide ─▶ TASKS[name] ─┬─▶ losses, targets, right answers   (fl_mobile.local.losses)
                                  └─▶ tally of a batch ─▶ add ─▶ measured: every metric, exact over batches and devices
```
"""

from fl_mobile.tasks.metrics import METRICS, Metric, Tally, added, check_further, measured, tally_of, told
from fl_mobile.tasks.table import AUTO, TASKS, TaskRow, can_train, decided, task_row
from fl_mobile.tasks.targets import decide, prepared, strata_of

__all__ = [
    "AUTO",
    "METRICS",
    "TASKS",
    "Metric",
    "Tally",
    "TaskRow",
    "added",
    "can_train",
    "check_further",
    "decide",
    "decided",
    "measured",
    "prepared",
    "strata_of",
    "tally_of",
    "task_row",
    "told",
]
