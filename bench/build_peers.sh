#!/usr/bin/env bash
# Builds the collectors that `make bench` measures beside this one, once, into a cache outside the work tree: the OpenTelemetry
# Collector with contrib components (Go module proxy) and rotel (PyPI). A finished binary is reused. Prints the folder on its last line.
set -euo pipefail
cache="${OTEL_SIDECAR_PEERS:-${XDG_CACHE_HOME:-$HOME/.cache}/otel-sidecar/peers}"
otelcol=v0.158.0 rotel=0.0.1a15
mkdir -p "$cache"

module() { echo "  - gomod: go.opentelemetry.io/collector/$1 $otelcol"; }
contrib() { echo "  - gomod: github.com/open-telemetry/opentelemetry-collector-contrib/$1 $otelcol"; }

recipe() {
  echo "dist: {name: otelcol, output_path: ./out, version: ${otelcol#v}}"
  echo "receivers:"; module receiver/otlpreceiver
  echo "processors:"; module processor/batchprocessor; module processor/memorylimiterprocessor
  for name in tailsampling probabilisticsampler redaction transform; do contrib "processor/${name}processor"; done
  echo "exporters:"; module exporter/otlpexporter; module exporter/otlphttpexporter
  echo "extensions:"; contrib extension/storage/filestorage; contrib extension/healthcheckextension
}

if [ ! -x "$cache/otelcol-$otelcol" ]; then
  echo "building otelcol $otelcol (about 5 minutes on two cores, once)" >&2
  work=$(mktemp -d)
  (
    cd "$work"
    recipe > recipe.yaml
    GOBIN="$work" go install "go.opentelemetry.io/collector/cmd/builder@$otelcol"
    CGO_ENABLED=0 ./builder --config recipe.yaml
    mv out/otelcol "$cache/otelcol-$otelcol"
  ) >&2
  chmod -R u+w "$work" && rm -rf "$work"
fi
if [ ! -x "$cache/rotel-$rotel/bin/rotel-agent" ]; then
  echo "installing rotel $rotel" >&2
  mkdir -p "$cache/rotel-$rotel/bin"
  python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$cache/rotel-$rotel/lib" "rotel==$rotel" >&2
  ln -sfn ../lib/rotel/rotel-agent "$cache/rotel-$rotel/bin/rotel-agent"
fi
ln -sfn "otelcol-$otelcol" "$cache/otelcol"
ln -sfn "rotel-$rotel/bin/rotel-agent" "$cache/rotel"
echo "$cache"
