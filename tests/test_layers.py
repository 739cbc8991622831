"""Import direction (module level): a lower layer never imports a higher one, and results never import torch."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from repro.files import ROOT

LAYERS = [
    {"lazy", "files", "registry", "stats"},
    {"parts"},
    {"rng", "schedules", "command", "record", "checkpoints"},
    {"data", "results", "versions"},
    {"backbones", "processes", "ops", "tables"},
    {"objectives", "samplers", "optim"},
    {"recipe"},
    {"checkpoint", "engines", "track"},
    {"released", "teaching"},
    {"train", "report", "judge", "certificates", "published", "explain", "matching"},
    {"recipes", "flips"},
    {"models"},
    {"evals", "trace", "parity"},
    {"worth"},
    {"watch"},
    {"sample", "bench", "certify", "verify"},
    {"reproduce"},
]
HEIGHT = {name: height for height, layer in enumerate(LAYERS) for name in layer}
LIGHT = (
    "repro.results",
    "repro.stats",
    "repro.record",
    "repro.report",
    "repro.tables.parallelism",
    "repro.tables.speed",
    "repro.tables.speed_text",
    "repro.certificates",
    "repro.judge",
    "repro.published",
    "repro.checkpoints",
    "repro.verify",
    "repro.explain",
    "repro.flips",
    "repro.tables.matched",
    "repro.tables.text_quality",
    "repro.tables.perplexities",
    "paper_figures.__main__",
)


def modules():
    return sorted((ROOT / "repro").rglob("*.py"))


def imports(path):
    """Names of our modules that a file imports at module level, TYPE_CHECKING blocks apart."""
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "repro":
            rest = node.module.split(".")[1:]
            yield from [rest[0]] if rest else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("repro."))


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path):
    here = path.relative_to(ROOT / "repro").parts[0].removesuffix(".py")
    if here == "__init__":
        return
    for name in imports(path):
        assert HEIGHT[name] <= HEIGHT[here], f"{path} (layer {here}) imports {name}"


def test_results_tables_and_figures_never_import_torch():
    probe = f"import sys, {', '.join(LIGHT)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe], cwd=ROOT, check=False).returncode == 0


def test_heights_name_every_module():
    found = {p.relative_to(ROOT / "repro").parts[0].removesuffix(".py") for p in modules()} - {"__init__"}
    assert found == set(HEIGHT)


BANNED = (
    "except Exception",
    "except:",
    "torch.load(",
    "trust_remote_code=True",
    "weights_only=False",
    "import pickle",
)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_unsafe_or_swallowing_code(path):
    """released/pickles.py alone touches pickle, with an unpickler that can name nothing (tests/test_parity.py)."""
    text = path.read_text("utf-8")
    allowed = ("import pickle",) if path == ROOT / "repro" / "released" / "pickles.py" else ()
    assert not [word for word in BANNED if word in text and word not in allowed]
