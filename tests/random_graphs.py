"""Seeded small graphs that are valid ONNX, of the operators that lowered techniques are made of.

Each step picks an operator and values that fit it. A graph is taken if onnx infers all its shapes and onnxruntime runs
it, so that whoever refuses it refuses valid ONNX.
"""

import random
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET, STEPS = 23, 7
KINDS = {"half": TensorProto.FLOAT16, "float": TensorProto.FLOAT, "double": TensorProto.DOUBLE}
UNARY = ("Relu", "Gelu", "Exp", "Neg", "Reciprocal", "Log", "ThresholdedRelu", "Identity", "Abs", "Sqrt", "Erf")
BINARY = ("Add", "Sub", "Mul", "Div", "Max", "Min", "Pow")
REDUCE = ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum", "ReduceL1", "ReduceL2")
COMPARE = ("Greater", "Less", "LessOrEqual", "Equal")
Shape = tuple[int | str, ...]


@dataclass
class Writer:
    """A graph on its way: what it holds, and the values so far by kind, each with its shape."""

    pick: random.Random
    float_type: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    values: dict[int, list[tuple[str, Shape]]] = field(default_factory=dict)

    def constant(self, array: np.ndarray) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def ints(self, *numbers: int) -> str:
        return self.constant(np.array(numbers, np.int64))

    def node(self, op: str, inputs: list[str], shapes: list[tuple[int, Shape]], **attributes: object) -> None:
        """Write a node whose outputs have these types and shapes."""
        names = [f"v{len(self.nodes)}_{at}" for at in range(len(shapes))]
        name = f"node{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, names, name, **attributes))
        for made, (kind, shape) in zip(names, shapes, strict=True):
            self.values.setdefault(kind, []).append((made, shape))

    def any(self, kind: int, least_axes: int = 1) -> tuple[str, Shape] | None:
        """A value of a type, rather a late one."""
        fitting = [value for value in self.values.get(kind, []) if len(value[1]) >= least_axes]
        return self.pick.choice(fitting[-4:]) if fitting else None

    def axis(self, shape: Shape) -> int:
        """An axis of a known length."""
        known = [at for at, length in enumerate(shape) if isinstance(length, int)]
        return self.pick.choice(known or [0])


def with_axis(shape: Shape, axis: int, length: int) -> Shape:
    return (*shape[:axis], length, *shape[axis + 1 :])


def elementwise(w: Writer, x: str, shape: Shape) -> None:
    f, op = w.float_type, w.pick.choice((*UNARY, *BINARY, *COMPARE, "Clip", "Softmax", "Cast", "Where"))
    others = [name for name, other in w.values[f] if other == shape]
    y = w.pick.choice([*others, w.constant(np.ones(1, helper.tensor_dtype_to_np_dtype(f)))])
    if op in UNARY:
        w.node(op, [x], [(f, shape)])
    elif op in BINARY:
        w.node(op, [x, y], [(f, shape)])
    elif op in COMPARE:
        w.node(op, [x, y], [(TensorProto.BOOL, shape)])
    elif op == "Clip":
        w.node(op, [x, w.constant(np.zeros((), helper.tensor_dtype_to_np_dtype(f)))], [(f, shape)])
    elif op == "Softmax":
        w.node(op, [x], [(f, shape)], axis=w.axis(shape))
    elif op == "Cast":
        to = w.pick.choice((TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL, *KINDS.values()))
        w.node(op, [x], [(to, shape)], to=to)
    elif masks := [name for name, other in w.values.get(TensorProto.BOOL, []) if other == shape]:
        w.node("Where", [masks[-1], x, y], [(f, shape)])


def reduction(w: Writer, x: str, shape: Shape) -> None:
    f, axis, keep = w.float_type, w.axis(shape), w.pick.choice((0, 1))
    left = with_axis(shape, axis, 1) if keep else shape[:axis] + shape[axis + 1 :]
    match w.pick.choice((*REDUCE, "ArgMax", "ArgMin", "TopK", "CumSum")):
        case "ArgMax" | "ArgMin" as op:
            w.node(op, [x], [(TensorProto.INT64, left)], axis=axis, keepdims=keep)
        case "TopK" if isinstance(shape[axis], int):
            kept = w.pick.randint(1, int(shape[axis]))
            chosen = with_axis(shape, axis, kept)
            largest = w.pick.choice((0, 1))
            w.node("TopK", [x, w.ints(kept)], [(f, chosen), (TensorProto.INT64, chosen)], axis=axis, largest=largest)
        case "TopK":
            pass
        case "CumSum":
            w.node("CumSum", [x, w.constant(np.array(axis))], [(f, shape)], exclusive=w.pick.choice((0, 1)))
        case op:
            w.node(op, [x, w.ints(axis)], [(f, left)], keepdims=keep)


