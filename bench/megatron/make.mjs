// make.mjs DENSE OUT: a dense checkpoint that Megatron-LM trained, upcycled into every form of the check. Needs no GPU.
// For each form: OUT/NAME (a folder of saves) and OUT/NAME.args, the arguments that it needs beside the dense ones.
import { execFileSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const [dense, out] = process.argv.slice(2);
const main = fileURLToPath(new URL("../../bin/upcycle.js", import.meta.url));
const upcycle = (...words) => execFileSync(process.execPath, [main, ...words], { stdio: "inherit" });

/** Recipe, words of convert, arguments of pretrain_gpt.py; `exact`: the parent's function is kept. */
export const forms = [
  {
    name: "e8g1t2-post",
    recipe: "E8G1T2",
    words: ["--router", "topk-softmax"],
    experts: 8,
    topK: 2,
    ffn: 704,
    more: [],
    exact: true,
  },
  {
    name: "e8g1t2-pre",
    recipe: "E8G1T2",
    words: ["--router", "softmax-topk"],
    experts: 8,
    topK: 2,
    ffn: 704,
    more: ["--moe-router-pre-softmax"],
    exact: false,
  },
  {
    name: "e8g8t8-post",
    recipe: "E8G8T8",
    words: ["--router", "topk-softmax"],
    experts: 64,
    topK: 8,
    ffn: 88,
    more: [],
    exact: true,
  },
  {
    name: "e4g2t4-shared",
    recipe: "E4G2T4",
    words: ["--router", "topk-softmax", "--shared", "176", "--target", "upcycle"],
    experts: 8,
    topK: 4,
    ffn: 264,
    more: ["--moe-shared-expert-intermediate-size", "176"],
    exact: true,
  },
];

mkdirSync(out, { recursive: true });
for (const { name, recipe, words, experts, topK, ffn, more } of forms) {
  upcycle(
    "convert",
    dense,
    "--recipe",
    recipe,
    ...words,
    "--format",
    "megatron",
    "--out",
    join(out, name),
    "--no-report",
  );
  const given = [
    "--num-experts",
    experts,
    "--moe-router-topk",
    topK,
    "--moe-ffn-hidden-size",
    ffn,
    "--moe-router-load-balancing-type",
    "aux_loss",
    "--moe-aux-loss-coeff",
    "1e-2",
    ...more,
  ];
  writeFileSync(join(out, `${name}.args`), `${given.join(" ")}\n`);
}
