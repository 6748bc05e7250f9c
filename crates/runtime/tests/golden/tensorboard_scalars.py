"""Writes scalars.tfevents with TensorBoard's own classes (pip install tensorboard)."""

import pathlib

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter


def scalar(time, tag, step, value):
    summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
    return Event(wall_time=time, step=step, summary=summary)


events = [
    Event(wall_time=1000.5, file_version="brain.Event:2"),
    scalar(1001.25, "loss", 0, 2.5),
    scalar(1002.0, "train/learning rate \u03b7", 300, -1e-5),
    scalar(1003.0, "loss", 1 << 40, float("inf")),
]
with open(pathlib.Path(__file__).with_name("scalars.tfevents"), "wb") as file:
    writer = RecordWriter(file)
    for event in events:
        writer.write(event.SerializeToString())
    writer.flush()
