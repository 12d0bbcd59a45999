"""What an operator is told of a VM on this node."""

from collections.abc import Iterator

from vmfabric.contract.dataplane import KERNEL_PROTOCOL
from vmfabric.contract.desired import DesiredVm, Presence
from vmfabric.contract.explanation import Finding
from vmfabric.contract.names import VmName
from vmfabric.node_agent.domain.actual import Actual
from vmfabric.node_agent.domain.plan import Plan
from vmfabric.node_agent.domain.port import interface_of, port_of

_SHOWN = 5


def explain(vm: VmName, desired: DesiredVm | None, actual: Actual, found: Plan) -> Iterator[Finding]:
    """`found` is the plan for what is desired, made from what the kernel has now."""
    if desired is None:
        yield _wrong(vm, "node-agent", f"this node has not been told of {vm}; does its node-agent reach the bus?")
        return
    yield _right(vm, "node-agent", f"generation {desired.generation} should be {desired.presence} here")
    problems = [problem for problem in found.problems if problem.vm in {vm, None}]
    todo = [str(operation) for operation in found.operations if operation.vm in {vm, None}]
    for problem in problems:
        yield _wrong(vm, "node" if problem.vm is None else "kernel", problem.sentence)
    if todo:
        more = f", and {len(todo) - _SHOWN} more" if len(todo) > _SHOWN else ""
        yield _wrong(
            vm,
            "kernel",
            f"still to be done: {'; '.join(todo[:_SHOWN])}{more}; the log says node.problem if it cannot",
        )
    if not problems and not todo:
        yield _right(vm, "kernel", _as_wanted(desired, actual))
        yield from _limits(desired)
        yield from _carrier(desired, actual)


def explain_node(found: Plan) -> Iterator[Finding]:
    """What is wrong with the node itself, and what is ours and nobody's."""
    for problem in found.problems:
        if problem.vm is None:
            yield Finding(about="node", is_right=False, sentence=problem.sentence)
    for name in found.orphans:
        sentence = f"nothing is wanted of {name}, which is a link of ours; if it is nobody's, `ip link delete {name}`"
        yield Finding(about="kernel", is_right=False, sentence=sentence)
    for route in found.stray_routes:
        sentence = (
            f"the route to {route.prefix} has our protocol number and is no VM's; FRR announces it if it lies in a "
            f"pool: `ip route delete {route.prefix} proto {KERNEL_PROTOCOL}`"
        )
        yield Finding(about="kernel", is_right=False, sentence=sentence)


def _as_wanted(desired: DesiredVm, actual: Actual) -> str:
    port = port_of(desired)
    if desired.presence is Presence.ABSENT:
        return f"nothing of it is left: no {port.interface}, no rule, no route"
    if port.routed_to is None:
        vlan = "" if port.vlan is None else f" in VLAN {port.vlan}"
        return f"{port.interface} is up behind its anti-spoofing, a port of {port.bridge}{vlan}"
    routes = sorted(
        str(it.prefix) for it in actual.routes if it.prefix in port.prefixes and it.interface == port.routed_to
    )
    where = "it" if port.routed_to == port.interface else f"{port.routed_to}, which it is a port of"
    routed = f"routes {', '.join(routes)} lead to {where}" if routes else f"no route leads to {where}"
    return f"{port.interface} is up behind its anti-spoofing, {routed}"


def _limits(desired: DesiredVm) -> Iterator[Finding]:
    if desired.bandwidth is None or desired.presence is Presence.ABSENT:
        return
    ways = {"to it": desired.bandwidth.in_kbit, "from it": desired.bandwidth.out_kbit}
    limits = " and ".join(f"{kbit} kbit/s {way}" for way, kbit in ways.items() if kbit is not None)
    yield _right(desired.vm, "kernel", f"limited to {limits}; what goes over it is dropped")


def _carrier(desired: DesiredVm, actual: Actual) -> Iterator[Finding]:
    interface = interface_of(desired)
    if desired.presence.is_announced and not actual.links[interface].carrier:
        yield _wrong(
            desired.vm,
            "kernel",
            f"{interface} has no carrier: nobody holds its other end. Does the guest run, and is it plugged in?",
        )


def _right(vm: VmName, about: str, sentence: str) -> Finding:
    return Finding(vm=vm, about=about, is_right=True, sentence=sentence)


def _wrong(vm: VmName, about: str, sentence: str) -> Finding:
    return Finding(vm=vm, about=about, is_right=False, sentence=sentence)
