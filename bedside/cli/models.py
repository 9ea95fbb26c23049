"""`bedside models`: the releases of a site."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from bedside.cli.compress import prune, quantize
from bedside.cli.options import ConfigOption, open_site, say, show
from bedside.cli.stopping import stopped_cleanly
from bedside.errors import BedsideError
from coordinator import CoordinatorError

app = typer.Typer(help="Make models smaller; list, verify and publish releases.", no_args_is_help=True)
# Both work in a folder beside their target, which must not stay when they are stopped.
app.command("quantize")(stopped_cleanly()(quantize))
app.command("prune")(stopped_cleanly()(prune))


@app.command("list")
def list_models(config: ConfigOption = None) -> None:
    """List the site's releases; each is verified before it is shown."""
    site = open_site(config)
    table = Table("model", "version", "created", "inputs", "outputs", "differs from checkpoint by")
    try:
        for release in site.releases().list():
            table.add_row(
                release.model,
                release.version,
                f"{release.created:%Y-%m-%d %H:%M}",
                ", ".join(f"{t.name} {t.datatype}{list(t.shape)}" for t in release.inputs),
                ", ".join(f"{t.name} {t.datatype}{list(t.shape)}" for t in release.outputs),
                f"{release.equivalence.max_abs_difference:.2g}",
            )
    except CoordinatorError as error:
        raise BedsideError(str(error)) from error
    show(table)


@app.command("publish-example")
def publish_example(
    folder: Annotated[Path | None, typer.Option(help="where to leave checkpoint and artifact")] = None,
    version: Annotated[int, typer.Option(help="the release's version", min=1)] = 1,
    config: ConfigOption = None,
) -> None:
    """Train, export, check, sign and publish the breast-cancer example."""
    from bedside.example import split  # noqa: PLC0415 torch and scikit-learn take seconds to load
    from bedside.example.publish import publish_example as publish  # noqa: PLC0415 likewise

    site = open_site(config)
    try:
        published = publish(site, split(), folder or site.data / "training", version)
    except CoordinatorError as error:
        raise BedsideError(str(error)) from error
    release = published.release
    difference = release.equivalence.max_abs_difference
    say(
        f"{release.model} v{release.version} {'is published' if published.new else 'was there'}: "
        f"differs from its checkpoint by at most {difference:.2g} on {release.equivalence.rows} rows"
    )
