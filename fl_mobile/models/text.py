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


def next_word_lstm(
    input_shape: tuple[int, ...], num_classes: int, *, input_scale: float, units: int = 128, width: int = 32
) -> Any:
    """Returns a keyboard's model in little: embeddings of ``width``, one CIFG-LSTM, the same embeddings as scores.

    Inputs are ``int32[n, steps]`` words below ``num_classes``. See `next_word_lstm_670` for the published width.

    Args:
        units: Of the LSTM, whose output is projected to ``width``.
    """
    import keras
    from keras import layers

    from fl_mobile.models.cifg import CifgCell, SharedEmbedding

    if len(input_shape) != 1 or input_scale != 1:
        raise ValueError(f"expected token numbers (steps,) that are not scaled, got {input_shape} × {input_scale:g}")
    inputs = keras.Input(input_shape, dtype="int32", name="tokens")
    # Vectors that score as well as read: with Keras' own, a twentieth of this, plain SGD begins on a plateau.
    spread = keras.initializers.RandomNormal(stddev=1.0)
    words = SharedEmbedding(num_classes, width, embeddings_initializer=spread, name="embedding")
    cell = CifgCell(units, width, name="cifg_cell")
    x = layers.RNN(cell, return_sequences=True, name="cifg")(words(inputs))
    return keras.Model(inputs, words(x, reverse=True), name="next_word_lstm")


def next_word_lstm_670(input_shape: tuple[int, ...], num_classes: int, *, input_scale: float) -> Any:
    """Returns the model of Hard et al. 2018: embedding 96, CIFG-LSTM 670 projected to 96, the embedding shared.

    1,412,250 parameters for 10,000 words. Named by ``model.name = "fl_mobile.models.text:next_word_lstm_670"``.
    """
    return next_word_lstm(input_shape, num_classes, input_scale=input_scale, units=670, width=96)


def tiny_transformer(input_shape: tuple[int, ...], num_classes: int, *, input_scale: float) -> Any:
    """Returns one causal transformer block (Vaswani et al. 2017) and scores of the next token at every step.

    32-wide embeddings, their order by a causal convolution over three steps, two heads of 16, a feed-forward layer of
    64. Inputs are ``int32[n, steps]`` tokens below ``num_classes``.
    """
    import keras
    from keras import layers

    if len(input_shape) != 1 or input_scale != 1:
        raise ValueError(f"expected token numbers (steps,) that are not scaled, got {input_shape} × {input_scale:g}")
    inputs = keras.Input(input_shape, dtype="int32", name="tokens")
    x = layers.Embedding(num_classes, 32, name="embedding")(inputs)
    x = layers.Conv1D(32, 3, padding="causal", name="order")(x)
    seen = layers.MultiHeadAttention(2, 16, name="attention")(x, x, use_causal_mask=True)
    x = layers.LayerNormalization(name="norm1")(layers.Add(name="add1")([x, seen]))
    told = layers.Dense(32, name="narrow")(layers.Dense(64, activation="relu", name="wide")(x))
    x = layers.LayerNormalization(name="norm2")(layers.Add(name="add2")([x, told]))
    return keras.Model(inputs, layers.Dense(num_classes, name="logits")(x), name="tiny_transformer")


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
