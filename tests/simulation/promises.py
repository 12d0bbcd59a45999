"""Whether every request was answered, and in what state everything was left."""

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from simulation.bus_server import Kept, matches
from simulation.plant import BRIDGE
from simulation.services import PHASE_SECONDS, Ground
from simulation.workload import DRY_RUN
from vmfabric.contract.addresses import named_by
from vmfabric.contract.admin import VmPhase
from vmfabric.contract.cluster import NetworkType
from vmfabric.contract.dataplane import LOCAL_PREFERENCE
from vmfabric.contract.desired import BUCKET, DesiredVm, Presence
from vmfabric.contract.names import VmName
from vmfabric.contract.vm import VmDecided, VmDeleted, VmFailed, VmMigrated, VmReady
from vmfabric.ipam.domain.lease import State
from vmfabric.node_agent.domain.actual import NOWHERE
from vmfabric.runtime.desired import KEY_SUBJECT
from vmfabric.scheduler.domain.record import VmKey

_ANSWERS = (VmReady, VmMigrated, VmFailed, VmDeleted, VmDecided)
_DECIDED = VmDecided.subject_template.stem
_DEADLINE = 5 * PHASE_SECONDS + 60.0
"""Two phases up, three back, and what redelivery, restarts and a node that is away may add."""


@dataclass(slots=True)
class Promise:
    """A request that the bus has kept."""

    at: float
    vm: VmName
    kind: str
    sequence: int
    """In its stream."""
    answered_at: float | None = None
    is_lost: bool = False
    """The bus lost its data before anybody had served it."""

    @property
    def is_dry(self) -> bool:
        """Whether it changes nothing, and is answered by what nothing else is answered by."""
        return self.kind == DRY_RUN


@dataclass
class Promises:
    """What was asked, and what was answered."""

    made: list[Promise] = field(default_factory=list)
    ready: set[int] = field(default_factory=set)
    """The generations of which vm.ready was said."""
    answers: Counter[str] = field(default_factory=Counter)
    failures: set[str] = field(default_factory=set)
    """The codes of vm.failed."""

    def ask(self, at: float, vm: VmName, kind: str, sequence: int) -> None:
        """A request is in its stream."""
        self.made.append(Promise(at, vm, kind, sequence))

    def heard(self, at: float, kept: Kept) -> None:
        """A fact is in its stream."""
        stem, vm = kept.subject.rsplit(".", 2)[0], kept.subject.rsplit(".", 1)[1]
        if stem not in {answer.subject_template.stem for answer in _ANSWERS}:
            return
        if stem == VmReady.subject_template.stem:
            self.ready.add(VmReady.model_validate_json(kept.body).generation)
        if stem == VmMigrated.subject_template.stem:
            self.ready.add(VmMigrated.model_validate_json(kept.body).generation)
        self.answers[stem] += 1
        if stem == VmFailed.subject_template.stem:
            self.failures.add(VmFailed.model_validate_json(kept.body).code)
        for promise in self.made:
            if promise.vm == vm and promise.answered_at is None and promise.is_dry == (stem == _DECIDED):
                promise.answered_at = at

    def lose(self, unserved: Collection[int]) -> None:
        """The bus is empty: requests that nobody had served are gone with it."""
        for promise in self.made:
            promise.is_lost = promise.is_lost or promise.answered_at is None or promise.sequence in unserved
            promise.sequence = 0

    def open(self) -> list[Promise]:
        """Those that wait for an answer."""
        return [promise for promise in self.made if promise.answered_at is None and not promise.is_lost]

    def late(self) -> Iterator[str]:
        """What was answered too late, in words."""
        for promise in self.made:
            seconds = 0.0 if promise.answered_at is None or promise.is_lost else promise.answered_at - promise.at
            if seconds > _DEADLINE:
                yield (
                    f"{promise.kind} of {promise.vm} was asked at {promise.at:.3f} s and answered {seconds:.0f} s "
                    f"later; its deadline is {_DEADLINE:.0f} s"
                )


def unsettled(ground: Ground, promises: Promises) -> Iterator[str]:
    """What is not yet as it should be, in words; it must come to nothing once nothing goes wrong any more."""
    yield from _under_way(ground, promises)
    yield from _wrong_requests(ground, promises)
    yield from _left_in_ipam(ground)
    yield from _left_on_nodes(ground)
    yield from _left_in_bucket(ground)
    yield from _not_served(ground)


def _under_way(ground: Ground, promises: Promises) -> Iterator[str]:
    for promise in promises.open():
        yield f"{promise.kind} of {promise.vm}, asked at {promise.at:.3f} s, has no answer"
    for (_, vm), record in ground.tables.vms.items():
        if record.phase is not VmPhase.READY:
            yield f"{vm} is {record.phase} (generation {record.generation}, {record.waiting.asked} times asked again)"
    for name, rows in (("scheduler", ground.tables.outbox), ("ipam", ground.ipam.outbox)):
        if rows:
            yield f"{len(rows)} messages in the outbox of {name}"
    for stream in ground.server.streams.values():
        for consumer in stream.consumers.values():
            if consumer.unacknowledged():
                yield f"{len(consumer.unacknowledged())} messages of {stream.name} wait for {consumer.name}"


