# One image for every program: `docker run IMAGE sidecar -c /etc/proofbeat/sidecar.yaml`.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
WORKDIR /src
RUN python3 -m venv /opt/uv && /opt/uv/bin/pip install --no-cache-dir uv==0.13.9
COPY pyproject.toml uv.lock README.md ./
# The locked dependencies first: they change more seldom than the code.
RUN UV_PROJECT_ENVIRONMENT=/opt/proofbeat /opt/uv/bin/uv sync --frozen --no-dev --no-install-project --python "$(command -v python3)"
COPY attestation attestation
COPY authority authority
COPY measurer measurer
COPY policies policies
COPY proofbeat proofbeat
COPY sidecar sidecar
COPY telemetry telemetry
COPY wire wire
COPY xds xds
RUN UV_PROJECT_ENVIRONMENT=/opt/proofbeat /opt/uv/bin/uv sync --frozen --no-dev --no-editable --python "$(command -v python3)"

FROM ${BASE}
COPY --from=build /opt/proofbeat /opt/proofbeat
# The user that Istio keeps for proxies; the measurer's capabilities are the pod's to give.
USER 1337:1337
ENTRYPOINT ["/opt/proofbeat/bin/proofbeat"]
