"""The data centre without the services: what it does, and that nothing of it stays."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path

import pytest

from vmfabric.contract.dataplane import KERNEL_PROTOCOL, ROUTE_METRIC
from vmfabric.lab import control_plane, diagnosis, faults, frr, namespaces, processes, units
from vmfabric.lab import making as labs
from vmfabric.lab.answers import wait_until_answers
from vmfabric.lab.errors import LabError
from vmfabric.lab.hosts import answers_ping, bgp_routes, run_on
from vmfabric.lab.lab import Lab
from vmfabric.lab.programs import run
from vmfabric.lab.state import State
from vmfabric.lab.topology import Topology
from vmfabric.lab.units import Condition
from vmfabric.runtime.bus import open_client

pytestmark = pytest.mark.lab

GUEST4, GUEST6 = IPv4Address("198.51.100.7"), IPv6Address("2001:db8:100::7")
GATEWAY4, GATEWAY6 = "169.254.0.1", "fe80::1"

NODE = f"""
route-map OURS permit 10
 match metric {ROUTE_METRIC}
 set community 65000:100
exit
route-map NOTHING deny 10
exit
router bgp 65000
 no bgp default ipv4-unicast
 neighbor reflectors peer-group
 neighbor reflectors remote-as 65000
 neighbor reflectors timers connect 1
 neighbor 10.0.0.11 peer-group reflectors
 neighbor 10.0.0.12 peer-group reflectors
 address-family ipv4 unicast
  redistribute kernel route-map OURS
  neighbor reflectors activate
  neighbor reflectors next-hop-self
  neighbor reflectors route-map NOTHING in
 exit-address-family
 address-family ipv6 unicast
  redistribute kernel route-map OURS
  neighbor reflectors activate
  neighbor reflectors next-hop-self
  neighbor reflectors route-map NOTHING in
 exit-address-family
