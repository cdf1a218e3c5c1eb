"""Aggregation: how the client updates of a round become one. A rule is a file and a row of `AGGREGATORS`."""

from __future__ import annotations

from fl_mobile.aggregation.base import AggregationRow, Aggregator
from fl_mobile.aggregation.exact_mean import WeightedMean
from fl_mobile.aggregation.order_statistics import Trimming, median, trimmed_mean

__all__ = ["AGGREGATORS", "AggregationRow", "Aggregator", "WeightedMean"]

AGGREGATORS: dict[str, AggregationRow] = {
    "mean": AggregationRow(WeightedMean, "weighted mean, exact in any order", mean=True, subtractable=True),
    "median": AggregationRow(median, "coordinate-wise median (Yin et al. 2018)"),
    "trimmed-mean": AggregationRow(trimmed_mean, "coordinate-wise mean without both ends (Yin et al. 2018)", Trimming),
}
"""``server.aggregation`` → rule."""
