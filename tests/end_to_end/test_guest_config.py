"""A real guest configures itself with what `iface.ready` gives it, and with nothing else."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from outside.cluster import Cluster
from outside.real_guests import BOOT_SECONDS, left_to_qemu
from vmfabric.contract.cluster import Virtualization
from vmfabric.contract.guest_config import GuestConfigForm
from vmfabric.contract.iface import IfaceReady
from vmfabric.lab import cloud_init, guest_image, guest_programs, qemu
from vmfabric.lab.cloud_init import Renderer
from vmfabric.lab.guest_image import Entry, Image

pytestmark = pytest.mark.lab

Programs = Callable[[Path, Path], Iterator[Entry]]
"""What is in the guest's image, of the guest's `network-config`; in between is written to a directory."""


def with_ifupdown(config: Path, root: Path) -> Iterator[Entry]:
    cloud_init.of_debian().render(config, Renderer.ENI, root)
    return guest_programs.ifupdown((root / "etc/network/interfaces.d/50-cloud-init").read_text())


def with_netplan(config: Path, root: Path) -> Iterator[Entry]:
    cloud_init.of_debian().render(config, Renderer.NETPLAN, root)
    return guest_programs.networkd(cloud_init.netplan_for_networkd(root))


def image_of(given: IfaceReady, programs: Programs, directory: Path) -> Image:
    assert given.guest_config is not None
    config = directory / "network-config"
    config.write_text(given.guest_config.document)
    return guest_image.make(directory, programs(config, directory))


# The first run downloads the guest's kernel and programs.
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("form", "programs"),
    [(GuestConfigForm.CLOUD_INIT_V1, with_ifupdown), (GuestConfigForm.CLOUD_INIT_V2, with_netplan)],
)
async def test_a_guest_is_reached_by_what_cloud_init_and_its_own_programs_make_of_the_document(
    cluster: Cluster, tmp_path: Path, form: GuestConfigForm, programs: Programs
) -> None:
    await cluster.apply(virtualization=Virtualization.KVM)
    vm = f"told-{form[-2:]}"
    async with left_to_qemu(cluster, vm):
        wishes = [{"family": "ipv4"}, {"family": "ipv4"}, {"family": "ipv6"}]
        await cluster.request(vm, node="n1", memory_mb=qemu.MEMORY_MB, guest_config=form, addresses=wishes)
        ready = await cluster.ready(vm)
        given = await cluster.outside.wait_for(IfaceReady, vm=vm, node="n1")
        image = await asyncio.to_thread(image_of, given, programs, tmp_path)
        async with qemu.machine(cluster.lab, given, image):
            for allocated in ready.addresses:
                assert await cluster.answers(allocated.address, seconds=BOOT_SECONDS)
