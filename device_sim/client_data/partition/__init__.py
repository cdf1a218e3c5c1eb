"""Which device holds which examples. A new partitioner is a function in `assign` and a row in `table.PARTITIONERS`."""

from device_sim.client_data.partition.summary import PartitionSummary, label_counts, summarize
from device_sim.client_data.partition.table import PARTITIONERS, PartitionRow, partition

__all__ = ["PARTITIONERS", "PartitionRow", "PartitionSummary", "label_counts", "partition", "summarize"]
