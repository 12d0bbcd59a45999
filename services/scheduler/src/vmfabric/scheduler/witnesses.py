"""What the reflectors hold of a node, as another node of its cluster is told: nobody else can be asked."""

from collections.abc import Iterable, Sequence

from vmfabric.contract.admin import NodeState
from vmfabric.contract.desired import DesiredVm
from vmfabric.contract.errors import Refused, TryAgain
from vmfabric.contract.explanation import ROUTE_REFLECTED, Finding, Reflected, ShowReflected
from vmfabric.runtime.micro import Ask
from vmfabric.scheduler.domain import reflection
from vmfabric.scheduler.domain.changes import NodeKey
from vmfabric.scheduler.domain.reflection import Subject
from vmfabric.scheduler.ports import NodeRow

_WITNESSES = 2
"""So many are asked, one after the other, until one answers."""


async def reflected_findings(
    ask: Ask, key: NodeKey, nodes: Iterable[NodeRow], values: Sequence[DesiredVm], *, are_all: bool
) -> list[Finding]:
    """Of `values`, which the node should have. None in a cluster in which it is alone.

    `are_all`: it should have no others, so what else leads to it is wrong.
    """
    rows = {row.key: row for row in nodes if row.key.cluster == key.cluster}
    others = [row for row in rows.values() if row.key != key]
    if key not in rows or not others:
        return []
    addresses = (rows[key].spec.address, *rows[key].heard.addresses)
    prefixes = tuple(prefix for value in values for prefix in value.prefixes())
    asked = ShowReflected(prefixes=prefixes, next_hops=addresses if are_all else ())
    reasons: list[str] = []
    for witness in [row for row in others if row.heard.state is NodeState.JOINED][:_WITNESSES]:
        try:
            told = await ask(ROUTE_REFLECTED.render(witness.key._asdict()), asked, Reflected)
        except (Refused, TryAgain) as error:
            reasons.append(f"{witness.key.node}: {error.sentence}")
        else:
            return list(reflection.compare(Subject(key.node, addresses), values, told))
    reason = "; ".join(reasons) or "none of them is heard"
    sentence = f"no other node says what the reflectors have of {key.node} ({reason}); start their services"
    return [Finding(about="reflectors", is_right=False, sentence=sentence)]
