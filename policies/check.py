"""Everything that can be said against packs before they decide anything, for their author to read."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import cedarpy

from policies.bundle import assemble_bundle, find_problems
from policies.errors import BundleInvalid
from policies.pack import PACKS
from policies.source import SourceFile
from policies.validation import Finding

LINE_WIDTH: Final = 80
INDENT: Final = 2


def check_packs(packs: Sequence[str], *, root: Path = PACKS) -> tuple[Finding, ...]:
    """Return what is wrong with the packs under `root`, taken together, in the order of the text.

    That is all that keeps a bundle of them from being built, and Cedar files that are not laid out
    as `cedarpy.format_policies` does (80 columns, 2 spaces).
    """
    try:
        bundle = assemble_bundle(packs, name="check", version=1, models={}, root=root)
    except BundleInvalid as error:
        return (Finding(path="packs", line=0, message=str(error)),)
    findings = [*find_problems(bundle), *_layout(bundle.policies)]
    order = [file.path for file in (*bundle.schema, *bundle.policies)]
    places = {path: place for place, path in enumerate(order)}
    return tuple(sorted(findings, key=lambda found: (places.get(found.path, -1), found.line)))


def _layout(files: Sequence[SourceFile]) -> Iterator[Finding]:
    for file in files:
        try:
            laid_out = cedarpy.format_policies(file.text, LINE_WIDTH, INDENT)
        except ValueError:
            continue  # it does not parse, which `find_problems` says with its line
        if laid_out != file.text:
            lines = zip(file.text.splitlines(), laid_out.splitlines(), strict=False)
            same = next((n for n, (own, other) in enumerate(lines) if own != other), None)
            line = file.text.count("\n") + 1 if same is None else same + 1
            message = f"not laid out as `format_policies` does ({LINE_WIDTH} columns)"
            yield Finding(path=file.path, line=line, message=message)
