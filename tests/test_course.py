"The exercises, graded by nbgrader as a teacher would, with made-up submissions."
import html, json, re, shutil, subprocess, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ddpm_mnist.data import ASSETS

pytest.importorskip("nbgrader")
COURSE = ASSETS / "course"
ASSIGNMENTS = sorted(p.name for p in (COURSE / "source").iterdir())
CHECKS = Path(__file__).parent.parent / "nbs" / "07_checks.ipynb"
SCOPE = """import contextlib, copy, io, math
import numpy as np, scipy.linalg, torch, torch.nn.functional as F
from torch import nn
from ddpm_mnist.checks import *
def table(check, right, wrong): globals()["wrong"] = wrong
"""


def mutants(): # {task: (the cell of 07_checks that makes its wrong solutions, {name: words of the answer})}
    found = {}
    for cell in json.loads(CHECKS.read_text(encoding="utf8"))["cells"]:
        source = "".join(cell["source"])
        if task := re.search(r"^table\(check_(\w+)", source, re.M):
            scope = {}; exec(SCOPE + source, scope)
            found[task[1]] = source, {name: words for name, (_, words) in scope["wrong"].items()}
    return found
MUTANTS = mutants()


def nbgrader(course, *args):
    return subprocess.run([sys.executable, "-m", "nbgrader", *args], cwd=course, capture_output=True, text=True, timeout=1500)


def hand_in(course, student, assignment, change=lambda nb: None, name=None):
    nb = json.loads((course / "source" / assignment / f"{assignment}.ipynb").read_text(encoding="utf8"))
    released = json.loads((course / "release" / assignment / f"{assignment}.ipynb").read_text(encoding="utf8"))
    for cell, theirs in zip(nb["cells"], released["cells"]): cell["metadata"] = theirs["metadata"] # checksums, as a student's copy has them
    change(nb)
    path = course / "submitted" / student / assignment / f"{name or assignment}.ipynb"
    path.parent.mkdir(parents=True); path.write_text(json.dumps(nb), encoding="utf8")


def task(nb, key): return next(c for c in nb["cells"] if c["metadata"].get("nbgrader", {}).get("grade_id") == key)
def write(key, text): return lambda nb: task(nb, key).update(source=text)
def wrong(key, name): # the solution is the wrong one of this name; made in a scope of its own, whose names are not the student's
    return write(key, f"scope = {{}}\nexec({SCOPE + MUTANTS[key][0]!r}, scope)\n{key} = scope['wrong'][{name!r}][0]")
def not_shown(nb): # what only shows something is not graded, and takes time
    graded = [i for i, c in enumerate(nb["cells"]) if "nbgrader" in c["metadata"]]
    for c in nb["cells"][graded[0]:]:
        if c["cell_type"] == "code" and "nbgrader" not in c["metadata"]: c["source"] = ""
def noisy(nb):
    for c in nb["cells"]:
        c["source"] = "".join(c["source"]).replace("    ### BEGIN SOLUTION\n", "    import sys, warnings; warnings.warn('noisy'); print('noisy', file=sys.stderr)\n")
def tasks(assignment):
    nb = json.loads((COURSE / "source" / assignment / f"{assignment}.ipynb").read_text(encoding="utf8"))
    return [k.removeprefix("check_") for c in nb["cells"] if (k := c["metadata"].get("nbgrader", {}).get("grade_id", "")).startswith("check_")]


def mixtures(assignment): # students, each wrong in most tasks and right in the others; every wrong solution occurs once
    of = {key: list(MUTANTS[key][1]) for key in tasks(assignment)}
    n = max(map(len, of.values())) + 1
    return {f"student{i}": {key: of[key][j] for k, key in enumerate(of) if (j := (i - k) % n) < len(of[key])} for i in range(n)}


def points(course, assignment): # {student: {task: (score, of)}}
    from nbgrader.api import Gradebook
    with Gradebook(f"sqlite:///{course}/gradebook.db") as book:
        return {s.student.id: {g.name.removeprefix("check_"): (g.score, g.max_score) for n in s.notebooks for g in n.grades} for s in book.assignment_submissions(assignment)}


