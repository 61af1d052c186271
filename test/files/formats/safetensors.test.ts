import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { entryOf } from "../../../src/base/at.js";
import { UpcycleError } from "../../../src/base/errors.js";
import { duplicateKey } from "../../../src/files/formats/duplicate-key.js";
import { encodeSafetensors, itemSizes, planHeader, tensorBytes } from "../../../src/files/formats/safetensors.js";
import { parseSafetensors } from "../../support/safetensors.js";
import type { Dtype } from "../../../src/files/formats/safetensors.js";
import { floatBytes } from "../../../src/files/numeric/dtype.js";

const dtypes = Object.keys(itemSizes) as Dtype[];
const tensors = fc
  .uniqueArray(
    fc.record({
      name: fc
        .oneof(fc.string({ minLength: 1, unit: "grapheme" }), fc.constantFrom("__proto__", "0", "a.weight", 'quo"te'))
        .filter((name) => name !== "__metadata__"),
      dtype: fc.constantFrom(...dtypes),
      shape: fc.array(fc.nat(5), { maxLength: 3 }),
    }),
    { selector: ({ name }) => name, maxLength: 8 },
  )
  .map((list) =>
    list.map((tensor, i) => ({
      ...tensor,
      bytes: new Uint8Array(tensorBytes(tensor.dtype, tensor.shape)).fill(i + 1),
    })),
  );

/** A file around any header text. */
function file(header: string, dataBytes: number): Uint8Array {
  const json = new TextEncoder().encode(header);
  const bytes = new Uint8Array(8 + json.byteLength + dataBytes);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(json.byteLength), true);
  bytes.set(json, 8);
  return bytes;
}

const entry = (change: object, dataBytes = 16): Uint8Array =>
  file(JSON.stringify({ w: { dtype: "F32", shape: [2, 2], data_offsets: [0, 16], ...change } }), dataBytes);

