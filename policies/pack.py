"""A policy pack: one folder with what a law, or a site, demands.

- `pack.toml`: name, title, the packs that it `requires`, the policies of others that it `supersedes`
- `*.cedar`: policies, each with @id, @title and @cite
- `invariants.cedar`: what no combination of facts may break (`policies.invariants`)
- `*.cedarschema`: parts of the schema (`base` brings all of it)
- `data.toml`: groups of jurisdictions, and numbers of federated jobs (`policies.numbers`), each with
  its source and the day on which it was checked
- `tests.yaml`: cases that `policies.testing` runs
- `README.md`: what it covers, and what it leaves open
"""

import datetime as dt
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta, Struct

from policies.errors import BundleInvalid
from policies.numbers import Numbers
from policies.source import SourceFile, place_of_word

PACKS: Final = Path(__file__).parent / "packs"
# Those that ship, each after what it requires.
SHIPPED: Final = ("base", "hipaa", "gdpr", "residency", "research")
INVARIANTS: Final = "invariants.cedar"
MANIFEST: Final = "pack.toml"
DATA: Final = "data.toml"

T = TypeVar("T")

_AT: Final = re.compile(r" \(at line (\d+), column (\d+)\)$")
_NAMED: Final = re.compile(r"`(?:\$[^`]*\.)?(\w[\w-]*)(?:\[[^`]*\])?`")
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


class Group(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Jurisdictions that some law treats alike: ISO 3166 codes, or names of other groups.

    `source` says where the list comes from, and `checked` on which day it was compared with it.
    """

    members: tuple[str, ...]
    source: Annotated[str, Meta(min_length=1)]
    checked: dt.date


class PackManifest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `pack.toml` says.

    `supersedes` names policies of other packs that this one leaves nothing to decide, on purpose.
    """

    name: str
    title: str = ""
    requires: tuple[str, ...] = ()
    supersedes: tuple[str, ...] = ()


class PackData(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `data.toml` says."""

    groups: dict[str, Group] = {}
    numbers: Numbers | None = None


class Pack(Struct, frozen=True, kw_only=True):
    """One pack, as read from its folder."""

    manifest: PackManifest
    schema: tuple[SourceFile, ...]
    policies: tuple[SourceFile, ...]
    invariants: tuple[SourceFile, ...]
    groups: Mapping[str, Group]
    numbers: Numbers | None


def load_pack(name: str, root: Path = PACKS) -> Pack:
    """Read the pack called `name` under `root`.

    Raises:
        BundleInvalid: if there is none, or its TOML files do not say what they should.
    """
    folder = root / name
    if not _NAME.fullmatch(name) or not (folder / MANIFEST).is_file():
        raise BundleInvalid(f"there is no policy pack named {name!r}")
    manifest = _read_toml(folder / MANIFEST, f"{name}/pack.toml", PackManifest)
    if manifest.name != name:
        raise BundleInvalid(f"{name}/pack.toml:1: a pack is named as its folder, {name!r}")
    data = PackData()
    if (folder / DATA).is_file():
        data = _read_toml(folder / DATA, f"{name}/{DATA}", PackData)
    cedar = _read_all(folder, "*.cedar")
    invariants = f"{name}/{INVARIANTS}"
    return Pack(
        manifest=manifest,
        schema=_read_all(folder, "*.cedarschema"),
        policies=tuple(file for file in cedar if file.path != invariants),
        invariants=tuple(file for file in cedar if file.path == invariants),
        groups=data.groups,
        numbers=data.numbers,
    )


def load_packs(names: Iterable[str], root: Path = PACKS) -> tuple[Pack, ...]:
    """Read several packs.

    Raises:
        BundleInvalid: likewise, or if one is named twice or requires another that is not among them.
    """
    packs = tuple(load_pack(name, root) for name in names)
    present = [pack.manifest.name for pack in packs]
    for pack in packs:
        name = pack.manifest.name
        if present.count(name) > 1:
            raise BundleInvalid(f"the pack {name!r} is named twice")
        for required in pack.manifest.requires:
            if required not in present:
                raise BundleInvalid(f"{name}/pack.toml: it requires the pack {required!r}; add it")
    return packs


def merge_groups(packs: Iterable[Pack]) -> dict[str, Group]:
    """Return the groups of all packs; one that two packs fill has the members of both."""
    merged: dict[str, Group] = {}
    for pack in packs:
        for name, group in pack.groups.items():
            earlier = merged.get(name)
            merged[name] = group if earlier is None else _joined(earlier, group)
    return dict(sorted(merged.items()))


def _joined(one: Group, other: Group) -> Group:
    return Group(
        members=tuple(dict.fromkeys((*one.members, *other.members))),
        source="; ".join(dict.fromkeys((one.source, other.source))),
        checked=min(one.checked, other.checked),
    )


def _read_all(folder: Path, pattern: str) -> tuple[SourceFile, ...]:
    return tuple(
        SourceFile(path=f"{folder.name}/{file.name}", text=file.read_text(encoding="utf-8"))
        for file in sorted(folder.glob(pattern))
    )


def _read_toml(file: Path, place: str, kind: type[T]) -> T:
    text = file.read_text(encoding="utf-8")
    try:
        return msgspec.convert(tomllib.loads(text), kind)
    except tomllib.TOMLDecodeError as error:
        where = _AT.search(str(error))
        at = f"{place}:{where.group(1)}:{where.group(2)}" if where else place
        raise BundleInvalid(f"{at}: not valid TOML: {_AT.sub('', str(error))}") from error
    except msgspec.ValidationError as error:
        # The innermost thing that the message names and the text holds is where the mistake is.
        named = [name for name in _NAMED.findall(str(error)) if name in text]
        line, column = place_of_word(text, named[-1]) if named else (1, 1)
        raise BundleInvalid(f"{place}:{line}:{column}: {error}") from error