def made(folder, *assignments): # a course folder with the students' versions
    shutil.copytree(COURSE, folder)
    for a in assignments:
        done = nbgrader(folder, "generate_assignment", a)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def courses(tmp_path_factory): # one for each assignment, handed in and graded, two at a time
    def graded(a):
        course = made(tmp_path_factory.mktemp(a) / "course", a)
        hand_in(course, "right", a)
        hand_in(course, "untouched", a, lambda nb: nb.update(json.loads((course / "release" / a / f"{a}.ipynb").read_text(encoding="utf8"))))
        hand_in(course, "noisy", a, noisy)
        for student, mistakes in mixtures(a).items(): hand_in(course, student, a, lambda nb: [not_shown(nb), *(wrong(*m)(nb) for m in mistakes.items())])
        done = nbgrader(course, "autograde", a)
        assert done.returncode == 0, done.stderr[-3000:]
        done = nbgrader(course, "generate_feedback", a)
        assert done.returncode == 0, done.stderr[-3000:]
        return course
    with ThreadPoolExecutor(2) as pool: return dict(zip(ASSIGNMENTS, pool.map(graded, ASSIGNMENTS)))


@pytest.mark.parametrize("assignment", ASSIGNMENTS)
def test_the_students_notebooks_are_made_from_the_sources(courses, assignment):
    "If this fails: copy release/ASSIGNMENT/ASSIGNMENT.ipynb of a course folder to nbs/exercises."
    sources = lambda path: [(c["cell_type"], "".join(c["source"]), c["metadata"]) for c in json.loads(path.read_text(encoding="utf8"))["cells"]]
    released = courses[assignment] / "release" / assignment / f"{assignment}.ipynb"
    assert "BEGIN SOLUTION" not in released.read_text(encoding="utf8")
    assert sources(Path(__file__).parent.parent / "nbs" / "exercises" / f"{assignment}.ipynb") == sources(released)


@pytest.mark.parametrize("assignment", ASSIGNMENTS)
def test_a_mistake_costs_its_task_and_nothing_else(courses, assignment):
    "Full marks for the solutions, warnings or not, none for the untouched notebook; each wrong solution of 07_checks loses the points of its task, and the feedback says what it is."
    got, mixed = points(courses[assignment], assignment), mixtures(assignment)
    assert set(got) == {"right", "noisy", "untouched", *mixed} and all(set(g) == set(tasks(assignment)) for g in got.values())
    assert {m for mistakes in mixed.values() for m in mistakes.items()} == {(key, name) for key in tasks(assignment) for name in MUTANTS[key][1]}
    for student in ("right", "noisy"): assert all(score == of > 0 for score, of in got[student].values()), got[student]
    assert all(score == 0 for score, _ in got["untouched"].values()), got["untouched"]
    for student, mistakes in mixed.items():
        assert {k for k, (score, of) in got[student].items() if score < of} == set(mistakes) and all(got[student][k][0] == 0 for k in mistakes), (student, mistakes, got[student])
        page = html.unescape((courses[assignment] / "feedback" / student / assignment / f"{assignment}.html").read_text(encoding="utf8"))
        for key, name in mistakes.items(): assert MUTANTS[key][1][name] in page, (student, key, name)


def test_every_wrong_solution_has_a_task():
    assert sorted(MUTANTS) == sorted(key for a in ASSIGNMENTS for key in tasks(a))


def test_one_bad_notebook_costs_its_own_row_only(tmp_path):
    "One that hangs, one that crashes, one that prints without end, one renamed, one that lost a cell."
    a, course = "scheduler", made(tmp_path / "course", "scheduler")
    hand_in(course, "right", a)
    hand_in(course, "hangs", a, write("respace", "def respace(alpha_bars, kept):\n    while True: pass"))
    hand_in(course, "crashes", a, write("respace", "import os\ndef respace(alpha_bars, kept): os._exit(1)"))
    hand_in(course, "prints", a, write("respace", "import time\ndef respace(alpha_bars, kept):\n    while True: print('x' * 100); time.sleep(0.01)"))
    hand_in(course, "renamed", a, name="my_solution")
    hand_in(course, "lost_a_cell", a, lambda nb: nb["cells"].remove(task(nb, "check_respace")))
    graded = nbgrader(course, "autograde", a, "--Execute.timeout=25")
    got = points(course, a)
    total = lambda student: sum(score for score, _ in got[student].values()) if student in got else None
    whole = sum(of for _, of in got["right"].values())
    assert total("right") == total("lost_a_cell") == whole, graded.stderr[-3000:]
    for student in ("hangs", "prints"): assert {k for k, (score, of) in got[student].items() if score < of} == {"respace"}, (student, got[student])
    for student in ("crashes", "renamed"):
        assert not total(student), (student, got.get(student))
        assert f"for student '{student}'" in "".join(l for l in graded.stderr.splitlines(True) if "ERROR" in l or "WARNING" in l), graded.stderr[-3000:]
    out = nbgrader(course, "export")
    assert "right" in (course / "grades.csv").read_text(), out.stderr
