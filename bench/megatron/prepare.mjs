// prepare.mjs CHECKOUT DIR [--tiny]: everything that a session with two GPUs needs, in one folder of a few MB:
// megatron.tar.xz (pack.sh), arguments/ (arguments.mjs) and forms/ (make.mjs on a small model of random weights, with
// the sizes of model.sh). Then, on the machine with the GPUs: two.sh DIR OUT. Needs no GPU.
import { execFileSync } from "node:child_process";
import { mkdirSync, readdirSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { sourceSpec, writeSource } from "../convert-source.mjs";

const [checkout, folder, ...flags] = process.argv.slice(2);
if (folder === undefined) throw new Error("prepare.mjs CHECKOUT DIR [--tiny]");
const dir = resolve(folder);
const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const run = (command, ...words) => execFileSync(command, words, { stdio: ["ignore", "inherit", "inherit"] });

mkdirSync(dir, { recursive: true });
run("bash", here("pack.sh"), checkout, join(dir, "megatron.tar.xz"), "d98e8a64");
run(process.execPath, here("arguments.mjs"), join(dir, "arguments"), ...flags);
const spec = sourceSpec({ layers: 4, hidden: 256, ffnDim: 704, vocab: 1024, heads: 8, kvHeads: 4 });
const dense = join(dir, "dense");
await writeSource(dense, { ...spec, maxPositions: 256 });
for (const form of readdirSync(dir)) if (form === "forms") rmSync(join(dir, form), { recursive: true });
run(process.execPath, here("make.mjs"), dense, join(dir, "forms"));
console.log(`then, with two GPUs: bash bench/megatron/two.sh ${folder} OUT`);
