/** Small safetensors files in memory. */
import { headerLength, lengthBytes, parseHeader, type Header } from "../../src/files/formats/safetensors.js";

/** Reads the header of a whole file in memory; `file.subarray(begin, end)` are a tensor's bytes. */
export function parseSafetensors(file: Uint8Array, where: string): Header {
  const length = headerLength(file.subarray(0, lengthBytes), file.byteLength, where);
  return parseHeader(file.subarray(lengthBytes, lengthBytes + length), file.byteLength, where);
}
