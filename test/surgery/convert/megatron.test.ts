/** Models written as checkpoints of Megatron-Core, and read back. */
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { resultOf } from "../../../src/base/events.js";
import { openCheckpoint } from "../../../src/files/checkpoint/open.js";
import { parseDcpMetadata, type DcpMetadata } from "../../../src/files/formats/dcp-metadata.js";
import { megatronObstacles } from "../../../src/model/decoder/megatron.js";
import { specFromConfig } from "../../../src/model/decoder/config.js";
import { slotsOf } from "../../../src/model/tensors/slots.js";
import { makeModel, type Surgery, type PlannedModel } from "../../../src/surgery/convert/make.js";
import { exporting, importing } from "../../../src/surgery/convert/reform.js";
import { nameRelease, releaseFolder, requireReleasePlace } from "../../../src/surgery/convert/release.js";
import { convertCheckpoint, planConversion } from "../../../src/surgery/convert/convert.js";
import { upcycleRecipe } from "../../../src/surgery/planning/recipe.js";
import { golden, goldenModels } from "../../support/golden.js";
import { expectKillsHarmless, pace, type ConversionRequest } from "./kills.js";
import { hashes } from "./hashes.js";

const root = mkdtempSync(join(tmpdir(), "upcycle-to-megatron-"));
let made = 0;
const fresh = (): string => join(root, `out${made++}`);
afterAll(() => rmSync(root, { recursive: true, force: true }));

const make = async <P extends PlannedModel, D>(
  surgery: Surgery<P, D>,
  out: string,
  more: object = {},
): Promise<string> => (await resultOf(makeModel(surgery, { out, ...more }))).dir;

const metadataIn = (folder: string): DcpMetadata =>
  parseDcpMetadata(new Uint8Array(readFileSync(join(folder, ".metadata"))), folder);

/** The bytes of every slot, with their precision. */
async function contents(folder: string): Promise<Map<string, string>> {
  const checkpoint = await openCheckpoint(folder);
  const found = new Map<string, string>();
  for (const { key } of slotsOf(checkpoint.spec)) {
    const { dtype, bytes } = await checkpoint.readBytes(key);
    found.set(key, `${dtype} ${Buffer.from(bytes).toString("hex")}`);
  }
  await checkpoint.close();
  return found;
}

const held = goldenModels.filter((name) => {
  const config: unknown = JSON.parse(readFileSync(golden(name, "config.json"), "utf8"));
  return megatronObstacles(specFromConfig(config, name)).length === 0;
});

describe("a model as it is", () => {
  it.each(held)("%s comes back byte for byte, in its own family", async (name) => {
    const folder = await make(exporting({ source: golden(name) }), releaseFolder(fresh()), { pace });
    expect(await contents(folder)).toEqual(await contents(golden(name)));
    const back = await make(importing({ source: folder }), fresh());
    expect(await contents(back)).toEqual(await contents(golden(name)));
    const [config, own] = [back, golden(name)].map(
      (one) => JSON.parse(readFileSync(join(one, "config.json"), "utf8")) as { model_type: string },
    );
    expect(config!.model_type).toBe(own!.model_type);
  });

  it.each(["superset-dense", "superset-moe"])("has the keys, shapes, chunks and values of %s", async (name) => {
    const source = golden("megatron", name);
    const folder = await make(exporting({ source }), releaseFolder(fresh()));
    const [mine, theirs] = [metadataIn(folder), metadataIn(join(source, "release"))];
    const shapes = ({ tensors }: DcpMetadata): unknown =>
      [...tensors]
        .map(([key, { dtype, shape, chunks }]) => [
          key,
          dtype,
          shape,
          chunks.map(({ offsets, sizes }) => [offsets, sizes]),
        ])
        .sort();
    expect(shapes(mine)).toEqual(shapes(theirs));
    expect([...mine.objects.keys()].sort()).toEqual([...theirs.objects.keys()].sort());
    expect(await contents(folder)).toEqual(await contents(source));
  });

  it("says why Megatron-Core cannot hold it", async () => {
    await expect(make(exporting({ source: golden("dense/gemma2") }), fresh())).rejects.toThrow(
      "Megatron-Core cannot hold this gemma2 model: it has norms before and behind attention and FFN",
    );
  });

  it("is cut into several files where they would be too large", async () => {
    const folder = await make(exporting({ source: golden("dense/llama"), maxShardBytes: 30_000 }), fresh(), {
      maxShardBytes: 30_000,
    });
    const shards = readdirSync(folder).filter((file) => file.endsWith(".distcp"));
    expect(shards.length).toBeGreaterThan(2);
    expect(await contents(folder)).toEqual(await contents(golden("dense/llama")));
  });
});

