"""What gets through a guest's port in a second."""

from typing import Any

import pytest

from vmfabric.contract.bandwidth import Bandwidth
from vmfabric.contract.cluster import Virtualization
from vmfabric.lab.throughput import tcp_kbit, udp_kbit
from vmfabric.node_agent.samples import a_vm

pytestmark = pytest.mark.lab

IN, OUT = 50_000, 20_000
LEAST, MOST = 0.6, 1.15
"""Of the limit. TCP loses some of it to what is dropped."""
ATTEMPTS = 3
NODE, GUEST = "169.254.0.1", "10.0.0.1"


def test_a_guest_sends_and_receives_what_its_limits_allow(node: Any, subtests: pytest.Subtests) -> None:
    vm = a_vm(1, virtualization=Virtualization.LXD, bandwidth=Bandwidth(in_kbit=IN, out_kbit=OUT))
    node.want(vm)
    node.start()
    node.until_wired(vm)
    guest = node.guest(vm)
    for name, measure, limit, source, target, address in (
        ("TCP to the VM", tcp_kbit, IN, node.namespace, guest, GUEST),
        ("TCP from the VM", tcp_kbit, OUT, guest, node.namespace, NODE),
        ("UDP from the VM", udp_kbit, OUT, guest, node.namespace, NODE),
    ):
        with subtests.test(name):
            shares: list[float] = []
            # What else the machine does may hold a sender up; a limit that is wrong is so each time.
            while len(shares) < ATTEMPTS and not (shares and LEAST < shares[-1] < MOST):
                shares.append(measure(source, target, address, after=1.0, seconds=1.0) / limit)
            print(f"{name}: {', '.join(f'{share:.0%}' for share in shares)} of {limit} kbit/s")
            assert LEAST < shares[-1] < MOST, shares
    counters = node.counters()
    assert counters["dropped_limit_in"] > 0
    assert counters["dropped_limit_out"] > 0