exit
"""


def eventually(condition: Callable[[], bool], what: str, seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


@pytest.fixture
def guest(data_centre: Lab) -> Iterator[str]:
    """A guest behind n1, wired by hand as the node-agent does it."""
    node, name = data_centre.namespace("n1"), f"{data_centre.topology.name}-byhand"
    namespaces.create(name)
    for command in (
        ("ip", "-n", node, "link", "add", "vm_net0", "type", "veth", "peer", "name", "eth0", "netns", name),
        ("ip", "-n", node, "addr", "add", f"{GATEWAY4}/32", "dev", "vm_net0"),
        ("ip", "-n", node, "addr", "add", f"{GATEWAY6}/64", "dev", "vm_net0", "nodad"),
        ("ip", "-n", node, "link", "set", "vm_net0", "up"),
        ("ip", "-n", name, "link", "set", "eth0", "up"),
        ("ip", "-n", name, "addr", "add", f"{GUEST4}/32", "dev", "eth0"),
        ("ip", "-n", name, "addr", "add", f"{GUEST6}/128", "dev", "eth0", "nodad"),
        ("ip", "-n", name, "route", "add", "0.0.0.0/0", "via", GATEWAY4, "dev", "eth0", "onlink"),
        ("ip", "-n", name, "route", "add", "::/0", "via", GATEWAY6, "dev", "eth0"),
    ):
        run(*command)
    yield name
    namespaces.remove([name])
    run("vtysh", "-N", node, "-c", "configure terminal", "-c", "no router bgp 65000")
    eventually(lambda: not bgp_routes(data_centre, "core"), "the core has forgotten the guest")


def announce_by_hand(lab: Lab) -> None:
    run("vtysh", "-N", lab.namespace("n1"), "-c", "configure terminal", *_each_line(NODE))
    mark = ("proto", str(KERNEL_PROTOCOL), "metric", str(ROUTE_METRIC))
    for address in (GUEST4, GUEST6):
        run("ip", "-n", lab.namespace("n1"), "route", "add", str(address), "dev", "vm_net0", *mark)


def _each_line(text: str) -> Iterator[str]:
    for line in text.strip().splitlines():
        yield from ("-c", line.strip())


def test_a_kernel_route_of_a_node_reaches_the_core_by_both_reflectors_and_its_guest_answers(
    data_centre: Lab, guest: str
) -> None:
    announce_by_hand(data_centre)
    prefixes = {ip_network(GUEST4): "10.0.0.1", ip_network(GUEST6): "fd00:fab::1"}
    eventually(lambda: bgp_routes(data_centre, "core") == prefixes, "both routes in the core's kernel, next hop n1")
    for reflector in data_centre.topology.reflectors:
        shown = frr.vtysh(data_centre.topology, reflector, f"show bgp ipv4 unicast {GUEST4}/32")
        assert "Community: 65000:100" in shown
    assert answers_ping(data_centre, "core", GUEST4)
    assert answers_ping(data_centre, "core", GUEST6)
    assert answers_ping(data_centre, "n2", GUEST4), "a node reaches the VMs of another by way of the core"

    run("ip", "-n", data_centre.namespace("n1"), "link", "delete", "vm_net0")
    eventually(lambda: not bgp_routes(data_centre, "core"), "no route left in the core's kernel")


def test_the_core_keeps_every_route_when_one_reflector_dies(data_centre: Lab, guest: str) -> None:
    announce_by_hand(data_centre)
    eventually(lambda: len(bgp_routes(data_centre, "core")) == 2, "both routes in the core's kernel")
    faults.kill_frr(data_centre, "rr1")
    eventually(
        lambda: frr.sessions_down(data_centre.topology, data_centre.router("core")) == ["10.0.0.11"],
        "the core has lost its session with rr1",
    )
    assert len(bgp_routes(data_centre, "core")) == 2
    assert answers_ping(data_centre, "core", GUEST4)
    faults.start_frr(data_centre, "rr1")
    eventually(
        lambda: not frr.sessions_down(data_centre.topology, data_centre.router("core")),
        "the core has its session with rr1 again",
    )


def test_operators_and_nodes_reach_the_same_bus_and_a_cut_node_does_not(data_centre: Lab) -> None:
    async def greet() -> bytes:
        async with await open_client(data_centre.nats_url) as client:
            heard = await client.subscribe("greeting")
            await client.publish("greeting", b"hello")
            return (await heard.next_msg(timeout=2)).data

    assert asyncio.run(greet()) == b"hello"
    control = data_centre.topology.management.control
    assert answers_ping(data_centre, "n1", control)
    faults.cut_management(data_centre, "n1")
    assert not answers_ping(data_centre, "n1", control)
    assert answers_ping(data_centre, "n1", data_centre.router("core").ipv4), "the fabric is another network"
    faults.restore_management(data_centre, "n1")
    eventually(lambda: answers_ping(data_centre, "n1", control), "n1 reaches the control host again")


def test_a_killed_bus_and_a_killed_database_come_back(data_centre: Lab) -> None:
    for service in ("nats", "postgres"):
        faults.kill_service(data_centre, service)
        with pytest.raises(LabError, match="does not run"):
            faults.kill_service(data_centre, service)
        faults.start_service(data_centre, service)
    assert control_plane.postgres_answers(data_centre.state)


def test_a_crashed_server_is_started_again_by_itself(data_centre: Lab) -> None:
    for server in data_centre.servers():
        before = units.health(data_centre, server).restarts
        faults.crash_service(data_centre, server.service)
        eventually(lambda: units.health(data_centre, server).restarts > before, f"{server.service} again")  # noqa: B023
        wait_until_answers(data_centre, server)


def test_what_a_killed_supervisor_held_is_taken_over_by_the_next(data_centre: Lab) -> None:
    os.kill(processes.pid(data_centre.state, data_centre.supervisor) or 0, signal.SIGKILL)
    supervisor = units.find(data_centre, "supervisor")
    eventually(lambda: units.health(data_centre, supervisor).condition is Condition.ENDED, "it has ended")
    units.start(data_centre, supervisor)
    wait_until_answers(data_centre, data_centre.program("door", "control"))
    assert {units.health(data_centre, unit).condition for unit in data_centre.servers()} == {Condition.RUNS}


@pytest.mark.parametrize("name", ["nats", "control/postgres", "rr1/bfdd", "rr2/bgpd", "core/zebra"])
def test_what_status_names_can_be_stopped_and_started_by_that_name(data_centre: Lab, name: str) -> None:
    unit = units.find(data_centre, name)
    units.stop(data_centre, unit)
    assert units.health(data_centre, unit).condition is not Condition.RUNS
    with pytest.raises(LabError, match="does not run"):
        units.stop(data_centre, unit)
    units.start(data_centre, unit)
    assert units.health(data_centre, unit).condition is Condition.RUNS
    with pytest.raises(LabError, match="runs already"):
        units.start(data_centre, unit)
    core = data_centre.router("core")
    eventually(lambda: not frr.sessions_down(data_centre.topology, core), "the core has its sessions again")


@pytest.mark.parametrize(
    ("name", "complaint"),
    [("bgpd", "on more than one host; say which: n1/bgpd, n2/bgpd"), ("n1/nats", "nothing in the lab is named")],
)
def test_a_name_that_is_not_one_units_is_refused_with_those_there_are(
    data_centre: Lab, name: str, complaint: str
) -> None:
    with pytest.raises(LabError, match=complaint):
        units.find(data_centre, name)


def test_a_lab_that_is_up_is_not_made_again(data_centre: Lab) -> None:
    with pytest.raises(LabError, match="is up already"):
        labs.up(data_centre.topology, data_centre.state, with_services=False)
    assert answers_ping(data_centre, "core", data_centre.topology.nodes[0].ipv4)


def test_a_failed_test_can_read_what_everybody_said(data_centre: Lab, tmp_path: Path) -> None:
    diagnosis.write(data_centre, tmp_path)
    assert "Established" not in (tmp_path / "n1-frr.txt").read_text()
    assert "10.0.0.254" in (tmp_path / "rr1-frr.txt").read_text()
    assert "fabric0" in (tmp_path / f"{data_centre.namespace('core')}.txt").read_text()
    assert "bgpd 8.4.4 starting" in (tmp_path / "logs" / "rr1-frr.log").read_text()


def traces(topology: Topology, state: State) -> list[str]:
    """Whatever is on this machine that has the lab's name, or its directory."""
    places = (namespaces.DIRECTORY, Path("/etc/frr"), Path("/var/run/frr"))
    left = [str(path) for place in places for path in place.glob(f"{topology.name}*")]
    left += [line for line in run("ip", "-brief", "link").splitlines() if topology.name in line]
    left += [line for line in run("ps", "-eo", "pid,args").splitlines() if str(state.directory) in line]
    left += [line for line in run("ps", "-eo", "pid,args").splitlines() if f" {topology.name}-" in line]
    return left + ([str(state.directory)] if state.directory.exists() else [])


