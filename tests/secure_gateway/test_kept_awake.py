"""A gateway whose loop is only kept awake for the log is not taken for a busy one.

Seen to fail: with the time in which it is kept awake not left out.
"""

import asyncio
import time

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from support import make_site

from audit import Log
from bedside import serving
from bedside.compose import open_gateway
from bedside.listen import listen_tcp
from bedside.shifts import Shifts
from secure_gateway.record import Recorder


async def test_the_load_of_a_gateway_leaves_out_what_the_log_keeps_it_awake(tmp_path, monkeypatch):
    loads, idle_s = [], 0.0

    def watched(patience_s, *, refusing, load):
        loads.append(load)
        return Shifts(patience_s, refusing=refusing, load=load)

    monkeypatch.setattr(serving, "Shifts", watched)
    monkeypatch.setattr(Log, "kept_awake_s", property(lambda _: idle_s))
    stop, ready = asyncio.Event(), asyncio.Event()
    gateway = await open_gateway(make_site(tmp_path))
    running = asyncio.create_task(
        serving.serve_gateway(gateway, listen_tcp("127.0.0.1", 0), stop, ready.set)
    )
    await ready.wait()
    load = loads[0]()
    began = time.monotonic()
    while (idle_s := time.monotonic() - began) < 0.2:
        pass
    assert load.since() < 0.3
    load.close()
    stop.set()
    await running


async def test_a_log_says_how_long_it_kept_the_loop_awake(tmp_path, monkeypatch):
    monkeypatch.setattr("audit.awake.NOTHING_S", float("inf"))
    monkeypatch.setattr("audit.awake.AWAKE_S", float("inf"))
    log = await Log.open(tmp_path, origin="example.org/one", key=Ed25519PrivateKey.generate())
    recorder = Recorder(log)
    assert recorder.kept_awake_s == 0.0
    for n in range(20):
        await log.append(b"leaf %d" % n)
    kept, used = log._commit._kernel is not None, recorder.kept_awake_s
    await log.close()
    assert used > 0.0 if kept else used == 0.0
