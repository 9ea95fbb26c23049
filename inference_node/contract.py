"""What a model takes and gives once its configuration is held against the ONNX file."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from inference_node.batch import Ragged, Trims
from inference_node.errors import ModelNotReady
from inference_node.model_config import ModelConfig, TensorConfig
from inference_node.oip import TensorMetadata
from inference_node.reshape import Reshape
from inference_node.runtime import Session

# Names that exporters number dimensions with (tf2onnx, torch.onnx) say nothing of equal sizes.
_MADE_UP: Final = re.compile(r"^unk__\d+$|_dynamic_axes_\d+$")


class Contract(Struct, frozen=True, kw_only=True):
    """Inputs and outputs as they are served; `batches` says whether requests may run together.

    Those that the model itself has in another shape are the reshaped ones, by name.
    """

    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]
    reshaped_inputs: Mapping[str, Reshape]
    reshaped_outputs: Mapping[str, Reshape]
    batches: bool
    trims: Trims


def contract_of(config: ModelConfig, session: Session) -> Contract:
    """Hold a configuration against the model.

    Raises:
        ModelNotReady: naming the tensor, if they contradict each other.
    """
    if config.inputs and {value.name for value in config.inputs} != {
        value.name for value in session.inputs
    }:
        raise ModelNotReady("config.pbtxt: input does not name the model's inputs")
    batches = _batches(config, session)
    rows = (-1,) if batches else ()
    inputs, reshaped_inputs = _configured(config.inputs, session.inputs, rows)
    outputs, reshaped_outputs = _configured(config.outputs, session.outputs, rows)
    contract = Contract(
        inputs=inputs,
        outputs=outputs,
        reshaped_inputs=reshaped_inputs,
        reshaped_outputs=reshaped_outputs,
        batches=batches,
        trims={},
    )
    if config.ragged is Ragged.PAD:
        contract = replace(contract, trims=_trims(session, contract))
    if config.iteration is not None:
        _check_feedback(config.iteration.feedback.items(), contract)
    return contract


def _batches(config: ModelConfig, session: Session) -> bool:
    """Whether requests may run together: as configured, or else if the whole model leaves rows open."""
    if config.max_batch_size is None:
        tensors = (*session.inputs, *session.outputs)
        return all(value.shape[:1] == (-1,) for value in tensors) and _same_rows(session)
    if not config.max_batch_size:
        return False
    served = {output.name for output in config.outputs}
    for value in (*session.inputs, *(o for o in session.outputs if not served or o.name in served)):
        if value.shape[:1] != (-1,):
            raise ModelNotReady(
                "config.pbtxt: max_batch_size is above 0, and the model does not leave the first "
                f"dimension of {value.name} open"
            )
    return True


def _same_rows(session: Session) -> bool:
    """Whether the model names its inputs' first dimensions alike, and no other dimension so.

    Requests to a ranker of queries by documents, or to a model that compares rows with each other, run
    together, would be answered with each other's.
    """
    named = {name for value in session.inputs if (name := session.symbols[value.name][0]) is not None}
    others = {name for names in session.symbols.values() for name in names[1:]}
    return sum(not _MADE_UP.search(str(name)) for name in named) < 2 and not named & others


def _configured(
    configured: Sequence[TensorConfig], own: tuple[TensorMetadata, ...], rows: tuple[int, ...]
) -> tuple[tuple[TensorMetadata, ...], dict[str, Reshape]]:
    """Return the tensors as they are served, and those that the model has in another shape.

    `rows` is what stands in front of configured dims: [-1] where the model batches, or nothing.
    """
    if not configured:
        return own, {}
    by_name = {value.name: value for value in own}
    tensors, reshaped = [], {}
    for tensor in configured:
        actual = by_name.get(tensor.name)
        if actual is None:
            raise ModelNotReady("config.pbtxt: output names what the model does not give")
        if tensor.datatype not in ("", actual.datatype):
            raise ModelNotReady(
                f"config.pbtxt: data_type of {tensor.name} is {tensor.datatype}, the model's is "
                f"{actual.datatype}"
            )
        shape = actual.shape if tensor.dims is None else (*rows, *tensor.dims)
        wanted = _own_shape(tensor, actual, shape, rows)
        if wanted != shape:
            reshaped[actual.name] = Reshape(shape, wanted)
        tensors.append(TensorMetadata(name=actual.name, datatype=actual.datatype, shape=shape))
    return tuple(tensors), reshaped


def _own_shape(
    tensor: TensorConfig, actual: TensorMetadata, shape: tuple[int, ...], rows: tuple[int, ...]
) -> tuple[int, ...]:
    """Return the shape in which the model has what is served as `shape`; it must fit the model's."""
    wanted = shape if tensor.reshape is None else (*rows, *tensor.reshape)
    if not actual.shape and all(size == 1 for size in wanted):
        return ()  # dims cannot be empty: Triton too takes a scalar's for one element
    if len(wanted) != len(actual.shape) or any(
        theirs not in (-1, ours) for ours, theirs in zip(wanted, actual.shape, strict=True)
    ):
        if tensor.ragged and actual.shape == (-1,):
            raise ModelNotReady(
                f"config.pbtxt: allow_ragged_batch of {tensor.name} joins requests end to end, in the "
                "model's shape [-1]; this node keeps rows, and pads them where parameters.ragged is pad"
            )
        said = "dims of {} make" if tensor.reshape is None else "reshape of {} makes"
        raise ModelNotReady(
            f"config.pbtxt: {said.format(tensor.name)} the shape {list(wanted)}, the model's is "
            f"{list(actual.shape)}"
        )
    return wanted


def _trims(session: Session, contract: Contract) -> Trims:
    """Find whose size each open dimension of an output has, by the names that the model gives them."""
    sources = {
        symbol: (value.name, served)
        for value in session.inputs
        for axis, symbol in enumerate(session.symbols[value.name])
        if axis
        and isinstance(symbol, str)
        and (served := _served_axis(contract.reshaped_inputs, value.name, axis)) is not None
    }
    trims: dict[str, list[tuple[int, str, int]]] = {}
    for value in contract.outputs:
        for axis, symbol in enumerate(session.symbols[value.name]):
            served = _served_axis(contract.reshaped_outputs, value.name, axis)
            if not axis or isinstance(symbol, int) or served is None:
                continue
            if symbol not in sources:
                raise ModelNotReady(
                    f"config.pbtxt: parameters.ragged is pad, and dimension {axis} of {value.name} is "
                    "open without the name of an input's dimension: padding could not be cut off"
                )
            trims.setdefault(value.name, []).append((served, *sources[symbol]))
    return trims


def _served_axis(reshaped: Mapping[str, Reshape], name: str, axis: int) -> int | None:
    return reshaped[name].served_axis(axis) if name in reshaped else axis


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
