"""Published cells against synthetic records; `explain` and `flips` between records; each result is made to fail too."""

import itertools
import json
import math
from dataclasses import replace

import pytest
from helpers.synthetic import NUMERICS, bound, law, question, record, store
from msgspec import structs

from repro import verify as verify_command
from repro.core.stats import holm, mean_interval
from repro.evals.published import verify
from repro.evals.published.cells import disagreements, find, read
from repro.results import __main__ as results_command
from repro.results import explain, flips
from repro.results.store import items_file

TABLE = """
[sources]
paper = { cite = "A paper", date = "2026-01" }

[[table]]
name = "t"
title = "Perplexity"
source = "paper"
where = "Table 1"
task = "perplexity"
metric = "ppl_bound"
absolute = 0.5
asked = { "protocol.length" = 1024 }
columns = [
    { name = "owt", asked = { "protocol.corpus" = "owt" } },
    { name = "ptb", asked = { "protocol.corpus" = "ptb" } },
]

[[table.rows]]
name = "mdlm"
of = ["lab/mdlm", "mdlm_owt"]
values = { owt = 23.2, ptb = 95.0 }
needs = "lab/mdlm"
called = "mdlm, {column}"

[[table.rows]]
name = "again"
of = ["lab/mdlm"]
values = { owt = 25.0 }
unstated = ["protocol.packing"]
needs = "lab/mdlm"
called = "mdlm, {column}"
"""


@pytest.fixture
def cells(tmp_path):
    return read(written(tmp_path, TABLE))


def written(folder, text):
    path = folder / "published.toml"
    path.write_text(text, "utf-8")
    return path


def ours(value, se=0.1, corpus="owt", length=1024, checkpoint="lab/mdlm", **fields):
    protocol = {"corpus": corpus, "length": length, **fields.pop("protocol", {})}
    asked = question("mdlm_owt", "perplexity", protocol=protocol, **fields)
    return record(asked, {"ppl_bound": (value, se, 4096)}, recipe="mdlm_owt", checkpoint=checkpoint)


def verdict(cells, records, name="t.mdlm.owt"):
    return next(v for v in verify.verify(cells, records) if v.cell.name == name)


# --- the file -----------------------------------------------------------------------------------------------


def test_the_committed_numbers_read_and_name_presets_that_exist():
    cells = read()
    assert find(cells, "duo.t5.mdlm.1024").printed == 104.85
    from repro.samplers.presets import preset as parsed

    for preset in sorted({cell.asked["preset"] for cell in cells if "preset" in cell.asked}):
        parsed(preset)


def test_one_name_with_four_numbers_is_shown():
    (found,) = [d for d in disagreements(read()) if d.called == "mdlm on OWT, gen_ppl at 1024 steps"]
    assert [cell.printed for cell in found.cells] == [104.85, 51.3, 46.8, 40.7]
    assert {"preset", "protocol.rule.part", "protocol.redraw"} <= set(found.fields)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('name = "ptb"', 'nam = "ptb"', "unknown field 'nam'"),
        ("ptb = 95.0", "pbt = 95.0", "no column 'pbt'; nearest is 'ptb'"),
        ('source = "paper"', 'source = "papre"', "no source 'papre'; nearest is 'paper'"),
        ("absolute = 0.5", "absolute = 0.5\nrelative = 0.1", "both of the margins"),
        ("absolute = 0.5", "absolute = 0.0", "margin 0"),
        ('name = "again"', 'name = "mdlm"', "two cells are called 't.mdlm.owt'"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, old, new, says):
    assert old in TABLE
    with pytest.raises(ValueError, match=says):
        read(written(tmp_path, TABLE.replace(old, new, 1)))


# --- verdicts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "se", "answer"),
    [
        (23.3, 0.1, "pass"),
        (23.3, 0.4, "inconclusive"),  # same difference, too few rows: a large error must not pass
        (23.5, 0.1, "pass"),
        (23.6, 0.1, "inconclusive"),
        (23.6, 0.02, "pass"),  # clearly different from 23.2, clearly within the margin
        (23.9, 0.2, "inconclusive"),
        (24.5, 0.1, "fail"),
        (21.9, 0.1, "fail"),
        (23.7, 0.0, "pass"),
        (23.8, 0.0, "fail"),
        (23.2, None, "inconclusive"),
    ],
)
def test_equivalence_within_the_margin(cells, value, se, answer):
    assert verdict(cells, [ours(value, se)]).answer == answer


