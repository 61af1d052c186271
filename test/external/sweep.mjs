/**
 * Every causal and every multimodal model type of transformers, tiny, in transformers and here:
 *
 *   node test/external/sweep.mjs --python PYTHON [--work DIR] [--jobs N] [--out FILE.md] [--no-variants] [TYPE...]
 *   node test/external/sweep.mjs --python PYTHON --with RESULTS.json [--with ...] [--out FILE.md]
 *
 * `sweep_models.py` makes the models; this opens each folder with the built toolkit and compares logits on token ids
 * alone. Then every attribute of each accepted causal type is changed in turn and compared again. Writes
 * DIR/results.json, and the tables to FILE.md; exits with 1 if a folder was accepted and its logits differ. Needs `npm
 * run build` first. `--with` takes the changed attributes from the results of runs for some types each, the last of
 * which counts for a type, and opens those folders again whose logits differed.
 */
import { spawnSync } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { availableParallelism, cpus, tmpdir } from "node:os";
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { onnxruntimeBackend } from "../../dist/engine/onnxruntime/backend.js";
import { openModel } from "../../dist/evals/model.js";
import { openTensorFile } from "../../dist/files/io/tensor-file.js";
import { specFromConfig } from "../../dist/model/decoder/config.js";
import { sweepPage } from "./sweep-table.mjs";

/** Largest difference from transformers' logits, as a fraction of the largest logit. */
const sameLogits = 1e-4;

const { values: flags, positionals: chosen } = parseArgs({
  allowPositionals: true,
  options: {
    python: { type: "string" },
    work: { type: "string" },
    jobs: { type: "string", default: "1" },
    out: { type: "string" },
    "no-variants": { type: "boolean", default: false },
    reuse: { type: "boolean", default: false },
    with: { type: "string", multiple: true },
  },
});
if (flags.python === undefined) throw new Error("--python PYTHON is missing: one with torch and transformers");
const work = flags.work ?? (await mkdtemp(join(tmpdir(), "upcycle-sweep-")));
await mkdir(work, { recursive: true });

const json = async (file) => JSON.parse(await readFile(file, "utf8"));

function python(...args) {
  const script = fileURLToPath(new URL("sweep_models.py", import.meta.url));
  const { status } = spawnSync(flags.python, [script, ...args], { stdio: ["ignore", "inherit", "inherit"] });
  if (status !== 0) throw new Error(`sweep_models.py ${args[0]} exited with ${status}`);
}

/**
 * Has the models of a list made; each entry then has its class, or the reason why transformers cannot make it. Only
 * names go to Python: JSON written here says 1 for 1.0, which transformers' classes do not take.
 */
async function made(list, entries) {
  const file = join(work, list);
  if (!flags.reuse) {
    await writeFile(`${file}.names.json`, JSON.stringify(entries.map(({ name }) => name)));
    python("run", work, file, flags.jobs);
  }
  const chosenNames = new Set(entries.map(({ name }) => name));
  return (await json(`${file}.results.json`)).filter(({ name }) => chosenNames.has(name));
}

/** What we make of a folder whose logits are known: `same`, `refused` with the reason, or `DIFFERENT`. */
async function verdict(dir, expectedFile) {
  let model;
  try {
    model = await openModel(dir, onnxruntimeBackend, 1);
  } catch (error) {
    if (error?.name !== "UpcycleError") return { verdict: "BROKEN", words: error.stack.split("\n")[0] };
    return { verdict: "refused", words: reason(error, dir) };
  }
  const expected = await openTensorFile(expectedFile);
  try {
    const [batch, sequence] = expected.tensors.get("input_ids").shape;
    const bytes = async (name) => (await expected.read(name)).slice().buffer;
    const theirs = new Float32Array(await bytes("logits"));
    const ours = await model.logits(new Int32Array(await bytes("input_ids")), { batch, sequence });
    const largest = theirs.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    const off = theirs.reduce((most, value, index) => Math.max(most, Math.abs(value - ours[index])), 0);
    const difference = off / largest;
    return { verdict: difference <= sameLogits ? "same" : "DIFFERENT", difference };
  } catch (error) {
    return { verdict: "BROKEN", words: error.stack.split("\n")[0] };
  } finally {
    await expected.close();
    await model.close();
  }
}

/** The reason alone: without the path, which is this machine's, and without the list of families. */
function reason(error, dir) {
  return error.line
    .replaceAll(`${join(dir, "config.json")}: `, "")
    .replaceAll(`${dir}: `, "")
    .replaceAll(dir, "the folder")
    .replace(/, expected one of upcycle, .*$/, ": no family that is read here");
}

async function types() {
  if (!flags.reuse) python("list", work);
  const all = await json(join(work, "types.json"));
  const entries = await made("types.json", chosen.length === 0 ? all : all.filter(({ type }) => chosen.includes(type)));
  for (const entry of entries) {
    if (entry.class === undefined) continue;
    const dir = join(work, entry.name);
    const expected = join(dir, "expected.safetensors");
    Object.assign(entry, await verdict(dir, expected));
    entry.saved = await verdict(join(dir, "saved"), expected);
    if (entry.verdict === "same") entry.family = specFromConfig(entry.config, dir).family;
    process.stderr.write(`${entry.type}: ${entry.verdict} / ${entry.saved.verdict}\n`);
  }
  return entries;
}

