import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { UpcycleError } from "../../../src/base/errors.js";
import { readPickle, type PickleHost } from "../../../src/files/formats/pickle.js";
import { global, op, pickle, type PicklePart } from "./torch-archive.js";

const host: PickleHost<string> = {
  knows: (name) => name === "a.b",
  call: (name, args) => (args.length === 1 ? { kind: "host", value: `${name}(${JSON.stringify(args[0])})` } : null),
  persistent: (id) => (id === "stored" ? { kind: "host", value: "storage" } : null),
};
const read = (...parts: PicklePart[]): unknown => readPickle(pickle(...parts), host, "t");
const tuple = (...items: unknown[]): object => ({ kind: "tuple", items });

describe("readPickle", () => {
  it("reads atoms, containers and what the memo repeats", () => {
    expect(read(op("(NK\x07M\x01\x02"), 5, -5, "é", op("U\x02abC\x01x"), Uint8Array.of(0x88, 0x89), op("t"))).toEqual(
      tuple(null, 7, 513, 5, -5, "é", "ab", Uint8Array.of(120), true, false),
    );
    expect(read(Uint8Array.of(0x47, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0))).toBe(1.5);
    expect(read(Uint8Array.of(0x8a, 2, 0, 0xff))).toBe(-256);
    expect(read(Uint8Array.of(0x8a, 8, 255, 255, 255, 255, 255, 255, 255, 127))).toBe(2n ** 63n - 1n);
    expect(read(op("](K\x01K\x02eK\x03a"))).toEqual({ kind: "list", items: [1, 2, 3] });
    expect(read(op("}"), "k", 1, op("s("), "l", 2, op("u"))).toEqual({
      kind: "dict",
      entries: [
        ["k", 1],
        ["l", 2],
      ],
    });
    expect(read("x", op("q\x05h\x05"), Uint8Array.of(0x86))).toEqual(tuple("x", "x"));
    // Protocol 4: frames, short words, memo without numbers, names from the stack.
    expect(
      read(
        Uint8Array.of(0x95, 0, 0, 0, 0, 0, 0, 0, 0, 0x8c, 1, 97, 0x94, 0x8c, 1, 98, 0x94, 0x93, 0x94),
        4,
        Uint8Array.of(0x85),
        op("R"),
      ),
    ).toEqual({
      kind: "host",
      value: "a.b(4)",
    });
    expect(read("stored", op("Q"))).toEqual({ kind: "host", value: "storage" });
    expect(read(op("}}b"))).toEqual({ kind: "dict", entries: [] });
  });

  const refused: [string, PicklePart[], RegExp][] = [
    [
      "a command",
      [global("os", "system"), "rm -rf /", Uint8Array.of(0x85), op("R")],
      /asks for "os.system", which no file of weights needs .*; nothing of it was executed/,
    ],
    ["a command by protocol 4", ["posix", "system", Uint8Array.of(0x93)], /asks for "posix.system"/],
    ["an unknown opcode", [op("i")], /opcode 0x69/],
    ["an instance", [op("(o")], /opcode 0x6f/],
    [
      "a call of something else",
      [4, Uint8Array.of(0x85, 0x85), op("R")],
      /takes from an empty stack|calls something that has no name/,
    ],
    ["a wrong call", [global("a", "b"), op(")R")], /calls a.b in a way/],
    ["a foreign reference", ["elsewhere", op("Q")], /refers to something outside/],
    ["attributes of a name", [global("a", "b"), op("}b")], /sets attributes of something that is no dictionary/],
    ["an empty stack", [op("a")], /takes from an empty stack/],
    ["values below the mark", [op("](a")], /takes from an empty stack/],
    ["no mark", [op("t")], /has no mark/],
    ["appending to a dictionary", [op("}Na")], /appends to something that is no list/],
    ["entries of a list", [op("]NNs")], /sets entries/],
    ["odd entries", [op("}(Nu")], /sets entries/],
    ["an unknown memo", [op("h\x07")], /recalls 7/],
    ["a long word", [op("X\xff\xff\xff\xff")], /data breaks off, 4294967295 more bytes/],
    ["a huge word", [Uint8Array.of(0x8d, 255, 255, 255, 255, 255, 255, 255, 255)], /length is/],
    ["a long integer", [Uint8Array.of(0x8a, 9)], /integer of 9 bytes/],
    ["leftovers", [op("NN")], /something left over/],
    ["no end of a name", [op("cabc")], /breaks off in a name/],
    ["a later protocol", [Uint8Array.of(0x80, 6)], /protocol above 5/],
  ];
  it.each(refused)("%s is refused", (_, parts, words) => {
    expect(() => read(...parts)).toThrow(UpcycleError);
    try {
      read(...parts);
    } catch (error) {
      expect((error as UpcycleError).line).toMatch(words);
    }
  });

  it("gives a value, or an error that says where, for any bytes", () => {
    const opcodes = fc.constantFrom(
      ...[
        0x28, 0x2e, 0x4e, 0x4b, 0x29, 0x85, 0x86, 0x74, 0x5d, 0x61, 0x65, 0x7d, 0x73, 0x75, 0x71, 0x68, 0x52, 0x51,
        0x62, 0x94, 0x8c, 1, 0,
      ],
    );
    fc.assert(
      fc.property(fc.array(fc.oneof({ weight: 5, arbitrary: opcodes }, fc.nat(255)), { maxLength: 60 }), (bytes) => {
        try {
          readPickle(Uint8Array.from(bytes), host, "t");
        } catch (error) {
          expect(error).toBeInstanceOf(UpcycleError);
          expect((error as UpcycleError).line).toMatch(/^t: pickle: .* \(byte \d+\); nothing of it was executed$/);
        }
      }),
      { numRuns: 3000 },
    );
  });
});
