/**
 * Opens the models of many configs that `test/golden/make_families.py --variants DIR` wrote with transformers, and
 * compares logits, cached generation's logits and what rewriting changes:
 *
 *   node test/external/read-families.mjs DIR
 *   python3 test/golden/make_families.py --check DIR
 *
 * The second line has transformers read what the first has written to DIR-rewritten. Needs `npm run build` first.
 * Prints a table. Exits with 1 if a model is refused or departs by 1e-4 or more.
 */
import { mkdir, readdir, rm } from "node:fs/promises";
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
async function changedByRewriting(folder, out) {
  const checkpoint = await openCheckpoint(folder);
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

const written = `${dir}-rewritten`;
await mkdir(written, { recursive: true });
console.log("| config | transformers - ours | largest logit | rewriting changes | E8G1T2 fits into |");
console.log("| --- | --- | --- | --- | --- |");
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
    const { changed, same } = await changedByRewriting(folder, join(written, name));
    const held = surveyRecipe(spec, upcycleRecipe("E8G1T2")).flatMap(({ family, obstacle }) =>
      obstacle === null ? [family] : [],
    );
    const good = worst < 1e-4 && changed === 0 && same;
    if (!good) problems++;
    const cells = [
      name.replaceAll("-", " "),
      worst.toExponential(1),
      Math.max(...logits.map(Math.abs)).toFixed(1),
      same ? `${changed} tensors` : "the description",
      held.join(", "),
    ];
    console.log(`| ${cells.join(" | ")} |${good ? "" : " PROBLEM"}`);
  } catch (error) {
    problems++;
    console.log(`REFUSED  ${name}: ${error.line ?? error.stack}`);
  }
}
console.log(`${problems} problems`);
process.exitCode = problems === 0 ? 0 : 1;
