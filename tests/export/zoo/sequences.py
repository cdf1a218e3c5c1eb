"""Loops, tokens, attention and one dimension."""

from __future__ import annotations

from typing import Any

from keras import layers as L

from tests.export.zoo.build import ROWS, WORDS, graph, stack

# Recurrent


def simple_rnn() -> Any:
    """The plainest loop."""
    return stack(ROWS, L.SimpleRNN(8), L.Dense(3))


def lstm() -> Any:
    """A loop in the graph."""
    return stack(ROWS, L.LSTM(8), L.Dense(3))


def gru() -> Any:
    """Reset after the product, Keras' default."""
    return stack(ROWS, L.GRU(8), L.Dense(3))


def gru_reset_before() -> Any:
    """The other order."""
    return stack(ROWS, L.GRU(8, reset_after=False), L.Dense(3))


def bidirectional() -> Any:
    """Both ways, over whole sequences, then the other way alone."""
    return stack(ROWS, L.Bidirectional(L.LSTM(5, return_sequences=True)), L.GRU(6, go_backwards=True), L.Dense(3))


def rnn_of_cells() -> Any:
    """Stacked cells in one RNN layer."""
    return stack(ROWS, L.RNN([L.LSTMCell(5), L.GRUCell(4)]), L.Dense(3))


def lstm_states() -> Any:
    """The encoder of a sequence model: its states are outputs."""

    def answer(rows: Any) -> Any:
        _, hidden, cell = L.LSTM(6, return_state=True)(rows)
        return [hidden, cell]

    return graph(ROWS, answer)


def lstm_of_masked_tokens() -> Any:
    """Padding is skipped, both ways."""
    both_ways = L.Bidirectional(L.GRU(3, return_sequences=True))
    return stack((4,), L.Embedding(WORDS, 6, mask_zero=True), both_ways, L.LSTM(6), L.Dense(3), dtype="int32")


def conv_lstm() -> Any:
    """Pictures one after the other."""
    return stack((3, 8, 8, 1), L.ConvLSTM2D(3, 3), L.Flatten(), L.Dense(3))


def time_distributed() -> Any:
    """The same layer at every step."""
    return stack(
        (4, 8, 8, 1),
        L.TimeDistributed(L.Conv2D(3, 3, activation="relu")),
        L.TimeDistributed(L.Flatten()),
        L.GRU(5),
        L.Dense(2),
    )


# Tokens and attention


def embedding() -> Any:
    """A bag of words."""
    return stack((8,), L.Embedding(WORDS, 8), L.GlobalAveragePooling1D(), L.Dense(3), dtype="int32")


def embedding_masked() -> Any:
    """A mean over what is no padding."""
    return stack((8,), L.Embedding(WORDS, 8, mask_zero=True), L.GlobalAveragePooling1D(), L.Dense(3), dtype="int32")


def next_word() -> Any:
    """Scores of all words at every step."""
    return stack(
        (8,), L.Embedding(WORDS, 8), L.Conv1D(8, 3, padding="causal", activation="relu"), L.Dense(WORDS), dtype="int32"
    )


def multi_head_attention() -> Any:
    """A sequence to itself."""
    return graph(ROWS, lambda x: L.Dense(3)(L.Flatten()(L.MultiHeadAttention(2, 4)(x, x))))


def causal_attention() -> Any:
    """No step sees later ones."""
    return graph(ROWS, lambda x: L.Dense(3)(L.MultiHeadAttention(2, 4)(x, x, use_causal_mask=True)))


def grouped_query_attention() -> Any:
    """Queries share keys."""
    return graph(ROWS, lambda x: L.Dense(3)(L.GroupQueryAttention(4, 4, 2)(x, x)))


def dot_and_additive_attention() -> Any:
    """Luong's and Bahdanau's."""
    return graph(
        ROWS, lambda x: L.Dense(3)(L.Flatten()(L.Concatenate()([L.Attention()([x, x]), L.AdditiveAttention()([x, x])])))
    )


def transformer() -> Any:
    """One block over tokens and places."""

    def answer(x: Any) -> Any:
        x = L.LayerNormalization()(x + L.MultiHeadAttention(2, 3, dropout=0.1)(x, x))
        x = L.LayerNormalization()(x + L.Dense(6)(L.Dense(12, "gelu")(x)))
        return L.Dense(3, "softmax")(L.GlobalAveragePooling1D()(x))

    return graph(ROWS, answer)


# One dimension


def conv1d() -> Any:
    """Keyword spotting."""
    return stack(
        (32, 4),
        L.Conv1D(8, 5, 2, activation="relu"),
        L.MaxPooling1D(),
        L.Conv1D(8, 3),
        L.GlobalMaxPooling1D(),
        L.Dense(3),
    )


def causal_dilated() -> Any:
    """A temporal convolution network."""
    return stack(
        (16, 4),
        L.Conv1D(6, 3, padding="causal", dilation_rate=2, activation="relu"),
        L.AveragePooling1D(2),
        L.Flatten(),
        L.Dense(3),
    )


def separable1d() -> Any:
    """Depthwise and separable."""
    return stack(
        (16, 4),
        L.SeparableConv1D(6, 3, activation="relu"),
        L.DepthwiseConv1D(3),
        L.GlobalAveragePooling1D(),
        L.Dense(3),
    )


def transposed1d() -> Any:
    """Longer again."""
    return stack((8, 4), L.Conv1DTranspose(3, 4, 2, padding="same"), L.UpSampling1D(2), L.Cropping1D(3))
