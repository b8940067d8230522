# Two images from one file: `--target server` (API, dispatcher, migrate; no torch) and `--target worker` (torch with CUDA).

FROM python:3.11.14-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin janus
WORKDIR /home/janus

FROM base AS build
WORKDIR /source
COPY pyproject.toml README.md ./
COPY janus_core janus_core
COPY migrations migrations
COPY orchestrator orchestrator
COPY workers workers
RUN pip wheel --no-deps --wheel-dir /wheels .

FROM base AS server
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install "$(ls /wheels/janus_batch-*.whl)[server]"
USER janus
CMD ["python", "-m", "orchestrator.api"]

FROM base AS worker
# Compiled steps need a compiler on first use: gcc on a GPU, g++ on the CPU.
RUN apt-get update && apt-get install --yes --no-install-recommends g++ libc6-dev && rm -rf /var/lib/apt/lists/*
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install "$(ls /wheels/janus_batch-*.whl)[server,worker]"
# A new volume takes the owner of the folder that it is mounted on.
RUN mkdir /models && chown janus:janus /models
USER janus
CMD ["python", "-m", "workers"]
