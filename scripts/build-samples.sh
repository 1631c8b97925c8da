#!/usr/bin/env bash
# Rebuilds samples/mini-svsm: the ELF file, the IGVM file, and the variants that are broken on purpose.
#
#   scripts/build-samples.sh           rebuild in place
#   scripts/build-samples.sh OUT       build into the folder OUT instead, and touch nothing in samples/
#   scripts/build-samples.sh --check   say whether the toolchain is the recorded one (exit code 0 or 3)
#
# With the recorded toolchain (samples/mini-svsm/toolchain.txt) every byte comes out the same, wherever the
# checkout is. On Debian 12:
#
#   apt-get install rustc-web rust-web-src lld-22 binutils     and npm ci, for the IGVM file
#
# Other versions build a sample that works as well, with other bytes. RUSTC, RUST_SRC, AS and LD override what
# is used. No cargo, no network: the sample is one crate, and `core` is built from the compiler's own sources
# (Debian has no ready-made one for this target), once, into .cache/.
set -euo pipefail
cd "$(dirname "$0")/.."
ROOT=$PWD

RUSTC=${RUSTC:-/usr/bin/rustc}
AS=${AS:-/usr/bin/as}
LD=${LD:-/usr/bin/ld.lld-22}
TARGET=x86_64-unknown-none
TOOLCHAIN=samples/mini-svsm/toolchain.txt

versions() {
  "$RUSTC" --version
  "$AS" --version | head -n 1
  "$LD" --version
}

if ! command -v "$RUSTC" >/dev/null || ! command -v "$AS" >/dev/null || ! command -v "$LD" >/dev/null; then
  echo "build-samples: needs rustc, GNU as and lld: see the head of this script" >&2
  exit 3
fi
# A newer compiler refuses unstable options without this; core needs them.
export RUSTC_BOOTSTRAP=1
RUST_VERSION=$("$RUSTC" --version | cut -d ' ' -f 2)
RUST_SRC=${RUST_SRC:-/usr/src/rustc-$RUST_VERSION/library}
if [ ! -f "$RUST_SRC/core/src/lib.rs" ]; then
  echo "build-samples: no sources of core in $RUST_SRC (package rust-web-src, or set RUST_SRC)" >&2
  exit 3
fi

if [ "${1:-}" = --check ]; then
  if versions | diff -u "$TOOLCHAIN" - >&2; then exit 0; fi
  echo "build-samples: not the recorded toolchain, bytes will differ" >&2
  exit 3
fi

OUT=${1:-$ROOT/samples/mini-svsm}
mkdir -p "$OUT/broken"
OUT=$(cd "$OUT" && pwd)
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT

# core, and an empty crate for the one that rustc always wants beside it (entry.s has memcpy and memset).
COMMON=(--edition 2024 --target "$TARGET" -Cpanic=abort -Cforce-frame-pointers=yes -Ccodegen-units=1
  --remap-path-prefix "$RUST_SRC=/rustc/$RUST_VERSION/library")
KEY=$("$RUSTC" -vV | sha256sum | cut -c 1-16)
SYSROOT=$ROOT/.cache/samples-core-$KEY
if [ ! -d "$SYSROOT" ]; then
  echo "building core $RUST_VERSION for $TARGET (once, half a minute)" >&2
  CORE=$WORK/sysroot
  mkdir "$CORE"
  (
    cd "$RUST_SRC"
    "$RUSTC" "${COMMON[@]}" --crate-name core --crate-type rlib -Copt-level=1 -Cdebuginfo=0 \
      -Zforce-unstable-if-unmarked --cap-lints allow --out-dir "$CORE" core/src/lib.rs
  )
  (
    cd "$WORK"
    printf '#![feature(compiler_builtins)]\n#![compiler_builtins]\n#![no_std]\n' >compiler_builtins.rs
    "$RUSTC" "${COMMON[@]}" --crate-name compiler_builtins --crate-type rlib -Zforce-unstable-if-unmarked \
      --cap-lints allow --extern core="$CORE/libcore.rlib" --out-dir "$CORE" compiler_builtins.rs
  )
  mkdir -p "$ROOT/.cache"
  mv "$CORE" "$SYSROOT.$$"
  mv -T "$SYSROOT.$$" "$SYSROOT" 2>/dev/null || rm -rf "$SYSROOT.$$" # somebody else was faster
fi

# The debug information names the sources below /cvm-samples: the launch configuration maps that back.
cd "$ROOT/samples"
SOURCES=mini-svsm/src
for unit in entry guest; do
  "$AS" --64 -g --gdwarf-4 --strip-local-absolute --debug-prefix-map="$PWD=/cvm-samples" "$SOURCES/$unit.s" -o "$WORK/$unit.o"
done

# build NAME [BROKEN]
build() {
  "$RUSTC" "${COMMON[@]}" --crate-name mini_svsm -Copt-level=0 -Cdebug-assertions=no -Coverflow-checks=yes \
    -Cdebuginfo=2 -Crelocation-model=static \
    --remap-path-prefix "$PWD=/cvm-samples" -L "$SYSROOT" --emit=obj -D warnings \
    --check-cfg 'cfg(broken, values("no-pvalidate", "wrong-page-size", "unregistered-ghcb", "no-rmpadjust"))' \
    ${2:+--cfg "broken=\"$2\""} "$SOURCES/main.rs" -o "$WORK/main.o"
  "$LD" -T mini-svsm/mini-svsm.ld --gc-sections --build-id=none -z max-page-size=4096 -z noexecstack \
    -o "$WORK/$1.elf" "$WORK/main.o" "$WORK/entry.o" "$WORK/guest.o" "$SYSROOT/libcore.rlib"
}

"$ROOT/node_modules/.bin/esbuild" "$ROOT/scripts/samples-igvm.ts" --bundle --platform=node --format=esm \
  --log-level=warning --outfile="$WORK/samples-igvm.mjs"

build mini-svsm
node "$WORK/samples-igvm.mjs" "$WORK/mini-svsm.elf" "$OUT/mini-svsm.igvm"
install -m 644 "$WORK/mini-svsm.elf" "$OUT/mini-svsm.elf"
for broken in no-pvalidate wrong-page-size unregistered-ghcb no-rmpadjust; do
  build "$broken" "$broken"
  node "$WORK/samples-igvm.mjs" "$WORK/$broken.elf" "$OUT/broken/$broken.igvm"
done
versions >"$OUT/toolchain.txt"
(cd "$OUT" && sha256sum mini-svsm.elf mini-svsm.igvm broken/*.igvm)
