/** What a dry run refuses is refused before weights are downloaded: the Hub counts the bytes that it sends. */
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { fakeHub, type FakeHub } from "../files/hub/server.js";
import { temporaryFolder } from "../files/io/temporary.js";
import { adapterDir } from "../support/adapters.js";
import { golden } from "../support/golden.js";
import { upcycle } from "./upcycle.js";

const root = temporaryFolder();
const bytesOf = (path: string): Uint8Array => new Uint8Array(readFileSync(path));
const text = (value: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify(value));
const modelOf = (dir: string): Record<string, Uint8Array> => ({
  "config.json": bytesOf(join(dir, "config.json")),
  "model.safetensors": bytesOf(join(dir, "model.safetensors")),
});
const configOf = (dir: string, changes: object): Uint8Array =>
  text({ ...(JSON.parse(readFileSync(join(dir, "config.json"), "utf8")) as object), ...changes });
const [llama, qwen2, olmoe] = [golden("dense/llama"), golden("dense/qwen2"), golden("moe/olmoe")];
const lora = adapterDir("phi3");
const weights = bytesOf(join(llama, "model.safetensors"));
/** The models of the Hub, and why each is here. */
const repositories: Record<string, Record<string, Uint8Array>> = {
  "org/llama": modelOf(llama),
  "org/qwen2": modelOf(qwen2),
  "org/mixture": modelOf(olmoe),
  "org/other-lora": {
    "adapter_config.json": bytesOf(join(lora, "adapter_config.json")),
    "adapter_model.safetensors": bytesOf(join(lora, "adapter_model.safetensors")),
  },
  // Files of torch.save have no headers that could be fetched alone.
  "org/pickled-wide": { "config.json": configOf(llama, { intermediate_size: 96 }), "pytorch_model.bin": weights },
  "org/pickled-unknown": { "config.json": configOf(llama, { model_type: "novel" }), "pytorch_model.bin": weights },
  "org/unknown": { "config.json": configOf(llama, { model_type: "novel" }), "model.safetensors": weights },
  "org/lacks-a-layer": { "config.json": configOf(llama, { num_hidden_layers: 3 }), "model.safetensors": weights },
  "org/small-vocabulary": {
    ...modelOf(qwen2),
    "config.json": configOf(llama, { vocab_size: 64 }),
    "pytorch_model.bin": weights,
  },
};
/** Bytes of a safetensors file's header. */
const headerBytes = (file: Uint8Array): number =>
  8 + Number(new DataView(file.buffer, file.byteOffset).getBigUint64(0, true));
let hub: FakeHub;

beforeAll(async () => {
  hub = await fakeHub(repositories);
  vi.stubEnv("HF_ENDPOINT", hub.endpoint);
  vi.stubEnv("HF_TOKEN", "");
  vi.stubEnv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1");
});
afterAll(async () => {
  vi.unstubAllEnvs();
  await hub.close();
});
beforeEach(() => {
  vi.stubEnv("HF_HUB_CACHE", mkdtempSync(join(root, "cache-")));
  hub.sent.clear();
});

/** Bytes of weights that were sent beyond the headers of safetensors files, by file. */
function weightsSent(): Record<string, number> {
  const beyond = [...hub.sent].flatMap(([path, sent]) => {
    const [owner = "", name = "", file = ""] = path.split("/");
    const content = repositories[`${owner}/${name}`]?.[file];
    if (content === undefined || !/^(model\.safetensors|pytorch_model\.bin)$/.test(file)) return [];
    const free = file.endsWith(".safetensors") ? headerBytes(content) : 0;
    return sent > free ? [[path, sent - free] as const] : [];
  });
  return Object.fromEntries(beyond);
}

/** The line that a command ends with; what it says of commits and downloads before is left out. */
async function refusal(args: readonly string[]): Promise<readonly [code: number | null, line: string]> {
  const { code, stderr } = await upcycle(...args);
  return [code, stderr.trimEnd().split("\n").at(-1) ?? ""];
}

