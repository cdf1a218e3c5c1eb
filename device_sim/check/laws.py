"""What every row of a table promises, by kind: short forms of the suites in ``tests/``, for rows that are not there."""

from __future__ import annotations

from device_sim.check import of_codecs, of_devices, of_export, of_servers, of_tasks, of_training
from device_sim.check.law import Law

LAWS: dict[str, tuple[Law, ...]] = {
    "stage": of_codecs.CODEC,
    "codec": of_codecs.CODEC,
    "algorithm": of_servers.ALGORITHM,
    "aggregation": of_servers.AGGREGATION,
    "server-schedule": (Law("the step falls from 0 to 1 of the way", of_servers.fall),),
    "averaging": (
        Law("the mean is finite and has the spec's shapes", of_servers.average),
        Law("the mean of one model is that model", of_servers.average_repeats),
    ),
    "schedule": (Law("every factor of the learning rate is finite and ≥ 0", of_servers.factor),),
    "optimizer": (
        Law("five steps are those of its Keras optimizer", of_training.optimizer_is_keras),
        Law("one step carries as far as one of SGD", of_training.optimizer_counts),
    ),
    "loss": (
        Law("one finite loss an example", of_training.loss_each),
        Law("steps down its gradient make it smaller", of_training.loss_falls),
    ),
    "metric": (
        Law("a number, or None, of what at least one task tells", of_tasks.metric_is_told),
        Law("right answers are at least as good as answers at random", of_tasks.metric_rises),
    ),
    "recipe": (
        Law("a small model becomes an artifact of builtin operations, within its tolerance", of_export.recipe_converts),
        Law("the same model gives the same bytes", of_export.recipe_repeats),
    ),
    "model": (Law("built twice for 28×28 pictures of 10 classes, it is the same", of_training.model_repeats),),
    "partition": (
        Law("every example is on exactly one device", of_devices.partition_covers),
        Law("the same generator gives the same deal", of_devices.partition_repeats),
    ),
    "dataset": (
        Law("the same seed gives the same data; it knows its devices as the row says", of_devices.dataset_loads),
    ),
    "sampler": (Law("cohorts are seeded, distinct and able", of_devices.cohorts),),
    "policy": (Law("a reason code for each device, the same when asked again", of_devices.policy),),
    "attack": (Law("what it trains on and sends has the shapes it was asked for", of_devices.attack),),
    "link": (Law("every number is ≥ 0, and its share of mixed is 0", of_devices.numbers),),
    "profile": (Law("every number is ≥ 0, and its share of mixed is 0", of_devices.numbers),),
    "availability": (Law("a state of each device at every moment, the same when asked again", of_devices.presence),),
}
"""Kind, as of `fl_mobile.table.TABLES`, → its laws."""
