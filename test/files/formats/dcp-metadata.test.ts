import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { parseDcpMetadata, writeDcpMetadata } from "../../../src/files/formats/dcp-metadata.js";
import { asRecord, readInert } from "../../../src/files/formats/inert-pickle.js";
import { pickledGlobal, writePickle } from "../../../src/files/formats/pickle-writer.js";
import { golden } from "../../support/golden.js";

const saves = [
  "dense/iter_0000012",
  "dense-0.14/iter_0000012",
  "moe/iter_0000012",
  "superset-dense/release",
  "superset-moe/release",
  "superset-moe-perlayer/release",
];
const metadataOf = (save: string): Uint8Array => new Uint8Array(readFileSync(golden("megatron", save, ".metadata")));

describe("metadata of a distributed checkpoint", () => {
  it.each(saves)("of %s reads alike after it was written by us", (save) => {
    const read = parseDcpMetadata(metadataOf(save), save);
    const again = parseDcpMetadata(writeDcpMetadata(read), save);
    expect([...again.tensors]).toEqual([...read.tensors]);
    expect([...again.objects]).toEqual([...read.objects]);
  });

  it("lists what Megatron-Core saved: keys, shapes, chunks and where they lie", () => {
    const { tensors, objects } = parseDcpMetadata(metadataOf("moe/iter_0000012"), "m");
    const fc1 = tensors.get("decoder.layers.mlp.experts.experts.linear_fc1.weight")!;
    expect([fc1.dtype, fc1.shape, fc1.chunks.length]).toEqual(["F32", [2, 4, 96, 32], 16]);
    expect(fc1.chunks[1]).toMatchObject({ sizes: [1, 1, 48, 32], file: "__0_0.distcp" });
    expect(objects.has("common_state/shard_0_1")).toBe(true);
  });

  const chunk = { offsets: [0], sizes: [4], file: "__0_0.distcp", offset: 0, length: 9 };
  const written = (tensor: object): Uint8Array =>
    writeDcpMetadata({
      tensors: new Map([["w", { dtype: "F32" as const, shape: [8], chunks: [chunk], ...tensor }]]),
      objects: new Map(),
    });

  it("refuses chunks that leave a gap, lie outside, or name a file elsewhere", () => {
    expect(() => parseDcpMetadata(written({}), "m")).toThrow("tensor w [8] is not filled by its 1 chunks");
    const outside = { ...chunk, offsets: [6] };
    expect(() => parseDcpMetadata(written({ chunks: [outside] }), "m")).toThrow("a chunk that does not lie in it");
    for (const file of ["../../etc/passwd", "/etc/passwd", "..", "a\0b"])
      expect(() => parseDcpMetadata(written({ chunks: [{ ...chunk, file }] }), "m")).toThrow("is no name of a file");
  });

  it("keeps every call a record, whatever it names", () => {
    const hostile = writePickle({ call: pickledGlobal("os", "system"), args: ["touch /tmp/owned"] });
    expect(asRecord(readInert(hostile, "m"))).toMatchObject({ global: "os.system", args: ["touch /tmp/owned"] });
    expect(() => parseDcpMetadata(hostile, "m")).toThrow("no metadata of a distributed checkpoint");
  });
});
