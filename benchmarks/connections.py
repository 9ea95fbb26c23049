"""Throughput from 1 to 256 connections, and memory at 1, 100 and 1,000 of them.

python benchmarks/connections.py [--model tabular] [--at 1 2 4 8 16 32 64 128 256]
"""

import rig
from load import measure


def main() -> None:
    parser = rig.parser(__doc__, seconds=2)
    parser.add_argument("--model", choices=list(rig.SHAPES), default="tabular")
    parser.add_argument("--at", nargs="+", type=int, default=[1, 2, 4, 8, 16, 32, 64, 128, 256])
    parser.add_argument("--memory", nargs="+", type=int, default=[1, 100, 1000])
    options = parser.parse_args()
    with rig.workplace(options.folder) as folder:
        site = rig.make_site(folder, [options.model])
        token = rig.token_of(site)
        with rig.gateway_of(site) as gateway:

            def run(connections: int, seconds: float, *, own: bool = False) -> dict[str, float]:
                return measure(
                    rig.url_of(site, options.model),
                    rig.body_of(options.model),
                    connections=connections,
                    seconds=seconds,
                    token=token,
                    cpu=rig.LOAD_CPU,
                    own=own,
                )

            print(rig.machine())
            print(f"{'connections':>12}{'requests/s':>12}{'p50 ms':>9}{'p99 ms':>9}{'refused/s':>11}")
            run(8, 2)
            rounds = [[run(at, options.seconds) for at in options.at] for _ in range(options.rounds)]
            for position, at in enumerate(options.at):
                cells = [
                    rig.median([turn[position][key] for turn in rounds])
                    for key in ("per_s", "p50_ms", "p99_ms", "refused_per_s")
                ]
                print(f"{at:>12}{cells[0]:>12,.0f}{cells[1]:>9.2f}{cells[2]:>9.2f}{cells[3]:>11,.0f}")
            print(f"{'connections':>12}{'memory, MB':>12}  after {options.seconds:.0f} s of load")
            for at in options.memory:
                run(at, options.seconds, own=True)
                print(f"{at:>12}{rig.memory_mb(gateway):>12.1f}")


if __name__ == "__main__":
    main()
