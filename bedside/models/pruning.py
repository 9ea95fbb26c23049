"""Structured pruning of a torch module, by Torch-Pruning: channels and features go, masks do not come.

A module is code, so it is named as `package.module:callable`; its weights are a checkpoint that is read
without running anything. Why not from ONNX: `docs/decisions`.
"""

import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
import torch_pruning
from torch import nn

from bedside.errors import BedsideError
from bedside.models.export import export_module
from bedside.models.rows import read_arrays, shown

EXAMPLE_ROWS: Final = 2
# ONNX Runtime's CPU kernels take channels in blocks: on the digits of the how-to, 16 and 32 channels
# cut to 11 and 22 ran 1.3 times as long as before.
MULTIPLE: Final = 8
_PRUNED: Final = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d)


class PruningImpossible(BedsideError):
    """Raised when a module cannot be pruned; says what stands in the way."""


def named(what: str) -> Callable[..., Any]:
    """Return what `package.module:callable` names; the module may lie in the current folder.

    Raises:
        PruningImpossible: if there is no such callable.
    """
    module, colon, name = what.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module), name) if colon and name else None
    except Exception as error:
        # The user's own code, which raises whatever it likes; a message of it may quote anything.
        raise PruningImpossible(f"{what} cannot be imported: {_where(error)}") from error
    if not callable(found):
        raise PruningImpossible(f"{what} must name something to call, as package.module:name")
    made: Callable[..., Any] = found
    return made


def call(what: str, *given: object) -> object:
    """Return what `package.module:callable` returns for `given`.

    Raises:
        PruningImpossible: with the place, if it fails or there is no such callable.
    """
    function = named(what)
    try:
        return function(*given)
    except Exception as error:
        # As in `named`.
        raise PruningImpossible(f"{what} failed: {_where(error)}") from error


def _where(error: Exception) -> str:
    """Return an error's type and the last place in the user's own code that it came through."""
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_relative_to(Path.cwd()) and "site-packages" not in frame.filename
    ]
    place = f" in {Path(own[-1].filename).name}, line {own[-1].lineno}" if own else ""
    return f"{type(error).__name__}{place}"


def load_module(factory: str, checkpoint: Path) -> nn.Module:
    """Return the module that `factory` makes, with the weights in `checkpoint`, a state dict.

    Raises:
        PruningImpossible: if the two do not fit each other.
    """
    module = call(factory)
    if not isinstance(module, nn.Module):
        raise PruningImpossible(f"{factory} must return a torch.nn.Module")
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        module.load_state_dict(state)
    except OSError:
        raise
    except Exception as error:
        # Unpickling and torch raise whatever the file's bytes lead them to.
        raise PruningImpossible(
            f"{checkpoint} is not a state dict of what {factory} makes, as torch.save writes it"
        ) from error
    return module.eval()


