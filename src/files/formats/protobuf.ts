/**
 * Writes messages in protobuf's wire format: a field's number and kind, then its value. Large parts need not be in
 * memory: they can be left as holes that whoever writes the file fills.
 */

/** Where `bytes` bytes of a field belong: in front of byte `at` of what was encoded. */
export interface Hole {
  readonly name: string;
  readonly at: number;
  readonly bytes: number;
}

/** A message as bytes. */
export interface EncodedMessage {
  /** Without the holes' bytes. */
  readonly bytes: Uint8Array;
  /** In the order of the file. */
  readonly holes: readonly Hole[];
}

/** Most bytes of a varint: 64 bits in groups of seven. */
const VARINT = 10;

/**
 * Grows by doubling. A length-delimited part is written in place behind room for one byte of length; a part of 128
 * bytes or more moves up to make room for the rest.
 */
export class ProtobufWriter {
  private buffer: Uint8Array<ArrayBuffer>;
  private length = 0;
  private readonly holes: Hole[] = [];
  private static readonly text = new TextEncoder();

  /** `capacity`: bytes to begin with. */
  constructor(capacity = 1 << 16) {
    this.buffer = new Uint8Array(capacity);
  }

  private room(extra: number): void {
    if (this.length + extra <= this.buffer.length) return;
    const grown = new Uint8Array(Math.max(this.buffer.length * 2, this.length + extra));
    grown.set(this.buffer.subarray(0, this.length));
    this.buffer = grown;
  }

  /** Negative numbers are written as 64-bit two's complement. */
  private varint(value: number): void {
    this.room(VARINT);
    if (value < 0 || value >= 2 ** 31) {
      let rest = BigInt.asUintN(64, BigInt(value));
      for (; rest > 127n; rest >>= 7n) this.buffer[this.length++] = Number(rest & 127n) | 128;
      this.buffer[this.length++] = Number(rest);
      return;
    }
    let rest = value;
    for (; rest > 127; rest >>>= 7) this.buffer[this.length++] = (rest & 127) | 128;
    this.buffer[this.length++] = rest;
  }

  int(field: number, value: number): void {
    this.varint(field << 3);
    this.varint(value);
  }

  float(field: number, value: number): void {
    this.varint((field << 3) | 5);
    this.room(4);
    new DataView(this.buffer.buffer).setFloat32(this.length, value, true);
    this.length += 4;
  }

  double(field: number, value: number): void {
    this.varint((field << 3) | 1);
    this.room(8);
    new DataView(this.buffer.buffer).setFloat64(this.length, value, true);
    this.length += 8;
  }

  bytes(field: number, value: Uint8Array): void {
    this.varint((field << 3) | 2);
    this.varint(value.length);
    this.room(value.length);
    this.buffer.set(value, this.length);
    this.length += value.length;
  }

  string(field: number, value: string): void {
    this.part(field, () => {
      // A character of UTF-16 takes at most three bytes of UTF-8.
      this.room(3 * value.length);
      this.length += ProtobufWriter.text.encodeInto(value, this.buffer.subarray(this.length)).written;
    });
  }

  /** Bytes that are not here yet. */
  hole(field: number, name: string, bytes: number): void {
    this.varint((field << 3) | 2);
    this.varint(bytes);
    this.holes.push({ name, at: this.length, bytes });
  }

  message(field: number, write: (w: this) => void): void {
    this.part(field, () => write(this));
  }

  private part(field: number, write: () => void): void {
    this.varint((field << 3) | 2);
    this.room(1);
    const start = ++this.length;
    const before = this.holes.length;
    write();
    const size = this.length - start;
    const whole = this.holes.slice(before).reduce((sum, { bytes }) => sum + bytes, size);
    if (whole < 128) {
      this.buffer[start - 1] = whole;
      return;
    }
    this.room(VARINT);
    const shift = Math.floor(Math.log2(whole) / 7);
    this.buffer.copyWithin(start + shift, start, start + size);
    this.length = start - 1;
    this.varint(whole);
    this.length += size;
    const inside = this.holes.splice(before);
    this.holes.push(...inside.map((hole) => ({ ...hole, at: hole.at + shift })));
  }

  finish(): EncodedMessage {
    return { bytes: this.buffer.subarray(0, this.length), holes: this.holes };
  }
}
