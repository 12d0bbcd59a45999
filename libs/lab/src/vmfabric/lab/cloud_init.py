"""What a guest's cloud-init and netplan make of its network configuration: Debian's programs, at their real work."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from vmfabric.lab import debian
from vmfabric.lab.programs import run


class Renderer(StrEnum):
    """What cloud-init writes configuration for."""

    ENI = "eni"
    """ifupdown, `/etc/network/interfaces`."""
    NETPLAN = "netplan"
    NETWORK_MANAGER = "network-manager"
    SYSCONFIG = "sysconfig"


_DISTRIBUTIONS: Mapping[Renderer, str] = {
    Renderer.ENI: "debian",
    Renderer.NETPLAN: "ubuntu",
    Renderer.NETWORK_MANAGER: "fedora",
    Renderer.SYSCONFIG: "rhel",
}


@dataclass(frozen=True, slots=True)
class CloudInit:
    """One version of cloud-init."""

    directory: Path

    def validate(self, config: Path) -> None:
        """LabError with cloud-init's words when its schema does not allow this network configuration."""
        self._run("schema", "--schema-type", "network-config", "--config-file", str(config))

    def render(self, config: Path, renderer: Renderer, root: Path) -> None:
        """Write under this root what it would write in a guest."""
        what = ("--network-data", str(config), "--kind", "yaml", "--directory", str(root))
        self._run("devel", "net-convert", *what, "--distro", _DISTRIBUTIONS[renderer], "--output-kind", renderer)

    def _run(self, *command: str) -> None:
        # Its own python3 has the libraries that it needs, see ./vmfabric.
        run("env", f"PYTHONPATH={self.directory}", "/usr/bin/python3", "-m", "cloudinit.cmd.main", *command)


def of_debian(release: str | None = None) -> CloudInit:
    """The one of this release, or of the machine's own."""
    files = {"cloudinit": "dist-packages/cloudinit"}
    return CloudInit(debian.once_updated(lambda: debian.files("cloud-init", files, release=release)))


def netplan_for_networkd(root: Path) -> str:
    """What netplan tells systemd-networkd about the only interface of the configuration under this root."""
    program, library = debian.once_updated(
        lambda: (
            debian.files("netplan.io", {"generate": "libexec/netplan/generate"}),
            debian.files("libnetplan0", {"libnetplan.so.0.0": "libnetplan.so.0.0"}),
        )
    )
    run("env", f"LD_LIBRARY_PATH={library}", str(program / "generate"), "--root-dir", str(root))
    (network,) = (root / "run/systemd/network").glob("*.network")
    return network.read_text()
