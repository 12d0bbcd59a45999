"""Names that are safe as a NATS token, a KV key, a file name and a log field."""

from typing import Annotated

from pydantic import StringConstraints

from vmfabric.contract.patterns import INTERFACE, LABEL, LINE, NODE_LABEL, SHORT_NAME

ClusterName = Annotated[str, StringConstraints(strict=True, pattern=SHORT_NAME)]
"""1 to 32 characters of `[a-z0-9-]`, no dash at either end."""

VmName = Annotated[str, StringConstraints(strict=True, pattern=LABEL)]
"""1 to 63 characters of `[a-z0-9-]`, no dash at either end (an RFC 1123 label)."""

NodeName = Annotated[str, StringConstraints(strict=True, pattern=LABEL)]
"""1 to 63 characters of `[a-z0-9-]`, no dash at either end (an RFC 1123 label)."""

ResourceName = Annotated[str, StringConstraints(strict=True, pattern=SHORT_NAME)]
"""Name of a network, a pool, a fence or a group: 1 to 32 characters of `[a-z0-9-]`, no dash at either end."""

LabelText = Annotated[str, StringConstraints(strict=True, pattern=NODE_LABEL)]
"""Key or value of a node's label: 1 to 63 characters of `[a-z0-9./-]`."""

InterfaceName = Annotated[str, StringConstraints(strict=True, pattern=INTERFACE, max_length=15)]
"""A kernel interface name that vmfabric makes: at most 15 bytes (IFNAMSIZ - 1)."""

OwnerName = Annotated[str, StringConstraints(strict=True, pattern=LINE, min_length=1, max_length=200)]
"""Whom something belongs to outside of vmfabric: a customer, a team, a ticket. Text for people, on one line."""

Note = Annotated[str, StringConstraints(strict=True, pattern=LINE, max_length=500)]
"""What operators want to remember, on one line."""
