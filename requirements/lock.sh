#!/bin/sh
# Compile the hashed requirements of one Python: requirements/lock.sh path/to/python
# Pins in the existing files are kept; delete a file first to take the newest versions.
# The files name no index and no machine, so that any mirror serves them.
set -eu
cd "$(dirname "$0")/.."
python=$1
version=$("$python" -c 'import sys; print(f"py{sys.version_info[0]}{sys.version_info[1]}")')

compile() {
    output=requirements/$1-$version.txt
    shift
    "$python" -m piptools compile --quiet --generate-hashes --no-header --annotation-style=line --strip-extras \
        --allow-unsafe --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options \
        --output-file "$output" "$@" pyproject.toml
    # Extras name other extras of this project, which pip-tools lists as a package of this directory.
    sed -i -e '/^featurestore @ /d' -e '/^# WARNING: pip install will require/d' -e '/^# Consider using a hashable/d' \
        -e 's/featurestore, featurestore (pyproject.toml)/featurestore (pyproject.toml)/' \
        -e 's/# via featurestore$/# via featurestore (pyproject.toml)/' -e 's/# via featurestore, /# via featurestore (pyproject.toml), /' \
        "$output"
}

# A developer's machine and CI.
compile all --extra client --extra server --extra traces --extra stream --extra feast --extra spark \
    --extra parity --extra iceberg --extra ui --extra embedded --extra testing --extra dev
# What the container images install, on one Python: neither has Feast, the server has no Bytewax.
[ "$version" = py312 ] || exit 0
compile server --extra server --extra traces --constraint "requirements/all-$version.txt"
compile stream --extra stream --constraint "requirements/all-$version.txt"
