"""An LXD container on a veth that the node-agent has made (documentation.ubuntu.com/lxd, "NIC devices").

`nictype=routed` and `p2p` make a veth of their own, and fail where its host side is there already. `physical` moves
the other end of ours into the container, and back to the node when it stops. It knows no addresses, so these come
from cloud-init in the container.
"""

import yaml

from vmfabric.contract.names import InterfaceName
from vmfabric.node_agent.domain.guest_config import cloud_init_v2
from vmfabric.node_agent.domain.guest_config.interface import NAME, GuestInterface


def render(interface: GuestInterface, parent: InterfaceName) -> str:
    """What `lxc init` and `lxc config edit` read; `parent` is the guest's end of the veth, still on the node."""
    nic = {
        "type": "nic",
        "nictype": "physical",
        "parent": parent,
        "name": NAME,
        "hwaddr": interface.mac,
        "mtu": str(interface.mtu),
    }
    config = {"cloud-init.network-config": cloud_init_v2.render(interface)}
    return yaml.dump({"config": config, "devices": {NAME: nic}}, Dumper=_Dumper, sort_keys=False)


class _Dumper(yaml.CSafeDumper):
    """A text of several lines stands there as it is, for people to read."""


def _represent(dumper: yaml.CSafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent)
