#!/usr/bin/env bash
# Installs the clients of the end-to-end tests that need an environment of their own, once, into the cache folder:
# the Node SDK, and the openai library with its instrumentation. Prints the folder on its last line.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache="${OTEL_SIDECAR_CLIENTS:-${XDG_CACHE_HOME:-$HOME/.cache}/otel-sidecar/clients}"
key=$(cat "$here/node/package-lock.json" "$here/clients/llm.txt" | sha256sum | cut -c1-12)
folder="$cache/$key"
if [ ! -e "$folder/complete" ]; then
  rm -rf "$folder"
  mkdir -p "$folder/node"
  cp "$here"/node/package.json "$here"/node/package-lock.json "$here"/node/.npmrc "$folder/node/"
  (cd "$folder/node" && npm ci --ignore-scripts --no-progress >&2)
  python3 -m venv "$folder/llm"
  "$folder/llm/bin/pip" install -q -r "$here/clients/llm.txt" >&2
  touch "$folder/complete"
fi
cp "$here/node/client.mjs" "$folder/node/"
echo "$folder"
