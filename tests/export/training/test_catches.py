"""The proof catches: a program with one thing wrong in it is refused, from its files alone or when it is built."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import flatbuffers
import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from export.training import open_session
from export.training.gradients import RULES, elementwise
from export.training.gradients.products import multiplied
from export.training.gradients.rule import Rule
from export.training.module import infer_alone
from export.training.options import options_of
from export.training.program import TrainingProgram, build_training_program
from export.training.proof import prove
from export.training.proof.answers import by_program
from export.training.proof.cases import drawn
from export.training.proof.golden import sketches_of
from export.training.shipped import ship_program, verify_program
from fl_mobile.errors import ExportError, VerifyError

pytestmark = pytest.mark.tf
L = keras.layers
NAMES = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}


def whole_model() -> Any:
    """Every kind of layer and step that a damage below can hit."""
    keras.utils.set_random_seed(0)
    body = [
        *(L.Conv2D(4, 3, activation="relu"), L.MaxPooling2D(), L.Flatten()),
        *(L.Dense(6, use_bias=False, activation="relu"), L.Dense(6), L.BatchNormalization(), L.Dropout(0.3)),
        *(L.Dense(6, activation="tanh"), L.Dense(3)),
    ]
    return keras.Sequential([keras.Input((6, 6, 2)), *body], name="whole")


@pytest.fixture(scope="module")
def whole() -> TrainingProgram:
    options = {"optimizer": "momentum", "clip_norm": 1.0, "proximal": True, "correction": True}
    return build_training_program(whole_model(), batch_size=4, **options)


def inputs_of(op: Any) -> list[int]:
    """Returns the tensors an operation reads."""
    return [] if op.inputs is None else [int(i) for i in op.inputs]


class File:
    """A program taken apart.

    Args:
        tflite: Its bytes.
    """

    def __init__(self, tflite: bytes) -> None:
        self.model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(tflite, 0))
        self.codes = [NAMES[max(c.builtinCode, c.deprecatedBuiltinCode)] for c in self.model.operatorCodes]

    def graph(self, name: str) -> Any:
        """Returns the subgraph of a signature."""
        return self.model.subgraphs[self.signature(name).subgraphIndex]

    def signature(self, name: str) -> Any:
        """Returns a signature."""
        return next(s for s in self.model.signatureDefs if s.signatureKey == name.encode())

    def port(self, name: str, port: str) -> int:
        """Returns the tensor of an input."""
        return next(p.tensorIndex for p in self.signature(name).inputs if p.name == port.encode())

    def ops(self, name: str, kind: str) -> Iterator[Any]:
        """Yields the operations of a kind."""
        return (op for op in self.graph(name).operators if self.codes[op.opcodeIndex] == kind)

    def is_variable(self, name: str, tensor: int, pattern: str) -> bool:
        """Returns whether a tensor is the handle of a variable of that name."""
        handle = next((op for op in self.ops(name, "VAR_HANDLE") if op.outputs[0] == tensor), None)
        return handle is not None and re.fullmatch(pattern, handle.builtinOptions.sharedName.decode()) is not None

    def reads(self, name: str, pattern: str) -> list[Any]:
        """Returns the reads of variables of that name."""
        return [op for op in self.ops(name, "READ_VARIABLE") if self.is_variable(name, op.inputs[0], pattern)]

    def constant(self, name: str, value: np.ndarray) -> int:
        """Adds a constant to a graph; returns its tensor."""
        buffer, tensor, graph = schema.BufferT(), schema.TensorT(), self.graph(name)
        buffer.data = np.frombuffer(value.tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        kind = {"f": schema.TensorType.FLOAT32, "i": schema.TensorType.INT32}[value.dtype.kind]
        tensor.shape, tensor.type, tensor.buffer = np.array(value.shape, "i4"), kind, len(self.model.buffers) - 1
        tensor.name, tensor.hasRank = f"damage_{tensor.buffer}".encode(), True
        graph.tensors.append(tensor)
        return len(graph.tensors) - 1

    def instead(self, name: str, tensor: int, other: int) -> None:
        """Lets everything read another tensor."""
        readers = [op for op in self.graph(name).operators if tensor in inputs_of(op)]
        assert readers
        for op in readers:
            op.inputs = np.array([other if i == tensor else i for i in op.inputs], "i4")

    def fixed(self, name: str, tensor: int, fill: float) -> None:
        """Lets everything read a constant instead of a tensor."""
        there = self.graph(name).tensors[tensor]
        kind = np.float32 if there.type == schema.TensorType.FLOAT32 else np.int32
        shape = [int(n) for n in (there.shape if there.shape is not None else ())]
        self.instead(name, tensor, self.constant(name, np.full(shape, fill, kind)))

    def number(self, name: str, old: float, new: float) -> None:
        """Exchanges a number that is a constant of the graph."""
        found = 0
        for index, tensor in enumerate(list(self.graph(name).tensors)):
            data = self.model.buffers[tensor.buffer].data
            if data is None or len(data) != 4:
                continue
            kind = np.float32 if tensor.type == schema.TensorType.FLOAT32 else np.int32
            if np.isclose(np.frombuffer(bytes(data), kind)[0], old, rtol=1e-6):
                readers = [op for op in self.graph(name).operators if index in inputs_of(op)]
                if readers:
                    shape = [int(n) for n in (tensor.shape if tensor.shape is not None else ())]
                    self.instead(name, index, self.constant(name, np.full(shape, new, kind)))
                    found += 1
        assert found, f"no constant {old}"

    def drop(self, name: str, op: Any) -> None:
        """Takes an operation out; what read its result reads its first input."""
        graph = self.graph(name)
        if op.outputs is not None and len(op.outputs):
            self.instead(name, op.outputs[0], op.inputs[0])
        graph.operators = [other for other in graph.operators if other is not op]

    def become(self, op: Any, kind: str) -> None:
        """Makes another operation of one; both must need no options."""
        if kind not in self.codes:
            code = schema.OperatorCodeT()
            code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, kind)
            code.version = 1
            self.model.operatorCodes.append(code)
            self.codes.append(kind)
        op.opcodeIndex = self.codes.index(kind)
        op.builtinOptionsType, op.builtinOptions = 0, None

    def bytes(self) -> bytes:
        """Returns the file put together again."""
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def lost_relu(name: str) -> Callable[[File], None]:
    """The activation behind the dense layer without a bias, as the converter of TensorFlow 2.21 lost it."""
    return lambda f: f.drop(name, list(f.ops(name, "RELU"))[-1])


def lost_fused(f: File) -> None:
    op = next(op for op in f.ops("infer", "ADD") if op.builtinOptions.fusedActivationFunction == 1)
    op.builtinOptions.fusedActivationFunction = 0


def scaled_input(name: str) -> Callable[[File], None]:
    """Pixels divided by 255 twice."""

    def damage(f: File) -> None:
        x, graph = f.port(name, "x"), f.graph(name)
        factor = f.constant(name, np.float32(1 / 255).reshape(()))
        made = f.constant(name, np.zeros([4, 6, 6, 2], np.float32))
        graph.tensors[made].buffer = 0
        f.instead(name, x, made)
        op = schema.OperatorT()
        f.become(op, "MUL")
        op.inputs, op.outputs = np.array([x, factor], "i4"), np.array([made], "i4")
        op.builtinOptionsType, op.builtinOptions = schema.BuiltinOptions.MulOptions, schema.MulOptionsT()
        graph.operators.insert(0, op)

    return damage


def transposed(name: str) -> Callable[[File], None]:
    """The square kernel of the second dense layer, the other way round."""

    def damage(f: File) -> None:
        (read,) = f.reads(name, "w003")
        readers = [op for op in f.ops(name, "RESHAPE") if op.inputs[0] == read.outputs[0]]
        product = next(op for op in f.ops(name, "BATCH_MATMUL") if op.inputs[1] in [r.outputs[0] for r in readers])
        product.builtinOptions.adjY = True

    return damage


def unassigned(name: str, pattern: str, which: int = 0) -> Callable[[File], None]:
    """One variable that is never written."""

    def damage(f: File) -> None:
        ops = [op for op in f.ops(name, "ASSIGN_VARIABLE") if f.is_variable(name, op.inputs[0], pattern)]
        f.drop(name, ops[which])

    return damage


def swapped(name: str, kind: str, other: str) -> Callable[[File], None]:
    def damage(f: File) -> None:
        found = list(f.ops(name, kind))
        assert found
        for op in found:
            f.become(op, other)

    return damage


def wrong_sign(f: File) -> None:
    """Uphill: the velocity takes the gradient with the other sign."""
    for op in f.ops("train", "SUB"):
        reads = [r.outputs[0] for r in f.reads("train", "w.*")]
        scaled = [m.outputs[0] for m in f.ops("train", "MUL")]
        if op.inputs[0] in scaled and op.inputs[1] in scaled and op.inputs[0] not in reads:
            op.inputs = np.array([op.inputs[1], op.inputs[0]], "i4")


def permuted(f: File) -> None:
    first, second = (next(p for p in f.signature("get_weights").outputs if p.name == n) for n in (b"w004", b"w005"))
    first.tensorIndex, second.tensorIndex = second.tensorIndex, first.tensorIndex


def not_reset(f: File) -> None:
    """Velocities survive ``set_weights``."""
    for op in [
        op for op in f.ops("set_weights", "ASSIGN_VARIABLE") if f.is_variable("set_weights", op.inputs[0], "Var.*")
    ]:
        if op.inputs[1] not in list(f.graph("set_weights").inputs):
            f.drop("set_weights", op)


DAMAGES: dict[str, Callable[[File], None]] = {
    "a lost activation, infer": lost_relu("infer"),
    "a lost activation, train": lost_relu("train"),
    "a lost activation, evaluate": lost_relu("evaluate"),
    "a lost fused activation": lost_fused,
    "another activation": swapped("infer", "TANH", "LOGISTIC"),
    "another activation, train": swapped("train", "TANH", "LOGISTIC"),
    "pixels scaled twice, infer": scaled_input("infer"),
    "pixels scaled twice, train": scaled_input("train"),
    "pixels scaled twice, evaluate": scaled_input("evaluate"),
    "a transposed kernel, infer": transposed("infer"),
    "a transposed kernel, train": transposed("train"),
    "mask ignored, train": lambda f: f.fixed("train", f.port("train", "mask"), 1.0),
    "mask ignored, evaluate": lambda f: f.fixed("evaluate", f.port("evaluate", "mask"), 1.0),
    "labels ignored": lambda f: f.fixed("train", f.port("train", "y"), 0),
    "learning rate ignored": lambda f: f.fixed("train", f.port("train", "learning_rate"), 0.01),
    "proximal term ignored": lambda f: f.fixed("train", f.port("train", "prox_mu"), 0.0),
    "dropout seed ignored": lambda f: f.fixed("train", f.port("train", "seed"), 7),
    "dropout of another rate": lambda f: f.number("train", 6948, 11580),
    "kept values not scaled up": lambda f: f.number("train", 1 / 0.7, 1.0),
    "momentum of another size": lambda f: f.number("train", 0.9, 0.5),
    "another epsilon": lambda f: f.number("infer", 1e-3, 1e-2),
    "statistics too slow": lambda f: f.number("train", 0.01, 0.001),
    "statistics never written": unassigned("train", "w00[78]"),
    "a weight never written": unassigned("train", "w009"),
    "a weight never set": unassigned("set_weights", "w006"),
    "a correction never set": unassigned("set_correction", "Var.*"),
    "weights out in another order": permuted,
    "state of the optimizer kept": not_reset,
    "maxima taken for minima": swapped("train", "MAXIMUM", "MINIMUM"),
    "uphill": wrong_sign,
}


def test_what_is_whole_is_the_same(whole: TrainingProgram) -> None:
    assert not _apart(whole, File(whole.tflite).bytes())


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_does_not_do_what_keras_did(damage: str, whole: TrainingProgram) -> None:
    """As `verify_program` compares, in this process: thirty programs in the time of one."""
    file = File(whole.tflite)
    DAMAGES[damage](file)
    assert _apart(whole, file.bytes()), "nothing was noticed"


def test_nothing_escapes_where_steps_are_compared_from_a_calm_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of deep normalised nets, whose steps amplify rounding from any other start."""
    monkeypatch.setattr(prove, "_DEEP", 0)
    options = {"optimizer": "momentum", "clip_norm": 1.0, "proximal": True, "correction": True}
    program = build_training_program(whole_model(), batch_size=4, **options)
    assert [g.case.calm for g in program.proof.golden] == [True, False]
    for damage, spoil in DAMAGES.items():
        file = File(program.tflite)
        spoil(file)
        assert _apart(program, file.bytes()), damage


