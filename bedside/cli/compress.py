"""`bedside models quantize` and `prune`: a smaller model, with what it costs."""

import hashlib
import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from bedside.cli.options import say, show
from bedside.errors import BedsideError

if TYPE_CHECKING:
    from bedside.models.comparison import Comparison, Figures
    from bedside.models.compression import Report


def finite(value: float) -> float:
    """Refuse NaN and infinities, which pass a `min` and a `max`: nothing may be judged by them.

    Raises:
        typer.BadParameter: if it is one.
    """
    if not math.isfinite(value):
        raise typer.BadParameter("write a finite number")
    return value


Model = Annotated[Path, typer.Argument(help="the ONNX model", show_default=False)]
Output = Annotated[Path, typer.Argument(help="where to write the smaller model", show_default=False)]
Data = Annotated[
    Path,
    typer.Option(
        help="rows to measure on: .npz with an array for each input, and labels if there are any; or "
        "the one input's rows as .npy"
    ),
]
Labels = Annotated[str, typer.Option(help="the array that holds labels")]
Judged = Annotated[
    str | None, typer.Option(help="the output to judge by [default: the first of floating point]")
]
MaxLoss = Annotated[
    float,
    typer.Option(
        min=0,
        callback=finite,
        help="refuse a model that loses more: accuracy or AUROC; RMSE as a share; without labels, rows "
        "whose class changed",
    ),
]
Batch = Annotated[int, typer.Option(min=1, max=65536, help="rows of a batch to time, beside one")]
Runs = Annotated[int, typer.Option(min=1, max=100_000, help="runs of each model to time")]
Threads = Annotated[int, typer.Option(min=1, max=256, help="threads of each model")]


def quantize(
    model: Model,
    output: Output,
    data: Data,
    calibration: Annotated[
        Path | None,
        typer.Option(help="rows to calibrate on [default: half of --data, which is then not measured]"),
    ] = None,
    dynamic: Annotated[
        bool, typer.Option("--dynamic", help="measure ranges at each run, without calibration")
    ] = False,
    ranges: Annotated[
        str, typer.Option("--method", help="how ranges are chosen: minmax, entropy or percentile")
    ] = "minmax",
    per_channel: Annotated[
        bool, typer.Option("--per-channel", help="a scale for each channel of a weight")
    ] = False,
    keep: Annotated[
        list[str] | None, typer.Option(help="a node to leave in floating point; may be repeated")
    ] = None,
    labels: Labels = "labels",
    judged: Judged = None,
    max_loss: MaxLoss = 0.01,
    batch: Batch = 32,
    runs: Runs = 200,
    threads: Threads = 1,
) -> None:
    """Quantize a model to INT8, compare both, and write it if it loses little enough."""
    from bedside.models.comparison import compare, inputs_to_judge  # noqa: PLC0415 scipy takes a while
    from bedside.models.compression import check_target, compress  # noqa: PLC0415 likewise
    from bedside.models.quantization import Ranges, quantize  # noqa: PLC0415 likewise
    from bedside.models.rows import read_rows  # noqa: PLC0415 likewise

    if ranges not in [*Ranges]:
        raise BedsideError(f"--method must be one of {', '.join(Ranges)}")
    if dynamic and (calibration is not None or ranges != Ranges.MINMAX):
        raise BedsideError("--dynamic takes no calibration: leave out --calibration and --method")
    check_target(output)
    inputs = inputs_to_judge(model, judged)
    rows = read_rows(data, inputs, labels)
    digests = {"measured": rows.sha256}
    calibrating = None
    if calibration is not None:
        calibrating = read_rows(calibration, inputs, labels)
    elif not dynamic:
        calibrating, rows = rows.halves()
    if calibrating is not None:
        calibrating = calibrating.finite()
        digests["calibration"] = calibrating.sha256
    report = compress(
        model,
        output,
        make=lambda path: quantize(
            model,
            path,
            calibration=calibrating,
            ranges=Ranges(ranges),
            per_channel=per_channel,
            keep=keep or (),
        ),
        measure=lambda path: compare(
            model, path, rows, output=judged, batches=(1, batch), runs=runs, threads=threads
        ),
        seen=lambda comparison: show(comparison_table(comparison, "quantized")),
        max_loss=max_loss,
        method={
            "kind": "dynamic" if dynamic else "static",
            **({} if dynamic else {"format": "QDQ", "ranges": ranges}),
            "per_channel": per_channel,
            "kept": keep or [],
            "calibration_rows": 0 if calibrating is None else len(calibrating),
        },
        packages=("numpy", "onnx", "onnxruntime-gpu"),
        data_sha256=digests,
    )
    say_written(output, report)


