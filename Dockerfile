# syntax=docker/dockerfile:1
#
# CUDA:  docker build -t unetzoo:cuda .
#        torch comes with CUDA; the host needs the driver and NVIDIA's container toolkit
# CPU:   docker build -t unetzoo --build-arg TORCH_INDEX=URL .
#        URL: the index of torch's CPU builds, from torch's installation page; gigabytes smaller
#
# The image contains only the library. Data and results are in three volumes; here, U-Net, R2U-Net and DDU-Net are compared
# on Cityscapes:
#
#   /data    the data set, read-only: leftImg8bit/ and gtFine/
#   /cache   unpacked archives and decoded samples, kept from run to run
#   /runs    one folder per run: recipe, checkpoints, curves, predictions
#
#   for name in unet r2unet ddunet; do
#     docker run --rm --gpus all --ipc=host --user "$(id -u):$(id -g)" \
#       -v /path/to/cityscapes:/data:ro -v "$PWD/cache:/cache" -v "$PWD/runs:/runs" \
#       unetzoo:cuda train "$name-cityscapes" --set data.root=/data --out "/runs/$name"
#   done
#   docker run --rm -v "$PWD/runs:/runs" unetzoo compare /runs/unet /runs/r2unet /runs/ddunet
#
# --ipc=host gives the data loader's processes enough shared memory. Eight GPUs:
#   docker run … --entrypoint torchrun unetzoo:cuda --standalone --nproc-per-node=8 -m unetzoo.cli train …

ARG BASE=python:3.12-slim
FROM ${BASE}
ARG TORCH_INDEX=
ARG EXTRAS=log

WORKDIR /opt/unetzoo
COPY constraints.txt ./
RUN if [ -n "${TORCH_INDEX}" ]; then \
        python -m pip install --no-cache-dir --index-url "${TORCH_INDEX}" -c constraints.txt torch torchvision; \
    fi
COPY pyproject.toml README.md LICENSE ./
COPY plugins/unetzoo-template plugins/unetzoo-template
COPY unetzoo unetzoo
RUN python -m pip install --no-cache-dir -c constraints.txt ".[${EXTRAS}]"

ENV UNETZOO_CACHE=/cache \
    HOME=/tmp \
    PYTHONUNBUFFERED=1
RUN mkdir -p /data /cache /runs && chmod 777 /cache /runs
VOLUME ["/data", "/cache", "/runs"]
WORKDIR /runs
ENTRYPOINT ["unetzoo"]
CMD ["--help"]