/** Where we mean something else than transformers 5 on purpose. */
const knownDifferences = [
  {
    type: "gemma",
    change: /^hidden_activation/,
    why:
      "hidden_activation has the last word, as in transformers 4 and vLLM and as the released files mean it; " +
      "transformers 5 looks at hidden_act only",
  },
  {
    type: "dbrx",
    change: /^attn_config\.rope_theta/,
    why:
      "attn_config.rope_theta counts, as in transformers 4 and vLLM and as the released files mean it; " +
      "transformers 5 looks at rope_parameters only",
  },
];
const knownDifference = (entry) =>
  knownDifferences.find(({ type, change }) => type === entry.type && change.test(entry.change ?? ""));

/** What transformers reads of each family's config, as `record_attributes.py` saw it. */
const recorded = await json(fileURLToPath(new URL("../golden/attributes.json", import.meta.url)));

/** Whether neither transformers nor we look at what was changed: then nothing has to be run. */
function isUnread({ type, change }, spec, unchanged) {
  const attributes = recorded[type]?.attributes;
  if (attributes === undefined || JSON.stringify(spec) !== JSON.stringify(unchanged)) return false;
  return !/config|build|run/.test(attributes[change.split(" ")[0]] ?? "");
}

/** A verdict that needs no model: we refuse the config, or nobody reads the change. Else null. */
const early = (entry, unchanged) => {
  const { config, name } = entry;
  try {
    const spec = specFromConfig(config, join(work, name, "config.json"));
    return isUnread(entry, spec, unchanged.get(entry.type)) ? { verdict: "unread" } : null;
  } catch (error) {
    if (error?.name !== "UpcycleError") return { verdict: "BROKEN", words: error.stack.split("\n")[0] };
    return { verdict: "refused", words: reason(error, join(work, name)) };
  }
};

async function variants(accepted) {
  const names = accepted.map(({ type }) => type);
  if (!flags.reuse) python("variants", work, ...names);
  const all = await json(join(work, "variants.json"));
  const unchanged = new Map(accepted.map(({ type, config }) => [type, specFromConfig(config, type)]));
  const entries = all.map((entry) => ({ ...entry, ...early(entry, unchanged) }));
  const open = await made(
    "variants.json",
    entries.filter(({ verdict: known }) => known === undefined),
  );
  for (const entry of open) {
    if (entry.class === undefined) continue;
    const dir = join(work, entry.name);
    Object.assign(entry, await verdict(dir, join(dir, "expected.safetensors")));
    if (entry.verdict !== "same")
      process.stderr.write(`${entry.type}: ${entry.change}: ${entry.verdict} ${entry.words ?? entry.difference}\n`);
    else await rm(dir, { recursive: true });
  }
  return [...entries.filter(({ verdict: known }) => known !== undefined), ...open];
}

/**
 * The changed attributes of the accepted types that earlier runs have tried. What differed then, and whose folder still
 * lies beside the results, is opened again.
 */
async function tried(accepted, files) {
  const byType = new Map();
  const unchanged = new Map(accepted.map(({ type, config }) => [type, specFromConfig(config, type)]));
  for (const file of files) {
    const { variants: found } = await json(file);
    for (const entry of found.filter((one) => one.verdict === "DIFFERENT" || one.verdict === "BROKEN")) {
      const dir = join(dirname(file), entry.name);
      if (!existsSync(join(dir, "expected.safetensors"))) continue;
      const { verdict: before, difference, ...rest } = entry;
      const now = early(rest, unchanged) ?? (await verdict(dir, join(dir, "expected.safetensors")));
      process.stderr.write(`${entry.type}: ${entry.change}: ${before} ${difference} then, ${now.verdict} now\n`);
      delete entry.difference;
      Object.assign(entry, now);
    }
    for (const type of new Set(found.map((entry) => entry.type)))
      byType.set(
        type,
        found.filter((entry) => entry.type === type),
      );
  }
  return accepted.flatMap(({ type }) => byType.get(type) ?? []);
}

function facts() {
  const program =
    "import torch, transformers; print(f'transformers {transformers.__version__}, torch {torch.__version__}')";
  const { stdout } = spawnSync(flags.python, ["-c", program], { encoding: "utf8" });
  const machine = `${availableParallelism()} cores of ${cpus()[0]?.model ?? "an unknown CPU"}`;
  return {
    date: new Date().toISOString().slice(0, 10),
    versions: `${stdout.trim()}, float32, eager attention; Node.js ${process.version}; ${machine}`,
  };
}

const started = await types();
const agreeing = started.filter((entry) => entry.verdict === "same");
// A multimodal type's text config is that of a family, whose attributes are changed already; on request it is, too.
const accepted = agreeing.filter((entry) => !entry.multimodal || chosen.includes(entry.type));
const changed =
  flags.with !== undefined ? await tried(accepted, flags.with) : flags["no-variants"] ? [] : await variants(accepted);
await writeFile(join(work, "results.json"), JSON.stringify({ types: started, variants: changed }, null, 1));
if (flags.out !== undefined)
  await writeFile(flags.out, sweepPage({ types: started, variants: changed, facts: facts(), known: knownDifference }));
const wrong = [...started, ...changed].filter(
  (entry) =>
    [entry.verdict, entry.saved?.verdict].some((word) => word === "DIFFERENT" || word === "BROKEN") &&
    knownDifference(entry) === undefined,
);
const refused = started.filter(({ verdict: known }) => known === "refused");
const failed = started.filter((entry) => entry.class === undefined);
console.log(`${started.length} types: ${agreeing.length} agree, ${refused.length} refused, ${failed.length} not made`);
console.log(`${changed.length} variants; ${wrong.length} wrong`);
for (const { type, change, verdict: known, words, difference, saved } of wrong)
  console.log(
    `${type} ${change ?? "as the class has it"}: ${known} ${words ?? difference} ${JSON.stringify(saved ?? "")}`,
  );
if (wrong.length > 0) process.exitCode = 1;
