"""What a node in a process of its own adds to a request: over TCP and over a Unix socket.

    python benchmarks/node_hop.py [--model tabular] [--connections 1]

Gateway and node have a processor each where the machine has more than two; on two, the node shares the
one of the load, and on one all share it.
"""

import contextlib

import rig
from load import measure

from secure_gateway import GatewaySettings
from secure_gateway.settings import NodeEntry


def main() -> None:
    parser = rig.parser(__doc__, seconds=2, rounds=5)
    parser.add_argument("--model", choices=list(rig.SHAPES), default="tabular")
    parser.add_argument("--connections", type=int, default=1)
    options = parser.parse_args()
    with rig.workplace(options.folder) as folder, contextlib.ExitStack() as stack:
        rig.write_models(folder / "models", [options.model])
        port = rig.free_port()
        places = {
            "embedded": None,
            "TCP": (f"127.0.0.1:{port}", f"http://127.0.0.1:{port}"),
            "Unix socket": (f"unix:{folder}/node.sock", f"unix:{folder}/node.sock"),
        }
        sites = {}
        for name, where in places.items():
            own = folder / name.replace(" ", "-")
            own.mkdir()
            (own / "models").symlink_to(folder / "models")
            nodes = () if where is None else (NodeEntry(id="far", jurisdiction="US-CA", url=where[1]),)
            settings = GatewaySettings(port=rig.free_port(), nodes=nodes)
            site = rig.make_site(own, [options.model], gateway=settings)
            if where is not None:
                cpu = rig._CPUS[1 % len(rig._CPUS)]  # noqa: SLF001 the one after the gateways'
                stack.enter_context(rig.node_of(site, where[0], cpu=cpu))
            stack.enter_context(rig.gateway_of(site))
            sites[name] = (site, rig.token_of(site))

        waits: dict[str, list[float]] = {name: [] for name in sites}
        rates: dict[str, list[float]] = {name: [] for name in sites}
        for turn in range(options.rounds + 1):
            for name, (site, token) in sites.items():
                result = measure(
                    rig.url_of(site, options.model),
                    rig.body_of(options.model),
                    connections=options.connections,
                    seconds=options.seconds if turn else 1,
                    token=token,
                    cpu=rig.LOAD_CPU,
                )
                if turn:
                    waits[name].append(result["p50_ms"])
                    rates[name].append(result["per_s"])
    print(rig.machine())
    print(f"{'node':<14}{'requests/s':>12}{'p50 ms':>9}{'added, us':>11}")
    base = waits["embedded"]
    for name in sites:
        added = rig.median([own - other for own, other in zip(waits[name], base, strict=True)])
        print(
            f"{name:<14}{rig.median(rates[name]):>12,.0f}{rig.median(waits[name]):>9.3f}"
            f"{added * 1e3:>11.0f}"
        )


if __name__ == "__main__":
    main()
