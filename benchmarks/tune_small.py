"""Which step size should `small` have? Each candidate sees every digit three times, and is measured by the digits it then draws.

    python benchmarks/tune_small.py        # twenty minutes on two quiet cores; rewrites results/tune_small.json, and continues it if it was stopped

After one pass the distance says little about the digits: what dominates it is a grey background, which every candidate loses later.
"""
import json, tempfile
from dataclasses import asdict, replace
from pathlib import Path

import torch

from ddpm_mnist.classifier import run_info, write_json
from ddpm_mnist.data import mnist_tensor
from ddpm_mnist.fid_analysis import evaluate_samples
from ddpm_mnist.sample import ddpm_sample
from ddpm_mnist.train import PRESETS, autocast, batch_noise, ddpm_loss, train

BASE = replace(PRESETS["small"], epochs=3, warmup=200, ema=0.99)
CANDIDATES = [dict(lr=1e-3), dict(lr=2e-3)]
DRAWN, STEPS, VALIDATION = 2_000, 50, 2_000
PATH = Path("results/tune_small.json")


@torch.no_grad()
def validation_loss(model, scheduler, x0):
    t, noise = batch_noise(1234, 0, x0.shape, scheduler.num_timesteps)
    with autocast("cpu"): return sum(ddpm_loss(model, scheduler, *b).item() * len(b[0]) for b in zip(x0.split(250), t.split(250), noise.split(250))) / len(x0)


def measure(candidate, data, unseen):
    with tempfile.TemporaryDirectory() as folder: state = train(replace(BASE, **candidate), data, folder, save_every=1e9, progress=False, device="cpu")
    found = evaluate_samples(ddpm_sample(state.ema.eval(), state.scheduler.respace(STEPS), DRAWN, seed=0, progress=False))
    return {**candidate, "loss": validation_loss(state.ema, state.scheduler, unseen), "fid": found["fid"], "confident_share": found["confident_share"],
            "seconds": round(sum(e["seconds"] for e in state.log))}


def main():
    setting = dict(base=asdict(BASE), drawn=DRAWN, steps=STEPS, validation=VALIDATION)
    setting = json.loads(json.dumps(setting)) # as it is read back
    done = json.loads(PATH.read_text()) if PATH.exists() else {}
    rows = done["rows"] if {k: done.get(k) for k in setting} == setting else []
    data, unseen = mnist_tensor()[0], mnist_tensor(train=False)[0][:VALIDATION]
    for c in CANDIDATES:
        if any(r["lr"] == c["lr"] for r in rows): continue
        rows.append(measure(c, data, unseen)); print(rows[-1], flush=True)
        write_json(PATH, setting | dict(rows=rows, run=run_info("python benchmarks/tune_small.py", seed=0)))


if __name__ == "__main__": main()
