"""Runs the export of a site's records to its SIEM, as a process of its own."""

import asyncio
import socket
from contextlib import suppress
from urllib.parse import urlsplit

from audit.export import (
    Destination,
    Exporter,
    SyslogFormat,
    SyslogSender,
    tls_context,
)
from audit.export.exporter import Sink
from audit.export.settings import OTLP, SYSLOG, DestinationSettings, OtlpSettings, SyslogSettings
from bedside.compose import resolve_secret
from bedside.errors import BedsideError
from bedside.serving import run_until_stopped
from bedside.site import Site
from bedside.telemetry import Telemetry


def run_export(site: Site, telemetry: Telemetry) -> None:
    """Export the records of all logs in the site's data folder until stopped.

    Raises:
        BedsideError: if nowhere to export to is configured, or something of it cannot be used.
    """

    async def work(stop: asyncio.Event) -> None:
        exporter = open_exporter(site)
        try:
            await exporter.start()
            names = " and ".join(site.config.export.names)
            telemetry.announce(f"export ready to {names}: {exporter.followed} logs")
            stopped = asyncio.create_task(stop.wait(), name="stop")
            running = asyncio.create_task(exporter.wait(), name="exporter runs")
            done, waiting = await asyncio.wait((stopped, running), return_when=asyncio.FIRST_COMPLETED)
            for task in waiting:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            for task in done:
                await task
        finally:
            await exporter.close()

    run_until_stopped(work)


def open_exporter(site: Site) -> Exporter:
    """Return what exports the site's logs, not started yet.

    Raises:
        BedsideError: if nowhere to export to is configured, or something of it cannot be used.
    """
    settings = site.config.export
    if not settings.names:
        raise BedsideError("nowhere to export to: set [export.syslog] address or [export.otlp] url")
    destinations = []
    try:
        if settings.syslog.address is not None:
            destinations.append(_destination(SYSLOG, settings.syslog, _syslog(settings.syslog)))
        if settings.otlp.url is not None:
            destinations.append(_destination(OTLP, settings.otlp, _otlp(settings.otlp)))
    except OSError as error:
        raise BedsideError(f"export: a certificate or key cannot be used: {error.strerror}") from error
    return Exporter(site.export_folder, site.log_sources, destinations)


def _destination(name: str, settings: DestinationSettings, sink: Sink) -> Destination:
    return Destination(
        name=name,
        sink=sink,
        history=settings.history,
        interval_s=settings.interval_s,
        retry_s=settings.retry_s,
        retry_max_s=settings.retry_max_s,
    )


def _syslog(settings: SyslogSettings) -> Sink:
    parts = urlsplit(settings.address or "")
    form = SyslogFormat(
        hostname=settings.hostname or socket.gethostname(), enterprise=settings.enterprise
    )
    sealed = parts.scheme == "tls"
    return SyslogSender(
        parts.hostname or "",
        parts.port or 0,
        form,
        tls=tls_context(settings.ca, settings.certificate, settings.key) if sealed else None,
        timeout_s=settings.timeout_s,
    )


def _otlp(settings: OtlpSettings) -> Sink:
    # Its protobufs take a while to load, which a site without it need not pay.
    from audit.export.otlp import OtlpLogs  # noqa: PLC0415

    return OtlpLogs(
        settings.url or "",
        token=None if settings.token is None else resolve_secret(settings.token),
        tls=None if settings.ca is None else tls_context(settings.ca),
        timeout_s=settings.timeout_s,
    )
