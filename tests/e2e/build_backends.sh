#!/usr/bin/env bash
# Builds the real backends and load clients that `make e2e` talks to, once, into a cache outside the work tree.
# Everything comes from the Go module proxy and Debian; a finished binary is reused. Prints the folder on its last line.
set -euo pipefail
cache="${OTEL_SIDECAR_BACKENDS:-${XDG_CACHE_HOME:-$HOME/.cache}/otel-sidecar/backends}"
jaeger=v1.76.0 loki=v3.7.8 telemetrygen=v0.161.0
mkdir -p "$cache"
export CGO_ENABLED=0 GOFLAGS="-buildvcs=false -mod=mod" GOBIN="$cache/bin"

# A module zip carries its own go.mod and go.sum; starting from those needs no checksum database entry for the main module.
module_dir() { go mod download -json "$1" | python3 -c 'import json,sys; print(json.load(sys.stdin)["Dir"])'; }

build() { # name version module command sed-script
  local name=$1 version=$2 module=$3 command=$4 edit=$5 out="$cache/$1-$2"
  [ -x "$out" ] && return
  echo "building $name $version (about 6 minutes on two cores, once)" >&2
  local work; work=$(mktemp -d)
  (
    cd "$work"
    local from; from=$(module_dir "$module@$version")
    sed "s#^module .*#module backends/$name#; $edit" "$from/go.mod" > go.mod
    cp "$from/go.sum" go.sum && chmod u+w go.mod go.sum
    go get "$module@$version"
    go build -ldflags "-s -w" -o "$out.part" "$module/$command"
  )
  rm -rf "$work"
  mv "$out.part" "$out"
}

build jaeger "$jaeger" github.com/jaegertracing/jaeger cmd/jaeger ""
build loki "$loki" github.com/grafana/loki/v3 cmd/loki '/pkg\/push => .\/pkg\/push/d'
if [ ! -x "$cache/telemetrygen-$telemetrygen" ]; then
  echo "building telemetrygen $telemetrygen" >&2
  go install "github.com/open-telemetry/opentelemetry-collector-contrib/cmd/telemetrygen@$telemetrygen"
  mv "$GOBIN/telemetrygen" "$cache/telemetrygen-$telemetrygen"
fi
ln -sfn "jaeger-$jaeger" "$cache/jaeger"
ln -sfn "loki-$loki" "$cache/loki"
ln -sfn "telemetrygen-$telemetrygen" "$cache/telemetrygen"
echo "$cache"