def _alive(ground: Ground) -> set[VmName]:
    return {vm for _, vm in ground.tables.vms}


def _wrong_requests(ground: Ground, promises: Promises) -> Iterator[str]:
    last: dict[VmName, Promise] = {}
    for promise in promises.made:
        if promise.kind != "invalid" and not promise.is_dry:
            last[promise.vm] = promise
    for vm, promise in last.items():
        if promise.kind == "delete" and vm in _alive(ground) and not promise.is_lost:
            yield f"{vm} is there though the last that was asked is its removal"
    for (_, vm), record in ground.tables.vms.items():
        if record.phase is VmPhase.READY and record.generation not in promises.ready:
            yield f"{vm} is ready, generation {record.generation}, and nobody was told"


def _left_in_ipam(ground: Ground) -> Iterator[str]:
    for key, lease in ground.ipam.written_leases.items():
        record = ground.tables.vms.get(VmKey(key.cluster, key.vm))
        if lease.state is not State.RELEASED and (record is None or record.generation != lease.generation):
            yield f"ipam has a lease of {key.vm}, generation {lease.generation}, {lease.state}, and nobody has the VM"
    for address, holding in ground.ipam.written_holdings.items():
        if holding.rests_until is None and holding.key.vm not in _alive(ground):
            yield f"{address} is still {holding.key.vm}'s, which is gone"


def _left_on_nodes(ground: Ground) -> Iterator[str]:
    for name, node in ground.nodes.items():
        wanted = {ground.plant.link_of(record.vm) for record in ground.tables.vms.values() if record.node == name}
        own = {BRIDGE, NOWHERE} if ground.plant.type is NetworkType.ROUTING else set()
        for what, found in (
            ("link", set(node.kernel.links)),
            ("guard", set(node.kernel.guards)),
            ("route", {route.interface for route in node.kernel.routes}),
        ):
            for interface in sorted(found - wanted - own):
                yield f"a {what} of {interface} is left on {name}"
        addresses = {
            address
            for record in ground.tables.vms.values()
            if record.node == name and record.desired
            for address in record.desired.addresses
        }
        for prefix in node.announced:
            if named_by(prefix) not in addresses:
                yield f"{prefix} is still announced by {name}"


def bucket(ground: Ground) -> dict[str, bytes]:
    """The keys of desired state."""
    stream = ground.server.streams.get(f"KV_{BUCKET}")
    if stream is None:
        return {}
    return {
        kept.subject.removeprefix(KEY_SUBJECT): kept.body
        for kept in stream.kept.values()
        if "KV-Operation" not in kept.headers
    }


def _left_in_bucket(ground: Ground) -> Iterator[str]:
    others = {f"node.{row.spec.cluster}.{row.spec.name}" for row in ground.tables.nodes.values()}
    others |= {f"pools.{pool.cluster}" for pool in ground.ipam.pools.values()}
    for key in sorted(others - bucket(ground).keys()):
        yield f"key {key} is not in the bucket"
    wanted = {record.desired.key(): record.desired for record in ground.tables.vms.values() if record.desired}
    found = {key: body for key, body in bucket(ground).items() if matches("vm.*.*.*", key)}
    for key in sorted(found.keys() - wanted.keys()):
        yield f"key {key} is left in the bucket"
    for key, desired in wanted.items():
        if key not in found or DesiredVm.from_bytes(found[key]) != desired:
            yield f"key {key} is not in the bucket as the scheduler wants it"


def _not_served(ground: Ground) -> Iterator[str]:
    for (_, vm), record in ground.tables.vms.items():
        node = ground.nodes[record.node]
        interface, routed_to = ground.plant.link_of(vm), ground.plant.routed_to(vm)
        if record.desired is None or record.desired.presence is not Presence.ROUTED:
            yield f"{vm} is ready, but not wanted as routed"
            continue
        link, guard = node.kernel.links.get(interface), node.kernel.guards.get(interface)
        if link is None or not link.up or guard is None:
            yield f"{vm} should be on {record.node}, but its link {interface} is not up behind its guard"
        routed = {route.prefix for route in node.kernel.routes if route.interface == routed_to}
        announced = node.announced
        for prefix in record.desired.prefixes():
            if routed_to is not None and prefix not in routed:
                yield f"{prefix} of {vm} should be routed on {record.node}, and is not"
            if not ground.plant.type.is_announced:
                continue
            if prefix in announced and (preference := node.frr.local_preference(prefix)) != LOCAL_PREFERENCE:
                yield f"{prefix} of {vm} is announced with preference {preference}"
            if announced.get(prefix, frozenset()) != node.frr.up:
                yield f"{prefix} of {vm} is announced to {sorted(map(str, announced.get(prefix, ())))} only"
