"""A witness of others' logs: run by a second party, with a key and a memory of its own."""

import asyncio

from audit import NoteVerifier, VerificationError
from audit.cosignature import Cosigner, WitnessKey
from audit.settings import WitnessSettings
from audit.witness import Witness, WitnessMemory, serve_witness
from bedside.errors import BedsideError
from bedside.http import serve_http
from bedside.listen import listen_tcp, url_of
from bedside.serving import run_until_stopped
from bedside.site import Site
from bedside.telemetry import Telemetry

KEY = "witness"


def witness_settings(site: Site) -> WitnessSettings:
    """Return the `[witness]` settings.

    Raises:
        BedsideError: if there are none.
    """
    if site.config.witness is None:
        raise BedsideError("a witness needs its name and the logs it knows: [witness] in bedside.toml")
    return site.config.witness


def witness_key(site: Site) -> WitnessKey:
    """Return the key that verifies this witness's cosignatures; made with its memory on first use."""
    open_memory(site).close()
    return Cosigner(witness_settings(site).name, site.keys.signing_key(KEY)).key


def open_memory(site: Site) -> WitnessMemory:
    """Open what this witness remembers.

    Raises:
        WitnessUnavailable: if it is gone and the key is still there.
    """
    # The memory comes before the key, so that a key without a memory has lost it.
    return WitnessMemory(site.witness_memory(), create=not site.keys.holds(KEY))


def run_witness(site: Site, telemetry: Telemetry) -> None:
    """Serve `add-checkpoint` until it is stopped."""
    settings = witness_settings(site)
    try:
        logs = [NoteVerifier.parse(text) for text in settings.logs]
    except VerificationError as error:
        raise BedsideError(f"witness.logs: {error}") from error

    async def work(stop: asyncio.Event) -> None:
        listener = listen_tcp(settings.host, settings.port)
        memory = open_memory(site)
        try:
            cosigner = Cosigner(settings.name, site.keys.signing_key(KEY))
            app = serve_witness(Witness(cosigner, logs, memory))

            def ready() -> None:
                telemetry.announce(
                    f"witness of {len(logs)} logs ready at {url_of(listener)}: {cosigner.key}"
                )

            await serve_http(app, listener, stop, ready)
        finally:
            memory.close()

    run_until_stopped(work)