def prune(
    module: Annotated[str, typer.Argument(help="what makes the torch module: package.module:callable")],
    checkpoint: Annotated[Path, typer.Argument(help="its weights: a state dict that torch saved")],
    output: Output,
    data: Data,
    ratio: Annotated[
        float,
        typer.Option(
            min=0.01, max=0.99, callback=finite, help="the share of each layer's channels to remove"
        ),
    ] = 0.5,
    multiple: Annotated[
        int, typer.Option(min=1, max=1024, help="leave each layer a multiple of so many channels")
    ] = 8,
    tune: Annotated[
        str | None,
        typer.Option(help="package.module:callable that trains the pruned module, which it is given"),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(help="a layer that keeps its outputs; may be repeated [default: the last]"),
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", help="the name of an input, in order [default: those of forward]"),
    ] = None,
    labels: Labels = "labels",
    judged: Judged = None,
    max_loss: MaxLoss = 0.01,
    batch: Batch = 32,
    runs: Runs = 200,
    threads: Threads = 1,
) -> None:
    """Prune a torch module, export and compare it, and write it if it loses little enough."""
    from bedside.models import pruning  # noqa: PLC0415 torch takes seconds to load
    from bedside.models.comparison import compare, inputs_to_judge  # noqa: PLC0415 likewise
    from bedside.models.compression import check_target, compress  # noqa: PLC0415 likewise
    from bedside.models.rows import read_rows  # noqa: PLC0415 likewise

    check_target(output)
    made = pruning.load_module(module, checkpoint)
    if tune is not None:
        # A wrong name should not cost a pruning first.
        pruning.named(tune)
    examples = pruning.examples_of(data, made, pruning.input_names(made, inputs or ()))

    def make(path: Path) -> None:
        pruning.prune(made, examples, ratio=ratio, multiple=multiple, keep=keep or ())
        if tune is not None:
            pruning.call(tune, made)
        pruning.export_examples(made, examples, path)

    with tempfile.TemporaryDirectory() as folder:
        original = Path(folder) / "original.onnx"
        pruning.export_examples(made, examples, original)
        rows = read_rows(data, inputs_to_judge(original, judged), labels)
        report = compress(
            original,
            output,
            make=make,
            measure=lambda path: compare(
                original, path, rows, output=judged, batches=(1, batch), runs=runs, threads=threads
            ),
            seen=lambda comparison: show(comparison_table(comparison, "pruned")),
            max_loss=max_loss,
            method={
                "kind": "structured pruning",
                "ratio": ratio,
                "multiple": multiple,
                "importance": "L2 norm of groups",
                "tuned": tune is not None,
                "kept": keep or [],
                "checkpoint_sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
            },
            packages=("numpy", "onnx", "onnxruntime-gpu", "torch", "torch-pruning"),
            data_sha256={"measured": rows.sha256},
        )
    say_written(output, report)


def say_written(output: Path, report: "Report") -> None:
    """Say what was written."""
    from bedside.models.compression import report_path  # noqa: PLC0415 as above

    say(f"written: {output}, SHA-256 {report.model.sha256}")
    say(f"report:  {report_path(output)}")


def comparison_table(comparison: "Comparison", smaller: str) -> Table:
    """Return the table of size, latency and accuracy; `smaller` names the second model."""
    table = Table(f"{comparison.rows} rows", "original", smaller, "change")
    if comparison.not_finite:
        table.add_row("rows not compared", f"{comparison.not_finite}", "", "original not finite")
    sizes = comparison.original_bytes, comparison.candidate_bytes
    table.add_row("size, bytes", f"{sizes[0]:,}", f"{sizes[1]:,}", _ratio(*sizes))
    for latency in comparison.latencies:
        pairs = {
            "median": (latency.original_median_us, latency.candidate_median_us),
            "p99": (latency.original_p99_us, latency.candidate_p99_us),
        }
        for name, (one, other) in pairs.items():
            table.add_row(
                f"latency at {latency.batch}, {name}, us",
                f"{one:.1f}",
                f"{other:.1f}",
                _ratio(one, other),
            )
    for name, title in (("accuracy", "accuracy"), ("auroc", "AUROC"), ("rmse", "RMSE"), ("mae", "MAE")):
        _add_figure(table, title, comparison.original, comparison.candidate, name)
    if comparison.agreement is not None:
        table.add_row("same first class", "", f"{comparison.agreement:.4f}", "")
    table.add_row("max |difference|", "", f"{comparison.max_abs_difference:.4g}", "")
    table.add_row("mean |difference|", "", f"{comparison.mean_abs_difference:.4g}", "")
    table.add_row("loss", "", f"{comparison.loss:.4g}", comparison.loss_is)
    return table


def _add_figure(table: Table, title: str, one: "Figures", other: "Figures", name: str) -> None:
    ours, theirs = getattr(one, name), getattr(other, name)
    if ours is not None and theirs is not None:
        table.add_row(title, f"{ours:.4f}", f"{theirs:.4f}", f"{theirs - ours:+.4f}")


def _ratio(one: float, other: float) -> str:
    return f"x {other / one:.2f}"
