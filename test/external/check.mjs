/**
 * Makes model folders with this toolkit and has Hugging Face transformers read them:
 *
 *   node test/external/check.mjs --python PYTHON [--work DIR]
 *
 * Every case is a folder plus the logits of our own engine; `manifest.json` lists them for `transformers_check.py`.
 * Without --python the cases are only written, to DIR. Needs `npm run build` first.
 */
import { spawnSync } from "node:child_process";
import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { randomStream } from "../../dist/base/random.js";
import { openCheckpoint } from "../../dist/files/checkpoint/open.js";
import { lineageKey, writeCheckpoint } from "../../dist/files/checkpoint/write.js";
import { resultOf } from "../../dist/base/events.js";
import { convertCheckpoint } from "../../dist/surgery/convert/convert.js";
import { parseTrainConfig } from "../../dist/base/schemas/index.js";
import { openModel } from "../../dist/evals/model.js";
import { openTensorFile, writeTensorFile } from "../../dist/files/io/tensor-file.js";
import { onnxruntimeBackend } from "../../dist/engine/onnxruntime/backend.js";
import { isMoe, sigmoidRouter, softmaxRouter } from "../../dist/model/decoder/types.js";
import { upcycleRecipe } from "../../dist/surgery/planning/recipe.js";
import { surveyRecipe } from "../../dist/surgery/planning/survey.js";
import { tokenizerConfig } from "../../dist/text/tokenizer/config.js";
import { openTokenizer } from "../../dist/text/tokenizer/load.js";
import { trainByteLevelBpe } from "../../dist/text/tokenizer/train.js";
import { freshTensor, newModelSpec } from "../../dist/train/init.js";
import { trainRun } from "../../dist/train/run.js";
import { readCorpus, tokenizeCorpus } from "../../dist/train/text.js";
import { texts } from "./texts.mjs";

/** The families that hold `source` for a recipe, best first. */
const holders = (source, recipe = upcycleRecipe("E8G1T2")) =>
  surveyRecipe(source, recipe).flatMap(({ family, obstacle }) => (obstacle === null ? [family] : []));

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const golden = (model) => here(`../golden/${model}`);
const { values: flags } = parseArgs({ options: { python: { type: "string" }, work: { type: "string" } } });
const work = flags.work ?? (await mkdtemp(join(tmpdir(), "upcycle-external-")));
const cases = [];

/** Logits of our engine for ids [B, T], beside the model folder. */
async function ownLogits(dir, { ids, batch, sequence }, file) {
  const model = await openModel(dir, onnxruntimeBackend, 1);
  const logits = await model.logits(ids, { batch, sequence });
  const tensors = [
    { name: "input_ids", dtype: "I32", shape: [batch, sequence] },
    { name: "logits", dtype: "F32", shape: [batch, sequence, model.spec.vocab] },
  ];
  const bytes = (data) => new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  await writeTensorFile(file, tensors, async (name) => bytes(name === "logits" ? logits : ids));
  await model.close();
}

/** `facts` say what the case is; `parent` is a folder whose logits its own should equal. */
async function addCase(name, dir, input, facts) {
  const ours = `${dir}.ours.safetensors`;
  await ownLogits(dir, input, ours);
  cases.push({ name, dir, ours, ...facts });
}

/** Our own format is for nobody else to read. */
const isReleased = (family) => family !== "upcycle";

async function goldenIds(model) {
  const file = await openTensorFile(join(golden(model), "expected.safetensors"));
  const [batch, sequence] = file.tensors.get("input_ids").shape;
  const ids = new Int32Array((await file.read("input_ids")).buffer);
  await file.close();
  return { ids, batch, sequence };
}

async function specOf(dir) {
  const checkpoint = await openCheckpoint(dir);
  await checkpoint.close();
  return checkpoint.spec;
}

/** What config.json says of how the experts were made. */
const lineageOf = async (dir) =>
  JSON.stringify(JSON.parse(await readFile(join(dir, "config.json"), "utf8"))[lineageKey]);

