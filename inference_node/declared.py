"""What a model's configuration says of its outputs: which are parameters of a distribution, or draws.

A declaration is one entry of the `parameters` map of `config.pbtxt`, so the file stays Triton's:

    parameters { key: "distribution.glucose"
                 value { string_value: "student_t df=4 loc=y[0] scale=y[1]" } }

After the family come its parameters: each is an output, a place on an output's last axis (`y[0]`), or
a number. `samples draws=y axis=1` declares that the axis 1 of `y` holds draws. The same text stands in
the model's metadata, so that a gateway knows what a node can be asked for.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from msgspec import Struct

from inference_node.errors import ModelNotReady
from inference_node.oip import TensorMetadata

PREFIX: Final = "distribution."
SAMPLES: Final = "samples"
DERIVED: Final = ("quantiles", "intervals", "mean", "variance")
"""What can be asked of a distribution; the output is called `<distribution>.<one of these>`."""
LOGITS: Final = "logits"
PROBS: Final = "probs"

_NUMERIC: Final = (
    "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
    "FP16", "FP32", "FP64", "BF16",
)  # fmt: skip
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,127}")
_INDEXED: Final = re.compile(r"(.+)\[([0-9]{1,6})\]")
_AXIS: Final = re.compile(r"-?[0-9]{1,2}")


class Source(Struct, frozen=True):
    """Where a parameter comes from: an output, a place on its last axis, or a number, as in `text`."""

    output: str = ""
    index: int | None = None
    constant: float | None = None
    text: str = ""


class Distribution(Struct, frozen=True, kw_only=True):
    """One declared distribution; `axis` is that of the draws, where `family` is `samples`."""

    name: str
    family: str
    sources: Mapping[str, Source]
    text: str
    axis: int = 0

    @property
    def outputs(self) -> tuple[str, ...]:
        """The model's outputs that it is made of."""
        named = (source.output for source in self.sources.values() if source.output)
        return tuple(dict.fromkeys(named))

    @property
    def derived(self) -> tuple[str, ...]:
        """The names of the outputs that can be asked for."""
        return tuple(f"{self.name}.{kind}" for kind in DERIVED)


def declared(parameters: Mapping[str, object]) -> tuple[Distribution, ...]:
    """Return the distributions that `parameters` (of a configuration, or of metadata) declare.

    Raises:
        ModelNotReady: naming the entry, if one is not a declaration.
    """
    return tuple(
        _distribution(key.removeprefix(PREFIX), str(text))
        for key, text in sorted(parameters.items())
        if key.startswith(PREFIX)
    )


def check_declared(
    distributions: Sequence[Distribution], outputs: Sequence[TensorMetadata], *, batches: bool
) -> None:
    """Hold declarations against the model's outputs.

    Raises:
        ModelNotReady: naming the entry, if they contradict each other.
    """
    by_name = {output.name: output for output in outputs}
    for distribution in distributions:
        if by_name.keys() & set(distribution.derived):
            raise _refused(distribution.name, "the model has an output of a derived output's name")
        if any(source.text in by_name for source in distribution.sources.values()):
            # PyTorch names outputs with numbers, and either may be meant.
            raise _refused(
                distribution.name,
                "a number is also the name of an output: write the number another way (4 as 4.0), or "
                "rename the output",
            )
        shapes = [
            _shape(distribution, source, by_name, batches=batches)
            for source in distribution.sources.values()
            if source.constant is None
        ]
        for shape in shapes[1:]:
            if len(shape) != len(shapes[0]) or any(
                -1 not in sizes and sizes[0] != sizes[1] for sizes in zip(shape, shapes[0], strict=True)
            ):
                raise _refused(distribution.name, "its parameters have different shapes")