def shared_memory(state: State) -> str:
    """Key and number of Postgres's System V segment, as /proc/sysvipc/shm spells them."""
    lock = control_plane.postgres_directory(state) / "data" / "postmaster.pid"
    return " ".join(lock.read_text().splitlines()[6].split())


def scratch() -> set[str]:
    """What FRR daemons that run, or were killed, keep below /var/tmp."""
    return {path.name for path in Path("/var/tmp/frr").glob("*")}


def segments() -> list[str]:
    return [" ".join(line.split()[:2]) for line in Path("/proc/sysvipc/shm").read_text().splitlines()]


def test_down_leaves_nothing(topology: Topology, state: State) -> None:
    lab = labs.up(topology, state, with_services=False)
    run_on(lab, "core", "true")
    memory = shared_memory(state)
    assert memory in segments()
    assert traces(topology, state)
    assert labs.down(state)
    assert traces(topology, state) == []
    assert memory not in segments()
    assert not labs.down(state), "there is nothing to take down any more"


def test_down_leaves_nothing_after_postgres_and_frr_were_killed(topology: Topology, state: State) -> None:
    before = scratch()
    lab = labs.up(topology, state, with_services=False)
    memory = shared_memory(state)
    faults.kill_service(lab, "postgres")
    faults.kill_frr(lab, "n1")
    os.kill(frr.pid(topology, lab.router("n2"), "bgpd") or 0, signal.SIGKILL)
    assert memory in segments()
    labs.down(state)
    assert traces(topology, state) == []
    assert scratch() <= before
    assert memory not in segments()


