"""Each seeded bug still fits the code that it breaks."""

import shutil
import subprocess
from pathlib import Path

import pytest

from bugs.__main__ import Bug, bugs

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("bug", list(bugs()), ids=lambda bug: bug.patch.stem)
def test_the_patch_applies(bug: Bug, tmp_path: Path) -> None:
    changed = [line[6:] for line in bug.patch.read_text().splitlines() if line.startswith("--- a/")]
    assert changed
    for file in changed:
        (tmp_path / file).parent.mkdir(parents=True)
        shutil.copy(ROOT / file, tmp_path / file)
    done = subprocess.run(["git", "apply", bug.patch], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stderr}: make it anew, or take it out when what it broke is gone"


def test_there_are_enough() -> None:
    assert len(list(bugs())) >= 20
