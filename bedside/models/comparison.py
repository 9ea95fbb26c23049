"""How a smaller model compares with its original: size, latency, accuracy, each measured on both.

Latencies are taken in turns, original and candidate, so that what else the machine does falls on both.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct
from scipy import stats

from bedside.errors import BedsideError
from bedside.models.rows import Rows
from inference_node import ExecutionFailed, ModelNotReady, TensorMetadata
from inference_node.model_file import read_model
from inference_node.runtime import CPU, Session

Array = npt.NDArray[Any]

WARM_RUNS: Final = 10
EVALUATION_ROWS: Final = 64
_FLOATING: Final = ("FP16", "FP32", "FP64", "BF16")


class ComparisonImpossible(BedsideError):
    """Raised when two models cannot be measured against each other; says what would help."""


class Figures(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one model reaches on labelled rows."""

    accuracy: float | None = None
    auroc: float | None = None
    rmse: float | None = None
    mae: float | None = None


class Latency(Struct, frozen=True, kw_only=True):
    """Microseconds of a run with `batch` rows; `runs` of each model, taken in turns."""

    batch: int
    runs: int
    original_median_us: float
    original_p99_us: float
    candidate_median_us: float
    candidate_p99_us: float


class Comparison(Struct, frozen=True, kw_only=True):
    """A candidate against its original; `loss` is what `loss_is` says, and infinite if it gives NaN.

    `rows` were compared; `not_finite` others were not, as the original gives no finite output there.
    """

    rows: int
    not_finite: int
    output: str
    labelled: bool
    original: Figures
    candidate: Figures
    agreement: float | None
    max_abs_difference: float
    mean_abs_difference: float
    loss: float
    loss_is: str
    original_bytes: int
    candidate_bytes: int
    latencies: tuple[Latency, ...]


def open_session(path: Path, *, threads: int = 1) -> Session:
    """Open a model as a node would, on the CPU.

    Raises:
        ComparisonImpossible: with the reason, if a node would not serve it.
    """
    if path.is_dir():
        raise ComparisonImpossible(f"{path} is a folder; name the .onnx file in it")
    if not path.is_file():
        raise ComparisonImpossible(f"there is no file {path}")
    try:
        return Session(read_model(path), provider=CPU, intra_op_threads=threads)
    except ModelNotReady as error:
        raise ComparisonImpossible(f"a node would not serve {path.name}: {error}") from error
    except OSError as error:
        raise ComparisonImpossible(f"{path.name} cannot be read") from error


def inputs_to_judge(path: Path, output: str | None) -> tuple[TensorMetadata, ...]:
    """Return what a model takes that can be judged by `output`, as `compare` takes it.

    Raises:
        ComparisonImpossible: with the reason, if a node would not serve it, or it cannot.
    """
    session = open_session(path)
    _output_to_judge(session, output)
    return session.inputs


def compare(
    original: Path,
    candidate: Path,
    rows: Rows,
    *,
    output: str | None = None,
    batches: Sequence[int] = (1, 32),
    runs: int = 200,
    threads: int = 1,
) -> Comparison:
    """Measure both models on `rows`.

    `output` is the output to judge by, the first of floating point if None: scores [n, classes], one
    score [n] or [n, 1] of a binary classifier (a probability, or a logit), or what a regressor gives.

    Raises:
        ComparisonImpossible: if one cannot be run, or they give different things.
    """
    one, other = open_session(original, threads=threads), open_session(candidate, threads=threads)
    name = _output_to_judge(one, output)
    if (one.inputs, one.outputs) != (other.inputs, other.outputs):
        raise ComparisonImpossible("the two models take or give different things")
    ours = _outputs(one, rows, name)
    if len(ours) != len(rows) or not ours.size:
        raise _no_rows(name)
    comparable = _finite_rows(ours)
    if not comparable.any():
        raise ComparisonImpossible(
            f"there is nothing to compare: the original's output {name} is not finite on any of the "
            f"{len(rows)} rows"
        )
    # Dynamic quantization takes one range for a batch, so such a row would spoil those beside it.
    ours, rows = ours[comparable], rows.take(np.flatnonzero(comparable))
    theirs = _outputs(other, rows, name)
    if ours.shape != theirs.shape:
        raise _no_rows(name)
    judged = _judged(ours, theirs, rows.labels)
    fixed = one.inputs[0].shape[0]
    return Comparison(
        rows=len(rows),
        not_finite=int((~comparable).sum()),
        output=name,
        labelled=rows.labels is not None,
        original=judged.original,
        candidate=judged.candidate,
        agreement=judged.agreement,
        max_abs_difference=judged.max_abs_difference,
        mean_abs_difference=judged.mean_abs_difference,
        loss=judged.loss,
        loss_is=judged.loss_is,
        original_bytes=original.stat().st_size,
        candidate_bytes=candidate.stat().st_size,
        latencies=tuple(
            _latency(one, other, rows, batch, runs)
            for batch in dict.fromkeys(batches if fixed == -1 else (fixed,))
        ),
    )


