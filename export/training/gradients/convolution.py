"""Convolution as patches × kernel, and its two gradients, in operations XNNPACK runs with run-time weights.

XNNPACK's own convolution wants constant weights, so CONV_2D and TRANSPOSE_CONV on a variable fall back to kernels
four to five times slower (27 GFLOP/s against 150 for BATCH_MATMUL on one AVX-512 core). Hence

```
forward          patches(x) · w              patches = slices of x, one per kernel position, side by side
weight gradient  patchesᵀ · g                the forward's patches are reused
input gradient   g · wᵀ, summed back         first along columns for all kernel rows at once, then along rows
```
A stride s > 1 is folded away first: SPACE_TO_DEPTH by s makes it a stride-1 convolution of a kernel with ⌈k/s⌉
positions and s² times the channels. Strides that differ between rows and columns cannot be folded so: their patches are
strided slices, and their gradient is spread by the strides before it is summed back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from export.training.gradients.products import product
from export.training.gradients.rule import Gradients, Node, shape_of
from export.training.gradients.shaping import stretch

CACHE_BYTES = 600_000


@dataclass(frozen=True)
class Geometry:
    """Where the windows of a convolution or pool lie on its input, rows and columns.

    Attributes:
        size: Height and width of the input.
        kernel: Positions of the window.
        stride: Steps between windows.
        dilation: Steps between positions of a window.
        before: Zero rows and columns put in front; negative never occurs.
        out: Height and width of the result.
    """

    size: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    before: tuple[int, int]
    out: tuple[int, int]

    def span(self, axis: int) -> int:
        """Returns how many rows (0) or columns (1) of padded input the windows cover."""
        return (self.out[axis] - 1) * self.stride[axis] + (self.kernel[axis] - 1) * self.dilation[axis] + 1


def geometry(
    node: Node, size: tuple[int, int], kernel: tuple[int, int], out: tuple[int, int], *, dilated: bool = True
) -> Geometry:
    """Reads strides, dilations and padding of a convolution or pool operation.

    Raises:
        ValueError: It is ``channels_first``.
    """
    if node.attr("data_format") != "NHWC":
        raise ValueError("channels_first is not supported on phones; build the model with channels_last")
    stride = tuple(node.attr("strides")[1:3])
    if dilated and 1 in out:  # one window along an axis, as Conv1D has: its step means nothing there
        stride = (max(s for s, o in zip(stride, out, strict=True) if o > 1 or out == (1, 1)),) * 2
    dilation = tuple(node.attr("dilations")[1:3]) if dilated else (1, 1)
    if node.attr("padding") == "EXPLICIT":
        pads = node.attr("explicit_paddings")
        before = (pads[2], pads[4])
    elif node.attr("padding") == "SAME":
        reach = [(o - 1) * s + (k - 1) * d + 1 for o, s, k, d in zip(out, stride, kernel, dilation, strict=True)]
        before = tuple(max(r - n, 0) // 2 for r, n in zip(reach, size, strict=True))
    else:
        before = (0, 0)
    return Geometry(size=size, kernel=kernel, stride=stride, dilation=dilation, before=before, out=out)


def place(x: Any, before: tuple[int, int], size: tuple[int, int], value: float = 0.0) -> Any:
    """Shifts an image down and right by ``before`` and cuts or pads it to ``size``."""
    import tensorflow as tf

    batch, height, width, depth = shape_of(x)
    keep = [min(n, s - b) for n, s, b in zip((height, width), size, before, strict=True)]
    if keep != [height, width]:
        x = tf.slice(x, [0, 0, 0, 0], [batch, *keep, depth])
    after = [s - b - k for s, b, k in zip(size, before, keep, strict=True)]
    if any(before) or any(after):
        x = tf.pad(x, [[0, 0], [before[0], after[0]], [before[1], after[1]], [0, 0]], constant_values=value)
    return x


def lift(x: Any, before: tuple[int, int], size: tuple[int, int]) -> Any:
    """Undoes `place`: takes the image at ``before`` out of a larger one, zeros where `place` had cut."""
    import tensorflow as tf

    batch, height, width, depth = shape_of(x)
    keep = [min(s, n - b) for s, n, b in zip(size, (height, width), before, strict=True)]
    if keep != [height, width] or any(before):
        x = tf.slice(x, [0, *before, 0], [batch, *keep, depth])
    after = [s - k for s, k in zip(size, keep, strict=True)]
    return tf.pad(x, [[0, 0], [0, after[0]], [0, after[1]], [0, 0]]) if any(after) else x


@dataclass(frozen=True)
class Plan:
    """A convolution rewritten with stride 1: ``block`` for SPACE_TO_DEPTH, then ``kernel`` positions.

    Attributes:
        geo: The convolution as the user wrote it.
        block: 1, or the stride that is folded into channels.
        kernel: Positions after folding.
        padded: Height and width of the padded input, before folding.
    """

    geo: Geometry
    block: int
    kernel: tuple[int, int]
    padded: tuple[int, int]

    @property
    def strided(self) -> bool:
        """Whether there is a stride that is not folded."""
        return self.block == 1 and self.geo.stride != (1, 1)


def plan_of(geo: Geometry) -> Plan:
    """Folds the stride where it is the same for rows and columns and the kernel's positions lie side by side."""
    s = geo.stride[0]
    if geo.stride != (s, s) or s == 1 or geo.kernel == (1, 1) or geo.dilation != (1, 1):
        return Plan(geo, 1, geo.kernel, (geo.span(0), geo.span(1)))
    kernel = (-(-geo.kernel[0] // s), -(-geo.kernel[1] // s))
    padded = ((geo.out[0] - 1 + kernel[0]) * s, (geo.out[1] - 1 + kernel[1]) * s)
    return Plan(geo, s, kernel, padded)


def patches(x: Any, plan: Plan) -> Any:
    """Returns ``float32[b · oh · ow, kh · kw · c]``."""
    import tensorflow as tf

    geo, (oh, ow) = plan.geo, plan.geo.out
    x = place(x, geo.before, plan.padded)
    if plan.block > 1:
        x = tf.nn.space_to_depth(x, plan.block)
    batch, _, _, depth = shape_of(x)
    dh, dw = geo.dilation
    starts = [(i * dh, j * dw) for i in range(plan.kernel[0]) for j in range(plan.kernel[1])]
    if plan.strided:
        (sh, sw), one = geo.stride, [batch, (oh - 1) * geo.stride[0] + 1, (ow - 1) * geo.stride[1] + 1, depth]
        ends = [[batch, i + one[1], j + one[2], depth] for i, j in starts]
        pairs = zip(starts, ends, strict=True)
        views = [tf.strided_slice(x, [0, i, j, 0], end, [1, sh, sw, 1]) for (i, j), end in pairs]
    else:
        views = [tf.slice(x, [0, i, j, 0], [batch, oh, ow, depth]) for i, j in starts] if len(starts) > 1 else [x]
    if depth == 1 and len(views) > 1:
        # One channel: CONCATENATION would copy single floats. Whole views one under the other, then one TRANSPOSE,
        # take an eighth of the time.
        return tf.transpose(tf.concat([tf.reshape(v, [1, batch * oh * ow]) for v in views], 0))
    # Each view as a matrix before they are joined: a RESHAPE of the joined patches would be a copy of them all.
    flat = [tf.reshape(v, [batch * oh * ow, depth]) for v in views]
    return tf.concat(flat, -1) if len(flat) > 1 else flat[0]


def flat_kernel(w: Any, plan: Plan) -> Any:
    """Returns ``float32[kh · kw · c, o]`` of the folded convolution."""
    import tensorflow as tf

    kh, kw, depth, out = shape_of(w)
    if plan.block == 1:
        return tf.reshape(w, [kh * kw * depth, out])
    s, (fh, fw) = plan.block, plan.kernel
    w = tf.pad(w, [[0, fh * s - kh], [0, fw * s - kw], [0, 0], [0, 0]])
    w = tf.transpose(tf.reshape(w, [fh, s, fw, s * depth * out]), [0, 2, 1, 3])
    return tf.reshape(w, [fh * fw * s * s * depth, out])


def unflatten_kernel(flat: Any, shape: list[int], plan: Plan) -> Any:
    """Undoes `flat_kernel`."""
    import tensorflow as tf

    if plan.block == 1:
        return tf.reshape(flat, shape)
    depth, out = shape[2:]
    s, (fh, fw) = plan.block, plan.kernel
    w = tf.transpose(tf.reshape(flat, [fh, fw, s, s * depth * out]), [0, 2, 1, 3])
    return tf.slice(tf.reshape(w, [fh * s, fw * s, depth, out]), [0, 0, 0, 0], shape)


def kernel_gradient(cols: Any, g: Any, shape: list[int], plan: Plan) -> Any:
    """Returns the gradient of the kernel from the forward's patches."""
    import tensorflow as tf

    batch, (rows, width) = shape_of(g)[0], shape_of(cols)
    if 4 * rows * width > CACHE_BYTES and width > 1:
        # One product an example, then their sum: the transposed patches of one stay in the cache.
        cols, g = (tf.reshape(t, [batch, rows // batch, -1]) for t in (cols, g))
        flat = tf.reduce_sum(tf.matmul(cols, g, transpose_a=True), 0)
    else:
        flat = tf.matmul(tf.transpose(cols), tf.reshape(g, [rows, shape[-1]]))
    return unflatten_kernel(flat, shape, plan)


def input_gradient(g: Any, w: Any, plan: Plan, depth: int) -> Any:
    """Returns the gradient of the input: the transposed convolution of ``g``, ``float32[b, h, w, c]``."""
    import tensorflow as tf

    geo, (oh, ow), (kh, kw) = plan.geo, plan.geo.out, plan.kernel
    batch, out = shape_of(g)[0], shape_of(w)[3]
    folded = depth * plan.block**2
    # One product gives every kernel position's share; positions are ordered (column, row, channel) so that the
    # shares of one kernel column are one contiguous slice, padded and added for all kernel rows together.
    flat = tf.reshape(flat_kernel(w, plan), [kh, kw, folded, out])
    right = tf.reshape(tf.transpose(flat, [3, 1, 0, 2]), [out, kw * kh * folded])
    dh, dw = geo.dilation
    images = []
    rows = cache_rows(batch, 4 * oh * ow * kw * kh * folded) if kh * kw > 1 else batch
    for at in range(0, batch, rows):
        part = tf.slice(g, [at, 0, 0, 0], [rows, oh, ow, out]) if rows < batch else g
        shares = tf.reshape(product(tf.reshape(part, [rows * oh * ow, out]), right), [rows, oh, ow, kw * kh * folded])
        if plan.strided:
            shares = stretch(stretch(shares, 1, geo.stride[0]), 2, geo.stride[1])
        columns = _overlay(shares, kw, kh * folded, dw, axis=2)
        images.append(_overlay(columns, kh, folded, dh, axis=1))
    image = tf.concat(images, 0) if len(images) > 1 else images[0]
    if plan.block > 1:
        image = tf.nn.depth_to_space(image, plan.block)
    return lift(image, geo.before, geo.size)


def cache_rows(batch: int, bytes_per_example: int) -> int:
    """Returns how many examples to work on at a time: the largest divisor of the batch within half a megabyte.

    Intermediates of that size stay in a core's second-level cache between operations; whole batches of them made the
    input gradient a third slower (2.4 against 1.7 ms for 32 × 13 × 13 × 32, 64 filters).
    """
    fitting = [n for n in range(1, batch + 1) if batch % n == 0 and n * bytes_per_example <= CACHE_BYTES]
    return max(fitting, default=1)


def _overlay(shares: Any, count: int, depth: int, step: int, axis: int) -> Any:
    """Adds ``count`` channel groups of ``depth``, each shifted by ``step`` more along ``axis``."""
    import tensorflow as tf

    if count == 1:
        return shares
    shape, total = shape_of(shares)[:3], None
    for i in range(count):
        part = tf.slice(shares, [0, 0, 0, i * depth], [*shape, depth])
        pads = [[0, 0], [0, 0], [0, 0], [0, 0]]
        pads[axis] = [i * step, (count - 1 - i) * step]
        part = tf.pad(part, pads)
        total = part if total is None else total + part
    return total


def _plan(node: Node, image: Any, kernel: Any, result: Any) -> Plan:
    (_, h, w, _), (kh, kw, *_), (_, oh, ow, _) = (shape_of(t) for t in (image, kernel, result))
    return plan_of(geometry(node, (h, w), (kh, kw), (oh, ow)))


def split(tensor: Any, groups: int) -> list[Any]:
    """Splits channels; one group is the tensor itself, because SPLIT by 1 copies."""
    import tensorflow as tf

    return tf.split(tensor, groups, -1) if groups > 1 else [tensor]


def _groups(node: Node) -> int:
    return shape_of(node.inputs[0])[3] // shape_of(node.inputs[1])[2]


def conv_forward(node: Node) -> Gradients:
    """CONV_2D itself when its weights are constants of the program, patches × kernel otherwise."""
    import tensorflow as tf

    x, w = node.inputs
    plan = _plan(node, x, w, node.op.outputs[0])
    groups = _groups(node)
    if node.frozen[1] and groups == 1:
        stride, padding = node.attr("strides"), node.attr("padding")
        if padding != "EXPLICIT":
            return (tf.nn.conv2d(x, w, stride, padding, dilations=node.attr("dilations")),)
    shape = shape_of(node.op.outputs[0])
    parts = []
    for part_x, part_w in zip(split(x, groups), split(w, groups), strict=True):
        cols = patches(part_x, plan)
        node.saved.setdefault("patches", []).append(cols)
        parts.append(tf.reshape(product(cols, flat_kernel(part_w, plan)), [*shape[:3], shape[3] // groups]))
    return (tf.concat(parts, -1) if groups > 1 else parts[0],)


def conv(node: Node, g: Any) -> Gradients:
    import tensorflow as tf

    x, w = node.inputs
    plan, groups, depth = _plan(node, x, w, node.op.outputs[0]), _groups(node), shape_of(w)[2]
    dx, dw = [], []
    for i, (part_g, part_w) in enumerate(zip(split(g, groups), split(w, groups), strict=True)):
        if node.needs[0]:
            dx.append(input_gradient(part_g, part_w, plan, depth))
        if node.needs[1]:
            dw.append(kernel_gradient(node.saved["patches"][i], part_g, shape_of(part_w), plan))
    return [tf.concat(parts, -1) if len(parts) > 1 else (parts[0] if parts else None) for parts in (dx, dw)]


def transposed_forward(node: Node) -> Gradients:
    """Conv2DTranspose: the input gradient of the convolution it is named after."""
    _, w, x = node.inputs
    plan = _plan(node, node.op.outputs[0], w, x)
    return (input_gradient(x, w, plan, shape_of(w)[2]),)


def transposed_conv(node: Node, g: Any) -> Gradients:
    import tensorflow as tf

    _, w, x = node.inputs
    plan = _plan(node, node.op.outputs[0], w, x)
    cols = patches(g, plan)
    dx = tf.reshape(product(cols, flat_kernel(w, plan)), shape_of(x)) if node.needs[2] else None
    dw = kernel_gradient(cols, x, shape_of(w), plan) if node.needs[1] else None
    return None, dw, dx
