from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bedside.site import Site
from coordinator import (
    Release,
    ReleasedEquivalence,
    ReleasedTensor,
    build_release,
    sign_release,
)


def linear_model(path: Path, *, features: int = 3, classes: int = 2, dtype=np.float32) -> np.ndarray:
    """Write softmax(x @ w) and return w, float32 [features, classes]."""
    weights = np.linspace(-1, 1, features * classes).reshape(features, classes).astype(dtype)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node("Softmax", ["z"], ["y"], axis=-1),
    ]
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("x", kind, ["rows", features])],
        [helper.make_tensor_value_info("y", kind, ["rows", classes])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 10
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))
    return weights


def identity_model(path: Path, **outputs: int) -> None:
    """Write a model whose FP32 outputs are consecutive columns of its input x, as many as each says."""
    names = list(outputs)
    shape = {name: ["rows", columns] for name, columns in outputs.items()}
    graph = helper.make_graph(
        [helper.make_node("Split", ["x", "sizes"], names, axis=1)],
        "identity",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", sum(outputs.values())])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape[name]) for name in names],
        [numpy_helper.from_array(np.array(list(outputs.values()), np.int64), "sizes")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 10
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))


def publish_linear(
    site: Site, folder: Path, *, model: str = "breast-cancer", version: int = 1
) -> Release:
    path = folder / f"{model}-{version}.onnx"
    linear_model(path)
    return _publish(site, path, model, version, {"x": ("FP32", 3)}, {"y": ("FP32", 2)})


def publish_typed(
    site: Site, folder: Path, *, model: str = "breast-cancer", version: int = 1
) -> Release:
    """Publish a model that takes whole numbers, x [n, 3], and gives them back as four other types."""
    path = folder / f"{model}-{version}.onnx"
    outputs = {
        "same": (TensorProto.INT64, "INT64"),
        "fine": (TensorProto.DOUBLE, "FP64"),
        "any": (TensorProto.BOOL, "BOOL"),
        "text": (TensorProto.STRING, "BYTES"),
    }
    graph = helper.make_graph(
        [helper.make_node("Cast", ["x"], [name], to=kind) for name, (kind, _) in outputs.items()],
        "typed",
        [helper.make_tensor_value_info("x", TensorProto.INT64, ["rows", 3])],
        [helper.make_tensor_value_info(name, kind, ["rows", 3]) for name, (kind, _) in outputs.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 10
    onnx.save(made, str(path))
    given = {name: (datatype, 3) for name, (_, datatype) in outputs.items()}
    return _publish(site, path, model, version, {"x": ("INT64", 3)}, given)


def _publish(
    site: Site,
    path: Path,
    model: str,
    version: int,
    inputs: dict[str, tuple[str, int]],
    outputs: dict[str, tuple[str, int]],
) -> Release:
    def tensors(named: dict[str, tuple[str, int]]) -> list[ReleasedTensor]:
        return [
            ReleasedTensor(name=name, datatype=datatype, shape=(-1, columns))
            for name, (datatype, columns) in named.items()
        ]

    release = build_release(
        path,
        model=model,
        version=version,
        inputs=tensors(inputs),
        outputs=tensors(outputs),
        equivalence=ReleasedEquivalence(rows=8, max_abs_difference=0.0, tolerance=1e-5),
        checkpoint_sha256="0" * 64,
        threshold=0.5,
    )
    document = sign_release(release, site.keys.signing_key("release"))
    return site.releases().publish(document, path)[0]


def stepping_model(repository: Path, name: str = "halving", *, steps: int = 1000) -> None:
    """Write a model of many responses: each halves the last, x float32 [rows, 3] to y of that shape."""
    folder = repository / name / "1"
    folder.mkdir(parents=True)
    shape = ["rows", 3]
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "half"], ["y"])],
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.float32(0.5), "half")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 10
    onnx.save(model, str(folder / "model.onnx"))
    (folder.parent / "config.pbtxt").write_text(
        f"""
        max_batch_size: 8
        model_transaction_policy {{ decoupled: true }}
        parameters {{ key: "feedback" value {{ string_value: "y:x" }} }}
        parameters {{ key: "steps" value {{ string_value: "{steps}" }} }}
        """
    )


__all__ = ["TensorProto", "identity_model", "linear_model", "publish_linear", "stepping_model"]


def streaming_repository(repository: Path, *, steps: int) -> None:
    """Write `linear`, `halving` with so many responses, and `endless` with more than anybody reads."""
    linear_model(repository / "linear" / "1" / "model.onnx")
    stepping_model(repository, steps=steps)
    stepping_model(repository, "endless", steps=100_000)
