import pytest

from pipeline.cloud.machines import parse_machine
from pipeline.schema import UserError


@pytest.mark.parametrize(
    ("name", "vcpus", "memory"),
    [
        ("n1-standard-4", 4, 15.0),
        ("n2d-standard-8", 8, 32.0),
        ("e2-highmem-2", 2, 16.0),
        ("custom-2-7680", 2, 7.5),
        ("n2-custom-4-16384", 4, 16.0),
    ],
)
def test_reads_names(name, vcpus, memory):
    machine = parse_machine(name)
    assert (machine.vcpus, machine.memory_gib) == (vcpus, memory)


def test_headroom_is_what_the_processes_leave():
    # 15 GiB less 1 for the system and 1.2 for each of four processes.
    assert parse_machine("n1-standard-4").headroom_gib == pytest.approx(9.2)


@pytest.mark.parametrize("name", ["", "large", "n1-standard", "e2-micro", "g1-small"])
def test_refuses_what_is_no_machine_type(name):
    with pytest.raises(UserError, match="must be a machine type such as"):
        parse_machine(name)


@pytest.mark.parametrize("name", ["n1-highcpu-16", "e2-highcpu-8", "custom-4-4096"])
def test_refuses_too_little_memory(name):
    with pytest.raises(UserError, match="choose a standard or highmem one"):
        parse_machine(name)
