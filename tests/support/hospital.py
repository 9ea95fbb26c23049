"""A small hospital's months in records: something of everything that reports are about.

Made from a fixed seed, so that every test and every picture sees the same.
"""

import random
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import Log, NoteVerifier
from audit.records import (
    Action,
    AnyRecord,
    DeviceChange,
    DeviceRecord,
    Flag,
    JobRecord,
    JobState,
    Outcome,
    Place,
    PlaceTrait,
    PolicyOutcome,
    PolicyProblem,
    PolicyRecord,
    PolicyStep,
    Problem,
    ReleaseRecord,
    RequestRecord,
    ReviewRecord,
    ReviewVerdict,
    RollbackReason,
    encode,
)
from audit.source import LogSource

SITE = "st-anna"
START = datetime(2026, 9, 1, tzinfo=UTC)
US = Place("node:us-1", "US-CA", (PlaceTrait.ON_PREMISES,))
CLOUD = Place("node:lab-east", "US-VA", (PlaceTrait.BAA,))
EEA = Place("node:eea-1", "DE", (PlaceTrait.BAA,))
DIGESTS = {("sepsis", "1"): "1a" * 32, ("sepsis", "2"): "2b" * 32, ("retina", "4"): "3c" * 32}
SUBJECTS = [f"{n:02x}" * 32 for n in range(0x10, 0x60)]
SUBJECT = SUBJECTS[3]
STAFF = ["dr.adams", "dr.brandt", "dr.okafor", "n.silva", "billing-app"]


def request(random_: random.Random, time: datetime, **changes) -> RequestRecord:
    model, version = random_.choice(list(DIGESTS))
    on_cloud = random_.random() < 0.12
    place = CLOUD if on_cloud else US
    fields = {
        "time": time,
        "id": UUID(int=random_.getrandbits(128)),
        "action": Action.INFER,
        "outcome": Outcome.SERVED,
        "status": 200,
        "principal": changes.get("principal") or random_.choice(STAFF),
        "roles": ("clinician",),
        "subject": random_.choice(SUBJECTS),
        "model": model,
        "model_version": version,
        "model_digest": DIGESTS[model, version],
        "data_class": "phi",
        "jurisdiction": "US-CA",
        "purpose": "TREAT",
        "on_device": False,
        "carries_payload": True,
        "candidates": (US, CLOUD),
        "placement": place.placement,
        "policies": ("hipaa-treatment",),
        "obligations": ("no_cache", "round(outputs,3)") if on_cloud else (),
        "bundle": "cd" * 32,
        "rows": random_.randint(1, 16),
        "duration_us": random_.randint(900, 40_000),
    }
    if fields["principal"] == "billing-app":
        fields |= {"roles": ("billing",), "purpose": "HPAYMT", "data_class": "limited"}
        fields["policies"] = ("hipaa-payment-operations",)
    return RequestRecord(**fields | changes)


def requests(count: int = 300) -> list[RequestRecord]:
    """Return `count` ordinary requests over twelve weeks, and what a review should find."""
    random_ = random.Random(7)
    found = []
    for n in range(count):
        day = START + timedelta(days=84 * n / count)
        time = day.replace(hour=random_.randint(7, 18), minute=random_.randint(0, 59))
        changes = {}
        kind = random_.random()
        if kind < 0.05:
            changes = {"jurisdiction": "DE", "candidates": (US, EEA), "placement": EEA.placement}
            changes["policies"] = ("gdpr-treatment",)
        elif kind < 0.11:
            changes = refusal("gdpr-transfer", jurisdiction="DE")
        elif kind < 0.13:
            changes = {
                "outcome": Outcome.FAILED,
                "status": 503,
                "problem": Problem.NODE_UNREACHABLE,
                "attempted": (CLOUD.placement,),
                "placement": None,
            }
        elif kind < 0.17:
            device = f"device:phone-{random_.randint(1, 9)}"
            changes = {"action": Action.RECEIPT, "placement": device, "carries_payload": False}
            changes |= {"candidates": (Place(device, "US-CA", (PlaceTrait.HOLDS_SUBJECT,)),)}
            changes |= {"flags": (Flag.REPORTED_BY_DEVICE,), "policies": ("hipaa-own-device",)}
        elif kind < 0.2:
            changes = {"purpose": "HRESCH", "principal": "r.lind", "roles": ("researcher",)}
            changes |= {"placement": CLOUD.placement, "policies": ("hipaa-research-waiver",)}
        found.append(request(random_, time, **changes))
    night = START + timedelta(days=30, hours=2, minutes=40)
    for n, (who, hours) in enumerate((("dr.okafor", 0), ("dr.adams", 31), ("n.silva", 60))):
        time = night + timedelta(days=9 * n, hours=hours % 24)
        found.append(request(random_, time, principal=who, **EMERGENCY))
    burst = START + timedelta(days=50, hours=10)
    for n in range(17):
        time = burst + timedelta(seconds=20 * n)
        found.append(
            request(random_, time, principal="t.weber", **refusal("hipaa-treatment-roles"), roles=())
        )
    for n in range(64):
        time = START + timedelta(days=61, hours=9, minutes=2 * n)
        found.append(request(random_, time, principal="dr.brandt", subject=SUBJECTS[n % 70]))
    late = START + timedelta(days=70, hours=11)
    found.append(request(random_, late, principal="dr.adams", roles=("operator", "clinician")))
    found.append(
        request(
            random_,
            late,
            action=Action.LOAD,
            principal="e.ito",
            roles=("operator",),
            subject=None,
            data_class=None,
            jurisdiction=None,
            purpose=None,
            placement=None,
            candidates=(),
            changed=("node:us-1",),
            policies=("operators-load",),
        )
    )
    return sorted(found, key=lambda record: record.time)