# Where a `lab up` may be when it is killed: seconds after its first trace. The whole of it takes three.
@pytest.mark.parametrize("seconds", [0.0, 0.1, 0.3, 0.7, 1.2, 1.8])
def test_down_leaves_nothing_of_a_lab_whose_making_was_killed(
    topology: Topology, state: State, seconds: float
) -> None:
    making = subprocess.Popen([sys.executable, "-c", _MAKE, topology.model_dump_json(), str(state.directory)])
    eventually(lambda: state.record() is not None, "the making has begun")
    # Not luck: whatever this moment catches, the outcome must be the same.
    time.sleep(seconds)
    making.send_signal(signal.SIGKILL)
    making.wait(5)
    labs.down(state)
    # A program that the killed process had just started may enter a namespace that is being removed, and ends there.
    eventually(lambda: traces(topology, state) == [], f"nothing left, but there is {traces(topology, state)}")


_MAKE = """
import sys
from pathlib import Path
from vmfabric.lab import making as lab
from vmfabric.lab.state import State
from vmfabric.lab.topology import Topology
lab.up(Topology.model_validate_json(sys.argv[1]), State(Path(sys.argv[2])), with_services=False)
"""


def test_a_half_made_lab_is_removed_and_made_anew(topology: Topology, state: State) -> None:
    making = subprocess.Popen([sys.executable, "-c", _MAKE, topology.model_dump_json(), str(state.directory)])
    eventually(lambda: namespaces.exists(topology.namespace("rr1")), "the making has come to the routers")
    making.send_signal(signal.SIGKILL)
    making.wait(5)
    lab = labs.up(topology, state, with_services=False)
    assert answers_ping(lab, "core", lab.topology.nodes[0].ipv4)


@pytest.fixture
def strangers(topology: Topology) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A namespace with a name like the lab's, a link in it, and a process in that."""
    name = f"{topology.name}-n1x"
    namespaces.create(name)
    run("ip", "-n", name, "link", "add", "fabric0", "type", "veth", "peer", "name", "vm_net0")
    process = subprocess.Popen(["ip", "netns", "exec", name, "sleep", "600"])
    yield name, process
    process.kill()
    process.wait(5)
    namespaces.remove([name])


def test_what_is_not_the_labs_survives_it(
    topology: Topology, state: State, strangers: tuple[str, subprocess.Popen[bytes]]
) -> None:
    name, process = strangers
    links = run("ip", "-n", name, "-brief", "link")
    host = run("ip", "rule"), run("nft", "list", "ruleset")
    labs.up(topology, state, with_services=False)
    labs.down(state)
    assert process.poll() is None
    assert run("ip", "-n", name, "-brief", "link") == links
    assert (run("ip", "rule"), run("nft", "list", "ruleset")) == host


def test_a_namespace_of_somebody_else_is_not_taken_over(topology: Topology, state: State) -> None:
    name = topology.namespace("rr1")
    namespaces.create(name)
    try:
        with pytest.raises(LabError, match=f"{name}, which somebody else has made already"):
            labs.up(topology, state, with_services=False)
        labs.down(state)
        assert namespaces.exists(name)
    finally:
        namespaces.remove([name])


def test_a_directory_with_somebody_elses_files_is_not_taken_over(topology: Topology, state: State) -> None:
    state.directory.mkdir()
    precious = state.directory / "thesis.txt"
    precious.write_text("mine")
    with pytest.raises(LabError, match="holds files that are no lab's"):
        labs.up(topology, state, with_services=False)
    assert not labs.down(state)
    assert precious.read_text() == "mine"


def test_two_commands_do_not_work_on_one_lab_at_once(topology: Topology, state: State) -> None:
    with state.locked(), pytest.raises(LabError, match="another command is making or removing the lab"):
        labs.up(topology, state, with_services=False)
    assert not namespaces.exists(topology.namespace("n1"))


def test_a_port_in_use_is_told_before_anything_is_made(topology: Topology, state: State) -> None:
    with control_plane.listen(topology), pytest.raises(LabError, match="something else listens there"):
        labs.up(topology, state, with_services=False)
    assert not namespaces.exists(topology.namespace("n1"))


def test_a_process_is_never_killed_by_the_name_of_the_machines_own_namespace(topology: Topology) -> None:
    name = f"{topology.name}-self"
    run("ip", "netns", "attach", name, str(os.getpid()))
    try:
        assert namespaces.processes([name]) == set()
    finally:
        run("ip", "netns", "delete", name)


def test_a_node_starts_with_an_empty_frr(topology: Topology) -> None:
    assert "router bgp" not in frr.configuration_of(topology, topology.nodes[0])