def layout(w: Writer, x: str, shape: Shape) -> None:
    f, axis = w.float_type, w.axis(shape)
    length = shape[axis]
    match w.pick.choice(("Transpose", "Slice", "Concat", "Split", "Unsqueeze", "Reshape", "Expand", "Pad", "Shape")):
        case "Transpose":
            order = list(range(len(shape)))
            w.pick.shuffle(order)
            w.node("Transpose", [x], [(f, tuple(shape[at] for at in order))], perm=order)
        case "Slice" if isinstance(length, int) and length > 2:
            start, step = w.pick.randint(0, 1), w.pick.choice((1, 2))
            cut = with_axis(shape, axis, len(range(start, length - 1, step)))
            w.node("Slice", [x, w.ints(start), w.ints(length - 1), w.ints(axis), w.ints(step)], [(f, cut)])
        case "Concat" if isinstance(length, int):
            w.node("Concat", [x, x], [(f, with_axis(shape, axis, 2 * length))], axis=axis)
        case "Split" if isinstance(length, int) and length > 1:
            parts = [with_axis(shape, axis, part) for part in (1, length - 1)]
            w.node("Split", [x, w.ints(1, length - 1)], [(f, part) for part in parts], axis=axis)
        case "Unsqueeze" if len(shape) < 4:
            w.node("Unsqueeze", [x, w.ints(axis)], [(f, (*shape[:axis], 1, *shape[axis:]))])
        case "Reshape" if len(shape) > 2 and all(isinstance(each, int) for each in shape[1:]):
            joined = int(np.prod([int(each) for each in shape[1:]]))
            w.node("Reshape", [x, w.ints(0, joined)], [(f, (shape[0], joined))])
        case "Expand":
            wider = (w.pick.choice((1, 3)), *shape) if len(shape) < 4 else shape
            sizes = [each if isinstance(each, int) else 1 for each in wider]
            w.node("Expand", [x, w.ints(*sizes)], [(f, wider)])
        case "Pad" if isinstance(length, int):
            before = [0] * len(shape)
            before[axis] = 1
            w.node("Pad", [x, w.ints(*before, *[0] * len(shape))], [(f, with_axis(shape, axis, length + 1))])
        case "Shape":
            w.node("Shape", [x], [(TensorProto.INT64, (len(shape),))])


def indexing(w: Writer, x: str, shape: Shape) -> None:
    """By indices that the graph computes, as choices of tokens are, or by constant ones."""
    f, axis = w.float_type, w.axis(shape)
    length = shape[axis]
    if not isinstance(length, int):
        return
    match w.pick.choice(("Gather", "GatherElements", "GatherND", "ScatterElements", "OneHot", "EyeLike")):
        case "Gather":
            places = w.ints(*(w.pick.randrange(length) for _ in range(3)))
            w.node("Gather", [x, places], [(f, with_axis(shape, axis, 3))], axis=axis)
        case "GatherElements" | "ScatterElements" as op:
            w.node("TopK", [x, w.ints(length)], [(f, shape), (TensorProto.INT64, shape)], axis=axis)
            places = w.values[TensorProto.INT64][-1][0]
            if op == "GatherElements":
                w.node(op, [x, places], [(f, shape)], axis=axis)
            else:
                how = w.pick.choice(("none", "add", "max", "min", "mul"))
                w.node(op, [x, places, x], [(f, shape)], axis=axis, reduction=how)
        case "GatherND" if isinstance(shape[0], int) and len(shape) > 1:
            w.node("GatherND", [x, w.constant(np.zeros((2, 1), np.int64))], [(f, (2, *shape[1:]))])
        case "OneHot":
            w.node("ArgMax", [x], [(TensorProto.INT64, with_axis(shape, axis, 1))], axis=axis)
            ends = w.constant(np.array([0, 1], helper.tensor_dtype_to_np_dtype(f)))
            hot = (*with_axis(shape, axis, 1), length)
            w.node("OneHot", [w.values[TensorProto.INT64][-1][0], w.ints(length), ends], [(f, hot)])
        case "EyeLike" if len(shape) == 2:
            w.node("EyeLike", [x], [(f, shape)], dtype=f)


