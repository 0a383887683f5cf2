# Trainer with TensorFlow for NVIDIA GPUs (it runs without one, too). The driver comes
# from the host, CUDA from NVIDIA's wheels, which the lock file names.
#
#   docker build -f docker/trainer.Dockerfile -t REGISTRY/fma/trainer:latest .
FROM python:3.11-slim

COPY docker/trainer.lock /opt/fma/trainer.lock
# The lock is closed: nothing is resolved.
RUN pip install --no-cache-dir --disable-pip-version-check --require-hashes \
    --no-deps --only-binary=:all: -r /opt/fma/trainer.lock

COPY pipeline /opt/fma/pipeline
COPY trainer /opt/fma/trainer
# The last three are how NVIDIA's runtime and Vertex AI hand the driver in.
ENV PYTHONPATH=/opt/fma PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    LD_LIBRARY_PATH=/usr/local/nvidia/lib:/usr/local/nvidia/lib64
ENTRYPOINT ["python", "-m", "trainer.task"]