@pytest.mark.slow
def test_a_deep_normalised_net_is_proven() -> None:
    """Forty layers of batch statistics amplify one rounding to percents within a step."""
    keras.utils.set_random_seed(0)
    block = [(L.Conv2D(6, 3, padding="same", use_bias=False), L.BatchNormalization(), L.ReLU(6)) for _ in range(40)]
    layers = [layer for each in block for layer in each]
    model = keras.Sequential([keras.Input((8, 8, 2)), *layers, L.GlobalAveragePooling2D(), L.Dense(3)], name="deep")
    assert build_training_program(model, batch_size=4).proof.golden[0].case.calm


def _apart(program: TrainingProgram, tflite: bytes) -> list[str]:
    contract = replace(program.contract, file_bytes=len(tflite), sha256=hashlib.sha256(tflite).hexdigest())
    session = open_session(tflite, contract)
    try:
        return [
            str(difference)
            for g in program.proof.golden
            for difference in g.differences(*sketches_of(by_program(session, g.case, drawn(g.case, contract))))
            if not difference.same
        ]
    except VerifyError as error:  # weights that do not come out as they went in
        return [str(error)]


def test_verify_says_what_differs(whole: TrainingProgram, tmp_path: Path) -> None:
    file = File(whole.tflite)
    DAMAGES["a lost activation, train"](file)
    data = file.bytes()
    contract = replace(whole.contract, file_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    ship_program(tmp_path / "good", whole)
    assert len(verify_program(tmp_path / "good", runtimes=["litert"], model=whole_model()).compared) == 3
    with pytest.raises(VerifyError, match=r"failed at parity.*does not do what Keras did \(.*is off by"):
        ship_program(tmp_path / "bad", replace(whole, tflite=data, contract=contract))
    assert not (tmp_path / "bad").exists()


def _small(*layers: Any) -> Any:
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((5,)), *layers], name="small")


