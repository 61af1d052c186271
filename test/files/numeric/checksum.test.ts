import { crc32 } from "node:zlib";
import fc from "fast-check";
import { expect, it } from "vitest";
import { joinedChecksum } from "../../../src/files/numeric/checksum.js";

it("the sum of two runs of bytes follows from theirs, whatever their lengths", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), fc.uint8Array({ maxLength: 300 }), (a, b) => {
      expect(joinedChecksum(crc32(a), crc32(b), b.length)).toBe(crc32(Buffer.concat([a, b])));
    }),
  );
});

it("holds for a long second run", () => {
  const zeros = new Uint8Array(3_000_001);
  expect(joinedChecksum(crc32("head"), crc32(zeros), zeros.length)).toBe(
    crc32(Buffer.concat([Buffer.from("head"), zeros])),
  );
});