def product(w: Writer, x: str, shape: Shape) -> None:
    f, width = w.float_type, shape[-1]
    kind = helper.tensor_dtype_to_np_dtype(f)
    match w.pick.choice(("MatMul", "LayerNormalization", "RMSNormalization", "Attention", "scores")):
        case "MatMul" if isinstance(width, int):
            w.node("MatMul", [x, w.constant(np.ones((width, 8), kind))], [(f, (*shape[:-1], 8))])
        case "LayerNormalization" | "RMSNormalization" as op if isinstance(width, int):
            w.node(op, [x, w.constant(np.ones(width, kind))], [(f, shape)], axis=-1)
        case "Attention" if isinstance(width, int) and (len(shape) == 4 or (len(shape) == 3 and width % 2 == 0)):
            heads = {"q_num_heads": 2, "kv_num_heads": 2} if len(shape) == 3 else {}
            keys = x
            if w.pick.random() < 0.7:
                w.node("Relu", [x], [(f, shape)])
                keys = w.values[f][-1][0]
            mask = [w.constant(np.zeros((1, 1), kind))] if w.pick.random() < 0.3 else []
            w.node("Attention", [x, keys, keys, *mask], [(f, shape)], **heads, is_causal=w.pick.choice((0, 0, 1)))
        case "scores" if len(shape) == 3 and isinstance(shape[1], int) and isinstance(width, int):
            w.node("Transpose", [x], [(f, (shape[0], width, shape[1]))], perm=[0, 2, 1])
            w.node("MatMul", [x, w.values[f][-1][0]], [(f, (shape[0], shape[1], shape[1]))])


def integers(w: Writer) -> None:
    """Arithmetic of places and counts, and what makes values of them."""
    found = w.any(TensorProto.INT64)
    if found is None:
        return
    x, shape = found
    match w.pick.choice((*BINARY[:6], "Cast", "Equal", "Less", "And", "Range")):
        case "Cast":
            w.node("Cast", [x], [(w.float_type, shape)], to=w.float_type)
        case "Equal" | "Less" as op:
            w.node(op, [x, w.ints(1)], [(TensorProto.BOOL, shape)])
        case "And":
            if mask := w.any(TensorProto.BOOL):
                w.node("And", [mask[0], mask[0]], [(TensorProto.BOOL, mask[1])])
        case "Range":
            ends = [w.constant(np.array(number)) for number in (0, 5, 1)]
            w.node("Range", ends, [(TensorProto.INT64, (5,))])
        case op:
            w.node(op, [x, w.ints(2)], [(TensorProto.INT64, shape)])


def graph(seed: int) -> onnx.ModelProto | None:
    """The graph of a seed; None where what came out is no valid model."""
    pick = random.Random(seed)
    float_type = KINDS[pick.choices(tuple(KINDS), (6, 3, 1))[0]]
    batch = pick.choice(("b", 2))
    shape: Shape = (batch, pick.choice((5, 8)), pick.choice((16, 24, 32)))
    w = Writer(pick, float_type)
    w.values[float_type] = [("x", shape)]
    while len(w.nodes) < STEPS:
        found = w.any(float_type)
        assert found is not None
        step = pick.choice((elementwise, reduction, layout, indexing, product, integers))
        integers(w) if step is integers else step(w, *found)
    read = {name for node in w.nodes for name in node.input}
    last = [(name, kind) for kind, several in w.values.items() for name, _ in several if name not in {*read, "x"}]
    outputs = [helper.make_tensor_value_info(name, kind, None) for name, kind in last]
    body = helper.make_graph(
        w.nodes, f"seed{seed}", [helper.make_tensor_value_info("x", float_type, shape)], outputs, w.constants
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    return _checked(model, shape)


def _checked(model: onnx.ModelProto, shape: Shape) -> onnx.ModelProto | None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
        onnx.checker.check_model(inferred, full_check=True)
        session = onnxruntime.InferenceSession(inferred.SerializeToString(), options)
        kind = helper.tensor_dtype_to_np_dtype(model.graph.input[0].type.tensor_type.elem_type)
        session.run(None, {"x": np.ones([size if isinstance(size, int) else 2 for size in shape], kind)})
    except Exception:  # onnx's and onnxruntime's own; both must take it
        return None
    return inferred
