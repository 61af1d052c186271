import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { crc32c } from "../../../src/files/formats/crc32c.js";
import { fileVersionRecord, scalarRecord } from "../../../src/files/formats/event-file.js";

it("CRC-32C of the examples of RFC 3720, appendix B.4", () => {
  const ascending = Uint8Array.from({ length: 32 }, (_, i) => i);
  expect(crc32c(new Uint8Array(32))).toBe(0x8a9136aa);
  expect(crc32c(new Uint8Array(32).fill(255))).toBe(0x62a8ab43);
  expect(crc32c(ascending)).toBe(0x46dd794e);
  expect(crc32c(ascending.toReversed())).toBe(0x113fdb5c);
});

it("an event file is, byte for byte, what TensorBoard's own writer writes", () => {
  // test/golden/tensorboard.py wrote it with tensorboard 2.21.0.
  const golden = readFileSync(new URL("../../golden/tensorboard.tfevents", import.meta.url));
  const start = 1700000000.25;
  const scalars = (step: number, ...values: (readonly [string, number])[]): Uint8Array =>
    scalarRecord({ wallTime: start + step, step, scalars: values });
  const file = Buffer.concat([
    fileVersionRecord(start),
    scalars(0, ["eval/loss", 5.5]),
    scalars(1, ["train/loss", 5.25], ["train/learning_rate", 0.001]),
    scalars(300, ["train/loss", -1.5e-30]),
    scalars(5e9, ["train/tokens", 1e12], ["a".repeat(200), 2]),
  ]);
  expect(file.toString("hex")).toBe(golden.toString("hex"));
});
