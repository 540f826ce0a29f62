"A process that is killed loses nothing that it had kept: training and drawing end with the same files as if they had never been stopped."
import os, signal, subprocess, sys, time
from pathlib import Path

import pytest
import torch

from ddpm_mnist.train import load_checkpoint

TRAIN = """
import sys
from ddpm_mnist.data import mnist_tensor
from ddpm_mnist.train import PRESETS, train
train(PRESETS["tiny"], mnist_tensor(train=False)[0][:400], sys.argv[1], resume=sys.argv[2] == "resume", save_every=0, progress=False)
"""
DRAW = """
import sys
from ddpm_mnist.sample import sample_to_folder
from ddpm_mnist.train import load_model
model, scheduler = load_model("small")
sample_to_folder(model, scheduler.respace(4), 24, sys.argv[1], seed=5, batch_size=4, progress=False)
"""
environ = {**os.environ, "OMP_NUM_THREADS": "1"}

def start(code, *args): return subprocess.Popen([sys.executable, "-c", code, *map(str, args)], env=environ)

def wait_for(condition, process, seconds=120):
    until = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "ended before it could be stopped: give it more to do"
        assert time.monotonic() < until, "never got there"
        time.sleep(0.005)

def step_of(path):
    try: return load_checkpoint(path)["step"]
    except FileNotFoundError: return -1 # any other error is a half-written file, and fails the test

@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_training_continues_to_the_same_weights(tmp_path, how):
    assert start(TRAIN, tmp_path / "whole", "new").wait() == 0
    checkpoint = tmp_path / "stopped" / "ddpm_mnist.pth"
    for mode, step in (("new", 3), ("resume", 20)):
        p = start(TRAIN, tmp_path / "stopped", mode)
        wait_for(lambda: step_of(checkpoint) >= step, p)
        p.send_signal(how); p.wait()
    assert 20 <= step_of(checkpoint) < 50
    assert start(TRAIN, tmp_path / "stopped", "resume").wait() == 0
    a, b = load_checkpoint(tmp_path / "whole" / "ddpm_mnist.pth"), load_checkpoint(checkpoint)
    assert a["step"] == b["step"] == 50
    for which in ("weights", "ema"): assert all(torch.equal(a[which][k], b[which][k]) for k in a[which])
    assert [e["loss"] for e in a["log"]] == [e["loss"] for e in b["log"]]

def test_drawing_continues_to_the_same_files(tmp_path):
    assert start(DRAW, tmp_path / "whole").wait() == 0
    for count in (3, 13):
        p = start(DRAW, tmp_path / "stopped")
        wait_for(lambda: len(list((tmp_path / "stopped").glob("*.png"))) >= count, p)
        p.kill(); p.wait()
    assert start(DRAW, tmp_path / "stopped").wait() == 0
    read = lambda folder: {f.name: f.read_bytes() for f in sorted(Path(folder).glob("*.png"))}
    assert len(read(tmp_path / "whole")) == 24 and read(tmp_path / "whole") == read(tmp_path / "stopped")
