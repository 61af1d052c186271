// Assembles src/files/numeric/kernels.wat into src/files/numeric/kernels-wasm.ts.
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import wabtFactory from "wabt";

export async function assemble() {
  const wabt = await wabtFactory();
  const module = wabt.parseWat(
    "kernels.wat",
    readFileSync(new URL("../src/files/numeric/kernels.wat", import.meta.url), "utf8"),
    { simd: true },
  );
  const { buffer } = module.toBinary({});
  const lines = Buffer.from(buffer)
    .toString("base64")
    .match(/.{1,100}/g)
    .map((line) => `  "${line}",`);
  return (
    "/** Generated from kernels.wat by scripts/kernels.mjs: do not edit. */\nexport const kernelsBase64 = " +
    `[\n${lines.join("\n")}\n].join("");\n`
  );
}

if (process.argv[1] === fileURLToPath(import.meta.url))
  writeFileSync(new URL("../src/files/numeric/kernels-wasm.ts", import.meta.url), await assemble());