/** Every dense golden model x recipe x router order x family that holds it x router std. */
async function conversions() {
  for (const source of await readdir(golden("dense"))) {
    const model = `dense/${source}`;
    const input = await goldenIds(model);
    const spec = await specOf(golden(model));
    for (const recipe of ["E8G1T2", "E8G8T8"]) {
      for (const order of ["topk-softmax", "softmax-topk"]) {
        for (const target of holders(spec, upcycleRecipe(recipe, { order })).filter(isReleased)) {
          for (const routerStd of [0.02, 0]) {
            const name = `${source} ${recipe} ${target} ${order} ${routerStd}`;
            const out = join(work, name.replaceAll(" ", "-"));
            await resultOf(
              convertCheckpoint({
                source: golden(model),
                recipe: upcycleRecipe(recipe, { target, order, routerStd }),
                out,
              }),
            );
            await addCase(name, out, input, {
              kind: "convert",
              parent: golden(model),
              source,
              recipe,
              target,
              order,
              routerStd,
            });
          }
        }
      }
    }
  }
}

/** The same model with heads of another size. */
function withHeads(spec, headDim) {
  const layers = spec.layers.map((layer) => ({ ...layer, rope: { ...layer.rope, rotary: headDim } }));
  return { ...spec, attn: { ...spec.attn, headDim, scale: headDim ** -0.5 }, layers };
}

