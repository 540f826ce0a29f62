"`ddpm_fid` as a user meets it: another process, its exit code, what it prints and what it leaves."
import json, subprocess, sys
from pathlib import Path

import pytest
from PIL import Image

from ddpm_mnist.data import mnist_dataset


def ddpm_fid(*args):
    return subprocess.run([str(Path(sys.executable).with_name("ddpm_fid")), *map(str, args)], capture_output=True, text=True, timeout=600)


@pytest.fixture
def digits(tmp_path):
    folder = tmp_path / "digits"; folder.mkdir()
    for i, d in enumerate(mnist_dataset(False).data[:40]): Image.fromarray(d.numpy()).convert("RGB").save(folder / f"{i:05d}.png")
    return folder


def test_prints_the_number_and_keeps_it(digits, tmp_path):
    out = ddpm_fid(digits, "--json", tmp_path / "out.json")
    assert out.returncode == 0, out.stderr
    kept = json.loads((tmp_path / "out.json").read_text())
    assert f"FID {kept['fid']:.2f}: 40 images" in out.stdout and "floor" in out.stdout and "warning" in out.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["digits", "out.json"]


@pytest.mark.parametrize("break_it, word", [
    (lambda f: (f / "00007.png").write_bytes((f / "00007.png").read_bytes()[:50]), "00007.png"),
    (lambda f: Image.new("RGB", (32, 32)).save(f / "00008.png"), "00008.png"),
    (lambda f: [p.unlink() for p in f.iterdir()], "no .png")])
def test_a_bad_folder_gets_one_line(digits, tmp_path, break_it, word):
    break_it(digits)
    out = ddpm_fid(digits, "--json", tmp_path / "out.json")
    assert out.returncode == 1 and out.stdout == "" and word in out.stderr and "Traceback" not in out.stderr
    assert len(out.stderr.strip().splitlines()) == 1 and not (tmp_path / "out.json").exists()
