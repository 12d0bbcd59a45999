"""`./vmfabric test --seeded-bugs`: each patch beside this file in a scratch copy, and which test catches it."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_PARTS = ("libs", "services", "tests", "conftest.py", "pyproject.toml", "deploy", "docs")
_SEEDS = 400
_SECONDS = 300
_CAUGHT = re.compile(r"^FAILED (\S+)", re.MULTILINE)
_VIOLATED = re.compile(r"^(seed \d+: .*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Bug:
    """A patch, with what it breaks in words and the tests that should see that."""

    patch: Path
    words: str
    tests: list[str]


def bugs() -> Iterator[Bug]:
    """By name."""
    for patch in sorted(Path(__file__).parent.glob("*.patch")):
        words, tests, *_ = patch.read_text().splitlines()
        yield Bug(patch, words, tests.removeprefix("Tests: ").split())


def main(names: list[str]) -> int:
    """1 when a bug was not caught. An error when a patch does not fit any more, or a test fails without any bug."""
    missed = 0
    sound: set[tuple[str, ...]] = set()
    for bug in (bug for bug in bugs() if not names or bug.patch.stem in names):
        begun = time.monotonic()
        if tuple(bug.tests) not in sound:
            _check_without_bug(bug.tests)
            sound.add(tuple(bug.tests))
        caught = _caught(bug)
        missed += caught is None
        took = time.monotonic() - begun
        sys.stdout.write(
            f"{'caught' if caught else 'MISSED'}  {bug.words}\n        {caught or bug.patch.name}, {took:.0f} s\n"
        )
        sys.stdout.flush()
    sys.stdout.write(f"{missed} missed\n")
    return int(missed > 0)


def _check_without_bug(tests: list[str]) -> None:
    """RuntimeError when they fail without a bug: then they say nothing about one."""
    with _copy() as copy:
        if (failed := _first_failure(copy, tests)) is not None:
            raise RuntimeError(f"{failed} fails without any bug; mend that first")


def _caught(bug: Bug) -> str | None:
    """The first test that fails in a copy that has the bug."""
    with _copy() as copy:
        subprocess.run(["git", "apply", str(bug.patch)], cwd=copy, check=True)
        return _first_failure(copy, bug.tests)


@contextmanager
def _copy() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="vmfabric-bug-") as name:
        copy = Path(name)
        for part in _PARTS:
            source = _ROOT / part
            if source.is_dir():
                shutil.copytree(source, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, copy / part)
        yield copy


def _first_failure(copy: Path, tests: list[str]) -> str | None:
    sources = [str(source) for source in sorted(copy.glob("*/*/src"))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sources, str(copy / "tests")])}
    simulate = [sys.executable, "-m", "simulation", "--seeds", str(_SEEDS)]
    test = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(
        simulate if tests == ["simulate"] else test,
        cwd=copy, env=environment, capture_output=True, text=True, check=False, timeout=_SECONDS,
    )  # fmt: skip
    found = (_VIOLATED if tests == ["simulate"] else _CAUGHT).search(done.stdout)
    if done.returncode and found is None:
        raise RuntimeError(
            f"{' '.join(tests)} ended with {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    return found.group(1) if found else None


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
