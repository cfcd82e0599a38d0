#!/bin/sh
# Learns day after day in three ways and judges each by the day after the last one. README.md beside this file explains.
#   sh examples/incremental/run.sh [FOLDER] [DAYS] [SAMPLES OF A DAY]
set -eu
here=$(dirname "$0")
folder=${1:-/tmp/kuberec-days} days=${2:-3} samples=${3:-150000}
bin=${BIN:-.venv/bin}

learn() { # learn NAME DAY [LINE OF THE TRAINING'S SPEC]
  echo "== $1: day $2"
  sed "s|/tmp/kuberec-days/day=01|$folder/day=0$2|" "$here/feed.yaml" > "$folder/today.yaml"
  echo "  ${3:-}" >> "$folder/today.yaml"
  "$bin/kuberec" run -f "$folder/today.yaml" --no-serve --folder "$folder/state/$1" --checkpoint "file://$folder/$1"
}

for day in $(seq $((days + 1))); do
  "$bin/kuberec" synth --files "$folder/day=0$day" --samples "$samples" --start $(((day - 1) * samples))
done

learn continued 1
before=continued
for day in $(seq 2 "$days"); do
  learn "warm-$day" "$day" "warmStart: {uri: \"file://$folder/$before\"}"
  learn continued "$day" # only now: the warm start of day 2 reads what day 1 has left here
  before=warm-$day
done
learn alone "$days"

echo "== AUC on day $((days + 1))"
"$bin/python" -m benchmarks.heldout "$here/feed.yaml" "$folder/day=0$((days + 1))" \
  "file://$folder/continued" "file://$folder/$before" "file://$folder/alone"
