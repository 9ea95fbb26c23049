"""What a model takes and gives once its configuration is held against the ONNX file."""

import re
from collections.abc import Iterable, Sequence
from typing import Final

from msgspec import Struct

from inference_node.batch import Ragged, Trims
from inference_node.errors import ModelNotReady
from inference_node.model_config import ModelConfig, TensorConfig, full_shape
from inference_node.oip import TensorMetadata
from inference_node.runtime import Session

# Names that exporters number dimensions with (tf2onnx, torch.onnx) say nothing of equal sizes.
_MADE_UP: Final = re.compile(r"^unk__\d+$|_dynamic_axes_\d+$")


class Contract(Struct, frozen=True, kw_only=True):
    """Inputs and outputs as they are served; `batches` says whether requests may run together."""

    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]
    batches: bool
    trims: Trims


def contract_of(config: ModelConfig, session: Session) -> Contract:
    """Hold a configuration against the model.

    Raises:
        ModelNotReady: naming the tensor, if they contradict each other.
    """
    open_rows = _open_rows((*session.inputs, *session.outputs))
    if config.max_batch_size and not open_rows:
        raise ModelNotReady(
            "config.pbtxt: max_batch_size is above 0, and the model does not leave the first dimension "
            "of every input and output open"
        )
    if config.inputs and {value.name for value in config.inputs} != {
        value.name for value in session.inputs
    }:
        raise ModelNotReady("config.pbtxt: input does not name the model's inputs")
    contract = Contract(
        inputs=_configured(config, config.inputs, session.inputs),
        outputs=_configured(config, config.outputs, session.outputs),
        batches=(
            open_rows and _same_rows(session)
            if config.max_batch_size is None
            else config.max_batch_size > 0
        ),
        trims=_trims(session) if config.ragged is Ragged.PAD else {},
    )
    if config.iteration is not None:
        _check_feedback(config.iteration.feedback.items(), contract)
    return contract


def _open_rows(tensors: Iterable[TensorMetadata]) -> bool:
    return all(value.shape and value.shape[0] == -1 for value in tensors)


def _same_rows(session: Session) -> bool:
    """Whether the model names its inputs' first dimensions alike, and no other dimension so.

    Requests to a ranker of queries by documents, or to a model that compares rows with each other, run
    together, would be answered with each other's.
    """
    named = {name for value in session.inputs if (name := session.symbols[value.name][0]) is not None}
    others = {name for names in session.symbols.values() for name in names[1:]}
    return sum(not _MADE_UP.search(str(name)) for name in named) < 2 and not named & others


def _configured(
    config: ModelConfig, configured: Sequence[TensorConfig], own: tuple[TensorMetadata, ...]
) -> tuple[TensorMetadata, ...]:
    if not configured:
        return own
    by_name = {value.name: value for value in own}
    tensors = []
    for tensor in configured:
        actual = by_name.get(tensor.name)
        if actual is None:
            raise ModelNotReady("config.pbtxt: output names what the model does not give")
        if tensor.datatype not in ("", actual.datatype):
            raise ModelNotReady(
                f"config.pbtxt: data_type of {tensor.name} is {tensor.datatype}, the model's is "
                f"{actual.datatype}"
            )
        shape = actual.shape if tensor.dims is None else full_shape(config, tensor.dims)
        if len(shape) != len(actual.shape) or any(
            theirs not in (-1, ours) for ours, theirs in zip(shape, actual.shape, strict=True)
        ):
            raise ModelNotReady(
                f"config.pbtxt: dims of {tensor.name} make the shape {list(shape)}, the model's is "
                f"{list(actual.shape)}"
            )
        tensors.append(TensorMetadata(name=actual.name, datatype=actual.datatype, shape=shape))
    return tuple(tensors)


def _trims(session: Session) -> Trims:
    """Find whose size each open dimension of an output has, by the names that the model gives them."""
    sources = {
        symbol: (value.name, axis)
        for value in session.inputs
        for axis, symbol in enumerate(session.symbols[value.name])
        if axis and isinstance(symbol, str)
    }
    trims: dict[str, list[tuple[int, str, int]]] = {}
    for value in session.outputs:
        for axis, symbol in enumerate(session.symbols[value.name]):
            if not axis or isinstance(symbol, int):
                continue
            if symbol not in sources:
                raise ModelNotReady(
                    f"config.pbtxt: parameters.ragged is pad, and dimension {axis} of {value.name} is "
                    "open without the name of an input's dimension: padding could not be cut off"
                )
            trims.setdefault(value.name, []).append((axis, *sources[symbol]))
    return trims


def _check_feedback(pairs: Iterable[tuple[str, str]], contract: Contract) -> None:
    inputs = {value.name: value for value in contract.inputs}
    outputs = {value.name: value for value in contract.outputs}
    for given, taken in pairs:
        if given not in outputs or taken not in inputs:
            raise ModelNotReady(
                "config.pbtxt: parameters.feedback names no output and input of the model"
            )
        one, other = outputs[given], inputs[taken]
        if (
            one.datatype != other.datatype
            or len(one.shape) != len(other.shape)
            or any(
                -1 not in sizes and sizes[0] != sizes[1]
                for sizes in zip(one.shape, other.shape, strict=True)
            )
        ):
            raise ModelNotReady(
                "config.pbtxt: parameters.feedback joins an output and an input that differ"
            )