def test_tests_are_those_of_the_normal_law():
    """At d = margin the p-value is 1/2; equivalence requires margin - d >= 1.645 se."""
    assert verify.beyond(0.5, 0.01, 0.5) == pytest.approx(0.5)
    assert verify.beyond(0.5 + 1.645 * 0.01, 0.01, 0.5) == pytest.approx(0.05, abs=1e-4)
    assert verify.equivalent(-0.334, 0.1, 0.5) and not verify.equivalent(-0.337, 0.1, 0.5)


def test_holm_runs_over_the_compared_cells_of_the_table(cells):
    """A cell with p = .04 fails alone, but not as one of two cells."""
    far = 23.2 + 0.5 + 1.751 * 0.1
    assert verdict(cells, [ours(far)]).answer == "fail"
    pair = [ours(far), ours(95.0 + 0.5, corpus="ptb")]
    found = verdict(cells, pair)
    assert found.answer == "inconclusive" and found.p == pytest.approx(0.08, abs=1e-3)
    raw = [verify.beyond(0.5 + 0.1751, 0.1, 0.5), verify.beyond(0.5, 0.1, 0.5)]
    assert found.p == pytest.approx(holm(raw)[0])


def test_a_field_that_differs_is_named(cells):
    found = verdict(cells, [ours(23.2, length=512)])
    assert found.answer == "not comparable" and found.why == "protocol.length is 512, published 1024"
    assert found.ours is None and found.p is None
    found = verdict(cells, [ours(23.2, limit=10)])
    assert found.answer == "not comparable" and "limit is 10" in found.why


def test_a_field_that_a_record_does_not_say_is_no_match(cells):
    asked = question("mdlm_owt", "perplexity", protocol={"length": 1024})
    silent = record(asked, {"ppl_bound": (23.2, 0.1, 9)}, recipe="mdlm_owt", checkpoint="lab/mdlm")
    assert verdict(cells, [silent]).why == 'protocol.corpus is not given, published "owt"'


def test_another_checkpoint_task_or_scale_answers_nothing(cells):
    others = [
        bound(),
        ours(23.2, checkpoint="lab/mdlm-distilled"),
        law("mdlm@nano", "ancestral", "1", 0.1, 0.01),
    ]
    labels = structs.replace(others[1].labels, recipe="duo_owt_distilled")
    others[1] = structs.replace(others[1], labels=labels)
    found = verdict(cells, others)
    assert found.answer == "not run" and "H100 hours to train mdlm_owt: accelerate launch" in found.why


def test_a_released_folder_is_known_by_its_name(cells):
    assert verdict(cells, [ours(23.2, checkpoint="mdlm")]).answer == "pass"


def test_two_questions_for_one_cell_are_never_averaged(cells):
    pair = [ours(22.0), ours(24.4, protocol={"precision": "float16"})]
    found = verdict(cells, pair)
    assert found.answer == "not comparable" and "protocol.precision" in found.why


def test_a_source_that_leaves_a_field_open_is_not_comparable(cells):
    found = verdict(cells, [ours(25.0)], "t.again.owt")
    assert found.answer == "not comparable" and "protocol.packing" in found.why


def test_seeds_are_averaged_and_their_number_does_not_shrink_the_error(cells):
    found = verdict(cells, [ours(23.0 + 0.1 * seed, train_seed=seed) for seed in range(5)])
    assert found.ours == pytest.approx(23.2) and found.se == pytest.approx(0.1)


LOW_CONFIDENCE = {"part": "low_confidence", "version": 1, "temperature": 0.0}
ESTIMATOR = {"part": "llada_mc", "version": 1, "draws": 128, "batch": 16}


def share(cell, value, items=None, sampler=LOW_CONFIDENCE, estimator=None, seeds=range(9)):
    """Verdict on `cell`, a share of items, from seeds of one evaluation that scored `value` (a list: one per seed)."""
    values, n = value if isinstance(value, list) else [value], items or cell.items
    task = {"name": cell.task, "version": 1} | ({"estimator": estimator} if estimator else {})
    made = [
        record(
            structs.replace(question(cell.of[0], seed=seeds[i], sampler=sampler), task=task),
            {cell.metric: (each, math.sqrt(each * (1 - each) / n), n)},
            checkpoint=cell.of[0],
        )
        for i, each in enumerate(values)
    ]
    return verify.verify([cell], made)[0]


