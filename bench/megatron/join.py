"""join.py FILE.json: what the ranks recorded (FILE.json.RANK) as one record of ids, labels and loss."""

import glob
import json
import os
import sys

target = sys.argv[1]
joined = {}
for part in sorted(glob.glob(f"{glob.escape(target)}.*")):
    with open(part) as file:
        joined.update(json.load(file))
    os.remove(part)
if joined:
    with open(target, "w") as file:
        json.dump(joined, file)
