"""What is guidance by a worse network worth, eq. (7) of sampling, how strong should it be, and at which steps?

    python benchmarks/guide.py --jobs 2      # an hour on two quiet cores; rewrites results/guidance.json, and continues it if it was stopped

Weights and steps are compared on 2,000 digits of seed 0; what was chosen is measured on 10,000 digits of seeds that had no part in the choice.
(Seed 1 had: by its 10,000 digits a weight of 2.75 was too small, if narrowly, for the classifier to be as sure as was aimed at.)
"""
import json
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import torch
from fastcore.script import call_parse

from ddpm_mnist.classifier import run_info, write_json
from ddpm_mnist.fid_analysis import evaluate_samples, save_samples
from ddpm_mnist.sample import SAMPLERS, Guided, ddpm_sample, respaced
from ddpm_mnist.train import load_model

MODEL, GUIDE, SAMPLER, STEPS, SPACING = "small_long", "small_guide", "dpm_solver_half", 20, "trailing"
EVERYWHERE, FIRST, MIDDLE, LAST = (0, 800), (500, 800), (350, 500), (0, 350) # trained steps
COMPARED = [dict(w=1, between=MIDDLE), *(dict(w=w, between=steps) for steps in (EVERYWHERE, FIRST, MIDDLE, LAST) for w in (2, 3, 4))]
CHOSEN = [dict(w=1, between=MIDDLE), dict(w=3, between=MIDDLE)]
RUNS = [dict(n=10_000, seed=seed) | c for seed in (2, 3, 4) for c in CHOSEN] + [dict(n=2_000, seed=0) | c for c in COMPARED]
KEPT = RUNS[1] # whose digits are kept


def measure(w, between, n, seed):
    (model, scheduler), (guide, _) = load_model(MODEL), load_model(GUIDE)
    scheduler = respaced(scheduler, STEPS, SPACING)
    images = ddpm_sample(Guided(model, guide, w, between), scheduler, n, seed=seed, new_step=SAMPLERS[SAMPLER], progress=False)
    if dict(w=w, between=between, n=n, seed=seed) == KEPT: save_samples(images, Path("results/guided_samples.npz"))
    guided = sum(between[0] <= t < between[1] for t in scheduler.timesteps) * (w > 1)
    return dict(w=w, between=list(between), guide_calls=guided, seed=seed) | evaluate_samples(images)


@call_parse # which runs it, when this file is the program
def main(jobs: int = 1 # runs at a time, each with one thread
    ):
    "Draw, measure, write results/guidance.json."
    about, path = dict(model=MODEL, guide=GUIDE, sampler=SAMPLER, steps=STEPS, spacing=SPACING), Path("results/guidance.json")
    run, before = run_info(f"python benchmarks/guide.py --jobs {jobs}", **about), json.loads(path.read_text()) if path.exists() else dict(run={})
    rows = before["rows"] if about.items() <= before["run"].items() else []
    done = [{k: r[k] for k in RUNS[0]} for r in rows]
    with ProcessPoolExecutor(jobs, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        waiting = [pool.submit(measure, **r) for r in RUNS if {**r, "between": list(r["between"])} not in done]
        for finished in as_completed(waiting):
            rows.append(finished.result() | dict(commit=run["commit"]))
            print({k: rows[-1][k] for k in ("w", "between", "n", "seed", "fid", "confident_share")}, flush=True)
            write_json(path, dict(rows=sorted(rows, key=lambda r: (r["n"], r["seed"], r["between"], r["w"])), run=run))
