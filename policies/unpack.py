"""A bundle's packs as folders again, so that what is tested is what is signed.

Cases and invariants stand in packs. A draft carries all of its packs' files along, its approvers sign
them too, and whoever wants to know whether they hold unpacks them.
"""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from msgspec import structs

from policies.bundle import Bundle, assemble_bundle
from policies.errors import BundleInvalid
from policies.pack import PACKS
from policies.source import SourceFile

# What a pack has besides Cedar: its manifest, its data, its cases.
SOURCES: Final = (".toml", ".yaml")

# `<pack>/<file>`: nothing that could point out of the folder that it is unpacked into.
_PATH: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}/[A-Za-z0-9][A-Za-z0-9._-]{0,126}")


def gather(packs: Sequence[str], folder: Path, into: Path) -> None:
    """Copy packs of `folder`, and of those that ship where it has none of that name, to `into`.

    What ships and is not named comes along too: cases may say that they are about it.
    """
    for shipped in sorted(PACKS.iterdir()):
        if shipped.is_dir() and not (folder / shipped.name).is_dir():
            shutil.copytree(shipped, into / shipped.name)
    for name in packs:
        if (folder / name).is_dir() and not (into / name).exists():
            shutil.copytree(folder / name, into / name)


def with_sources(bundle: Bundle, root: Path) -> Bundle:
    """Return `bundle`, which was built of packs under `root`, with the rest of their files."""
    sources = tuple(
        SourceFile(path=f"{name}/{file.name}", text=file.read_text(encoding="utf-8"))
        for name in bundle.packs
        for file in sorted((root / name).iterdir())
        if file.suffix in SOURCES
    )
    return structs.replace(bundle, sources=sources)


def unpack(bundle: Bundle, into: Path) -> None:
    """Write the packs of `bundle` to `into`, and those that ship beside them where it has none.

    Raises:
        BundleInvalid: if its files are not all that its decisions come from: then testing them would
            say nothing about them.
    """
    files = (*bundle.schema, *bundle.policies, *bundle.invariants, *bundle.sources)
    for file in files:
        if not _PATH.fullmatch(file.path) or file.path.partition("/")[0] not in bundle.packs:
            raise BundleInvalid("a file of the bundle is in none of its packs")
        path = into / file.path
        path.parent.mkdir(exist_ok=True)
        if path.exists():
            raise BundleInvalid(f"{file.path} is in the bundle twice")
        path.write_text(file.text, encoding="utf-8")
    gather((), into, into)
    rebuilt = assemble_bundle(
        bundle.packs,
        name=bundle.name,
        version=bundle.version,
        models=bundle.models,
        residency=bundle.residency,
        root=into,
    )
    for part in ("schema", "policies", "groups", "invariants"):
        if getattr(rebuilt, part) != getattr(bundle, part):
            raise BundleInvalid(f"the bundle's {part} are not what its packs' files make")
