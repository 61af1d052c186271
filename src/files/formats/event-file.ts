/**
 * Event files of TensorBoard: records of TFRecord (tensorflow/core/lib/io/record_writer.h), each with the message Event
 * (tensorboard/compat/proto/event.proto, summary.proto).
 */
import { crc32c } from "./crc32c.js";
import { ProtobufWriter } from "./protobuf.js";

/** Numbers of one moment by their tags. */
export interface ScalarEvent {
  /** Seconds since 1970. */
  readonly wallTime: number;
  readonly step: number;
  readonly scalars: readonly (readonly [tag: string, value: number])[];
}

/** Field numbers of Event, Summary and Summary.Value. */
const field = { wallTime: 1, step: 2, fileVersion: 3, summary: 5, value: 1, tag: 1, simpleValue: 2 } as const;

/** The first record of every file. */
export function fileVersionRecord(wallTime: number): Uint8Array {
  const event = new ProtobufWriter(64);
  event.double(field.wallTime, wallTime);
  event.string(field.fileVersion, "brain.Event:2");
  return recordOf(event.finish().bytes);
}

/** A record with numbers; they are kept as float32. */
export function scalarRecord({ wallTime, step, scalars }: ScalarEvent): Uint8Array {
  const event = new ProtobufWriter(256);
  event.double(field.wallTime, wallTime);
  // A field that has its default is left out, as protobuf's own writers do.
  if (step !== 0) event.int(field.step, step);
  event.message(field.summary, (summary) => {
    for (const [tag, value] of scalars) {
      summary.message(field.value, (one) => {
        one.string(field.tag, tag);
        one.float(field.simpleValue, value);
      });
    }
  });
  return recordOf(event.finish().bytes);
}

/** Length (64 bits) and its masked checksum, the data and theirs, all little-endian. */
function recordOf(data: Uint8Array): Uint8Array {
  const record = new Uint8Array(8 + 4 + data.length + 4);
  const view = new DataView(record.buffer);
  view.setBigUint64(0, BigInt(data.length), true);
  view.setUint32(8, masked(crc32c(record.subarray(0, 8))), true);
  record.set(data, 12);
  view.setUint32(12 + data.length, masked(crc32c(data)), true);
  return record;
}

/** A checksum rotated and moved, so that a record within a record does not have its own as data. */
const masked = (checksum: number): number => (((checksum >>> 15) | (checksum << 17)) + 0xa282ead8) >>> 0;
