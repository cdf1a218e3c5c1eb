"""Reverse-mode differentiation of a traced Keras graph, through the literal table `RULES` and nothing else.

``replay`` walks the graph in its own order and emits every operation again inside the program being traced, by its
rule where the table has one; ``Tape.gradients`` walks back. TensorFlow's own gradients are never asked, so no kernel
that TFLite lacks can slip in: an operation without a rule between a weight and the loss is an `ExportError`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from export.training.author import SCOPE, author_rule, is_added
from export.training.gradients import RULES, Node, Rule
from export.training.gradients.conv_pool import chain_of
from export.training.gradients.rule import shape_of
from fl_mobile.errors import ExportError, nearest
from fl_mobile.models.private_api import author_gradient, function_in_graph

CALLS = ("PartitionedCall", "StatefulPartitionedCall")
INSTEAD = {
    "While": "build LSTM, GRU and other RNN layers with unroll=True, over a fixed number of steps",
    "StatelessWhile": "build LSTM, GRU and other RNN layers with unroll=True, over a fixed number of steps",
    "If": "a branch that depends on data; use tf.where",
    "StatelessIf": "a branch that depends on data; use tf.where",
    "FusedBatchNormV3": "freeze the layer's statistics or use BatchNormalization in its Keras 3 form",
    "Conv3D": "use Conv2D over frames",
    "LRN": "use BatchNormalization or GroupNormalization",
    "Prod": "use exp(sum(log(x)))",
    "MirrorPad": "use ZeroPadding2D",
}
"""Operation → the nearest form that has rules."""

RANDOM = (
    "it draws random numbers, which a phone must draw alike, and phones draw uniform, normal and whole numbers, by a"
    " SeedGenerator or without a seed, but no others. Engine keras trains it"
)

_DRAWS = re.compile("Random|TruncatedNormal|Multinomial|Shuffle|Stateful(Uniform|Standard)|RngReadAndSkip")
_SKIPPED = ("Placeholder", "NoOp", "Assert", "StatelessRandomGetKeyCounter", "StatelessRandomGetAlg")
"""The key of a draw that `answered_draws` answered is used by nobody; a draw that was not answered is refused."""


@dataclass
class Cell:
    """State of one model variable while a graph is replayed.

    Attributes:
        path: Keras variable path.
        value: Its present tensor; assignments in the graph replace it.
        frozen: Whether it is a constant of the program.
    """

    path: str
    value: Any
    frozen: bool
    written: bool = False


@dataclass
class Tape:
    """What `replay` did, in order.

    Attributes:
        nodes: Operations that depend on something trained.
        active: Ids of tensors that do.
        frozen: Ids of tensors that are constants of the program.
    """

    nodes: list[tuple[Node, Rule]] = field(default_factory=list)
    active: set[int] = field(default_factory=set)
    frozen: set[int] = field(default_factory=set)
    alive: list[Any] = field(default_factory=list)

    def watch(self, tensor: Any) -> None:
        """Marks a tensor as a source of gradients."""
        self.active.add(id(tensor))
        self.alive.append(tensor)

    def gradients(self, loss: Any, sources: Sequence[Any]) -> list[Any]:
        """Returns the gradient of the scalar ``loss`` for every source; zeros for one the loss does not see."""
        import tensorflow as tf

        sums: dict[int, Any] = {id(loss): tf.ones([])}
        for node, rule in reversed(self.nodes):
            coming = [sums.get(id(o)) for o in node.outputs]
            if all(c is None for c in coming):
                continue
            for tensor, need, part in zip(node.inputs, node.needs, _backward(node, rule, coming), strict=True):
                if not need or part is None:
                    continue
                if shape_of(part) != shape_of(tensor):
                    raise AssertionError(f"rule of {node.op.type} gave {part.shape} for {tensor.shape}")
                sums[id(tensor)] = part if id(tensor) not in sums else sums[id(tensor)] + part
        return [sums.get(id(s), tf.zeros(shape_of(s))) for s in sources]


def _backward(node: Node, rule: Rule, coming: Sequence[Any]) -> Sequence[Any]:
    try:
        return rule.backward(node, *coming)
    except ValueError as error:
        raise _refusal(node.op, str(error)) from error


def replay(graph: Any, feeds: Sequence[Any], cells: Mapping[int, Cell], tape: Tape) -> list[Any]:
    """Emits ``graph`` in the function being traced and returns its outputs.

    Args:
        graph: A ``FuncGraph`` with static shapes.
        feeds: Tensors for ``graph.inputs``; for a captured variable its handle.
        cells: Id of a variable's handle → its state.
        tape: Receives the operations.

    Raises:
        ExportError: An operation between a weight and the outputs has no rule, or cannot be put on a phone.
    """
    known: dict[str, Any] = {t.name: f for t, f in zip(graph.inputs, feeds, strict=True)}
    for op in graph.get_operations():
        if op.type in _SKIPPED or is_added(op):
            continue
        if _DRAWS.search(op.type):
            raise _refusal(op, RANDOM)
        row, tensors = _row(op, known, tape)
        outputs = _emit(op=op, row=row, inputs=[known[t.name] for t in tensors], cells=cells, tape=tape, known=known)
        known.update({t.name: o for t, o in zip(op.outputs, outputs, strict=True)})
        tape.alive.extend(outputs)
    return [known[t.name] for t in graph.outputs]


def cells_for(graph: Any, model: Any, travelling: Sequence[Any], values: Sequence[Any], tape: Tape) -> tuple[Any, Any]:
    """Returns the state of every captured variable by handle, and the feeds for the captured inputs.

    A weight of the wire stands for the program's variable; anything frozen is a constant.
    """
    import tensorflow as tf

    by_handle = {id(v.value.handle): (v, value) for v, value in zip(travelling, values, strict=True)}
    others = {id(v.value.handle): v for v in model.variables}
    cells: dict[int, Cell] = {}
    feeds = []
    for outside, _ in graph.captures:
        if outside.dtype != tf.resource:
            with tf.init_scope():
                known = outside.numpy()
            constant = tf.constant(known)
            tape.frozen.add(id(constant))
            tape.alive.append(constant)
            feeds.append(constant)
            continue
        if id(outside) in by_handle:
            variable, value = by_handle[id(outside)]
            cells[id(outside)] = Cell(variable.path, value, frozen=False)
        elif id(outside) in others:
            variable = others[id(outside)]
            with tf.init_scope():
                frozen = variable.numpy()
            constant = tf.constant(frozen)
            tape.frozen.add(id(constant))
            cells[id(outside)] = Cell(variable.path, constant, frozen=True)
        feeds.append(outside)
    tape.alive.extend(c.value for c in cells.values())
    return cells, feeds


def _row(op: Any, known: Mapping[str, Any], tape: Tape) -> tuple[str, Sequence[Any]]:
    """Returns the row of `RULES` for an operation and the traced tensors it computes from.

    A trained convolution in front of a max-pool is computed with it; its own result is then read by nobody, and the
    converter leaves it out.
    """
    if op.type == "MaxPool" and (chain := chain_of(op)) and id(known[chain.inputs[1].name]) in tape.active:
        return "ConvMaxPool", chain.inputs
    return op.type, op.inputs


def _emit(
    op: Any, row: str, inputs: Sequence[Any], cells: Mapping[int, Cell], tape: Tape, known: Mapping[str, Any]
) -> Sequence[Any]:
    """Puts one operation into the program.

    Args:
        op: Of the traced graph.
        row: Of `RULES`, or its type.
        inputs: Tensors of the program.
        cells: State of the model's variables.
        tape: Receives it.
        known: Name of a traced tensor → the program's, of everything in front of it.
    """
    import tensorflow as tf

    if op.type in _STATE:
        return _STATE[op.type](op, inputs, cells, tape)
    if op.type in CALLS:
        function = function_in_graph(op.graph, op.get_attr("f").name)
        row = _row_of(function.name.decode() if isinstance(function.name, bytes) else function.name)
        if row not in RULES:
            return replay(function.graph, inputs, cells, tape)
    active = [id(t) in tape.active for t in inputs]
    fixed = None if any(active) or (row in RULES and op.type in CALLS) else tf.get_static_value(op.outputs[0])
    if fixed is not None and len(op.outputs) == 1:
        out = tf.constant(fixed, op.outputs[0].dtype)
        tape.frozen.add(id(out))
        return [out]
    rule = RULES.get(row)
    if any(active) and (own := author_gradient(op)) is not None:
        rule = author_rule(
            own,
            rule,
            known,
            lambda extra, ins: _emit(op=extra, row=extra.type, inputs=ins, cells=cells, tape=Tape(), known=known),
        )
    if any(active) and rule is None:
        raise _refusal(op, INSTEAD.get(op.type, "it has no gradient in TFLite builtin operations") + _near(op.type))
    frozen = tuple(id(t) in tape.frozen for t in inputs)
    node = Node(op, tuple(inputs), tuple(active), frozen)
    outputs = _forward(node, rule)
    object.__setattr__(node, "outputs", outputs)  # the one late field: a node is made before its outputs exist
    if all(frozen) and inputs:
        tape.frozen.update(id(o) for o in outputs)
    if any(active) and rule is not None:
        tape.nodes.append((node, rule))
        tape.active.update(id(o) for o in outputs if o.dtype.is_floating)
    return outputs


def _forward(node: Node, rule: Rule | None) -> tuple[Any, ...]:
    """Runs the rule's forward, or emits the operation as it is."""
    import tensorflow as tf

    try:
        if rule is not None and rule.forward is not None and node.op.inputs[0].dtype.is_floating:
            outputs = rule.forward(node)
            # A pass-through must still be a tensor of its own: gradients are summed per tensor.
            return tuple(tf.identity(o) if any(o is i for i in node.inputs) else o for o in outputs)
    except ValueError as error:
        raise _refusal(node.op, str(error)) from error
    graph = tf.compat.v1.get_default_graph()
    attrs = dict(node.op.node_def.attr)
    kinds = [o.dtype for o in node.op.outputs]
    # Named after its layer, which the converter's refusal is traced back to; without the attribute that says whose
    # gradient it has, which is answered already.
    attrs.pop("_gradient_op_type", None)
    name = f"{layer_of(node.op)}/{node.op.type}"
    made = graph.create_op(node.op.type, list(node.inputs), kinds, attrs=attrs, name=name)
    for new, old in zip(made.outputs, node.op.outputs, strict=True):
        new.set_shape(old.shape)
    return tuple(made.outputs)


