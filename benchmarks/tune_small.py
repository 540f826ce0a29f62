"""Which settings should `small` have? Each candidate sees the same digits once, and is measured by the digits it then draws.

    python benchmarks/tune_small.py        # twenty minutes on two quiet cores; rewrites results/tune_small.json, and continues it if it was stopped
"""
import json, tempfile
from dataclasses import asdict, replace
from pathlib import Path

import torch

from ddpm_mnist.data import mnist_tensor
from ddpm_mnist.fid_analysis import evaluate_samples, run_info, write_json
from ddpm_mnist.sample import ddpm_sample
from ddpm_mnist.train import PRESETS, autocast, batch_noise, ddpm_loss, train

BASE = replace(PRESETS["small"], base_ch=32, epochs=1, warmup=200, ema=0.99)
CANDIDATES = [dict(batch_size=64, lr=1e-3), dict(batch_size=64, lr=2e-3), dict(batch_size=64, lr=5e-4), dict(batch_size=32, lr=1e-3),
              dict(batch_size=128, lr=2e-3), dict(batch_size=64, lr=1e-3, schedule="cosine")]
DRAWN, STEPS, VALIDATION = 2_000, 25, 2_000
PATH = Path("results/tune_small.json")


@torch.no_grad()
def validation_loss(model, scheduler, x0):
    t, noise = batch_noise(1234, 0, x0.shape, scheduler.num_timesteps)
    with autocast("cpu"): return sum(ddpm_loss(model, scheduler, *b).item() * len(b[0]) for b in zip(x0.split(250), t.split(250), noise.split(250))) / len(x0)


def measure(candidate, data, unseen):
    with tempfile.TemporaryDirectory() as folder: state = train(replace(BASE, **candidate), data, folder, save_every=1e9, progress=False, device="cpu")
    found = evaluate_samples(ddpm_sample(state.ema.eval(), state.scheduler.respace(STEPS), DRAWN, seed=0, progress=False))
    return {**candidate, "loss": validation_loss(state.ema, state.scheduler, unseen), "fid": found["fid"], "confident_share": found["confident_share"],
            "seconds": round(state.log[-1]["seconds"], 1)}


def main():
    setting = dict(base=asdict(BASE), images=60_000, drawn=DRAWN, steps=STEPS, validation=VALIDATION)
    setting = json.loads(json.dumps(setting)) # as it is read back
    done = json.loads(PATH.read_text()) if PATH.exists() else {}
    rows = done["rows"] if {k: done.get(k) for k in setting} == setting else []
    data, unseen = mnist_tensor()[0], mnist_tensor(train=False)[0][:VALIDATION]
    for c in CANDIDATES:
        if any(r.items() >= c.items() and r.get("schedule") == c.get("schedule") for r in rows): continue
        rows.append(measure(c, data, unseen)); print(rows[-1], flush=True)
        write_json(PATH, setting | dict(rows=rows, run=run_info("python benchmarks/tune_small.py", seed=0)))


if __name__ == "__main__": main()