/** What the golden models do not have: each line is a golden model and what of its spec is changed. */
const changes = {
  "llama with biases": [
    "dense/llama",
    (spec) => ({ ...spec, attn: { ...spec.attn, qkvBias: true, outBias: true }, layers: ffns(spec, { bias: true }) }),
  ],
  "llama with linear rope": [
    "dense/llama",
    (spec) => ({
      ...spec,
      layers: spec.layers.map((layer) => ({
        ...layer,
        rope: { ...layer.rope, theta: 500, scaling: { kind: "linear", factor: 4 } },
      })),
    }),
  ],
  "llama with wide heads": ["dense/llama", (spec) => withHeads({ ...spec, attn: { ...spec.attn, kvHeads: 1 } }, 16)],
  "mistral with a window": ["dense/mistral", (spec) => ({ ...spec, layers: windows(spec, [5, 5]) })],
  "qwen2 with a window": ["dense/qwen2", (spec) => ({ ...spec, tiedHead: true, layers: windows(spec, [null, 5]) })],
  "qwen3 with a window and biases": [
    "dense/qwen3",
    (spec) =>
      withHeads(
        { ...spec, attn: { ...spec.attn, qkvBias: true, outBias: true }, layers: windows(spec, [5, null]) },
        12,
      ),
  ],
  "mixtral with a window": ["moe/mixtral", (spec) => ({ ...spec, tiedHead: true, layers: windows(spec, [5, 5]) })],
  "qwen2_moe with a window": ["moe/qwen2_moe", (spec) => ({ ...spec, layers: windows(spec, [null, 5]) })],
  "qwen2_moe without biases": [
    "moe/qwen2_moe",
    (spec) => ({
      ...spec,
      attn: { ...spec.attn, qkvBias: false },
      layers: ffns(spec, { router: softmaxRouter("topk-softmax") }),
    }),
  ],
  "qwen3_moe with a window and biases": [
    "moe/qwen3_moe",
    (spec) => ({ ...spec, attn: { ...spec.attn, qkvBias: true, outBias: true }, layers: windows(spec, [5, 5]) }),
  ],
  "gemma with a linear rope": ["dense/gemma", (spec) => ({ ...spec, layers: ropes(spec, [linear, linear]) })],
  "gemma2 with windows, biases and small caps": [
    "dense/gemma2",
    (spec) => ({
      ...spec,
      logitSoftcap: 2,
      attn: { ...spec.attn, qkvBias: true, outBias: true, scale: 7 ** -0.5, softcap: 1.5 },
      layers: windows(spec, [5, null]),
    }),
  ],
  "gemma3_text with windows, two ropes and a cap": [
    "dense/gemma3_text",
    (spec) => ({
      ...spec,
      logitSoftcap: 2,
      layers: ropes({ layers: windows(spec, [null, 5]) }, [{ theta: 300, ...linear }, { theta: 20 }]),
    }),
  ],
  "gemma3_text with a scaled rope on sliding layers": [
    "dense/gemma3_text",
    (spec) => ({ ...spec, layers: ropes({ layers: windows(spec, [5, null]) }, [linear, { theta: 20 }]) }),
  ],
  "granite with biases": [
    "dense/granite",
    (spec) => ({
      ...spec,
      multipliers: { embedding: 3, residual: 0.4, logits: 1 / 3 },
      attn: { ...spec.attn, qkvBias: true, outBias: true, scale: 0.1 },
      layers: ffns(spec, { bias: true }),
    }),
  ],
  "smollm3 without positions, with a window and biases": [
    "dense/smollm3",
    (spec) => ({
      ...spec,
      attn: { ...spec.attn, qkvBias: true, outBias: true },
      layers: windows({ layers: ropes({ layers: ffns(spec, { bias: true }) }, [{}, null]) }, [null, 5]),
    }),
  ],
  "olmo2 with biases": ["dense/olmo2", (spec) => ({ ...spec, attn: { ...spec.attn, qkvBias: true, outBias: true } })],
  "olmo3 with one window and a scaled rope": [
    "dense/olmo3",
    (spec) => ({
      ...spec,
      layers: ropes({ layers: windows(spec, [5, null]) }, [{ theta: 20 }, { theta: 20, ...linear }]),
    }),
  ],
  "olmo3 with two ropes": [
    "dense/olmo3",
    (spec) => ({ ...spec, layers: ropes({ layers: windows(spec, [null, 5]) }, [{ theta: 50 }, { theta: 20 }]) }),
  ],
  "cohere with norms on queries and keys": [
    "dense/cohere",
    (spec) => ({ ...spec, attn: { ...spec.attn, qkNorm: { span: "own-head", norm: spec.norm, afterRope: false } } }),
  ],
  "olmo with clipped projections and biases": [
    "dense/olmo",
    (spec) => ({ ...spec, attn: { ...spec.attn, clip: 0.5, qkvBias: true, outBias: true } }),
  ],
  "olmoe with clipping behind the norm": [
    "moe/olmoe",
    (spec) => ({ ...spec, attn: { ...spec.attn, clip: 0.5, qkvBias: true, outBias: true } }),
  ],
  "flex_olmo with biases, renormalised": [
    "moe/flex_olmo",
    (spec) => ({
      ...spec,
      attn: { ...spec.attn, qkvBias: true, outBias: true },
      layers: moes(spec, { router: softmaxRouter("topk-softmax") }),
    }),
  ],
  "mellum with a dense layer, a window and two ropes": [
    "moe/mellum",
    (spec) => ({
      ...spec,
      attn: { ...spec.attn, qkvBias: true, outBias: true },
      layers: windows({ layers: ropes({ layers: firstDense(spec) }, [{ theta: 20 }, linear]) }, [5, null]),
    }),
  ],
  "dots1 with groups, a window and biases": [
    "moe/dots1",
    (spec) => ({
      ...spec,
      attn: { ...spec.attn, qkvBias: true, outBias: true },
      layers: windows({ layers: moes(spec, grouped) }, [null, 5]),
    }),
  ],
  "glm4_moe with norms, biases and a wider shared expert": [
    "moe/glm4_moe",
    (spec) => ({
      ...spec,
      attn: { ...spec.attn, qkNorm: { span: "head", norm: spec.norm, afterRope: false }, qkvBias: true },
      layers: moes(spec, { ...grouped, shared: { ffnDim: 32, gated: false } }),
    }),
  ],
  "solar_open with YaRN and biases": [
    "moe/solar_open",
    (spec) => ({
      ...spec,
      attn: { ...spec.attn, qkvBias: true },
      layers: moes({ layers: ropes(spec, [yarn, yarn]) }, grouped),
    }),
  ],
  "hy_v3 with biases and two shared experts": [
    "moe/hy_v3",
    (spec) => ({
      ...spec,
      attn: { ...spec.attn, qkvBias: true, outBias: true },
      layers: moes(spec, { shared: { ffnDim: 32, gated: false } }),
    }),
  ],
  "hunyuan_v1_moe with biases and wide heads": [
    "moe/hunyuan_v1_moe",
    (spec) => withHeads({ ...spec, attn: { ...spec.attn, qkvBias: true, outBias: true } }, 12),
  ],
  "deepseek_v3 with YaRN as released": [
    "moe/deepseek_v3",
    (spec) => ({
      ...spec,
      attn: { ...spec.attn, scale: 12 ** -0.5 * (0.1 * Math.log(40) + 1) ** 2 },
      layers: ropes(spec, [yarn, yarn]),
    }),
  ],
  "deepseek_v3 without a query latent, halves turning": [
    "moe/deepseek_v3",
    (spec) => ({
      ...spec,
      attn: { ...spec.attn, latent: { ...spec.attn.latent, queryRank: null, valueDim: 6 } },
      layers: ropes({ layers: moes(spec, grouped) }, [{ interleaved: false }, { interleaved: false }]),
    }),
  ],
  "phi3 with LongRoPE, short factors": ["dense/phi3", (spec) => longrope(spec, 64)],
  "phi3 with LongRoPE, long factors": ["dense/phi3", (spec) => longrope(spec, 16)],
  // Its 5.18 class takes the short factors at every length.
  "phimoe with LongRoPE and biases": [
    "moe/phimoe",
    (spec) => longrope({ ...spec, attn: { ...spec.attn, qkvBias: true, outBias: true } }, 64),
  ],
  "granitemoe_swa with windows, ropes and a shared expert": [
    "moe/granitemoe_swa",
    (spec) => ({
      ...spec,
      layers: ffns(
        { layers: windows({ layers: ropes(spec, [{ theta: 50 }, { ...spec.layers[0].rope, theta: 20 }]) }, [null, 5]) },
        { shared: { ffnDim: 24, gated: false } },
      ),
    }),
  ],
  "dbrx without a limit and not renormalised": [
    "moe/dbrx",
    (spec) => ({
      ...spec,
      attn: { ...spec.attn, clip: null },
      layers: ffns(spec, { router: softmaxRouter("softmax-topk") }),
    }),
  ],
  "ernie4_5_moe with a floor of 1": [
    "moe/ernie4_5_moe",
    (spec) => ({ ...spec, layers: routers(spec, { renormalise: { plus: 0, atLeast: 1 } }) }),
  ],
  "lfm2_moe not renormalised, scaled": [
    "moe/lfm2_moe",
    (spec) => ({ ...spec, layers: routers(spec, { renormalise: null, correctionBias: false, scaling: 1.5 }) }),
  ],
};
const routers = ({ layers }, change) =>
  layers.map((layer) =>
    layer.ffn.kind === "moe" ? { ...layer, ffn: { ...layer.ffn, router: { ...layer.ffn.router, ...change } } } : layer,
  );
