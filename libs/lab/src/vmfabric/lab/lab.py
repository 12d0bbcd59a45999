"""A lab that exists: what belongs to it, and where it is."""

from dataclasses import dataclass
from pathlib import Path

from vmfabric.lab import control_plane, guests, services
from vmfabric.lab.errors import LabError
from vmfabric.lab.processes import Program
from vmfabric.lab.state import State
from vmfabric.lab.topology import Router, Topology


@dataclass(frozen=True, slots=True)
class Lab:
    """A lab that exists."""

    state: State
    topology: Topology

    @staticmethod
    def find(state: State | None = None) -> "Lab":
        """The lab in this directory, which may be half made. LabError when there is none."""
        where = state or State.of_environment()
        record = where.record()
        if record is None:
            raise LabError(f"there is no lab in {where.directory}; `./vmfabric lab up` makes one")
        return Lab(where, record.topology)

    @property
    def is_complete(self) -> bool:
        """False while it is being made, and when its making did not come to its end."""
        record = self.state.record()
        return record is not None and record.ready

    @property
    def nats_url(self) -> str:
        """Where this machine finds the bus."""
        return control_plane.operators_url(self.topology)

    @property
    def supervisor(self) -> Program:
        """What starts all other programs."""
        return control_plane.supervisor(self.state, self.topology)

    def servers(self) -> tuple[Program, ...]:
        """Programs that the services need."""
        return (
            *control_plane.nats(self.state, self.topology),
            *control_plane.postgres(self.state, self.topology),
            control_plane.door(self.topology),
        )

    def services(self) -> tuple[Program, ...]:
        """Programs of vmfabric."""
        return services.programs(self.state, self.topology)

    def program(self, service: str, host: str) -> Program:
        """The program of a service on a host. LabError when it has no such service."""
        for program in (*self.servers(), *self.services()):
            if (program.service, program.host) == (service, host):
                return program
        raise LabError(f"no service {service!r} belongs on host {host!r}")

    def router(self, host: str) -> Router:
        """A host that runs FRR. LabError when there is none of this name."""
        for router in self.topology.routers:
            if router.name == host:
                return router
        raise LabError(f"there is no router {host!r}; the lab has {', '.join(r.name for r in self.topology.routers)}")

    def frr_log(self, router: Router) -> Path:
        """What the router's FRR says."""
        return self.state.logs / f"{router.name}-frr.log"

    def namespace(self, host: str) -> str:
        """The namespace of a host, or of a guest by its VM's name. LabError when there is none."""
        if host in self.topology.hosts:
            return self.topology.namespace(host)
        found = [guest for guest in guests.recorded(self.state, self.topology) if host in {guest.vm, guest.name}]
        if len(found) == 1:
            return found[0].namespace
        if found:
            raise LabError(f"{host!r} is a guest of {' and of '.join(guest.name for guest in found)}; say which")
        raise LabError(f"there is no host and no guest {host!r}; hosts are {', '.join(self.topology.hosts)}")
