"""The same work by this library and by what a student would otherwise use: training steps and whole drawing runs, on this machine.

    pip install -e ".[bench]" && python benchmarks/speed.py      # ten minutes; nothing else may run; rewrites results/speed.json

A round runs every candidate once, one after the other, so that a slower minute of the machine is shared by all; the figure of a
candidate is its median round. Drawing is `steps` network calls on `batch` pictures, with all that the sampler does in between; a
training step has its random numbers, its optimiser, and for the report's loop its pictures from a DataLoader.
Arithmetic is that of the network as it is drawn, counted by PyTorch, forward once, training three times forward. Upsampling and
convolution in one, as `UpConv` has it, needs fewer operations than the network as drawn; both numbers are kept.
"""
import statistics, subprocess, sys, time
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from denoising_diffusion_pytorch import GaussianDiffusion, Unet
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, UNet2DModel
from fastcore.script import call_parse
from torch import nn
from torch.profiler import profile
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from ddpm_mnist.classifier import run_info, write_json
from ddpm_mnist.data import mnist_dataset, mnist_tensor
from ddpm_mnist.sample import SAMPLERS, ddpm_sample
from ddpm_mnist.scheduler import NoiseScheduler
from ddpm_mnist.train import TrainConfig, TrainState, autocast, speed_up, train_step
from ddpm_mnist.unet import UNet, UpConv

T = 800


class Ours:
    "As `ddpm_train` and `ddpm_sample` do it; `precision=\"float32\"` leaves everything plain."
    differs = "nothing"
    def __init__(self, width, batch, steps, device, precision="auto", sampler="ddpm"):
        self.batch, self.steps, self.device, self.precision, self.sampler = batch, steps, device, precision, sampler
        self.state = TrainState(TrainConfig(base_ch=width, batch_size=batch, precision=precision), device)
        self.net, self.data, self.done = self.state.model, mnist_tensor(device=device)[0], 0
        self.chosen = speed_up(self.net, device, precision, 10**9)
    def training(self): train_step(self.state, self.data, 10**6)
    def drawing(self): ddpm_sample(self.net, self.state.scheduler.respace(self.steps), self.batch, seed=0, batch_size=self.batch, device=self.device, progress=False, new_step=SAMPLERS[self.sampler], precision=self.precision)


class Peer:
    "float32 in the default layout as it comes, or tuned by hand: the fastest number format, channels_last."
    def __init__(self, width, batch, steps, device, tuned=False):
        self.batch, self.steps, self.device, self.tuned = batch, steps, device, tuned
        self.layout = torch.channels_last if tuned else torch.contiguous_format
        self.net = self.make(width).to(device, memory_format=self.layout)
        self.adam, self.data = torch.optim.Adam(self.net.parameters(), lr=1e-4), mnist_tensor(device=device)[0]
        self.chosen = f"{device}, {'fastest format, channels_last' if tuned else 'float32, default layout'}"
    def format(self): return autocast(self.device) if self.tuned else nullcontext()
    def images(self): return self.data[torch.randint(0, len(self.data), (self.batch,), device=self.device)].contiguous(memory_format=self.layout)
    def noise(self): return torch.randn(self.batch, 3, 28, 28, device=self.device).contiguous(memory_format=self.layout)
    def training(self):
        self.adam.zero_grad()
        with self.format(): loss = self.loss(self.images())
        loss.backward(); self.adam.step()


class Report(Peer):
    "A plain transcription of the report's training and sampling loops, around this library's network."
    differs = "nothing in the network, which is PyTorch's plain modules; pictures come from a DataLoader with PIL transforms"
    def make(self, width):
        self.scheduler, self.batches, net = NoiseScheduler(T, device=self.device), iter([]), UNet(base_ch=width)
        for up in net.ups: up.up = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(up.up.in_channels, up.up.out_channels, 3, padding=1))
        return net
    def images(self):
        try: return next(self.batches)[0]
        except StopIteration: self.batches = iter(DataLoader(mnist_dataset(), self.batch, shuffle=True, drop_last=True)); return next(self.batches)[0]
    def loss(self, x0):
        x0 = x0.to(self.device); t, noise = torch.randint(0, T, (len(x0),), device=self.device), torch.randn_like(x0)
        return F.mse_loss(self.net(self.scheduler.add_noise(x0, noise, t), t), noise)
    @torch.no_grad()
    def drawing(self):
        s, x = self.scheduler, self.noise()
        for i in range(self.steps): # of 800: a call costs the same wherever it stands
            t = T - 1 - i
            eps = self.net(x, torch.full((len(x),), t, device=self.device))
            x = (x - s.betas[t] / s.sqrt_one_minus_alpha_bars[t] * eps) / s.alphas[t].sqrt() + s.posterior_variance[t].sqrt() * torch.randn_like(x)


