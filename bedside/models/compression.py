"""Puts a smaller model in place, with a report beside it, if it loses no more than it may."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from bedside.errors import BedsideError
from bedside.models.comparison import Comparison
from bedside.models.placing import TargetTaken, place

Method = Mapping[str, Any]


class LossTooLarge(BedsideError):
    """Raised when a smaller model is refused for what it loses; nothing was written then."""


class MeasuredFile(Struct, frozen=True, kw_only=True):
    """A model file and its digest."""

    name: str
    sha256: str
    size_bytes: int


class Report(Struct, frozen=True, kw_only=True):
    """How a smaller model was made and how it compares: for a release to carry, without any data.

    `data_sha256` is that of the file whose rows were measured, by the file's role.
    """

    created: datetime
    method: Method
    versions: Mapping[str, str]
    original: MeasuredFile
    model: MeasuredFile
    data_sha256: Mapping[str, str]
    max_loss: float
    comparison: Comparison


def report_path(target: Path) -> Path:
    """Return where the report of the model at `target` is."""
    return target.with_suffix(".json")


def check_target(target: Path) -> None:
    """Refuse a target that cannot be written, before any work is done.

    Raises:
        BedsideError: if it exists, has another name than a model's, or its folder is missing.
    """
    if target.suffix != ".onnx":
        raise BedsideError("the model's name must end in .onnx")
    if not target.parent.is_dir():
        raise BedsideError(f"there is no folder {target.parent}")
    for path in (target, report_path(target)):
        # Also a link to nothing has the name.
        if os.path.lexists(path):
            raise TargetTaken(path)


def compress(
    original: Path,
    target: Path,
    *,
    make: Callable[[Path], None],
    measure: Callable[[Path], Comparison],
    seen: Callable[[Comparison], None],
    max_loss: float,
    method: Method,
    packages: Sequence[str],
    data_sha256: Mapping[str, str],
) -> Report:
    """Have a smaller model made and measured, and put it at `target` if its loss is small enough.

    `make` writes it to the path that it is given, `seen` is shown the comparison in any case. The model
    and its report appear whole or not at all, the model last.

    Raises:
        LossTooLarge: if it loses more than `max_loss`; nothing is left then.
        TargetTaken: if something got one of the two names meanwhile; it stays, and nothing is left.
    """
    check_target(target)
    with _folder_beside(target) as folder:
        made = Path(folder) / target.name
        make(made)
        comparison = measure(made)
        seen(comparison)
        # Written so that a loss that is not a number refuses, too.
        if not comparison.loss <= max_loss:
            raise LossTooLarge(
                f"not written: the loss is {comparison.loss:.4g} ({comparison.loss_is}), and at most "
                f"{max_loss:.4g} is allowed"
            )
        report = Report(
            created=datetime.now(UTC),
            method=method,
            versions={name: version(name) for name in ("bedside", *packages)},
            original=_measured(original),
            model=_measured(made),
            data_sha256=data_sha256,
            max_loss=max_loss,
            comparison=comparison,
        )
        document = made.with_suffix(".json")
        document.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2))
        for path in (document, made):
            _durable(path)
        place(document, report_path(target))
        try:
            place(made, target)
        except BaseException:
            # Also on Ctrl-C: a report without its model would be in the way of the next try.
            report_path(target).unlink()
            raise
        _durable(target.parent)
    return report


def _folder_beside(target: Path) -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(dir=target.parent, prefix=".compressing-")
    except OSError as error:
        raise BedsideError(
            f"the folder {target.parent} cannot be written to: {error.strerror}"
        ) from error


def _measured(path: Path) -> MeasuredFile:
    content = path.read_bytes()
    return MeasuredFile(
        name=path.name, sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content)
    )


def _durable(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
