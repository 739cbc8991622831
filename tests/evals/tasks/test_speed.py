"""Speed: counts against a recount by hand, clocks without warm-up, composites of comparable cells only."""

from __future__ import annotations

import csv
import fcntl
import io
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from filelock import FileLock
from helpers.decodings import ABSORBING, BLOCK, CAUSAL, LENGTH, PROMPTS, TOY
from helpers.lm_worlds import EOS, diffusion, tasks
from helpers.spaces import llama
from helpers.synthetic import NUMERICS, right, store, sudoku, timed
from msgspec import structs
from rich.console import Console

from repro.core import parts
from repro.evals.lm.adapter import before_stops
from repro.evals.lm.harness import HarnessTask
from repro.evals.lm.task_selection import find_tasks
from repro.evals.machine import Machine
from repro.evals.perplexity.perplexity import TrainingCurve
from repro.evals.runner import Cell, run_grid
from repro.evals.suites import read_suite
from repro.evals.table import show
from repro.evals.task import Ask
from repro.evals.tasks import speed as clocks
from repro.evals.tasks.speed import DecodingSpeed, outcomes
from repro.evals.work_queue import SERIAL, Busy, SharedQueue
from repro.results import __main__ as results_command
from repro.results import report
from repro.results import store as results
from repro.results.record import make_record
from repro.results.store import Store, collect
from repro.results.tables import parallelism, speed
from repro.results.tables.parallelism import aup, compared, fastest, pins, reference_of
from repro.samplers.autoregressive import Autoregressive
from repro.samplers.decode import decode, steps
from repro.samplers.ordered import LowConfidence, Random
from repro.samplers.plan import Plan, ServedPlan
from repro.samplers.threshold import Threshold
from repro.samplers.trace import Trace

# --- counts -------------------------------------------------------------------------------------------------

RULES = [LowConfidence(temperature=0.0), Random(temperature=1.0), Threshold(threshold=0.3, temperature=1.0)]


def recount(network, process, rule, plan):
    """Positions that a sampler wrote, by row, counted from the frames; filling a row after its end is no write."""
    wrote, start = None, 0
    for decoder, frame in steps(network, process, rule, plan, PROMPTS, seed=1, names=range(3)):
        start = decoder.start
        wrote = frame.changed.clone() if wrote is None else wrote | frame.changed
    return wrote[:, start:].sum(1).tolist()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: parts.canonical(rule)["part"])
def test_committed_positions_are_those_that_a_sampler_wrote(rule):
    """Positions filled after the end of a row do not count as committed or useful."""
    network, less = llama("bidirectional", ABSORBING, TOY, 1), 0
    for stop in range(TOY.size):
        many = None if isinstance(rule, Threshold) else LENGTH
        plan = ServedPlan(gen_length=LENGTH, block_length=BLOCK, steps=many, cache=None, stop=(stop,))
        found = decode(network, ABSORBING, rule, plan, PROMPTS, seed=1, names=range(3))
        assert found.committed.tolist() == recount(network, ABSORBING, rule, plan)
        literal = [row.index(stop) if stop in row else LENGTH for row in found.ids.tolist()]
        assert found.useful.tolist() == literal and (found.useful <= found.committed).all()
        less += int((found.committed < LENGTH).sum())
    assert less > 3


def test_committed_positions_are_those_of_a_trace():
    """Every position whose writing the trace of a row shows counts once."""
    model, early = diffusion(), 0
    for stop in range(0, EOS, 5):
        plan = ServedPlan(gen_length=LENGTH, block_length=BLOCK, steps=LENGTH, cache=None, stop=(stop,))
        how = (model.denoiser, ABSORBING, RULES[1], plan, [[1, 2, 3]])
        seen, shown = Trace(model.data), set()
        for decoder, frame in steps(*how, seed=stop, names=[0], confidence=True):
            shown |= {write.position for write in seen.add(decoder, frame).writes}
        found = decode(*how, seed=stop, names=[0])
        assert found.committed.tolist() == [len(shown)]
        early += len(shown) < LENGTH
    assert early


