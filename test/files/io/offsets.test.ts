import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { expect, it } from "vitest";
import { openForOffsets, runMemory } from "../../../src/files/io/offsets.js";
import { temporaryFolder } from "./temporary.js";

const dir = temporaryFolder();

it.each([true, false])("runs of any size land at any offset, direct %s, and touch nothing else", async (direct) => {
  const run = fc.record({
    offset: fc.nat(300_000),
    bytes: fc.oneof(fc.nat(200), fc.integer({ min: 60_000, max: 200_000 })),
    placed: fc.boolean(),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(run, { minLength: 1, maxLength: 5 }), async (runs) => {
      const path = join(dir, "file");
      const expected = new Uint8Array(500_000).fill(255);
      writeFileSync(path, expected);
      const file = await openForOffsets(path, direct);
      const memory = runMemory(200_000);
      for (const [i, { offset, bytes, placed }] of runs.entries()) {
        const data = placed ? memory.at(offset, bytes) : new Uint8Array(bytes);
        data.forEach((_, k) => (data[k] = (i * 37 + k * 11) & 0xff));
        await file.write(data, offset);
        expected.set(data, offset);
      }
      await file.close();
      expect(Buffer.compare(readFileSync(path), expected)).toBe(0);
    }),
    { numRuns: 25 },
  );
});

it("a run written to several places keeps its bytes", () => {
  const memory = runMemory(10_000);
  let run = memory.at(4095, 10_000);
  run.forEach((_, k) => (run[k] = k & 0xff));
  for (const offset of [8, 4095, 12_288, 77]) {
    run = memory.moved(run, offset);
    expect(run.byteOffset % 4096).toBe(offset % 4096);
    expect(run.every((value, k) => value === (k & 0xff))).toBe(true);
  }
});
