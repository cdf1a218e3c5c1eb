"""Rules of operations that move numbers about: reshape, slice, pad, concatenate, gather, reduce, resize."""

from __future__ import annotations

from typing import Any

import numpy as np

from export.training.gradients.rule import Gradients, Node, positive, shape_of, spread


def reshape(node: Node, g: Any) -> Gradients:
    import tensorflow as tf

    return (tf.reshape(g, shape_of(node.inputs[0])), *[None] * (len(node.inputs) - 1))


def reshape_forward(node: Node) -> Gradients:
    """RESHAPE to the static result: covers Squeeze and ExpandDims too, and every runtime has it."""
    import tensorflow as tf

    return (tf.reshape(node.inputs[0], shape_of(node.op.outputs[0])),)


def transpose(node: Node, g: Any) -> Gradients:
    import tensorflow as tf

    return (tf.transpose(g, np.argsort(node.static(1)).tolist()), None)


def pad(node: Node, g: Any) -> Gradients:
    import tensorflow as tf

    before = node.static(1)[:, 0].tolist()
    return (tf.slice(g, before, shape_of(node.inputs[0])), *[None] * (len(node.inputs) - 1))


def slice_(node: Node, g: Any) -> Gradients:
    import tensorflow as tf

    begin = node.static(1).tolist()
    whole, part = shape_of(node.inputs[0]), shape_of(g)
    return (tf.pad(g, [[b, w - b - p] for b, w, p in zip(begin, whole, part, strict=True)]), None, None)


def strided_slice(node: Node, g: Any) -> Gradients:
    """Puts the gradient back where the slice came from: stretched along strided axes, then padded with zeros."""
    import tensorflow as tf

    whole = shape_of(node.inputs[0])
    starts, steps, counts = _slice_of(node, whole)
    g = tf.reshape(g, counts)
    for axis, step in enumerate(steps):
        if step < 0:
            raise ValueError("a slice with a negative step is not supported; use tf.reverse")
        g = stretch(g, axis, step)
    have = shape_of(g)
    cut = [min(h, w - s) for h, w, s in zip(have, whole, starts, strict=True)]
    g = tf.slice(g, [0] * len(cut), cut) if cut != have else g
    return (tf.pad(g, [[s, w - s - c] for s, w, c in zip(starts, whole, cut, strict=True)]), None, None, None)


