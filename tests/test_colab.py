"""Each notebook as Colab runs it: opened by its badge, the package installed by the cell below, and nothing else of the repository at hand.

After a change of `version`, `user` or `repo` in settings.ini: `python tests/test_colab.py` writes the badges, the installing cells and the course's README anew."""
import json, os, re, shutil, subprocess, sys, zipfile
from concurrent.futures import ThreadPoolExecutor
from configparser import ConfigParser
from pathlib import Path
from secrets import token_hex

import pytest

ROOT = Path(__file__).resolve().parent.parent
LESSONS = sorted((ROOT / "nbs").glob("0*.ipynb"))
SOURCES = sorted((ROOT / "ddpm_mnist" / "assets" / "course" / "source").glob("*/*.ipynb")) # the exercises, solved
EXERCISES = sorted((ROOT / "nbs" / "exercises").glob("*.ipynb")) # and as students get them
config = ConfigParser(delimiters=["="]); config.read(ROOT / "settings.ini", encoding="utf8"); SETTINGS = config["DEFAULT"]
BADGE = "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"

def name(path): return path.relative_to(ROOT).as_posix()
def read(path): return json.loads(path.read_text(encoding="utf8"))
def source(cell): return "".join(cell["source"])

def badge(path): # a solved exercise opens as its students get it
    there = f"nbs/exercises/{path.name}" if path in SOURCES else name(path)
    return f"{BADGE}(https://colab.research.google.com/github/{SETTINGS['user']}/{SETTINGS['repo']}/blob/v{SETTINGS['version']}/{there})"

def requirement(path): # the exercises need nothing beside the library
    return f"ddpm_mnist{'[notebooks]' if path in LESSONS else ''} @ git+{SETTINGS['git_url']}@v{SETTINGS['version']}"

def installing(path):
    return f'{"#| hide" if path in LESSONS else "# Colab gets the package here; elsewhere run the %pip line by itself, if the package is not there yet"}\nif "google.colab" in str(get_ipython()):\n    %pip install -q "{requirement(path)}"'

def write_cells(path): # the second and third cell of a notebook
    nb = read(path); cells = nb["cells"]
    if not source(cells[1]).startswith(BADGE):
        cells[1:1] = [dict(cell_type="markdown", id=token_hex(4), metadata={}), dict(cell_type="code", execution_count=None, id=token_hex(4), metadata={}, outputs=[])]
    for cell, text in zip(cells[1:3], (badge(path), installing(path))): cell["source"] = text.splitlines(True)
    path.write_text(json.dumps(nb, indent=1, ensure_ascii=False) + "\n", encoding="utf8")

README = ROOT / "ddpm_mnist" / "assets" / "course" / "README.md" # for teachers, who install it with nbgrader
INSTALLS = re.compile(r'"ddpm_mnist\[teach\] @ [^"]*"')
TEACHERS = f'"ddpm_mnist[teach] @ git+{SETTINGS["git_url"]}@v{SETTINGS["version"]}"'

if __name__ == "__main__":
    for path in LESSONS + SOURCES + EXERCISES: write_cells(path)
    README.write_text(INSTALLS.sub(TEACHERS, README.read_text(encoding="utf8")), encoding="utf8")


def test_the_course_is_installed_at_this_version():
    assert INSTALLS.findall(README.read_text(encoding="utf8")) == [TEACHERS], "`python tests/test_colab.py` mends it"


@pytest.mark.parametrize("path", LESSONS + SOURCES + EXERCISES, ids=name)
def test_badge_and_installation_name_this_notebook_and_this_version(path):
    _, second, third, *_ = read(path)["cells"]
    assert [(c["cell_type"], source(c)) for c in (second, third)] == [("markdown", badge(path)), ("code", installing(path))], "`python tests/test_colab.py` mends it"


@pytest.fixture(scope="module")
def tracked(): # what pip would find in a clone
    return subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory, tracked):
    folder = tmp_path_factory.mktemp("wheel")
    for file in tracked:
        (folder / "clone" / file).parent.mkdir(parents=True, exist_ok=True); shutil.copy(ROOT / file, folder / "clone" / file)
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index", "-w", folder, folder / "clone"], check=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_every_file_of_the_package(wheel, tracked):
    missing = {f for f in tracked if f.startswith("ddpm_mnist/")} - set(zipfile.ZipFile(wheel).namelist())
    assert not missing


LIKE_COLAB = """import importlib.util, pathlib
pathlib.Path("package.txt").write_text(importlib.util.find_spec("ddpm_mnist").origin)
type(get_ipython()).__str__ = lambda self: "<google.colab._shell.Shell object>"
get_ipython().register_magic_function(lambda line, note=pathlib.Path("pip.txt"): note.write_text(line), magic_name="pip")
del importlib, pathlib"""

@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", folder, wheel], check=True)
    return folder


@pytest.fixture(scope="module")
def runs(request, site, tmp_path_factory): # of the notebooks that are asked for, two at a time: {path: future of (folder, finished process)}
    env = {k: v for k, v in os.environ.items() if k not in ("IN_TEST", "MPLBACKEND")} | {"PYTHONPATH": str(site), "DDPM_MNIST_CACHE": str(tmp_path_factory.mktemp("cache")), "OMP_NUM_THREADS": "1"}
    def run(path):
        folder, nb = tmp_path_factory.mktemp(path.stem), read(path)
        nb["cells"].insert(0, dict(cell_type="code", id="like-colab", metadata={}, execution_count=None, outputs=[], source=LIKE_COLAB))
        (folder / path.name).write_text(json.dumps(nb), encoding="utf8")
        return folder, subprocess.run([sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", "--inplace", path.name], cwd=folder, env=env, capture_output=True, text=True)
    pool = ThreadPoolExecutor(2)
    yield {path: pool.submit(run, path) for path in [test.callspec.params["path"] for test in request.session.items if "runs" in getattr(test, "fixturenames", ())]}
    pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("path", LESSONS + SOURCES, ids=name)
def test_runs_from_an_empty_folder_with_the_wheel(path, runs, site):
    folder, done = runs[path].result()
    assert done.returncode == 0, done.stderr[-3000:]
    assert Path((folder / "package.txt").read_text()).is_relative_to(site), "not the wheel's package"
    assert (folder / "pip.txt").read_text() == f'install -q "{requirement(path)}"'
