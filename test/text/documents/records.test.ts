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
});