def _no_rows(name: str) -> ComparisonImpossible:
    return ComparisonImpossible(f"the output {name} does not have a row for each row")


class _Judged(Struct, frozen=True, kw_only=True):
    """What two models' outputs say of each other; the fields are those of a `Comparison`."""

    original: Figures = Figures()
    candidate: Figures = Figures()
    agreement: float | None = None
    max_abs_difference: float
    mean_abs_difference: float
    loss: float
    loss_is: str


def _output_to_judge(session: Session, output: str | None) -> str:
    floating = [value.name for value in session.outputs if value.datatype in _FLOATING]
    name = output or next(iter(floating), None)
    if name not in floating:
        raise ComparisonImpossible(
            f"the output to judge by must be one of floating point: {', '.join(floating) or 'none is'}"
        )
    return name


def _judged(
    ours: npt.NDArray[np.float64], theirs: npt.NDArray[np.float64], labels: Array | None
) -> _Judged:
    """Judge `theirs` by `ours`, which is finite."""
    infinite = float("inf")
    wrong = int((~_finite_rows(theirs)).sum())
    if wrong:
        # A comparison with NaN is never true, whatever it is; no share of rows may hide one.
        return _Judged(
            original=Figures() if labels is None else _figures(ours, labels),
            max_abs_difference=infinite,
            mean_abs_difference=infinite,
            loss=infinite,
            loss_is=f"the smaller model's output is not finite on {wrong} of {len(ours)} rows",
        )
    # Squares of the largest doubles are infinite: so is a loss, then, or it is NaN, which refuses too.
    with np.errstate(over="ignore", invalid="ignore"):
        difference = np.abs(ours - theirs)
        agreement = _agreement(ours, theirs)
        figures = [Figures(), Figures()]
        if labels is not None:
            figures = [_figures(scores, labels) for scores in (ours, theirs)]
        loss, loss_is = _loss(ours, theirs, figures, agreement)
        return _Judged(
            original=figures[0],
            candidate=figures[1],
            agreement=agreement,
            max_abs_difference=float(difference.max()),
            mean_abs_difference=float(difference.mean()),
            loss=loss,
            loss_is=loss_is,
        )