def test_a_batch_of_mixed_ends_commits_more_than_is_useful_and_less_than_its_length():
    """Left to right, a row commits its text and the id that ends it; the filling after that is not counted."""
    network, rule, mixed = llama("causal", CAUSAL, TOY, 5), Autoregressive(temperature=1.0), 0
    for stop in range(TOY.size):
        plan = ServedPlan(gen_length=LENGTH, block_length=LENGTH, steps=LENGTH, cache=None, stop=(stop,))
        found = decode(network, CAUSAL, rule, plan, PROMPTS, seed=1, names=range(3))
        assert found.committed.tolist() == [min(n + 1, LENGTH) for n in found.useful.tolist()]
        assert found.committed.tolist() == found.cost.forwards.tolist()
        assert found.committed.tolist() == recount(network, CAUSAL, rule, plan)
        mixed += len(set(found.useful.tolist())) > 1 and int(found.committed.sum()) < 3 * LENGTH
    assert mixed > 2


# --- clocks -------------------------------------------------------------------------------------------------


class Clock:
    """A clock that only work advances."""

    def __init__(self):
        self.now = 0.0

    def read(self):
        return self.now

    def slow_at_first(self, cold, warm):
        runs = []

        def work():
            self.now += warm if runs else cold
            runs.append(None)

        return work


def test_warm_up_is_in_no_pass():
    clock = Clock()
    work = [clock.slow_at_first(100.0, 2.0), clock.slow_at_first(3.0, 3.0)]
    taken = clocks.passes(work, 1, 3, clock.read)
    assert taken.seconds == [[2.0, 3.0]] * 3 and clock.now == 115.0


