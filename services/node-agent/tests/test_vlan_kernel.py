"""VLANs on real kernels: on one that keeps them apart, and on this machine's if that does not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vmfabric.contract.desired import Switched
from vmfabric.lab import another_kernel
from vmfabric.node_agent.domain.naming import port_name
from vmfabric.node_agent.samples import a_switching_node, a_vm

pytestmark = pytest.mark.lab


@pytest.mark.timeout(400)  # the first run downloads the kernel
def test_vms_are_in_their_vlans_and_in_no_others() -> None:
    ended = another_kernel.run_tests(Path(__file__).parent / "vlans.py")
    print(ended.said)
    assert ended.status == 0


def test_a_kernel_that_keeps_no_vlans_apart_is_named_and_stops_no_other_vm(
    node: Any, provider: Callable[..., str]
) -> None:
    node.value = a_switching_node()
    node.want(*(a_vm(number, wiring=Switched(bridge="vmbr0", vlan=vlan)) for number, vlan in ((1, 7), (2, None))))
    node.start()
    node.until(lambda: port_name("msk", "vm2") in node.links())
    if "vlan_default_pvid" in node.links()["vmbr0"]["linkinfo"]["info_data"]:
        pytest.skip("this machine's kernel keeps VLANs apart")
    node.until(lambda: "built without CONFIG_BRIDGE_VLAN_FILTERING" in node.log.read_text())
    assert port_name("msk", "vm1") not in node.links()
