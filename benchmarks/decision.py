"""What a decision and a token check cost, in microseconds: `python benchmarks/decision.py`.

Each figure is the least of 9 means over a loop, on one core: what else runs there only adds. What is
said to be uncached comes from an engine or verifier that can remember one answer only and is asked
for two in turn.
"""

import argparse
import asyncio
import itertools
import time
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from policies import (
    ApiAction,
    Approvers,
    Caller,
    Candidate,
    DataClass,
    Engine,
    Facts,
    ModelAccess,
    PlacementKind,
    Purpose,
    Role,
    TokenIssuer,
    TokenVerifier,
    build_bundle,
    sign,
)
from secure_gateway.shadow import Shadow, difference

PACKS = ("base", "hipaa", "gdpr", "residency")
CLINICIAN = frozenset({Role.CLINICIAN})
CALLER = Caller(roles=CLINICIAN)
REPEATS = 9


def micros(call: Callable[[], object], loops: int) -> float:
    call()
    means = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        for _ in range(loops):
            call()
        means.append((time.perf_counter() - begin) / loops * 1e6)
    return min(means)


def node(name: str, jurisdiction: str) -> Candidate:
    return Candidate(placement=f"node:{name}", kind=PlacementKind.NODE, jurisdiction=jurisdiction)


def main() -> None:
    argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0]).parse_args()
    access = ModelAccess(roles=tuple(Role), purposes=tuple(Purpose))
    bundle = build_bundle(PACKS, name="clinic", version=1, models={"sepsis": access})
    cached, uncached = Engine(bundle), Engine(bundle, cached_decisions=1)
    german = Facts(roles=CLINICIAN, model="sepsis", jurisdiction="DE")
    limited = Facts(roles=CLINICIAN, model="sepsis", jurisdiction="DE", data_class=DataClass.LIMITED)
    facts = itertools.cycle((german, limited))
    one = (node("us", "US-CA"),)
    two = (*one, node("de", "DE"))
    ten = tuple(node(f"us-{n}", "US-CA") for n in range(10))

    key = Ed25519PrivateKey.generate()
    issuer = TokenIssuer(key, "clinic")
    pair = [
        issuer.issue(name, [Role.CLINICIAN], lifetime_s=3600).encode()
        for name in ("dr.adams", "dr.brown")
    ]
    tokens = itertools.cycle(pair)
    seen = TokenVerifier([key.public_key()], "clinic")
    unseen = TokenVerifier([key.public_key()], "clinic", cached_tokens=1)

    shadow = Shadow(Approvers(site="clinic", keys={"site": key.public_key()}, threshold=1))
    asyncio.run(shadow.offer(sign(bundle, [key])))
    decided = cached.decide(german, two)

    def beside() -> None:
        difference(decided, shadow.decide(german, two), None)

    rows = {
        "decision, cached, 2 candidates": (lambda: cached.decide(german, two), 20_000),
        "decision, uncached, 1 candidate": (lambda: uncached.decide(next(facts), one), 200),
        "decision, uncached, 2 candidates": (lambda: uncached.decide(next(facts), two), 200),
        "decision, uncached, 10 like nodes": (lambda: uncached.decide(next(facts), ten), 200),
        "candidate in the shadow, cached": (beside, 20_000),
        "API action, cached": (lambda: cached.authorize(CALLER, ApiAction.MODELS_READ), 20_000),
        "token, seen before": (lambda: seen.verify(pair[0]), 20_000),
        "token, not seen": (lambda: unseen.verify(next(tokens)), 300),
        "loading a bundle": (lambda: Engine(bundle), 3),
    }
    print(f"{len(cached.texts)} policies of {', '.join(PACKS)}")
    for name, (call, loops) in rows.items():
        print(f"{name:36}{micros(call, loops):10.2f} us")


if __name__ == "__main__":
    main()
