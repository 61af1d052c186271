/**
 * Feeds damaged model files to the readers: `npm run build && node bench/fuzz.mjs --cases 1000000 [--seed 1]`.
 * Every case must end in a result or an error with a hint (UpcycleError), in time, and ask for no more bytes than the file has.
 * Exits with 1 and prints the case (kind, seed, number) where one does not; the same seed and number make the same case.
 */
import { Buffer } from "node:buffer";
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { pickledTensors } from "../dist/checkpoint/pickled.js";
import { parseSafetensors } from "../dist/format/safetensors.js";
import { parseIndex } from "../dist/format/shards.js";
import { specFromConfig } from "../dist/spec/config.js";
import { slotsOf } from "../dist/tensors/slots.js";

const { values: options } = parseArgs({ options: { cases: { type: "string", default: "100000" }, seed: { type: "string", default: "1" } } });
const cases = Number(options.cases);
const folder = (name) => fileURLToPath(new URL(`../test/golden/${name}`, import.meta.url));
const golden = (name) => new Uint8Array(readFileSync(folder(name)));
/** A case may take this long: machines stall, but a hang does not end. */
const slowestMs = 5000;

/** Numbers from 0 up to `below`, by seed (a linear congruential generator: speed matters, quality does not). */
function random(seed) {
  let state = seed >>> 0;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** A few bytes changed, most of them near one of `places`; one in ten is cut short as well. */
function damaged(bytes, next, places) {
  const changed = Uint8Array.from(bytes);
  for (let i = next(6); i >= 0; i--) {
    const [from, to] = places[next(places.length)];
    changed[from + next(to - from)] = next(4) === 0 ? [0, 1, 0x7f, 0x80, 0xff, 0x22, 0x7b, 0x2e][next(8)] : next(256);
  }
  return next(10) === 0 ? changed.subarray(0, next(changed.length)) : changed;
}

const odd = [0, -1, 1, 2, 7, 0.5, 1e9, 2 ** 31, 2 ** 53, 1e308, NaN, "", "8", "llama", null, true, false, [], [1], ["full_attention"], {}, { rope_type: "yarn" }, { quant_method: "fp8" }];

/** A config with some values replaced, removed, or taken from another family's. */
function oddConfig(configs, next) {
  const config = { ...configs[next(configs.length)] };
  const other = configs[next(configs.length)];
  for (let i = next(5); i >= 0; i--) {
    const keys = Object.keys(next(3) === 0 ? other : config);
    const key = keys[next(keys.length)];
    const action = next(4);
    if (action === 0) delete config[key];
    else if (action === 1 && key in other) config[key] = other[key];
    else config[key] = odd[next(odd.length)];
  }
  return config;
}

const configs = ["dense", "moe"].flatMap((kind) => readdirSync(folder(kind)).map((name) => `${kind}/${name}/config.json`))
  .filter((path) => existsSync(folder(path))).map((path) => JSON.parse(readFileSync(folder(path), "utf8")));

const archive = golden("pickled/tensors.bin");
const weights = golden("pickled/expected.safetensors");
const headerBytes = 8 + Number(new DataView(weights.buffer, weights.byteOffset).getBigUint64(0, true));
const shards = golden("moe/mixtral/model.safetensors.index.json");

const kinds = {
  safetensors: (next) => void parseSafetensors(damaged(weights, next, [[0, 8], [8, Math.min(headerBytes, weights.length)]]), "case"),
  index: (next) => void parseIndex(Buffer.from(damaged(shards, next, [[0, shards.length]])).toString(), "case"),
  config: (next) => {
    // A config may ask for a large model; counting its slots must stay possible.
    const spec = specFromConfig(oddConfig(configs, next), "case");
    if (spec.layers.length < 100 && spec.layers.every(({ ffn }) => ffn.kind === "dense" || ffn.experts < 1000)) slotsOf(spec);
  },
  archive: async (next) => {
    const bytes = damaged(archive, next, [[0, 100], [64, 2300], [archive.length - 2400, archive.length]]);
    const source = {
      path: "case", size: bytes.length, close: async () => undefined,
      async read(offset, length) {
        if (!(offset >= 0 && length >= 0 && offset + length <= bytes.length)) throw new Error(`reads ${offset} to ${offset + length} of ${bytes.length}`);
        return bytes.slice(offset, offset + length);
      },
    };
    for (const [, { shape, bytes: size, read }] of await pickledTensors(source, "case")) {
      if (size > bytes.length) throw new Error(`a tensor of ${size} bytes in a file of ${bytes.length}`);
      await read(0, shape.reduce((a, b) => a * b, 1));
    }
  },
};

const started = performance.now();
const tally = Object.fromEntries(Object.keys(kinds).map((kind) => [kind, { cases: 0, accepted: 0, refused: 0, slowestMs: 0 }]));
for (let number = 0; number < cases; number++) {
  const kind = Object.keys(kinds)[number % 4];
  const seed = (Math.imul(Number(options.seed), 0x9e3779b1) + Math.imul(number, 0x85ebca6b)) >>> 0;
  const at = performance.now();
  let failure = null;
  try {
    await kinds[kind](random(seed));
    tally[kind].accepted++;
  } catch (error) {
    tally[kind].refused++;
    if (error.name !== "UpcycleError" || error.line.includes("\n")) failure = error;
  }
  const ms = performance.now() - at;
  tally[kind].cases++;
  tally[kind].slowestMs = Math.max(tally[kind].slowestMs, Math.round(ms));
  if (failure !== null || ms > slowestMs) {
    console.error(`${kind}, case ${number} of seed ${options.seed}: ${failure === null ? `took ${Math.round(ms)} ms` : failure.stack}`);
    process.exit(1);
  }
}
console.table(tally);
console.log(`${cases} cases in ${((performance.now() - started) / 1000).toFixed(0)} s, no crash, no hang, no read beyond a file`);
