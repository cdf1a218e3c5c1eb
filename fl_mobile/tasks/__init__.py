"""Tasks: what is to be answered, what it costs to be wrong, and how good answers are. NumPy only.

```
targets ─▶ decide ─▶ TASKS[name] ─┬─▶ losses, targets, right answers   (fl_mobile.local.losses)
                                  └─▶ tally of a batch ─▶ add ─▶ measured: every metric, exact over batches and devices
```
"""

from fl_mobile.tasks.heads import MULTI_HEAD, Head, heads_of, multi_head
from fl_mobile.tasks.metrics import METRICS, Metric, check_further, measured, metric_row, told
from fl_mobile.tasks.table import AUTO, TASKS, TaskRow, can_train, decided, task_row
from fl_mobile.tasks.tally import Tally, added, tally_of
from fl_mobile.tasks.targets import decide, prepared, strata_of

__all__ = [
    "AUTO",
    "METRICS",
    "MULTI_HEAD",
    "TASKS",
    "Head",
    "Metric",
    "Tally",
    "TaskRow",
    "added",
    "can_train",
    "check_further",
    "decide",
    "decided",
    "heads_of",
    "measured",
    "metric_row",
    "multi_head",
    "prepared",
    "strata_of",
    "tally_of",
    "task_row",
    "told",
]
