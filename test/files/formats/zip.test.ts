import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { UpcycleError } from "../../../src/base/errors.js";
import {
  localHeaderBytes,
  memberBegin,
  zip64End,
  zip64EndBytes,
  zipDirectory,
  zipEnd,
  zipTailBytes,
} from "../../../src/files/formats/zip.js";
import { zipArchive } from "./torch-archive.js";

/** The members' bytes by name. */
function unzip(file: Uint8Array): Record<string, Uint8Array> {
  const record = zipEnd(file.subarray(Math.max(0, file.length - zipTailBytes)), file.length, "t");
  const end =
    record.kind === "zip64"
      ? zip64End(file.subarray(record.begin, record.begin + zip64EndBytes), file.length, "t")
      : record;
  const members = zipDirectory(file.subarray(end.begin, end.begin + end.bytes), end.members, file.length, "t");
  return Object.fromEntries(
    [...members].map(([name, member]) => {
      const begin = memberBegin(
        file.subarray(member.header, member.header + localHeaderBytes),
        member,
        file.length,
        "t",
      );
      return [name, file.slice(begin, begin + member.bytes)];
    }),
  );
}

describe("the directory of a zip archive", () => {
  const content = {
    "m/data.pkl": Uint8Array.of(1, 2, 3),
    "m/data/0": new Uint8Array(100).fill(7),
    "m/empty": new Uint8Array(0),
  };
  const members = Object.entries(content).map(([name, bytes]) => ({ name, bytes }));

  it.each([
    ["short sizes", {}],
    ["ZIP64 sizes", { zip64: true }],
    ["a comment", { comment: "PK\x05\x06 made by hand, and long enough to hold a record" }],
  ])("reads back every member of an archive with %s", (_, options) => {
    expect(unzip(zipArchive(members, options))).toEqual(content);
  });

  it("tells a compressed member from a stored one", () => {
    const file = zipArchive([{ name: "a", bytes: Uint8Array.of(1), method: 8 }]);
    const end = zipEnd(file, file.length, "t");
    expect(
      end.kind === "directory" &&
        zipDirectory(file.subarray(end.begin, end.begin + end.bytes), 1, file.length, "t").get("a")?.stored,
    ).toBe(false);
  });

  it("is refused with a name that occurs twice", () => {
    expect(() => unzip(zipArchive([...members, at(members, 0)]))).toThrow('zip archive has "m/data.pkl" twice');
  });

  it.each([false, true])(
    "gives members inside the file, or an error, where the file is cut short or changed anywhere (zip64 %s)",
    (zip64) => {
      const whole = zipArchive(members, { zip64 });
      fc.assert(
        fc.property(
          fc.nat(whole.length),
          fc.array(fc.tuple(fc.nat(whole.length - 1), fc.nat(255)), { maxLength: 4 }),
          (length, changes) => {
            const file = whole.slice(0, changes.length === 0 ? length : whole.length);
            for (const [at, byte] of changes) file[at] = byte;
            try {
              unzip(file);
            } catch (error) {
              expect(error).toBeInstanceOf(UpcycleError);
              expect((error as UpcycleError).kind).toBe("input");
            }
          },
        ),
        { numRuns: 2000 },
      );
      expect(() => unzip(whole.slice(0, -1))).toThrow("zip archive has no end record");
    },
  );
});
