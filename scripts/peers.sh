#!/usr/bin/env bash
# Builds the tools that other people wrote for the same job, from their registries, and runs test/peers
# against them: `npm run test:peers`. They stay in .cache/peers (CVM_PEERS names another folder).
#   test/peers/*/Cargo.toml    Rust programs on crates of crates.io
#   test/peers/*/go.mod        Go programs on modules of the Go proxy
#   sev-snp-measure            a package of PyPI, in a virtual environment
# What cannot be built here is said and left out. With CVM_REQUIRE_PEERS=1 a failed build is an error; a
# toolchain that is not there never is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD

SEV_SNP_MEASURE=0.0.13

peers=${CVM_PEERS:-$root/.cache/peers}
mkdir -p "$peers"
peers=$(cd "$peers" && pwd)

left_out() { echo "peers: LEFT OUT: $1" >&2; }
failed() {
  left_out "$1"
  if [ -n "${CVM_REQUIRE_PEERS:-}" ]; then exit 1; fi
}

for manifest in test/peers/*/Cargo.toml; do
  [ -e "$manifest" ] || continue
  if ! command -v cargo >/dev/null; then
    left_out "$manifest: no cargo"
    continue
  fi
  if CARGO_TARGET_DIR="$peers/target" nice cargo build --quiet --release --locked --manifest-path "$manifest"; then
    name=$(sed -n 's/^name *= *"\(.*\)"$/\1/p' "$manifest" | head -n 1)
    install -m 755 "$peers/target/release/$name" "$peers/$name"
  else
    failed "$manifest: cargo build failed"
  fi
done

for module in test/peers/*/go.mod; do
  [ -e "$module" ] || continue
  folder=$(dirname "$module")
  if ! command -v go >/dev/null; then
    left_out "$module: no go"
  elif ! (cd "$folder" && nice go build -o "$peers/$(basename "$folder")-peer" .); then
    failed "$module: go build failed"
  fi
done

installed=$("$peers/venv/bin/python" -c 'from importlib.metadata import version; print(version("sev-snp-measure"))' 2>/dev/null || true)
if [ "$installed" != "$SEV_SNP_MEASURE" ]; then
  if ! command -v python3 >/dev/null; then
    left_out 'sev-snp-measure: no python3'
  elif ! { python3 -m venv --clear "$peers/venv" &&
    "$peers/venv/bin/pip" install --quiet --disable-pip-version-check "sev-snp-measure==$SEV_SNP_MEASURE"; }; then
    rm -rf "$peers/venv"
    failed 'sev-snp-measure: pip install failed'
  fi
fi

CVM_PEERS=$peers exec npx vitest run test/peers "$@"
