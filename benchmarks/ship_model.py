"""From a trained checkpoint to weights that ship, with their model card. Stops and continues; everything it says is measured here.

    python benchmarks/ship_model.py img_gen/ddpm_mnist.pth --name small --draws dpm_solver_half:20:trailing,ddpm:50 --n 10000
"""
import json
from pathlib import Path

import torch
from fastcore.script import call_parse

from ddpm_mnist.classifier import run_info, write_json
from ddpm_mnist.data import ASSETS, replacing
from ddpm_mnist.fid_analysis import evaluate_samples, folder_batches, save_samples
from ddpm_mnist.sample import sample_to_folder
from ddpm_mnist.train import build_model, load_checkpoint, load_model, my_device, ship_weights

CARD = """# Model card: `{name}`

Unconditional DDPM on MNIST, 28×28 in three equal channels: `load_model("{name}")`.

| | |
| --- | --- |
| network | U-Net, width {base_ch}, {params:,} parameters, {weights} |
| schedule | {schedule}, T = {T} |
| data | the 60,000 training digits of MNIST (origin and licence: `MNIST/ORIGIN.txt`) |
| licence of the weights | Apache-2.0, as the package |
| training | `{train_command}`: {step:,} steps, {epochs} epochs, Adam {lr}, batch {batch_size}, warm-up {warmup}, {decay}, clip {clip}, seed {seed}, number format {precision}; the network says {prediction}, errors are weighted by {weighting}{begun} |
| time | {minutes:.0f} minutes, {rate:.0f} images/s (mean of the epochs), on {train_machine} |
| energy | {energy} |
| trained at commit | {train_commit} |

## Quality

{n:,} digits, seed {sample_seed}, on respaced steps, against the training digits; extractor `{extractor}`: {protocol}.

{table}

Digits drawn with {first}, 0 to 9: {counts}. Of the test split: {real_counts}.

Loss of each epoch: {losses}.

## Known failures

A share of the samples is no digit: strokes that end nowhere, or halves of two digits; the page *The models that ship* counts and shows them. Nobody can ask for a particular digit. It knows MNIST and nothing else.

To draw the first column again, and measure it: `{again}`.

Measured by `{command}`, commit {commit}, {machine}, torch {torch}, {date}. The numbers are those of `results/{name}.json`.
"""


ROWS = {"FID": ("fid", ".4f"), "FID, extrapolated to infinitely many digits": ("fid_infinity", ".4f"), "kernel distance": ("kid", ".5f"), "precision": ("precision", ".1%"), "recall": ("recall", ".1%"),
        "share that the classifier is sure of (confidence ≥ {confident_from})": ("confident_share", ".1%"), "median distance to the nearest training digit": ("nearest_median", ".2f")}


def drawn_with(d: dict) -> str:
    return f"{d['sampler']}, {d['steps']} calls" + (f", {d['spacing']} steps" if d["spacing"] != "uniform" else "") + (", plain weights" if d["plain_weights"] else "")

def again(d: dict, name: str, seed: int) -> str: # from the weights that ship
    return f"ddpm_sample --model {name} --sampler {d['sampler']} --steps {d['steps']} --spacing {d['spacing']} --n_samples {d['n']} --seed {seed} --output_dir {name} && ddpm_fid {name}"

def table(draws: list[dict]) -> str: # markdown; the last column is of the real test digits
    real = draws[0]["real"] | {"fid": draws[0]["floor"]}
    columns = {drawn_with(d): d for d in draws} | {"real test digits": real}
    rows = [[name.format(**draws[0]), *(f"{c[key]:{form}}" if key in c else "–" for c in columns.values())] for name, (key, form) in ROWS.items()]
    return "\n".join("| " + " | ".join(r) + " |" for r in [["", *columns], ["---"] * (len(columns) + 1), *rows])


@call_parse # which runs it, when this file is the program
def main(checkpoint: str, # what `ddpm_train` left
    name: str = "small", # of the model that ships
    draws: str = "dpm_solver_half:20:trailing,ddpm:50", # samplers, their network calls, and if need be the spacing, and `weights` for the plain weights in place of their average; the first makes the samples that are kept
    n: int = 10_000, # digits to measure
    seed: int = 0, # of the digits
    batch_size: int = 256,
    kept: int = 10_000, # digits of the first way to draw that are kept; 0: none
    folder: str = None, # for the PNGs; a continued run finds them there
    train_command: str = "ddpm_train --preset small", # that made the checkpoint
    train_commit: str = "", # at which it ran
    train_machine: str = "", # on which it ran; this one, if nothing is said
    watts: float = 0.0 # the mean power of its processor meanwhile, if that told it
    ):
    "Ship the averaged weights, draw and measure digits, write results/NAME.json, the digits kept and the model card."
    run = run_info(f"python benchmarks/ship_model.py CHECKPOINT --name {name} --draws {draws} --n {n} --seed {seed}", seed=seed) # before anything is written: the commit is that of the code
    ship_weights(checkpoint, ASSETS / "models" / f"{name}.pth")
    device = my_device()
    model, scheduler = load_model(name, device)
    measured = []
    for sampler, steps, *more in (d.split(":") for d in draws.split(",")):
        spacing, plain = next((p for p in more if p != "weights"), "uniform"), "weights" in more
        net = build_model(load_checkpoint(checkpoint, device), "weights").eval().requires_grad_(False) if plain else model
        where = sample_to_folder(net, scheduler.respace(int(steps), spacing), n, "_".join([folder or f"img_gen/{name}", sampler, steps, *more]), seed, batch_size, name, sampler=sampler)
        images = torch.cat(list(folder_batches(where, n)))
        measured.append(dict(sampler=sampler, steps=int(steps), spacing=spacing, plain_weights=plain) | evaluate_samples(images))
        if len(measured) == 1 and kept: save_samples(images[:kept], Path("results") / f"{name}_samples.npz")
        print(json.dumps(measured[-1], indent=1))
    write_json(Path("results") / f"{name}.json", dict(model=name, draws=measured, run=run))
    ckpt = load_checkpoint(ASSETS / "models" / f"{name}.pth")
    c, log, first = ckpt["config"], ckpt["log"], measured[0]
    seconds = sum(e["seconds"] for e in log)
    with replacing(ASSETS / "models" / f"{name}.md") as f: f.write(CARD.format(
        name=name, params=sum(p.numel() for p in model.parameters()), T=c["num_timesteps"], step=ckpt["step"],
        minutes=seconds / 60, energy=f"{watts * seconds / 3.6e6:.2f} kWh, at {watts:.0f} W" if watts else "not known: the machine did not tell it", rate=sum(e["images_per_second"] for e in log) / len(log), train_command=train_command, train_commit=train_commit,
        begun=f"; begun with the weights of `{c['start_from']}`, so all this comes on top of its training" if c.get("start_from") else "",
        weights=f"averaged weights (EMA {c['ema']})" if c["ema"] else "plain weights", decay="cosine decay" if c["lr_decay"] else "constant step size", train_machine=train_machine or run["machine"],
        sample_seed=seed, table=table(measured), again=again(first, name, seed), first=drawn_with(first), counts=", ".join(map(str, first["class_counts"])),
        real_counts=", ".join(map(str, first["real"]["class_counts"])), losses=", ".join(f"{e['loss']:.4f}" for e in log),
        **{k: c[k] for k in ("base_ch", "schedule", "epochs", "lr", "batch_size", "warmup", "clip", "seed", "precision", "prediction", "weighting")},
        **{k: first[k] for k in ("n", "extractor", "protocol")},
        **{k: run[k] for k in ("command", "commit", "machine", "torch", "date")}))
