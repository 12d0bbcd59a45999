"""A node in a network namespace, with the real agent process in it, and guests in namespaces of their own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from pyroute2 import netns

from vmfabric.contract.cluster import Gateway
from vmfabric.contract.desired import DesiredNode, DesiredVm
from vmfabric.node_agent.domain import naming
from vmfabric.runtime.snapshot import SavedNode, SavedVm, Snapshot, save

T = TypeVar("T")

PREFIX = f"vmf-na-{os.getpid()}"


def run(*command: str, check: bool = True) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(command)} said {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def inside(namespace: str, call: Callable[[], T]) -> T:
    """Run it in a thread that is in that namespace; sockets that it opens stay there."""

    def work() -> T:
        netns.setns(namespace)
        return call()

    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(work).result()


@dataclass
class Node:
    """A namespace and the agent in it, which has its desired state from its snapshot: there is no bus."""

    namespace: str
    directory: Path
    wanted: dict[str, DesiredVm] = field(default_factory=dict)
    value: DesiredNode | None = None
    process: subprocess.Popen[bytes] | None = None
    guests: list[str] = field(default_factory=list)
    resync_seconds: float = 3.0

    def want(self, *vms: DesiredVm) -> None:
        self.wanted |= {vm.vm: vm for vm in vms}
        saved = {name: SavedVm(revision=number, value=vm) for number, (name, vm) in enumerate(self.wanted.items(), 1)}
        node = None if self.value is None else SavedNode(revision=1, value=self.value)
        save(self.directory / "node-agent.desired.json", Snapshot(vms=saved, node=node))

    def want_node(self, value: DesiredNode) -> None:
        self.value = value
        self.want()

    def start(self) -> None:
        environment = {
            "VMFABRIC_NATS_URL": "nats://127.0.0.1:4222",
            "VMFABRIC_CLUSTER": "msk",
            "VMFABRIC_NODE": "n1",
            "VMFABRIC_BUCKET_SECONDS": "0",
            "VMFABRIC_RESYNC_SECONDS": str(self.resync_seconds),
            "VMFABRIC_STATE_DIR": str(self.directory),
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", self.namespace, sys.executable, "-m", "vmfabric.node_agent"],
                env={**os.environ, **environment},
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def restart_with(self, *vms: DesiredVm) -> None:
        self.kill()
        self.want(*vms)
        self.start()

    @property
    def log(self) -> Path:
        return self.directory / "log"

    def run(self, *command: str, check: bool = True) -> str:
        return run("ip", "netns", "exec", self.namespace, *command, check=check)

    def json(self, *command: str) -> Any:
        return json.loads(self.run(*command) or "[]")

    def links(self) -> dict[str, Any]:
        return {link["ifname"]: link for link in self.json("ip", "-d", "-j", "link")}

    def addresses(self, interface: str) -> set[str]:
        [found] = self.json("ip", "-j", "address", "show", "dev", interface)
        return {f"{it['local']}/{it['prefixlen']}" for it in found["addr_info"]}

    def routes(self) -> set[tuple[str, str]]:
        found = [
            route
            for family in ("-4", "-6")
            for route in self.json("ip", family, "-j", "route", "show", "proto", "86")
        ]
        return {(route["dst"], route["dev"]) for route in found}

    def counters(self) -> dict[str, int]:
        found = self.json("nft", "-j", "list", "counters")["nftables"]
        return {it["counter"]["name"]: it["counter"]["packets"] for it in found if "counter" in it}

    def is_wired(self, vm: DesiredVm) -> bool:
        name = naming.interface_name("msk", vm.vm)
        link = self.links().get(name)
        return (
            link is not None
            and "UP" in link["flags"]
            and link["address"] == Gateway().mac
            and self.addresses(name) == {"169.254.0.1/32", "fe80::1/64"}
            and {(str(address), name) for address in vm.addresses} <= self.routes()
        )

    def until_wired(self, *vms: DesiredVm) -> None:
        self.until(lambda: all(self.is_wired(vm) for vm in vms))

    def until(self, condition: Callable[[], bool], seconds: float = 10.0) -> float:
        """How long it took."""
        start = time.monotonic()
        while not condition():
            if time.monotonic() > start + seconds:
                raise AssertionError(f"not so within {seconds} s; the agent says:\n{self.log.read_text()[-4000:]}")
            time.sleep(0.05)
        return time.monotonic() - start

    def guest(self, vm: DesiredVm, *, configured: bool = True) -> str:
        """A namespace that holds the guest's end of the veth, configured as `iface.ready` says, or only up."""
        namespace = f"{self.namespace}-{vm.vm}"
        interface = naming.guest_interface_name("msk", vm.vm)
        run("ip", "netns", "add", namespace)
        self.guests.append(namespace)
        self.run("ip", "link", "set", interface, "netns", namespace)
        for command in (*_plugged_in(vm, interface), *(_configured(vm, interface) if configured else ())):
            run("ip", "-n", namespace, *command)
        return namespace

    def stop(self) -> None:
        self.kill()
        for namespace in (*self.guests, self.namespace):
            run("ip", "netns", "del", namespace)