def input_names(module: nn.Module, given: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the module's inputs: `given`, or those of its `forward`."""
    return tuple(given) or tuple(inspect.signature(module.forward).parameters)


def examples_of(path: Path, module: nn.Module, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """Return the first rows of the arrays `names` in the file at `path`, as `module` takes them.

    Raises:
        RowsInvalid: if it is no such file.
        PruningImpossible: naming the array, if one is missing or the module cannot take it.
    """
    arrays, _ = read_arrays(path, names)
    missing = [name for name in names if name not in arrays]
    if missing:
        raise PruningImpossible(
            f"{path} has no array {missing[0]}, which the module takes; if its inputs have other "
            "names, say them with --input"
        )
    floating = next((value.dtype for value in module.parameters() if value.is_floating_point()), None)
    examples = {name: _example(name, arrays[name], floating or torch.float32) for name in names}
    check_examples(module, examples)
    return examples


def _example(name: str, array: npt.NDArray[Any], floating: torch.dtype) -> torch.Tensor:
    if array.dtype.kind not in "iufb" or not array.ndim or len(array) < EXAMPLE_ROWS:
        raise PruningImpossible(f"the array {name} must be numbers, {EXAMPLE_ROWS} rows or more")
    rows = np.ascontiguousarray(array[:EXAMPLE_ROWS]).astype(array.dtype.newbyteorder("="))
    try:
        given = torch.from_numpy(rows)
    except TypeError as error:
        raise PruningImpossible(
            f"the array {name} is {rows.dtype}, which torch does not take"
        ) from error
    return given.to(floating) if given.is_floating_point() else given


def check_examples(module: nn.Module, examples: Mapping[str, torch.Tensor]) -> None:
    """See that the module takes arrays such as `examples`, before anything is made of it.

    A torch module declares no shapes, but its layers do: the first that they do not fit is named.

    Raises:
        PruningImpossible: naming the arrays, if not.
    """
    unfit: list[str] = []

    def looking(name: str, layer: nn.Module) -> Callable[..., None]:
        def look(_: nn.Module, given: tuple[Any, ...]) -> None:
            if given and isinstance(given[0], torch.Tensor):
                unfit.extend(_unfit(name, layer, given[0]))

        return look

    hooks = [
        layer.register_forward_pre_hook(looking(name, layer))
        for name, layer in module.named_modules()
        if isinstance(layer, _PRUNED)
    ]
    try:
        outputs = _run(module, tuple(examples.values()))
    except Exception as error:
        # Torch and the user's own code raise whatever they meet.
        given = ", ".join(f"{name} ({_described(value)})" for name, value in examples.items())
        reason = unfit[0] if unfit else _where(error)
        raise PruningImpossible(f"the module cannot take {given}: {reason}") from error
    finally:
        for hook in hooks:
            hook.remove()
    if not all(isinstance(value, torch.Tensor) for value in outputs):
        raise PruningImpossible("the module must return a tensor or a tuple of tensors")


def _unfit(name: str, layer: nn.Module, given: torch.Tensor) -> list[str]:
    """Return what is wrong with a layer's input, or nothing."""
    parameter: torch.Tensor = layer.weight  # type: ignore[assignment]
    if isinstance(layer, nn.Linear):
        shape = f"[..., {layer.in_features}]"
        fits = given.ndim > 0 and given.shape[-1] == layer.in_features
    else:
        space = parameter.ndim - 2
        channels = int(layer.in_channels)  # type: ignore[arg-type]
        shape = shown((-1, channels, *[-1] * space))
        fits = given.ndim == space + 2 and given.shape[1] == channels
    if fits and given.dtype == parameter.dtype:
        return []
    expected = f"{_datatype(parameter)} {shape}"
    return [f"its layer {name or 'itself'} takes {expected} and is given {_described(given)}"]


def _described(value: torch.Tensor) -> str:
    shape = tuple(
        -1 if not place and size == EXAMPLE_ROWS else size for place, size in enumerate(value.shape)
    )
    return f"{_datatype(value)} {shown(shape)}"


def _datatype(value: torch.Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def prune(
    module: nn.Module,
    examples: Mapping[str, torch.Tensor],
    *,
    ratio: float,
    multiple: int = MULTIPLE,
    keep: Sequence[str] = (),
) -> None:
    """Remove the share `ratio` of each layer's channels, least in L2 norm first, with all that depend.

    What is left of a layer is a multiple of `multiple`, and a layer that would be left with fewer stays
    whole. The layers in `keep`, or else the last, give as many as before: they make the output.

    Raises:
        PruningImpossible: if the module cannot be traced, or its output would change its shape.
    """
    layers = {name: part for name, part in module.named_modules() if isinstance(part, _PRUNED)}
    unknown = [name for name in keep if name not in layers]
    if unknown or not layers:
        raise PruningImpossible(
            f"the module has no layer {unknown[0]}; it has {', '.join(layers)}"
            if unknown
            else "the module has no linear or convolutional layer"
        )
    kept = [layers[name] for name in (keep or [next(reversed(layers))])]
    # Torch-Pruning rounds down, if need be to none.
    kept += [layer for layer in layers.values() if int(_channels(layer) * (1 - ratio)) < multiple]
    inputs = tuple(examples.values())
    before = _run(module, inputs)
    sizes = sum(value.numel() for value in module.parameters())
    try:
        torch_pruning.pruner.BasePruner(
            module,
            inputs,
            importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=ratio,
            ignored_layers=kept,
            round_to=multiple,
        ).step()
        after = _run(module, inputs)
    except Exception as error:
        # Torch-Pruning and what it traces raise whatever they meet.
        raise PruningImpossible(
            f"Torch-Pruning cannot prune the module ({type(error).__name__})"
        ) from error
    if [value.shape for value in after] != [value.shape for value in before]:
        raise PruningImpossible(
            "pruning changes the shape of the output; name the layers that make it with --keep: "
            f"{', '.join(layers)}"
        )
    if sum(value.numel() for value in module.parameters()) >= sizes:
        raise PruningImpossible("nothing can be pruned at this ratio")


def export_examples(module: nn.Module, examples: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write the module to one ONNX file; its outputs are `y`, or `y0`, `y1` where there are several.

    Raises:
        PruningImpossible: if torch's exporter does not follow the module.
    """
    outputs = len(_run(module, tuple(examples.values())))
    names = ["y"] if outputs == 1 else [f"y{position}" for position in range(outputs)]
    try:
        export_module(module, examples, names, path)
    except OSError:
        raise
    except Exception as error:
        # The exporter raises many types of its own, and its messages hold the user's code.
        raise PruningImpossible(
            f"torch cannot export the module to ONNX ({type(error).__name__}): its shapes must not "
            "depend on the number of rows or on values"
        ) from error


def _channels(layer: nn.Module) -> int:
    name = "out_features" if isinstance(layer, nn.Linear) else "out_channels"
    count: int = getattr(layer, name)
    return count


def _run(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    with torch.no_grad():
        given = module.eval()(*inputs)
    return given if isinstance(given, tuple) else (given,)
