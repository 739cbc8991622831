"""Speed against peers' own files: `python -m benchmarks --peer llada=FOLDER --peer duo=FOLDER --peer lm_eval`.

FOLDER is a git checkout beside ours. The peer's file is imported from it as it is and runs on the same network as our
code, in turn in one process; nothing of it is kept here. Each row states the commit (or the version of an installed
package) and whether both sides gave the same result. The rewritten loops of `benchmarks.decoding` run too.
Peers that hold [B, L, V] tensors depend on the allocator: beyond 32 MiB glibc returns memory at each free, so every
page is faulted in again, unless MALLOC_MMAP_THRESHOLD_ and MALLOC_TRIM_THRESHOLD_ are large (as in the Makefile).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks import peer_decoding, peer_dllm, peer_duo, peer_harness, peer_likelihood, peer_mdlm
from benchmarks.row import Compared, Row
from repro.certify.peers.diffusion import STANDS_IN
from repro.certify.peers.imports import peer_module
from repro.certify.peers.unmasking import FAST_STANDS_IN
from repro.core.checkouts import commit
from repro.core.errors import nearest

Measure = Callable[[dict[str, Any], int], Iterable[Compared]]
"""Function from a peer's modules (file -> module) and the number of repeats to its rows."""


@dataclass(frozen=True)
class Peer:
    """A peer's `files` below its checkout (none: `package` is installed), the function that makes its rows, and the
    third-party modules that get a stand-in where they are absent.

    `project`: names of modules that `measure` gets in place of `files`, because they import other modules of the
    checkout; of their third-party modules, those in STANDS_IN of repro/certify/peers/diffusion.py (flash_attn,
    lightning and others) get stand-ins where they are not installed; `packages`: packages of the checkout whose
    `__init__` is not run.
    """

    files: tuple[str, ...]
    measure: Measure
    package: str | None = None
    stands_in: tuple[str, ...] = ()
    project: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()


PEERS = {
    "llada": Peer(("generate.py", "get_log_likelihood.py"), peer_likelihood.llada),  # ML-GSAI/LLaDA
    "fast_dllm": Peer(  # NVlabs/Fast-dLLM
        ("llada/generate.py", "llada/eval_llada.py"),
        lambda modules, repeats: [
            *peer_decoding.fast_dllm(modules, repeats),
            *peer_harness.fast_harness(modules["llada/eval_llada.py"], repeats),
        ],
        stands_in=FAST_STANDS_IN,
    ),
    "duo": Peer(  # s-sahoo/duo
        ("algo.py", "trainer_base.py", "utils.py", "metrics.py"), peer_duo.duo, project=("algo",)
    ),
    "mdlm": Peer(  # kuleshov-group/mdlm
        ("diffusion.py", "noise_schedule.py", "utils.py"), peer_mdlm.mdlm, project=("diffusion",)
    ),
    "dllm": Peer(  # ZHZisZZ/dllm
        ("dllm/core/samplers/mdlm.py", "dllm/core/trainers/mdlm.py"),
        peer_dllm.dllm,
        project=(peer_dllm.SAMPLER, peer_dllm.TRAINER),
        packages=peer_dllm.PACKAGES,
    ),
    "lm_eval": Peer((), peer_likelihood.hflm, package="lm_eval"),  # EleutherAI/lm-evaluation-harness
}
"""NAME of `--peer NAME=FOLDER` -> the peer."""


@dataclass(frozen=True)
class PeerRow(Row):
    """A row against a peer's own file: `commit` of the checkout (`repro.core.checkouts.commit`), or the version
    of the package; `equal`: whether both sides gave the same result."""

    peer: str
    commit: str
    equal: bool


@dataclass(frozen=True)
class Checkout:
    """A peer that was asked for: its name and its folder (None: the installed package)."""

    name: str
    folder: Path | None

    @classmethod
    def read(cls, text: str) -> Checkout:
        """The checkout of NAME=FOLDER, or NAME for an installed package; ValueError for an unknown name and for a
        folder without the peer's files."""
        name, equals, folder = text.partition("=")
        if name not in PEERS:
            raise ValueError(f"no peer {name!r}; {nearest(name, PEERS)}")
        peer = PEERS[name]
        if peer.package is not None:
            if equals:
                raise ValueError(f"peer {name} is the installed package {peer.package}; give --peer {name}")
            return cls(name, None)
        if not folder:
            raise ValueError(f"peer {name} needs its checkout; give --peer {name}=FOLDER")
        for file in peer.files:
            if not (Path(folder) / file).is_file():
                raise ValueError(f"{folder} holds no {file}; give --peer {name} a checkout that does")
        return cls(name, Path(folder).resolve())

    def commit(self) -> str:
        """The commit of the checkout or the version of the package; ValueError where there is none."""
        peer = PEERS[self.name]
        if self.folder is None:
            package = peer.package or self.name
            try:
                return f"{package} {version(package)}"
            except PackageNotFoundError:
                raise ValueError(f"peer {self.name} needs the package {package}; install it") from None
        found = commit(self.folder, peer.files)
        if found is None:
            raise ValueError(
                f"{self.folder} is no git checkout of the peer; clone it, so that its commit is known"
            )
        return found

    def rows(self, repeats: int) -> list[PeerRow]:
        """The peer's rows, each timed `repeats` times; ValueError for a file that cannot be imported, and for functions
        that take other arguments than at the commits in results/bench/peers.json."""
        peer, commit, modules = PEERS[self.name], self.commit(), self.modules()
        try:
            found = list(peer.measure(modules, repeats))
        except (TypeError, AttributeError) as error:
            raise ValueError(
                f"{self.name} at {commit} cannot be called as before ({error}); use the commit in"
                " results/bench/peers.json"
            ) from error
        return [PeerRow(**vars(one.row), peer=self.name, commit=commit, equal=one.equal) for one in found]

    def modules(self) -> dict[str, Any]:
        """The modules of the peer's files, or those that `project` names."""
        peer, folder = PEERS[self.name], self.folder
        if folder is None:
            return {}
        if peer.project:
            return {name: peer_module(folder, name, STANDS_IN, peer.packages) for name in peer.project}
        paths = {file: folder / file for file in peer.files}
        return {file: peer_module(path.parent, path.stem, peer.stands_in) for file, path in paths.items()}
