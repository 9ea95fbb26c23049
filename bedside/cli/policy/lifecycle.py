"""`bedside policy draft | sign | publish | rollback | status | history | keygen`: a bundle's life."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.table import Table

from audit import AuditError
from bedside.bundles import SITE_KEY
from bedside.cli.options import ConfigOption, open_site, say, show
from bedside.errors import BedsideError
from bedside.keys import KeyFolder
from bedside.site import Site
from coordinator import PolicyRefused
from policies import (
    Approvers,
    PolicyError,
    RollbackReason,
    add_signature,
    draft_document,
    merged,
    read_draft,
    write_bundle,
)

T = TypeVar("T")

FileArgument = Annotated[Path, typer.Argument(help="the bundle's file")]


def keygen(
    name: Annotated[str, typer.Argument(help="the approver's name")],
    folder: Annotated[Path, typer.Option(help="where to leave the private key")] = Path(),
) -> None:
    """Make an approver's key, on the approver's own machine; print what the site must know of it."""
    if (folder / f"{name}.pem").exists():
        raise BedsideError(f"{folder / name}.pem is there already; a key is made once")
    key = KeyFolder(folder).signing_key(name)
    say(f"{folder / name}.pem is the private key: it stays with {name}. For bedside.toml:")
    say("[policy.approvers]")
    say(f'{name} = "{key.public_key().public_bytes_raw().hex()}"')


def draft(
    out: Annotated[Path, typer.Option(help="where to leave the draft")] = Path("draft.json"),
    config: ConfigOption = None,
) -> None:
    """Make an unsigned bundle of what bedside.toml says: packs, models, residency table."""
    site = open_site(config)
    desk = site.policy_desk()
    bundle = _carefully(
        lambda: site.bundles().drafted(desk.next_version(), datetime.now(UTC).replace(microsecond=0))
    )
    document = draft_document(bundle)
    _run(desk.draft(document))
    write_bundle(out, document)
    say(f"{out}: version {bundle.version} of {bundle.name}, digest {bundle.digest()}")
    say(_approval(site))


def withdraw(file: FileArgument, config: ConfigOption = None) -> None:
    """Let a draft that the site keeps wait no longer; the file stays."""
    site = open_site(config)
    digest = _carefully(lambda: read_draft(file.read_bytes())).digest()
    bundle = _run(site.policy_desk().withdraw(digest))
    say(f"version {bundle.version} is withdrawn, digest {digest}")


def sign(
    file: FileArgument,
    key: Annotated[
        Path | None, typer.Option(help="the approver's private key [default: the site's own]")
    ] = None,
    offline: Annotated[
        bool, typer.Option(help="only sign: this machine is not the site's, and keeps no record")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Approve a bundle: add a signature to its file."""
    site = open_site(config)
    if key is None and not site.bundles().embedded:
        raise BedsideError("name the approver's key with --key")
    folder, name = (site.keys, "policy") if key is None else (KeyFolder(key.parent), key.stem)
    if key is not None and not key.is_file():
        raise BedsideError(f"there is no key {key}; `bedside policy keygen` makes one")
    document = _carefully(lambda: add_signature(file.read_bytes(), folder.signing_key(name)))
    bundle = _carefully(lambda: read_draft(document))
    if offline:
        write_bundle(file, document)
        say(f"{file}: signed version {bundle.version} of {bundle.name}, digest {bundle.digest()}")
        return
    names = _run(site.policy_desk().sign(document))
    write_bundle(file, document)
    say(f"{file}: version {bundle.version}, signed by {', '.join(names)}; digest {bundle.digest()}")
    say(_approval(site))


def publish(
    files: Annotated[
        list[Path], typer.Argument(help="the bundle's file, or several that were signed apart")
    ],
    config: ConfigOption = None,
) -> None:
    """Put a signed bundle into force; gateways take it over within a second or so."""
    site = open_site(config)
    document = _carefully(lambda: merged([file.read_bytes() for file in files]))
    done = _run(site.policy_desk().publish(document))
    say(
        f"version {done.version} is in force, signed by {', '.join(done.approvers)}; "
        f"{done.examination.cases} cases passed, {done.examination.proved} invariants hold; "
        f"record {done.record}"
    )
    if site.bundles().embedded:
        say(_approval(site))


