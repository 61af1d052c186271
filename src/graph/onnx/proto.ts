/**
 * Writes ONNX ModelProto bytes (protobuf wire format; field numbers from onnx/onnx.proto3, IR version 9). Only what a
 * flat graph with static shapes needs. Large initializers need not be in memory: they lie in a file of their own, or
 * are left as holes that whoever writes the file fills.
 */

/** Element types of ONNX tensors that a graph has. */
export type OnnxType = "float" | "int64" | "bool";
const typeCode: Readonly<Record<OnnxType, number>> = { float: 1, int64: 7, bool: 9 };

/** An attribute of a node: an integer, a string, integers, or a float, which has to be told from an integer. */
export type Attribute = number | string | readonly number[] | { readonly float: number };

/** One use of an operator; inputs and outputs by name. */
export interface OnnxNode {
  readonly op: string;
  readonly domain?: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes?: Readonly<Record<string, Attribute>>;
}

/** Bytes in another file, beside the model (TensorProto.external_data). */
export interface ExternalData {
  readonly location: string;
  readonly offset: number;
  readonly bytes: number;
}

/** Bytes of this very file that are written later. */
export interface LaterData {
  readonly later: true;
  readonly bytes: number;
}

/** An initializer: a constant, or a weight that belongs to the model. */
export interface OnnxTensor {
  readonly name: string;
  readonly type: OnnxType;
  readonly shape: readonly number[];
  /** Little-endian. */
  readonly data: Float32Array | BigInt64Array | ExternalData | LaterData;
}

/** An input or output of the graph. */
export interface OnnxValue {
  readonly name: string;
  readonly type: OnnxType;
  readonly shape: readonly number[];
}

interface OnnxModel {
  readonly nodes: readonly OnnxNode[];
  readonly initializers: readonly OnnxTensor[];
  readonly inputs: readonly OnnxValue[];
  readonly outputs: readonly OnnxValue[];
  /** Version of the program that makes the model. */
  readonly version?: string | undefined;
  readonly metadata?: Readonly<Record<string, string>> | undefined;
}

/** Where `bytes` bytes of an initializer belong: in front of byte `at` of what was encoded. */
export interface Hole {
  readonly name: string;
  readonly at: number;
  readonly bytes: number;
}

interface EncodedModel {
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
class Writer {
  private buffer = new Uint8Array(1 << 16);
  private length = 0;
  private readonly holes: Hole[] = [];
  private static readonly text = new TextEncoder();

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
      this.length += Writer.text.encodeInto(value, this.buffer.subarray(this.length)).written;
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

  finish(): EncodedModel {
    return { bytes: this.buffer.subarray(0, this.length), holes: this.holes };
  }
}

function writeAttribute(w: Writer, name: string, value: Attribute): void {
  w.string(1, name);
  if (typeof value === "string") {
    w.string(4, value);
    w.int(20, 3);
  } else if (typeof value === "number") {
    w.int(3, value);
    w.int(20, 2);
  } else if ("float" in value) {
    w.float(2, value.float);
    w.int(20, 1);
  } else {
    for (const item of value) w.int(8, item);
    w.int(20, 7);
  }
}

function writeValue(w: Writer, value: OnnxValue): void {
  w.string(1, value.name);
  w.message(2, (type) =>
    type.message(1, (tensor) => {
      tensor.int(1, typeCode[value.type]);
      tensor.message(2, (shape) => {
        for (const size of value.shape) shape.message(1, (dim) => dim.int(1, size));
      });
    }),
  );
}

function writeTensor(w: Writer, { name, type, shape, data }: OnnxTensor): void {
  for (const size of shape) w.int(1, size);
  w.int(2, typeCode[type]);
  w.string(8, name);
  if (ArrayBuffer.isView(data)) {
    w.bytes(9, new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  } else if ("later" in data) {
    w.hole(9, name, data.bytes);
  } else {
    const entry = (key: string, value: string | number): void =>
      w.message(13, (e) => [e.string(1, key), e.string(2, String(value))]);
    entry("location", data.location);
    entry("offset", data.offset);
    entry("length", data.bytes);
    w.int(14, 1);
  }
}

/** An ONNX model with the standard operators (opset 18) and com.microsoft's (version 1). */
export function encodeModel(model: OnnxModel): EncodedModel {
  const w = new Writer();
  w.int(1, 9);
  w.string(2, "upcycle");
  if (model.version !== undefined) w.string(3, model.version);
  w.message(7, (graph) => {
    for (const node of model.nodes) {
      graph.message(1, (n) => {
        for (const input of node.inputs) n.string(1, input);
        for (const output of node.outputs) n.string(2, output);
        n.string(4, node.op);
        for (const [name, value] of Object.entries(node.attributes ?? {}))
          n.message(5, (a) => writeAttribute(a, name, value));
        if (node.domain !== undefined) n.string(7, node.domain);
      });
    }
    graph.string(2, "step");
    for (const tensor of model.initializers) graph.message(5, (t) => writeTensor(t, tensor));
    for (const input of model.inputs) graph.message(11, (v) => writeValue(v, input));
    for (const output of model.outputs) graph.message(12, (v) => writeValue(v, output));
  });
  for (const [domain, version] of [
    ["", 18],
    ["com.microsoft", 1],
  ] as const) {
    w.message(8, (opset) => {
      opset.string(1, domain);
      opset.int(2, version);
    });
  }
  for (const [key, value] of Object.entries(model.metadata ?? {}))
    w.message(14, (entry) => [entry.string(1, key), entry.string(2, value)]);
  return w.finish();
}
