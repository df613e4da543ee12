#!/usr/bin/env bash
# engine/cuda/device_check.sh: everything that needs a GPU, in one go, in a bare checkout: build with nvcc and gcc alone,
# compare with the CPU, look for races, time. OUT=folder for the logs (default: build-device); MODEL=file.gguf adds a real
# model; PARTS="a b" joins pieces of one first. The table comes last. Exit code 0 only when every check agreed.
# EMULATE=1 goes through the same steps without nvcc and without a GPU, on the emulation (tests/gpu/emulate.h) and a tiny
# model: minutes; its times mean nothing.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit
OUT=${OUT:-build-device}
BUILD=${BUILD:-build-device}
ARCH=${ARCH:-sm_90}
EMULATE=${EMULATE:-}
LIMIT=${LIMIT:-540}
[ -z "$EMULATE" ] || LIMIT=3600
mkdir -p "$OUT" "$BUILD/o"
SECONDS=0
bad=0

step() { # step NAME SECONDS COMMAND...: runs with a limit, keeps the log, notes the outcome
    local name=$1 limit=$2 start=$SECONDS code
    shift 2
    if [ $((LIMIT - SECONDS)) -lt "$limit" ]; then limit=$((LIMIT - SECONDS)); fi
    if [ "$limit" -lt 5 ]; then
        echo "$name: left out, no time" | tee -a "$OUT/steps.txt"
        return 1
    fi
    timeout "$limit" "$@" >"$OUT/$name.log" 2>&1
    code=$?
    echo "$name: code $code, $((SECONDS - start)) s" >>"$OUT/steps.txt"
    [ $code -eq 0 ] || bad=1
    return $code
}

build() {
    local c="gcc -std=c11 -O2 -g -Wall -Wextra -ffp-contract=off -D_POSIX_C_SOURCE=200809L -D_DEFAULT_SOURCE -I."
    local cu="nvcc -arch=$ARCH -std=c++17 -O3 -lineinfo -Xptxas -v -Xcompiler -Wall,-Wextra -I."
    local link="nvcc -arch=$ARCH" libraries="-lcublas -lcublasLt -lpthread -lm"
    if [ -n "$EMULATE" ]; then
        cu="g++ -xc++ -std=c++17 -O2 -Wall -Wextra -Wno-unknown-pragmas -include tests/gpu/emulate.h -DGPU_WARPS=4 -I."
        link=g++ libraries="-lpthread -lm"
    fi
    local o="$BUILD/o" f main shared
    for f in base/{status,mem,cpu,thread,hash,file,rng,log}.c \
        engine/{gguf,gguf_keys,model,model_fading,model_recurrent,adapter,prime,quant,core,window,paths,fading,mixer,state}.c \
        engine/{kernels,kernels_scalar,kernels_state,gpu_pack,gpu_paths}.c \
        tests/gpu/{no_folder,synthetic,parity,make_model}.c tests/bench/gpu_bench.c; do
        echo "$c -c $f -o $o/$(basename "$f").o"
    done >"$BUILD/commands"
    {
        echo "$c -mavx2 -mfma -mf16c -c engine/kernels_avx2.c -o $o/kernels_avx2.c.o"
        echo "$c -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mavx2 -mfma -mf16c" \
            "-c engine/kernels_avx512.c -o $o/kernels_avx512.c.o"
        for f in engine/cuda/*.cu engine/cuda/lab/*.cu; do
            echo "$cu -c $f -o $o/$(basename "$f").o"
        done
    } >>"$BUILD/commands"
    tr '\n' '\0' <"$BUILD/commands" | xargs -0 -P "$(nproc)" -I{} sh -c '{}' || return 1
    shared=
    for f in "$o"/*.o; do
        case $f in */parity.c.o | */make_model.c.o | */gpu_bench.c.o | */lab_*) ;; *) shared="$shared $f" ;; esac
    done
    for main in parity.c make_model.c gpu_bench.c; do
        $link -o "$BUILD/${main%.c}" "$o/$main.o" $shared $libraries || return 1
    done
    for f in "$o"/lab_*.cu.o; do
        $link -o "$BUILD/$(basename "${f%.cu.o}")" "$f" $shared $libraries || return 1
    done
}