describe("a safetensors header", () => {
  it("is read back as it was written, with tensors aligned and end to end", () => {
    fc.assert(
      fc.property(tensors, fc.dictionary(fc.string(), fc.string()), (list, metadata) => {
        const bytes = encodeSafetensors(list, metadata);
        const header = parseSafetensors(bytes, "t");
        expect(header.dataStart % 8).toBe(0);
        expect(header.metadata).toEqual(metadata);
        expect([...header.tensors.keys()].sort()).toEqual(list.map(({ name }) => name).sort());
        for (const { name, dtype, shape, bytes: data } of list) {
          const info = entryOf(header.tensors, name);
          expect(info).toMatchObject({ dtype, shape });
          expect(info.begin % itemSizes[dtype]).toBe(0);
          expect(bytes.subarray(info.begin, info.end)).toEqual(data);
        }
      }),
    );
  });

  it("says format pt and is padded with spaces", () => {
    const { bytes } = planHeader([{ name: "w", dtype: "BF16", shape: [3] }]);
    const text = new TextDecoder().decode(bytes.subarray(8));
    expect(bytes.byteLength % 8).toBe(0);
    expect(text.trimEnd()).toBe(
      '{"__metadata__":{"format":"pt"},"w":{"dtype":"BF16","shape":[3],"data_offsets":[0,6]}}',
    );
    expect(text).toMatch(/} *$/);
  });

  it("has item sizes that agree with the conversions", () => {
    expect(itemSizes).toMatchObject(floatBytes);
  });

  it.each<[string, Uint8Array, RegExp]>([
    ["empty file", new Uint8Array(0), /file has 0 bytes/],
    [
      "header beyond the file",
      file("{}", 0).subarray(0, 9),
      /header length is 2 bytes but the file ends 1 bytes after/,
    ],
    [
      "absurd header length",
      new Uint8Array(64).fill(255),
      /header length is 18446744073709551615 bytes, limit 100000000/,
    ],
    ["not JSON", file("{nope", 0), /header is not valid JSON/],
    ["not an object", file("[1]", 0), /header is not a JSON object/],
    ["not UTF-8", Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0, 255), /not valid JSON/],
    ["unknown dtype", entry({ dtype: "F31" }), /tensor w: dtype is "F31", expected one of F64/],
    ["dtype from the prototype", entry({ dtype: "toString" }), /dtype is "toString"/],
    ["negative size", entry({ shape: [-2, 2] }), /shape has -2/],
    ["fractional size", entry({ shape: [1.5] }), /shape has 1.5/],
    ["no shape", entry({ shape: undefined }), /shape is missing/],
    ["wrong product", entry({ shape: [2, 3] }), /span 16 bytes, but F32 \[2, 3] takes 24/],
    ["overflowing product", entry({ shape: [2 ** 52, 2 ** 52, 0] }), /takes 0/],
    ["backwards", entry({ data_offsets: [16, 0] }), /begin at 16, after their end 0/],
    ["one offset", entry({ data_offsets: [0] }), /data_offsets are \[0], expected \[begin, end]/],
    ["beyond the file", entry({}, 15), /data ends at byte 16, but the file holds only 15/],
    ["bytes left over", entry({}, 20), /4 bytes after tensor w belong to no tensor/],
    [
      "hole",
      file('{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}', 2),
      /1 bytes between the header and tensor a/,
    ],
    [
      "overlap",
      file(
        '{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}',
        3,
      ),
      /tensor b begins 1 bytes before tensor a ends/,
    ],
    [
      "twice",
      file(
        '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
        1,
      ),
      /"a" twice/,
    ],
    ["metadata", file('{"__metadata__":{"format":1}}', 0), /__metadata__.format is 1, expected a string/],
  ])("refuses: %s", (_, bytes, message) => {
    expect(() => parseSafetensors(bytes, "x.safetensors")).toThrow(message);
    expect(() => parseSafetensors(bytes, "x.safetensors")).toThrow(UpcycleError);
  });

  it("is read, or refused as bad input, where the file is changed anywhere", () => {
    const mutation = fc.record({ at: fc.nat(), byte: fc.nat(255), cut: fc.option(fc.nat()) });
    fc.assert(
      fc.property(tensors, fc.array(mutation, { minLength: 1, maxLength: 4 }), (list, mutations) => {
        let bytes = encodeSafetensors(list);
        for (const { at, byte, cut } of mutations) {
          if (bytes.byteLength > 0) bytes[at % bytes.byteLength] = byte;
          if (cut !== null) bytes = bytes.slice(0, cut % (bytes.byteLength + 1));
        }
        try {
          for (const { begin, end } of parseSafetensors(bytes, "t").tensors.values())
            expect(end <= bytes.byteLength && begin <= end).toBe(true);
        } catch (error) {
          expect(error).toBeInstanceOf(UpcycleError);
        }
      }),
      { numRuns: 2000 },
    );
  });

  it("is read, or refused as bad input, where it is any JSON", () => {
    fc.assert(
      fc.property(
        fc.dictionary(
          fc.constantFrom("a", "b", "__metadata__"),
          fc.oneof(
            fc.jsonValue(),
            fc.record({
              dtype: fc.constantFrom("F32", "U8", 3),
              shape: fc.array(fc.oneof(fc.nat(3), fc.jsonValue()), { maxLength: 2 }),
              data_offsets: fc.array(fc.nat(20), { maxLength: 3 }),
            }),
          ),
        ),
        fc.nat(32),
        (header, size) => {
          try {
            parseSafetensors(file(JSON.stringify(header), size), "t");
          } catch (error) {
            expect(error).toBeInstanceOf(UpcycleError);
          }
        },
      ),
      { numRuns: 1000 },
    );
  });
});

describe("duplicateKey", () => {
  it("finds nothing in what JSON.stringify wrote", () => {
    fc.assert(fc.property(fc.jsonValue(), (value) => duplicateKey(JSON.stringify(value)) === undefined));
  });

  it("finds repeated keys at any depth, however escaped", () => {
    expect(duplicateKey('{"a":[{"x":1,"y":{"x":2}},{"x":1}],"b":"a"}')).toBeUndefined();
    expect(duplicateKey('{"a":[{"x":1,"y":[1,"x"],"x":2}]}')).toBe("x");
    expect(duplicateKey('{"a":1,"\\u0061":2}')).toBe("a");
    expect(duplicateKey('{"q\\"":1,"b":"}","q\\"":2}')).toBe('q"');
  });
});

it("tensors that lie in another order than they are listed are put in order", () => {
  const header = Object.fromEntries(
    [2, 0, 1].map((i) => [`t${i}`, { dtype: "F32", shape: [1], data_offsets: [4 * i, 4 * i + 4] }]),
  );
  expect([...parseSafetensors(file(JSON.stringify(header), 12), "t").tensors.keys()]).toEqual(["t0", "t1", "t2"]);
});
