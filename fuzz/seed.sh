#!/bin/sh
# Fills fuzz/corpus with what the fuzzer starts from: our seeds and the recorded frames.
set -eu
cd "$(dirname "$0")"
mkdir -p corpus/frames corpus/payload corpus/typed corpus/screen corpus/config
for target in typed screen config; do
    cp seeds/"$target"/* corpus/"$target"/
done
(cd ../fixtures/frames && find . -name '*.json') | while read -r frame; do
    cp "../fixtures/frames/$frame" "corpus/frames/$(echo "${frame#./}" | tr / _)"
done
python3 - <<'PYTHON'
import json, pathlib
for file in pathlib.Path("../fixtures/frames/engine").glob("deliver.*.json"):
    payload = json.loads(file.read_text())["payload"]
    (pathlib.Path("corpus/payload") / file.name).write_text(json.dumps(payload))
PYTHON