def rollback(
    version: Annotated[int, typer.Argument(help="the published version to bring back", min=1)],
    reason: Annotated[RollbackReason, typer.Option(help="why; it is recorded")],
    out: Annotated[Path, typer.Option(help="where to leave the draft")] = Path("rollback.json"),
    config: ConfigOption = None,
) -> None:
    """Draft what was published before as a higher version; sign and publish it like any other."""
    site = open_site(config)
    desk = site.policy_desk()
    document = _carefully(lambda: desk.rollback(version, reason))
    _run(desk.draft(document))
    write_bundle(out, document)
    bundle = read_draft(document)
    say(f"{out}: version {bundle.version} brings back version {version} ({reason.value})")
    say(_approval(site))


def status(config: ConfigOption = None) -> None:
    """Show what is published, who approves, and what each component of this machine decides by."""
    site = open_site(config)
    bundles, approvers = site.bundles(), site.bundles().approvers()
    say(_approval(site))
    table = Table("where", "version", "signed by", "digest")
    places = [("published", bundles.folder.bundle), ("shadow", bundles.folder.shadow)]
    places += [(f"in force: {name}", path) for name, path in bundles.folder.components()]
    places += [("draft", path) for path in sorted(bundles.folder.drafts.glob("*.json"))]
    for where, path in places:
        if path.is_file():
            table.add_row(where, *_row(approvers, path.read_bytes()))
    show(table)
    if not bundles.embedded and bundles.folder.bundle.is_file():
        _say_if_drifted(site)


def history(config: ConfigOption = None) -> None:
    """Show every step that was taken with the site's policies; its log is verified first."""
    site = open_site(config)
    table = Table("record", "time (UTC)", "step", "version", "approvers", "why", "digest")
    for index, step in enumerate(_carefully(site.policy_desk().ledger.read)):
        restored = f"back to {step.restores}: {step.reason}" if step.restores else ""
        refused = f"refused: {step.problem.value}" if step.problem else ""
        table.add_row(
            f"{site.config.site}/policy#{index}",
            f"{step.time:%Y-%m-%d %H:%M:%S}",
            step.step.value,
            str(step.version or ""),
            ", ".join(step.approvers),
            refused or restored,
            (step.bundle or "")[:12],
        )
    show(table)


def _say_if_drifted(site: Site) -> None:
    published = site.bundle()
    drafted = _carefully(lambda: site.bundles().drafted(published.version, published.created))
    parts = ("packs", "schema", "policies", "invariants", "groups", "numbers", "models", "residency")
    differ = [part for part in parts if getattr(drafted, part) != getattr(published, part)]
    if differ:
        say(f"bedside.toml or its packs differ from what is published: {', '.join(differ)}")


def _row(approvers: Approvers, document: bytes) -> tuple[str, str, str]:
    try:
        bundle = read_draft(document)
        return (
            str(bundle.version),
            ", ".join(approvers.names_on(document)) or "nobody",
            bundle.digest()[:12],
        )
    except PolicyError as error:
        return "?", "?", str(error)


def _approval(site: Site) -> str:
    if site.bundles().embedded:
        return (
            f"This site names no approvers: its one key ({SITE_KEY!r}) signs, and one signature is "
            "enough. See [policy.approvers]."
        )
    approvers = site.bundles().approvers()
    return f"{approvers.threshold} of {len(approvers.keys)} approvers must sign: " + ", ".join(
        sorted(approvers.keys)
    )


def _carefully(work: Callable[[], T]) -> T:
    try:
        return work()
    except (PolicyError, PolicyRefused, AuditError) as error:
        raise BedsideError(f"refused: {error}") from error


def _run(work: Coroutine[Any, Any, T]) -> T:
    return _carefully(lambda: asyncio.run(work))
