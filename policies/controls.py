"""The control matrix: what a law requires, what meets it, which test shows that, and what is open.

A pack's `controls.toml` lists requirements in the order of the law:

    [[requirement]]
    id = "45 CFR 164.312(b)"    what a policy's @cite names, or begins with
    title = "..."               what is required, in a few words
    met_by = "..."              what meets it besides policies, if anything
    tests = ["tests/...::..."]  the tests of that
    evidence = "..."            what a report shows of it
    open = "..."                what of it is not met

A citation that no pack lists is a requirement of its own. One that nothing meets is open.
"""

import re
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from policies.bundle import build_bundle
from policies.engine import Engine
from policies.errors import BundleInvalid
from policies.invariants import examine_invariants
from policies.pack import PACKS
from policies.testing import load_suites, run_suite
from policies.validation import parse_schema

FILE: Final = "controls.toml"
NOTHING_MEETS_IT: Final = "nothing meets it"

_ARTICLE: Final = re.compile(r"(Art\.|Recital) ")


class Requirement(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One requirement as a pack lists it."""

    id: str
    title: str = ""
    met_by: str = ""
    tests: tuple[str, ...] = ()
    evidence: str = ""
    open: str = ""


class Control(Struct, frozen=True, kw_only=True):
    """One requirement with what meets it.

    `policies` cite it; `cases` has, for each of them that a case exercises, one such; `invariants` cite
    it and are proved.
    """

    requirement: Requirement
    policies: tuple[str, ...]
    cases: tuple[str, ...]
    invariants: tuple[str, ...]

    @property
    def open(self) -> str:
        """What is not met, or nothing."""
        if self.requirement.open:
            return self.requirement.open
        return "" if self.policies or self.requirement.met_by else NOTHING_MEETS_IT


class _Listed(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    requirement: tuple[Requirement, ...] = ()


def citations(text: str) -> tuple[str, ...]:
    """Return the requirements that an @cite names: "GDPR Art. 44, Art. 45(1)" names two."""
    found: list[str] = []
    for part in filter(None, (part.strip() for part in re.split("[;,]", text))):
        law = found[-1].partition(" Art. ")[0] if found and _ARTICLE.match(part) else ""
        found.append(f"{law} {part}".strip())
    return tuple(found)


def controls(packs: Sequence[str], *, root: Path = PACKS) -> tuple[Control, ...]:
    """Return the matrix of the packs under `root`: what they list, then what is cited besides.

    Raises:
        BundleInvalid: if the packs do not validate, or a `controls.toml` does not say what it should.
        CasesInvalid: if a `tests.yaml` does not.
    """
    listed = [entry for pack in packs for entry in _read(root / pack / FILE, pack)]
    bundle = build_bundle(packs, name="controls", version=1, models={}, root=root)
    texts = Engine(bundle).texts
    cases: dict[str, str] = {}
    for suite in load_suites(packs, root=root):
        for result, decisive in run_suite(suite, Engine(suite.bundle)):
            for name in decisive:
                cases.setdefault(name, f"{result.pack}: {result.name}")
    schema, _ = parse_schema(bundle.schema)
    invariants, _ = examine_invariants(bundle.invariants, schema, bundle.groups)
    names = [entry.id for entry in listed]
    cited = {text.citation for text in texts} | {each.citation for each in invariants}
    missing = {name for text in cited for name in citations(text) if _covering(name, names) is None}
    listed += [Requirement(id=name) for name in sorted(missing)]
    names = [entry.id for entry in listed]

    def concern(citation: str, requirement: str) -> bool:
        return requirement in {_covering(name, names) for name in citations(citation)}

    matrix = []
    for entry in listed:
        own = [text.id for text in texts if concern(text.citation, entry.id)]
        matrix.append(
            Control(
                requirement=entry,
                policies=tuple(own),
                cases=tuple(dict.fromkeys(cases[name] for name in own if name in cases)),
                invariants=tuple(each.id for each in invariants if concern(each.citation, entry.id)),
            )
        )
    return tuple(matrix)


def as_page(matrix: Iterable[Control]) -> str:
    """Return the matrix as a page in Markdown."""
    matrix = tuple(matrix)
    return "\n".join([*_HEAD, *map(_row, matrix), "", *_open(matrix), ""])


_HEAD: Final = (
    "# Control matrix",
    "",
    "What the law requires, which policies or which code meet it, and what shows that. A policy stands",
    "with the requirement that its `@cite` names. `bedside policy controls --all` writes this page",
    "from the packs that ship; without `--all` it is about the packs that a site uses, its own too. A",
    "test compares the page, and looks for each test that it names. It is no legal advice, and no",
    "certificate: whether a site complies depends on what it does besides.",
    "",
    "Each record of a request names the policies that decided it and their citations, so a report",
    "shows for each policy when it was applied; the last column says what else shows it.",
    "",
    "| requirement | policies | met besides by | shown by | evidence in reports |",
    "|---|---|---|---|---|",
)


def _row(control: Control) -> str:
    entry = control.requirement
    shown = [f"case *{name}*" for name in control.cases]
    shown += [f"proof of `{name}`" for name in control.invariants]
    shown += [f"`{name}`" for name in entry.tests]
    evidence = entry.evidence or ("policies and citations of records" if control.policies else "")
    name = f"{entry.id}: {entry.title}" if entry.title else entry.id
    besides = "; ".join(
        filter(None, (entry.met_by, f"**open:** {control.open}" if control.open else ""))
    )
    cells = (
        name,
        ", ".join(f"`{each}`" for each in control.policies),
        besides,
        "; ".join(shown),
        evidence,
    )
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _open(matrix: Sequence[Control]) -> Iterator[str]:
    yield "## Open"
    yield ""
    for control in matrix:
        if control.open:
            entry = control.requirement
            yield f"- {entry.id}{f' ({entry.title})' if entry.title else ''}: {control.open}"


def _covering(name: str, requirements: Iterable[str]) -> str | None:
    """Return the narrowest of the requirements that `name` is, or is a part of."""
    found = [each for each in requirements if name == each or name.startswith(f"{each}(")]
    return max(found, key=len, default=None)


def _read(file: Path, pack: str) -> tuple[Requirement, ...]:
    if not file.is_file():
        return ()
    try:
        return msgspec.convert(tomllib.loads(file.read_text(encoding="utf-8")), _Listed).requirement
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise BundleInvalid(f"{pack}/{FILE}: {error}") from error