SHARES = [cell for cell in read() if cell.items]
HUMANEVAL = next(cell for cell in SHARES if cell.items == 164)


@pytest.mark.parametrize("sampler", [LOW_CONFIDENCE, None])
def test_every_published_share_can_pass_and_can_fail(sampler):
    """At a difference of 0 each cell passes: greedy decoding with one record, draws with four seeds that agree. A
    network that answers none or all of the items fails."""
    for cell in SHARES:
        bare = unconditional(cell)
        values = [cell.value] * (1 if sampler else 4)
        assert share(bare, values, sampler=sampler, estimator=None if sampler else ESTIMATOR).answer == "pass"
        wrong = 0.0 if cell.value > 0.5 else 1.0
        assert share(bare, wrong, sampler=sampler).answer == "fail", cell.name


def unconditional(cell):
    """`cell` without the settings that an evaluation must have, answered by one checkpoint."""
    return replace(cell, asked={}, unstated=(), of=("lab/net",))


def test_items_that_both_numbers_share_are_no_error_of_the_difference():
    cell = unconditional(HUMANEVAL)
    binomial = math.sqrt(cell.value * (1 - cell.value) / 164)
    near, far = cell.value + 0.9 * cell.margin, cell.value + 1.1 * cell.margin
    assert share(cell, near).answer == "pass" and share(cell, near).se == 0
    # beyond the margin by less than rounding may change of 164 answers: neither equal nor a failure
    assert share(cell, far).answer == "inconclusive"
    assert share(cell, cell.value - cell.margin - 5 * binomial).answer == "fail"
    # other items than the published ones: two independent binomial errors
    other = share(cell, cell.value, items=82)
    assert other.answer == "inconclusive" and other.se == pytest.approx(binomial * math.sqrt(1 + 2))


def test_the_error_of_random_draws_is_their_spread_over_seeds():
    cell = unconditional(HUMANEVAL)
    drawn = {"part": "low_confidence", "version": 1, "temperature": 1.0}
    assert share(cell, cell.value, sampler=drawn).answer == "inconclusive"  # one run: its spread is unknown
    values = [cell.value + d for d in (-0.006, 0.006, -0.006, 0.006)]
    t, z = 2.353363, 1.644854  # Student's and the normal 95 % point, 3 degrees of freedom
    found = share(cell, values, sampler=drawn)
    assert found.answer == "pass" and found.se == pytest.approx(
        t / z * 0.012 / math.sqrt(3) * math.sqrt(1.25)
    )
    twice = share(cell, [cell.value] * 2, sampler=drawn, seeds=[0, 0])
    assert twice.answer == "inconclusive"  # one seed on two machines has no spread of draws
    wide = share(cell, [cell.value + 20 * d for d in (-0.006, 0.006)], sampler=drawn)
    assert wide.answer == "inconclusive"


