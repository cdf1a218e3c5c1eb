"""Aggregation: how the client updates of a round become one. A rule is a file and a row of `AGGREGATORS`."""

from __future__ import annotations

from fl_mobile.aggregation.base import AggregationRow, Aggregator
from fl_mobile.aggregation.centered_clipping import Clipping, centered_clipping
from fl_mobile.aggregation.exact_mean import WeightedMean
from fl_mobile.aggregation.fltrust import Root, fltrust
from fl_mobile.aggregation.multi_krum import Suspicion, multi_krum, too_crowded
from fl_mobile.aggregation.norm_bound import norm_bound
from fl_mobile.aggregation.order_statistics import Trimming, median, nothing_left, trimmed_mean
from fl_mobile.aggregation.single import no_majority
from fl_mobile.table import Table

__all__ = ["AGGREGATORS", "AggregationRow", "Aggregator", "WeightedMean"]

AGGREGATORS: Table[AggregationRow] = Table(
    "aggregation",
    AggregationRow,
    {
        "mean": AggregationRow(WeightedMean, "weighted mean, exact in any order", mean=True, subtractable=True),
        "norm-bound": AggregationRow(
            norm_bound, "mean of updates cut to the median of their norms (Sun et al. 2019)", too_few=no_majority
        ),
        "median": AggregationRow(
            median, "coordinate-wise median (Yin et al. 2018)", too_few=no_majority, by_coordinate=True
        ),
        "trimmed-mean": AggregationRow(
            trimmed_mean,
            "coordinate-wise mean without both ends (Yin et al. 2018)",
            Trimming,
            too_few=nothing_left,
            by_coordinate=True,
        ),
        "multi-krum": AggregationRow(
            multi_krum,
            "mean of those with the closest neighbours (Blanchard et al. 2017)",
            Suspicion,
            too_few=too_crowded,
        ),
        "centered-clipping": AggregationRow(
            centered_clipping, "short steps from the median (Karimireddy et al. 2021)", Clipping, too_few=no_majority
        ),
        "fltrust": AggregationRow(
            fltrust, "trust by likeness to the server's own update (Cao et al. 2021)", Root, reference=True
        ),
    },
)
"""``server.aggregation`` → rule."""
