"""Requests for VMs with the schema of the Azure packing trace of 2020: made up from a seed, not taken from the trace.

The trace ("Protean", OSDI 2020; AzureTracesForPacking2020) is a database of two tables. `vmType` has, for each kind
of machine, which fraction of it a VM of a type takes; `vm` has who asked for a VM of which type, and its start and
end in days, without an end when it was there to the last. Here are the same columns, and a skew like that of public
clouds: most VMs are small and short, tenants ask for several at once, a few large ones stay.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count, product
from math import log, pi, sin
from random import Random
from typing import TypeVar

T = TypeVar("T")

_CORES, _GIB, _SSD_GB = 64, 256, 1600
"""A machine."""
_CORES_OF_VMS = {1: 34, 2: 30, 4: 18, 8: 11, 16: 5, 32: 2}
_GIB_A_CORE = {2: 25, 4: 50, 8: 25}
_SSD_GB_A_CORE = {10: 60, 40: 40}
"""Each with how often it is asked for."""
_LIFETIMES = {(0.02, 1.2): 50, (0.3, 1.0): 35, (10.0, 1.0): 15}
"""Median in days and sigma of its logarithm: minutes to hours, hours to days, weeks."""
_AT_ONCE = {1: 70, 2: 12, 4: 10, 10: 8}
"""VMs of one deployment."""
_SWING = 0.4
"""How much more is asked for by day, and less by night."""


@dataclass(frozen=True, slots=True)
class VmType:
    """A row of `vmType`: fractions of a machine."""

    vm_type_id: int
    machine_id: int
    core: float
    memory: float
    hdd: float
    ssd: float
    nic: float
    weight: float
    """Not of the schema: how often it is asked for."""


@dataclass(frozen=True, slots=True)
class Vm:
    """A row of `vm`."""

    vm_id: int
    tenant_id: int
    vm_type_id: int
    priority: int
    starttime: float
    endtime: float | None


def vm_types() -> list[VmType]:
    """Every shape that leaves room for another on a machine; there is one kind of machine."""
    shapes = product(_CORES_OF_VMS.items(), _GIB_A_CORE.items(), _SSD_GB_A_CORE.items())
    fitting = [shape for shape in shapes if shape[0][0] * shape[1][0] < _GIB]
    return [
        VmType(
            vm_type_id=number,
            machine_id=0,
            core=cores / _CORES,
            memory=cores * gib / _GIB,
            hdd=0.0,
            ssd=cores * ssd / _SSD_GB,
            nic=cores / _CORES,
            weight=often * of_memory * of_ssd,
        )
        for number, ((cores, often), (gib, of_memory), (ssd, of_ssd)) in enumerate(fitting)
    ]


def vms(random: Random, *, days: float, deployments_per_day: float) -> Iterator[Vm]:
    """In the order of their starts."""
    types = vm_types()
    weights = [it.weight for it in types]
    numbers, now = count(), 0.0
    for tenant in count():
        now += random.expovariate(deployments_per_day * (1 + _SWING * sin(2 * pi * now)))
        if now >= days:
            return
        vm_type, priority = random.choices(types, weights)[0], random.randint(0, 1)
        for _ in range(_one_of(random, _AT_ONCE)):
            median, sigma = _one_of(random, _LIFETIMES)
            end = now + random.lognormvariate(log(median), sigma)
            yield Vm(next(numbers), tenant, vm_type.vm_type_id, priority, now, end if end < days else None)


def _one_of(random: Random, weighted: Mapping[T, int]) -> T:
    return random.choices(list(weighted), list(weighted.values()))[0]
