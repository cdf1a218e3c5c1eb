"""Gradients that a model's author defined: straight-through estimators, reversals, clipped gradients.

``tf.custom_gradient`` leaves an operation in the traced graph whose gradient is a Python function over tensors of that
graph. It is called there once, with stand-ins for what comes from behind; the operations it makes are then emitted in
the program like any other, so they must be builtin or have a row in `RULES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from export.training.gradients.rule import Gradients, Node, Rule, shape_of

SCOPE = "gradient_of_the_author"
"""Name scope of what is added to the traced graph; a replay of the forward pass leaves it out."""

Emit = Callable[[Any, Sequence[Any]], Sequence[Any]]
"""Operation, tensors of the program for its inputs → tensors of the program for its outputs."""


def is_added(op: Any) -> bool:
    """Returns whether an operation belongs to a gradient and not to the model."""
    return SCOPE in op.name


def author_rule(gradient: Callable[..., Sequence[Any]], row: Rule | None, known: Mapping[str, Any], emit: Emit) -> Rule:
    """Returns the rule of an operation whose gradient its author defined.

    Args:
        gradient: Operation, gradients of its outputs → gradients of its inputs; in the traced graph.
        row: Of `RULES`, whose forward is kept; None if there is none.
        known: Name of a traced tensor → the program's.
        emit: Puts one more operation into the program.
    """

    def backward(node: Node, *coming: Any) -> Gradients:
        import tensorflow as tf

        op = node.op
        stand_ins, wanted, added = _traced(op, gradient)
        here = dict(known)
        for stand_in, value, output in zip(stand_ins, coming, node.outputs, strict=True):
            here[stand_in.name] = tf.zeros(shape_of(output)) if value is None else value
        for extra in added:
            if extra.type in ("Placeholder", "NoOp"):
                continue
            if extra.type.endswith("Grad"):
                raise ValueError(
                    f"its gradient asks TensorFlow for {extra.type}, which phones lack: leave recompute_grad out"
                )
            outputs = emit(extra, [here[t.name] for t in extra.inputs])
            here.update({t.name: o for t, o in zip(extra.outputs, outputs, strict=True)})
        pairs = zip(wanted, node.inputs, strict=True)
        return [None if w is None else _fitting(here[w.name], tensor) for w, tensor in pairs]

    return Rule(backward, None if row is None else row.forward)


def _traced(op: Any, gradient: Callable[..., Sequence[Any]]) -> tuple[list[Any], Sequence[Any], list[Any]]:
    """Returns stand-ins for the gradients of the outputs, gradients of the inputs, and the operations between.

    Raises:
        ValueError: The author's function fails, or reaches outside the graph.
    """
    import tensorflow as tf

    graph = op.graph
    before, captures = len(graph.get_operations()), len(getattr(graph, "captures", ()))
    with graph.as_default(), tf.name_scope(SCOPE):
        stand_ins = [tf.compat.v1.placeholder(o.dtype, o.shape) for o in op.outputs]
        try:
            wanted = gradient(op, *stand_ins)
        except Exception as error:  # an author's own code
            raise ValueError(f"the gradient its author defined fails: {str(error).splitlines()[0][:200]}") from error
        wanted = [None if w is None else tf.convert_to_tensor(w) for w in wanted]
    if len(getattr(graph, "captures", ())) != captures:
        raise ValueError(
            "the gradient its author defined uses a tensor or variable that its forward pass does not; pass it as an"
            " argument of the function"
        )
    return stand_ins, wanted, list(graph.get_operations()[before:])


def _fitting(gradient: Any, tensor: Any) -> Any:
    if shape_of(gradient) != shape_of(tensor):
        raise ValueError(f"the gradient its author defined has shape {gradient.shape} for an input of {tensor.shape}")
    return gradient
