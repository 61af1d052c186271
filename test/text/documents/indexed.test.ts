import { readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { UpcycleError } from "../../../src/base/errors.js";
import { readFirstTokens, readIndexed } from "../../../src/text/documents/indexed.js";
import { writeIndexed, type Width } from "./indexed.js";
import { temporaryFolder } from "../../files/io/temporary.js";

const dir = temporaryFolder();
const documents = [[[5, 6, 7], [8]], [[250, 0]], [], [[1, 2, 3, 4]]];

describe("tokens that Megatron-LM prepared", () => {
  it.each<Width>(["uint8", "uint16", "int32", "int64"])("%s: ids and documents", async (width) => {
    const prefix = join(dir, width);
    writeIndexed(prefix, documents, width);
    for (const path of [prefix, `${prefix}.bin`, `${prefix}.idx`]) {
      const { tokens, documents: bounds, largestId } = await readIndexed(path);
      expect(tokens).toEqual((width === "uint16" ? Uint16Array : Int32Array).from([5, 6, 7, 8, 250, 0, 1, 2, 3, 4]));
      expect([...bounds]).toEqual([0, 4, 6, 6, 10]);
      expect(largestId).toBe(250);
    }
  });

  it("reads past modes, which multimodal data has at the end", async () => {
    const prefix = join(dir, "modes");
    writeIndexed(prefix, documents);
    writeFileSync(`${prefix}.idx`, Buffer.concat([readFileSync(`${prefix}.idx`), new Uint8Array(4)]));
    expect((await readIndexed(prefix)).tokens.length).toBe(10);
  });

  it.each<[string, (idx: Buffer, bin: Buffer) => readonly [Buffer, Buffer] | void, string]>([
    [
      "other magic",
      (idx) => void idx.write("X"),
      "bad.idx: this is no index of a Megatron data set (its first bytes are not MMIDIDX)",
    ],
    ["other version", (idx) => void idx.writeBigUInt64LE(2n, 9), "bad.idx: its version is 2, only version 1 is known"],
    [
      "floats",
      (idx) => void idx.writeUInt8(7, 17),
      "bad.idx: its dtype is float32 (code 7), token ids are whole numbers of at least 0",
    ],
    ["unknown dtype", (idx) => void idx.writeUInt8(9, 17), "bad.idx: dtype code 9 is none of 1 to 8"],
    [
      "wrong dtype",
      (idx) => void idx.writeUInt8(4, 17),
      "bad.idx: sequence 1 starts at byte 6 of BIN, expected 12: sequences must follow one another",
    ],
    [
      "short index",
      (idx, bin) => [idx.subarray(0, idx.length - 1), bin],
      "bad.idx: holds 121 bytes, 4 sequences and 5 document bounds take 122; it is cut short",
    ],
    ["no header", (idx, bin) => [idx.subarray(0, 20), bin], "bad.idx: holds 20 bytes, an index has at least 34"],
    [
      "too many sequences",
      (idx) => void idx.writeBigUInt64LE(1n << 40n, 18),
      "bad.idx: holds 122 bytes, 1099511627776 sequences and 5 document bounds take 13194139533386; it is cut short",
    ],
    [
      "short data",
      (idx, bin) => [idx, bin.subarray(2)],
      "bad.bin: holds 18 bytes, its index speaks of 10 tokens of uint16, 20 bytes; it is cut short",
    ],
    [
      "long data",
      (idx, bin) => [idx, Buffer.concat([bin, bin])],
      "bad.bin: holds 40 bytes, its index speaks of 10 tokens of uint16, 20 bytes; it belongs to another index",
    ],
    ["negative length", (idx) => void idx.writeInt32LE(-1, 34), "bad.idx: sequence 0 has length -1"],
    [
      "documents backwards",
      (idx) => void idx.writeBigInt64LE(9n, 34 + 12 * 4 + 8),
      "bad.idx: document bound 1 is sequence 9, expected 0 to 4",
    ],
    [
      "documents that end early",
      (idx) => void idx.writeBigInt64LE(3n, 34 + 12 * 4 + 32),
      "bad.idx: the last document ends at sequence 3, there are 4",
    ],
  ])("%s is refused", async (_, change, line) => {
    const prefix = join(dir, "bad");
    writeIndexed(prefix, documents);
    const [idx, bin] = [readFileSync(`${prefix}.idx`), readFileSync(`${prefix}.bin`)];
    const [newIdx, newBin] = change(idx, bin) ?? [idx, bin];
    writeFileSync(`${prefix}.idx`, newIdx);
    writeFileSync(`${prefix}.bin`, newBin);
    const error: unknown = await readIndexed(prefix).then(
      () => "no error",
      (cause: unknown) => cause,
    );
    if (!(error instanceof UpcycleError)) throw new Error(String(error));
    expect(error.line.replace(`${prefix}.bin, expected`, "BIN, expected").replace(`${dir}/`, "")).toBe(line);
  });

  it("a negative token id is refused with its position", async () => {
    const prefix = join(dir, "negative");
    writeIndexed(prefix, [[[3, -7]]], "int32");
    await expect(readIndexed(prefix)).rejects.toThrow("token 1 is -7, which is no token id");
    await expect(readIndexed(join(dir, "nothing"))).rejects.toThrow("no such file");
    writeIndexed(prefix, []);
    await expect(readIndexed(prefix)).rejects.toThrow("the data set is empty");
  });
});

describe("the first tokens of such a set", () => {
  const openFiles = (): number => readdirSync("/proc/self/fd").length;

  it.runIf(process.platform === "linux")("leave no file open where the ids are not there", async () => {
    const prefix = join(dir, "gone");
    writeIndexed(prefix, documents, "int32");
    rmSync(`${prefix}.bin`);
    const before = openFiles();
    for (let i = 0; i < 5; i++) await expect(readFirstTokens(prefix, 2)).rejects.toThrow("no such file");
    expect(openFiles()).toBeLessThan(before + 3);
  });

  it("are refused where one is no id, as all tokens are", async () => {
    const prefix = join(dir, "negative");
    writeIndexed(prefix, documents, "int32");
    const ids = readFileSync(`${prefix}.bin`);
    ids.writeInt32LE(-7, 4);
    writeFileSync(`${prefix}.bin`, ids);
    for (const read of [readFirstTokens(prefix, 3), readIndexed(prefix)])
      await expect(read).rejects.toThrow("token 1 is -7, which is no token id");
  });
});