: >"$OUT/steps.txt"
(nvidia-smi -L; nvidia-smi --query-gpu=driver_version,clocks.max.sm,clocks.max.mem,power.limit --format=csv,noheader
 nvcc --version | tail -2; nproc; git rev-parse --short HEAD) >"$OUT/machine.txt" 2>&1
export -f build
export BUILD ARCH EMULATE
if ! step build $((EMULATE ? 1200 : 200)) bash -c build; then
    tail -40 "$OUT/build.log"
    exit 1
fi
grep -hE "Compiling entry|spill|Used|warning" "$OUT/build.log" >"$OUT/resources.txt"
models=()
if [ -n "${PARTS:-}" ]; then
    cat $PARTS >"$BUILD/model.gguf" && MODEL="$BUILD/model.gguf"
fi
if [ -n "$EMULATE" ]; then
    step parity 300 "$BUILD/parity" --work "$BUILD" --tokens 8 --only q8_0
else
    step parity 120 "$BUILD/parity" --work "$BUILD"
fi
if [ -n "${MODEL:-}" ] && [ -e "$MODEL" ]; then
    step parity_real 90 "$BUILD/parity" --tokens 140 "$MODEL" && models+=("$MODEL")
    step parity_greedy 90 "$BUILD/parity" --greedy 1000 "$MODEL"
fi
if [ -z "$EMULATE" ] && command -v compute-sanitizer >/dev/null; then
    step memcheck 60 compute-sanitizer --tool memcheck --error-exitcode 9 "$BUILD/parity" --tokens 8 --work "$BUILD" --only SmolLM2
    step racecheck 60 compute-sanitizer --tool racecheck --error-exitcode 9 "$BUILD/parity" --tokens 8 --work "$BUILD" --only q8_0
    step memcheck_hybrid 60 compute-sanitizer --tool memcheck --error-exitcode 9 "$BUILD/parity" --tokens 8 --only hybrid_gdn
    step racecheck_hybrid 60 compute-sanitizer --tool racecheck --error-exitcode 9 "$BUILD/parity" --tokens 8 --only hybrid_gdn
    step synccheck 40 compute-sanitizer --tool synccheck --error-exitcode 9 "$BUILD/parity" --tokens 8 --work "$BUILD" --only bf16
fi
names="1b-bf16 1b-q4_1" hybrid=1b-q4_1 bench=() again="1b-q4_1 1b-bf16"
if [ -n "$EMULATE" ]; then
    names=tiny hybrid=tiny bench=(--steps 4 --prefill 70 --together 2 --window 100) again=tiny
fi
for name in $names; do
    step "make_$name" 40 "$BUILD/make_model" "$name" "$BUILD/$name.gguf" && models+=("$BUILD/$name.gguf")
done
# What a fading layer costs: every second layer of the same model, beside the model without.
step make_hybrid 60 "$BUILD/make_model" gdn "$BUILD/$hybrid.gguf" "$BUILD/$hybrid-gdn.gguf" && models+=("$BUILD/$hybrid-gdn.gguf")
step bench $((EMULATE ? 1200 : 150)) "$BUILD/gpu_bench" --json "$OUT/bench.json" "${bench[@]}" "${models[@]}"
for lab in "$BUILD"/lab_*; do
    [ -x "$lab" ] && step "$(basename "$lab")" 60 "$lab"
done
for name in $again; do
    step "parity_$name" 60 "$BUILD/parity" --tokens 16 "$BUILD/$name.gguf"
done
rm -f "$BUILD"/*.gguf

echo "=== resources"; grep -E "entry|spill|Used" "$OUT/resources.txt" | sed 's/.*info *: *//' | cut -c1-110
echo "=== lab"; tail -n 60 "$OUT"/lab_*.log 2>/dev/null
echo "=== greedy"; grep -h "greedy" "$OUT"/parity*.log | tail -n 12
echo "=== failures"; grep -h "^FAIL" "$OUT"/parity*.log | head -40
tail -n 3 "$OUT"/*check.log 2>/dev/null
tail -n 1 "$OUT"/parity*.log
echo "=== bench"; cat "$OUT/bench.log"
echo "=== steps"; cat "$OUT/machine.txt" "$OUT/steps.txt"
# Few files travel back from some machines: everything in one.
(cd "$OUT" && tail -n +1 machine.txt steps.txt ./*.log >all.txt && rm -f machine.txt ./*.log)
exit $bad
