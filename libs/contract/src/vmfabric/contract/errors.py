"""What may go wrong, each with its stable code. The sentence is written where the facts are known."""

from enum import StrEnum


class Code(StrEnum):
    """The stable code of a failure, for programs; the sentence beside it is for people."""

    INVALID_REQUEST = "invalid_request"
    UNKNOWN_CLUSTER = "unknown_cluster"
    UNKNOWN_NODE = "unknown_node"
    UNKNOWN_NETWORK = "unknown_network"
    UNKNOWN_POOL = "unknown_pool"
    UNKNOWN_VM = "unknown_vm"
    UNKNOWN_ADDRESS = "unknown_address"
    CONFLICT = "conflict"
    NODE_LOST = "node_lost"
    NO_NODE_FITS = "no_node_fits"
    CANNOT_MIGRATE = "cannot_migrate"
    POOL_EXHAUSTED = "pool_exhausted"
    ADDRESS_TAKEN = "address_taken"
    ADDRESS_QUARANTINED = "address_quarantined"
    ADDRESS_EXCLUDED = "address_excluded"
    FAMILY_NOT_IN_POOL = "family_not_in_pool"
    OVERLAP = "overlap"
    IN_USE = "in_use"
    STEP_TIMED_OUT = "step_timed_out"
    CANCELLED = "cancelled"
    INTERNAL = "internal"


class VmfabricError(Exception):
    """A failure that a person reads: a code for programs and a sentence that says what to do."""

    def __init__(self, code: Code, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence


class Refused(VmfabricError):
    """The caller asked for something that cannot be; asking again without a change will not help."""


class TryAgain(VmfabricError):
    """Something outside is not there yet; the same call will succeed later."""