def _plugged_in(vm: DesiredVm, interface: str) -> Iterator[Sequence[str]]:
    yield ("link", "set", "lo", "up")
    yield ("link", "set", interface, "address", vm.mac, "up")


def _configured(vm: DesiredVm, interface: str) -> Iterator[Sequence[str]]:
    for address in vm.addresses:
        yield ("address", "add", f"{address}/{address.max_prefixlen}", "dev", interface, "nodad")
    yield ("route", "add", "169.254.0.1", "dev", interface)
    yield ("route", "add", "default", "via", "169.254.0.1", "dev", interface, "src", str(vm.addresses[0]))
    yield ("-6", "route", "add", "default", "via", "fe80::1", "dev", interface)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(f"{PREFIX}-n1", tmp_path)
    run("ip", "netns", "add", made.namespace)
    made.run("ip", "link", "set", "lo", "up")
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def provider(node: Node) -> Callable[..., str]:
    """The other end of `uplink`: a router with 192.0.2.254 and 2001:db8:ff::254. Runs a command there."""
    name = f"{node.namespace}-provider"
    run("ip", "netns", "add", name)
    node.guests.append(name)
    run("ip", "-n", node.namespace, "link", "add", "uplink", "type", "veth", "peer", "name", "to-node")
    run("ip", "-n", node.namespace, "link", "set", "to-node", "netns", name)

    def there(*command: str, check: bool = True) -> str:
        return run("ip", "netns", "exec", name, *command, check=check)

    # A link that has just come up has no address to ask its neighbours from until it has asked for its own.
    there("sysctl", "-qw", "net.ipv6.conf.to-node.accept_dad=0")
    node.run("sysctl", "-qw", "net.ipv6.conf.uplink.accept_dad=0")
    for address in ("192.0.2.254/24", "2001:db8:ff::254/64"):
        there("ip", "address", "add", address, "dev", "to-node", *(["nodad"] if ":" in address else []))
    there("ip", "link", "set", "to-node", "up")
    node.run("ip", "link", "set", "uplink", "up")
    node.run("ip", "address", "add", "192.0.2.1/24", "dev", "uplink")
    node.run("ip", "address", "add", "2001:db8:ff::1/64", "dev", "uplink", "nodad")
    node.run("ip", "route", "add", "default", "via", "192.0.2.254", "proto", "static", "metric", "100")
    node.run("ip", "route", "add", "default", "via", "2001:db8:ff::254", "proto", "static")
    node.run("ip", "route", "add", "198.51.100.0/24", "via", "192.0.2.253", "src", "192.0.2.1")
    return there


@pytest.fixture(name="inside")
def inside_fixture() -> Callable[[str, Callable[[], Any]], Any]:
    return inside