def _slice_of(node: Node, whole: list[int]) -> tuple[list[int], list[int], list[int]]:
    """Returns start, step and count for every axis of the input, whatever masks the slice was written with."""
    begin, end, step = (node.static(i).tolist() for i in (1, 2, 3))
    masks = {k: node.attr(f"{k}_mask") for k in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")}
    starts: list[int] = []
    steps: list[int] = []
    counts: list[int] = []
    given = sum(1 for i in range(len(begin)) if not masks["new_axis"] >> i & 1 and not masks["ellipsis"] >> i & 1)
    for i in range(len(begin)):
        if masks["new_axis"] >> i & 1:
            continue
        if masks["ellipsis"] >> i & 1:
            skipped = len(whole) - given
            axes = whole[len(starts) : len(starts) + skipped]
            starts, steps, counts = starts + [0] * skipped, steps + [1] * skipped, counts + axes
            continue
        size = whole[len(starts)]
        if masks["shrink_axis"] >> i & 1:
            chosen = range(begin[i] % size, begin[i] % size + 1)
        else:
            low = None if masks["begin"] >> i & 1 else begin[i]
            high = None if masks["end"] >> i & 1 else end[i]
            chosen = range(*slice(low, high, step[i]).indices(size))
        starts, steps, counts = [*starts, chosen.start], [*steps, chosen.step], [*counts, len(chosen)]
    rest = whole[len(starts) :]
    return starts + [0] * len(rest), steps + [1] * len(rest), counts + rest


def stretch(tensor: Any, axis: int, step: int) -> Any:
    """Inserts ``step − 1`` zeros after every entry along ``axis``: PAD of a two-dimensional view, which is builtin."""
    import tensorflow as tf

    if step == 1:
        return tensor
    shape = shape_of(tensor)
    inner = int(np.prod(shape[axis + 1 :]))
    rows = tf.reshape(tensor, [int(np.prod(shape[: axis + 1])), inner])
    rows = tf.pad(rows, [[0, 0], [0, inner * (step - 1)]])
    return tf.reshape(rows, [*shape[:axis], shape[axis] * step, *shape[axis + 1 :]])


def concat(node: Node, g: Any) -> Gradients:
    import tensorflow as tf

    axis, at = int(node.static(len(node.inputs) - 1)), 0
    rank = len(shape_of(g))
    out: list[Any] = []
    for part in node.inputs[:-1]:
        size, begin = shape_of(part), [0] * rank
        begin[axis] = at
        out.append(tf.slice(g, begin, size))
        at += size[axis]
    return [*out, None]


def split(node: Node, *gradients: Any) -> Gradients:
    """Split has its axis first, SplitV last."""
    import tensorflow as tf

    first = node.op.type == "Split"
    axis = int(node.static(0 if first else 2))
    parts = [tf.zeros(shape_of(o)) if g is None else g for g, o in zip(gradients, node.outputs, strict=True)]
    joined = tf.concat(parts, axis)
    return (None, joined) if first else (joined, None, None)


def pack(node: Node, g: Any) -> Gradients:
    import tensorflow as tf

    return tf.unstack(g, axis=node.attr("axis"))


def unpack(node: Node, *gradients: Any) -> Gradients:
    import tensorflow as tf

    parts = [tf.zeros(shape_of(o)) if g is None else g for g, o in zip(gradients, node.outputs, strict=True)]
    return (tf.stack(parts, axis=node.attr("axis")),)


def tile(node: Node, g: Any) -> Gradients:
    import tensorflow as tf

    before, after = shape_of(node.inputs[0]), shape_of(node.outputs[0])
    for axis, size in enumerate(before):
        times = after[axis] // size
        if times > 1:
            shape = shape_of(g)
            g = tf.reduce_sum(tf.reshape(g, [*shape[:axis], times, size, *shape[axis + 1 :]]), axis)
    return (g, None)


def broadcast_to(node: Node, g: Any) -> Gradients:
    from export.training.gradients.rule import unbroadcast

    return (unbroadcast(g, node.inputs[0]), None)


def reverse(node: Node, g: Any) -> Gradients:
    import tensorflow as tf

    return (tf.reverse(g, node.static(1).tolist()), None)


def gather(node: Node, g: Any) -> Gradients:
    """Embedding lookup: SCATTER_ND adds up the rows that one token used several times."""
    import tensorflow as tf

    table, indices = node.inputs[0], node.inputs[1]
    axis = int(node.static(2)) if len(node.inputs) > 2 else 0
    if node.op.type == "GatherV2" and axis == node.attr("batch_dims") == len(shape_of(table)) - 1 == len(shape_of(g)):
        # One number a row, as cross-entropy picks the label's.
        chosen = tf.one_hot(tf.cast(indices, tf.int32), shape_of(table)[-1])
        return (tf.expand_dims(g, -1) * chosen, None, None)
    if axis != 0 or (node.op.type == "GatherV2" and node.attr("batch_dims")):
        raise ValueError("gather is supported along axis 0, as an Embedding does it, or one number a row")
    count = int(np.prod(shape_of(indices)))
    flat = tf.reshape(tf.cast(indices, tf.int32), [count, 1])
    rows = tf.reshape(g, [count, *shape_of(table)[1:]])
    return (tf.scatter_nd(flat, rows, shape_of(table)), *[None] * (len(node.inputs) - 1))


def reduced_axes(node: Node) -> list[int]:
    """Returns the axes a reduction ran over, non-negative."""
    rank = len(shape_of(node.inputs[0]))
    return sorted(int(a) % rank for a in node.static(1).ravel())


def keep_dims(node: Node, tensor: Any) -> Any:
    """Returns a reduced tensor with the reduced axes as ones again."""
    import tensorflow as tf

    axes, shape = reduced_axes(node), shape_of(node.inputs[0])
    return tf.reshape(tensor, [1 if a in axes else s for a, s in enumerate(shape)])


def total(node: Node, g: Any) -> Gradients:
    return (spread(keep_dims(node, g), shape_of(node.inputs[0])), None)


def mean(node: Node, g: Any) -> Gradients:
    shape = shape_of(node.inputs[0])
    count = np.prod([shape[a] for a in reduced_axes(node)])
    return (spread(keep_dims(node, g / float(count)), shape), None)


def extreme(node: Node, g: Any) -> Gradients:
    """Max and Min over axes: ties share the gradient equally, as TensorFlow has it."""
    import tensorflow as tf

    gap = keep_dims(node, node.outputs[0]) - node.inputs[0]
    chosen = 1.0 - positive(gap if node.op.type == "Max" else -gap)
    ties = tf.reduce_sum(chosen, reduced_axes(node), keepdims=True)
    return (chosen * (keep_dims(node, g) / ties), None)


def cumulative_sum(node: Node, g: Any) -> Gradients:
    import tensorflow as tf

    exclusive, backwards = node.attr("exclusive"), node.attr("reverse")
    return (tf.cumsum(g, int(node.static(1)), exclusive=exclusive, reverse=not backwards), None)


def space_to_depth(node: Node, g: Any) -> Gradients:
    import tensorflow as tf

    return (tf.nn.depth_to_space(g, node.attr("block_size")),)


def depth_to_space(node: Node, g: Any) -> Gradients:
    import tensorflow as tf

    return (tf.nn.space_to_depth(g, node.attr("block_size")),)


def space_to_batch(node: Node, g: Any) -> Gradients:
    import tensorflow as tf

    return (tf.batch_to_space(g, node.static(1), node.static(2)), None, None)


def batch_to_space(node: Node, g: Any) -> Gradients:
    import tensorflow as tf

    return (tf.space_to_batch(g, node.static(1), node.static(2)), None, None)


def resize(node: Node, g: Any) -> Gradients:
    """Resizing is one matrix for rows and one for columns; its gradient multiplies by both transposed."""
    import tensorflow as tf

    batch, height, width, depth = shape_of(node.inputs[0])
    rows, columns = (_resize_matrix(node, axis) for axis in (1, 2))
    out_h, out_w = rows.shape[0], columns.shape[0]
    g = tf.matmul(np.ascontiguousarray(rows.T)[None], tf.reshape(g, [batch, out_h, out_w * depth]))
    g = tf.reshape(g, [batch * height, out_w, depth])
    g = tf.matmul(np.ascontiguousarray(columns.T)[None], g)
    return (tf.reshape(g, [batch, height, width, depth]), None)


def _resize_matrix(node: Node, axis: int) -> np.ndarray:
    """Returns ``float32[out, in]``, found by resizing the identity with the operation itself."""
    import tensorflow as tf

    before, after = shape_of(node.op.inputs[0])[axis], shape_of(node.op.outputs[0])[axis]
    resize_one = getattr(tf.raw_ops, node.op.type)
    flags = {k: node.attr(k) for k in ("align_corners", "half_pixel_centers")}
    with tf.init_scope():
        eye = tf.reshape(tf.eye(before), [before, before, 1, 1])
        stretched = resize_one(images=eye, size=[after, 1], **flags)
        return np.ascontiguousarray(np.reshape(stretched.numpy(), [before, after]).T)
