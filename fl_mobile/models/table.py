"""The models by name. Imports no TensorFlow: a row names its builder."""

from __future__ import annotations

from dataclasses import dataclass

from fl_mobile.tasks.table import CLASSIFICATION


@dataclass(frozen=True)
class ModelRow:
    """A model that can be named.

    Attributes:
        build: ``module:function`` with signature ``(input_shape, num_classes, *, input_scale) -> keras.Model``.
        input_shape: Of one example, in the literature's setting; builders take others.
        num_classes: In the same setting.
        reference: The publication, with its parameter count in that setting.
        input_dtype: ``"float32"`` (raw pixels or features) or ``"int32"`` (token numbers).
        input_scale: What the first layer multiplies by in that setting: 1 for features and tokens.
        from_logits: The outputs still need a softmax; the exporter adds it.
        application: ``(class, alpha)`` in ``keras.applications`` whose published weights fit, or None.
        task: Row of `fl_mobile.tasks.TASKS` in the same setting.
        default_weights: What ``weights=None`` means: ``"none"`` (seeded initialisers) or ``"imagenet"``.
    """

    build: str
    summary: str
    input_shape: tuple[int, ...]
    num_classes: int
    reference: str
    input_dtype: str = "float32"
    input_scale: float = 1 / 255
    from_logits: bool = True
    application: tuple[str, float] | None = None
    default_weights: str = "none"
    task: str = CLASSIFICATION


MODELS: dict[str, ModelRow] = {
    "smart-camera-cnn": ModelRow(
        build="fl_mobile.models.plain:smart_camera_cnn",
        summary="two 3×3 convolutions, two max-pools, dropout, dense 128",
        input_shape=(28, 28, 1),
        num_classes=10,
        reference="the MNIST CNN of the Keras and FL examples, 225,034 parameters",
    ),
    "tanh-cnn": ModelRow(
        build="fl_mobile.models.plain:tanh_cnn",
        summary="two convolutions, two max-pools, dense 32, all tanh: what noise costs least",
        input_shape=(28, 28, 1),
        num_classes=10,
        reference="the MNIST CNN of DP-SGD papers (Papernot et al. 2021), 26,010 parameters",
    ),
    "mlp": ModelRow(
        build="fl_mobile.models.plain:mlp",
        summary="two hidden layers of 200",
        input_shape=(28, 28, 1),
        num_classes=10,
        reference="2NN of McMahan et al. 2017, 199,210 parameters",
    ),
    "logistic": ModelRow(
        build="fl_mobile.models.plain:logistic",
        summary="one dense layer: the baseline everything must beat",
        input_shape=(28, 28, 1),
        num_classes=10,
        reference="multinomial logistic regression, 7,850 parameters",
    ),
    "mobilenet-v2-head": ModelRow(
        build="fl_mobile.models.mobilenet:mobilenet_v2_head",
        summary="frozen MobileNetV2, a dense head that trains: only the head travels",
        input_shape=(96, 96, 3),
        num_classes=10,
        reference="Sandler et al. 2018, 2,257,984 frozen parameters",
        application=("MobileNetV2", 1.0),
        default_weights="imagenet",
    ),
    "mobilenet-v2-0.35": ModelRow(
        build="fl_mobile.models.mobilenet:mobilenet_v2_035",
        summary="MobileNetV2 of width 0.35, all of it trains",
        input_shape=(96, 96, 3),
        num_classes=10,
        reference="Sandler et al. 2018, 410,208 parameters before the head",
        application=("MobileNetV2", 0.35),
    ),
    "mobilenet-v1-0.25": ModelRow(
        build="fl_mobile.models.mobilenet:mobilenet_v1_025",
        summary="MobileNet of width 0.25, all of it trains",
        input_shape=(96, 96, 3),
        num_classes=2,
        reference="Howard et al. 2017, 218,544 parameters before the head",
        application=("MobileNet", 0.25),
    ),
    "resnet-8": ModelRow(
        build="fl_mobile.models.tiny:resnet_8",
        summary="three residual stacks for 32×32 colour pictures",
        input_shape=(32, 32, 3),
        num_classes=10,
        reference="MLPerf Tiny image classification (Banbury et al. 2021), 78,666 parameters",
    ),
    "ds-cnn": ModelRow(
        build="fl_mobile.models.tiny:ds_cnn",
        summary="depthwise-separable CNN for keyword spotting on 49×10 MFCC frames",
        input_shape=(49, 10, 1),
        num_classes=12,
        reference="MLPerf Tiny keyword spotting (Banbury et al. 2021; Zhang et al. 2017), 24,908 parameters",
        input_scale=1.0,
    ),
    "text-classifier": ModelRow(
        build="fl_mobile.models.text:text_classifier",
        summary="mean of 16-wide embeddings of 10,000 tokens, dense 16",
        input_shape=(256,),
        num_classes=2,
        reference="average_word_vec of TFLite Model Maker, 160,306 parameters",
        input_dtype="int32",
        input_scale=1.0,
    ),
    "char-gru": ModelRow(
        build="fl_mobile.models.text:char_gru",
        summary="next character at every step: embedding 8, GRU 128",
        input_shape=(40,),
        num_classes=97,
        reference="after the character model of McMahan et al. 2017, 66,281 parameters",
        input_dtype="int32",
        input_scale=1.0,
        task="sequence",
    ),
    "next-word-lstm": ModelRow(
        build="fl_mobile.models.text:next_word_lstm",
        summary="next word at every step: shared embedding 32, CIFG-LSTM 128",
        input_shape=(20,),
        num_classes=1001,
        reference="the keyboard's model of Hard et al. 2018, narrower, 61,088 parameters",
        input_dtype="int32",
        input_scale=1.0,
        task="sequence",
    ),
    "tiny-transformer": ModelRow(
        build="fl_mobile.models.text:tiny_transformer",
        summary="next character at every step: embedding 32, one causal block of two heads",
        input_shape=(40,),
        num_classes=97,
        reference="one block after Vaswani et al. 2017, 17,953 parameters",
        input_dtype="int32",
        input_scale=1.0,
        task="sequence",
    ),
    "tiny-unet": ModelRow(
        build="fl_mobile.models.shaped:tiny_unet",
        summary="a class at every pixel: widths 8, 16 and 32, two skips",
        input_shape=(32, 64, 1),
        num_classes=11,
        reference="after Ronneberger et al. 2015, 29,707 parameters",
        task="segmentation",
    ),
    "autoencoder": ModelRow(
        build="fl_mobile.models.shaped:autoencoder",
        summary="inputs of any shape through a code of 16 and back: what comes back badly is unusual",
        input_shape=(28, 28, 1),
        num_classes=784,
        reference="a dense autoencoder, 103,328 parameters",
        task="reconstruction",
    ),
    "har-cnn": ModelRow(
        build="fl_mobile.models.sensors:har_cnn",
        summary="what somebody does, from 128 samples of six channels: three convolutions over time",
        input_shape=(128, 6),
        num_classes=6,
        reference="after the CNNs of Ignatov 2018 and Ronao & Cho 2016 for UCI HAR, 32,230 parameters",
        input_scale=1.0,
    ),
    "tabular-mlp": ModelRow(
        build="fl_mobile.models.tabular:tabular_mlp",
        summary="rows of numbers: dense 64, dense 32, a linear head for classes or numbers",
        input_shape=(30,),
        num_classes=2,
        reference="the small MLP of tabular baselines, 4,130 parameters",
        input_scale=1.0,
    ),
}
