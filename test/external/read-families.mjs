/**
 * Opens the models of many configs that `test/golden/make_families.py --variants DIR` wrote with transformers, and
 * compares logits, cached generation's logits and what rewriting changes:
 *
 *   node test/external/read-families.mjs DIR
 *
 * Needs `npm run build` first. Exits with 1 if a model is refused or departs by 1e-4 or more.
 */
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openCheckpoint } from "../../dist/files/checkpoint/open.js";
import { writeCheckpoint } from "../../dist/files/checkpoint/write.js";
import { openTensorFile } from "../../dist/files/io/tensor-file.js";
import { openModel } from "../../dist/evals/model.js";
import { onnxruntimeBackend } from "../../dist/engine/onnxruntime/backend.js";
import { upcycleRecipe } from "../../dist/surgery/planning/recipe.js";
import { surveyRecipe } from "../../dist/surgery/planning/survey.js";

const [, , dir] = process.argv;
const floats = ({ buffer, byteOffset, byteLength }) => new Float32Array(buffer, byteOffset, byteLength / 4);
const farthest = (a, b) => a.reduce((worst, value, i) => Math.max(worst, Math.abs(value - b[i])), 0);

async function expected(folder) {
  const file = await openTensorFile(join(folder, "expected.safetensors"));
  const [batch, sequence] = file.tensors.get("input_ids").shape;
  const ids = new Int32Array((await file.read("input_ids")).slice().buffer);
  const logits = floats((await file.read("logits")).slice());
  await file.close();
  return { ids, batch, sequence, logits };
}

/** Bytes of the tensor files that rewriting changes. */
async function changedByRewriting(folder, scratch) {
  const checkpoint = await openCheckpoint(folder);
  const out = join(scratch, "rewritten");
  await rm(out, { recursive: true, force: true });
  await writeCheckpoint({
    dir: out,
    spec: checkpoint.spec,
    weights: ({ key }) => checkpoint.readFloat32(key),
    dtype: "F32",
  });
  const { spec } = checkpoint;
  await checkpoint.close();
  const [before, after] = await Promise.all(
    [folder, out].map((each) => openTensorFile(join(each, "model.safetensors"))),
  );
  let changed = 0;
  for (const name of new Set([...before.tensors.keys(), ...after.tensors.keys()])) {
    const [a, b] = [before, after].map((file) => (file.tensors.has(name) ? name : null));
    if (a === null || b === null) changed++;
    else if (Buffer.compare(Buffer.from(await before.read(name)), Buffer.from(await after.read(name))) !== 0) changed++;
  }
  await before.close();
  await after.close();
  const again = await openCheckpoint(out);
  const same = JSON.stringify(again.spec) === JSON.stringify(spec);
  await again.close();
  return { changed, same };
}

const scratch = await mkdtemp(join(tmpdir(), "families-"));
let problems = 0;
for (const name of (await readdir(dir)).sort()) {
  const folder = join(dir, name);
  try {
    const { ids, batch, sequence, logits } = await expected(folder);
    const model = await openModel(folder, onnxruntimeBackend, 1);
    const ours = await model.logits(ids, { batch, sequence });
    const worst = farthest(ours, logits);
    const { spec } = model;
    await model.close();
    const { changed, same } = await changedByRewriting(folder, scratch);
    const held = surveyRecipe(spec, upcycleRecipe("E8G1T2")).flatMap(({ family, obstacle }) =>
      obstacle === null ? [family] : [],
    );
    const good = worst < 1e-4 && changed === 0 && same;
    if (!good) problems++;
    const verdict = good ? "ok" : "PROBLEM";
    console.log(
      `${verdict.padEnd(8)}${worst.toExponential(1)}  of ${Math.max(...logits.map(Math.abs)).toFixed(0)}  ` +
        `changed ${changed}${same ? "" : ", spec differs"}  ${name}  ->  ${held.join(", ")}`,
    );
  } catch (error) {
    problems++;
    console.log(`REFUSED  ${name}: ${error.line ?? error.stack}`);
  }
}
await rm(scratch, { recursive: true, force: true });
console.log(`${problems} problems`);
process.exitCode = problems === 0 ? 0 : 1;
