"""Which settings should `small` have, and what does longer training buy? Each candidate is measured by the digits it then draws.

    python benchmarks/tune.py      # three and a half hours on two quiet cores; rewrites results/tune.json, and continues it if it was stopped

After one pass over the digits the distance says little about their shape: what dominates it is a grey background, which every
candidate loses later. So the settings are compared after two; the last candidates train with the best of them for other numbers
of passes, and the end of their curve is `small` itself, as it ships.
"""
import copy, json, sys, time
from dataclasses import asdict, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from fastcore.script import call_parse

from ddpm_mnist.classifier import run_info, write_json
from ddpm_mnist.data import mnist_tensor
from ddpm_mnist.fid_analysis import evaluate_samples
from ddpm_mnist.sample import SAMPLERS, ddpm_sample
from ddpm_mnist.train import PRESETS, TrainConfig, TrainState, autocast, batch_noise, ddpm_loss, ema_update, load_checkpoint, load_model, speed_up, train_step
from ddpm_mnist.unet import ResidualBlock

DRAWN, VALIDATION = 1_000, 2_000
WAYS = {"ddpm 50": (50, SAMPLERS["ddpm"]), "ddpm 20": (20, SAMPLERS["ddpm"]), "ddim 20": (20, SAMPLERS["ddim"]), "dpm_solver 20": (20, SAMPLERS["dpm_solver"])}
EPOCHS, AVERAGES = 2, [0.0, 0.9, 0.999] # decays of further averages, measured for the first candidate and without the fall of the step size
BEST = dict(prediction="v", weighting="min_snr")
CANDIDATES = [dict(), dict(prediction="v"), dict(prediction="v", weighting="v"), dict(weighting="min_snr"), dict(schedule="cosine"),
              dict(schedule="cosine", prediction="v"), BEST, dict(seed=1), # what differs from the base: `small`, made to say the noise, with equal weights
              *(BEST | more for more in (dict(seed=1), dict(lr=1e-3), dict(lr=4e-3), dict(batch_size=32), dict(batch_size=16), dict(batch_size=128), dict(dropout=0.1), dict(lr_decay=False),
                                       dict(epochs=1), dict(epochs=4), dict(epochs=8))),
              dict(shipped="small", epochs=PRESETS["small"].epochs), dict(shipped="small_long", epochs=PRESETS["small"].epochs + 28), BEST | dict(epochs=8, batch_size=32)] # the latter's 28 came after the former's


@torch.no_grad()
def validation_loss(model, scheduler, x0): # of the noise, unweighted, whatever the training minimised
    t, noise = batch_noise(1234, 0, x0.shape, scheduler.num_timesteps)
    with autocast("cpu"): return sum(ddpm_loss(model, scheduler, *b).item() * len(b[0]) for b in zip(x0.split(250), t.split(250), noise.split(250))) / len(x0)


def drawn(model, scheduler, way):
    steps, new_step = WAYS[way]
    found = evaluate_samples(ddpm_sample(model.eval(), scheduler.respace(steps), DRAWN, seed=0, batch_size=128, progress=False, new_step=new_step))
    return dict(fid=found["fid"], confident_share=found["confident_share"])


def drop_out(model, share): # in each block, in front of the second convolution, as in Ho et al. 2020, appendix B
    for block in model.modules():
        if isinstance(block, ResidualBlock): block.conv2.register_forward_pre_hook(lambda conv, inputs: F.dropout(inputs[0], share, conv.training))


def measure(config, data, unseen, decays, dropout=0.0):
    torch.manual_seed(config.seed) # for the dropout; all else has seeds of its own
    state, start = TrainState(config), time.time()
    if dropout: drop_out(state.model, dropout)
    steps = -(-len(data) // config.batch_size) * config.epochs
    averages = {d: copy.deepcopy(state.model).requires_grad_(False) for d in decays}
    for step in range(steps):
        train_step(state, data, steps)
        for d, average in averages.items(): ema_update(average, state.model, d, step)
    row = dict(seconds=round(time.time() - start), loss=validation_loss(state.ema, state.scheduler, unseen), drawn={way: drawn(state.ema, state.scheduler, way) for way in WAYS})
    return row | dict(averages={d: drawn(average, state.scheduler, "ddpm 50") for d, average in averages.items()})


def measure_shipped(name, unseen): # with what its own training noted of itself
    (model, scheduler), log = load_model(name), load_checkpoint(name)["log"]
    return dict(seconds=round(sum(e["seconds"] for e in log)), loss=validation_loss(model, scheduler, unseen), drawn={way: drawn(model, scheduler, way) for way in WAYS}, averages={})


@call_parse
def main(output: str = "results/tune.json"):
    "Measure every candidate that is not in the file yet."
    base, path = replace(PRESETS["small"], prediction="eps", weighting="eps", epochs=EPOCHS, warmup=200, ema=0.99), Path(output)
    setting = json.loads(json.dumps(dict(base=asdict(base), drawn=DRAWN, validation=VALIDATION))) # as it is read back
    done = json.loads(path.read_text()) if path.exists() else {}
    newer = {k: v for k, v in setting["base"].items() if k not in done.get("base", {}) and v == getattr(TrainConfig, k)} # settings that there were not then, as they have been all along
    if done and {k: done[k] for k in setting} | dict(base=done["base"] | newer) != setting: sys.exit(f"tune: {output} was measured with other settings; name another --output")
    rows = done.get("rows", [])
    data, unseen = mnist_tensor()[0], mnist_tensor(train=False)[0][:VALIDATION]
    run = run_info("python benchmarks/tune.py") # before the work: the commit is that of the code
    print(speed_up(None, "cpu", base.precision, 10**9))
    for i, c in enumerate(CANDIDATES):
        if any(r["changed"] == c for r in rows): continue
        if "shipped" in c: row = measure_shipped(c["shipped"], unseen)
        else: row = measure(replace(base, **{k: v for k, v in c.items() if k != "dropout"}), data, unseen, AVERAGES if i == 0 or "lr_decay" in c else [], c.get("dropout", 0.0))
        seed = load_checkpoint(c["shipped"])["config"]["seed"] if "shipped" in c else c.get("seed", base.seed)
        rows.append(dict(changed=c) | row | dict(run=run | dict(seed=seed))); print(rows[-1], flush=True)
        write_json(path, setting | dict(rows=rows))
