# The sidecar's image: slim Python, user 10001, writes only to /var/lib/otelcol and /tmp.
#   docker build -t otel-sidecar . && docker run --read-only --tmpfs /tmp -v otelcol:/var/lib/otelcol otel-sidecar

FROM python:3.13.7-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# For the C files of collector/otlp; the program needs neither.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/otel-sidecar
WORKDIR /src
COPY pyproject.toml hatch_build.py requirements.lock README.md LICENSE ./
COPY collector collector
COPY config config
RUN /opt/otel-sidecar/bin/pip install --constraint requirements.lock . \
 && /opt/otel-sidecar/bin/python -I -c "import collector.otlp._plain, collector.otlp._json, collector.otlp._numbers, collector.processors.llm_cost._calls, collector._model" \
 && /opt/otel-sidecar/bin/pip uninstall --yes pip \
 && python -m compileall -q /opt/otel-sidecar/lib

FROM python:3.13.7-slim-bookworm
LABEL org.opencontainers.image.title="otel-sidecar" \
      org.opencontainers.image.description="An OpenTelemetry collector sidecar for LLM applications" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/otel-sidecar /opt/otel-sidecar
COPY config/collector.yaml /etc/otelcol/config.yaml
RUN ln -s /opt/otel-sidecar/bin/otel-sidecar /otel-sidecar \
 && ln -s /opt/otel-sidecar/bin/otel-sidecar /otelcol \
 && groupadd --system --gid 10001 otelcol \
 && useradd --system --uid 10001 --gid 10001 --home-dir /var/lib/otelcol --shell /usr/sbin/nologin otelcol \
 && install -d -o 10001 -g 10001 -m 0750 /var/lib/otelcol
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /var/lib/otelcol
VOLUME /var/lib/otelcol
EXPOSE 4317 4318 8888 8889 13133 55679
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=3s --start-period=5s --start-interval=1s CMD ["/otel-sidecar", "health"]
ENTRYPOINT ["/otel-sidecar"]
CMD ["--config=/etc/otelcol/config.yaml"]
