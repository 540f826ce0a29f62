"""From a trained checkpoint to weights that ship, with their model card. Stops and continues; everything it says is measured here.

    python benchmarks/ship_model.py img_gen/ddpm_mnist.pth --name small --steps 50 --n 10000
"""
import json
from pathlib import Path

import torch
from fastcore.script import call_parse
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from ddpm_mnist.classifier import run_info, write_json
from ddpm_mnist.data import ASSETS
from ddpm_mnist.fid_analysis import evaluate_samples, save_samples
from ddpm_mnist.sample import sample_to_folder
from ddpm_mnist.train import load_checkpoint, load_model, ship_weights

CARD = """# Model card: `{name}`

Unconditional DDPM on MNIST, 28×28 in three equal channels: `load_model("{name}")`.

| | |
| --- | --- |
| network | U-Net, width {base_ch}, {params:,} parameters, averaged weights (EMA {ema}) |
| schedule | {schedule}, T = {T} |
| data | the 60,000 training digits of MNIST (origin and licence: `MNIST/ORIGIN.txt`) |
| licence of the weights | Apache-2.0, as the package |
| training | `{train_command}`: {step:,} steps, {epochs} epochs, Adam {lr}, batch {batch_size}, warm-up {warmup}, cosine decay, clip {clip}, seed {seed}, {precision} |
| time | {minutes:.0f} minutes, {rate:.0f} images/s (mean of the epochs), on {machine} while other work ran beside it |
| trained at commit | {train_commit} |

## Quality

{n:,} digits, {steps} respaced DDPM steps, seed {sample_seed}:

| | drawn | real test digits |
| --- | --- | --- |
| FID against the training digits (extractor `{extractor}`, {protocol}) | {fid} | {floor} (the floor) |
| share that the classifier is sure of (confidence ≥ {confident_from}) | {confident_share:.1%} | {real_share:.1%} |
| median distance to the nearest training digit | {nearest:.2f} | {real_nearest:.2f} |

Digits drawn, 0 to 9: {counts}. Of the test split: {real_counts}.

Loss of each epoch: {losses}.

## Known failures

A share of the samples is no digit: strokes that end nowhere, or halves of two digits; `04_fid_analysis` shows the worst. Nobody can ask for a particular digit. It knows MNIST and nothing else.

Measured by `{command}`, commit {commit}, {machine}, torch {torch}, {date}. The numbers are those of `results/{name}.json`.
"""


def images_of(folder: Path, n: int) -> torch.Tensor: # (n, 3, 28, 28) in [0, 1]
    return torch.stack([pil_to_tensor(Image.open(folder / f"{i:05d}.png")) for i in range(1, n + 1)]).float() / 255


@call_parse # which runs it, when this file is the program
def main(checkpoint: str, # what `ddpm_train` left
    name: str = "small", # of the model that ships
    steps: int = 50, # of the reverse process
    n: int = 10_000, # digits to measure
    seed: int = 0, # of the digits
    batch_size: int = 256,
    folder: str = None, # for the PNGs; a continued run finds them there
    train_command: str = "ddpm_train --preset small", # that made the checkpoint
    train_commit: str = "" # at which it ran
    ):
    "Ship the averaged weights, draw and measure digits, write results/NAME.json, results/NAME_samples.npz and the model card."
    run = run_info(f"python benchmarks/ship_model.py CHECKPOINT --name {name} --steps {steps} --n {n} --seed {seed}", seed=seed) # before anything is written: the commit is that of the code
    ship_weights(checkpoint, ASSETS / "models" / f"{name}.pth")
    model, scheduler = load_model(name)
    folder = sample_to_folder(model, scheduler.respace(steps), n, folder or f"img_gen/{name}", seed, batch_size, name)
    measured = evaluate_samples(images_of(folder, n))
    write_json(Path("results") / f"{name}.json", dict(model=name, sampler="ddpm", steps=steps, **measured, run=run))
    save_samples(images_of(folder, n), Path("results") / f"{name}_samples.npz")
    ckpt = load_checkpoint(ASSETS / "models" / f"{name}.pth")
    c, log, real = ckpt["config"], ckpt["log"], measured["real"]
    (ASSETS / "models" / f"{name}.md").write_text(CARD.format(
        name=name, params=sum(p.numel() for p in model.parameters()), T=c["num_timesteps"], step=ckpt["step"],
        minutes=sum(e["seconds"] for e in log) / 60, rate=sum(e["images_per_second"] for e in log) / len(log), train_command=train_command, train_commit=train_commit,
        steps=steps, sample_seed=seed, confident_share=measured["confident_share"], real_share=real["confident_share"],
        nearest=measured["nearest_median"], real_nearest=real["nearest_median"], counts=", ".join(map(str, measured["class_counts"])),
        real_counts=", ".join(map(str, real["class_counts"])), losses=", ".join(f"{e['loss']:.4f}" for e in log),
        **{k: c[k] for k in ("base_ch", "ema", "schedule", "epochs", "lr", "batch_size", "warmup", "clip", "seed", "precision")},
        **{k: measured[k] for k in ("n", "extractor", "protocol", "fid", "floor", "confident_from")},
        **{k: run[k] for k in ("command", "commit", "machine", "torch", "date")}))
    print(json.dumps(measured, indent=1))
