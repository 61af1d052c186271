import { cpSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { at, entryOf } from "../../../src/base/at.js";
import { UpcycleError } from "../../../src/base/errors.js";
import { openCheckpoint } from "../../../src/files/checkpoint/open.js";
import { pickledTensors } from "../../../src/files/checkpoint/pickled.js";
import { elements } from "../../../src/base/shapes.js";
import type { ReadableTensor } from "../../../src/files/checkpoint/stored.js";
import { inspectModel } from "../../../src/surgery/convert/inspect.js";
import { parseSafetensors } from "../../support/safetensors.js";
import type { RangeFile } from "../../../src/files/io/ranges.js";
import { f32, global, op, pickle, statePickle, zipArchive, type FakeTensor } from "../formats/torch-archive.js";
import { golden } from "../../support/golden.js";
import { allBytes, failure, fresh, variant, withCheckpoint } from "./folders.js";

const fixture = (name: string): string => join(golden("pickled"), name);

/** A file in memory, which counts what is read of it. */
function inMemory(bytes: Uint8Array): RangeFile & { readonly reads: number[] } {
  const reads: number[] = [];
  return {
    path: "t.bin",
    size: bytes.byteLength,
    reads,
    async read(offset, length) {
      if (!(offset >= 0 && length >= 0 && offset + length <= bytes.byteLength))
        throw new Error(`reads ${offset} to ${offset + length} of ${bytes.byteLength}`);
      reads.push(length);
      return bytes.slice(offset, offset + length);
    },
    close: async () => undefined,
  };
}

const archive = (tensors: readonly FakeTensor[], data: Uint8Array): Uint8Array =>
  zipArchive([
    { name: "m/data.pkl", bytes: statePickle(tensors) },
    { name: "m/data/0", bytes: data },
  ]);

/** The one tensor of a file. */
async function only(file: RangeFile): Promise<ReadableTensor> {
  const tensors = await pickledTensors(file, "f");
  expect(tensors).toHaveLength(1);
  return at(tensors, 0)[1];
}

describe("torch.save archives", () => {
  it("give every tensor that torch wrote, as torch reads it", async () => {
    const expected = new Uint8Array(readFileSync(fixture("expected.safetensors")));
    const { tensors } = parseSafetensors(expected, "expected");
    const byName = new Map(await pickledTensors(inMemory(readFileSync(fixture("tensors.bin"))), "tensors.bin"));
    expect([...byName.keys()].sort()).toEqual([...tensors.keys()].sort());
    for (const [name, { dtype, shape, begin, end }] of tensors) {
      expect({ name, dtype: entryOf(byName, name).dtype, shape: entryOf(byName, name).shape }).toEqual({
        name,
        dtype,
        shape,
      });
      expect([...(await entryOf(byName, name).read(0, elements(shape)))]).toEqual([...expected.subarray(begin, end)]);
    }
  });

  it("are read in pickle protocol 4 and as ZIP64 archives", async () => {
    const byName = new Map(await pickledTensors(inMemory(readFileSync(fixture("protocol4.bin"))), "f"));
    expect(entryOf(byName, "b").shape).toEqual([8, 6]);
    const tensors = [{ name: "w", elements: 3, size: [3], stride: [1] }];
    const file = zipArchive(
      [
        { name: "m/data.pkl", bytes: statePickle(tensors) },
        { name: "m/data/0", bytes: f32(1, 2, 3) },
      ],
      { zip64: true },
    );
    expect(await (await only(inMemory(file))).read(1, 2)).toEqual(f32(2, 3));
  });

  it("give any part of any view as the same part of the whole", async () => {
    const axis = fc.record({ size: fc.integer({ min: 1, max: 4 }), gap: fc.nat(2) });
    await fc.assert(
      fc.asyncProperty(
        fc.array(axis, { maxLength: 4 }),
        fc.nat(5),
        fc.nat(),
        fc.nat(),
        fc.nat(),
        async (axes, offset, order, from, length) => {
          // Strides of axes nested in some order, with gaps.
          const size = axes.map((one) => one.size);
          const nesting = axes.map((_, i) => i).sort((a, b) => ((a * 7 + order) % 5) - ((b * 7 + order) % 5));
          const stride: number[] = size.map(() => 0);
          let step = 1;
          for (const i of nesting) {
            stride[i] = step;
            step *= at(size, i) + at(axes, i).gap;
          }
          const total = offset + step;
          const values = Float32Array.from({ length: total }, (_, i) => i);
          const tensor = await only(
            inMemory(archive([{ name: "w", elements: total, offset, size, stride }], new Uint8Array(values.buffer))),
          );
          const count = elements(size);
          const expected = Float32Array.from({ length: count }, (_, index) => {
            let position = offset;
            let rest = index;
            for (let i = size.length - 1; i >= 0; i--) {
              position += (rest % at(size, i)) * at(stride, i);
              rest = Math.floor(rest / at(size, i));
            }
            return position;
          });
          const start = from % (count + 1);
          const end = start + (length % (count - start + 1));
          expect(await tensor.read(start, end - start)).toEqual(new Uint8Array(expected.slice(start, end).buffer));
        },
      ),
    );
  });

  it("are read run by run where runs are long, without what lies between them", async () => {
    const [rows, width, run] = [4, 60_000, 20_000];
    const file = inMemory(
      archive(
        [{ name: "w", elements: rows * width, size: [rows, run], stride: [width, 1] }],
        new Uint8Array(rows * width * 4),
      ),
    );
    const tensor = await only(file);
    file.reads.length = 0;
    await tensor.read(run, 2 * run);
    expect(file.reads).toEqual([4 * run, 4 * run]);
  });

  const one: FakeTensor = { name: "w", elements: 4, size: [2, 2], stride: [2, 1] };
  const data = f32(1, 2, 3, 4);
  const evil = pickle(op("}"), "w", global("os", "system"), "touch /tmp/owned", Uint8Array.of(0x85), op("Rs"));
  const nested = pickle(global("torch.storage", "_load_from_bytes"), op("C\x01x"), Uint8Array.of(0x85), op("R"));
  const refused: [string, Uint8Array, string][] = [
    [
      "a command",
      zipArchive([{ name: "m/data.pkl", bytes: evil }]),
      'asks for "os.system", which no file of weights needs (byte 20); nothing of it was executed',
    ],
    [
      "a pickle within",
      zipArchive([{ name: "m/data.pkl", bytes: nested }]),
      'asks for "torch.storage._load_from_bytes"',
    ],
    [
      "torch before 1.6",
      readFileSync(fixture("legacy.bin")),
      "file is in the format of torch before 1.6, expected the zip format",
    ],
    [
      "a tar file",
      Uint8Array.from([...new Uint8Array(257), ...new TextEncoder().encode("ustar"), 0]),
      "file is in the tar format",
    ],
    [
      "a pointer",
      new TextEncoder().encode("version https://git-lfs.github.com/spec/v1\noid"),
      "this is a Git LFS pointer",
    ],
    ["something else", Uint8Array.of(1, 2, 3), "file is no torch.save archive"],
    ["nothing", new Uint8Array(0), "file is no torch.save archive"],
    [
      "a cut file",
      readFileSync(fixture("tensors.bin")).subarray(0, 5000),
      "zip archive has no end record; the file is cut short",
    ],
    ["an archive of something else", zipArchive([{ name: "m/readme", bytes: data }]), "zip archive without data.pkl"],
    [
      "big-endian",
      zipArchive([
        { name: "m/data.pkl", bytes: statePickle([one]) },
        { name: "m/byteorder", bytes: op("big") },
      ]),
      'byte order is "big"',
    ],
    [
      "a compressed storage",
      zipArchive([
        { name: "m/data.pkl", bytes: statePickle([one]) },
        { name: "m/data/0", bytes: data, method: 8 },
      ]),
      "member m/data/0 is compressed",
    ],
    [
      "no storage",
      zipArchive([{ name: "m/data.pkl", bytes: statePickle([one]) }]),
      "tensor w lies in data/0, which the archive does not have",
    ],
    ["a short storage", archive([{ ...one, elements: 5 }], data), "its storage takes 20 bytes, m/data/0 has 16"],
    [
      "beyond the storage",
      archive([{ ...one, offset: 1 }], data),
      "tensor w [2, 2] reaches element 4 of a storage of 4",
    ],
    [
      "repeated elements",
      archive([{ ...one, size: [1_000_000, 1_000_000], stride: [0, 0] }], data),
      "has more elements than its storage (4)",
    ],
    ["a negative offset", archive([{ ...one, offset: -1 }], data), "calls torch._utils._rebuild_tensor_v2 in a way"],
    [
      "strides of another rank",
      archive([{ ...one, stride: [1] }], data),
      "calls torch._utils._rebuild_tensor_v2 in a way",
    ],
    [
      "complex numbers",
      archive([{ ...one, storage: "ComplexFloatStorage" }], data),
      'asks for "torch.ComplexFloatStorage"',
    ],
    ["a name twice", archive([one, one], data), "tensor w occurs twice"],
    ["no dictionary", zipArchive([{ name: "m/data.pkl", bytes: pickle(4) }]), "file holds no dictionary of tensors"],
    [
      "a training checkpoint",
      zipArchive([{ name: "m/data.pkl", bytes: pickle(op("}"), "model", op("}s"), "step", 4, op("s")) }]),
      "no tensors by name (found model, step)",
    ],
  ];
  it.each(refused)("refuses an archive with this fault: %s", async (_, bytes, words) => {
    const error = await failure(pickledTensors(inMemory(bytes), "f"));
    expect(error.kind).toBe("input");
    expect(error.line).toContain(words);
  });

  it("that are changed anywhere give tensors inside the file, or an error", async () => {
    const whole = readFileSync(fixture("tensors.bin"));
    // Names, shapes and the directory are at the ends; the pickle is what matters most.
    const place = fc.oneof(fc.nat(2100), fc.nat(whole.length - 1));
    await fc.assert(
      fc.asyncProperty(fc.array(fc.tuple(place, fc.nat(255)), { minLength: 1, maxLength: 5 }), async (changes) => {
        const bytes = Uint8Array.from(whole);
        for (const [at, byte] of changes) bytes[at] = byte;
        const file = inMemory(bytes);
        try {
          for (const [, tensor] of await pickledTensors(file, "f")) await tensor.read(0, elements(tensor.shape));
        } catch (error) {
          expect(error).toBeInstanceOf(UpcycleError);
        }
        expect(Math.max(0, ...file.reads)).toBeLessThanOrEqual(whole.length);
      }),
      { numRuns: 1500 },
    );
  });
});

describe("folders of pytorch_model.bin", () => {
  const pickledLlama = (): string => {
    const dir = fresh();
    cpSync(fixture("llama"), dir, { recursive: true });
    cpSync(join(golden("dense/llama"), "config.json"), join(dir, "config.json"));
    return dir;
  };

  it("give the golden weights where shards hold views", async () => {
    const dir = pickledLlama();
    await withCheckpoint(golden("dense/llama"), async (expected) =>
      withCheckpoint(dir, async (pickled) => {
        expect(pickled.unused).toEqual([]);
        expect(await allBytes(pickled)).toEqual(await allBytes(expected));
        expect(await pickled.readRows("layers.1.up", 7, 9)).toEqual(await expected.readRows("layers.1.up", 7, 9));
      }),
    );
    expect((await inspectModel(dir)).weightFiles).toEqual([
      "pytorch_model-00001-of-00002.bin",
      "pytorch_model-00002-of-00002.bin",
    ]);
  });

  it("are read from their safetensors where they have both formats", async () => {
    const dir = variant("dense/llama");
    writeFileSync(join(dir, "pytorch_model.bin"), "rubbish");
    await withCheckpoint(dir, async ({ tensors }) =>
      expect(tensors.get("model.norm.weight")?.file).toBe("model.safetensors"),
    );
    rmSync(join(dir, "model.safetensors"));
    expect((await failure(openCheckpoint(dir))).line).toContain("pytorch_model.bin: file is no torch.save archive");
  });

  it("are refused with a shard without index, and with an index that leads elsewhere", async () => {
    const dir = pickledLlama();
    const index = join(dir, "pytorch_model.bin.index.json");
    writeFileSync(index, readFileSync(index, "utf8").replaceAll("pytorch_model-00002-of-00002.bin", "../model.bin"));
    expect((await failure(openCheckpoint(dir))).line).toContain(
      'is mapped to "../model.bin", expected a .bin file beside the index',
    );
    renameSync(index, join(dir, "elsewhere"));
    expect((await failure(openCheckpoint(dir))).line).toContain(
      "folder has pytorch_model-00001-of-00002.bin (all 2 shards) but no pytorch_model.bin.index.json",
    );
    expect(readdirSync(dir)).toHaveLength(4);
  });
});
