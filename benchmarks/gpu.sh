#!/usr/bin/env bash
# Run all GPU measurements, in about eight minutes, on a machine that needs only torch, transformers, numpy and rich:
# parity with the CPU, the benchmark, and real speech, if its pieces (benchmarks/gpu_pack.py) have been collected.
#
#   bash benchmarks/gpu.sh collect PIECES   copy the pieces in that folder for a later call; may be called repeatedly
#   bash benchmarks/gpu.sh                  measure, and write the results to $OUT (default: gpu-results)
#
# DEVICE=cpu CHECK=1 runs the same at tiny sizes without a GPU. PACK is the folder of the collected pieces, PYTHON the
# interpreter, and SECONDS_OF_SPEECH the time after which the last part starts no further round.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" TRANSFORMERS_OFFLINE=1 HF_HUB_OFFLINE=1
python=${PYTHON:-python3} device=${DEVICE:-cuda} check=${CHECK:-}
pack=${PACK:-$HOME/emtta-pieces} out=${OUT:-gpu-results}

if [ "${1:-}" = collect ]; then
    mkdir -p "$pack"
    cp "${2:?name the folder of the pieces}"/* "$pack/"
    ls -l "$pack"
    exit
fi

if [ "$device" = cuda ] && ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "torch sees no GPU here; DEVICE=cpu CHECK=1 checks everything at tiny sizes" >&2
    exit 2
fi
mkdir -p "$out"
failed=0
step() { # arguments: a name, a time limit in seconds (longer for a check), a command; a failure does not stop the rest
    local name=$1 limit=$2 started=$SECONDS code=0
    shift 2
    timeout "${check:+1}$limit" "$@" >"$out/$name.log" 2>&1 || code=$?
    echo "$name: exit $code after $((SECONDS - started)) s"
    [ "$code" = 0 ] || { failed=1; tail -5 "$out/$name.log"; }
}

tiny_parity=() tiny_benchmark=() tiny_speech=()
if [ -n "$check" ]; then
    tiny_parity=(--precision float32 --precision bf16 --utterances 2 --steps 1 --candidates 2)
    tiny_benchmark=(--check --threads 1 --device "$device" --precision bf16)
    tiny_speech=(--steps 1 --candidates 2 --round 1)
fi
step parity 75 "$python" benchmarks/gpu_parity.py "$out/parity.json" --device "$device" "${tiny_parity[@]}"
step base 120 "$python" benchmarks/adaptation.py base-gpu --repeat 1 --output "$out" "${tiny_benchmark[@]}"
step large 120 "$python" benchmarks/adaptation.py large-gpu --repeat 1 --output "$out" "${tiny_benchmark[@]}"
if [ -f "$pack/pieces.json" ]; then
    step speech 165 "$python" benchmarks/gpu_speech.py "$pack" "$out/hypotheses.json" --device "$device" \
        --seconds "${SECONDS_OF_SPEECH:-110}" "${tiny_speech[@]}"
else
    echo "speech: not measured, $pack has no pieces"
fi
exit "$failed"