def test_one_thread_is_timed_by_process_time_and_more_by_wall_time(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert clocks.clock(cpu)[0] == "process"
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert clocks.clock(cpu)[0] == "wall" and clocks.device_name(cpu)


# --- the task -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def writing(tmp_path_factory):
    """A model, and its speed at a task whose texts end at '.', at 'q', at EOS, or after 8 ids."""
    folder, patch = tmp_path_factory.mktemp("writing"), pytest.MonkeyPatch()
    patch.setenv("REPRO_RUNS", str(folder))
    model = diffusion()
    (of,) = find_tasks(str(tasks(folder)["writing"]), model)
    pins = {"metric": "exact_match", "filter": "none", "batch": 4, "together": 1, "alone": 3, "warmup": 1}
    yield model, DecodingSpeed(name="speed", of=of, repeats=2, **pins)
    patch.undo()


def asked(limit=None):
    plan = Plan(gen_length=8, block_length=8, steps=4)
    return Ask(Random(temperature=1.0), plan, 0, limit)


def test_a_speed_of_another_device_is_not_reused(writing, tmp_path, monkeypatch):
    """A grid started on one GPU and resumed on another is timed again there, and both records are found afterwards."""
    model, task = writing
    recipe = SimpleNamespace(**vars(model.recipe), digest=lambda: "0" * 64, score="exact")
    model = replace(model, recipe=recipe, digest="0" * 64)
    cell, found = Cell(task, asked(limit=2), "random", "2"), []
    for name in ("A100", "H100", "A100", "H100"):
        monkeypatch.setattr(clocks, "device_name", lambda device, name=name: name)
        ((record, new),) = run_grid(model, read_suite("nano.sudoku"), [cell], Store(tmp_path / "raw"), 4)
        found.append((record.measurements.speed.device, new))
    assert found == [("A100", True), ("H100", True), ("A100", False), ("H100", False)]


def test_an_answer_holds_accuracy_and_counts_and_a_measurement_the_seconds(writing):
    """Sums over the documents are those of the items; both modes count what they decoded, without the warm-up."""
    model, task = writing
    answer = task.answer(model, asked())
    useful = []
    for item in answer.items:
        (text,) = item["found"][0]
        useful.append(len(text))
        assert text == before_stops(text, [".", "q"])
    counts = answer.counts
    assert (counts.rows, counts.committed, counts.forwards) == (6, 48, 24) and counts.useful >= sum(useful)
    assert counts.useful < counts.committed
    assert answer.nfe == 4.0 and answer.tokens_per_nfe == 2.0 and len(answer.outcomes) == 6
    timed = answer.speed
    assert timed.throughput.counts.rows == timed.throughput.batch == 4 and timed.latency.counts.rows == 3
    assert len(timed.throughput.passes) == len(timed.latency.passes) == 2
    assert timed.latency.median <= timed.latency.p95 and timed.engine == "repro"
    assert "speed" not in answer.data() and answer.data()["counts"]["useful"] == counts.useful


def test_processes_share_what_is_not_timed_and_one_times(writing, tmp_path, monkeypatch):
    model, task = writing
    alone, taken = task.answer(model, asked()), []

    def queue():
        return SharedQueue(tmp_path / "chunks" / "q", "question", {"device": "cpu"}, None, lambda: False)

    def timed(task, adapter):
        with pytest.raises(BlockingIOError), open(Machine(tmp_path).path("work")) as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        taken.append(len(adapter.batches))
        return alone.speed

    monkeypatch.setattr(DecodingSpeed, "_timed", timed)
    first, second = queue(), queue()
    first.folder.mkdir(parents=True)
    with FileLock(first.folder / "0-4.lock"), pytest.raises(Busy):
        task.shared(model, asked(), first)
    assert not taken and first.own > 0
    answer = task.shared(model, asked(), second)
    second.close()
    assert taken == [2], "one chunk a batch of 4 rows"
    assert answer.data() == alone.data() and answer.items == alone.items


def test_the_question_holds_what_is_overridden_in_the_timed_task(writing, monkeypatch):
    """A task has the same overridden fields, timed or not, and its pins are resolved."""
    _, task = writing
    assert (
        task.overridden(asked()) == task.of.overridden(asked()) == {"do_sample": [False, "temperature 1.0"]}
    )
    assert task.resolved() == task
    monkeypatch.setattr(type(task.of), "resolved", lambda self: parts.derive(self, {"length": 4}))
    assert task.resolved().of.length == 4 and task.resolved().name == task.name
    assert task.gives("accuracy") and not task.gives("exact_match")


def test_useful_ids_are_those_of_the_text_before_its_end(writing):
    model, task = writing
    adapter = task._adapter(model, asked(), SERIAL)
    for text, until, most, kept in (
        ("abcdefgh", [".", "q"], 8, 8),
        ("ab.defgh", [".", "q"], 8, 2),
        ("abcqef.h", [".", "q"], 8, 3),
        (".bcdefgh", [".", "q"], 8, 0),
        ("abcdefgh", ["fg"], 8, 5),
        ("abcdefgh", [], 3, 3),
    ):
        assert adapter.useful(model.data.encode(text), until, most) == kept, text
    row = [*model.data.encode("abc"), EOS, *model.data.encode("d.fg")]
    assert adapter.useful(row, ["."], 8) == 3


def test_pins_that_time_nothing_and_missing_metrics_raise(writing):
    model, task = writing
    with pytest.raises(ValueError, match="repeats=0: expected a number above 0"):
        parts.derive(task, {"repeats": 0}).answer(model, asked())
    curve = TrainingCurve(name="training", points=4)
    with pytest.raises(ValueError, match="is no lm-eval task that generates texts"):
        parts.derive(task, {"of": parts.canonical(curve)}).answer(model, asked())
    item = {"doc_id": 0, "filter": "none", "metrics": {"exact_match": 1.0, "f1": 0.5}}
    assert outcomes([item], "exact_match", "none") == [1.0]
    for metric, way, message in (
        ("f1", "none", "is 0.5, not 0 or 1"),
        ("em", "none", "its metrics are exact_match, f1"),
        ("f1", "strict", "this task has no answer filter 'strict'; set `filter` to one of: none"),
    ):
        with pytest.raises(ValueError, match=message):
            outcomes([item], metric, way)


def test_the_suite_times_the_task_of_nano_sudoku():
    (task,) = read_suite("speed.sudoku").tasks
    (plain,) = (each for each in read_suite("nano.sudoku").tasks if isinstance(each, HarnessTask))
    assert isinstance(task, DecodingSpeed) and task.of == plain


# --- AUP ----------------------------------------------------------------------------------------------------


def test_aup_of_a_curve_by_hand():
    """rho 1, 2, 4 at 80, 78, 40 %: the last is more than 5 points below the first and does not count."""
    w = {y: math.exp(-3 * (1 - y / 100)) for y in (80, 78)}
    want = 1 * 80 + 0.5 * (2 - 1) * (78 * w[78] + 80 * w[80])
    assert aup([(4, 40), (1, 80), (2, 78)], pins(), "sudoku") == pytest.approx(want, rel=1e-12)
    assert aup([(1.5, 90)], pins(), "sudoku") == pytest.approx(135)
    assert aup([(1, 100), (3, 100)], pins(), "sudoku") == pytest.approx(300)


def test_aup_needs_a_pinned_y_max_and_valid_points():
    with pytest.raises(
        ValueError, match=r"no y_max of task 'sudokus' in evals/speed.toml \(nearest is 'sudoku'"
    ):
        aup([(1, 80)], pins(), "sudokus")
    with pytest.raises(ValueError, match="are not points of an AUP"):
        aup([(0, 80)], pins(), "sudoku")
    with pytest.raises(ValueError, match="needs a point"):
        aup([], pins(), "sudoku")


# --- composites ---------------------------------------------------------------------------------------------


def settings(*records):
    return [cell.setting for cell in speed.cells(records)]


def llada(tokens, share, seed=0, n=200, **more):
    return timed(
        "llada@nano.sudoku", "low_confidence", tokens, right(share, n), 16 / int(tokens), seed, **more
    )


def test_the_fastest_setting_stops_at_the_first_that_may_be_worse():
    """In order of speed: .97 holds, .90 may be worse by more than .02, and faster settings are not tested."""
    curve = settings(llada("1", 0.97), llada("2", 0.97), llada("4", 0.9), llada("8", 0.97))
    reference = reference_of("llada@nano.sudoku", curve, pins())
    found = fastest(curve, reference, pins())
    assert found.setting.tokens_per_step == "2" and found.failed.tokens_per_step == "4"
    assert found.compared.difference < -0.02 and found.setting.rate == pytest.approx(15 / 8)
    assert fastest(curve[:2], reference, pins()).failed is None


def test_settings_slower_than_the_reference_do_not_stop_the_search():
    """A setting of half a token per forward may be worse without effect on the result."""
    slow = timed("llada@nano.sudoku", "low_confidence", "0.5", right(0.8), 32)
    curve = settings(slow, llada("1", 0.97), llada("2", 0.97), llada("4", 0.5))
    reference = reference_of("llada@nano.sudoku", curve, pins())
    assert fastest(curve, reference, pins()).setting.tokens_per_step == "2"
    with pytest.raises(ValueError, match="no setting is as fast as the reference"):
        fastest([each for each in curve if each.tokens_per_step == "0.5"], reference, pins())


def test_each_network_is_also_compared_alone():
    """Together two networks prove nothing about their recipe here; alone, one of them holds at 2 tokens a step."""
    shares = {0: (0.97, 0.97), 1: (0.97, 0.9)}
    curve = settings(
        *(
            llada(tokens, share, s)
            for s, pair in shares.items()
            for tokens, share in zip("12", pair, strict=True)
        )
    )
    reference = reference_of("llada@nano.sudoku", curve, pins())
    assert fastest(curve, reference, pins()).setting.tokens_per_step == "1"
    alone = parallelism.fastest_alone(curve, reference, pins())
    assert [each.setting.tokens_per_step for each in alone] == ["2", "1"]


def test_settings_with_blocks_and_caches_have_their_sampler_and_reference():
    """One curve for each sampler, block and cache; the reference is the same sampler at any block without a cache."""
    presets = ("low_confidence, block 8, dual cache", "low_confidence, block 8")
    made = [timed("llada@nano.sudoku", name, "1", right(0.9), 16) for name in presets]
    made += [
        timed("llada@nano.sudoku", f"threshold_0.9{pin}, block 8, dual cache", None, right(0.9), 4)
        for pin in ("", ":threshold=0.8,temperature=1.0")
    ]
    found = settings(*made)
    assert reference_of("llada@nano.sudoku", found, pins()).preset == presets[1]
    assert {speed.rule_of(setting) for setting in found} == {*presets, "threshold_0.9, block 8, dual cache"}
    with pytest.raises(ValueError, match="lacks its reference, low_confidence at 1"):
        reference_of("llada@nano.sudoku", [each for each in found if "cache" in each.preset], pins())
    with pytest.raises(ValueError, match=r"no reference setting of recipe 'lada' in .*; nearest is 'llada'"):
        reference_of("lada@nano", found, pins())


def test_intervals_depend_on_the_number_of_documents_and_on_flips():
    """Equal outcomes of 5 documents do not show a difference within .02, of 500 they do; flips that cancel widen the
    interval."""
    for n, shown in ((5, False), (500, True)):
        one, two = settings(llada("1", 0.9, n=n), llada("2", 0.9, n=n))
        assert (compared(two, one, 0.95).low >= -0.02) == shown
    a = timed("llada@nano.sudoku", "low_confidence", "1", "10" * 100, 16)
    b = timed("llada@nano.sudoku", "low_confidence", "2", "01" * 100, 8)
    one, two = settings(a, b)
    found = compared(two, one, 0.95)
    assert found.difference == 0 and found.low < -0.1


def test_networks_are_a_random_sample():
    """The same difference in every network gives a narrower interval than one caused by a single network."""
    steady = settings(
        *(llada(tokens, share, seed) for seed in range(3) for tokens, share in (("1", 0.9), ("2", 0.88)))
    )
    shares = {0: 0.9, 1: 0.9, 2: 0.84}
    shaky = settings(
        *(llada("1", 0.9, s) for s in shares), *(llada("2", share, s) for s, share in shares.items())
    )
    one, two = (compared(each[1], each[0], 0.95) for each in (steady, shaky))
    assert one.difference == pytest.approx(two.difference, abs=0.006) and one.low > two.low + 0.02


UNEQUAL = {
    "n is": llada("2", 0.9, n=100),
    "seeds are": llada("2", 0.9, seed=1),
    "device is": llada("2", 0.9, device="another"),
    "engine is": llada("2", 0.9, engine="another"),
    "clock is": llada("2", 0.9, clock="wall"),
    "numerics.torch is": llada("2", 0.9, numerics=NUMERICS | {"torch": "1.0"}),
    "task.name is": timed("llada@nano.sudoku", "low_confidence", "2", right(0.9), 8, task="other"),
}


@pytest.mark.parametrize("what", UNEQUAL)
def test_composites_over_unequal_cells_raise_one_line(what):
    (first,), (other,) = settings(llada("1", 0.9)), settings(UNEQUAL[what])
    for work in (
        lambda: fastest([first, other], first, pins()),
        lambda: compared(other, first, 0.95),
        lambda: parallelism.aup_by_seed([first, other], pins()),
    ):
        with pytest.raises(ValueError, match=f"are not comparable: .*{what}") as error:
            work()
        assert "\n" not in str(error.value)


# --- tables -------------------------------------------------------------------------------------------------


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_engines_and_devices_never_share_a_table(tmp_path):
    other = llada("2", 0.9, engine="another")
    files = report.tables(
        collect(store(tmp_path, [llada("1", 0.9), other, llada("2", 0.9, device="phone", seed=1)]))
    )
    heads = [line for line in files["speed.md"].splitlines() if line.startswith("## ")]
    assert len(heads) == 3 and ["another" in head for head in heads].count(True) == 1
    assert all(row["settings"] == "1" for row in rows_of(files["parallelism.csv"]))
    notes = [row["note"] for row in rows_of(files["parallelism.csv"])]
    assert sum("lacks its reference" in note for note in notes) == 2


def test_the_table_of_a_grid_shows_speeds_and_device():
    """Useful tokens per second of both modes, from their own counts and the median of their passes."""
    console = Console(file=io.StringIO(), width=120, record=True)
    show(console, "toy", [llada("1", 0.9)])
    text = console.export_text()
    assert "engine repro on toy; process seconds of decoding alone, warm-up apart" in text
    each = 0.002 * 16
    (line,) = (line for line in text.splitlines() if "low_confidence" in line and "[" not in line)
    cells = [cell.strip() for cell in line.strip("│").split("│")]
    assert cells[2:4] == [f"{15 / (0.21 * each):,.0f}", f"{30 / (2.1 * each):,.0f}"]
    assert cells[4:] == [f"{1000 * each:.1f}", f"{1100 * each:.1f}"]


def test_rates_are_of_sums_and_never_means_of_ratios(tmp_path):
    """Two networks, one four times as slow: 2 n texts divided by the sum of both times."""
    both = [llada("1", 0.9), llada("1", 0.9, seed=1, slow=4.0)]
    (row,) = rows_of(report.tables(collect(store(tmp_path, both)))["speed.csv"])
    seconds = sum(sorted(r.measurements.speed.throughput.passes)[1] for r in both)
    assert float(row["useful_per_second"]) == pytest.approx(2 * 200 * 15 / seconds, rel=1e-5)
    assert float(row["useful_per_forward"]) == pytest.approx(15 / 16, rel=1e-5)
    low, high = float(row["useful_per_second_low"]), float(row["useful_per_second_high"])
    assert low < float(row["useful_per_second"]) < high


def test_tokens_a_forward_of_all_tables_are_of_sums(tmp_path):
    """A network of 4 and one of 12 forwards for 16 tokens: 32 tokens in 16 forwards, not (4 + 4 / 3) / 2."""
    made = [
        sudoku("llada@nano.sudoku", "threshold_0.9", None, 0.9, s, per_nfe=16 / f)
        for s, f in ((0, 4), (1, 12))
    ]
    (row,) = rows_of(report.tables(collect(store(tmp_path, made)))["sudoku.csv"])
    assert float(row["tokens_per_nfe"]) == 2.0 and float(row["nfe"]) == 8.0


def test_other_seconds_are_the_same_answer_and_other_counts_are_not(tmp_path):
    """A second timing on the same device is not stored; other counts raise."""
    first, slower = llada("1", 0.9), llada("1", 0.9, slow=2.0)
    assert results.Store(tmp_path).append(first) and not results.Store(tmp_path).append(slower)
    assert results.Store(tmp_path).append(llada("1", 0.9, device="phone"))
    assert len(rows_of(report.tables(collect(tmp_path))["speed.csv"])) == 2
    odd = structs.replace(first.answer, counts=structs.replace(first.answer.counts, useful=1)).data()
    wrong = make_record(first.question, first.labels.data(), odd, first.measurements.data())
    with pytest.raises(ValueError, match=r"counts.useful is 3000 and 1"):
        results.Store(tmp_path).append(wrong)


def test_flips_of_records_that_hold_their_outcomes(tmp_path, capsys):
    """Committed records have no files of items beside them; documents of another task raise."""
    a = timed("llada@nano.sudoku", "low_confidence", "1", "1110", 16)
    b = timed("llada@nano.sudoku", "low_confidence", "2", "1011", 8)
    other = timed("llada@nano.sudoku", "low_confidence", "1", "1111", 16, task="other")
    more = timed("llada@nano.sudoku", "low_confidence", "2", "1111", 8, train_seed=1)
    folder = store(tmp_path / "raw", [a, b, other])
    argv = ["flips", "llada@nano.sudoku/speed/low_confidence/1", "llada@nano.sudoku/speed/low_confidence/2"]
    assert results_command.main([*argv, "--raw", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "exact_match (none): 2 of 4 documents differ" in shown and "document 1: 1 -> 0" in shown
    with pytest.raises(ValueError, match="task_hash of document 0 differs"):
        results_command.main([*argv[:2], "llada@nano.sudoku/other", "--raw", str(folder)])
    with pytest.raises(ValueError, match=r"no file nothing\.jsonl"):
        results_command.main(["flips", "nothing.jsonl", argv[2], "--raw", str(folder)])
    store(tmp_path / "raw", [more])
    with pytest.raises(
        ValueError,
        match=r"selects 2 evaluations: \w{12} \(train seed 0, .*\), \w{12} \(train seed 1, sampling seed 0\)",
    ):
        results_command.main([*argv, "--raw", str(folder)])
