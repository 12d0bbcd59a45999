"""How the nodes of an ip-fabric cluster announce."""

from typing import Annotated

from pydantic import Field, StringConstraints, model_validator

from vmfabric.contract.addresses import Community, Family, HostAddress
from vmfabric.contract.model import Request
from vmfabric.contract.patterns import PASSWORD


class Reflector(Request):
    """A BGP route reflector (RFC 4456). The fabric is iBGP: its AS is the cluster's."""

    address: HostAddress
    asn: Annotated[int, Field(ge=1, le=4294967294)]


class BgpTimers(Request):
    """Seconds."""

    keepalive: Annotated[int, Field(ge=1, le=65535)] = 3
    hold: Annotated[int, Field(ge=3, le=65535)] = 9
    connect: Annotated[int, Field(ge=1, le=65535)] = 1

    @model_validator(mode="after")
    def _hold_is_long_enough(self) -> "BgpTimers":
        if self.hold < 3 * self.keepalive:
            raise ValueError(f"hold {self.hold} s must be at least three keepalives of {self.keepalive} s")
        return self


class Bgp(Request):
    """How the nodes of a cluster announce."""

    asn: Annotated[int, Field(ge=1, le=4294967294)]
    reflectors: Annotated[tuple[Reflector, ...], Field(min_length=1, max_length=16)]
    community: dict[Family, Community]
    """One community for each family that is announced."""
    timers: BgpTimers = BgpTimers()
    password: Annotated[str, StringConstraints(strict=True, pattern=PASSWORD)] | None = Field(
        default=None, repr=False
    )
    """TCP MD5 password (RFC 2385): 1 to 80 printable ASCII characters without spaces."""
    bfd: bool = True
    """Watch the sessions with BFD, three packets every 300 ms (RFC 5880); no effect with a reflector that does not.
    docs/failures.md says what it is good for."""

    @model_validator(mode="after")
    def _ibgp(self) -> "Bgp":
        for reflector in self.reflectors:
            if reflector.asn != self.asn:
                raise ValueError(
                    f"reflector {reflector.address} is in AS {reflector.asn}, the cluster in AS {self.asn}: "
                    "an ip-fabric is iBGP, both must be the same"
                )
        reserved = [it for it in self.community.values() if it.count(":") == 1 and it.split(":")[0] in {"0", "65535"}]
        if reserved:
            raise ValueError(f"community {reserved[0]} is reserved, like all of AS 0 and of AS 65535 (RFC 1997)")
        missing = [family for family in Family if family not in self.community]
        if missing:
            raise ValueError(f"community lacks {', '.join(missing)}: routes are announced with one for each family")
        addresses = [reflector.address for reflector in self.reflectors]
        if len(set(addresses)) != len(addresses):
            raise ValueError("the same reflector is named twice")
        return self
