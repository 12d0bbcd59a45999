"""Brings the uplink of a switching node into its bridge, step by step, and keeps the journal of it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from vmfabric.contract.desired import DesiredNode, SwitchingNode
from vmfabric.node_agent.domain import move, move_journal
from vmfabric.node_agent.domain.actual import Actual, Interest
from vmfabric.node_agent.domain.fabrics import switching
from vmfabric.node_agent.domain.move_journal import Journal, Moment, Phase
from vmfabric.node_agent.domain.neighbour import Question
from vmfabric.node_agent.domain.operations import Operation
from vmfabric.node_agent.ports import Kernel
from vmfabric.runtime.snapshot import load, save

_MOST_STEPS = 20
"""Half of them are more than a move has: begun, moved, asked, ended; the others are for the way back."""

_UNSETTLED = "the uplink does not come to rest; who else changes it?"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Moved:
    """What came of it."""

    actual: Actual
    """The kernel as it is then."""
    done: tuple[Operation, ...]
    problem: str | None


class UplinkMove:
    """One for each node; it acts only where the node is a switching one that names its uplink."""

    def __init__(self, kernel: Kernel, path: Path, now: Callable[[], Moment]) -> None:
        self._kernel = kernel
        self._path = path
        self._now = now
        self._is_kept = True
        kept = load(path, Journal)
        self._journal = None if kept is None else move_journal.of_boot(kept, now().boot)

    def interest(self) -> Interest:
        """What has to be read of the kernel for what was begun, whatever the node's values are now."""
        return Interest() if self._journal is None else switching.interest(self._journal.node)

    async def step(self, node: DesiredNode | None, actual: Actual, interest: Interest) -> Moved:
        """All that can be done, the answer of the gateway included."""
        wanted = node if isinstance(node, SwitchingNode) else None
        done: list[Operation] = []
        for number in range(_MOST_STEPS):
            if self._journal is not None and number == _MOST_STEPS // 2:
                self._note(move_journal.failed(self._journal, _UNSETTLED))
            step = move.next_step(self._journal, wanted, actual, self._now())
            is_news = step.journal != self._journal
            if not self._note(step.journal):
                return Moved(actual, tuple(done), self._unkept())
            if step.operations:
                refused = await self._carry_out(step)
                done += step.operations
                actual = await self._kernel.read(interest)
                if refused is not None and (step.journal is None or step.journal.phase is not Phase.MOVING):
                    return Moved(actual, tuple(done), refused)
                if refused is not None and step.journal is not None:
                    self._note(move_journal.failed(step.journal, refused))
            elif step.question is not None and step.journal is not None:
                self._note(await self._asked(step.journal, step.question, actual))
            elif not is_news:
                return Moved(actual, tuple(done), step.problem or self._unkept())
        return Moved(actual, tuple(done), _UNSETTLED)

    def retry(self, node: DesiredNode | None) -> str:
        """Have the next step not wait until another try is due. Returns what is tried then, in a sentence."""
        journal = self._journal
        if journal is not None and move.is_other_than(journal, node if isinstance(node, SwitchingNode) else None):
            return f"{journal.uplink} should not be in {journal.node.bridge} any more, so that is not tried again"
        if journal is None or not journal.reason:
            return "nothing was given up here, so everything is only looked at once more"
        uplink, bridge = journal.uplink, journal.node.bridge
        if journal.phase is Phase.RETURNING:
            return f"{uplink} is still on its way out of {bridge}; ask again when it is there"
        self._note(move_journal.at_once(journal))
        if journal.phase is Phase.CONFIRMED:
            return f"the gateway behind {bridge} is asked again now"
        return f"{uplink} is moved into {bridge} again now"

    async def _carry_out(self, step: move.Step) -> str | None:
        """What was refused first. On the way back all the others are done nevertheless."""
        refused = None
        for operation in step.operations:
            log.info("uplink.write", operation=str(operation))
            failures = await self._kernel.apply([operation])
            if failures:
                log.warning("uplink.refused", failure=str(failures[0]))
                refused = refused or str(failures[0])
                if step.journal is None or step.journal.phase is not Phase.RETURNING:
                    break
        return refused

    async def _asked(self, journal: Journal, question: Question, actual: Actual) -> Journal:
        try:
            seconds = move_journal.patience(journal, self._now())
            is_answered = await self._kernel.ask(journal.node.bridge, question, seconds)
        except OSError as error:
            log.warning("uplink.not_asked", reason=str(error))
            is_answered = False
        return (
            move_journal.answered(journal)
            if is_answered
            else move_journal.unanswered(journal, question, actual, self._now())
        )

    def _unkept(self) -> str | None:
        if self._is_kept:
            return None
        return f"{self._path} cannot be written, and no uplink is moved without it; is the disk full?"

    def _note(self, journal: Journal | None) -> bool:
        """False: not begun, since it could not be ended after a crash. What was begun is ended all the same."""
        if journal == self._journal and self._is_kept:
            return True
        self._is_kept = self._keep(journal)
        if not self._is_kept and journal is not None and journal.phase is Phase.MOVING:
            return False
        if journal is not None and (self._journal is None or self._journal.phase is not journal.phase):
            tell = log.warning if journal.phase in {Phase.RETURNING, Phase.TAKEN_BACK} else log.info
            tell(f"uplink.{journal.phase}", uplink=journal.uplink, bridge=journal.node.bridge, reason=journal.reason)
        self._journal = journal
        return True

    def _keep(self, journal: Journal | None) -> bool:
        if journal is not None:
            return save(self._path, journal)
        try:
            self._path.unlink(missing_ok=True)
        except OSError:
            return False
        return True
