# One image for a head, its workers and a single machine.
#   docker build -t sweeps .                                  for processors
#   docker build -t sweeps:gpu --build-arg DEVICE=gpu .       for GPUs: torch's build with CUDA, 7 GB
FROM python:3.11-slim-bookworm

# What Ray's launcher asks of a machine. Debian keeps no older versions, so pins would break.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends openssh-client rsync \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 sweeps

RUN python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1

# These layers change with the requirements alone.
ARG DEVICE=cpu
ARG CPU_INDEX=https://download.pytorch.org/whl/cpu
COPY requirements.txt /tmp/
RUN sed '/^# To develop/,$d' /tmp/requirements.txt > /tmp/run.txt \
    && grep -E '^(torch|torchvision)==' /tmp/run.txt > /tmp/torch.txt \
    && if [ "$DEVICE" = cpu ]; then \
        pip install --no-cache-dir --disable-pip-version-check --index-url "$CPU_INDEX" -r /tmp/torch.txt; \
    fi \
    && pip install --no-cache-dir --disable-pip-version-check -r /tmp/run.txt

WORKDIR /sweeps
ENV PYTHONPATH=/sweeps
COPY sweeps sweeps
COPY trainable trainable
COPY data/digits-sample.parquet data/
RUN mkdir -p results networks && chown -R sweeps results networks data
USER 1000
VOLUME ["/sweeps/data", "/sweeps/results"]
CMD ["python", "sweeps/arch_sweep.py"]
