"""Certificates: correct programs pass, wrong ones fail for the stated reason, and bad input exits with 2 and one line.

Foreign code is that of examples/certify. Random streams are keyed, so each test always gives the same result.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from repro import certify
from repro.certify import foreign, isolated, loss, presets, sampler
from repro.certify.__main__ import main
from repro.certify.long import strong, true_rows
from repro.certify.oracle import OracleDenoiser, oracle_denoiser
from repro.certify.reference import ancestral
from repro.certify.replay import replay, uniform_path
from repro.certify.space import HmmSource, NoisyLogits, Space, UnigramMixture, tiny, total_variation
from repro.certify.verdict import FULL
from repro.core import parts, rng
from repro.core.cli import run
from repro.core.files import ROOT
from repro.results import certificates
from repro.samplers.ancestral import Ancestral
from repro.samplers.decoder import Decoder
from repro.samplers.ordered import LowConfidence, Margin
from repro.samplers.plan import Plan
from repro.samplers.presets import PRESETS

EXAMPLES = ROOT / "examples" / "certify"
SMALL = replace(
    FULL,
    rows=50_000,
    last_rows=50_000,
    steps=(1, 16, 64),
    spoiled_rows=500,
    spoiled_steps=2,
    long_rows=600,
    long_steps=(1, 32),
    row_calls=12,
    small_calls=80,
    loss_repeats=500,
    seconds=600.0,
)


def example(name: str, noise=None) -> foreign.Foreign:
    """The function `FILE:NAME` of examples/certify."""
    file, _, function = name.partition(":")
    return foreign.read(foreign.load(f"{EXAMPLES / file}.py:{function}"), noise, 600.0)


# --- spaces and references ----------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", ["absorbing", "uniform"])
def test_matrices_and_the_decoding_loop_give_one_law(noise):
    """The law of ancestral sampling by matrices equals that by enumeration of the decoding loop."""
    for steps in (1, 4):
        by_matrix = ancestral(tiny(3), noise, steps)
        by_loop = presets.output_law(Ancestral(), noise, tiny(3), None, steps)
        assert total_variation(by_matrix.law, by_loop) < 1e-8
        kl = (tiny(3).law * (tiny(3).law / by_matrix.law).log()).sum().item()
        assert kl <= by_matrix.path_kl + 1e-12
        assert (kl == pytest.approx(by_matrix.path_kl)) == (steps == 1)


@pytest.mark.parametrize("noise", ["absorbing", "uniform"])
def test_the_mean_follows_bayes_rule(noise):
    """x0_mean equals Bayes' rule over all sentences with the token's own channel, a check of the conversion."""
    source = tiny(2)
    states = torch.tensor([[0, 1], [2, 2]]) if noise == "uniform" else torch.tensor([[0, 3], [3, 3]])
    alpha = torch.full((2,), 0.4, dtype=torch.float64)
    seen = source.channel(noise, states, alpha)[:, torch.arange(2), source.sentences].prod(-1)
    joint = source.law * seen
    one_hot = torch.nn.functional.one_hot(source.sentences, 3).double()
    bayes = torch.einsum("ns,slv->nlv", joint / joint.sum(1, keepdim=True), one_hot)
    assert (Space(noise, source, "x0_mean").denoise(states, 0.6) - bayes).abs().max() < 1e-12
    loo = Space(noise, source, "leave_one_out").denoise(states, 0.6)
    assert (noise == "absorbing") == bool((loo - bayes).abs().max() < 1e-12)


def test_spoiled_denoisers_are_wrong_by_their_level():
    source, ids = tiny(3), torch.tensor([[3, 0, 3], [3, 3, 3]])
    exact = Space("absorbing", source, "x0_mean").denoise(ids, 0.5)
    wrong = [
        (Space("absorbing", source, "x0_mean", spoil).denoise(ids, 0.5) - exact).abs().max().item()
        for spoil in (
            UnigramMixture(0.0),
            UnigramMixture(0.1),
            UnigramMixture(0.2),
            NoisyLogits(0.0),
            NoisyLogits(0.5),
        )
    ]
    assert wrong[0] == 0 and wrong[2] == pytest.approx(2 * wrong[1])
    assert wrong[3] < 1e-12 < 0.01 < wrong[4]


def test_replay_gives_the_enumerated_law():
    """DUEL: exp(log q) of every sentence is its enumerated probability; a random order gives only a bound."""
    source, plan = tiny(3), Plan(gen_length=3, block_length=3, steps=2)
    denoiser = oracle_denoiser("absorbing", source)

    def of(rule):
        return replay(Decoder(denoiser, denoiser.process, rule, plan, [[]] * 27), source.sentences)

    with torch.no_grad():
        margin, drawn = of(Margin(temperature=1.0)), of(Ancestral())
        listed = presets.output_law(Margin(temperature=1.0), "absorbing", source, None, 2)
        assert margin is not None and margin.exact and total_variation(margin.logq.exp(), listed) < 1e-12
        assert drawn is not None and not drawn.exact
        assert of(Margin(temperature=0.0)) is None


def test_both_path_kls_agree_for_one_step():
    """With one step the path KL is the total correlation of the language under either noise."""
    x = true_rows(20)
    denoiser = oracle_denoiser("absorbing", HmmSource(strong()))
    plan = Plan(gen_length=32, block_length=32, steps=1)
    with torch.no_grad():
        replayed = replay(Decoder(denoiser, denoiser.process, Ancestral(), plan, [[]] * 20), x)
        assert replayed is not None
        absorbing = strong().log_likelihood(x) - replayed.logq
        assert (uniform_path(1, 20) - absorbing).abs().max() < 1e-9
        assert 0 < uniform_path(4, 20).mean() < 0.4 * absorbing.mean()


# --- the statistics of the verdict --------------------------------------------------------------------------


def counts_of(law: torch.Tensor, rows: int, trial: int) -> torch.Tensor:
    u = rng.uniform(rng.keys(trial, rng.TOKEN, 0, torch.arange(rows)))
    return torch.bincount(rng.choose(law.expand(rows, -1), u), minlength=len(law))


def test_a_converging_law_passes_and_the_stated_bias_is_seen():
    """The finite-step law of ancestral sampling never fails; one at the printed total variation nearly always does."""
    source = tiny(3)
    near = ancestral(source, "uniform", SMALL.steps[-1]).law
    assert total_variation(near, source.law) > 0.005

    def check(law, trial):
        counts = counts_of(law, SMALL.last_rows, trial)
        return sampler._law(source, "uniform", {16: counts, SMALL.steps[-1]: counts}, SMALL.steps[-1])

    passed = [check(near, trial) for trial in range(20)]
    assert all(found.stands for found in passed)
    seen = float(passed[0].minimum_detectable.split("of ")[1].split(" ")[0])
    # a bias proportional to the law is the hardest to detect at this total variation
    sign = torch.where(source.law.cumsum(0) < 0.5, 1.0, -1.0)
    up = source.law[sign > 0].sum()
    off = source.law * torch.where(sign > 0, 1 + seen / up, 1 - seen / (1 - up))
    assert total_variation(off, source.law) == pytest.approx(seen)
    assert sum(not check(off, trial).stands for trial in range(20)) >= 17
    half = source.law + (off - source.law) / 4
    assert sum(not check(half, trial).stands for trial in range(20)) <= 1


def test_a_mean_of_draws_is_corrected_for_jensen():
    """exp(-mean of few noisy draws) is too large on average; after the correction it is not."""
    law = tiny(2).law
    noise = 4 * rng.normal(rng.keys(0, rng.NOISE, 0, torch.arange(400)), 32, len(law))
    corrected, naive = [], []
    for trial in noise:
        by_call = -law.log() + trial
        means = loss.Means(by_call.mean(0), by_call)
        corrected.append(loss._sum(means)[0])
        naive.append((-means.mean).exp().sum().item())
    assert sum(naive) / 400 > 1.2 and abs(sum(corrected) / 400 - 1) < 0.06


# --- samplers -----------------------------------------------------------------------------------------------


def failing(name: str, noise=None, effort=SMALL) -> list[str]:
    """Names of the checks on an enumerated space that fail."""
    read = example(name, noise)
    return [
        check.name for n in read.noises for check in sampler._listed(read, n, effort)[0] if not check.stands
    ]


def test_correct_samplers_pass():
    for name in ("ancestral:sample", "orders:random", "orders:greedy", "uniform:duo"):
        assert failing(name) == [], name


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("uniform:duo_of_mean", "law at 64 steps, uniform"),
        ("orders:off_by_one", "law at 64 steps, absorbing"),
        ("orders:low_confidence", "law at 64 steps, absorbing"),
        ("orders:one_short", "noise left, absorbing"),
    ],
)
def test_wrong_samplers_fail(name, check):
    assert check in failing(name)


@pytest.mark.slow
def test_a_float32_race_draws_no_rare_token():
    """500 ids of 1e-8 (docs/method.md#oracle-34); on an enumerated space the same race passes."""
    few = replace(SMALL, rare_rows=2_400_000)
    assert failing("ancestral:single") == []
    with torch.no_grad():
        single = sampler._rare(example("ancestral:single"), "absorbing", few)
        double = sampler._rare(example("ancestral:sample"), "absorbing", few)
    assert not single.stands and "float32" in single.says
    assert double.stands


def test_rows_that_share_a_draw_or_a_seed_fail():
    def shared(space, n, steps, seed):
        """Every sentence of a call occurs 50 times."""
        ids = foreign.load(f"{EXAMPLES / 'ancestral.py'}:sample")(space, -(-n // 50), steps, seed)
        return ids.repeat_interleave(50, 0)[:n]

    def fixed_seed(space, n, steps, seed):
        return foreign.load(f"{EXAMPLES / 'ancestral.py'}:sample")(space, n, steps, 0)

    for function, check in (
        (shared, "spread of calls, 8 steps, absorbing"),
        (fixed_seed, "seeds, absorbing"),
    ):
        function.claims, function.meaning = "law", "x0_mean"
        read = foreign.read(function, "absorbing", 600.0)
        checks, _ = sampler._listed(read, "absorbing", replace(SMALL, steps=(1, 2, 16), call_rows=5_000))
        assert check in [check.name for check in checks if not check.stands]


def test_modes_must_be_likely():
    def flat(space, n, steps, seed):
        return torch.randint(space.vocab, (n, space.length), generator=torch.Generator().manual_seed(seed))

    flat.claims, flat.meaning = "mode", "x0_mean"
    checks, _ = sampler._listed(foreign.read(flat, "uniform", 600.0), "uniform", SMALL)
    assert [check.stands for check in checks] == [False]


def test_long_sentences_are_tested():
    """An error that only long sentences show: their last tokens are reversed."""
    from repro.certify.long import long_checks

    right = example("ancestral:sample")

    def backwards(space, n, steps, seed):
        ids = right.call(space, n, steps, seed)
        if space.length > 8:
            ids[:, -8:] = ids[:, -8:].flip(1)
        return ids

    with torch.no_grad():
        good, numbers = long_checks(right, "absorbing", SMALL, 4.0)
        bad, _ = long_checks(replace(right, call=backwards), "absorbing", SMALL, 4.0)
    assert all(check.stands for check in good) and not any(check.stands for check in bad)
    assert numbers[0].value > 100 * abs(numbers[0].true or 0)


def test_the_scheduler_of_diffusers():
    """It converges at temperature 1, and does not at its default, 0."""
    quick = replace(SMALL, rows=10_000, last_rows=10_000, spoiled_rows=100, steps=(4, 16, 64))
    far = {}
    for name in ("temperature_1", "default"):
        checks, evidence = sampler._listed(example(f"diffusers_ddim:{name}", "uniform"), "uniform", quick)
        far[name] = [e.value for e in evidence if e.oracle == "exact" and e.statistic == "total variation"]
        assert [check.stands for check in checks if check.name.startswith("law at 64")] == [
            name == "temperature_1"
        ]
    assert far["temperature_1"][0] > 2.5 * far["temperature_1"][1] and min(far["default"]) > 0.15


# --- losses -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "stands"),
    [
        ("masked_exact", True),
        ("masked_without_tail", False),
        ("dependent", False),
        ("masked", True),
        ("cut", False),
    ],
)
def test_losses(name, stands):
    found = certify(foreign.load(f"{EXAMPLES / 'losses.py'}:{name}"), effort=SMALL)
    assert found.stands == stands
    total = next(e.value for e in found.evidence if e.oracle == "exact")
    if name == "masked_exact":
        assert total == pytest.approx(1, abs=1e-6) and "proper" in found.notes[0]
    if name == "dependent":
        assert total > 1.4


def test_a_loss_may_stratify_its_times_over_a_call():
    """With one t per stratum in row order, unshuffled sentences would each get their own range of times."""

    def stratified(space, x0, seed):
        generator = torch.Generator().manual_seed(seed)
        t = (torch.arange(len(x0)) + torch.rand(1, dtype=torch.float64, generator=generator)) / len(x0)
        hidden = torch.rand(x0.shape, dtype=torch.float64, generator=generator) < t[:, None]
        p = space.denoise(x0.masked_fill(hidden, space.mask), t).gather(2, x0[:, :, None])[:, :, 0]
        return (-p.log() * hidden).sum(1) / t

    stratified.claims, stratified.meaning, stratified.draws = "bound", "x0_mean", "random"
    means = loss._means(foreign.read(stratified, None, 600.0), Space("absorbing", tiny(2), "x0_mean"), SMALL)
    error = means.by_call.std(0) / len(means.by_call) ** 0.5
    assert ((means.mean + tiny(2).law.log()).abs() < 5 * error).all() and error.max() < 0.2


def improper(space, x0, seed):
    """Rewards confidence: cross-entropy plus the entropy of the prediction (as docs/method.md#symmetric-kl)."""
    p = space.denoise(torch.full_like(x0, space.mask), 1.0)
    entropy = -torch.special.xlogy(p, p).sum(-1)
    return (entropy - p.gather(2, x0[..., None])[..., 0].log()).sum(1)


def test_an_improper_score_is_reported():
    improper.claims, improper.meaning, improper.draws = "mode", "x0_mean", "exact"
    found = certify(improper, effort=SMALL)
    assert found.stands and "improper, conditionals sharper" in found.notes[0]
    proper = foreign.load(f"{EXAMPLES / 'losses.py'}:masked_exact")
    fake = lambda space, x0, seed: proper(space, x0, seed)  # noqa: E731
    fake.claims, fake.meaning, fake.draws = "mode", "x0_mean", "exact"
    assert not certify(fake, effort=SMALL).stands


def test_a_likelihood_sums_to_one():
    def chain(space, x0, seed):
        nats = torch.zeros(len(x0), dtype=torch.float64)
        for place in range(space.length):
            hidden = torch.arange(space.length) >= place
            p = space.denoise(x0.masked_fill(hidden, space.mask), 0.5)[:, place]
            nats -= p.gather(1, x0[:, place : place + 1])[:, 0].log()
        return nats

    chain.claims, chain.meaning, chain.draws = "law", "x0_mean", "exact"
    assert certify(chain, effort=SMALL).stands
    half = lambda space, x0, seed: chain(space, x0, seed) + 0.01  # noqa: E731
    half.claims, half.meaning, half.draws = "law", "x0_mean", False
    assert not certify(half, effort=SMALL).stands


# --- bad input ----------------------------------------------------------------------------------------------

HEAD = "import torch\n"
TAIL = "\nf.claims, f.meaning = 'law', 'x0_mean'\n"
MASKS = "torch.full((n, space.length), space.mask)"


def here(target, noise, effort):
    """`isolated.isolated` in this process, which spares its start."""
    return certify(foreign.load(target), noise, effort)


@pytest.fixture
def line(tmp_path, monkeypatch, capsys):
    """`line(CODE)`: the single error line of `python -m repro.certify FILE.py:f` with exit code 2."""

    def of(code: str | None, *flags: str, name: str = "f") -> str:
        monkeypatch.setattr(isolated, "isolated", here)
        path = tmp_path / "theirs.py"
        if code is not None:
            path.write_text(HEAD + code)
        monkeypatch.setattr(sys, "argv", ["repro.certify", f"{path}:{name}", *flags])
        with pytest.raises(SystemExit) as end:
            run(main, "repro.certify")
        out, err = capsys.readouterr()
        assert (
            end.value.code == 2 and out == "" and err.startswith("repro.certify: ") and err.count("\n") == 1
        )
        return err

    return of


def test_bad_files_give_one_line(line):
    assert "no file" in line(None)
    assert "has no 'f'; nearest is 'ff'" in line("def ff(space, n, steps, seed): pass")
    assert "import of" in line("import nothing_of_that_name") and "ModuleNotFoundError" in line("import nix")
    assert "raised SystemExit" in line("raise SystemExit(3)")
    assert "f.claims is missing" in line("def f(space, n, steps, seed): pass")
    assert "f.draws is missing" in line(
        "def f(space, x0, seed): pass\nf.claims, f.meaning = 'bound', 'x0_mean'"
    )
    assert "'x0_mean' or 'leave_one_out'" in line(
        "def f(space, n, steps, seed): pass\nf.claims, f.meaning = 'law', 'mean'"
    )
    assert "a sampler has 'law' or 'mode'" in line(
        "def f(space, n, steps, seed): pass\nf.claims, f.meaning = 'bound', 'x0_mean'"
    )
    assert "has an unknown signature" in line("def f(space, n): pass" + TAIL)
    assert "is not a function" in line("f = 3")
    assert "is too few to detect a bias" in line(
        f"def f(space, n, steps, seed): return {MASKS}" + TAIL, "--rows", "10"
    )


def test_bad_results_give_one_line(line):
    def of(body: str) -> str:
        return line(f"def f(space, n, steps, seed):\n    {body}" + TAIL, "--noise", "absorbing")

    assert "must return integer ids [25000, 3], not int64 [25000, 2]" in of(f"return {MASKS}[:, :2]")
    assert "not float32" in of(f"return {MASKS}.float()")
    assert "not int64 [0, 3]" in of(f"return {MASKS}[:0]")
    assert "ids [25000, 3], not NoneType (" in of("return None")
    assert "ids [25000, 3], not list (" in of("return [['a'] * 3] * n")
    assert "raised KeyError at line 3 of theirs.py: 'late'" in of(
        "return {'rest': 0}['late'] if seed > 1000 else torch.randint(3, (n, 3))"
    )
    assert "returned ids 7 to 7; valid: 0 to 3" in of(f"return {MASKS} + 4")
    assert "raised ZeroDivisionError at line 3 of theirs.py" in of("return 1 / 0")
    assert "raised SystemExit" in of("import sys; sys.exit(0)")
    assert "denoise takes t in [0, 1]" in of(f"return space.denoise({MASKS}, 2.0)")
    assert "denoise takes ids 0 to 3, got 9 to 9" in of(f"return space.denoise(0 * {MASKS} + 9, .5)")
    nan = "def f(space, x0, seed): return (space.mask * x0[:, 0] * torch.nan)\n"
    says = line(nan + "f.claims, f.meaning, f.draws = 'bound', 'x0_mean', 'exact'")
    assert "returned nan nats for the sentence [0, 0, 0]" in says


def test_slow_code_gives_one_line(line):
    slow = (
        f"def f(space, n, steps, seed):\n    for _ in range(20000): torch.rand(100)\n    return 0 * {MASKS}"
    )
    assert "give more than --seconds 0" in line(slow + TAIL, "--seconds", "0", "--noise", "absorbing")


def test_the_noise_is_inferred():
    def of(body):
        def f(space, n, steps, seed):
            return torch.zeros(n, space.length, dtype=torch.int64) + body(space)

        f.claims, f.meaning = "law", "x0_mean"
        return foreign.read(f, None, 60.0).noises

    assert of(lambda space: 0 * space.mask) == ("absorbing",)
    assert of(lambda space: 0) == ("uniform",)
    assert of(lambda space: 0 if space.noise == "uniform" else space.mask) == ("absorbing", "uniform")
    assert of(lambda space: 0 * space.mask if space.noise == "absorbing" else 1 / 0) == ("absorbing",)
    with pytest.raises(ValueError, match="ZeroDivisionError"):
        of(lambda space: 1 // 0)


def test_foreign_output_goes_to_stderr(tmp_path, capfd):
    path = tmp_path / "loud.py"
    text = (
        (EXAMPLES / "losses.py")
        .read_text()
        .replace(
            "def masked_exact(space, x0, seed):", "def masked_exact(space, x0, seed):\n    print('hello')"
        )
    )
    path.write_text("print('hello')\n" + text)
    assert main([f"{path}:masked_exact", "--json"]) == 0
    out, err = capfd.readouterr()
    found = json.loads(out)
    assert found["stands"] and found["checks"] and "does not" not in found["paragraph"] and "hello" in err
    assert main([f"{path}:dependent"]) == 1
    assert "DOES NOT STAND" in capfd.readouterr().out


RIGHT = """
import sys
from dataclasses import dataclass
import torch
sys.path.append({examples!r})

@dataclass
class Settings:
    weight: float = 1.0

buffer = torch.zeros(100_000, dtype=torch.float64)

def f(space, x0, seed):
    from losses import masked_exact  # a late import from the same folder
    out = buffer[: len(x0)]
    out.copy_(Settings().weight * masked_exact(space, x0, seed))
    return out

f.claims, f.meaning, f.draws, f.noises = "bound", "x0_mean", "exact", ["absorbing"]
"""


def test_dataclasses_late_imports_and_reused_buffers_are_right(tmp_path):
    (tmp_path / "theirs.py").write_text(RIGHT.format(examples=str(EXAMPLES)))
    found = isolated.isolated(f"{tmp_path}/theirs.py:f", None, SMALL)
    assert found.stands, found.text()


@pytest.mark.parametrize(
    ("name", "says"), [("exits", "ended by itself with exit code 0"), ("hangs", "was still running after")]
)
def test_code_that_never_answers_gets_a_verdict(name, says, monkeypatch, capsys):
    monkeypatch.setattr(isolated, "GRACE", 2.0)
    assert (
        main([f"{EXAMPLES / 'wrong_samplers.py'}:{name}", "--seconds", "30" if "ended by" in says else "6"])
        == 1
    )
    out = capsys.readouterr().out
    assert "DOES NOT STAND" in out and says in out


HANGS = """
import ctypes, os, pathlib
class hangs:
    def __init__(self): pathlib.Path({pid!r}).write_text(str(os.getpid())); {call}
hangs()
"""


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("call", ["ctypes.CDLL(None).sleep(300)", "ctypes.PyDLL(None).sleep(300)"])
def test_the_child_ends_with_its_parent(sent, call, tmp_path):
    """Also where the call holds the interpreter's lock (PyDLL), so that no thread of the child can run."""
    pid = tmp_path / "pid"
    (tmp_path / "theirs.py").write_text(HANGS.format(pid=str(pid), call=call))
    parent = subprocess.Popen(
        [sys.executable, "-m", "repro.certify", f"{tmp_path}/theirs.py:hangs"],
        cwd=ROOT,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # ignored in background jobs of a shell
    )
    wait_for(lambda: pid.exists() and pid.read_text())
    parent.send_signal(sent)
    assert parent.wait(10) == (130 if sent == signal.SIGINT else -sent)
    child = Path("/proc") / pid.read_text()
    wait_for(lambda: not child.exists() or "Z (zombie)" in (child / "status").read_text())


def wait_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_what_the_code_prints_does_not_spoil_the_json(tmp_path):
    """By print, by the system call, and by C's buffered output."""
    loud = 'import ctypes, os\nprint("{")\nos.write(1, b"}")\n'
    loud += 'c = ctypes.CDLL(None)\nc.puts(b"[")\nc.fflush(None)\n'
    (tmp_path / "theirs.py").write_text(
        loud + "def f(space, n, steps, seed): os._exit(3)\nf.claims, f.meaning = 'law', 'x0_mean'\n"
    )
    command = [sys.executable, "-m", "repro.certify", f"{tmp_path}/theirs.py:f", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1 and "exit code 3" in json.loads(done.stdout)["checks"][0]["says"]
    assert "{" in done.stderr


@pytest.mark.parametrize("group", ["wrong", "right"])
def test_the_stored_controls_are_those_of_today(group):
    """Each wrong one is seen by a test; 30 right ones of 10 families stand."""
    stored = certificates.read_controls(certificates.FOLDER)[group]
    functions = {
        (kind, family, call.__name__, call.__doc__.splitlines()[0])
        for kind, file in (("sampler", "samplers"), ("loss", "losses"))
        for family, calls in foreign.load(f"{EXAMPLES / group}_{file}.py:FAMILIES").items()
        for call in calls
    }
    assert {(row["kind"], row["family"], row["name"], row["what"]) for row in stored} == functions
    assert all(bool(row["refused_by"]) == (group == "wrong") for row in stored)
    assert len(stored) >= 30
    assert group == "wrong" or len({row["family"] for row in stored}) >= 10


def test_a_right_control_that_is_refused_is_an_error(monkeypatch, tmp_path):
    from scripts import controls

    monkeypatch.setattr(controls, "FOLDER", tmp_path)

    def found(refused_by):
        monkeypatch.setattr(controls, "certified", lambda *control: row | {"name": control[-1]})
        row = {"kind": "sampler", "family": "draws", "what": "W.", "refused_by": refused_by}
        return [controls.main([name]) for name in ("twice", "gumbel")], row | {"name": "gumbel"}

    (wrong, right), row = found([])
    assert (wrong, right) == (1, 0)
    assert "none: stands" in certificates.controls_tables({"wrong": [], "right": [row]})["controls.md"]
    (wrong, right), row = found(["law at 4 steps, uniform"])
    assert (wrong, right) == (0, 1)
    stored = certificates.read_controls(tmp_path)  # the run of the one left that of the other
    assert [row["name"] for group in ("wrong", "right") for row in stored[group]] == ["twice", "gumbel"]
    table = certificates.controls_tables({"wrong": [], "right": [row]})
    assert "| law" in table["controls.md"] and "W.,law at 4 steps" in table["controls.csv"].replace('"', "")


QUICK = replace(
    SMALL, rows=2_000, last_rows=5_000, call_rows=2_500, steps=(1, 16), spoiled_rows=100, loss_repeats=100
)


@pytest.mark.parametrize(
    "name", ["gumbel", "first_hitting", "quotas", "posterior_means", "rewrite", "greedy", "columns_first"]
)
def test_right_samplers_stand(name):
    noise = "uniform" if name == "posterior_means" else "absorbing"
    assert failing(f"right_samplers:{name}", noise, QUICK) == []


@pytest.mark.parametrize(
    "name", ["stratified", "window_and_tail", "any_order", "uniform_steps", "symmetric_kl"]
)
def test_right_losses_stand(name):
    found = certify(foreign.load(f"{EXAMPLES / 'right_losses.py'}:{name}"), effort=QUICK)
    assert found.stands, found.text()


def test_only_unclear_sums_of_random_losses_are_drawn_again():
    bound, exact = example("right_losses:one_time"), example("right_losses:all_subsets")
    of = {errors: loss._unclear(bound, 1 + errors * 0.01, 0.01) for errors in (-3, 1, 3, 5, 7, 50)}
    assert [errors for errors, unclear in of.items() if unclear] == [3, 5]
    assert loss._unclear(replace(bound, claims="law"), 0.97, 0.01) and not loss._unclear(exact, 1.03, 0.01)


def test_listed_conditionals_are_those_of_each_row():
    """Conditionals from a table over all noisy sentences equal Bayes' rule for each row; results are fresh memory."""
    space = Space("uniform", tiny(3), "x0_mean", NoisyLogits(0.5))
    ids = torch.tensor([[0, 1, 2], [2, 2, 0], [0, 1, 2]])
    listed = space.denoise(ids, 0.3)
    listed[0] = 0
    by_row = space.denoise(ids, torch.tensor([0.3, 0.3, 0.6], dtype=torch.float64))
    assert (space.denoise(ids, 0.3)[:2] - by_row[:2]).abs().max() < 1e-12
    assert (space.denoise(ids, 0.6)[2] - by_row[2]).abs().max() < 1e-12 < (by_row[0] - by_row[2]).abs().max()


WRONG = {
    "antithetic": "neighbours, 1 steps",
    "systematic": "spread of calls, 1 steps",
    "seed_halved": "seeds",
    "few_steps": "law at 16 steps",
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_rows_are_seen(name):
    assert any(
        check.startswith(WRONG[name])
        for check in failing(f"wrong_samplers:{name}", effort=replace(SMALL, row_calls=40))
    )


@pytest.mark.parametrize("name", ["block_means", "clamped_weight", "batch_mean"])
def test_defects_of_four_tokens_and_of_batches_are_seen(name):
    read = example(f"wrong_losses:{name}")
    wanted = "batches" if name == "batch_mean" else "bound, absorbing, 4 tokens, exact denoiser"
    failed = [check.name for check in loss.certify_loss(read, SMALL).checks if not check.stands]
    assert any(check.startswith(wanted) for check in failed)


# --- presets ------------------------------------------------------------------------------------------------

LAWFUL = [name for name in presets.names() if presets.preset(name).claim() == "law"]


@pytest.mark.parametrize("name", LAWFUL)
def test_every_preset_that_claims_a_law_has_it(name):
    """On 9 sentences the distance is 0 at one position per step, or falls with every doubling of the steps."""
    rule = presets.preset(name)
    for noise in rule.capabilities.processes:
        if rule.capabilities.plan == "steps":
            far = [
                total_variation(presets.output_law(rule, noise, tiny(2), None, n), tiny(2).law)
                for n in (16, 32)
            ]
            assert far[1] < presets.EXACT or far[0] > presets.FALLS * far[1], (noise, far)
        else:
            steps = 2 if rule.capabilities.plan == "quota" else None
            found = presets.output_law(rule, noise, tiny(2), None, steps)
            assert total_variation(found, tiny(2).law) < presets.EXACT, noise


def test_a_noise_without_an_exact_denoiser_is_refused():
    with pytest.raises(
        ValueError, match="no exact denoiser for gaussian noise, only for absorbing and uniform"
    ):
        presets.certify_rule(PRESETS["ancestral"], "gaussian")


class Boastful(LowConfidence):
    """Low confidence that claims the law at any temperature."""

    def claim(self):
        return "law"


class Hasty(Margin):
    """A rule that commits one position more than its quota."""

    def step(self, state):
        state.quota += 1
        return super().step(state)


@pytest.mark.parametrize("rule", [Boastful(temperature=1.0), Hasty(temperature=1.0)])
def test_wrong_rules_fail(rule, monkeypatch):
    from repro.core import registry

    monkeypatch.setitem(registry.PARTS, "wrong", f"{type(rule).__module__}:{type(rule).__qualname__}")
    monkeypatch.setattr(presets, "SPOILED", {})
    _, verdict = presets.certify_rule(rule, "absorbing")
    assert not verdict["stands"] and verdict["kind"] == "stuck"


def test_the_mean_under_the_plug_in_posterior_is_stuck(monkeypatch):
    """With E[x0 | xt] in Duo's posterior (docs/method.md#uniform-samplers) more steps do not help."""

    def mistaken(noise, source, spoil):
        return OracleDenoiser(Space(noise, source, "x0_mean", spoil))

    monkeypatch.setattr(presets, "SPOILED", {})
    monkeypatch.setattr(presets, "STEPS", (1,))
    monkeypatch.setattr(presets, "DOUBLED", (8, 16, 32))
    assert presets.certify_rule(Ancestral(), "uniform")[1]["kind"] == "converges"
    monkeypatch.setattr(presets, "_oracle", mistaken)
    assert presets.certify_rule(Ancestral(), "uniform")[1]["kind"] == "stuck"


def test_every_preset_has_a_current_certificate():
    stored = {one["preset"]: one["digest"] for one in certificates.read(certificates.FOLDER)}
    wanted = {name: parts.digest(presets.preset(name)) for name in presets.names()}
    apart = {name for name in stored.keys() | wanted.keys() if stored.get(name) != wanted.get(name)}
    assert not apart, (
        f'presets without a current certificate: {apart}; run make accept STEPS="certificates tables"'
    )
    assert set(PRESETS) <= set(stored)


def test_every_stored_claim_stands():
    stored = certificates.read(certificates.FOLDER)
    assert [(one["preset"], v["says"]) for one in stored for v in one["verdicts"] if not v["stands"]] == []


def test_tables_and_figure_are_functions_of_the_certificates(tmp_path):
    from paper_figures import law_error
    from paper_figures.__main__ import draw

    stored = certificates.read(certificates.FOLDER)
    assert certificates.tables(stored) == certificates.tables(stored[::-1])
    assert law_error.query(stored).equals(law_error.query(stored[::-1]))
    assert "<dc:date>" not in draw("law_error", stored)["law_error.svg"]
    assert "No certificates yet" in certificates.tables([])["certificates.md"]
    assert "no certificates yet" in draw("law_error", [])["law_error.svg"]
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(ValueError, match="is not a certificate"):
        certificates.read(tmp_path)