/** A file of mergekit-moe with two experts. */
function mergekitFile(name: string, base: string, expert: string): string {
  const path = join(root, `${name}.yaml`);
  writeFileSync(
    path,
    `base_model: ${base}\ngate_mode: random\nexperts:\n  - source_model: ${base}\n  - source_model: ${expert}\n`,
  );
  return path;
}

const out = join(root, "never");
const convert = (model: string, ...more: string[]): string[] => ["convert", model, ...more, "--out", out];
const merged = (base: string, expert: string): string[] => [
  "convert",
  "--mergekit",
  mergekitFile(`${base}-${expert}`.replaceAll("/", "-"), base, expert),
  "--out",
  out,
];

describe("before any weights are downloaded", () => {
  it.each<readonly [string, readonly string[], string]>([
    [
      "a recipe that does not divide the FFN",
      convert("hf://org/llama", "--recipe", "E4G7T7"),
      "is not divisible by G = 7",
    ],
    [
      "a target that cannot hold the model",
      convert("hf://org/qwen2", "--recipe", "E4G1T2", "--target", "mixtral"),
      "mixtral",
    ],
    ["a family that is not read", convert("hf://org/unknown", "--recipe", "E4G1T2"), 'model_type is "novel"'],
    [
      "the same in files of torch.save",
      convert("hf://org/pickled-unknown", "--recipe", "E4G1T2"),
      'model_type is "novel"',
    ],
    [
      "tensors that config.json asks for and no file has",
      convert("hf://org/lacks-a-layer", "--recipe", "E4G1T2"),
      "missing",
    ],
    [
      "an adapter of another model",
      convert("hf://org/llama+org/other-lora", "--recipe", "E4G1T2"),
      "is this adapter of another model?",
    ],
    ["parents of two families", merged("org/llama", "org/qwen2"), "parents of one mixture must be of one shape"],
    [
      "parents of two shapes, one of torch.save",
      merged("org/llama", "org/pickled-wide"),
      "parents of one mixture must be of one shape",
    ],
    [
      "a folder and a parent of another shape",
      merged(llama, "org/pickled-wide"),
      "parents of one mixture must be of one shape",
    ],
    [
      "a dense model whose experts are to be multiplied",
      convert("hf://org/llama", "--expert-multiply", "2"),
      "it has no experts to multiply",
    ],
    ["a dense model that is to be merged", ["merge", "hf://org/llama", "--out", out], "it has no experts to merge"],
    ["an expert that the mixture does not have", ["merge", "hf://org/mixture", "--expert", "99", "--out", out], "99"],
    [
      "what Megatron-Core does not compute",
      ["export", "hf://org/mixture", "--format", "megatron", "--out", out],
      "Megatron-Core cannot hold",
    ],
    [
      "a mixture in the place of its parent",
      ["verify", "hf://org/mixture", "hf://org/llama"],
      "swap them: upcycle verify hf://org/llama hf://org/mixture",
    ],
    [
      "models to compare whose second cannot be read",
      ["diff", "hf://org/llama", "hf://org/unknown"],
      'model_type is "novel"',
    ],
    ["a model to run that cannot be read", ["generate", "hf://org/unknown", "--prompt", "x"], 'model_type is "novel"'],
  ])("%s is refused", async (_, args, words) => {
    const [code, line] = await refusal(args);
    expect([code, line]).toEqual([2, expect.stringContaining(words) as string]);
    expect(weightsSent()).toEqual({});
  });

  it("nothing is asked twice: one list of files, one header, each file once", async () => {
    hub.requests.length = 0;
    const { code, stderr } = await upcycle(...convert("hf://org/llama", "--recipe", "E4G1T2", "--no-report"));
    expect(code, stderr).toBe(0);
    expect(stderr.match(/: commit /g)).toHaveLength(1);
    const asked = (pattern: RegExp): number => hub.requests.filter((request) => pattern.test(request)).length;
    expect([asked(/\/revision\//), asked(/\/tree\//), asked(/config\.json/)]).toEqual([1, 1, 1]);
    expect(weightsSent()).toEqual({ "org/llama/model.safetensors": weights.length });
  });
});
