#!/usr/bin/env bash
# Install tombola into .venv beside this file. Usage: ./setup.sh [--cuda] [--dev]
#   --cuda  take PyPI's build of torch (on Linux it brings CUDA, several GB); without it, the CPU build
#   --dev   what ./check.sh needs as well
# VENV=DIR installs elsewhere; PYTHON=python3.12 chooses the interpreter.
set -euo pipefail
cd "$(dirname "$0")"
venv=${VENV:-.venv}
python=${PYTHON:-python3}
extras=""
torch=cpu
for word in "$@"; do
  case "$word" in
    --cuda) torch=cuda ;;
    --dev) extras="[dev]" ;;
    *) sed -n '2,5s/^# //p' "$0" >&2; exit 2 ;;
  esac
done

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "setup.sh: $python is $("$python" --version 2>&1), and tombola needs Python 3.11 or newer. Set PYTHON=..." >&2
  exit 2
fi
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
pip=("$venv/bin/python" -m pip --disable-pip-version-check install --quiet)

if [ "$torch" = cuda ]; then
  "${pip[@]}" -e ".$extras"
else
  # The pinned local version "+cpu" cannot be mistaken for PyPI's CUDA build. A wheel that pip already knows of comes
  # first, then PyTorch's own index.
  if ! "${pip[@]}" -c constraints/cpu.txt torch 2>/dev/null; then
    "${pip[@]}" -c constraints/cpu.txt --extra-index-url https://download.pytorch.org/whl/cpu torch
  fi
  "${pip[@]}" -c constraints/cpu.txt -e ".$extras"
fi
echo "tombola $("$venv/bin/tombola" --version) is in $venv: try $venv/bin/tombola find"
