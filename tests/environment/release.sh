# One person's first release, in a fresh clone: set-up, servers, a signed constitution that is live, all brought down.
set -euo pipefail
make setup >&2
trap 'make down >&2' EXIT
make up
make up >&2 # a second time nothing happens
export CONSTITUTION_ENV_FILE=var/stack.env
keys=var/development/keys
constitution() { .venv/bin/constitution "$@"; }
constitution draft --template tool-use --version 1.0.0 --previous none --out one.json
constitution sign one.json --key $keys/mara.tsk --out one.sig
constitution push --path one.json --signature one.sig
constitution change-request --id CR-1 --path one.json --reason "first constitution" --key $keys/mara.tsk
constitution update --change-request CR-1 --checksum "sha256:$(sha256sum one.json | cut -d' ' -f1)"
constitution approve CR-1 --key $keys/alva.tsk --yes
constitution approve CR-1 --key $keys/bruno.tsk --yes
constitution watch CR-1
constitution current --json >current.json
make status >servers.json
