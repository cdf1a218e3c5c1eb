"""What a lossy codec leaves out, and how it is not lost: error feedback and prediction.

| memory           | who remembers                    | the device encodes            | the server adds        |
|------------------|----------------------------------|-------------------------------|------------------------|
| `none`           | nobody                           | Δ                             | mean of decoded        |
| `error-feedback` | the device: what it did not send | Δ + residual                  | mean of decoded        |
| `cafe`           | the server: its last mean update | Δ − last mean, as broadcast   | mean of decoded + that |

Error feedback: Seide et al., Interspeech 2014; Karimireddy et al., ICML 2019. Its residuals grow stale when devices
take part rarely. CAFe (arXiv 2412.04538) needs no state on the device; the broadcast mean is paid for on the downlink.
"""

from __future__ import annotations

from fl_mobile.tensors import Spec, Tensors


def with_residual(delta: Tensors, residual: Tensors | None) -> Tensors:
    """Returns what to encode under error feedback: the update plus what earlier packets left out."""
    return delta if residual is None else {path: value + residual[path] for path, value in delta.items()}


def residual_after(wanted: Tensors, sent: Tensors | None) -> Tensors:
    """Returns what the server still lacks: ``wanted − sent``, or all of it if the packet never arrived.

    Args:
        wanted: What was encoded.
        sent: What the packet decodes to; None if the upload was lost.
    """
    return wanted if sent is None else {path: value - sent[path] for path, value in wanted.items()}


def predictable(tensors: Tensors, spec: Spec) -> Tensors:
    """Returns a mean update as a prediction: statistics are zeroed, because they travel exactly anyway."""
    return {path: value if spec[path].trainable else value * 0 for path, value in tensors.items()}


def minus(delta: Tensors, prediction: Tensors | None) -> Tensors:
    """Returns the update without its predicted part."""
    return delta if prediction is None else {path: value - prediction[path] for path, value in delta.items()}


def plus(mean: Tensors, prediction: Tensors | None) -> Tensors:
    """Returns the mean with the predicted part put back."""
    return mean if prediction is None else {path: value + prediction[path] for path, value in mean.items()}
