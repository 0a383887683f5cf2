# Dataflow worker: Beam's image with the locked dependencies. The packages of this
# project are not in it; each job stages them.
#
#   docker build -f docker/dataflow.Dockerfile -t REGISTRY/fma/dataflow:1 .
FROM apache/beam_python3.11_sdk:2.77.0

COPY requirements.lock /opt/fma/requirements.lock
# The lock is closed: nothing is resolved, and a source is built with what is here.
RUN pip install --no-cache-dir --disable-pip-version-check --require-hashes \
    --no-deps --no-build-isolation -r /opt/fma/requirements.lock

# What numba compiles, once for all workers: for any x86-64, since the cache of one
# processor is no use to another.
ENV NUMBA_CACHE_DIR=/opt/fma/numba NUMBA_CPU_NAME=generic
COPY pipeline /tmp/source/pipeline
COPY docker/warm_up.py /tmp/source/warm_up.py
RUN python /tmp/source/warm_up.py && rm -r /tmp/source

# Its entry point remains Beam's /opt/apache/beam/boot.
