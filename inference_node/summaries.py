"""What callers ask of a declared distribution, and the outputs that answer them.

Asked for by parameters of the request, or of one requested output:

    quantiles  "0.05,0.5,0.95"   -> <distribution>.quantiles  FP64 [*shape, 3]
    intervals  "0.5,0.9"         -> <distribution>.intervals  FP64 [*shape, 2, 2], lower and upper
    moments    "mean,variance"   -> <distribution>.mean, <distribution>.variance  FP64 [*shape]

They are strings, since parameters of the protocol are scalars. An interval is central: as much
probability lies below it as above.
"""

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from msgspec import Struct

from inference_node.allowance import Allowance
from inference_node.declared import LOGITS, PROBS, SAMPLES, Distribution, Source, declared
from inference_node.errors import ExecutionFailed, InputInvalid
from inference_node.inversion import Check
from inference_node.oip import Array, InferRequest, ModelMetadata, Tensor, TensorMetadata

QUANTILES: Final = "quantiles"
INTERVALS: Final = "intervals"
MOMENTS: Final = "moments"
LEVELS_MAX: Final = 128
CELLS_MAX: Final = 1 << 22
"""How many numbers one request may have computed: they lie in memory several times."""
COST_MAX_NS: Final = 500_000_000
"""What a request's numbers may take of a core, by what one of each family was measured to take."""
INLINE_COST_NS: Final = 10_000
"""What is computed on the event loop; more is handed to a thread, which keeps no lock for long."""
_DRAWS_AT_ONCE: Final = 1 << 16
_DRAW_NS: Final = 100
"""As `Family.cost_ns`, for a draw at one level; it is most where a row has one draw."""
_MOMENT_NS: Final = 60
"""Likewise, for one moment of any family."""
SAMPLE_METHOD: Final = "linear"
"""numpy's name for the definition of a sample quantile: Hyndman and Fan 1996, type 7."""

_ASKED: Final = frozenset({QUANTILES, INTERVALS, MOMENTS})
_MOMENTS: Final = ("mean", "variance")


class Asked(Struct, frozen=True, kw_only=True):
    """What is asked of one distribution."""

    distribution: Distribution
    quantiles: tuple[float, ...] = ()
    intervals: tuple[float, ...] = ()
    moments: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The outputs that answer it, in order."""
        kinds = [QUANTILES] * bool(self.quantiles) + [INTERVALS] * bool(self.intervals)
        return tuple(f"{self.distribution.name}.{kind}" for kind in (*kinds, *self.moments))


Summaries = tuple[Asked, ...]


def asks_of_distributions(request: InferRequest) -> bool:
    """Say whether a request asks anything of a distribution."""
    return not _ASKED.isdisjoint(request.parameters) or any(
        not _ASKED.isdisjoint(output.parameters) for output in request.outputs
    )


def asked_of(distributions: Sequence[Distribution], request: InferRequest) -> Summaries:
    """Return what `request` asks of each distribution; those that it asks nothing of are left out.

    Parameters of the request hold for every distribution. Those of a requested output hold for the
    distributions that are made of it, or that it is derived from, and outrank the request's.

    Raises:
        InputInvalid: if it asks for what cannot be given.
    """
    own = [output for output in request.outputs if not _ASKED.isdisjoint(output.parameters)]
    if not distributions:
        if own or not _ASKED.isdisjoint(request.parameters):
            raise InputInvalid("the model declares no distribution to take quantiles or moments of")
        return ()
    for output in own:
        if not any(_belongs(output.name, distribution) for distribution in distributions):
            # Its name may be anything that a caller wrote.
            raise InputInvalid("a requested output is no part of a declared distribution")
    found = []
    for distribution in distributions:
        parameters = {name: request.parameters[name] for name in _ASKED & request.parameters.keys()}
        theirs: dict[str, Any] = {}
        for output in own:
            if _belongs(output.name, distribution):
                for name in _ASKED & output.parameters.keys():
                    if theirs.setdefault(name, output.parameters[name]) != output.parameters[name]:
                        raise InputInvalid(f"two outputs of one distribution ask for other {name}")
        asked = _asked(distribution, {**parameters, **theirs})
        listed = {output.name for output in request.outputs} & set(distribution.derived)
        if not listed <= set(asked.names):
            raise InputInvalid(
                "an output that is derived is given where the parameters quantiles, intervals or "
                "moments ask for it"
            )
        if asked.names:
            found.append(asked)
    return tuple(found)


def derived_outputs(model: ModelMetadata, request: InferRequest) -> tuple[TensorMetadata, ...]:
    """Return the outputs that `model` is asked for besides its own, by what its metadata declare.

    Their shapes depend on the request and are left out.

    Raises:
        InputInvalid: if the request asks for what cannot be given.
    """
    if not asks_of_distributions(request):
        return ()
    return tuple(
        TensorMetadata(name=name, datatype="FP64", shape=())
        for asked in asked_of(declared(model.parameters), request)
        for name in asked.names
    )


def sources(asked: Summaries) -> tuple[str, ...]:
    """Return the model's outputs that `asked` is computed from."""
    return tuple(dict.fromkeys(name for one in asked for name in one.distribution.outputs))