def _row_of(function_name: str) -> str:
    """Returns ``DeviceBatchNorm`` for ``__inference_DeviceBatchNorm_123``."""
    return function_name.removeprefix("__inference_").removeprefix("__forward_").rpartition("_")[0]


def _refusal(op: Any, why: str) -> ExportError:
    return ExportError(f"layer '{layer_of(op)}': operation {op.type} cannot be trained on a phone: {why}")


def layer_of(op: Any) -> str:
    """Returns the name of the innermost layer that an operation was traced in."""
    parts = [p for p in op.name.split("/") if p and p != SCOPE]
    known: frozenset[str] = getattr(op.graph, "layer_names", frozenset())
    for part in reversed(parts[:-1]):
        bare = re.sub(r"_\d+$", "", part)  # a scope that was opened before has a number behind it
        if part in known or bare in known:
            return part if part in known else bare
    return parts[-2] if len(parts) > 1 else str(op.name)


def _near(op_type: str) -> str:
    return "" if op_type in INSTEAD else "." + nearest(op_type, RULES).partition(" Known:")[0]


def _cell(handle: Any, cells: Mapping[int, Cell], op: Any) -> Cell:
    if id(handle) not in cells:
        raise _refusal(op, "it uses a variable that is not a weight of the model")
    return cells[id(handle)]


