"""Certify the samplers of other projects (peers) that options --peer name, each in a child process, and store the
verdicts."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from repro.certify.isolated import isolated
from repro.certify.peers.catalogue import EFFORTS, PEERS, Level, Peer, Sampler, peer
from repro.certify.peers.defects import DEFECTS
from repro.certify.peers.imports import absent
from repro.certify.verdict import Certificate, Effort
from repro.core.checkouts import commit
from repro.core.errors import nearest
from repro.core.files import write_text
from repro.results.certified_peers import FILE, read_peers, word

LOADER = "repro.certify.peers.catalogue:load"


@dataclass(frozen=True)
class Given:
    """Another project (peer) as an option --peer names it: `name` and entry in the catalogue (`peer`), its folder
    (None: an installed package), its version (a release, or a commit) and the samplers that are wanted."""

    name: str
    peer: Peer
    folder: Path | None
    version: str
    samplers: tuple[Sampler, ...]


def given(text: str) -> Given:
    """The peer that `text`, NAME[:SAMPLER,...][=FOLDER], names; ValueError for an unknown peer or sampler, a package
    that is not installed, and a folder without a sampler's file (below src, if the peer is a package)."""
    left, equals, place = text.partition("=")
    name, colon, wanted = left.partition(":")
    found = peer(name)
    samplers = found.samplers
    if colon:
        known = {one.name: one for one in samplers}
        for one in wanted.split(","):
            if one not in known:
                raise ValueError(f"{name} has no sampler {one!r}; {nearest(one, list(known))}")
        samplers = tuple(known[one] for one in dict.fromkeys(wanted.split(",")))
    if found.package and not equals:
        if importlib.util.find_spec(found.package) is None:
            raise ValueError(
                f"--peer {name}: package {found.package} is not installed; install it, or give a checkout:"
                f" --peer {name}=FOLDER"
            )
        return Given(name, found, None, importlib.metadata.version(found.package), samplers)
    if not place:
        raise ValueError(
            f"--peer {name} needs the folder of a checkout: --peer {name}=FOLDER ({found.repository})"
        )
    folder = Path(place)
    files = [
        "/".join(("src", *one.file.split("."))) + ".py" if found.package else one.file for one in samplers
    ]
    for file in files:
        if not (folder / file).is_file():
            raise ValueError(
                f"--peer {name}: {folder / file} is missing; give a checkout of {found.repository}"
            )
    return Given(name, found, folder.resolve(), commit(folder, files) or "", samplers)


def certify_peers(
    wanted: Sequence[str],
    out: Path,
    seconds: int | None,
    as_json: bool,
    efforts: Mapping[Level, Effort] = EFFORTS,
) -> int:
    """Certify the samplers of peers, print a line for each and store them in `out`/peers.json, where rows of other
    samplers stay; returns 1 if a claim does not stand or a sampler fails, else 0. `wanted`: values of --peer (see
    `given`); `seconds`: limit of wall time of each sampler; `as_json`: whether its row is printed as JSON; `efforts`:
    sample sizes by the `level` of a sampler."""
    peers = [given(text) for text in wanted]
    stored = {_key(row): row for row in read_peers(out)}
    good = True
    for one in peers:
        for sampler in one.samplers:
            effort = efforts[sampler.level]
            row = certified(one, sampler, replace(effort, seconds=float(seconds)) if seconds else effort)
            stored[_key(row)] = row
            good = good and row["stands"] is True
            where = f"{row['file']}:{row['function']}"
            line = f"{one.name} {sampler.name:<22} {where}, {row['version'][:7]}, claims {row['claims']}: {word(row)}"
            print(line, file=sys.stderr if as_json else sys.stdout, flush=True)
            if as_json:
                print(json.dumps(row), flush=True)
            write_text(out / FILE, json.dumps(sorted(stored.values(), key=_place), indent=1) + "\n")
    return 0 if good else 1


def _key(row: Mapping[str, Any]) -> tuple[str, str, bool]:
    """Key by which a row of peers.json is found and replaced: peer, sampler, and whether the version is a release (has
    a dot) rather than a commit."""
    return row["peer"], row["sampler"], "." in row["version"]


def _place(row: Mapping[str, Any]) -> tuple[int, int, bool]:
    """Sort key of a row of peers.json: its place in the catalogue, a release before a commit; peers and samplers that
    the catalogue no longer has come last."""
    names = list(PEERS)
    if row["peer"] not in names:
        return len(names), 0, False
    samplers = [one.name for one in PEERS[row["peer"]].samplers]
    place = samplers.index(row["sampler"]) if row["sampler"] in samplers else len(samplers)
    return names.index(row["peer"]), place, "." not in row["version"]


def certified(one: Given, sampler: Sampler, effort: Effort) -> dict[str, Any]:
    """The row of peers.json for a sampler of the peer `one`, which is certified in a child process with the sample
    sizes `effort`; if the sampler cannot be run to its end, `stands` is None and `error` says why."""
    row = {
        "peer": one.name,
        "repository": one.peer.repository,
        "version": one.version,
        "sampler": sampler.name,
        "file": sampler.file,
        "function": sampler.function,
        "settings": dict(sampler.settings),
        "noise": sampler.noise,
        "meaning": sampler.meaning,
        "claims": sampler.claims,
        "source": sampler.source,
        "defect": DEFECTS.get((one.name, sampler.name), ""),
        "stand_ins": absent(one.peer.stands_in),
    }
    try:
        found = isolated(f"{one.name}:{sampler.name}={one.folder or ''}", None, effort, LOADER)
    except ValueError as error:
        return row | _outcome(None, error=str(error))
    return row | _outcome(found)


def _outcome(found: Certificate | None, error: str = "") -> dict[str, Any]:
    if found is None:
        return {"stands": None, "refused_by": [], "says": [], "total_variation": None, "steps": None} | {
            "notes": [],
            "error": error,
        }
    failed = [check for check in found.checks if not check.stands]
    distances = [number for number in found.evidence if number.statistic == "total variation"]
    last = distances[-1] if distances else None
    return {
        "stands": found.stands,
        "refused_by": [check.name for check in failed],
        "says": [check.says for check in failed],
        "total_variation": last and last.value,
        "steps": last and last.steps,
        "notes": list(found.notes),
        "error": "",
    }
