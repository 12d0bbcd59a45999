"""In which form a guest is told of its network."""

from enum import StrEnum

from vmfabric.contract.model import Part


class GuestConfigForm(StrEnum):
    """What the image of the guest, or whoever starts it, reads."""

    FACTS = "facts"
    """Nothing beside the plain facts of `guest`, which are always there."""
    CLOUD_INIT_V2 = "cloud-init-v2"
    """cloud-init's network configuration of version 2, for images with netplan."""
    CLOUD_INIT_V1 = "cloud-init-v1"
    """Its version 1, for images with ifupdown, NetworkManager or sysconfig."""
    LXD = "lxd"
    """Configuration and devices of an LXD container; only in clusters whose guests are LXD's."""


class GuestConfig(Part):
    """The network configuration of a guest as a file."""

    form: GuestConfigForm
    document: str
    """YAML. Of cloud-init: the file `network-config` of its data source NoCloud. Of LXD: what `lxc init` reads."""
