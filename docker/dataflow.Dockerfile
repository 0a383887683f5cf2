# Dataflow worker: Beam's image with the locked dependencies. The packages of this
# project are not in it; each job stages them.
#
#   docker build -f docker/dataflow.Dockerfile -t REGISTRY/fma/dataflow:1 .
FROM apache/beam_python3.11_sdk:2.77.0

COPY requirements.lock /opt/fma/requirements.lock
# The lock is closed: nothing is resolved, and a source is built with what is here.
RUN pip install --no-cache-dir --disable-pip-version-check --require-hashes \
    --no-deps --no-build-isolation -r /opt/fma/requirements.lock

# Its entry point remains Beam's /opt/apache/beam/boot.
