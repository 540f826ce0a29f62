"""The same work by this library and by what a student would otherwise use: network arithmetic delivered, in GFLOP/s, on this machine.

    pip install -e ".[bench]" && python benchmarks/speed.py      # ten minutes; nothing else may run; rewrites results/speed.json and results/speed.png

Each network predicts noise for 28×28 pictures of three channels. A round runs every candidate once, one after the other, so that a
slower minute of the machine is shared by all; the figure of a candidate is its median round. Work is counted by PyTorch's own counter,
forward once, training three times forward.
"""
import statistics, time
from contextlib import nullcontext
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from denoising_diffusion_pytorch import Unet
from diffusers import UNet2DModel
from fastcore.script import call_parse
from torch.utils.flop_counter import FlopCounterMode

from ddpm_mnist.classifier import run_info, write_json
from ddpm_mnist.train import autocast
from ddpm_mnist.unet import UNet

BLOCKS = dict(down_block_types=("DownBlock2D",) * 3, up_block_types=("UpBlock2D",) * 3)
def ours(width): return UNet(base_ch=width)
def diffusers(width): return UNet2DModel(sample_size=28, block_out_channels=(width, 2 * width, 4 * width), norm_num_groups=8, add_attention=False, **BLOCKS)
def lucidrains(width): return Unet(width, dim_mults=(1, 2, 4))
# as it comes: float32, the default layout. fast: bfloat16 where the hardware has it, channels_last; for ours that is what `train` and `ddpm_sample` do
CANDIDATES = [("ddpm_mnist", ours, "fast"), ("ddpm_mnist, float32", ours, "as it comes"), ("diffusers", diffusers, "as it comes"), ("diffusers, tuned by hand", diffusers, "fast"),
              ("denoising-diffusion-pytorch", lucidrains, "as it comes"),
              ("denoising-diffusion-pytorch, tuned by hand", lucidrains, "fast")]


class Candidate:
    def __init__(self, name, make, mode, width, batch, device):
        torch.manual_seed(0)
        self.name, self.mode, self.batch, self.device = name, mode, batch, device
        layout = torch.channels_last if mode == "fast" else torch.contiguous_format
        self.net = make(width).to(device, memory_format=layout)
        self.x, self.noise = (torch.randn(batch, 3, 28, 28, device=device).contiguous(memory_format=layout) for _ in range(2))
        self.t = torch.randint(0, 800, (batch,), device=device)
        self.adam = torch.optim.Adam(self.net.parameters(), lr=1e-4)
        with FlopCounterMode(display=False) as counter, torch.no_grad(): self.net(self.x[:1], self.t[:1])
        self.gflop, self.seconds = counter.get_total_flops() / 1e9, dict(sampling=[], training=[])

    def predict(self):
        with autocast(self.device) if self.mode == "fast" else nullcontext(): out = self.net(self.x, self.t)
        return getattr(out, "sample", out).float()

    def sampling(self):
        with torch.no_grad(): self.predict()

    def training(self):
        self.adam.zero_grad(); F.mse_loss(self.predict(), self.noise).backward(); self.adam.step()

    def measure(self, work, calls):
        run = getattr(self, work); run()
        if self.device == "cuda": torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(calls): run()
        if self.device == "cuda": torch.cuda.synchronize()
        self.seconds[work].append((time.perf_counter() - start) / calls)

    def row(self):
        rate = {work: self.batch / statistics.median(s) for work, s in self.seconds.items()}
        return dict(name=self.name, mode=self.mode, parameters=sum(p.numel() for p in self.net.parameters()), gflop_per_image=round(self.gflop, 4),
                    forward_pictures_per_second=round(rate["sampling"], 1), training_images_per_second=round(rate["training"], 1), # a drawn digit takes 20 to 800 forward passes
                    sampling_gflops=round(rate["sampling"] * self.gflop, 1), training_gflops=round(rate["training"] * self.gflop * 3, 1),
                    spread={work: [round(self.batch / v, 1) for v in (max(s), min(s))] for work, s in self.seconds.items()})


def matmul_peak(dtype, device, n):
    a = torch.randn(n, n, device=device).to(dtype)
    rates = []
    for _ in range(8):
        start = time.perf_counter()
        for _ in range(4): a @ a
        if device == "cuda": torch.cuda.synchronize()
        rates.append(4 * 2 * n**3 / (time.perf_counter() - start) / 1e9)
    return max(rates[1:])


def figure(result):
    fig, axes = plt.subplots(1, 2, figsize=(10, 2.6), sharey=True, layout="constrained")
    for ax, work in zip(axes, ("sampling", "training")):
        rows = result["rows"][::-1]
        ax.barh([r["name"] for r in rows], [r[f"{work}_gflops"] for r in rows], color=["tab:orange" if r["name"].startswith("ddpm_mnist") else "0.6" for r in rows])
        for dtype, style in (("float32", "--"), ("bfloat16", ":")): ax.axvline(result["peak_gflops"][dtype], ls=style, c="gray", label=f"matrix product, {dtype}")
        ax.set(title=work, xlabel="GFLOP/s of network arithmetic")
    axes[0].legend(fontsize=7, loc="lower right")
    return fig


@call_parse
def main(width: int = 32, # of every network at full resolution
    batch: int = 64, # images a call
    rounds: int = 7, # of all candidates
    calls: int = 6, # a candidate and round
    device: str = "cpu",
    output: str = "results/speed.json" # and the plot beside it
    ):
    "Measure sampling and training of every candidate, interleaved."
    torch.backends.cudnn.allow_tf32 = False # float32 means float32, for every candidate
    candidates = [Candidate(*c, width, batch, device) for c in CANDIDATES]
    peak = lambda: {str(d).removeprefix("torch."): round(matmul_peak(d, device, 2048 if device == "cpu" else 8192), 1) for d in (torch.float32, torch.bfloat16)}
    before = peak()
    for _ in range(rounds):
        for c in candidates:
            for work in ("sampling", "training"): c.measure(work, calls)
    after = peak()
    result = dict(width=width, batch=batch, rounds=rounds, calls=calls, peak_gflops={k: max(before[k], after[k]) for k in before}, peak_before=before, peak_after=after,
                  rows=[c.row() for c in candidates],
                  run=run_info(f"python benchmarks/speed.py --width {width} --batch {batch} --rounds {rounds} --calls {calls} --device {device}", threads=torch.get_num_threads(),
                               gpu=torch.cuda.get_device_name() if device == "cuda" else None))
    write_json(output, result)
    figure(result).savefig(Path(output).with_suffix(".png"), dpi=120)
    for r in result["rows"]: print(f"{r['name']:>28}: forward passes {r['forward_pictures_per_second']:7.0f} pictures/s, {r['sampling_gflops']:6.0f} GFLOP/s; training {r['training_images_per_second']:6.0f} images/s, {r['training_gflops']:6.0f} GFLOP/s")
    print("matrix product", result["peak_gflops"])
