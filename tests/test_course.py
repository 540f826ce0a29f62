"The exercises, graded by nbgrader as a teacher would, with made-up submissions."
import json, shutil, subprocess, sys
from pathlib import Path

import pytest

from ddpm_mnist.data import ASSETS

pytest.importorskip("nbgrader")
COURSE = ASSETS / "course"
ASSIGNMENTS = sorted(p.name for p in (COURSE / "source").iterdir())
MUTANTS = [ # assignment, task, what is changed in the solution, into what, words of the answer
    ("scheduler", "alpha_bars", "torch.cumprod(1 - betas, dim=0)", "1 - betas", "single steps"),
    ("scheduler", "add_noise", "(1 - a).sqrt()", "(1 - a)", "factor of the noise is a variance"),
    ("scheduler", "posterior", "return mean, (1 - before) / (1 - now) * betas[t]", "return mean, betas[t]", "yours is β_t"),
    ("scheduler", "respace", "return 1 - now / before", "return now / before", "what a step leaves"),
    ("unet", "time_embedding", "-2 * torch", "-1 * torch", "fall too slowly"),
    ("unet", "group_norm", "unbiased=False", "unbiased=True", "n - 1"),
    ("unet", "residual_block", "return shortcut(x) + ", "return ", "no shortcut"),
    ("train", "training_loss", "F.mse_loss(model(xt, t), noise)", "F.mse_loss(model(xt, t), x0)", "clean picture"),
    ("train", "training_step", "optimizer.zero_grad()\n", "pass\n", "PyTorch adds"),
    ("train", "ema_update", "e.mul_(decay).add_(p, alpha=1 - decay)", "e.mul_(1 - decay).add_(p, alpha=decay)", "are exchanged"),
    ("train", "velocity", "noise - (1", "noise + (1", "are added"),
    ("sample", "predict_x0", "eps) / alpha_bars[t].sqrt()", "eps) / alpha_bars[t]", "stretched too far"),
    ("sample", "ddpm_step", "    if t == 0: return mean\n", "", "t = 0, must return the mean"),
    ("sample", "ddim_step", "alpha_bars[before] if before >= 0 else torch.tensor(1.0)", "alpha_bars[before]", "in Python is the *last* one"),
    ("sample", "sample", "    model.eval()\n", "", "in training mode"),
    ("fid", "to_uint8", ".round()", "", "cut off, not rounded"),
    ("fid", "mean_and_covariance", "(len(features) - 1)", "len(features)", "divided by n"),
    ("fid", "frechet_distance", "- 2 * np.sqrt", "- np.sqrt", "counts twice")]


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
def replace(key, old, new):
    def change(nb):
        source = "".join(task(nb, key)["source"]); assert source.count(old) == 1, (key, old)
        task(nb, key)["source"] = source.replace(old, new)
    return change


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
def course(tmp_path_factory): return made(tmp_path_factory.mktemp("course") / "course", *ASSIGNMENTS)


@pytest.mark.parametrize("assignment", ASSIGNMENTS)
def test_the_students_notebooks_are_made_from_the_sources(course, assignment):
    "If this fails: copy release/ASSIGNMENT/ASSIGNMENT.ipynb of a course folder to nbs/exercises."
    sources = lambda path: [(c["cell_type"], "".join(c["source"]), c["metadata"]) for c in json.loads(path.read_text(encoding="utf8"))["cells"]]
    assert sources(Path(__file__).parent.parent / "nbs" / "exercises" / f"{assignment}.ipynb") == sources(course / "release" / assignment / f"{assignment}.ipynb")


@pytest.mark.parametrize("assignment", ASSIGNMENTS)
def test_every_row_stands_alone(course, assignment):
    "Full marks for the solutions, warnings or not, none for the untouched notebook, and for a mistake all but the points of its task; the feedback says what the mistake is."
    mine = [m for m in MUTANTS if m[0] == assignment]
    hand_in(course, "right", assignment)
    hand_in(course, "untouched", assignment, lambda nb: nb.update(json.loads((course / "release" / assignment / f"{assignment}.ipynb").read_text(encoding="utf8"))))
    hand_in(course, "noisy", assignment, lambda nb: [task(nb, key).update(source="".join(task(nb, key)["source"]).replace("    ### BEGIN SOLUTION\n", "    import sys, warnings; warnings.warn('noisy'); print('noisy', file=sys.stderr)\n")) for _, key, *_ in mine])
    for _, key, old, new, _ in mine: hand_in(course, f"wrong_{key}", assignment, replace(key, old, new))
    assert "BEGIN SOLUTION" not in (course / "release" / assignment / f"{assignment}.ipynb").read_text(encoding="utf8")
    graded = nbgrader(course, "autograde", assignment)
    assert graded.returncode == 0, graded.stderr[-3000:]
    got = points(course, assignment)
    assert set(got) == {"right", "noisy", "untouched", *(f"wrong_{m[1]}" for m in mine)} and {m[1] for m in mine} == set(got["right"])
    for student in ("right", "noisy"): assert all(score == of > 0 for score, of in got[student].values()), got[student]
    assert all(score == 0 for score, _ in got["untouched"].values()), got["untouched"]
    for _, key, *_ in mine: assert {k for k, (score, of) in got[f"wrong_{key}"].items() if score < of} == {key}, got[f"wrong_{key}"]
    fed = nbgrader(course, "generate_feedback", assignment)
    for _, key, _, _, words in mine:
        page = course / "feedback" / f"wrong_{key}" / assignment / f"{assignment}.html"
        assert words in page.read_text(encoding="utf8").replace("&#39;", "'"), fed.stderr[-2000:]


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