def _read(op: Any, inputs: Sequence[Any], cells: Mapping[int, Cell], tape: Tape) -> Sequence[Any]:
    return [_cell(inputs[0], cells, op).value]


def _assign(op: Any, inputs: Sequence[Any], cells: Mapping[int, Cell], tape: Tape) -> Sequence[Any]:
    cell = _cell(inputs[0], cells, op)
    change = {"AssignVariableOp": lambda: inputs[1], "AssignAddVariableOp": lambda: cell.value + inputs[1]}
    change["AssignSubVariableOp"] = lambda: cell.value - inputs[1]
    cell.value, cell.written = change[op.type](), True
    return []


def _resource_gather(op: Any, inputs: Sequence[Any], cells: Mapping[int, Cell], tape: Tape) -> Sequence[Any]:
    import tensorflow as tf

    table = _cell(inputs[0], cells, op).value
    if op.get_attr("batch_dims"):
        raise _refusal(op, "gather with batch dimensions is not supported")
    rows = tf.gather(table, tf.cast(inputs[1], tf.int32))
    node = Node(op=op, inputs=(table, inputs[1]), needs=(id(table) in tape.active, False), frozen=(), outputs=(rows,))
    if node.needs[0]:
        tape.nodes.append((node, RULES["GatherV2"]))
        tape.active.add(id(rows))
    return [rows]


def _constant(op: Any, inputs: Sequence[Any], cells: Mapping[int, Cell], tape: Tape) -> Sequence[Any]:
    import tensorflow as tf

    out = tf.constant(np.asarray(tf.get_static_value(op.outputs[0])), op.outputs[0].dtype)
    tape.frozen.add(id(out))
    return [out]


_STATE = {
    "ReadVariableOp": _read,
    "AssignVariableOp": _assign,
    "AssignAddVariableOp": _assign,
    "AssignSubVariableOp": _assign,
    "ResourceGather": _resource_gather,
    "Const": _constant,
}
