"""The stored index of lm-eval's tasks is lm-eval's own, and is made once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from lm_eval import tasks
from lm_eval.tasks import TaskManager

from repro.evals.lm import task_index
from repro.evals.lm.task_index import indexed, standard_tasks

BASE = 'output_type: multiple_choice\ntag: [letters, short]\ndoc_to_text: "{{a}}"\n'
FILES = {
    "one/base.yaml": BASE,  # neither a task nor a group: lm-eval leaves it out
    "one/one.yaml": "include: base.yaml\ntask: one\n",
    "one/two.yaml": "include: base.yaml\ntask: two\ntag: letters\n",
    "both.yaml": "group: both\ntask: [one, two]\nmetadata: {version: 1}\n",
    "three.yaml": "task: three\nclass: !function made.Three\n",
    "deep/four.yaml": "include: [../one/base.yaml, tags.yaml]\ntask: four\n",
    "deep/five.yaml": "include: [four.yaml]\ntask: five\ntag: [own]\n",
    "deep/tags.yaml": "tag: later\ngroup_alias: Later\n",
    "skipped/itself.yaml": "include: itself.yaml\ntask: itself\n",
    "skipped/twice.yaml": "include: [../one/base.yaml, ../one/base.yaml]\ntask: twice\n",
    "skipped/gone.yaml": "include: nowhere.yaml\ntask: gone\n",
    "skipped/broken.yaml": "task: [\n",
    "skipped/list.yaml": "- task\n",
    "skipped/object.yaml": "task: object\nmetadata: !object 3\n",
    "skipped/mapping.yaml": "task: {name: mapping}\n",
    "__pycache__/cached.yaml": "task: cached\n",
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path / "runs"))
    for name, text in FILES.items():
        (tmp_path / "tasks" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tasks" / name).write_text(text)
    return tmp_path / "tasks"


def facts(index):
    return {name: (each.name, each.kind, each.yaml_path, each.tags) for name, each in index.items()}


def test_the_index_is_that_of_lm_eval(folder):
    theirs = TaskManager(include_path=str(folder), include_defaults=False).task_index
    names, tags = {"one", "two", "three", "four", "five"}, {"letters", "short", "later", "own"}
    assert set(theirs) == {*names, *tags, "both"}
    for _ in range(2):  # made, and read
        assert facts(indexed(folder)) == facts(theirs)


def test_it_is_made_again_only_when_a_file_changes(folder, monkeypatch):
    made = []
    monkeypatch.setattr(
        task_index, "_made", lambda place, make=task_index._made: made.append(place) or make(place)
    )
    indexed(folder), indexed(folder)
    assert len(made) == 1
    (folder / "both.yaml").write_text("group: all\ntask: [one, two]\nmetadata: {version: 1}\n")
    assert "all" in indexed(folder) and len(made) == 2
    (folder / "three.yaml").unlink()
    assert "three" not in indexed(folder) and len(made) == 3


def test_a_damaged_index_is_named(folder):
    indexed(folder)
    (stored,) = (folder.parent / "runs" / "data").glob("lm_eval-tasks-*.json")
    stored.write_text('{"one": ["TASK"]}')
    with pytest.raises(ValueError, match="remove it and run again"):
        indexed(folder)


@pytest.mark.slow
def test_the_tasks_that_lm_eval_ships_are_all_there_and_are_found_quickly(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path))
    standard_tasks.cache_clear()
    theirs = TaskManager().task_index
    assert facts(standard_tasks().task_index) == facts(theirs)
    began = time.process_time()
    indexed(Path(tasks.__file__).parent)
    assert time.process_time() - began < 3