const longrope = (spec, originalMaxPositions) => {
  const scaling = {
    kind: "longrope",
    short: [1, 1.1, 1.2, 1.3],
    long: [1, 2, 3, 4],
    originalMaxPositions,
    attentionFactor: 1.2,
  };
  return { ...spec, layers: ropes(spec, [{ scaling }, { scaling }]) };
};
const yarn = {
  scaling: {
    kind: "yarn",
    factor: 40,
    betaFast: 32,
    betaSlow: 1,
    originalMaxPositions: 16,
    truncate: true,
    attentionFactor: 1,
  },
};
const grouped = {
  topK: 3,
  router: sigmoidRouter({ groups: { count: 4, kept: 2 }, renormalised: false, scaling: 1.5 }),
};
const moes = ({ layers }, change) =>
  layers.map((layer) => (layer.ffn.kind === "moe" ? { ...layer, ffn: { ...layer.ffn, ...change } } : layer));
const firstDense = ({ layers }) =>
  layers.map((layer, i) =>
    i === 0 ? { ...layer, ffn: { kind: "dense", ffnDim: 64, bias: false, activation: "silu", gated: true } } : layer,
  );
const linear = { scaling: { kind: "linear", factor: 4 } };
/** Null: no rope on that layer. */
const ropes = ({ layers }, changed) =>
  layers.map((layer, i) => ({ ...layer, rope: changed[i] === null ? null : { ...layer.rope, ...changed[i] } }));
const ffns = ({ layers }, change) => layers.map((layer) => ({ ...layer, ffn: { ...layer.ffn, ...change } }));
const windows = ({ layers }, sizes) => layers.map((layer, i) => ({ ...layer, window: sizes[i] }));