def _plain_product(node: Any) -> Any:
    import tensorflow as tf

    return (tf.matmul(*node.inputs),)


WRONG_BUILDS: dict[str, tuple[str, Rule, str]] = {
    "an activation the converter loses": ("MatMul", Rule(RULES["MatMul"].backward, _plain_product), "one"),
    "a wrong gradient": ("Tanh", Rule(lambda node, g: (g,)), "two"),
    "a wrong answer": ("Tanh", Rule(RULES["Tanh"].backward, lambda node: (node.inputs[0],)), "two"),
    "a gradient a thousandth off": (
        "MatMul",
        Rule(lambda node, g: [p * 1.001 for p in _product_rule(node, g)], RULES["MatMul"].forward),
        "three",
    ),
    "a sum that forgets its bias": ("BiasAdd", Rule(elementwise.bias_add, lambda node: (node.inputs[0] + 0.0,)), "two"),
}


def _product_rule(node: Any, g: Any) -> list[Any]:
    from export.training.gradients.products import transposed as flip

    x, y = node.inputs
    return [multiplied(g, flip(y)), multiplied(flip(x), g)]


@pytest.mark.parametrize("name", WRONG_BUILDS)
def test_a_wrong_program_is_not_built_and_its_layer_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    row, rule, layer = WRONG_BUILDS[name]
    monkeypatch.setitem(RULES, row, rule)
    model = _small(
        L.Dense(6, use_bias=False, activation="relu", name="one"),
        L.Dense(6, activation="tanh", name="two"),
        L.Dense(3, name="three"),
    )
    with pytest.raises(ExportError, match=rf"layer '{layer}': the training program does not do what Keras does"):
        build_training_program(model, batch_size=4)


def test_a_softmax_whose_logits_are_asked_for_is_no_difference() -> None:
    """Keras' loss of a softmax's answer goes back to its logits where it can; so must what the program is held to."""
    net = keras.Sequential([keras.Input((6,)), L.Dense(3, "softmax")])
    assert build_training_program(net, batch_size=4, from_logits=True).proof.golden


def test_a_beginning_of_a_net_without_weights_answers_alone(whole: TrainingProgram) -> None:
    """Where a program is wrong, the layer is found by halving; the first half may hold no weight."""
    x = np.arange(4 * 72, dtype=np.float32).reshape(4, 6, 6, 2)
    part = keras.Sequential([keras.Input((6, 6, 2)), L.Flatten()])
    assert np.array_equal(infer_alone(part, options_of(whole.contract), x), x.reshape(4, 72))
