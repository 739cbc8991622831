"""Launch files, and the command line of a toy run."""

from __future__ import annotations

from pathlib import Path

import yaml
from accelerate.commands import launch

from helpers.toy import overrides
from repro.core.files import ROOT

FOLDER = ROOT / "recipes" / "launch"


def arguments(name: str, out: Path) -> list[str]:
    pins = [word for pin in overrides(name) for word in ("--set", pin)]
    return ["--scale", "nano", *pins, "--seed", "3", "--out", str(out)]


# --- launch files ---------------------------------------------------------------------------------------
def launch_arguments(path: Path):
    """The arguments that `accelerate launch` reads from a launch file before it starts anything.

    Raises ValueError for an unknown key. Within fsdp_config and the like accelerate accepts any key, so those are
    compared with its flags.
    """
    parser = launch.launch_command_parser()
    known = vars(parser.parse_args(["script"])).keys()
    for section, keys in yaml.safe_load(path.read_text()).items():
        for key in keys if isinstance(keys, dict) else ():
            if key not in known:
                raise ValueError(f"{path.name}: no key {section}.{key}")
    given = ["--config_file", str(path), "-m", "repro.recipes.mdlm", "--scale", "nano"]
    return launch._validate_launch_command(parser.parse_args(given))[0]
