"""Promise 2: a response is sent only after its record is durable; without the log nothing is served.

Seen to fail: with `Pipeline.serve` returning before `await self._record(exchange)` the unwritable disk
goes unnoticed and the answer is sent; with the write taken out of `WriteAheadLog.append` the killed
gateway forgets requests that it answered.
"""

import http.client
import resource
import threading

from support import call, records_of
from support.sites import ROW

from audit.records import Outcome, RequestRecord

UNLIMITED = resource.RLIM_INFINITY


def limit_files(gateway, size):
    """Make the kernel refuse writes past `size` bytes to the gateway's process, as a full disk does."""
    resource.prlimit(gateway.child.pid, resource.RLIMIT_FSIZE, (size, UNLIMITED))


def infer(gateway, **options):
    return call("POST", gateway.infer_url, token=gateway.token(), body=ROW, **options)


def test_an_answer_is_held_back_while_the_disk_cannot_be_written(gateway):
    assert infer(gateway).status == 200
    limit_files(gateway, 0)
    for _ in range(3):
        reply = infer(gateway)
        assert reply.status == 503
        assert reply.json["type"] == "urn:bedside:problem:log-unavailable"
        assert "outputs" not in reply.json
        assert "retry-after" in reply.headers
    assert call("GET", f"{gateway.url}/v2/health/ready").status == 503
    placement = {"model": "breast-cancer"}
    reply = call("POST", f"{gateway.url}/v1/placements", token=gateway.token(), body=placement)
    assert reply.status == 503
    limit_files(gateway, UNLIMITED)
    assert infer(gateway).status == 200
    gateway.stop()
    served = [r for r in records_of(gateway.site) if r.outcome is Outcome.SERVED]
    assert len(served) == 2


def test_every_answer_names_its_record(gateway):
    replies = [infer(gateway) for _ in range(5)]
    gateway.stop()
    records = records_of(gateway.site)
    for reply in replies:
        origin, _, index = reply.headers["bedside-record"].partition("#")
        assert origin == "clinic/gateway-1"
        assert isinstance(records[int(index)], RequestRecord)


def test_killing_the_gateway_under_load_loses_no_record_of_an_answered_request(gateway):
    answered: set[str] = set()
    stop = threading.Event()

    def load():
        while not stop.is_set():
            try:
                reply = infer(gateway)
            except (OSError, http.client.HTTPException):
                # The kill may come in the middle of an answer.
                return
            if reply.status == 200:
                answered.add(reply.headers["bedside-record"])

    seen = 0
    for _ in range(3):
        threads = [threading.Thread(target=load) for _ in range(8)]
        for thread in threads:
            thread.start()
        enough = threading.Event()
        while len(answered) < seen + 60:
            enough.wait(0.01)
        gateway.kill()
        stop.set()
        for thread in threads:
            thread.join()
        stop.clear()
        seen = len(answered)
        gateway.start()
    gateway.stop()
    records = records_of(gateway.site)
    indices = {int(record.partition("#")[2]) for record in answered}
    assert len(indices) == len(answered)
    for index in indices:
        record = records[index]
        assert isinstance(record, RequestRecord)
        assert record.outcome is Outcome.SERVED
