# The image of nodes, the catalog, warm-ups and readers: one, for linux/amd64 and linux/arm64.
#
#   docker buildx build --platform linux/amd64,linux/arm64 --tag REGISTRY/penstock:VERSION --push .
#
# For a catalog over PostgreSQL add --build-arg EXTRAS=node,catalog,postgresql,kubernetes,otel: its
# driver has another licence (docs/licences.md).
#
# Nothing that the chart runs needs a shell. The file system may be read-only, the user any.
ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ARG EXTRAS=node,catalog,kubernetes,otel
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
WORKDIR /src
COPY requirements.lock ./
# What is pinned in the lock file, and no more of it than these extras need.
RUN python -m venv /opt/uv \
    && grep '^uv==' requirements.lock > /opt/uv/requirements.txt \
    && /opt/uv/bin/pip install --no-cache-dir --requirement /opt/uv/requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY client client
COPY cachenode cachenode
RUN /opt/uv/bin/uv build --no-cache --wheel --build-constraints requirements.lock --out-dir /opt/wheel
RUN /opt/uv/bin/uv venv --no-cache --python "$(command -v python)" /opt/penstock \
    && /opt/uv/bin/uv pip install --no-cache --compile-bytecode --python /opt/penstock/bin/python \
       --constraints requirements.lock --only-binary :all: \
       "$(echo /opt/wheel/*.whl)[${EXTRAS}]"

FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="penstock" \
      org.opencontainers.image.description="A read cache of GPU machines in front of object storage" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/penstock /opt/penstock
ENV PATH=/opt/penstock/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# By number, so that Kubernetes sees that it is not root; the same as the chart's.
USER 64646:64646
EXPOSE 7400 7401 7402 7403 7410 7411
# Probes are Kubernetes' business: the chart has them.
HEALTHCHECK NONE
ENTRYPOINT ["penstock"]
CMD ["--help"]
