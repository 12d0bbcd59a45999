"""What is said and done when dnsmasq does not start. None is started here."""

from pathlib import Path

import pytest

from vmfabric.contract.desired import DesiredVm, Presence
from vmfabric.node_agent.dhcp import Dhcp
from vmfabric.node_agent.kernel.dnsmasq import Dnsmasq, NotStartedError
from vmfabric.node_agent.samples import a_vm
from vmfabric.node_agent.simulated import SimulatedKernel

from .test_agent import EVERYTHING, View


class Broken(Dnsmasq):
    starts = 0

    def start(self, configuration: str) -> None:  # noqa: ARG002  # as of the one that works
        self.starts += 1
        raise NotStartedError("failed to bind DHCP server socket: Address already in use")


@pytest.fixture
def server(tmp_path: Path) -> Broken:
    return Broken(tmp_path)


def a_dhcp(server: Dnsmasq) -> Dhcp:
    return Dhcp(cluster="msk", node="n1", server=server)


async def wanted(dhcp: Dhcp, *vms: DesiredVm, complete: bool = True) -> None:
    view = View(complete=complete)
    view.want(*vms)
    dhcp.want(view, SimulatedKernel().actual())
    await dhcp.step(EVERYTHING)


async def test_without_dnsmasq_each_guest_that_wants_dhcp_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dhcp = a_dhcp(Dnsmasq(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    await wanted(dhcp, a_vm(1, dhcp=True), a_vm(2), a_vm(3, dhcp=True, addresses=("2001:db8::3",)))
    [first] = dhcp.findings("vm1")
    assert not first.is_right
    assert "dnsmasq does not start: it is not installed; Debian has it in dnsmasq-base" in first.sentence
    assert not list(dhcp.findings("vm2"))
    assert {finding.vm for finding in dhcp.findings(None)} == {"vm1", "vm3"}
    await wanted(dhcp, a_vm(1))
    assert not list(dhcp.findings(None))


async def test_what_does_not_start_is_left_for_a_moment_but_another_configuration_is_tried_at_once(
    server: Broken,
) -> None:
    dhcp = a_dhcp(server)
    await wanted(dhcp, a_vm(1, dhcp=True))
    await wanted(dhcp, a_vm(1, dhcp=True))
    assert server.starts == 1
    again = await dhcp.step(EVERYTHING)
    assert again.keys
    assert 0 < again.after <= 1
    await wanted(dhcp, a_vm(1, dhcp=True), a_vm(2, dhcp=True))
    assert server.starts == 2


async def test_until_all_that_is_wanted_is_known_nothing_is_started_or_ended(server: Broken, tmp_path: Path) -> None:
    left = tmp_path / "node-agent.dnsmasq.conf"
    left.write_text("of the agent before")
    dhcp = a_dhcp(server)
    await wanted(dhcp, a_vm(1, dhcp=True), complete=False)
    await wanted(dhcp, a_vm(1, dhcp=True, presence=Presence.ABSENT), complete=False)
    assert not server.starts
    assert left.exists()


def test_a_process_that_has_got_the_number_of_ours_is_not_taken_for_it(tmp_path: Path) -> None:
    (tmp_path / "node-agent.dnsmasq.conf").write_text("port=0")
    (tmp_path / "node-agent.dnsmasq.pid").write_text("1")
    assert Dnsmasq(tmp_path).serves() is None
    Dnsmasq(tmp_path).remove()
    assert not list(tmp_path.iterdir())
