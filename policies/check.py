"""Everything that can be said against packs before they decide anything, for their author to read."""

import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import cedarpy
import msgspec

from policies.bundle import Bundle, assemble_bundle, find_problems
from policies.errors import BundleInvalid
from policies.pack import DATA, PACKS, load_packs
from policies.proofs.formula import Unprovable
from policies.proofs.idle import idle_policies
from policies.source import SourceFile, position
from policies.testing import run_cases
from policies.validation import Finding

LINE_WIDTH: Final = 80
INDENT: Final = 2
EXAMPLE: Final = "US"

_COMMENT: Final = re.compile(r"#[^\n]*")
_QUOTED: Final = re.compile(r"'([^']+)'")


def check_packs(packs: Sequence[str], *, root: Path = PACKS) -> tuple[Finding, ...]:
    """Return what is wrong with the packs under `root`, taken together, in the order of the text.

    That is all that keeps a bundle of them from being built, Cedar files that are not laid out as
    `cedarpy.format_policies` does (80 columns, 2 spaces), and policies that do nothing
    (`policies.proofs.idle`). Those are looked for as if the site kept the data of one jurisdiction of
    each group at home, lest a policy about the site's table be taken for idle where the table is
    empty.
    """
    try:
        bundle = assemble_bundle(packs, name="check", version=1, models={}, root=root)
    except BundleInvalid as error:
        return (Finding(path="packs", line=0, message=str(error)),)
    problems = [_in_its_file(found, packs, root) for found in dict.fromkeys(find_problems(bundle))]
    findings = [
        *problems,
        *(() if problems else _idle(bundle, _superseded(packs, root))),
        *_layout((*bundle.policies, *bundle.invariants)),
    ]
    order = [file.path for file in (*bundle.schema, *bundle.policies, *bundle.invariants)]
    places = {path: place for place, path in enumerate(order)}
    return tuple(sorted(findings, key=lambda found: (places.get(found.path, -1), found.line)))


def untested_policies(packs: Sequence[str], *, root: Path = PACKS) -> tuple[Finding, ...]:
    """Return a finding for each policy that no case exercises.

    Raises:
        CasesInvalid: if a `tests.yaml` does not say what it should.
        BundleInvalid: if the packs do not validate.
    """
    return tuple(
        Finding(
            path=text.path,
            line=text.line,
            column=text.column,
            message=f"no case exercises {text.id}",
        )
        for text in run_cases(packs, root=root).untested
    )


def _in_its_file(found: Finding, packs: Sequence[str], root: Path) -> Finding:
    """Return a finding about merged data with the pack's file and place that it comes from."""
    names = _QUOTED.findall(found.message)
    for pack in packs if found.path == DATA else ():
        file = root / pack / DATA
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
        # A comment may name anything; blanks of the same length keep the places.
        text = _COMMENT.sub(lambda comment: " " * len(comment.group()), text)
        for name in names:
            match = re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text)
            if match:
                line, column = position(text, match.start())
                return Finding(path=f"{pack}/{DATA}", line=line, column=column, message=found.message)
    return found


def _superseded(packs: Sequence[str], root: Path) -> frozenset[str]:
    """Return the ids of the policies that some pack makes idle on purpose."""
    return frozenset(itertools.chain(*(pack.manifest.supersedes for pack in load_packs(packs, root))))


def _idle(bundle: Bundle, superseded: frozenset[str]) -> Iterator[Finding]:
    homes = (
        next((member for member in group.members if member not in bundle.groups), None)
        for group in bundle.groups.values()
    )
    table = {home: (home,) for home in homes if home} or {EXAMPLE: (EXAMPLE,)}
    try:
        yield from idle_policies(msgspec.structs.replace(bundle, residency=table), superseded)
    except (BundleInvalid, Unprovable) as error:
        yield Finding(path="packs", line=0, message=str(error))


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
