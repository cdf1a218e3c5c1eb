"""What a lossy codec leaves out, and how it is not lost: error feedback and prediction.

| memory           | who remembers                    | the client encodes            | the server adds        |
|------------------|----------------------------------|-------------------------------|------------------------|
| `none`           | nobody                           | Δ                             | mean of decoded        |
| `error-feedback` | the client: what it did not send | Δ + residual                  | mean of decoded        |
| `cafe`           | the server: its last mean update | Δ − prediction, as broadcast  | mean of decoded + that |

Error feedback: Seide et al., Interspeech 2014; Karimireddy et al., ICML 2019. Its residuals grow stale when clients
take part rarely. CAFe (arXiv 2412.04538) needs no state on the client; the broadcast mean is paid for on the downlink.

**How much of the last mean is predicted.** ``E‖Δ − cm‖²`` over clients is least at ``c = ⟨mean Δ, m⟩/‖m‖²``. The whole
mean (c = 1) of few clients with different data, or with the noise of a 100-fold codec in it, makes what is encoded
longer, and the codec's noise with it. The server takes the cosine of its last two means: noise in either shortens it.

**How much of the error is kept.** With x encoded, ``n = x̂ − x`` its error and ``ω = ‖n‖²/‖x‖²``, which each client
measures of its own packet, the next packet encodes ``Δ − βn`` with ``β = 1/(1 + ω)``. Then ``‖βn‖ ≤ ‖x‖/2`` for any
codec and any packet: what is kept is a contraction, and dies out. Plain error feedback (β = 1) needs a codec that
contracts; under 100-fold stochastic rounding, where ω > 1, its residuals grow without bound.

The error of an unbiased codec is noise, of which a packet leaves ``(1 − β)n`` in the model for good. ``E‖n‖² = ω‖x‖²``
and ``E‖x‖² = ‖Δ‖²/(1 − β²ω)`` give a variance of ``(1 − β)²ω/(1 − β²ω)·‖Δ‖²`` a packet. Its least, at β = min(1, 1/ω),
is 1 − 1/ω of what it is without memory, or 0; β = 1/(1 + ω) has ω²/(1 + ω + ω²) (0.877 and not 0.875 at ω = 8), and no
packet more than a third more noise. A biased codec (top-k) keeps at least half of what it left out, which adds up to
1 + 1/ω times a steady update; plain feedback adds up further and grows stale.
"""

from __future__ import annotations

import numpy as np

from fl_mobile.tensors import Spec, Tensors, global_norm

LEAST_PREDICTED = 1 / 16
"""Share of a mean update that is predicted when it shows nothing of the next; of 0 the direction would be forgotten."""


def with_residual(delta: Tensors, residual: Tensors | None) -> Tensors:
    """Returns what to encode under error feedback: the update plus what earlier packets left out."""
    return delta if residual is None else {p: v + residual[p] if p in residual else v for p, v in delta.items()}


def residual_after(wanted: Tensors, sent: Tensors, spec: Spec) -> Tensors:
    """Returns what a client keeps of what its accepted packet left out; never longer than half of ``wanted``.

    Statistics are no part of it: they travel exactly, and are values, not steps that could be made up for later.

    Args:
        wanted: What was encoded.
        sent: What the packet decodes to.
    """
    wanted = {path: value for path, value in wanted.items() if spec[path].trainable}
    left = {path: value - sent[path] for path, value in wanted.items()}
    error, whole = global_norm(left) ** 2, global_norm(wanted) ** 2
    share = np.float32(whole / (whole + error) if error else 1.0)
    return {path: share * value for path, value in left.items()}


def predictable(tensors: Tensors, spec: Spec) -> Tensors:
    """Returns a mean update as a prediction: statistics are zeroed, because they travel exactly anyway."""
    return {path: value if spec[path].trainable else value * 0 for path, value in tensors.items()}


def predicted(mean: Tensors, before: Tensors | None, spec: Spec) -> Tensors:
    """Returns what of a mean update to predict of the next: as much as its direction is that of the one before.

    Args:
        mean: The last one.
        before: The one before it, times any positive number; None after the first.
    """
    share = LEAST_PREDICTED
    if before is not None:
        trained = [path for path in mean if spec[path].trainable]
        along = sum(float(np.vdot(mean[path], before[path])) for path in trained)
        lengths = [global_norm({path: one[path] for path in trained}) for one in (mean, before)]
        share = max(share, along / max(lengths[0] * lengths[1], 1e-30))
    return {path: np.float32(share) * value for path, value in mean.items()}


def minus(delta: Tensors, prediction: Tensors | None) -> Tensors:
    """Returns the update without its predicted part; tensors that nobody predicts stay as they are."""
    return delta if prediction is None else {p: v - prediction[p] if p in prediction else v for p, v in delta.items()}


def plus(mean: Tensors, prediction: Tensors | None) -> Tensors:
    """Returns the mean with the predicted part put back."""
    return mean if prediction is None else {path: value + prediction[path] for path, value in mean.items()}
