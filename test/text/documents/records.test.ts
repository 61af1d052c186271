import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { readRecords, type DataRecord } from "../../../src/text/documents/records.js";
import { temporaryFolder } from "../../files/io/temporary.js";

const root = temporaryFolder();

async function all(path: string): Promise<DataRecord[]> {
  const records: DataRecord[] = [];
  for await (const record of readRecords(path)) records.push(record);
  return records;
}

const records = [
  { a: 1, b: { c: ["x", null] } },
  { a: 2, b: null },
];

/** Written by PyArrow 25: a column of times in milliseconds, 9e17 and 0, and one of texts. */
const beyondDates = [
  "UEFSMRUAFSwVLCwVBBUAFQYVBhwAAAACAAAABAEAANpJO3F9DAAAAAAAAAAAFQAVIBUgLBUEFQAVBhUGHAAAAAIAAAAEAQEAAAB4AQAAAHkVBB",
  "k8NQAYBnNjaGVtYRUEABUEJQIYAmF0JRJMjBIcHAAAAAAAFQwlAhgEdGV4dCUATBwAAAAWBBkcGSwmABwVBBklBgAZGAJhdBUAFgQWUhZSJghJ",
  "HBUAFQAVAgA8KQYZJgAEAAAAJgAcFQwZJQYAGRgEdGV4dBUAFgQWRhZGJlpJHBUAFQAVAgA8FgQZBhkmAAQAAAAWmAEWBCYIFpgBACggcGFycX",
  "VldC1jcHAtYXJyb3cgdmVyc2lvbiAyNS4wLjEZLBwAABwAAADMAAAAUEFSMQ==",
];

describe("files of records", () => {
  it("are JSON lines, packed or not, or a list over many lines", async () => {
    const lines = records.map((record) => JSON.stringify(record)).join("\n\n");
    writeFileSync(join(root, "a.jsonl"), lines);
    writeFileSync(join(root, "a.json"), lines);
    writeFileSync(join(root, "b.json"), JSON.stringify(records, null, 2));
    writeFileSync(join(root, "c.json.gz"), gzipSync(lines));
    for (const name of ["a.jsonl", "a.json", "b.json", "c.json.gz"])
      expect(await all(join(root, name))).toEqual(records);
  });

  it("are refused with the line that is wrong", async () => {
    writeFileSync(join(root, "bad.jsonl"), '{"a": 1}\n{"a": \n');
    await expect(all(join(root, "bad.jsonl"))).rejects.toMatchObject({ where: join(root, "bad.jsonl:2") });
    writeFileSync(join(root, "list.jsonl"), '{"a": 1}\n3\n');
    await expect(all(join(root, "list.jsonl"))).rejects.toThrow(/not a JSON object/);
    await expect(all(join(root, "x.csv"))).rejects.toThrow(/unknown kind of data file/);
  });

  it("have null for a time of Parquet that no date can be", async () => {
    const path = join(root, "times.parquet");
    writeFileSync(path, Buffer.from(beyondDates.join(""), "base64"));
    expect(await all(path)).toEqual([
      { at: null, text: "x" },
      { at: "1970-01-01T00:00:00.000Z", text: "y" },
    ]);
  });
});
