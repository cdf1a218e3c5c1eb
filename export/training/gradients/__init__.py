"""`RULES`: TensorFlow operation → how it runs and is differentiated with TFLite builtin operations only.

An operation between a trainable weight and the loss that has no row here is refused at export. Rows with a second
function replace the operation itself as well: TFLite lacks it, or runs it slowly with run-time weights.
"""

from __future__ import annotations

from export.training.gradients import convolution, depthwise, elementwise, losses, normalization, pooling, products
from export.training.gradients import shaping as move
from export.training.gradients.elementwise import blocked
from export.training.gradients.rule import Node, Rule

__all__ = ["RULES", "Node", "Rule"]

RULES: dict[str, Rule] = {
    # arithmetic
    "Add": Rule(elementwise.add),
    "AddV2": Rule(elementwise.add),
    "AddN": Rule(elementwise.add_n, elementwise.add_n_forward),
    "BiasAdd": Rule(elementwise.bias_add, elementwise.bias_add_forward),
    "Sub": Rule(elementwise.subtract),
    "Mul": Rule(elementwise.multiply),
    "RealDiv": Rule(elementwise.divide),
    "DivNoNan": Rule(elementwise.divide_no_nan, elementwise.divide_no_nan_forward),
    "SquaredDifference": Rule(elementwise.squared_difference),
    "Maximum": Rule(elementwise.maximum),
    "Minimum": Rule(elementwise.minimum),
    "Pow": Rule(elementwise.power),
    "Neg": Rule(elementwise.negative),
    "Abs": Rule(elementwise.absolute),
    "Square": Rule(elementwise.square),
    "Sqrt": Rule(elementwise.sqrt),
    "Rsqrt": Rule(elementwise.rsqrt),
    "Reciprocal": Rule(elementwise.reciprocal, elementwise.reciprocal_forward),
    "Exp": Rule(elementwise.exp),
    "Log": Rule(elementwise.log),
    "Log1p": Rule(elementwise.log1p, elementwise.log1p_forward),
    "Sin": Rule(elementwise.sine),
    "Cos": Rule(elementwise.cosine),
    "Erf": Rule(elementwise.erf, elementwise.erf_forward),
    "Erfc": Rule(elementwise.erfc, elementwise.erfc_forward),
    "ClipByValue": Rule(elementwise.clip, elementwise.clip_forward),
    "Cast": Rule(elementwise.cast),
    "Select": Rule(elementwise.select),
    "SelectV2": Rule(elementwise.select),
    "Identity": Rule(elementwise.identity, elementwise.identity_forward),
    "IdentityN": Rule(elementwise.identity, elementwise.identity_forward),
    "StopGradient": Rule(blocked, elementwise.identity_forward),
    # no gradient
    "Sign": Rule(blocked),
    "Floor": Rule(blocked),
    "Round": Rule(blocked),
    "Equal": Rule(blocked),
    "NotEqual": Rule(blocked),
    "Greater": Rule(blocked),
    "GreaterEqual": Rule(blocked),
    "Less": Rule(blocked),
    "LessEqual": Rule(blocked),
    "ArgMax": Rule(blocked),
    "ZerosLike": Rule(blocked),
    "OnesLike": Rule(blocked),
    "Shape": Rule(blocked),
    # activations
    "Relu": Rule(elementwise.relu),
    "Relu6": Rule(elementwise.relu6),
    "LeakyRelu": Rule(elementwise.leaky_relu),
    "Elu": Rule(elementwise.elu),
    "Selu": Rule(elementwise.selu, elementwise.selu_forward),
    "Tanh": Rule(elementwise.tanh),
    "Sigmoid": Rule(elementwise.sigmoid),
    "Softplus": Rule(elementwise.softplus, elementwise.softplus_forward),
    "Softsign": Rule(elementwise.softsign, elementwise.softsign_forward),
    "Softmax": Rule(losses.softmax),
    "LogSoftmax": Rule(losses.log_softmax),
    "SparseSoftmaxCrossEntropyWithLogits": Rule(losses.sparse_cross_entropy, losses.sparse_cross_entropy_forward),
    "SoftmaxCrossEntropyWithLogits": Rule(losses.cross_entropy, losses.cross_entropy_forward),
    # products
    "MatMul": Rule(products.matmul, products.matmul_forward),
    "BatchMatMulV2": Rule(products.matmul, products.matmul_forward),
    "Einsum": Rule(products.einsum),
    "Conv2D": Rule(convolution.conv, convolution.conv_forward),
    "Conv2DBackpropInput": Rule(convolution.transposed_conv, convolution.transposed_forward),
    "DepthwiseConv2dNative": Rule(depthwise.depthwise),
    # pooling and normalisation
    "MaxPool": Rule(pooling.max_pool),
    "AvgPool": Rule(pooling.average_pool),
    "DeviceBatchNorm": Rule(normalization.batch_norm, normalization.batch_norm_forward),
    # moving numbers about
    "Reshape": Rule(move.reshape, move.reshape_forward),
    "Squeeze": Rule(move.reshape, move.reshape_forward),
    "ExpandDims": Rule(move.reshape, move.reshape_forward),
    "Transpose": Rule(move.transpose),
    "Pad": Rule(move.pad),
    "PadV2": Rule(move.pad),
    "Slice": Rule(move.slice_),
    "StridedSlice": Rule(move.strided_slice),
    "ConcatV2": Rule(move.concat),
    "Split": Rule(move.split),
    "SplitV": Rule(move.split),
    "Pack": Rule(move.pack),
    "Unpack": Rule(move.unpack),
    "Tile": Rule(move.tile),
    "BroadcastTo": Rule(move.broadcast_to),
    "ReverseV2": Rule(move.reverse),
    "GatherV2": Rule(move.gather),
    "Sum": Rule(move.total),
    "Mean": Rule(move.mean),
    "Max": Rule(move.extreme),
    "Min": Rule(move.extreme),
    "Cumsum": Rule(move.cumulative_sum),
    "SpaceToDepth": Rule(move.space_to_depth),
    "DepthToSpace": Rule(move.depth_to_space),
    "SpaceToBatchND": Rule(move.space_to_batch),
    "BatchToSpaceND": Rule(move.batch_to_space),
    "ResizeNearestNeighbor": Rule(move.resize),
    "ResizeBilinear": Rule(move.resize),
}
