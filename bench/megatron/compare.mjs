// compare.mjs CHECKPOINT RECORD.json [WITHIN]: the loss of a recorded first batch, computed here, beside Megatron-LM's.
// Needs no GPU.
import { readFileSync } from "node:fs";
import { openModel } from "../../dist/evals/model.js";
import { onnxruntimeBackend } from "../../dist/engine/onnxruntime/backend.js";

const [checkpoint, record, within = "1e-4"] = process.argv.slice(2);
const { ids, labels, loss } = JSON.parse(readFileSync(record, "utf8"));
const model = await openModel(checkpoint, onnxruntimeBackend, 2);
const shape = { batch: ids.length, sequence: ids[0].length };
const own = await model.loss(Int32Array.from(ids.flat()), Int32Array.from(labels.flat()), shape);
await model.close();
const difference = Math.abs(own - loss);
console.log(JSON.stringify({ checkpoint, megatron: loss, upcycle: own, difference, within: Number(within) }));
if (!(difference <= Number(within))) process.exitCode = 1;
