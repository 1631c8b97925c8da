#!/usr/bin/env bash
# Fetches what test/systems/linux.test.ts boots: Debian's cloud kernel and a static busybox, unpacked into a
# folder as `vmlinuz` and `busybox`. Nothing is installed; needs apt with Debian's archive, dpkg-deb.
#
#   scripts/linux-guest.sh [FOLDER]        default .cache/linux
#   CVM_LINUX=.cache/linux npx vitest run test/systems/linux.test.ts
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-.cache/linux}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
if [ -s "$folder/vmlinuz" ] && [ -s "$folder/busybox" ]; then exit 0; fi

# The newest 6.1 (Debian 12) or whatever the meta package of this release depends on.
kernel=$(apt-cache search --names-only '^linux-image-6\.1\.0-[0-9]+-cloud-amd64$' | awk '{print $1}' | sort -V | tail -n 1)
if [ -z "$kernel" ]; then
  kernel=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image-/ {print $2; exit}')
fi
[ -n "$kernel" ] || { echo "no linux-image-*-cloud-amd64 here: apt-get update?" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(cd "$work" && apt-get download -qq "$kernel" busybox-static)
for package in "$work"/*.deb; do dpkg-deb -x "$package" "$work/tree"; done
busybox=$(find "$work/tree" -path '*bin/busybox' -type f | head -n 1)
cp "$work"/tree/boot/vmlinuz-* "$folder/vmlinuz.part"
cp "$busybox" "$folder/busybox.part"
mv "$folder/vmlinuz.part" "$folder/vmlinuz"
mv "$folder/busybox.part" "$folder/busybox"
echo "$kernel" > "$folder/version"
echo "$kernel in $folder"