async def summarize(
    asked: Summaries, results: Mapping[str, Array], deadline: float | None = None
) -> list[Tensor]:
    """Return the derived outputs, computed from the model's outputs by name; off the loop if long.

    `deadline` is a `time.monotonic()` time.

    Raises:
        InputInvalid: if more is asked for than one request may have computed.
        DeadlineExceeded: if it cannot be computed before `deadline`; what computes it ends soon after.
        ExecutionFailed: if the model's outputs do not have the shapes that were declared.
    """
    allowance = Allowance(deadline)
    if cost_ns(asked, results) <= INLINE_COST_NS:
        tensors = answer(asked, results, allowance)
    else:
        try:
            tensors = await asyncio.to_thread(answer, asked, results, allowance)
        except asyncio.CancelledError:
            # The thread cannot be cancelled; it goes on until it asks.
            allowance.give_up()
            raise
    allowance.check_deadline()
    return tensors


def cost_ns(asked: Summaries, results: Mapping[str, Array]) -> int:
    """Return about how many nanoseconds of a core it takes to compute what is asked.

    Raises:
        InputInvalid: if that is more than one request may have, or too many numbers are asked for.
    """
    from inference_node.distributions import FAMILIES  # noqa: PLC0415 loaded by the declaration already

    numbers = cost = 0
    for one in asked:
        size = max(_size(source, results) for source in one.distribution.sources.values())
        levels = len(one.quantiles) + 2 * len(one.intervals)
        family = FAMILIES.get(one.distribution.family)
        numbers += size * max(levels, 1)
        cost += size * levels * (_DRAW_NS if family is None else family.cost_ns)
        cost += size * len(one.moments) * _MOMENT_NS
    if numbers > CELLS_MAX or cost > COST_MAX_NS:
        raise InputInvalid(
            f"more is asked for than a request may have computed, {CELLS_MAX} numbers or about "
            f"{COST_MAX_NS / 1e9:g} s; ask for fewer quantiles or rows at a time"
        )
    return cost


def answer(asked: Summaries, results: Mapping[str, Array], allowance: Allowance) -> list[Tensor]:
    """Return the derived outputs, computed from the model's outputs by name.

    Raises:
        DeadlineExceeded, InputInvalid: if `allowance` ends before it is done.
        ExecutionFailed: if the model's outputs do not have the shapes that were declared.
    """
    allowance.begin()
    return [tensor for one in asked for tensor in _answer(one, results, allowance.check)]


def _size(source: Source, results: Mapping[str, Array]) -> int:
    if source.constant is not None:
        return 1
    array = results[source.output]
    return array.size // array.shape[-1] if source.index is not None and array.size else array.size


def _belongs(name: str, distribution: Distribution) -> bool:
    return name in distribution.outputs or name in distribution.derived


def _asked(distribution: Distribution, parameters: Mapping[str, Any]) -> Asked:
    quantiles = _levels(QUANTILES, parameters.get(QUANTILES))
    intervals = _levels(INTERVALS, parameters.get(INTERVALS))
    moments = parameters.get(MOMENTS, "")
    named = [name.strip() for name in moments.split(",")] if isinstance(moments, str) else [""]
    if MOMENTS in parameters and (len(set(named)) < len(named) or not set(named) <= {*_MOMENTS}):
        raise InputInvalid('the parameter moments is "mean", "variance" or "mean,variance"')
    return Asked(
        distribution=distribution,
        quantiles=quantiles,
        intervals=intervals,
        moments=tuple(name for name in _MOMENTS if name in named),
    )


