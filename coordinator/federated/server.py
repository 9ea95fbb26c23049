"""The Flower ServerApp: one round out, one round back, and only the sum is kept."""

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from coordinator.errors import JobError
from coordinator.federated.job import FederatedJob, Outcome
from coordinator.federated.statistics import Vector, add, check, length

JOB: Final = "job"
COUNTS: Final = "counts"
POLL_S: Final = 0.2

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the job whose signed document and result file the run's configuration names."""
    document = Path(str(context.run_config["job-file"])).read_bytes()
    result = Path(str(context.run_config["result-file"]))
    timeout_s = float(context.run_config["timeout-s"])
    outcome = run(grid, document, timeout_s)
    temporary = result.with_suffix(".tmp")
    temporary.write_bytes(msgspec.json.encode(outcome))
    temporary.replace(result)


def run(
    grid: Grid, document: bytes, timeout_s: float, clock: Callable[[], float] = time.monotonic
) -> Outcome:
    """Send a signed job to every connected device and return the sum of what comes back.

    Fewer than the job's minimum of valid replies give no sum at all.
    """
    payload = json.loads(document)["payload"]
    job = msgspec.json.decode(msgspec.convert(payload, bytes), type=FederatedJob)
    deadline = clock() + timeout_s
    nodes = list(grid.get_node_ids())
    while len(nodes) < job.cohort_minimum and clock() < deadline:
        time.sleep(POLL_S)
        nodes = list(grid.get_node_ids())
    if len(nodes) < job.cohort_minimum:
        return Outcome(cohort=0, problem="too few devices are connected")
    content = RecordDict({JOB: ConfigRecord({"document": document})})
    messages = [
        Message(content=content, message_type="query.evaluate", dst_node_id=node) for node in nodes
    ]
    replies = grid.send_and_receive(messages, timeout=max(deadline - clock(), 1.0))
    vectors = valid_replies(replies, job.bins)
    if len(vectors) < job.cohort_minimum:
        return Outcome(cohort=0, problem="too few devices answered with valid counts")
    total = add(vectors, job.bins)
    return Outcome(cohort=len(vectors), total=total.tolist())


def valid_replies(replies: Iterable[Message], bins: int) -> list[Vector]:
    """Return the count vectors of valid replies, at most one for each node."""
    found: dict[int, Vector] = {}
    for reply in replies:
        if reply.has_error():
            continue
        record = reply.content.array_records.get(COUNTS)
        array = None if record is None else record.get("vector")
        if array is None or array.shape != (length(bins),):
            continue
        try:
            vector = check(np.asarray(array.numpy()), bins)
        except (JobError, ValueError):
            continue
        found.setdefault(reply.metadata.src_node_id, vector)
    return list(found.values())
