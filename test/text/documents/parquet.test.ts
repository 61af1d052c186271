import { truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { UpcycleError } from "../../../src/base/errors.js";
import { readDocuments } from "../../../src/text/documents/corpus.js";
import { temporaryFolder } from "../../files/io/temporary.js";

/**
 * Written by hyparquet-writer 0.17: columns id (integer) and text of three rows in row groups of two; `holes` has a
 * null in row 2, `lzo` says that it is compressed with LZO.
 */
const files = {
  snappy: [
    "UEFSMRUGFRQVGFwVBBUAFQQVABUEFQAAAAMDCBwBAAAAAgAAABUGFUIVRlwVBBUAFQQVABUEFQAAAAMDH3gOAAAAZWlucyDigJQgY2Fmw6kJAAAA",
    "endlaSDwn5CLFQYVDBUQXBUCFQAVAhUAFQQVAAAAAwEEDAMAAAAVBhUeFSJcFQIVABUCFQAVBBUAAAADAQ0wCQAAAGRyZWkKdmllchUEGTxIBHJv",
    "b3QVBAAVAiUCGAJpZAAVDCUCGAR0ZXh0JQAAFgYZLBksJggcFQIZFQAZGAJpZBUCFgQWPhZCJggAACZKHBUMGRUAGRgEdGV4dBUCFgQWbBZwJkoA",
    "ABaqARYENrIBABksJroBHBUCGRUAGRgCaWQVAhYCFjYWOia6AQAAJvQBHBUMGRUAGRgEdGV4dBUCFgIWSBZMJvQBAAAWfhYCNoYBACgJaHlwYXJx",
    "dWV0GSwcAAAcAAAAvAAAAFBBUjE=",
  ],
  gzip: [
    "UEFSMRUGFRQVPFwVBBUAFQQVABUEFQAAAAMDH4sIAAAAAAAAA2NkYGBgYmBgAAB8F4EDCAAAABUGFUIVbFwVBBUAFQQVABUEFQAAAAMDH4sIAAAA",
    "AAAAA+NjYGBIzcwrVnjUMEUhOTHt8EpOBgaGqvLUTIUP8yd0AwD5e7d9HwAAABUGFQwVNFwVAhUAFQIVABUEFQAAAAMBH4sIAAAAAAAAA2NmYGAA",
    "APJw8TMEAAAAFQYVHhVGXBUCFQAVAhUAFQQVAAAAAwEfiwgAAAAAAAAD42RgYEgpSs3kKstMLQIAQ68NdA0AAAAVBBk8SARyb290FQQAFQIlAhgC",
    "aWQAFQwlAhgEdGV4dCUAABYGGSwZLCYIHBUCGRUAGRgCaWQVBBYEFj4WZiYIAAAmbhwVDBkVABkYBHRleHQVBBYEFmwWlgEmbgAAFqoBFgQ2/AEA",
    "GSwmhAIcFQIZFQAZGAJpZBUEFgIWNhZeJoQCAAAm4gIcFQwZFQAZGAR0ZXh0FQQWAhZIFnAm4gIAABZ+FgI2zgEAKAloeXBhcnF1ZXQZLBwAABwA",
    "AAC9AAAAUEFSMQ==",
  ],
  lzo: [
    "UEFSMRUGFRQVFFwVBBUAFQQVABUEFQAAAAMDAQAAAAIAAAAVBhVCFUJcFQQVABUEFQAVBBUAAAADAw4AAABlaW5zIOKAlCBjYWbDqQkAAAB6d2Vp",
    "IPCfkIsVBhUMFQxcFQIVABUCFQAVBBUAAAADAQMAAAAVBhUeFR5cFQIVABUCFQAVBBUAAAADAQkAAABkcmVpCnZpZXIVBBk8SARyb290FQQAFQIl",
    "AhgCaWQAFQwlAhgEdGV4dCUAABYGGSwZLCYIHBUCGRUAGRgCaWQVBhYEFj4WPiYIAAAmRhwVDBkVABkYBHRleHQVBhYEFmwWbCZGAAAWqgEWBDaq",
    "AQAZLCayARwVAhkVABkYAmlkFQYWAhY2FjYmsgEAACboARwVDBkVABkYBHRleHQVBhYCFkgWSCboAQAAFn4WAjZ+ACgJaHlwYXJxdWV0GSwcAAAc",
    "AAAAuwAAAFBBUjE=",
  ],
  holes: [
    "UEFSMRUGFRQVFFwVBBUAFQQVABUEFQAAAAMDAQAAAAIAAAAVBhUUFRRcFQQVAhUEFQAVBBUAAAADAQQAAABlaW5zFQYVDBUMXBUCFQAVAhUAFQQV",
    "AAAAAwEDAAAAFQYVFBUUXBUCFQAVAhUAFQQVAAAAAwEEAAAAZHJlaRUEGTxIBHJvb3QVBAAVAiUCGAJpZAAVDCUCGAR0ZXh0JQAAFgYZLBksJggc",
    "FQIZFQAZGAJpZBUAFgQWPhY+JggAACZGHBUMGRUAGRgEdGV4dBUAFgQWPhY+JkYAABZ8FgQ2fAAZLCaEARwVAhkVABkYAmlkFQAWAhY2FjYmhAEA",
    "ACa6ARwVDBkVABkYBHRleHQVABYCFj4WPia6AQAAFnQWAjZ0ACgJaHlwYXJxdWV0GSwcAAAcAAAAuQAAAFBBUjE=",
  ],
} as const;

const dir = temporaryFolder();
const path = (name: string): string => join(dir, `${name}.parquet`);
for (const [name, lines] of Object.entries(files)) writeFileSync(path(name), Buffer.from(lines.join(""), "base64"));

async function read(name: string, field?: string): Promise<string[]> {
  const documents: string[] = [];
  for await (const { name: at, text } of readDocuments({ path: path(name), field })) documents.push(`${at} ${text}`);
  return documents;
}

async function failure(promise: Promise<unknown>): Promise<string> {
  const error: unknown = await promise.then(
    () => "no error",
    (cause: unknown) => cause,
  );
  if (!(error instanceof UpcycleError)) throw new Error(`expected an UpcycleError, got ${String(error)}`);
  expect(error.kind).toBe("input");
  return error.line.replaceAll(`${dir}/`, "");
}

describe("text from Parquet", () => {
  it.each(["snappy", "gzip"])("comes from the rows of all row groups in order, packed by %s", async (name) => {
    expect(await read(name)).toEqual([
      `${name}.parquet:1 eins — café`,
      `${name}.parquet:2 zwei 🐋`,
      `${name}.parquet:3 drei\nvier`,
    ]);
  });

  it("that is not there, no text, or cannot be unpacked is refused in one line", async () => {
    writeFileSync(path("broken"), "PAR1 and no more");
    writeFileSync(path("cut"), Buffer.from(files.snappy.join(""), "base64").subarray(0, 100));
    expect(await failure(read("snappy", "body"))).toBe(
      'snappy.parquet: there is no column "body"; its columns are: id, text',
    );
    expect(await failure(read("snappy", "id"))).toBe('snappy.parquet: column "id" holds INT32, expected text');
    expect(await failure(read("holes"))).toBe('holes.parquet: row 2 has no text in column "text"');
    expect(await failure(read("lzo"))).toBe(
      "lzo.parquet: this Parquet file is compressed with LZO, which cannot be unpacked here; compress it with " +
        "Snappy, gzip or not at all",
    );
    expect(await failure(read("broken"))).toMatch(/^broken.parquet: this Parquet file cannot be read \(.+\)$/);
    expect(await failure(read("cut"))).toMatch(/^cut.parquet: this Parquet file cannot be read \(.+\)$/);
    expect(await failure(read("missing"))).toBe("missing.parquet: cannot read text: no such file or folder");
  });
});

describe("a Parquet file that is cut off while it is read", () => {
  it("is said to be changing, and is not called broken", async () => {
    const file = path("shrinking");
    writeFileSync(file, Buffer.from(files.snappy.join(""), "base64"));
    const documents = readDocuments({ path: file });
    expect((await documents.next()).value).toMatchObject({ name: "shrinking.parquet:1" });
    truncateSync(file, 4);
    const rest = (async () => {
      for await (const document of documents) expect(document.text).not.toBe("");
    })();
    expect(await failure(rest)).toMatch(
      /^shrinking\.parquet: file ends at byte \d+, it had \d+ when opened; something else is changing it$/,
    );
  });
});
