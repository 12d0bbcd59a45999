"""`./vmfabric chaos --seed 1 --minutes 20`."""

import argparse
import asyncio
import sys

from chaos.run import Report, run
from outside.cluster import Cluster
from vmfabric.lab import making as labs
from vmfabric.lab.client import connect
from vmfabric.lab.lab import Lab
from vmfabric.lab.testing import own_state, own_topology


def main() -> int:
    """1 when something was wrong."""
    parser = argparse.ArgumentParser(prog="./vmfabric chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--nats", type=int, choices=(1, 3), default=3, help="nats-servers; three are a cluster")
    parser.add_argument("--control", type=int, choices=(1, 2), default=2, help="processes of scheduler and ipam")
    options = parser.parse_args()
    own = {"nats": options.nats, "control": options.control, "settable_clocks": True}
    topology = own_topology("c").model_copy(update=own)
    with own_state() as state:
        report = asyncio.run(_in_lab(labs.up(topology, state), options.seed, options.minutes * 60))
    sys.stdout.write(f"\n{summary(report)}\n")
    return int(bool(report.wrong))


async def _in_lab(lab: Lab, seed: int, seconds: float) -> Report:
    async with connect(lab.nats_url) as outside:
        cluster = Cluster(lab, outside)
        await cluster.apply()
        await cluster.settled()
        return await run(cluster, seed=seed, seconds=seconds)


def summary(report: Report) -> str:
    """For a person."""
    sent = sum(timeline.sent for timeline in report.timelines)
    lost = sum(1 for timeline in report.timelines for _ in timeline.lost())
    asked = ", ".join(f"{times} x {subject}" for subject, times in sorted(report.asked.items()))
    twice = sum(len(it.kinds) > 1 for it in report.struck)
    count = len(report.struck)
    lines = [
        f"seed {report.seed}: struck {count} times, {twice} times by two at once; each has shown its hit",
        f"asked: {asked}",
        f"pinged: {sent} packets, {lost} lost, of them without a reason {len(report.lost_without_a_reason())}",
        f"history: {report.facts} facts of who has which address",
    ]
    return "\n".join([*lines, *(f"WRONG: {sentence}" for sentence in report.wrong)])


if __name__ == "__main__":
    raise SystemExit(main())
