"""Whether memory grows with requests: the gateway's, after each of several loads one behind the other.

    python benchmarks/memory.py [--connections 64] [--rate 30000] [--rounds 14]

Without `--rate` every connection asks again once it was answered; with it requests come at their rate
whatever the answers do, which past the peak is an overload.
"""

import rig
from load import measure

from secure_gateway import GatewaySettings
from secure_gateway.admission import AdmissionSettings


def main() -> None:
    parser = rig.parser(__doc__, seconds=4, rounds=14)
    parser.add_argument("--model", choices=list(rig.SHAPES), default="tabular")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--rate", type=float, help="requests a second, of all connections together")
    options = parser.parse_args()
    print(rig.machine())
    with rig.workplace(options.folder) as folder:
        admission = AdmissionSettings(target_wait_s=0.05)
        settings = GatewaySettings(port=rig.free_port(), admission=admission)
        site = rig.make_site(folder, [options.model], gateway=settings)
        with rig.gateway_of(site) as gateway:
            print(f"{'load':>5}{'answered in all':>17}{'refused/s':>11}{'MiB':>8}")
            answered = 0.0
            for load in range(1, options.rounds + 1):
                result = measure(
                    rig.url_of(site, options.model),
                    rig.body_of(options.model),
                    connections=options.connections,
                    seconds=options.seconds,
                    token=rig.token_of(site),
                    cpu=rig.LOAD_CPU,
                    rate=options.rate,
                    own=True,
                )
                answered += result["per_s"] * result["elapsed_s"]
                print(
                    f"{load:>5}{answered:>17,.0f}{result['refused_per_s']:>11,.0f}"
                    f"{rig.memory_mb(gateway) * 1e6 / (1 << 20):>8.1f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
