#!/usr/bin/env bash
# Everything `make e2e` needs besides the Python environment: Debian packages, the real backends, the other clients.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
declare -A package=([prometheus]=prometheus [promtool]=prometheus [amtool]=prometheus-alertmanager [node]=nodejs [npm]=npm [chromium]=chromium)
missing=()
for command in "${!package[@]}"; do
  command -v "$command" >/dev/null || missing+=("${package[$command]}")
done
docker compose version >/dev/null 2>&1 || command -v docker-compose >/dev/null || missing+=(docker-compose)
if [ "${#missing[@]}" -gt 0 ]; then
  as_root=(); [ "$(id -u)" = 0 ] || as_root=(sudo)
  "${as_root[@]}" apt-get update -q
  DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -qy --no-install-recommends "${missing[@]}"
fi
# The compiled walker is optional: who has no compiler and may not install one goes on without.
if ! command -v cc >/dev/null && [ "$(id -u)" = 0 ]; then
  { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends gcc libc6-dev python3-dev; } ||
    echo "no C compiler: the walker stays in Python" >&2
fi
"$here/build_backends.sh"
"$here/build_clients.sh"
