"""The agent with real NATS, from desired values to facts; the kernel is in memory."""

import asyncio
from pathlib import Path

from vmfabric.contract.desired import Presence
from vmfabric.contract.iface import IfaceReady, IfaceRemoved
from vmfabric.contract.streams import FACT_STREAM
from vmfabric.node_agent.agent import Agent
from vmfabric.node_agent.samples import A_MOMENT, a_vm
from vmfabric.node_agent.simulated import SimulatedKernel
from vmfabric.node_agent.uplink import UplinkMove
from vmfabric.reconcile.loop import Loop
from vmfabric.runtime.bus import Bus
from vmfabric.runtime.desired import put
from vmfabric.runtime.mirror import Mirror
from vmfabric.runtime.snapshot import Confirmations


async def test_desired_values_become_links_and_facts(nats_url: str, tmp_path: Path) -> None:
    kernel = SimulatedKernel()
    async with Bus(nats_url, name="node-agent") as bus, asyncio.timeout(20):
        await bus.connected()
        facts = await bus.jetstream.subscribe("iface.*.msk.vm1.n1", stream=FACT_STREAM.name, ordered_consumer=True)
        mirror = Mirror(
            bus,
            cluster="msk",
            node="n1",
            snapshot=tmp_path / "desired.json",
            on_change=lambda vm: loop.mark(vm) if vm else loop.mark_all(),
            bucket_seconds=2.0,
        )
        agent = Agent(
            cluster="msk",
            node="n1",
            view=mirror,
            kernel=kernel,
            publisher=bus,
            confirmations=Confirmations(tmp_path / "confirmed.json"),
            uplink=UplinkMove(kernel, tmp_path / "uplink.json", lambda: A_MOMENT),
        )
        loop = Loop(agent.step, resync=3)
        tasks = [asyncio.create_task(mirror.run()), asyncio.create_task(loop.run())]
        try:
            await bus.send([put(a_vm(1))])
            message = await facts.next_msg(timeout=10)
            assert message.subject == "iface.ready.msk.vm1.n1"
            assert IfaceReady.model_validate_json(message.data).interface == "vm1_net0"
            assert kernel.links["vm1_net0"].up
            # The trace is that of the request, from the first event to the last fact.
            assert (message.headers or {})["traceparent"].split("-")[1] == a_vm(1).trace_id
            await bus.send([put(a_vm(1, presence=Presence.ABSENT))])
            message = await facts.next_msg(timeout=10)
            assert message.subject == "iface.removed.msk.vm1.n1"
            assert IfaceRemoved.model_validate_json(message.data).generation == 1
            assert kernel.links == {}
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