/** Large enough that biases, windows and angles show in the logits. */
function randomTensor({ key, shape }) {
  const data = new Float32Array(shape.reduce((a, b) => a * b, 1));
  randomStream(1, key).normals(data, 0, 0, 0.3);
  return /[nN]orm$/.test(key) ? data.map((value) => 1 + value) : data;
}

async function variants() {
  for (const [name, [model, change]] of Object.entries(changes)) {
    const input = await goldenIds(model);
    const spec = change(await specOf(golden(model)));
    const dir = join(work, name.replaceAll(" ", "-"));
    await writeCheckpoint({ dir, spec, dtype: "F32", weights: async (slot) => randomTensor(slot) });
    await addCase(name, dir, input, { kind: "variant", save: `${dir}.saved` });
    if (isMoe(spec)) continue;
    for (const target of holders(spec).filter(isReleased)) {
      const out = `${dir}-as-${target}`;
      await resultOf(convertCheckpoint({ source: dir, recipe: upcycleRecipe("E8G8T8", { target }), out }));
      const facts = { recipe: "E8G8T8", target, order: "topk-softmax", routerStd: 0.02, save: `${out}.saved` };
      await addCase(`${name} as ${target}`, out, input, { kind: "convert", parent: dir, source: name, ...facts });
    }
  }
}

/**
 * Models that transformers has opened and saved again mean the same to us: equal specs, equal logits; and say as much
 * of how their experts were made.
 */
async function readBack() {
  const wrong = [];
  const saved = cases.filter(({ save }) => save !== undefined);
  for (const { name, dir, save, ours } of saved) {
    try {
      const specs = [await specOf(dir), await specOf(save)].map((spec) => JSON.stringify({ ...spec, tokens: null }));
      if (specs[0] !== specs[1]) wrong.push(`${name}: transformers saved ${specs[1]}, it was ${specs[0]}`);
      const lineages = [await lineageOf(dir), await lineageOf(save)];
      if (lineages[0] !== lineages[1])
        wrong.push(`${name}: transformers saved ${lineages[1]} about how the experts were made, it was ${lineages[0]}`);
      const first = await openTensorFile(ours);
      const [batch, sequence] = first.tensors.get("input_ids").shape;
      const ids = new Int32Array((await first.read("input_ids")).buffer);
      const expected = new Float32Array((await first.read("logits")).buffer);
      await first.close();
      const model = await openModel(save, onnxruntimeBackend, 1);
      const logits = await model.logits(ids, { batch, sequence });
      await model.close();
      if (logits.some((value, i) => value !== expected[i]))
        wrong.push(`${name}: other logits after transformers saved it`);
    } catch (error) {
      wrong.push(`${name}: ${error.message}`);
    }
  }
  console.log(`\n${saved.length} models saved again by transformers and opened by us, ${wrong.length} problems`);
  for (const problem of wrong) console.log(`- ${problem}`);
  return wrong.length;
}

/** Golden models written again: as they are, in two-byte precisions, and in many files. */
async function rewrites() {
  for (const kind of ["dense", "moe"]) {
    for (const source of await readdir(golden(kind))) {
      const model = `${kind}/${source}`;
      const input = await goldenIds(model);
      const forms = [
        { as: "float32", dtype: "F32" },
        { as: "bfloat16", dtype: "BF16" },
        { as: "float16", dtype: "F16" },
        { as: "float32, many files", dtype: "F32", maxShardBytes: 20_000 },
      ];
      for (const { as, ...form } of kind === "moe" ? forms : forms.slice(0, 2)) {
        const dir = join(work, `${kind}-${source}-${as.replaceAll(/\W+/g, "-")}`);
        const checkpoint = await openCheckpoint(golden(model));
        const weights = ({ key }) => checkpoint.readFloat32(key);
        await writeCheckpoint({ dir, spec: checkpoint.spec, weights, carry: golden(model), ...form });
        await checkpoint.close();
        const same = form.dtype === "F32" ? { parent: golden(model) } : {};
        // Gemma's embedding factor is rounded to the type of the weights.
        const refactored = (await specOf(dir)).multipliers.embedding !== checkpoint.spec.multipliers.embedding;
        const save = as === "float32" ? { save: `${dir}.saved` } : {};
        await addCase(`${model} as ${as}`, dir, input, {
          kind: "rewrite",
          source: model,
          as,
          refactored,
          dtype: as.split(",")[0],
          ...same,
          ...save,
        });
      }
    }
  }
}