describe("an upcycled model", () => {
  const asked: ConversionRequest = {
    source: golden("dense/llama"),
    recipe: upcycleRecipe("E4G2T4", { seed: 3 }),
    format: "torch_dist",
    maxShardBytes: 60_000,
    pace,
  };

  it("holds what the folder of Hugging Face holds", async () => {
    const [megatron, plain] = [fresh(), fresh()];
    await resultOf(convertCheckpoint({ ...asked, out: megatron }));
    await resultOf(convertCheckpoint({ ...asked, format: "safetensors", out: plain }));
    expect(await contents(megatron)).toEqual(await contents(plain));
    expect(metadataIn(megatron).tensors.get("decoder.layers.mlp.router.weight")!.shape).toEqual([2, 8, 32]);
  });

  it("has keys for each layer where only some have experts", async () => {
    const out = fresh();
    await resultOf(convertCheckpoint({ ...asked, recipe: upcycleRecipe("E4G1T2", { layers: "odd" }), out }));
    const keys = [...metadataIn(out).tensors.keys()];
    expect(keys).toContain("decoder.layers.1.mlp.experts.experts.linear_fc1.weight");
    expect(keys).toContain("decoder.layers.0.mlp.linear_fc1.weight");
  });

  it.each([
    ["weights that are not renormalised", upcycleRecipe("E4G1T2", { order: "softmax-topk" }), ""],
    // Served by llama.cpp, the folder would compute something else; Megatron-Core's own checkpoint is not served by it.
    ["experts in some layers", upcycleRecipe("E4G1T2", { layers: "odd" }), "llama.cpp"],
  ])("has no shared expert that nobody asked for, where %s lead to a family with one", async (_, recipe, warned) => {
    const [megatron, plain] = [
      await planConversion({ ...asked, recipe }),
      await planConversion({ ...asked, recipe, format: "safetensors" }),
    ];
    const shared = ({ plan }: typeof plain): unknown[] =>
      plan.target.layers.map(({ ffn }) => (ffn.kind === "moe" ? ffn.shared : null));
    expect(shared(plain)).not.toEqual([null, null]);
    expect(shared(megatron)).toEqual([null, null]);
    expect(megatron.plan.expected).toEqual(plain.plan.expected);
    expect(plain.warnings.join()).toContain(warned);
    expect(megatron.warnings).toEqual([]);
  });

  it("has the shared expert that the recipe asks for", async () => {
    const { plan } = await planConversion({ ...asked, recipe: upcycleRecipe("E4G1T2", { shared: 16 }) });
    expect(plan.target.layers.map(({ ffn }) => (ffn.kind === "moe" ? ffn.shared?.ffnDim : null))).toEqual([16, 16]);
  });

  it(
    "is the same after kills at any moment, and nothing is there before it is whole",
    { timeout: 120_000 },
    async () => {
      const reference = fresh();
      await resultOf(convertCheckpoint({ ...asked, out: reference }));
      await expectKillsHarmless(asked, { kills: 3, expected: hashes(reference), fresh });
    },
  );

  it("is named by its tracker last, and never hides a training's checkpoints", async () => {
    const out = fresh();
    await resultOf(convertCheckpoint({ ...asked, out: releaseFolder(out) }));
    expect(existsSync(join(out, "latest_checkpointed_iteration.txt"))).toBe(false);
    await nameRelease(out);
    expect(readFileSync(join(out, "latest_checkpointed_iteration.txt"), "utf8")).toBe("release");
    await expect(requireReleasePlace(out)).resolves.toBeUndefined();
    await expect(requireReleasePlace(golden("megatron/dense"))).rejects.toThrow("its tracker names 12");
  });
});

