"""Which settings should `small` have? Equal numbers of images for each candidate, one pass; the loss of the averaged weights on unseen digits.

    python benchmarks/tune_small.py            # about ten minutes on two cores; rewrites results/tune_small.json
"""
import json, subprocess, tempfile, time
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path

import torch

from ddpm_mnist.data import mnist_tensor
from ddpm_mnist.train import PRESETS, autocast, batch_noise, ddpm_loss, train

IMAGES, VALIDATION = 15_360, 2_048
CANDIDATES = [dict(batch_size=64, lr=5e-4), dict(batch_size=64, lr=1e-3), dict(batch_size=64, lr=2e-3),
              dict(batch_size=32, lr=1e-3), dict(batch_size=128, lr=2e-3)]


@torch.no_grad()
def validation_loss(model, scheduler, x0):
    t, noise = batch_noise(1234, 0, x0.shape, scheduler.num_timesteps)
    with autocast("cpu", "auto"):
        return sum(ddpm_loss(model, scheduler, *b).item() * len(b[0]) for b in zip(x0.split(256), t.split(256), noise.split(256))) / len(x0)


def main():
    data = mnist_tensor()[0][torch.randperm(60_000, generator=torch.Generator().manual_seed(0))[:IMAGES]]
    unseen = mnist_tensor(train=False)[0][:VALIDATION]
    rows = []
    for c in CANDIDATES:
        config = replace(PRESETS["small"], epochs=1, warmup=50, ema=0.99, **c)
        with tempfile.TemporaryDirectory() as folder:
            started = time.monotonic()
            state = train(config, data, folder, save_every=1e9, progress=False, device="cpu")
            seconds = time.monotonic() - started
        rows.append({**c, "loss": validation_loss(state.model, state.scheduler, unseen), "ema_loss": validation_loss(state.ema, state.scheduler, unseen), "seconds": seconds})
        print(rows[-1], flush=True)
    run = dict(command="python benchmarks/tune_small.py", date=str(date.today()), torch=torch.__version__, threads=torch.get_num_threads(),
               commit=subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip(),
               cpu=next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), "unknown"))
    Path("results").mkdir(exist_ok=True)
    Path("results/tune_small.json").write_text(json.dumps(dict(images=IMAGES, validation=VALIDATION, seed=0, base=asdict(replace(PRESETS["small"], epochs=1, warmup=50, ema=0.99)), rows=rows, run=run), indent=1))


if __name__ == "__main__": main()
