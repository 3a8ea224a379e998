# Built whole in one stage, copied into another that has neither build tools nor pip's cache.
FROM python:3.12.12-slim-bookworm AS build
RUN python -m venv /opt/build && python -m venv /opt/audiopixel
WORKDIR /src
# Locked packages by their hashes, the extras `buckets` and `sources` among them; `make lock` renews both files. This layer stays until they change.
COPY deploy/requirements.txt deploy/build-requirements.txt deploy/
RUN /opt/build/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes \
      --only-binary :all: -r deploy/build-requirements.txt \
 && /opt/audiopixel/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes \
      --only-binary :all: -r deploy/requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY flows flows
COPY connectors connectors
COPY dashboards dashboards
COPY docs docs
RUN /opt/build/bin/pip wheel --disable-pip-version-check --no-deps --no-build-isolation --no-index --wheel-dir /wheels . \
 && /opt/audiopixel/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps --no-index /wheels/*.whl
# --build-arg KERNELS=1: compiled ahead, for processors of the builder's kind. Others compile at their first start.
ARG KERNELS=""
RUN mkdir /kernels \
 && if [ -n "$KERNELS" ]; then apt-get update && apt-get install --yes --no-install-recommends redis-server \
 && NUMBA_CACHE_DIR=/kernels /opt/audiopixel/bin/audiopixel compile; fi

FROM python:3.12.12-slim-bookworm
RUN useradd --system --uid 10001 --home-dir /var/lib/audiopixel --create-home audiopixel \
 && install -d -o audiopixel -g audiopixel /var/lib/audiopixel/plans /var/lib/audiopixel/spool /var/lib/audiopixel/recovery /var/lib/audiopixel/archive \
 # A volume mounted here begins with this: no placement is planned.
 && echo "placement_id,booked,start,end" > /var/lib/audiopixel/plans/plans.csv \
 && chown audiopixel:audiopixel /var/lib/audiopixel/plans/plans.csv
COPY --from=build /opt/audiopixel /opt/audiopixel
COPY --from=build --chown=audiopixel:audiopixel /kernels /var/lib/audiopixel/kernels
# The kernels' compiled code goes where a user who may not write to the package can.
ENV PATH=/opt/audiopixel/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    NUMBA_CACHE_DIR=/var/lib/audiopixel/kernels \
    AUDIOPIXEL_PLANS=/var/lib/audiopixel/plans/plans.csv \
    AUDIOPIXEL_RECOVERY_DIR=/var/lib/audiopixel/recovery \
    AUDIOPIXEL_METRICS_HOST=0.0.0.0
USER audiopixel
WORKDIR /var/lib/audiopixel
ENTRYPOINT ["audiopixel"]
CMD ["run"]