/** `UPCYCLE_TORCH=python`: an interpreter with torch; see docs/cluster.md. */
const python = process.env["UPCYCLE_TORCH"];

describe.skipIf(python === undefined)("PyTorch's own reader", () => {
  /** What PyTorch reads of every tensor, against what we read; returns how many tensors there were. */
  async function expectSame(folders: readonly string[]): Promise<number> {
    const script = new URL("../../external/read_dcp.py", import.meta.url).pathname;
    const options = { encoding: "utf8", maxBuffer: 1 << 28 } as const;
    const { stdout, stderr, status } = spawnSync(python!, [script, ...folders], options);
    expect(status, stderr).toBe(0);
    const read = JSON.parse(stdout) as Record<string, Record<string, string>>;
    let compared = 0;
    for (const folder of folders) {
      const checkpoint = await openCheckpoint(folder);
      expect(Object.keys(read[folder]!).sort()).toEqual([...checkpoint.tensors.keys()].sort());
      for (const [key, tensor] of checkpoint.tensors) {
        const located = tensor as typeof tensor & { read(start: number, count: number): Promise<Uint8Array> };
        const bytes = await located.read(
          0,
          tensor.shape.reduce((a, b) => a * b, 1),
        );
        expect(read[folder]![key], `${folder} ${key}`).toBe(Buffer.from(bytes).toString("hex"));
        compared++;
      }
      await checkpoint.close();
    }
    return compared;
  }

  it("reads every tensor of every family as we do, whose slots are the source's", { timeout: 600_000 }, async () => {
    const folders: string[] = [];
    for (const name of held) {
      folders.push(await make(exporting({ source: golden(name) }), fresh()));
      expect(await contents(folders.at(-1)!)).toEqual(await contents(golden(name)));
    }
    expect(await expectSame(folders)).toBeGreaterThan(10 * held.length);
  });

  it.each(["all", "odd"])(
    "reads every tensor of every family upcycled in %s layers: all stacked, or a key for each layer",
    { timeout: 600_000 },
    async (layers) => {
      const folders: string[] = [];
      const refused: string[] = [];
      for (const name of held.filter((one) => one.startsWith("dense/"))) {
        const asked = { source: golden(name), recipe: upcycleRecipe("E4G2T4", { layers, target: "upcycle" }), pace };
        const [megatron, plain] = [fresh(), fresh()];
        try {
          await resultOf(convertCheckpoint({ ...asked, format: "torch_dist", out: megatron }));
        } catch (cause) {
          if (!/Megatron-Core cannot hold/.test(String(cause))) throw cause;
          refused.push(name);
          continue;
        }
        await resultOf(convertCheckpoint({ ...asked, out: plain }));
        expect(await contents(megatron)).toEqual(await contents(plain));
        const keys = [...metadataIn(megatron).tensors.keys()];
        expect(keys.some((key) => /^decoder\.layers\.\d+\./.test(key))).toBe(layers === "odd");
        folders.push(megatron);
      }
      // Biases in all linear layers: the router that upcycling makes has none.
      expect(refused).toEqual(["dense/gpt2", "dense/gpt_bigcode", "dense/jais2", "dense/starcoder2"]);
      expect(await expectSame(folders)).toBeGreaterThan(10 * folders.length);
    },
  );
});
