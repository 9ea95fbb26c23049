"""What happens past capacity: an open loop at 1, 2 and 5 times the peak, beside closed loops in turn.

    python benchmarks/overload.py [--models tabular cnn wide] [--times 1 2 5]

The gateway is bound to one processor and the load to another. Before and behind each open loop the peak
is measured with closed loops, and what the open loop achieved is told in parts of the mean of both:
machines are noisy, and such neighbours see the same noise. In the open loop requests come at their rate
whatever the answers do, as far as `--connections` carry them. Told: how many were served (goodput), the
same by the gateway's processor time, how many were refused, the times of both from when the request was
written, and the gateway's memory before and after. Refused is who would wait for longer than
`target_wait_s` (`[gateway.admission]`): with its default a thousand connections are all served, with
`--target-wait-s 0.01` most are refused.
"""

import argparse
from typing import Any

import psutil
import rig
from load import measure

from bedside.site import Site
from secure_gateway import GatewaySettings
from secure_gateway.admission import AdmissionSettings


def main() -> None:
    parser = rig.parser(__doc__, seconds=4, rounds=1)
    parser.add_argument("--models", nargs="+", choices=list(rig.SHAPES), default=list(rig.SHAPES))
    parser.add_argument("--times", nargs="+", type=float, default=[1.0, 2.0, 5.0])
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--target-wait-s", type=float, default=AdmissionSettings().target_wait_s)
    options = parser.parse_args()
    print(rig.machine())
    for model in options.models:
        with rig.workplace(options.folder) as folder:
            admission = AdmissionSettings(target_wait_s=options.target_wait_s)
            settings = GatewaySettings(port=rig.free_port(), admission=admission)
            _measure(rig.make_site(folder, [model], gateway=settings), model, options)


def _measure(site: Site, model: str, options: argparse.Namespace) -> None:
    token = rig.token_of(site)
    url, body = rig.url_of(site, model), rig.body_of(model)
    print(
        f"{model:<9}{'peak/s':>8}{'goodput/s':>11}{'of peak':>9}{'by cpu':>8}{'p50 ms':>9}{'p99 ms':>9}"
        f"{'refused/s':>11}{'p50 ms':>9}{'p99 ms':>9}{'MB before':>11}{'after':>8}"
    )
    with rig.gateway_of(site) as gateway:
        process = psutil.Process(gateway.pid)

        def run(**load: Any) -> tuple[dict[str, Any], float]:
            began = sum(process.cpu_times()[:2])
            result = measure(url, body, token=token, cpu=rig.LOAD_CPU, **load)
            used = sum(process.cpu_times()[:2]) - began
            # The load's warm-up counts for the processor time, and not among the answers.
            share = result["elapsed_s"] / (result["elapsed_s"] + 0.5)
            return result, used * share / max(1.0, result["per_s"] * result["elapsed_s"])

        def peak() -> tuple[dict[str, Any], float]:
            return run(connections=64, seconds=options.seconds / 2, own=True)

        peak()
        before = peak()
        for times in options.times:
            for _ in range(options.rounds):
                memory = rig.memory_mb(gateway)
                rate = before[0]["per_s"] * times
                result, cpu = run(connections=options.connections, seconds=options.seconds, rate=rate)
                after = peak()
                best = (before[0]["per_s"] + after[0]["per_s"]) / 2
                best_cpu = (before[1] + after[1]) / 2
                refused = result.get("503", {})
                print(
                    f"{times:>7.1f} x{best:>8,.0f}{result['per_s']:>11,.0f}"
                    f"{result['per_s'] / best:>9.0%}{best_cpu / cpu:>8.0%}"
                    f"{result.get('200', {}).get('p50_sent_ms', 0):>9.1f}"
                    f"{result.get('200', {}).get('p99_sent_ms', 0):>9.1f}"
                    f"{result['refused_per_s']:>11,.0f}"
                    f"{refused.get('p50_sent_ms', 0):>9.1f}{refused.get('p99_sent_ms', 0):>9.1f}"
                    f"{memory:>11.1f}{rig.memory_mb(gateway):>8.1f}",
                    flush=True,
                )
                before = after


if __name__ == "__main__":
    main()
