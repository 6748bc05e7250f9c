#!/usr/bin/env bash
# Compares conversions with the libraries that define the formats. Usage: run.sh WINDLASS [WORK]
# PYTHON chooses the interpreter; by default a virtual environment in the user's cache is made and filled.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
windlass=$(realpath "$1")
work=${2:-$(mktemp -d)}
if [ -z "${PYTHON:-}" ]; then
    venv=${XDG_CACHE_HOME:-$HOME/.cache}/windlass/oracle-venv
    [ -d "$venv" ] || python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --requirement "$here/requirements.txt"
    PYTHON=$venv/bin/python
fi
export HF_HUB_OFFLINE=1 PYTHONDONTWRITEBYTECODE=1
"$PYTHON" "$here/checkpoints.py" "$work/checkpoints" 2>/dev/null
"$PYTHON" "$here/compare.py" "$windlass" "$work/checkpoints" "$work/out"
"$PYTHON" "$here/adapters.py" "$windlass" "$work/checkpoints" "$work/adapters"
"$PYTHON" "$here/merge.py" "$windlass" "$work/checkpoints" "$work/merge"
"$PYTHON" "$here/models.py" "$windlass" "$work/checkpoints" "$work/models"
"$PYTHON" "$here/libraries.py" "$windlass" "$work/checkpoints" "$work/libraries" 2>/dev/null
"$PYTHON" "$here/evaluation.py" "$windlass" "$work/checkpoints" "$work/evaluation" 2>/dev/null
"$PYTHON" "$here/gptoss.py" "$windlass" "$work/checkpoints" "$work/gptoss"