class Diffusers(Peer):
    differs = "three residual blocks on each level of the way up, the blocks wider"
    def __init__(self, *args, schedule=DDPMScheduler, **kw): self.schedule = schedule(num_train_timesteps=T); super().__init__(*args, **kw)
    def make(self, width):
        return UNet2DModel(sample_size=28, block_out_channels=(width, 2 * width, 4 * width), norm_num_groups=8, add_attention=False,
                           down_block_types=("DownBlock2D",) * 3, up_block_types=("UpBlock2D",) * 3)
    def loss(self, x0):
        t, noise = torch.randint(0, T, (len(x0),), device=self.device), self.noise()
        return F.mse_loss(self.net(self.schedule.add_noise(x0, noise, t), t).sample.float(), noise)
    @torch.no_grad()
    def drawing(self):
        self.schedule.set_timesteps(self.steps)
        x = self.noise()
        for t in self.schedule.timesteps:
            with self.format(): eps = self.net(x, t).sample.float()
            x = self.schedule.step(eps, t, x).prev_sample


class Lucidrains(Peer):
    differs = "attention on the lowest level, linear attention on the others"
    def make(self, width):
        net = Unet(width, dim_mults=(1, 2, 4))
        self.diffusion = GaussianDiffusion(net, image_size=28, timesteps=T, sampling_timesteps=self.steps, beta_schedule="linear").to(self.device)
        return net
    def loss(self, x0): return self.diffusion(x0)
    @torch.no_grad()
    def drawing(self):
        with self.format(): self.diffusion.ddim_sample((self.batch, 3, 28, 28)) # the bar of its `sample` goes to stderr


CANDIDATES = {
    "ddpm_mnist": Ours, "ddpm_mnist, DPM-Solver++": lambda *a: Ours(*a, sampler="dpm_solver"), "ddpm_mnist, all plain": lambda *a: Ours(*a, precision="float32"),
    "the report's loop": Report,
    "diffusers": Diffusers, "diffusers, DDIM": lambda *a: Diffusers(*a, schedule=DDIMScheduler), "diffusers, DPM-Solver++": lambda *a: Diffusers(*a, schedule=DPMSolverMultistepScheduler),
    "diffusers, tuned by hand": lambda *a: Diffusers(*a, tuned=True),
    "denoising-diffusion-pytorch": Lucidrains, "denoising-diffusion-pytorch, tuned by hand": lambda *a: Lucidrains(*a, tuned=True)}
ONLY_DRAWING = ("DDIM", "DPM-Solver++") # their training is that of the candidate before them


def arithmetic(net, device) -> tuple[float, float]: # GFLOP an image, forward: of the network as drawn, and as it is computed
    with FlopCounterMode(display=False) as counter, torch.no_grad(): net(torch.randn(1, 3, 28, 28, device=device), torch.zeros(1, dtype=torch.long, device=device))
    saved, hooks = [], []
    for m in net.modules():
        if isinstance(m, UpConv): hooks.append(m.register_forward_hook(lambda m, i, o: saved.append((9 - 4) * 2 * m.in_channels * o.numel())))
    with torch.no_grad(): net(torch.randn(1, 3, 28, 28, device=device), torch.zeros(1, dtype=torch.long, device=device))
    for h in hooks: h.remove()
    computed = counter.get_total_flops()
    return (computed + sum(saved)) / 1e9, computed / 1e9


def clock(run, calls, device) -> float: # seconds a call
    torch.set_float32_matmul_precision("highest") # `speed_up` asks for less, which then holds for whoever comes next
    if device.startswith("cuda"): torch.cuda.synchronize(device)
    start = time.perf_counter()
    for _ in range(calls): run()
    if device.startswith("cuda"): torch.cuda.synchronize(device)
    return (time.perf_counter() - start) / calls


def matmul_peak(dtype, device, n): # GFLOP/s
    a = torch.randn(n, n, device=device).to(dtype)
    return max(2 * n**3 / clock(lambda: a @ a, 4, device) / 1e9 for _ in range(8))