def test_command_line(tmp_path, capsys):
    empty, path = tmp_path / "raw", written(tmp_path, TABLE)
    empty.mkdir()
    assert verify_command.main([str(empty)]) == 0
    assert "683 cells: 0 pass, 0 fail" in capsys.readouterr().out
    assert verify_command.main([str(empty), "--published", str(path), "--cell", "t.mdlm.owt"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert "H100 hours to train mdlm_owt" in printed[0] and "not run" in printed[1]
    assert any("25  t.again.owt: protocol.packing not stated" in line for line in printed)
    store(empty, [ours(30.0)])
    assert verify_command.main([str(empty), "--published", str(path), "--json"]) == 1
    found = {each["cell"]["name"]: each["answer"] for each in json.loads(capsys.readouterr().out)["cells"]}
    assert found == {"t.mdlm.owt": "fail", "t.mdlm.ptb": "not comparable", "t.again.owt": "not comparable"}
    with pytest.raises(
        ValueError, match=r"no published number \(cell\) 't.mdlm.own'; nearest is 't.mdlm.owt'"
    ):
        verify_command.main([str(empty), "--published", str(path), "--cell", "t.mdlm.own"])


# --- explain ------------------------------------------------------------------------------------------------


def laws(shift=0.3):
    """Two checkpoints, presets and numbers of tokens per step, three seeds; the excess of four tokens is larger by
    `shift`."""
    return [
        law(
            name,
            preset,
            tokens,
            base + (0.5 if preset == "random" else 0) + (shift if tokens == "4" else 0),
            0.01,
            s,
        )
        for s in range(3)
        for name, base in (("mdlm@nano", 0.1), ("llada@nano", 0.2))
        for preset in ("ancestral", "random")
        for tokens in ("1", "4")
    ]


def test_each_difference_has_the_effect_that_others_measured():
    found = explain.explain(laws(), "mdlm@nano/law/ancestral/1", "mdlm@nano/law/random/4")
    assert [field.place for field in found.fields] == ["plan.tokens", "sampler"]
    direct = {effect.metric: effect for effect in found.direct}["excess"]
    assert direct.mean == pytest.approx(0.8) and direct.pairs == 3
    for field, size in zip(found.fields, (0.3, 0.5), strict=True):
        effect = {effect.metric: effect for effect in field.effects}["excess"]
        assert effect.mean == pytest.approx(size) and effect.pairs >= 3
        assert effect.interval.low == pytest.approx(size)


def test_the_two_records_themselves_are_no_evidence_elsewhere():
    """If no other records differ in the field alone, its effect is reported as unknown."""
    few = [r for r in laws() if r.labels.checkpoint == "mdlm@nano" and r.labels.preset == "ancestral"]
    found = explain.explain(few, "mdlm@nano/law/ancestral/1", "mdlm@nano/law/ancestral/4")
    assert found.fields[0].effects == () and found.direct[0].pairs == 3
    assert any("effect unknown" in line for line in explain.say(found))


def test_direction_is_b_minus_a_and_seeds_are_paired():
    there = explain.explain(laws(), "mdlm@nano/law/random/4", "mdlm@nano/law/random/1")
    (field,) = there.fields
    assert {e.metric: e.mean for e in field.effects}["excess"] == pytest.approx(-0.3)
    unpaired = [law("mdlm@nano", "random", "1", 0.1, 0.01, 7), law("mdlm@nano", "random", "4", 0.4, 0.01, 8)]
    assert explain.explain(unpaired, "mdlm@nano/law/random/1", "mdlm@nano/law/random/4").direct == ()


def test_an_interval_is_over_train_seeds():
    """A train seed counts once, however many sampling seeds and machines have answered it; of a single network the
    sampling seeds count, and the same answer of a second machine adds nothing."""

    def answered(tokens, excess, train_seed, seed, machine="cpu"):
        found = law("mdlm@nano", "random", tokens, excess, 0.01, train_seed)
        asked = structs.replace(found.question, seed=seed)
        numerics = found.measurements.numerics.data() | {"device": machine}
        metrics = {"excess": (excess, 0.02, 500)}
        return record(asked, metrics, preset="random", tokens=tokens, numerics=numerics)

    def interval(train_seeds, seeds, machines):
        places = list(itertools.product(train_seeds, seeds, machines))
        ours = [answered("1", 0.0, *place) for place in places]
        theirs = [answered("4", 0.3 + 0.1 * place[0] + 0.01 * place[1], *place) for place in places]
        found = explain.explain([*ours, *theirs], ours[0].cell, theirs[0].cell)
        (effect,) = found.direct
        assert effect.pairs == len(places)
        return effect.interval

    once = mean_interval([0.3, 0.4, 0.5], 0.95)
    assert interval((0, 1, 2), (0,), ("cpu",)) == pytest.approx(once)
    assert interval((0, 1, 2), (0,), ("cpu", "cuda")) == pytest.approx(once)
    apart = interval((0, 1, 2), (0, 1, 2), ("cpu",))
    assert apart == pytest.approx(mean_interval([0.31, 0.41, 0.51], 0.95))
    assert interval((0,), (0, 1, 2), ("cpu", "cuda")) == pytest.approx(mean_interval([0.3, 0.31, 0.32], 0.95))
    assert interval((0,), (0,), ("cpu", "cuda")) is None


def test_records_are_named_by_hash_or_label(tmp_path, capsys):
    made = laws()
    assert explain.select(made, made[0].cell[:12]) == explain.select(made, "mdlm@nano/law/ancestral/1")
    assert explain.select(made, made[0].sha256) == [made[0]]
    with pytest.raises(ValueError, match="selects 4 evaluations"):
        explain.select(made, "mdlm@nano/law")
    with pytest.raises(ValueError, match="nearest is 'mdlm@nano/law/random/4'"):
        explain.select(made, "mdlm@nano/law/randm/4")
    store(tmp_path, made)
    argv = ["explain", "mdlm@nano/law/ancestral/1", "mdlm@nano/law/ancestral/4", "--raw", str(tmp_path)]
    assert results_command.main(argv) == 0
    assert 'plan.tokens: "1" -> "4"' in capsys.readouterr().out
    assert results_command.main([*argv, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fields"][0]["place"] == "plan.tokens"


# --- flips --------------------------------------------------------------------------------------------------


def items(path, values, **more):
    """A file of items as the likelihood adapter writes it; `values`: one metric value per document."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        {"doc_id": i, "doc_hash": f"d{i}", "prompt_hash": f"p{i}", "target_hash": "t", "filter": "none"}
        | {"found": [], "metrics": {"acc": value}}
        | more
        for i, value in enumerate(values)
    ]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")
    return path


def test_flips_count_both_ways(tmp_path):
    a = flips.read_items(items(tmp_path / "a", [1, 1, 1, 0, 0, 0, 1, 0, 0, 0]))
    b = flips.read_items(items(tmp_path / "b", [1, 1, 0, 1, 1, 1, 1, 0, 0, 0]))
    found = flips.flips(a, b)
    assert (found.n, found.gained, found.lost, found.rate) == (10, 3, 1, 0.4)
    assert found.difference == pytest.approx(0.2) and found.p == pytest.approx(0.625)
    assert found.items == (("", 2, 1, 0), ("", 3, 0, 1), ("", 4, 0, 1), ("", 5, 0, 1))
    assert found.difference_interval.low < 0.2 < found.difference_interval.high
    back = flips.flips(b, a)
    assert back.difference == pytest.approx(-0.2) and (back.gained, back.lost) == (1, 3)


def test_documents_are_counted_once_whatever_reads_them(tmp_path):
    """A task with two filters, such as gsm8k: one is compared, and it must be chosen."""
    found = []
    for name, values in (("a", [1, 1, 0, 0]), ("b", [1, 0, 1, 1])):
        strict = items(tmp_path / name, values, filter="strict-match").read_text("utf-8")
        flexible = items(tmp_path / name, [1, 1, 1, values[3]], filter="flexible-extract")
        flexible.write_text(strict + flexible.read_text("utf-8"), "utf-8")
        found.append(flips.read_items(flexible))
    with pytest.raises(ValueError, match="--filter: flexible-extract, strict-match"):
        flips.flips(*found)
    with pytest.raises(ValueError, match="nearest is 'strict-match'"):
        flips.flips(*found, filter="strict")
    strict = flips.flips(*found, filter="strict-match")
    assert (strict.n, strict.gained, strict.lost) == (4, 2, 1)
    flexible = flips.flips(*found, filter="flexible-extract")
    assert (flexible.n, flexible.gained, flexible.lost) == (4, 1, 0)
    argv = ["flips", str(tmp_path / "a"), str(tmp_path / "b"), "--raw", str(tmp_path)]
    assert results_command.main([*argv, "--filter", "strict-match"]) == 0


def test_documents_of_a_group_are_counted_from_0_in_each_task(tmp_path):
    """Items of a group contain their task: document 0 of one task is not document 0 of another."""
    found = []
    for name, values in (("a", [1, 1]), ("b", [1, 0])):
        algebra = items(tmp_path / name, values, task="algebra").read_text("utf-8")
        both = items(tmp_path / name, [1, 1], task="geometry", doc_hash="g")
        both.write_text(algebra + both.read_text("utf-8"), "utf-8")
        found.append(flips.read_items(both))
    between = flips.flips(*found)
    assert between.n == 4 and between.items == (("algebra", 1, 1, 0),)
    assert list(flips.say(between))[-1] == "  document algebra 1: 1 -> 0"


def test_a_line_of_items_may_hold_any_character_of_unicode(tmp_path):
    """Items are written without escapes, so only a newline may end a line."""
    path = items(tmp_path / "a", [1, 0])
    rows = [
        json.loads(line) | {"found": ["a\u2028b\u2029c\x85d"]}
        for line in path.read_text().split("\n")
        if line
    ]
    path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), "utf-8")
    assert len(flips.read_items(path)) == 2


def test_equal_accuracy_may_hide_flips_and_no_flips_prove_little(tmp_path):
    a, b = ([i % 2 for i in range(100)], [1 - i % 2 for i in range(100)])
    hidden = flips.flips(*(flips.read_items(items(tmp_path / n, v)) for n, v in (("a", a), ("b", b))))
    assert hidden.difference == 0 and hidden.rate == 1 and hidden.p == 1
    same = flips.flips(*(flips.read_items(items(tmp_path / n, a[:10])) for n in ("c", "d")))
    assert same.items == () and same.p == 1 and same.difference_interval.high > 0.05
    assert same.rate_interval.high > 0.2


def test_the_exact_test_and_the_interval_against_their_definitions():
    """Ten gained, none lost: 2 / 2^10. Agresti and Min: (b - c) / (n + 2) +- z sqrt(...) by hand."""
    assert flips.mcnemar(10, 0) == pytest.approx(2 / 1024)
    low, high = flips.paired_interval(10, 0, 100)
    centre, spread = 10 / 102, math.sqrt(11 - 100 / 102) / 102
    assert (low, high) == pytest.approx((centre - 1.959964 * spread, centre + 1.959964 * spread))


def test_the_interval_of_matched_shares_covers():
    """Coverage by enumeration of gained and lost, n = 30 with 10 % gained and 20 % lost: at least 93 %."""
    from scipy.stats import multinomial

    law_, covered = multinomial(30, [0.1, 0.2, 0.7]), 0.0
    for gained in range(31):
        for lost in range(31 - gained):
            low, high = flips.paired_interval(gained, lost, 30)
            covered += law_.pmf([gained, lost, 30 - gained - lost]) * (low <= -0.1 <= high)
    assert 0.93 < covered < 0.98


def test_other_documents_prompts_or_metrics_are_refused(tmp_path):
    a = flips.read_items(items(tmp_path / "a", [1, 0]))
    with pytest.raises(ValueError, match="only in one of the two"):
        flips.flips(a, flips.read_items(items(tmp_path / "b", [1, 0, 1])))
    with pytest.raises(ValueError, match="prompt_hash of document 0 differs"):
        flips.flips(a, flips.read_items(items(tmp_path / "b", [1, 0], prompt_hash="other")))
    with pytest.raises(ValueError, match="nearest is 'acc'"):
        flips.flips(a, a, "ac")
    several = flips.read_items(items(tmp_path / "c", [1, 0], metrics={"acc": 1.0, "acc_norm": [1, 2]}))
    with pytest.raises(ValueError, match="--metric: acc, acc_norm"):
        flips.flips(several, several)
    with pytest.raises(ValueError, match="no metric is in every item of both"):
        flips.flips(a, flips.read_items(items(tmp_path / "e", [1, 0], metrics={"exact_match": 1.0})))
    with pytest.raises(ValueError, match="not a finite number"):
        flips.flips(several, several, "acc_norm")
    (tmp_path / "torn").write_text('{"doc_id": 1', "utf-8")
    with pytest.raises(ValueError, match="torn:1: not sound JSON"):
        flips.read_items(tmp_path / "torn")


def test_a_metric_that_is_no_share_gets_a_paired_t_interval(tmp_path):
    found = flips.flips(
        *(flips.read_items(items(tmp_path / n, v)) for n, v in (("a", [0.5, 1, 2]), ("b", [1, 2, 2])))
    )
    assert found.p is None and found.difference == pytest.approx(0.5)
    assert found.difference_interval.low == pytest.approx(0.5 - 4.302653 * 0.5 / math.sqrt(3))


def test_flips_of_two_records_from_the_command_line(tmp_path, capsys):
    pair = [
        record(
            question("llada@nano", "caps", sampler={"part": p, "version": 1}),
            {"acc": (0.5, 0.1, 4)},
            recipe="llada@nano",
            preset=p,
            tokens="1",
            numerics=NUMERICS,
        )
        for p in ("random", "margin")
    ]
    store(tmp_path / "raw", pair)
    argv = ["flips", "llada@nano/caps/random", "llada@nano/caps/margin", "--raw", str(tmp_path)]
    with pytest.raises(ValueError, match="no items of llada@nano/caps/random/1"):
        results_command.main(argv)
    for made, values in zip(pair, ([1, 0, 1, 0], [1, 1, 1, 0]), strict=True):
        items(items_file(tmp_path / "raw", made), values)
    assert results_command.main(argv) == 0
    printed = capsys.readouterr().out
    assert "acc (none): 1 of 4 documents differ" in printed and "document 1: 0 -> 1" in printed
    assert results_command.main([*argv, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["gained"] == 1
