"""How far artifacts may stray from Keras, with the measurements behind it."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Tolerance:
    """How far an artifact may stray from Keras before it is refused; ``export.verify.parity`` judges, and says why so.

    Differences are probabilities, or shares of the range of an output that is none. Shares are turned into counts and
    one changed class is always forgiven, because 1 of 20 samples is not a measured 5 %.

    Attributes:
        max_abs: Largest difference of any probability.
        outliers: Share of samples that may have a larger one.
        mean_abs: Mean difference over all probabilities.
        mean_values: The same of an output that is none, as a share of its range. More, because of ten probabilities
            eight are near zero and do not differ.
        agreement: Least share of samples with the same first class as Keras, ties forgiven.
        accuracy_drop: Most accuracy that may be lost against Keras, as a share (0.01 is one point).
        class_accuracy_drop: The same for the worst single class.
        tie_margin: Keras' own preference, in probability, below which a flip is a tie however small the artifact's
            noise: the output grid of an 8-bit artifact (1/256) cannot tell such classes apart.
        replay_abs: Largest difference between two runtimes running the same artifact on the golden frames.
    """

    max_abs: float
    outliers: float
    mean_abs: float
    mean_values: float
    agreement: float
    accuracy_drop: float
    class_accuracy_drop: float
    tie_margin: float
    replay_abs: float


# Worst of seeds 0, 1, 2 on 1,000 held-out digits, as max and mean probability difference. The smart-camera CNN: float32
# 1.5e-6 and 1.3e-8, float16 1e-3 and 3e-6, dynamic-int8 2e-2 and 1e-4, int8 6e-2 and 5e-4, int16x8 2e-2 and 2e-4.
# MobileNetV2 at 96 px, an uncertain model of 52 layers: float16 3.5e-2 and 6e-4, dynamic-int8 0.32 and 8e-3, int8 0.41
# (one frame beyond 0.4) and 1.1e-2. Counting class changes are at most 3 of 1,000, so 1 % are allowed. A zeroed layer,
# shuffled outputs or a wrong normalisation are far beyond every gate (tests/export/verify/test_verify.py).
FLOAT32 = Tolerance(
    max_abs=1e-4,
    outliers=0.0,
    mean_abs=1e-5,
    mean_values=1e-4,
    agreement=0.999,
    accuracy_drop=0.001,
    class_accuracy_drop=0.01,
    tie_margin=2e-4,
    replay_abs=1e-5,
)
FLOAT16 = Tolerance(
    max_abs=0.05,
    outliers=0.0,
    mean_abs=1e-3,
    mean_values=5e-3,
    agreement=0.998,
    accuracy_drop=0.005,
    class_accuracy_drop=0.02,
    tie_margin=0.01,
    replay_abs=0.01,
)
WEIGHTS_INT8 = Tolerance(
    max_abs=0.4,
    outliers=0.002,
    mean_abs=0.01,
    mean_values=0.05,
    agreement=0.99,
    accuracy_drop=0.01,
    class_accuracy_drop=0.05,
    tie_margin=0.04,
    replay_abs=0.02,
)
INT8 = replace(WEIGHTS_INT8, mean_abs=0.02, mean_values=0.1, tie_margin=0.06, replay_abs=0.04)


# Against the model before tuning. Further training moves every answer, and of a model that had not learnt enough it
# moves them to better ones; so the answers are compared with the true classes, not with the model's. That the artifact
# is the tuned model is judged apart, with the tolerance of its conversion.
TUNED = Tolerance(
    max_abs=1.0,
    outliers=0.0,
    mean_abs=1.0,
    mean_values=1.0,
    agreement=0.0,
    accuracy_drop=0.02,
    class_accuracy_drop=0.1,
    tie_margin=0.06,
    replay_abs=0.04,
)
