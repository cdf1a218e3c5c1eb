"""Examples to learn from. A new dataset is a loader in a file of its own and a row in `table.DATASETS`."""

from device_sim.datasets.records import DataOptions, Dataset, Samples
from device_sim.datasets.table import DATASETS, DatasetRow, load_dataset

__all__ = ["DATASETS", "DataOptions", "Dataset", "DatasetRow", "Samples", "load_dataset"]
