"""Structured pruning of a torch module, by Torch-Pruning: channels and features go, masks do not come.

A module is code, so it is named as `package.module:callable`; its weights are a checkpoint that is read
without running anything. Why not from ONNX: `docs/decisions`.
"""

import importlib
import inspect
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch_pruning
from torch import nn

from bedside.errors import BedsideError
from bedside.models.export import export_module

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
    except (ImportError, AttributeError, ValueError) as error:
        raise PruningImpossible(f"{what} cannot be imported: {type(error).__name__}") from error
    if not callable(found):
        raise PruningImpossible(f"{what} must name something to call, as package.module:name")
    made: Callable[..., Any] = found
    return made


def load_module(factory: str, checkpoint: Path) -> nn.Module:
    """Return the module that `factory` makes, with the weights in `checkpoint`, a state dict.

    Raises:
        PruningImpossible: if the two do not fit each other.
    """
    module = named(factory)()
    if not isinstance(module, nn.Module):
        raise PruningImpossible(f"{factory} must return a torch.nn.Module")
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        module.load_state_dict(state)
    except (RuntimeError, pickle.UnpicklingError, EOFError, TypeError) as error:
        raise PruningImpossible(
            f"{checkpoint} is not a state dict of what {factory} makes, as torch.save writes it"
        ) from error
    return module.eval()


def input_names(module: nn.Module, given: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the module's inputs: `given`, or those of its `forward`."""
    return tuple(given) or tuple(inspect.signature(module.forward).parameters)


def examples_of(path: Path, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """Return the first rows of the arrays `names` in the `.npz` at `path`, as the module takes them.

    Raises:
        PruningImpossible: if one is missing or is not of numbers.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name][:EXAMPLE_ROWS] for name in names}
    except (ValueError, KeyError, EOFError, AttributeError) as error:
        raise PruningImpossible(
            f"{path} must be a .npz file with the arrays {', '.join(names)}"
        ) from error
    if any(array.dtype.kind not in "iufb" or len(array) < EXAMPLE_ROWS for array in arrays.values()):
        raise PruningImpossible(f"the arrays in {path} must be numbers, two rows or more")
    return {
        name: torch.from_numpy(array.astype(np.float32) if array.dtype.kind == "f" else array)
        for name, array in arrays.items()
    }


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
    """Write the module to one ONNX file; its outputs are `y`, or `y0`, `y1` where there are several."""
    outputs = len(_run(module, tuple(examples.values())))
    names = ["y"] if outputs == 1 else [f"y{position}" for position in range(outputs)]
    export_module(module, examples, names, path)


def _channels(layer: nn.Module) -> int:
    name = "out_features" if isinstance(layer, nn.Linear) else "out_channels"
    count: int = getattr(layer, name)
    return count


def _run(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    with torch.no_grad():
        given = module.eval()(*inputs)
    return given if isinstance(given, tuple) else (given,)