EMERGENCY = {
    "purpose": "ETREAT",
    "emergency": True,
    "flags": (Flag.BREAK_GLASS,),
    "policies": ("hipaa-break-glass",),
    "obligations": ("review",),
}


def refusal(policy: str, **changes) -> dict:
    refused = {"outcome": Outcome.REFUSED, "status": 403, "problem": Problem.POLICY_REFUSED}
    return {**refused, "placement": None, "policies": (policy,), "obligations": (), **changes}


def coordination() -> list[AnyRecord]:
    """Return what a coordinator and its policy desk record."""
    times = iter(START + timedelta(days=4, hours=9 * n) for n in range(100))
    ids = iter(UUID(int=1000 + n) for n in range(100))

    def at(type_, **fields):
        return type_(time=next(times), id=next(ids), **fields)

    job = {"kind": "evaluate", "model": "sepsis", "model_version": "2", "principal": "e.ito"}
    job |= {"cohort_minimum": 10, "policies": ("federated-evaluation",)}
    records: list[AnyRecord] = [
        at(DeviceRecord, device="phone-1", change=DeviceChange.ENROLLED, principal="e.ito", subjects=1),
        *(
            at(
                ReleaseRecord,
                model=model,
                model_version=version,
                model_digest=digest,
                principal="e.ito",
            )
            for (model, version), digest in DIGESTS.items()
        ),
    ]
    for states, cohort in (
        (("queued", "running", "done"), 24),
        (("queued", "running", "failed"), 7),
        (("refused",), 0),
    ):
        first = at(JobRecord, state=JobState(states[0]), **job)
        records.append(first)
        for state in states[1:]:
            after = at(JobRecord, state=JobState(state), **job, cohort=cohort)
            records.append(msgspec.structs.replace(after, id=first.id))
    for version, (step, outcome, more) in enumerate(
        (
            (PolicyStep.DRAFT, "done", {"principal": "l.marsh"}),
            (PolicyStep.SIGN, "done", {"approvers": ("c.officer",)}),
            (PolicyStep.PUBLISH, "refused", {"problem": PolicyProblem.UNDER_SIGNED}),
            (PolicyStep.SIGN, "done", {"approvers": ("c.officer", "m.chief")}),
            (PolicyStep.PUBLISH, "done", {"approvers": ("c.officer", "m.chief")}),
            (PolicyStep.EXPLAIN, "done", {"principal": "l.marsh"}),
            (PolicyStep.DIFF, "done", {"principal": "l.marsh"}),
            (
                PolicyStep.ROLLBACK,
                "done",
                {"restores": 3, "reason": RollbackReason.WRONG_REFUSALS, "principal": "c.officer"},
            ),
        )
    ):
        number = 4 if version < 7 else 5
        policy = {"step": step, "outcome": PolicyOutcome(outcome), "version": number, **more}
        records.append(at(PolicyRecord, bundle="ef" * 32, **policy))
    return records


async def write_hospital(folder, count: int = 300):
    """Write the hospital's logs under `folder` and return their sources."""
    keys = {name: Ed25519PrivateKey.generate() for name in ("gateway-1", "coordinator", "reviews")}
    asked = requests(count)
    first = next(n for n, record in enumerate(asked) if Flag.BREAK_GLASS in record.flags)
    review = ReviewRecord(
        time=asked[first].time + timedelta(hours=9),
        id=UUID(int=5),
        reviewed_log=f"{SITE}/gateway-1",
        reviewed_number=first,
        verdict=ReviewVerdict.JUSTIFIED,
        principal="c.officer",
    )
    records = {"gateway-1": asked, "coordinator": coordination(), "reviews": [review]}
    sources = []
    for name, key in keys.items():
        log = await Log.open(folder / name, origin=f"{SITE}/{name}", key=key)
        waiting = [log.append(encode(record)) for record in records[name]]
        for one in waiting:
            await one
        await log.close()
        verifier = NoteVerifier(f"{SITE}/{name}", key.public_key())
        sources.append(LogSource(folder=folder / name, verifier=verifier))
    return sources
