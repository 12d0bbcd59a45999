"""The one place where the node-agent is put together."""

import asyncio
from contextlib import AsyncExitStack

from vmfabric.contract.desired import Presence
from vmfabric.contract.explanation import IFACE_EXPLAIN, ExplainOnNode, Findings
from vmfabric.contract.names import VmName
from vmfabric.contract.retry import IFACE_RETRY, Retried, RetryOnNode
from vmfabric.node_agent.agent import Agent
from vmfabric.node_agent.dhcp import Dhcp
from vmfabric.node_agent.kernel.announcing import Announcing
from vmfabric.node_agent.kernel.arrivals import Arrivals
from vmfabric.node_agent.kernel.dnsmasq import Dnsmasq
from vmfabric.node_agent.kernel.moments import now
from vmfabric.node_agent.kernel.node import NodeKernel
from vmfabric.node_agent.kernel.watch import Watch
from vmfabric.node_agent.settings import NodeAgentSettings
from vmfabric.node_agent.uplink import UplinkMove
from vmfabric.reconcile.loop import Again, Dirty, Loop
from vmfabric.runtime import micro
from vmfabric.runtime.bus import Bus
from vmfabric.runtime.micro import Endpoint
from vmfabric.runtime.mirror import Mirror
from vmfabric.runtime.service import Service, run
from vmfabric.runtime.snapshot import Confirmations

NAME = "node-agent"
DESCRIPTION = "the network of one node's VMs in its kernel"

_THROTTLE_SECONDS = 0.02
_DHCP_THROTTLE_SECONDS = 0.2
"""Many guests that come at once are one restart of dnsmasq."""


def main() -> None:
    """Run until SIGTERM. It works on the network namespace that it is started in."""
    settings = NodeAgentSettings()

    async def compose(service: Service) -> None:
        service.tasks.create_task(_serve(service, settings))

    run(NAME, settings, compose)


async def _serve(service: Service, settings: NodeAgentSettings) -> None:
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        kernel = await stack.enter_async_context(NodeKernel())

        def changed(vm: VmName | None) -> None:
            if vm is None:
                loop.mark_all()
            else:
                loop.mark(vm)

        mirror = Mirror(
            service.bus,
            cluster=settings.cluster,
            node=settings.node,
            snapshot=settings.state_dir / "node-agent.desired.json",
            on_change=changed,
            bucket_seconds=settings.bucket_seconds,
        )
        confirmations = Confirmations(settings.state_dir / "node-agent.confirmed.json")
        announcing = Announcing(tasks, prepared=confirmations.last_said(Presence.PREPARED))
        agent = Agent(
            cluster=settings.cluster,
            node=settings.node,
            view=mirror,
            kernel=kernel,
            publisher=service.bus,
            confirmations=confirmations,
            uplink=UplinkMove(kernel, settings.state_dir / "node-agent.uplink.json", now),
        )
        arrivals = Arrivals(service.bus)
        dhcp = Dhcp(cluster=settings.cluster, node=settings.node, server=Dnsmasq(settings.state_dir))
        dhcp_loop = Loop(dhcp.step, throttle=_DHCP_THROTTLE_SECONDS, resync=settings.resync_seconds)

        async def step(dirty: Dirty) -> Again:
            again = await agent.step(dirty)
            wanted = [vm.value for vm in mirror.vms.values()]
            arrivals.expect(wanted)
            if mirror.complete and agent.seen is not None:
                announcing.notice(wanted, agent.seen.links.values())
            if dhcp.want(mirror, agent.seen):
                dhcp_loop.mark_all()
            return again

        async def explain(asked: ExplainOnNode) -> Findings:
            found = await agent.explain(asked)
            return Findings(findings=(*found.findings, *dhcp.findings(asked.vm)))

        async def retry(_asked: RetryOnNode) -> Retried:
            retried = agent.retry()
            loop.mark_all()
            return retried

        loop = Loop(step, throttle=_THROTTLE_SECONDS, resync=settings.resync_seconds)
        service.bus.on_reconnect(loop.mark_all)
        stack.enter_context(Watch(loop.mark_all))
        tasks.create_task(mirror.run())
        tasks.create_task(loop.run())
        tasks.create_task(dhcp_loop.run())
        tasks.create_task(arrivals.run())
        where = {"cluster": settings.cluster, "node": settings.node}
        endpoints = (
            Endpoint(IFACE_EXPLAIN.render(where), ExplainOnNode, explain, "what the kernel has of a VM"),
            Endpoint(IFACE_RETRY.render(where), RetryOnNode, retry, "what was given up is tried at once"),
        )
        tasks.create_task(micro.serve(service.bus, name=NAME, description=DESCRIPTION, endpoints=endpoints))
        tasks.create_task(_beat(service.bus, agent, settings.heartbeat_seconds))


async def _beat(bus: Bus, agent: Agent, seconds: float) -> None:
    while True:
        heartbeat = agent.heartbeat()
        if heartbeat is not None:
            await bus.publish_passing(heartbeat)
        await asyncio.sleep(seconds)
