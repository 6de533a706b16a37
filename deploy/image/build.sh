#!/usr/bin/env bash
# Builds the image on a Debian machine without Docker, as root: deploy/image/build.sh [NAME]
#
# The base is made by mmdebstrap from the machine's own package sources (BASE=NAME takes another one), the rest by
# buildah without a daemon. Installs both where they are missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
name=${1:-localhost/constitution-runbook}
suite=${SUITE:-trixie}
export BUILDAH_ISOLATION=chroot STORAGE_DRIVER=vfs

if ! command -v buildah >/dev/null || ! command -v mmdebstrap >/dev/null; then
  echo "image: installing buildah and mmdebstrap" >&2
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq update
  apt-get -qq install --yes --no-install-recommends buildah mmdebstrap >/dev/null
fi

if [[ -z ${BASE:-} ]]; then
  BASE=localhost/debian-$suite
  if ! buildah images --quiet "$BASE" >/dev/null 2>&1; then
    echo "image: making the base, Debian $suite" >&2
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    site=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | head -1)
    # What this machine's apt was told about its sources holds for the same sources in the image.
    mapfile -t options < <(apt-config dump | grep -E '^Acquire::Check-(Valid-Until|Date) ' | sed 's/;$//; s/^/--aptopt=/')
    mmdebstrap --quiet --variant=minbase --include=ca-certificates,python3 "${options[@]}" \
      "$suite" "$folder/base.tar" "$site"
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$folder/base.tar" / >/dev/null
    buildah commit --quiet --rm "$container" "$BASE" >/dev/null
  fi
fi

secrets=()
bundle=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
[[ -s $bundle ]] && secrets+=(--secret "id=authorities,src=$bundle")
[[ -s /etc/pip.conf ]] && secrets+=(--secret "id=pip.conf,src=/etc/pip.conf")
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
buildah build --quiet --layers --network host --file deploy/Dockerfile --build-arg "BASE=$BASE" \
  --build-arg "REVISION=$revision" "${secrets[@]}" --tag "$name" .
