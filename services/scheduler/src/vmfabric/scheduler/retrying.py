"""`node.retry`: an operator has mended what was in a node's way."""

from vmfabric.contract.errors import TryAgain
from vmfabric.contract.retry import IFACE_RETRY, Retried, RetryNode, RetryOnNode
from vmfabric.runtime.micro import Ask
from vmfabric.scheduler.domain.changes import NodeKey
from vmfabric.scheduler.domain.explanation import unanswered
from vmfabric.scheduler.named import the_node_as_it_is
from vmfabric.scheduler.ports import Store
from vmfabric.scheduler.transaction import transaction


class Retrying:
    """The node's own agent knows what it waits for."""

    def __init__(self, store: Store, *, ask: Ask) -> None:
        self._store = store
        self._ask = ask

    async def retry(self, asked: RetryNode) -> Retried:
        """Refused when there is no such node, TryAgain when nobody is there to try."""
        async with transaction(self._store) as tx:
            await the_node_as_it_is(tx, NodeKey(asked.cluster, asked.node))
        subject = IFACE_RETRY.render({"cluster": asked.cluster, "node": asked.node})
        try:
            return await self._ask(subject, RetryOnNode(), Retried)
        except TryAgain as error:
            raise TryAgain(error.code, unanswered("node-agent", asked.node)) from error
