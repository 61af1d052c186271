/**
 * Writes ONNX ModelProto bytes (protobuf wire format; field numbers from onnx/onnx.proto3, IR version 9). Only what a
 * flat graph with static shapes needs. Large initializers need not be in memory: they lie in a file of their own, or
 * are left as holes that whoever writes the file fills.
 */

import { ProtobufWriter, type EncodedMessage } from "../../files/formats/protobuf.js";

export type { Hole } from "../../files/formats/protobuf.js";

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

function writeAttribute(w: ProtobufWriter, name: string, value: Attribute): void {
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

function writeValue(w: ProtobufWriter, value: OnnxValue): void {
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

function writeTensor(w: ProtobufWriter, { name, type, shape, data }: OnnxTensor): void {
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
export function encodeModel(model: OnnxModel): EncodedMessage {
  const w = new ProtobufWriter();
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
