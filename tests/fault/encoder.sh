# tests/fault/encoder.sh: sourced. fast_encoder FOLDER [LAYERS]: the default text encoder with only so
# many layers left (1), so that a campaign spends its time on the store; exits 77 when the models are
# not there.
fast_encoder() {
    models=${EIDETIC_MODELS:-${XDG_CACHE_HOME:-$HOME/.cache}/eidetic/models}
    full=$models/all-MiniLM-L6-v2
    if [ ! -f "$full/model.safetensors" ]; then
        echo "SKIPPED: no models in $models (run ./dev setup)"
        exit 77
    fi
    mkdir -p "$1"
    ln -sf "$full/model.safetensors" "$1/model.safetensors"
    cp "$full/vocab.txt" "$full/tokenizer.json" "$full/tokenizer_config.json" "$1/"
    sed "s/\"num_hidden_layers\": 6/\"num_hidden_layers\": ${2:-1}/" "$full/config.json" \
        >"$1/config.json"
}
