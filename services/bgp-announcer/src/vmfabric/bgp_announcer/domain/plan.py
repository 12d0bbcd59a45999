"""From what FRR has to what it should have, without touching what is not ours and without resetting a session."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vmfabric.bgp_announcer.domain.configuration import DELAY, GROUP, PEER_GROUP, family_section, kernel_map
from vmfabric.bgp_announcer.domain.lines import TOP, Line, Section
from vmfabric.contract.addresses import Family
from vmfabric.contract.errors import Code, Refused

_OUR_LIST = re.compile(rf"(ip|ipv6) prefix-list {GROUP}-|bgp (large-)?community-list standard {GROUP}-")
_ENTRY = re.compile(r"(\S+ prefix-list \S+ )(?:seq \d+ )?permit (\S+)")
_OUR_MAP = re.compile(rf"route-map {GROUP}-")
_OUR_NEIGHBOUR = re.compile(rf"(no )?neighbor ({GROUP} |\S+ peer-group {GROUP}$)")
_ROUTER = re.compile(r"router bgp (\d+)$")


@dataclass(frozen=True, slots=True)
class Change:
    """One line to enter."""

    section: Section
    text: str

    def __str__(self) -> str:
        return " / ".join((*self.section, re.sub(r"(password) \S+", r"\1 …", self.text)))


def plan(wanted: Sequence[Line], found: Sequence[Line], asn: int, *, tidy: bool = True) -> tuple[Change, ...]:
    """The lines to enter, in order; nothing when all is as it should be. Refused when FRR speaks for another AS.

    Entries of lists that are not wanted any more go last, and only with `tidy`: FRR applies a changed route-map
    some seconds later, and until then a route needs the entry that its old community matches. One whose block gets
    another entry goes first: taken away after that, FRR 8.4 forgets the new one too, and shows it still.
    """
    _check_asn(found, asn)
    have, should = {line.place: line for line in found}, {line.place: line for line in wanted}
    is_new = (_router(asn), PEER_GROUP) not in have
    missing = [line for place, line in should.items() if place not in have and (line.is_shown or is_new)]
    surplus = [line for place, line in have.items() if place not in should and _is_ours(line, asn)]

    delay = [line for line in missing if line.text == DELAY]
    lists = [line for line in missing if _OUR_LIST.match(line.text)]
    maps = [line for line in missing if _is_of_a_map(line)]
    earlier = {*delay, *lists, *maps}
    router = [line for line in missing if line not in earlier]
    old_lists = [line for line in surplus if _OUR_LIST.match(line.text)]
    blocks = {_block(line) for line in lists}
    outdated = [line for line in old_lists if _block(line) in blocks]
    # A setting's successor replaces it: taken away before, a batch that is cut short would leave FRR's default, and
    # after, FRR reads `no set community 1:2` as "no community at all".
    replaced = {_setting(line) for line in missing}
    old_settings = [
        line
        for line in surplus
        if line not in old_lists and not _is_inside(line, surplus) and _setting(line) not in replaced
    ]
    changes = (
        *_enter(delay),
        *_undo(outdated, maps=False),
        *_enter(lists),
        *_undo(old_settings, maps=True),
        *_enter(maps),
        *_undo(old_settings, maps=False),
        *_enter(router),
    )
    return changes or (_undo(old_lists, maps=False) if tidy else ())


def renewal(asn: int) -> tuple[Change, ...]:
    """Have bgpd ask zebra for the kernel's routes anew; they are withdrawn for a moment."""
    lines = [
        (family_section(asn, family), f"redistribute kernel route-map {kernel_map(family)}") for family in Family
    ]
    return tuple(Change(section, text) for section, line in lines for text in (f"no {line}", line))


def _router(asn: int) -> Section:
    return (f"router bgp {asn}",)


def _check_asn(found: Sequence[Line], asn: int) -> None:
    for line in found:
        match = _ROUTER.match(line.text)
        if match and line.section == TOP and int(match.group(1)) != asn:
            raise Refused(
                Code.CONFLICT,
                f"FRR of this node speaks BGP for AS {match.group(1)}, its cluster is AS {asn}. Nothing was changed: "
                f"remove `router bgp {match.group(1)}` from FRR, or correct the cluster",
            )


def _is_ours(line: Line, asn: int) -> bool:
    if line.section == TOP:
        return bool(_OUR_LIST.match(line.text) or _OUR_MAP.match(line.text))
    if _OUR_MAP.match(line.section[0]):
        return True
    if line.section[: len(_router(asn))] != _router(asn):
        return False
    # There is one redistribution of kernel routes for each family; without our route-map it announces anything.
    return bool(_OUR_NEIGHBOUR.match(line.text)) or line.text.startswith("redistribute kernel")


def _block(line: Line) -> tuple[str, ...]:
    """The list and the block that an entry of a prefix list is about; of any other line, all of it."""
    match = _ENTRY.match(line.text)
    return match.groups() if match else (line.text,)


def _is_of_a_map(line: Line) -> bool:
    return bool(_OUR_MAP.match(line.text if line.section == TOP else line.section[0]))


def _setting(line: Line) -> tuple[Section, str] | Section:
    """What of a route-map's entry a line sets, whatever the value; of another line, itself."""
    words = line.text.split()
    return (line.section, words[1]) if _is_of_a_map(line) and words[0] == "set" else (*line.section, line.text)


def _is_inside(line: Line, others: Sequence[Line]) -> bool:
    """Whether a whole section goes that the line is in."""
    return any(line.section[: len(other.section) + 1] == (*other.section, other.text) for other in others)


def _enter(lines: Iterable[Line]) -> tuple[Change, ...]:
    return tuple(Change(line.section, line.text) for line in lines)


def _undo(lines: Iterable[Line], *, maps: bool) -> tuple[Change, ...]:
    return tuple(
        Change(line.section, line.text.removeprefix("no ") if line.text.startswith("no ") else f"no {line.text}")
        for line in lines
        if _is_of_a_map(line) is maps
    )