def _distribution(name: str, text: str) -> Distribution:
    # scipy takes a third of a second to load, and few models declare a distribution.
    from inference_node.distributions import FAMILIES  # noqa: PLC0415

    if not _NAME.fullmatch(name):
        raise ModelNotReady(
            f"config.pbtxt: parameters.{PREFIX}* must be named with letters, digits and _.:/-"
        )
    family, *pairs = text.split() or [""]
    given: dict[str, str] = {}
    for pair in pairs:
        parameter, equals, value = pair.partition("=")
        if not equals or not value or parameter in given:
            raise _refused(name, "after the family come different parameters, as parameter=output")
        given[parameter] = value
    if family == SAMPLES:
        axis = given.get("axis", "")
        if given.keys() != {"draws", "axis"} or not _AXIS.fullmatch(axis):
            raise _refused(name, "samples takes draws=<output> and axis=<number>")
        source = Source(output=given["draws"])
        return Distribution(
            name=name, family=family, sources={"draws": source}, axis=int(axis), text=text
        )
    if family not in FAMILIES:
        raise _refused(name, f"the family must be one of {', '.join([*FAMILIES, SAMPLES])}")
    expected = set(FAMILIES[family].domains)
    named = {PROBS if parameter == LOGITS and PROBS in expected else parameter for parameter in given}
    if named != expected or len(given) != len(expected):
        kinds = (f"{p} or {LOGITS}" if p == PROBS else p for p in FAMILIES[family].domains)
        raise _refused(name, f"{family} takes {', '.join(kinds)}")
    sources = {parameter: _source(value) for parameter, value in given.items()}
    if all(source.constant is not None for source in sources.values()):
        raise _refused(name, "at least one parameter must be an output")
    for parameter, source in sources.items():
        if source.constant is not None and not _fits(family, parameter, source.constant):
            raise _refused(name, f"the number for {parameter} is none that {family} takes")
    return Distribution(name=name, family=family, sources=sources, text=text)


def _fits(family: str, parameter: str, constant: float) -> bool:
    """Say whether a number may be a parameter; out of its domain it would make every answer NaN."""
    from inference_node.distributions import FAMILIES, finite  # noqa: PLC0415 as above

    if parameter == LOGITS:
        return bool(finite(np.array(constant)))
    if parameter == PROBS and FAMILIES[family].vectors and not constant:
        return False  # weights that are all 0
    return bool(FAMILIES[family].domains[parameter](np.array(constant)))


def _source(value: str) -> Source:
    try:
        return Source(constant=float(value), text=value)
    except ValueError:
        pass
    if indexed := _INDEXED.fullmatch(value):
        return Source(output=indexed[1], index=int(indexed[2]))
    return Source(output=value)


def _shape(
    distribution: Distribution,
    source: Source,
    outputs: Mapping[str, TensorMetadata],
    *,
    batches: bool,
) -> tuple[int, ...]:
    """Return the shape of one parameter, -1 for what is open."""
    from inference_node.distributions import FAMILIES  # noqa: PLC0415 as above

    output = outputs.get(source.output)
    if output is None:
        raise _refused(distribution.name, "it names an output that the model does not give")
    if output.datatype not in _NUMERIC:
        raise _refused(distribution.name, "it names an output that is not of numbers")
    shape, first = output.shape, 1 if batches else 0
    if distribution.family == SAMPLES:
        if not first <= distribution.axis % max(len(shape), 1) or not (
            -len(shape) <= distribution.axis < len(shape)
        ):
            raise _refused(distribution.name, "axis is none of the output's, or that of the rows")
        return shape
    vectors = FAMILIES[distribution.family].vectors
    if (vectors or source.index is not None) and len(shape) <= first:
        raise _refused(distribution.name, "an output lacks the axis that its parameters lie along")
    if source.index is None:
        return shape
    if vectors:
        raise _refused(distribution.name, f"{distribution.family} takes whole outputs")
    if shape[-1] != -1 and source.index >= shape[-1]:
        raise _refused(distribution.name, "an index is past the end of the output's last axis")
    return shape[:-1]


def _refused(name: str, reason: str) -> ModelNotReady:
    return ModelNotReady(f"config.pbtxt: parameters.{PREFIX}{name}: {reason}")
