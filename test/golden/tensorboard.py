"""Writes tensorboard.tfevents with TensorBoard's own record writer: pip install tensorboard; python tensorboard.py OUT"""

import sys

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

START = 1700000000.25
STEPS = [
    (0, [("eval/loss", 5.5)]),
    (1, [("train/loss", 5.25), ("train/learning_rate", 0.001)]),
    (300, [("train/loss", -1.5e-30)]),
    (5000000000, [("train/tokens", 1e12), ("a" * 200, 2.0)]),
]

with open(sys.argv[1], "wb") as file:
    writer = RecordWriter(file)
    writer.write(Event(wall_time=START, file_version="brain.Event:2").SerializeToString())
    for step, values in STEPS:
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values])
        writer.write(Event(wall_time=START + step, step=step, summary=summary).SerializeToString())
    writer.flush()
