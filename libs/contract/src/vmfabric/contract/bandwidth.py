"""How much a VM may send and receive."""

from typing import Annotated

from pydantic import Field, model_validator

from vmfabric.contract.model import Request

_Kbit = Annotated[int, Field(ge=64, le=100_000_000)]


class Bandwidth(Request):
    """Limits in kbit/s (1000 bits of Ethernet frames a second). What goes over them is dropped."""

    in_kbit: _Kbit | None = None
    """To the VM; None: no limit."""
    out_kbit: _Kbit | None = None
    """From the VM; None: no limit."""

    @model_validator(mode="after")
    def _one_at_least(self) -> "Bandwidth":
        if self.in_kbit is None and self.out_kbit is None:
            raise ValueError("give in_kbit, out_kbit or both; without bandwidth there is no limit")
        return self
