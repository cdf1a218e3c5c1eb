"""Models of text small enough for a phone."""

from __future__ import annotations

from typing import Any

VOCABULARY = 10_000
"""Token numbers run from 0 (padding) to this, exclusive."""


def char_gru(input_shape: tuple[int, ...], num_classes: int, *, input_scale: float) -> Any:
    """Returns 8-wide embeddings, a GRU of 128, and scores of the next token at every step.

    Inputs are ``int32[n, steps]`` tokens below ``num_classes``. After the character model of McMahan et al. 2017
    (embedding 8), with one GRU in the place of two LSTMs of 256, for phones.
    """
    import keras
    from keras import layers

    if len(input_shape) != 1 or input_scale != 1:
        raise ValueError(f"expected token numbers (steps,) that are not scaled, got {input_shape} × {input_scale:g}")
    inputs = keras.Input(input_shape, dtype="int32", name="tokens")
    x = layers.Embedding(num_classes, 8, name="embedding")(inputs)
    x = layers.GRU(128, return_sequences=True, name="gru")(x)
    return keras.Model(inputs, layers.Dense(num_classes, name="logits")(x), name="char_gru")


def text_classifier(input_shape: tuple[int, ...], num_classes: int, *, input_scale: float) -> Any:
    """Returns the mean of 16-wide token embeddings, dense 16, dense: TFLite Model Maker's average_word_vec.

    Inputs are ``int32[n, length]`` token numbers; padding is averaged in, as there.
    """
    import keras
    from keras import layers

    if len(input_shape) != 1 or input_scale != 1:
        raise ValueError(f"expected token numbers (length,) that are not scaled, got {input_shape} × {input_scale:g}")
    inputs = keras.Input(input_shape, dtype="int32", name="tokens")
    x = layers.Embedding(VOCABULARY, 16, name="embedding")(inputs)
    x = layers.GlobalAveragePooling1D(name="pool")(x)
    x = layers.Dense(16, activation="relu", name="dense")(x)
    return keras.Model(inputs, layers.Dense(num_classes, name="logits")(x), name="text_classifier")