def where_time_goes(c: Ours) -> dict: # share of the time that operations take on the CPU, in percent
    kinds = dict(convolutions=("convolution",), time=("addmm", "aten::mm"), norms=("Compiled", "silu", "addcmul", "aten::sum", "aten::pow", "GroupNorm", "aten::mean", "rsqrt", "Dynamo", "bytecode"),
                 additions=("aten::add", "aten::mul"), copies=("copy", "aten::cat", "empty", "contiguous"), optimiser=("Adam", "adam", "clip", "foreach"))
    shares = {}
    for work in ("drawing", "training"):
        getattr(c, work)()
        with profile() as p: getattr(c, work)()
        total, parts = sum(e.self_cpu_time_total for e in p.key_averages()), dict.fromkeys(kinds, 0.0)
        for e in p.key_averages():
            kind = next((k for k, names in kinds.items() if any(name in e.key for name in names)), None)
            if kind: parts[kind] += e.self_cpu_time_total
        shares[work] = {k: round(100 * v / total, 1) for k, v in parts.items()} | {"rest": round(100 - 100 * sum(parts.values()) / total, 1)}
    return shares


def peak_memory(name, *args) -> int: # MB of a process that does nothing else
    code = f"import sys; sys.path.insert(0, 'benchmarks'); import speed; speed.peak_of({name!r}, *{args!r})"
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()[-1])


def peak_of(name, *args):
    c = CANDIDATES[name](*args); c.drawing(); c.training()
    if args[-1].startswith("cuda"): print(torch.cuda.max_memory_allocated() // 10**6)
    else: print(int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) * 1024 // 10**6) # Linux only


def row(name, c, seconds, gflop, memory):
    drawn, computed = gflop
    per = {work: statistics.median(s) for work, s in seconds.items() if s}
    spread = {work: [round(c.batch / max(s), 1), round(c.batch / min(s), 1)] for work, s in seconds.items() if s}
    result = dict(name=name, differs=c.differs, chosen=c.chosen, parameters=sum(p.numel() for p in c.net.parameters()), gflop_per_image=round(drawn, 4), gflop_computed=round(computed, 4),
                  drawn_per_second=round(c.batch / per["drawing"], 2), drawing_gflops=round(c.batch * c.steps * drawn / per["drawing"], 1), peak_memory_mb=memory, spread=spread)
    if "training" in per: result |= dict(trained_per_second=round(c.batch / per["training"], 1), training_gflops=round(c.batch * 3 * drawn / per["training"], 1))
    return result


@call_parse
def main(width: int = 32, # of every network at full resolution
    batch: int = 64, # images at a time
    steps: int = 20, # network calls of a drawing run
    rounds: int = 7, # of all candidates
    calls: int = 6, # training steps a candidate and round
    device: str = "cpu",
    output: str = "results/speed.json"
    ):
    "Measure training and drawing of every candidate, interleaved."
    torch.backends.cudnn.allow_tf32 = False # float32 means float32, for every candidate
    run = run_info(f"python benchmarks/speed.py --width {width} --batch {batch} --steps {steps} --rounds {rounds} --calls {calls} --device {device}",
                   threads=torch.get_num_threads(), gpu=torch.cuda.get_device_name(device) if device.startswith("cuda") else None)
    peaks = lambda: {str(d).removeprefix("torch."): round(matmul_peak(d, device, 2048 if device == "cpu" else 8192), 1) for d in (torch.float32, torch.bfloat16)}
    args = width, batch, steps, device
    candidates = {name: make(*args) for name, make in CANDIDATES.items()}
    gflop, seconds = {name: arithmetic(c.net, device) for name, c in candidates.items()}, {name: dict(drawing=[], training=[]) for name in candidates}
    before = peaks()
    for i in range(rounds + 1): # the first round warms up
        for name, c in candidates.items():
            for work in ("drawing",) if any(w in name for w in ONLY_DRAWING) else ("drawing", "training"):
                t = clock(getattr(c, work), calls if work == "training" else 1, device)
                if i: seconds[name][work].append(t)
    after = peaks()
    result = dict(width=width, batch=batch, steps=steps, rounds=rounds, calls=calls, peak_gflops={k: max(before[k], after[k]) for k in before}, peak_before=before, peak_after=after,
                  rows=[row(name, c, seconds[name], gflop[name], peak_memory(name, *args)) for name, c in candidates.items()],
                  where_time_goes=where_time_goes(candidates["ddpm_mnist"]) if device == "cpu" else None, run=run) # a GPU's time is not that of the calls
    write_json(output, result)
    for r in result["rows"]: print(f"{r['name']:>42}: {r['drawn_per_second']:7.1f} digits/s, {r['drawing_gflops']:6.0f} GFLOP/s; training {r.get('trained_per_second', 0):6.0f} images/s, {r.get('training_gflops', 0):6.0f} GFLOP/s; {r['peak_memory_mb']} MB")
    print("matrix product", result["peak_gflops"])
