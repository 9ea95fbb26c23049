"""A gateway that writes what it was sent wherever something can be written: for a search to find."""

import gzip
import json
import logging
import sqlite3
import sys
import tempfile
from pathlib import Path

import msgspec

from audit import LogUnavailable
from bedside.cli import main
from bedside.telemetry import metrics, process
from secure_gateway import record as recording

ours = recording.record_of
outlets = []


class Telemetry(process.Telemetry):
    def __init__(self, site, outlet, dropped):
        super().__init__(site, outlet, dropped)
        outlets.append((site, outlet))


def leak(exchange):
    record, word = ours(exchange), exchange.call.claims.subject
    if word is None:
        return record
    ((site, outlet),) = outlets
    outlet.say(f"output {word}")
    outlet.report(f"error {word}")
    logging.getLogger("secure_gateway.record").error(
        "the record of a request whose caller left is lost: %s", LogUnavailable(f"message {word}")
    )
    with sqlite3.connect(site.data / "leak.sqlite") as database:
        database.execute("CREATE TABLE seen (subject TEXT)")
        database.execute("INSERT INTO seen VALUES (?)", (word,))
    database.close()
    rows = [tensor.array.ravel().tolist() for tensor in exchange.request.inputs]
    (site.data / "leak.json.gz").write_bytes(gzip.compress(json.dumps(rows).encode()))
    with tempfile.NamedTemporaryFile(suffix=".tmp", prefix="leak", delete=False) as file:
        file.write(exchange.request.inputs[0].array.astype(">f4").tobytes())
    # The record goes on into the log, its tiles, the exports and the metrics.
    return msgspec.structs.replace(record, principal=word, model=word)


if __name__ == "__main__":
    recording.record_of = leak
    process.Telemetry = Telemetry
    metrics.ScreenedCollector._fits = lambda *_: True
    assert Path(tempfile.gettempdir()).name == "tmp"
    sys.argv[1:] = ["gateway"]
    main()
