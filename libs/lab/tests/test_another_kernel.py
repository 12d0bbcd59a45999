"""Commands on this machine's files, under a kernel that is not this machine's."""

import platform
from pathlib import Path

import pytest

from vmfabric.lab import another_kernel
from vmfabric.lab.errors import LabError

pytestmark = [pytest.mark.lab, pytest.mark.timeout(400)]  # the first run downloads the kernel


def test_a_command_finds_the_machines_files_and_another_kernel_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "here").write_text("of the machine\n")
    commands = (
        f"cat {tmp_path}/here && touch {tmp_path}/there && uname -r && echo $WORD",
        "ip link add br0 type bridge vlan_filtering 1 && ip link add link br0 name br0.7 type vlan id 7",
        "printf end; exit 7",
    )
    ended = another_kernel.run("sh", "-c", " && ".join(commands), environment={"WORD": "a 'word'"})
    assert ended.status == 7, ended.said
    read, release, word, last = ended.said.splitlines()
    assert read == "of the machine"
    assert release != platform.release()
    assert word == "a 'word'"
    assert last == "end"
    assert [it.name for it in tmp_path.iterdir()] == ["here"]


def test_a_command_that_takes_the_kernel_with_it_is_told_with_what_it_has_said() -> None:
    with pytest.raises(LabError, match=r"did not end, but its kernel did: .*so far"):
        another_kernel.run("sh", "-c", "echo so far; echo o >/proc/sysrq-trigger; exec sleep 100")
