"""What Megatron-LM's tools/preprocess_data.py writes for documents of ids, from its format alone (standard library):
`python preprocess.py PREFIX VOCAB EOD|none < IDS.jsonl`, a list of ids on each line, before the end-of-text token."""

import json
import struct
import sys

prefix, vocab, eod = sys.argv[1], int(sys.argv[2]), sys.argv[3]
code, form = (8, "H") if vocab < 65500 else (4, "i")
lengths, bounds = [], [0]
with open(prefix + ".bin", "wb") as data:
    for line in sys.stdin:
        ids = json.loads(line)
        if ids and eod != "none":
            ids.append(int(eod))
        data.write(struct.pack(f"<{len(ids)}{form}", *ids))
        if ids:
            lengths.append(len(ids))
        bounds.append(len(lengths))
pointers, at = [], 0
for length in lengths:
    pointers.append(at)
    at += length * struct.calcsize(form)
with open(prefix + ".idx", "wb") as index:
    index.write(b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, code, len(lengths), len(bounds)))
    index.write(struct.pack(f"<{len(lengths)}i", *lengths))
    index.write(struct.pack(f"<{len(pointers)}q", *pointers))
    index.write(struct.pack(f"<{len(bounds)}q", *bounds))
