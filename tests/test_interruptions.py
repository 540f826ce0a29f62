"What is killed loses nothing that it had kept: training and drawing end with the same files as if they had never been stopped, and a damaged file is never taken for a whole one."
import multiprocessing, os, random, resource, signal, subprocess, sys, time
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = "" # bit for bit is promised on the CPU, and a process that uses CUDA cannot be forked

import pytest
import torch
from hypothesis import given, settings, strategies as st

from ddpm_mnist.data import mnist_tensor
from ddpm_mnist.sample import sample_to_folder
from ddpm_mnist.train import PRESETS, TrainState, load_checkpoint, load_model, pack, save_atomic, train, unpack

torch.set_num_threads(1) # forked children have no other threads
fork = multiprocessing.get_context("fork") # a child starts at once, with torch imported

def run(function, *args):
    child = fork.Process(target=function, args=args)
    child.start()
    return child

def wait_for(condition, child, seconds=120):
    until = time.monotonic() + seconds
    while True:
        alive = child.is_alive()
        if condition(): return
        assert alive, "ended before it could be stopped: give it more to do"
        assert time.monotonic() < until, "never got there"
        time.sleep(0.005)

def step_of(path):
    try: return load_checkpoint(path)["step"]
    except FileNotFoundError: return -1 # any other error is a half-written file, and fails the test

def train_on(digits, folder, resume):
    train(PRESETS["tiny"], digits, folder, resume=resume, save_every=0, progress=False)

def same_training(a, b):
    a, b = (load_checkpoint(Path(folder) / "ddpm_mnist.pth") for folder in (a, b))
    for which in ("weights", "ema"): assert all(torch.equal(a[which][k], b[which][k]) for k in a[which])
    assert a["step"] == b["step"] and [e["loss"] for e in a["log"]] == [e["loss"] for e in b["log"]]

@pytest.fixture(scope="module")
def digits(): return mnist_tensor(train=False)[0][:3200].contiguous()

@pytest.fixture(scope="module")
def whole(digits, tmp_path_factory): # a training of 400 steps that was left alone
    folder, start = tmp_path_factory.mktemp("whole"), time.monotonic()
    train_on(digits, folder, False)
    return folder, (time.monotonic() - start) / 400 # seconds a step, its save included

def test_training_killed_thirty_times(digits, whole, tmp_path):
    checkpoint, moments = tmp_path / "ddpm_mnist.pth", random.Random(0)
    for kill in range(30):
        before = step_of(checkpoint)
        child = run(train_on, digits, tmp_path, checkpoint.exists())
        if kill % 3: wait_for(lambda: step_of(checkpoint) > before, child) # every third is killed while it starts
        time.sleep(moments.uniform(0, 4 * whole[1])) # a checkpoint is written after every step: many of these are inside a save
        assert child.is_alive(), "ended before it could be stopped: give it more to do"
        child.kill(); child.join()
        if checkpoint.exists(): load_checkpoint(checkpoint)
    assert 20 <= step_of(checkpoint) < 400
    train_on(digits, tmp_path, True)
    same_training(whole[0], tmp_path)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["ddpm_mnist.pth", "log.jsonl"] # what was half-written is swept away

@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_saves_and_says_so(digits, whole, tmp_path, how):
    program = ("import sys, torch; torch.set_num_threads(1); from ddpm_mnist import train; from ddpm_mnist.data import mnist_tensor; digits = mnist_tensor(train=False)[0][:3200].contiguous(); "
               "train.mnist_tensor = lambda device: (digits, None); train.ddpm_train(preset='tiny', save_model_path=sys.argv[1], resume='resume' in sys.argv)")
    p = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stderr=subprocess.PIPE, text=True)
    while "img/s" not in (line := p.stderr.read(60)) and p.poll() is None: pass # it has begun
    time.sleep(1); p.send_signal(how)
    said = p.communicate(timeout=60)[1]
    assert p.returncode == 1 and said.strip().splitlines()[-1] == "stopped; continue with the same command and --resume", said
    step = step_of(tmp_path / "ddpm_mnist.pth")
    assert 0 < step < 400
    subprocess.run([sys.executable, "-c", program, str(tmp_path), "resume"], check=True, capture_output=True)
    same_training(whole[0], tmp_path)

def test_a_full_disk_leaves_the_last_checkpoint(digits, tmp_path):
    train(PRESETS["tiny"], digits, tmp_path, max_steps=3, progress=False)
    before = (tmp_path / "ddpm_mnist.pth").read_bytes()
    def no_room():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2,) * 2)
        try: train(PRESETS["tiny"], digits, tmp_path, resume=True, save_every=0, progress=False)
        except OSError as e: os._exit(7 if "cannot write" in str(e) and "ddpm_mnist.pth" in str(e) else 8)
    child = run(no_room); child.join()
    assert child.exitcode == 7
    assert (tmp_path / "ddpm_mnist.pth").read_bytes() == before
    assert not list(tmp_path.glob("*.tmp"))

def equal(a, b):
    if torch.is_tensor(a): return torch.is_tensor(b) and torch.equal(a, b)
    if isinstance(a, dict): return isinstance(b, dict) and a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)): return type(a) is type(b) and len(a) == len(b) and all(map(equal, a, b))
    return a == b

@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = save_atomic(pack(TrainState(PRESETS["tiny"])), tmp_path_factory.mktemp("checkpoint") / "c.pth")
    return path, path.read_bytes(), load_checkpoint(path)

@settings(deadline=None, max_examples=400, derandomize=True, database=None)
@given(place=st.floats(0, 1, exclude_max=True), where=st.sampled_from(["anywhere", "near the start", "near the end"]), bit=st.integers(0, 7), cut=st.booleans())
def test_a_damaged_checkpoint_is_refused_or_right(checkpoint, place, where, bit, cut):
    path, raw, good = checkpoint
    at = {"anywhere": int(place * len(raw)), "near the start": int(place * 4000), "near the end": len(raw) - 1 - int(place * 12_000)}[where]
    damaged = bytearray(raw[:at] if cut else raw)
    if not cut: damaged[at] ^= 1 << bit
    part = path.with_name("damaged.pth"); part.write_bytes(damaged)
    try: loaded = load_checkpoint(part)
    except ValueError as e: assert str(part) in str(e) # named, and nothing else is raised
    else: assert equal(loaded, good)

def draw(folder):
    model, scheduler = load_model("small")
    sample_to_folder(model, scheduler.respace(4), 24, folder, seed=5, batch_size=4, progress=False)

def test_drawing_killed_continues_to_the_same_files(tmp_path):
    read = lambda folder: {f.name: f.read_bytes() for f in sorted(folder.glob("*.png"))}
    draw(tmp_path / "whole")
    for count in (3, 9, 17):
        child = run(draw, tmp_path / "stopped")
        wait_for(lambda: len(list((tmp_path / "stopped").glob("*.png"))) >= count, child)
        child.kill(); child.join()
    draw(tmp_path / "stopped")
    assert len(read(tmp_path / "whole")) == 24 and read(tmp_path / "whole") == read(tmp_path / "stopped")
