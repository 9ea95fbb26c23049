"""A site whose policy on de-identified data obliges to something."""

import asyncio
from contextlib import asynccontextmanager

from bedside.compose import open_gateway
from bedside.config import EXAMPLE_ACCESS, PolicyEntry
from bedside.listen import listen_tcp, url_of
from bedside.serving import serve_gateway
from bedside.site import Site

PERMIT = """@id("own-deidentified")
@title("A site's own rule about what is about nobody")
@cite("site rule")
@obligation("{}")
permit (principal, action == Action::"place", resource)
when {{ context.data_class == "deidentified" }};
"""
FACTS = {"Bedside-Data-Class": "deidentified"}


def obliged(config, obligation, packs):
    """Return a site with a pack of its own, whose one policy obliges to something."""
    (packs / "own").mkdir(parents=True)
    (packs / "own" / "pack.toml").write_text('name = "own"\nrequires = ["base"]\n')
    (packs / "own" / "own.cedar").write_text(PERMIT.format(obligation))
    policy = PolicyEntry(folder=packs, packs=("base", "hipaa", "own"))
    models = {"breast-cancer": EXAMPLE_ACCESS, "two": EXAMPLE_ACCESS}
    return Site(config.model_copy(update={"policy": policy, "models": models}))


@asynccontextmanager
async def served(site):
    """Serve a site in this process; yield its URL."""
    listener = listen_tcp("127.0.0.1", 0)
    stop, ready = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(serve_gateway(await open_gateway(site), listener, stop, ready.set))
    await ready.wait()
    try:
        yield url_of(listener)
    finally:
        stop.set()
        await task
