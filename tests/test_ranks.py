"Two processes under torchrun do the work of one: the same weights, the same folder, no gap when one of them dies."
import os, subprocess, sys
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = "" # two ranks on one machine want two CPUs, not two GPUs
import pytest
import torch

from ddpm_mnist.data import mnist_tensor
from ddpm_mnist.train import PRESETS, TrainState, load_checkpoint, train

environ = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}

def torchrun(program, *args, ranks=2, restarts=0, fails=False): # what it printed, or its errors if it should fail
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1", f"--nproc-per-node={ranks}", f"--max-restarts={restarts}", *program, *map(str, args)]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as p:
        try: out, said = p.communicate(timeout=240)
        except subprocess.TimeoutExpired:
            p.terminate() # the launcher stops its workers
            out, said = p.communicate(timeout=60)
            pytest.fail(f"not done after four minutes\n{said[-3000:]}")
    assert (p.returncode != 0) == fails, said[-3000:]
    return said if fails else out

def files(folder): return {f.name: f.read_bytes() for f in sorted(Path(folder).glob("*.png"))}

@pytest.fixture
def drawn_alone(tmp_path):
    subprocess.run([sys.executable, "-m", "ddpm_mnist.sample", *draw(tmp_path / "one")], env=environ, check=True, capture_output=True)
    return files(tmp_path / "one")

def draw(folder): return ["--n_samples", "22", "--batch_size", "4", "--steps", "3", "--output_dir", str(folder)]

COUNTS = """
import os
from ddpm_mnist import sample
save, count = sample.save_png, [0]
def counted(x, path): count[0] += 1; save(x, path)
sample.save_png = counted
sample.main()
print("rank", os.environ["RANK"], "drew", count[0])
"""

def test_two_ranks_draw_the_folder_of_one(tmp_path, drawn_alone):
    (tmp_path / "counts.py").write_text(COUNTS)
    out = torchrun([str(tmp_path / "counts.py")], *draw(tmp_path / "two"))
    assert len(drawn_alone) == 22 and files(tmp_path / "two") == drawn_alone
    assert out.count("22 digits") == 1 # one of the ranks says so
    assert "rank 0 drew 12" in out and "rank 1 drew 10" in out

DIES_ONCE = """
import os, sys
from ddpm_mnist import sample
save, count = sample.save_png, [0]
def save_and_die(x, path):
    count[0] += 1
    if count[0] == 6 and os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0": os._exit(9)
    save(x, path)
sample.save_png = save_and_die
sample.main()
"""

def test_a_rank_that_dies_leaves_no_gap(tmp_path, drawn_alone):
    (tmp_path / "dies.py").write_text(DIES_ONCE)
    torchrun([str(tmp_path / "dies.py")], *draw(tmp_path / "two"), restarts=3)
    assert files(tmp_path / "two") == drawn_alone
    assert not list((tmp_path / "two").glob("*.tmp"))

TRAIN = """
import os, sys
import torch
from ddpm_mnist import train
from ddpm_mnist.data import mnist_tensor
torch.set_num_threads(1)
step, digits = train.train_step, mnist_tensor(train=False)[0][:401]
def step_and_die(state, *args):
    if state.step == 30 and os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0": os._exit(9)
    return step(state, *args)
train.train_step, train.mnist_tensor = step_and_die if "dies" in sys.argv else step, lambda device: (digits, None)
train.ddpm_train(preset="tiny", save_model_path=sys.argv[1], device="cpu")
"""

def moved(weights, model): # how far training has moved the weights
    return torch.cat([(weights[name] - p.detach()).flatten() for name, p in model.named_parameters()])

def test_training_goes_on_when_a_rank_dies(tmp_path): # 401 digits in batches of 16: the last batch leaves one rank without an image
    (tmp_path / "train.py").write_text(TRAIN)
    torchrun([str(tmp_path / "train.py")], tmp_path / "whole")
    torchrun([str(tmp_path / "train.py")], tmp_path / "died", "dies", restarts=3)
    train(PRESETS["tiny"], mnist_tensor(train=False)[0][:401], tmp_path / "one", device="cpu", progress=False)
    one, whole, died = (load_checkpoint(tmp_path / name / "ddpm_mnist.pth") for name in ("one", "whole", "died"))
    assert one["step"] == whole["step"] == died["step"] == 52
    assert [e["loss"] for e in whole["log"]] == pytest.approx([e["loss"] for e in died["log"]], rel=1e-6)
    assert [e["loss"] for e in whole["log"]] == pytest.approx([e["loss"] for e in one["log"]], rel=1e-3)
    for which in ("weights", "ema"): assert all(torch.allclose(whole[which][k], died[which][k], atol=1e-5) for k in whole[which])
    a, b = (moved(ckpt["weights"], TrainState(PRESETS["tiny"]).model) for ckpt in (one, whole))
    assert (a - b).norm() < 0.05 * a.norm() # Adam divides rounding by rounding where a gradient is nearly 0

def test_a_restart_goes_on_only_with_what_this_launch_began(tmp_path):
    (tmp_path / "train.py").write_text(TRAIN)
    torchrun([str(tmp_path / "train.py")], tmp_path / "done")
    before = (tmp_path / "done" / "ddpm_mnist.pth").read_bytes()
    assert "holds a training of 52 steps" in torchrun([str(tmp_path / "train.py")], tmp_path / "done", restarts=1, fails=True)
    assert (tmp_path / "done" / "ddpm_mnist.pth").read_bytes() == before

MERGE = """
import sys, torch
from ddpm_mnist.classifier import real_digits
from ddpm_mnist.fid_analysis import feature_stats, load_extractor, over_ranks
from ddpm_mnist.train import all_ranks, ranks
torch.set_num_threads(1)
rank, world = ranks()
with all_ranks(torch.device("cpu")): stats = over_ranks(feature_stats(real_digits(False)[0][:1001][rank::world], load_extractor()))
if rank == 0: stats.save(sys.argv[1])
"""

def test_statistics_are_merged(tmp_path):
    from ddpm_mnist.classifier import real_digits
    from ddpm_mnist.fid_analysis import FeatureStats, feature_stats, load_extractor
    (tmp_path / "merge.py").write_text(MERGE)
    torchrun([str(tmp_path / "merge.py")], tmp_path / "two.npz")
    one, two = feature_stats(real_digits(False)[0][:1001], load_extractor()), FeatureStats.load(tmp_path / "two.npz")
    assert one.n == two.n == 1001
    assert abs(one.mu - two.mu).max() < 1e-4 and abs(one.sigma - two.sigma).max() < 1e-3 # batches are cut differently, and float32 rounds differently