/** Token ids of our tokenizer for texts that are awkward, for AutoTokenizer to repeat. */
async function tokenizerFacts(dir) {
  const tokenizer = await openTokenizer(dir);
  const encoded = [];
  for (const text of texts) {
    const plain = Array.from(await tokenizer.encode(text));
    const special = Array.from(await tokenizer.encode(text, { addSpecialTokens: true }));
    encoded.push({ text, plain, special, decoded: await tokenizer.decode(plain) });
  }
  await tokenizer.close();
  return { tokenizer: encoded, eos: tokenizer.eosId ?? null };
}

/** A tokenizer, a dense model of each family that we train and the MoE made of it, each trained for a few steps. */
async function trainings() {
  const config = parseTrainConfig(
    JSON.stringify({
      out: "unused",
      tokenizer: { vocab: 4096 },
      text: { builtin: ["moby-dick"] },
      model: { hidden: 32, layers: 2, heads: 4, kvHeads: 2, inner: 64, maxPositions: 256 },
      training: { steps: 6, batch: 2, sequence: 64, lr: { peak: 3e-3 }, evalEvery: 3 },
    }),
    "train.yaml",
  );
  const corpus = await readCorpus(config.text);
  const carry = join(work, "tokenizer");
  await mkdir(carry);
  await writeFile(
    join(carry, "tokenizer.json"),
    await trainByteLevelBpe(
      corpus.split.train.map(({ text }) => text),
      config.tokenizer,
    ),
  );
  await writeFile(join(carry, "tokenizer_config.json"), tokenizerConfig({ maxLength: config.model.maxPositions }));
  const tokenizer = await openTokenizer(carry);
  const text = await tokenizeCorpus(corpus, tokenizer, undefined);
  await tokenizer.close();
  const input = { ids: text.heldOut.slice(0, 96), batch: 2, sequence: 48 };
  const train = async (name, spec, initial) => {
    const dir = join(work, name.replaceAll(/\W+/g, "-"));
    const options = {
      dir,
      spec,
      initial,
      carry,
      text,
      block: config.training,
      evaluationTokens: 500,
      seed: 0,
      threads: 1,
      identity: {},
    };
    for await (const event of trainRun({ ...options, backend: onnxruntimeBackend })) void event;
    for (const which of ["last", "best"]) {
      const folder = join(dir, which);
      await addCase(`${name}, ${which}`, folder, input, { kind: "train", ...(await tokenizerFacts(folder)) });
    }
    return join(dir, "last");
  };
  for (const family of ["llama", "qwen3"]) {
    const spec = newModelSpec(
      { ...config.model, family, tiedHead: family !== "qwen3" },
      tokenizer.vocab,
      tokenizer.eosId ?? null,
    );
    const dense = await train(`${family} from scratch`, spec, async (slot) => freshTensor(spec, slot, 0));
    for (const order of ["topk-softmax", "softmax-topk"]) {
      for (const target of holders(spec, upcycleRecipe("E4G2T4", { order })).filter(isReleased).slice(0, 3)) {
        const name = `${target} E4G2T4 ${order} of the ${family}`;
        const out = join(work, name.replaceAll(/\W+/g, "-"), "start");
        await resultOf(convertCheckpoint({ source: dense, recipe: upcycleRecipe("E4G2T4", { target, order }), out }));
        const child = await openCheckpoint(out);
        await train(`${name}, trained`, child.spec, (slot) => child.readFloat32(slot.key));
        await child.close();
      }
    }
  }
}

await mkdir(work, { recursive: true });
await conversions();
await variants();
await rewrites();
await trainings();
await writeFile(join(work, "manifest.json"), JSON.stringify(cases, null, 1));
console.error(`${cases.length} cases in ${work}`);
if (flags.python !== undefined) {
  const { status } = spawnSync(flags.python, [here("transformers_check.py"), join(work, "manifest.json")], {
    stdio: "inherit",
  });
  const wrong = await readBack();
  process.exitCode = wrong > 0 ? 1 : (status ?? 1);
  if (flags.work === undefined) await rm(work, { recursive: true });
}