def _finite_rows(values: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    return np.asarray(np.isfinite(values).reshape(len(values), -1).all(1))


def _outputs(session: Session, rows: Rows, name: str) -> npt.NDArray[np.float64]:
    """Return the output `name` for all rows, float64 [n, ...]; a fixed batch is filled up."""
    fixed = session.inputs[0].shape[0]
    step = EVALUATION_ROWS if fixed == -1 else fixed
    parts = []
    for start in range(0, len(rows), step):
        indices = np.arange(start, start + step if fixed != -1 else min(start + step, len(rows)))
        feed = {key: array[indices % len(rows)] for key, array in rows.inputs.items()}
        part = _run(session, feed, name)
        parts.append(part[: len(rows) - start] if part.ndim else part[None])
    if len({part.shape[1:] for part in parts}) != 1:
        raise ComparisonImpossible(f"the output {name} changes its shape from batch to batch")
    return np.concatenate(parts).astype(np.float64)


def _run(session: Session, feed: Mapping[str, Array], name: str) -> Array:
    try:
        return session.run(feed, (name,))[0]
    except ExecutionFailed as error:
        raise ComparisonImpossible("a model could not be run on the given rows") from error


def _scores(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return scores[:, 0] if scores.ndim == 2 and scores.shape[1] == 1 else scores


def _classes(scores: npt.NDArray[np.float64]) -> Array | None:
    """Return the class that each row's scores choose, or None where they are no scores of classes."""
    return np.asarray(scores.argmax(1)) if scores.ndim == 2 else None


def _agreement(ours: npt.NDArray[np.float64], theirs: npt.NDArray[np.float64]) -> float | None:
    one, other = _classes(_scores(ours)), _classes(_scores(theirs))
    return None if one is None or other is None else float((one == other).mean())


def _figures(given: npt.NDArray[np.float64], labels: Array) -> Figures:
    scores = _scores(given)
    classes = _classes(scores)
    whole = bool((labels == np.floor(labels)).all())
    if classes is not None:
        if not whole or labels.min() < 0 or labels.max() >= scores.shape[1]:
            raise ComparisonImpossible("labels must be the indices of the output's classes")
        columns = range(scores.shape[1])
        present = [column for column in columns if 0 < (labels == column).sum() < len(labels)]
        if scores.shape[1] == 2:
            present = present[1:]
        areas = [_auroc(scores[:, column], labels == column) for column in present]
        return Figures(
            accuracy=float((classes == labels).mean()),
            auroc=float(np.mean(areas)) if areas else None,
        )
    if scores.ndim > 1:
        raise ComparisonImpossible("labels need an output of the shape [rows], [rows, 1] or [rows, n]")
    if whole and set(np.unique(labels)) <= {0, 1}:
        threshold = 0.5 if scores.min() >= 0 and scores.max() <= 1 else 0.0
        both = 0 < labels.sum() < len(labels)
        return Figures(
            accuracy=float(((scores > threshold) == labels).mean()),
            auroc=_auroc(scores, labels == 1) if both else None,
        )
    error = scores - labels
    return Figures(rmse=float(np.sqrt((error**2).mean())), mae=float(np.abs(error).mean()))


def _auroc(scores: npt.NDArray[np.float64], positive: npt.NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve, ties counted half (Mann and Whitney 1947)."""
    count = int(positive.sum())
    ranks = stats.rankdata(scores)
    above = float(ranks[positive].sum()) - count * (count + 1) / 2
    return above / (count * (len(scores) - count))


def _loss(
    ours: npt.NDArray[np.float64],
    theirs: npt.NDArray[np.float64],
    figures: Sequence[Figures],
    agreement: float | None,
) -> tuple[float, str]:
    one, other = figures
    if one.accuracy is not None and other.accuracy is not None:
        falls = [one.accuracy - other.accuracy]
        if one.auroc is not None and other.auroc is not None:
            falls.append(one.auroc - other.auroc)
        return float(np.max(falls)), "the larger fall of accuracy and AUROC"
    if one.rmse is not None and other.rmse is not None:
        return _share(other.rmse - one.rmse, one.rmse), "the rise of RMSE, as a share of the original's"
    if agreement is not None:
        return 1 - agreement, "the share of rows whose first class changed"
    away = float(np.sqrt(((ours - theirs) ** 2).mean()))
    return _share(away, float(ours.std())), "the RMS difference, as a share of the output's spread"


def _share(part: float, whole: float) -> float:
    return part / whole if whole else (0.0 if part <= 0 else float("inf"))


def _latency(one: Session, other: Session, rows: Rows, batch: int, runs: int) -> Latency:
    indices = np.arange(batch) % len(rows)
    feed = {name: np.ascontiguousarray(array[indices]) for name, array in rows.inputs.items()}
    names = tuple(value.name for value in one.outputs)
    taken: dict[int, list[int]] = {0: [], 1: []}
    for turn in range(WARM_RUNS + runs):
        for which in ((0, 1), (1, 0))[turn % 2]:
            session = other if which else one
            started = time.perf_counter_ns()
            try:
                session.run(feed, names)
            except ExecutionFailed as error:
                raise ComparisonImpossible(
                    f"a model could not be run on {batch} rows at once"
                ) from error
            spent = time.perf_counter_ns() - started
            if turn >= WARM_RUNS:
                taken[which].append(spent)
    quantiles = [np.quantile(np.array(taken[which]) / 1000, [0.5, 0.99]) for which in (0, 1)]
    return Latency(
        batch=batch,
        runs=runs,
        original_median_us=float(quantiles[0][0]),
        original_p99_us=float(quantiles[0][1]),
        candidate_median_us=float(quantiles[1][0]),
        candidate_p99_us=float(quantiles[1][1]),
    )
