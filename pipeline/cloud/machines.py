"""Compute Engine's machine types, as far as a job's plan needs them."""

from __future__ import annotations

import dataclasses
import re

from pipeline.schema import UserError

#: GiB of a worker process (docs/reference/performance.md), rounded up: Dataflow starts
#: one a vCPU, with one thread each.
PROCESS_GIB = 1.2
#: GiB that a VM keeps for its system and Dataflow's own processes.
SYSTEM_GIB = 1.0

#: GiB a vCPU. Families differ by up to a tenth; the ones that differ more follow.
_MEMORY = {"standard": 4.0, "highmem": 8.0, "highcpu": 1.0}
_MEMORY_OF = {
    ("n1", "standard"): 3.75,
    ("n1", "highmem"): 6.5,
    ("n1", "highcpu"): 0.9,
    ("c2d", "highcpu"): 2.0,
    ("c3", "highcpu"): 2.0,
    ("c4", "highcpu"): 2.0,
    ("n4", "highcpu"): 2.0,
}
_NAMED = re.compile(r"([a-z]\d[a-z]?)-(standard|highmem|highcpu)-(\d+)")
_CUSTOM = re.compile(r"(?:([a-z]\d[a-z]?)-)?custom-(\d+)-(\d+)(?:-ext)?")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
    """A machine type.

    Attributes:
      name: as Compute Engine calls it.
      vcpus: number of virtual CPUs.
      memory_gib: of the whole machine.
    """

    name: str
    vcpus: int
    memory_gib: float

    @property
    def headroom_gib(self) -> float:
        """Memory left when all worker processes are at work."""
        return self.memory_gib - SYSTEM_GIB - self.vcpus * PROCESS_GIB


def parse_machine(name: str) -> Machine:
    """Reads a machine type's name.

    Raises:
      UserError: it is none, or one whose memory does not hold the workers.
    """
    if match := _NAMED.fullmatch(name):
        family, kind, count = match.groups()
        vcpus = int(count)
        memory = vcpus * _MEMORY_OF.get((family, kind), _MEMORY[kind])
    elif match := _CUSTOM.fullmatch(name):
        vcpus, memory = int(match[2]), int(match[3]) / 1024
    else:
        raise UserError(
            "--machine_type must be a machine type such as n1-standard-4 or "
            f"n2-custom-4-16384. Received: {name!r}"
        )
    machine = Machine(name=name, vcpus=vcpus, memory_gib=memory)
    if vcpus < 1 or machine.headroom_gib < 0:
        raise UserError(
            f"--machine_type {name} has {memory:.1f} GiB; {vcpus} worker processes "
            f"of {PROCESS_GIB:g} GiB and the system need "
            f"{vcpus * PROCESS_GIB + SYSTEM_GIB:.1f}; choose a standard or highmem one."
        )
    return machine
