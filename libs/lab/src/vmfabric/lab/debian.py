"""Files of Debian's packages, unpacked into a cache and not installed: the machine keeps its own programs, kernel and
services. What some of these do to a machine that they are installed on, at its next boot for one, is not for a test.
"""

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from vmfabric.lab.errors import LabError
from vmfabric.lab.programs import run

T = TypeVar("T")

CACHE = Path("/var/cache/vmfabric-lab")
"""What was downloaded, in a directory for each package; it may be removed at any time."""

_DOWNLOAD_SECONDS = 300.0
_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"


def once_updated(get: Callable[[], T]) -> T:
    """What this gets, the second time when the first fails: what apt knows may be older than what Debian has."""
    try:
        return get()
    except LabError:
        run("apt-get", "-q", "update", seconds=_DOWNLOAD_SECONDS)
        return get()


def files(package: str, wanted: Mapping[str, str], *, release: str | None = None) -> Path:
    """The directory with these files of a package, or directories, each by its pattern in it. Without a release of
    Debian's it is the machine's own. LabError when something of it cannot be had.
    """
    there = CACHE / (package if release is None else f"{package}-{release}")
    if all((there / file).exists() for file in wanted):
        return there
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="unpacking-", dir=CACHE) as name:
        draft = Path(name)
        options = () if release is None else _of_release(release, draft / "apt")
        # apt-get writes into the directory that it runs in.
        run("env", "-C", name, "apt-get", "-q", *options, "download", package, seconds=_DOWNLOAD_SECONDS)
        run("dpkg-deb", "--extract", *map(str, draft.glob("*.deb")), str(draft / "all"))
        chosen = draft / "chosen"
        chosen.mkdir()
        for file, pattern in wanted.items():
            _only(draft / "all", pattern).rename(chosen / file)
        # What an older vmfabric wanted of it may have been less.
        shutil.rmtree(there, ignore_errors=True)
        return chosen.rename(there)


def _of_release(release: str, directory: Path) -> Sequence[str]:
    """Have apt-get know another release, from where the machine's own comes, beside what it knows itself."""
    sites = run("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Label: Debian").split()
    if not sites:
        raise LabError(f"apt knows no archive of Debian's to have {release} from; `apt-get update` may help")
    for place in ("lists/partial", "cache/archives/partial"):
        (directory / place).mkdir(parents=True)
    sources = directory / "sources.list"
    sources.write_text(f"deb [signed-by={_KEYS}] {sites[0]} {release} main\n")
    options = (
        f"-oDir::Etc::SourceList={sources}",
        "-oDir::Etc::SourceParts=/dev/null",
        f"-oDir::State::Lists={directory / 'lists'}",
        f"-oDir::Cache={directory / 'cache'}",
    )
    run("apt-get", "-q", *options, "update", seconds=_DOWNLOAD_SECONDS)
    return options


def _only(directory: Path, pattern: str) -> Path:
    found = list(directory.rglob(pattern))
    if len(found) != 1:
        raise LabError(f"{len(found)} files of the package are {pattern}, and one should be")
    return found[0]
