#!/bin/sh
# Everything of this project that wants a CUDA GPU, in one go: both large models with their cards, the speed, the study. Stopped at any point, the same
# command continues; of the study, with the run that was stopped. Not run so far, for want of a GPU. The study at full size is by far the longest part:
# N, SEEDS and STEPS make it smaller. To try the whole with next to nothing, in a copy of the repository (it writes into the package):
#     MODELS=tiny N=20 SEEDS=0 STEPS=5,10 OPTIONS="--epochs 1" sh benchmarks/on_a_gpu.sh
set -e
export CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES-0} # the one GPU that trains is the one whose power is read
cd "$(dirname "$0")/.."
test -n "${OPTIONS:-}" || python -c "import denoising_diffusion_pytorch, diffusers" # of the extra [bench]: better missed now than after hours
for model in ${MODELS:-reference better}; do
    checkpoint=img_gen/$model/ddpm_mnist.pth commit=img_gen/$model/commit watts=img_gen/$model/watts
    train="ddpm_train --preset $model --ema 0.9999 ${OPTIONS:-}" # the averaged weights are kept beside the plain ones: one run measures both
    mkdir -p img_gen/$model; test -s $commit || git rev-parse --short HEAD > $commit || echo unknown > $commit
    while kill -0 $$ && command -v nvidia-smi > /dev/null; do nvidia-smi --id=${CUDA_VISIBLE_DEVICES%%,*} --query-gpu=power.draw --format=csv,noheader,nounits || true; sleep 5; done >> $watts 2> /dev/null & # for as long as this script lives
    $train --save_model_path img_gen/$model $(test -e $checkpoint && echo --resume)
    kill $! 2> /dev/null || true; wait
    test -e ddpm_mnist/assets/models/$model.md || python benchmarks/ship_model.py $checkpoint --name $model --n ${N:-10000} --draws dpm_solver_half:20:trailing,ddpm:50,ddpm:50:weights --train_command "$train" --train_commit "$(cat $commit)" --watts $(awk '{ sum += $1 } END { print NR ? sum / NR : 0 }' $watts)
done
test -n "${OPTIONS:-}" || test -e results/speed_cuda.json || python benchmarks/speed.py --width 128 --batch 256 --device cuda --output results/speed_cuda.json
for model in ${MODELS:-reference better}; do
    ddpm_study --model $model --n ${N:-10000} --seeds ${SEEDS:-0,1,2} --steps ${STEPS:-5,10,20,50,100,300,500,700,800,900,1000,1300} --output results/timestep_study_$model.json
done
