"""What proving costs on one core: `python benchmarks/prove.py`.

All packs with a table, and any model that a site could register. Cedar is asked afresh each time.
"""

import argparse
import time

from policies import build_bundle
from policies.proofs import combinations, prove

PACKS = ("base", "hipaa", "gdpr", "residency")
TABLE = {"US": ["US"], "US-NY": ["US-NY"], "FR": ["EEA"], "DE": ["DE"]}
REPEATS = 5


def main() -> None:
    argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0]).parse_args()
    bundle = build_bundle(PACKS, name="clinic", version=1, models={}, residency=TABLE)
    seconds = []
    for _ in range(REPEATS):
        begin = time.process_time()
        proofs = list(prove(bundle))
        seconds.append(time.process_time() - begin)
    total = combinations(bundle)
    held = sum(proof.holds for proof in proofs)
    print(f"{held} of {len(proofs)} invariants hold")
    print(f"{total:,} combinations, in {max(proof.classes for proof in proofs):,} classes")
    print(f"{min(seconds):.2f} s of one core, the least of {REPEATS}")


if __name__ == "__main__":
    main()