def _levels(name: str, value: object) -> tuple[float, ...]:
    if value is None:
        return ()
    texts = value.split(",") if isinstance(value, str) else [value]
    levels = [
        level
        for text in texts[: LEVELS_MAX + 1]
        if isinstance(text, str | float) and (level := _number(text)) is not None
    ]
    if len(levels) != len(texts) or len(levels) > LEVELS_MAX:
        raise InputInvalid(
            f"the parameter {name} is 1 to {LEVELS_MAX} numbers above 0 and below 1, as text with "
            "commas"
        )
    return tuple(levels)


def _number(text: str | float) -> float | None:
    try:
        level = float(text)
    except ValueError:
        return None
    return level if 0 < level < 1 else None


def _answer(asked: Asked, results: Mapping[str, Array], check: Check) -> list[Tensor]:
    ends = [end for level in asked.intervals for end in ((1 - level) / 2, (1 + level) / 2)]
    levels = np.array([*asked.quantiles, *ends], dtype=np.float64)
    if asked.distribution.family == SAMPLES:
        values, moments = _of_draws(asked, levels, results, check)
    else:
        values, moments = _of_family(asked, levels, results, check)
    arrays = []
    if asked.quantiles:
        arrays.append(values[..., : len(asked.quantiles)])
    if asked.intervals:
        intervals = values[..., len(asked.quantiles) :]
        arrays.append(intervals.reshape(*intervals.shape[:-1], len(asked.intervals), 2))
    arrays.extend(moments)
    return [
        Tensor(name=name, datatype="FP64", shape=array.shape, array=np.ascontiguousarray(array))
        for name, array in zip(asked.names, arrays, strict=True)
    ]


def _of_family(
    asked: Asked, levels: Array, results: Mapping[str, Array], check: Check
) -> tuple[Array, list[Array]]:
    from inference_node import distributions  # noqa: PLC0415 loaded by the declaration already

    declaration = asked.distribution
    family = distributions.FAMILIES[declaration.family]
    values: dict[str, Array] = {}
    for name, source in declaration.sources.items():
        if source.constant is not None:
            value = np.array(source.constant)
        else:
            value = results[source.output].astype(np.float64)
            if source.index is not None:
                if not value.ndim or value.shape[-1] <= source.index:
                    raise ExecutionFailed("an output lacks the place that its distribution needs")
                value = value[..., source.index]
        if name == LOGITS:
            values[PROBS] = distributions.probabilities(value, vectors=family.vectors)
        else:
            values[name] = value
    shapes = {value.shape for value in values.values() if value.ndim}
    if len(shapes) > 1 or (family.vectors and 0 in next(iter(shapes), (0,))[-1:]):
        raise ExecutionFailed("the parameters of a distribution have different or empty shapes")
    for shape in shapes:
        values = {name: np.broadcast_to(value, shape) for name, value in values.items()}
    quantiles = distributions.quantiles(family, values, levels, check) if levels.size else levels
    check()
    kinds = {"mean": distributions.mean, "variance": distributions.variance}
    return quantiles, [np.asarray(kinds[moment](family, values)) for moment in asked.moments]


def _of_draws(
    asked: Asked, levels: Array, results: Mapping[str, Array], check: Check
) -> tuple[Array, list[Array]]:
    declaration = asked.distribution
    (output,) = declaration.outputs
    draws = np.moveaxis(results[output].astype(np.float64), declaration.axis, -1)
    count = draws.shape[-1]
    if not count:
        raise ExecutionFailed("an output that is declared to hold draws holds none")
    with np.errstate(all="ignore"):
        quantiles = np.empty((*draws.shape[:-1], levels.size))
        if levels.size:
            rows, found = draws.reshape(-1, count), quantiles.reshape(-1, levels.size)
            step = max(_DRAWS_AT_ONCE // count, 1)
            for start in range(0, len(rows), step):
                check()
                part = np.quantile(rows[start : start + step], levels, axis=-1, method=SAMPLE_METHOD)
                found[start : start + step] = part.T
        check()
        mean = draws.mean(-1)
        moments = {"mean": mean}
        if "variance" in asked.moments:
            squares = ((draws - mean[..., None]) ** 2).sum(-1)
            moments["variance"] = squares / (count - 1) if count > 1 else squares * math.nan
    return quantiles, [moments[moment] for moment in asked.moments]
