"""Each notebook as Colab runs it: opened by its badge, the package installed by the cell below, and nothing else of the repository at hand.

After a change of `version`, `user` or `repo` in settings.ini: `python tests/test_colab.py` writes the badges and the installing cells anew."""
import json, os, shutil, subprocess, sys, zipfile
from concurrent.futures import ThreadPoolExecutor
from configparser import ConfigParser
from pathlib import Path

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
    return f'{"#| hide" if path in LESSONS else "# Colab gets the package here; elsewhere it is there already"}\nif "google.colab" in str(get_ipython()):\n    %pip install -q "{requirement(path)}"'

def write_cells(path): # the second and third cell of a notebook
    nb = read(path)
    for cell, text in zip(nb["cells"][1:3], (badge(path), installing(path))): cell["source"] = text.splitlines(True)
    path.write_text(json.dumps(nb, indent=1, ensure_ascii=False) + "\n", encoding="utf8")

if __name__ == "__main__":
    for path in LESSONS + SOURCES + EXERCISES: write_cells(path)


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
def runs(wheel, tmp_path_factory): # of all notebooks, two at a time: {path: future of (folder, finished process)}
    site, cache = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("cache")
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", site, wheel], check=True)
    env = {k: v for k, v in os.environ.items() if k not in ("IN_TEST", "MPLBACKEND")} | {"PYTHONPATH": str(site), "DDPM_MNIST_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    def run(path):
        folder, nb = tmp_path_factory.mktemp(path.stem), read(path)
        nb["cells"].insert(0, dict(cell_type="code", id="like-colab", metadata={}, execution_count=None, outputs=[], source=LIKE_COLAB))
        (folder / path.name).write_text(json.dumps(nb), encoding="utf8")
        return folder, subprocess.run([sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", "--inplace", path.name], cwd=folder, env=env, capture_output=True, text=True)
    with ThreadPoolExecutor(2) as pool: yield {path: pool.submit(run, path) for path in LESSONS + SOURCES}


@pytest.mark.parametrize("path", LESSONS + SOURCES, ids=name)
def test_runs_from_an_empty_folder_with_the_wheel(path, runs):
    folder, done = runs[path].result()
    assert done.returncode == 0, done.stderr[-3000:]
    assert "site" in Path((folder / "package.txt").read_text()).parent.parent.name # the wheel's, not the checkout's
    assert (folder / "pip.txt").read_text(encoding="utf8") == f'install -q "{requirement(path)}"'
