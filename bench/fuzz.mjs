/**
 * Feeds damaged and absurd safetensors headers, shard indexes, configs and torch archives to their readers:
 * `node bench/fuzz.mjs [--cases 1000000] [--seed N] [--only KIND] [--out FILE]` (after npm run build).
 *
 * Every case must end either with a value that the bytes really say, or with an inputError of one line. It must end in
 * time, and may not use more memory than its input explains (the process has a heap of 256 MB, its resident set is
 * watched, and so is what each case takes outside of the heap). Nothing may be executed: the process makes no code from
 * text, and a case that starts a program, a thread or a connection fails. Folders of Megatron-Core are opened on the
 * disk; a case that opens a file outside of its folder fails. The first case that fails is printed and ends the run
 * with code 1. Each case is a function of the seed and its number. The script writes bench/results/DATE-fuzz.json.
 */
import childProcess, { spawnSync } from "node:child_process";
import fs, { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import net from "node:net";
import { cpus, platform, release, tmpdir, totalmem } from "node:os";
import { dirname, join, resolve, sep } from "node:path";
import { performance } from "node:perf_hooks";
import { fileURLToPath } from "node:url";
import { TextDecoder, TextEncoder, parseArgs } from "node:util";
import workerThreads from "node:worker_threads";
import { crc32 } from "node:zlib";
import { UpcycleError } from "../dist/base/errors.js";
import { pickledTensors } from "../dist/files/checkpoint/pickled.js";
import { openTorchItem } from "../dist/files/checkpoint/torch-item.js";
import { toolVersion } from "../dist/surgery/convert/version.js";
import {
  encodeSafetensors,
  headerLength,
  itemSizes,
  lengthBytes,
  parseHeader,
  tensorBytes,
} from "../dist/files/formats/safetensors.js";
import { openCheckpoint } from "../dist/files/checkpoint/open.js";
import { parseDcpMetadata, writeDcpMetadata } from "../dist/files/formats/dcp-metadata.js";
import { archiveOf } from "../dist/files/formats/torch-archive.js";
import { tensorOf } from "../dist/files/formats/inert-pickle.js";
import { parseIndex } from "../dist/files/formats/shards.js";
import { specFromConfig } from "../dist/model/decoder/config.js";
import { slotsOf } from "../dist/model/tensors/slots.js";

const { values: flags } = parseArgs({
  options: {
    cases: { type: "string", default: "1000000" },
    seed: { type: "string", default: "1" },
    only: { type: "string" },
    out: { type: "string" },
    inner: { type: "boolean", default: false },
  },
});
const HEAP_MB = 256;
const MOST_RSS = 700e6;
/** Outside of the heap, in one case. */
const MOST_BUFFERS = 64e6;
/** Machines stall, but a hang does not end. */
const SLOWEST_MS = 5000;

if (!flags.inner) {
  const { status } = spawnSync(
    process.execPath,
    [
      `--max-old-space-size=${HEAP_MB}`,
      "--disallow-code-generation-from-strings",
      fileURLToPath(import.meta.url),
      ...process.argv.slice(2),
      "--inner",
    ],
    { stdio: "inherit" },
  );
  process.exit(status ?? 1);
}

/** What a case did that it must not do; null: nothing. */
let forbidden = null;
/** The folder in which a case may open files. */
let allowed = null;

function watchPath(path) {
  if (allowed === null || typeof path === "number") return;
  const full = resolve(path instanceof URL ? fileURLToPath(path) : String(path));
  // How many files the system lets a process open, which the readers ask once.
  if (full === "/proc/self/limits") return;
  if (full !== allowed && !full.startsWith(allowed + sep)) forbidden ??= `opens ${full}`;
}

/** The functions that open files tell the path before they do; those that start something are never called. */
function watchSystem() {
  for (const [owner, names] of /** @type {[any, string[]][]} */ ([
    [fs, ["open", "openSync", "readFile", "readFileSync", "createReadStream", "writeFile", "writeFileSync", "rmSync"]],
    [fs.promises, ["open", "readFile", "writeFile", "unlink", "rm", "rename", "mkdir"]],
  ]))
    for (const name of names) {
      const own = owner[name];
      owner[name] = (path, ...rest) => {
        watchPath(path);
        return own.call(owner, path, ...rest);
      };
    }
  for (const [owner, names] of /** @type {[any, string[]][]} */ ([
    [childProcess, ["spawn", "spawnSync", "exec", "execSync", "execFile", "execFileSync", "fork"]],
    [net, ["connect", "createConnection", "createServer"]],
    [workerThreads, ["Worker"]],
  ]))
    for (const name of names)
      owner[name] = function () {
        forbidden ??= `calls ${name}`;
        throw new Error(forbidden);
      };
  syncBuiltinESMExports();
}

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const golden = here("../test/golden");
const configs = readdirSync(golden, { recursive: true, encoding: "utf8" })
  .filter((path) => path.endsWith("config.json") && !path.includes("generation") && !path.includes("tokenizer"))
  .sort()
  .map((path) => readFileSync(join(golden, path), "utf8"));
const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Draws of one case. */
function drawer(number) {
  // A mixed counter: speed matters here, quality does not.
  let state = (Math.imul(Number(flags.seed), 0x9e3779b1) + Math.imul(number, 0x85ebca6b)) >>> 0;
  const unit = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const below = (n) => Math.floor(unit() * n);
  return { unit, below, pick: (list) => list[below(list.length)], chance: (p) => unit() < p };
}

const absurd = [
  null,
  true,
  false,
  0,
  -1,
  1,
  2,
  3,
  0.5,
  -0.5,
  1e-9,
  1e9,
  2 ** 31,
  2 ** 32,
  2 ** 53,
  2 ** 53 + 2,
  1e21,
  1e308,
  -1e308,
  "",
  "x",
  "0",
  "1e9",
  "NaN",
  "Infinity",
  "__proto__",
  "\u0000",
  "é\ud800",
  [],
  {},
  [[]],
  [0],
  [1, 2],
  [-1],
  [2 ** 32, 2 ** 32],
  [null],
  ["a"],
  { a: 1 },
  { __proto__: null },
  "F32",
  "BF16",
  "I64",
  "default",
  "yarn",
  "llama3",
  "softmax",
  "sigmoid",
  "silu",
  "gelu",
  "full_attention",
  "sliding_attention",
];
const deep = (n) => "[".repeat(n) + "]".repeat(n);

function mutateBytes(bytes, { below, pick, chance }) {
  let out = bytes;
  for (let i = 1 + below(4); i > 0; i--) {
    const at = below(out.length + 1);
    switch (below(6)) {
      case 0:
        out = out.slice();
        if (out.length > 0) out[at % out.length] = below(256);
        break;
      case 1:
        out = out.slice(0, at);
        break;
      case 2:
        out = Uint8Array.of(
          ...out.subarray(0, at),
          ...encoder.encode(
            pick(["{", "}", "[", "]", ",", ":", '"', "0", "-", "e9", "\\u0000", "null", " ", "999999999999"]),
          ),
          ...out.subarray(at),
        );
        break;
      case 3:
        out = Uint8Array.of(...out.subarray(0, at), ...out.subarray(Math.min(out.length, at + 1 + below(8))));
        break;
      case 4:
        if (out.length >= 8) {
          out = out.slice();
          new DataView(out.buffer).setBigUint64(
            0,
            BigInt(chance(0.5) ? below(2 * out.length) : Math.floor(2 ** below(64))),
            true,
          );
        }
        break;
      case 5:
        out = Uint8Array.of(...out, ...new Uint8Array(below(64)));
        break;
    }
  }
  return out;
}

/** A value with some of its parts, at any depth, replaced, removed or added. */
function mutateJson(value, random) {
  const { below, pick, chance } = random;
  const paths = [];
  const walk = (node, path) => {
    paths.push(path);
    if (typeof node === "object" && node !== null && path.length < 4)
      for (const key of Object.keys(node)) walk(node[key], [...path, key]);
  };
  walk(value, []);
  let out = globalThis.structuredClone(value);
  for (let i = 1 + below(3); i > 0; i--) {
    const path = pick(paths);
    if (path.length === 0) {
      if (chance(0.02)) out = globalThis.structuredClone(pick(absurd));
      continue;
    }
    let node = out;
    for (const key of path.slice(0, -1)) node = typeof node === "object" && node !== null ? node[key] : undefined;
    if (typeof node !== "object" || node === null) continue;
    const key = path.at(-1);
    if (chance(0.15)) delete node[key];
    else if (chance(0.1))
      node[pick(["__metadata__", "rope_scaling", "layer_types", "num_experts", "x"])] = globalThis.structuredClone(
        pick(absurd),
      );
    else node[key] = globalThis.structuredClone(pick(absurd));
  }
  return out;
}

function safetensorsCase(random) {
  const { below, pick, chance } = random;
  const tensors = Array.from({ length: below(4) }, (_, i) => {
    const dtype = pick(Object.keys(itemSizes));
    const shape = Array.from({ length: below(4) }, () => below(4));
    return {
      name: chance(0.05) ? pick(["__proto__", "", "constructor", "é"]) + i : `t${i}`,
      dtype,
      shape,
      bytes: new Uint8Array(tensorBytes(dtype, shape)),
    };
  });
  let file = encodeSafetensors(tensors);
  if (chance(0.6)) {
    const length = Number(new DataView(file.buffer).getBigUint64(0, true));
    const json = mutateJson(JSON.parse(decoder.decode(file.subarray(8, 8 + length))), random);
    let text = JSON.stringify(json) ?? "null";
    if (chance(0.05)) text = text.replace("{", `{"t0":${deep(1 + below(5000))},`);
    const bytes = encoder.encode(text);
    const size = new Uint8Array(8);
    new DataView(size.buffer).setBigUint64(0, BigInt(bytes.length), true);
    file = Uint8Array.of(...size, ...bytes, ...file.subarray(8 + length));
  }
  if (chance(0.6)) file = mutateBytes(file, random);
  return {
    input: file,
    run() {
      const end = lengthBytes + headerLength(file.subarray(0, lengthBytes), file.byteLength, "f.safetensors");
      const { tensors: found } = parseHeader(file.subarray(lengthBytes, end), file.byteLength, "f.safetensors");
      let reached = null;
      for (const [name, { begin, end, dtype, shape }] of found) {
        if (!(
          begin <= end &&
          end <= file.length &&
          end - begin === tensorBytes(dtype, shape) &&
          (reached === null || begin === reached)
        ))
          throw new Error(`untrue header: ${name}`);
        reached = end;
      }
      if (reached !== null && reached !== file.length) throw new Error("bytes that belong to no tensor");
    },
  };
}

function indexCase(random) {
  const { below, pick, chance } = random;
  const weights = Object.fromEntries(
    Array.from({ length: below(5) }, (_, i) => [
      `w${i}`,
      pick([
        "model-00001-of-00002.safetensors",
        "a.safetensors",
        "../a.safetensors",
        "/etc/x.safetensors",
        "b.bin",
        "..",
      ]),
    ]),
  );
  let text = JSON.stringify(mutateJson({ metadata: { total_size: below(100) }, weight_map: weights }, random)) ?? "";
  if (chance(0.02)) text = deep(1 + below(20000));
  if (chance(0.5)) text = decoder.decode(mutateBytes(encoder.encode(text), random));
  return {
    input: encoder.encode(text),
    run() {
      for (const file of parseIndex(text, "i.json").values())
        if (/[/\\]|^\.\.$/.test(file)) throw new Error(`leaves the folder: ${file}`);
    },
  };
}

function configCase(random) {
  const { pick, chance } = random;
  let value = JSON.parse(pick(configs));
  for (let i = 0; i < (chance(0.3) ? 2 : 1); i++) value = mutateJson(value, random);
  let text = JSON.stringify(value) ?? "null";
  if (chance(0.1)) text = decoder.decode(mutateBytes(encoder.encode(text), random));
  let parsed;
  try {
    parsed = JSON.parse(text);
  } catch {
    // The reader of JSON files says so before any config is looked at.
    parsed = text;
  }
  return {
    input: encoder.encode(text),
    run() {
      const spec = specFromConfig(parsed, "config.json");
      // A config may ask for a large model; its slots are not counted here then.
      if (spec.layers.length > 200 || spec.layers.some(({ ffn }) => ffn.kind === "moe" && ffn.experts > 1000)) return;
      for (const { key, shape } of slotsOf(spec)) {
        if (!shape.every((size) => Number.isSafeInteger(size) && size > 0)) throw new Error(`slot ${key} [${shape}]`);
      }
    },
  };
}

const archive = new Uint8Array(readFileSync(join(golden, "pickled/tensors.bin")));

function archiveCase(random) {
  const { below, pick, chance } = random;
  const bytes = archive.slice();
  const places = [
    [0, 100],
    [64, 2300],
    [archive.length - 2400, archive.length],
  ];
  for (let i = 1 + below(6); i > 0; i--) {
    const [from, to] = pick(places);
    bytes[from + below(to - from)] = chance(0.25) ? pick([0, 1, 0x7f, 0x80, 0xff, 0x22, 0x7b, 0x2e]) : below(256);
  }
  const file = chance(0.1) ? bytes.subarray(0, below(bytes.length)) : bytes;
  const source = {
    path: "case.bin",
    size: file.length,
    close: async () => undefined,
    async read(offset, length) {
      if (!(offset >= 0 && length >= 0 && offset + length <= file.length))
        throw new Error(`reads ${offset} to ${offset + length} of ${file.length}`);
      return file.slice(offset, offset + length);
    },
  };
  return {
    input: file,
    async run() {
      for (const [, tensor] of await pickledTensors(source, "case.bin")) {
        const { shape, bytes: size } = tensor;
        if (size > file.length) throw new Error(`a tensor of ${size} bytes in a file of ${file.length}`);
        await tensor.read(
          0,
          shape.reduce((a, b) => a * b, 1),
        );
      }
    },
  };
}

/** Files of a checkpoint of Megatron-Core: its metadata, its common values, and one item of its shard. */
const save = join(golden, "megatron/dense-0.14/iter_0000012");
const metadata = new Uint8Array(readFileSync(join(save, ".metadata")));
const common = new Uint8Array(readFileSync(join(save, "common.pt")));
const { offset, length } = [...parseDcpMetadata(metadata, "m").tensors.values()][0].chunks[0];
const item = new Uint8Array(readFileSync(join(save, "__0_0.distcp")).subarray(offset, offset + length));

const latin = (text) => [...text].map((letter) => letter.charCodeAt(0));
const u32 = (value) => [value & 255, (value >>> 8) & 255, (value >>> 16) & 255, value >>> 24];
/** Pieces of pickles that ask for code to be run, files to be read, or memory that their bytes do not explain. */
const snippets = [
  latin("cos\nsystem\n"),
  latin("cbuiltins\neval\n"),
  latin("cbuiltins\ngetattr\n"),
  latin("cio\nopen\n"),
  latin("ctorch.distributed.checkpoint.metadata\nMetadata\n"),
  latin("ctorch\nSize\n"),
  latin("ccollections\nOrderedDict\n"),
  latin("S'touch /tmp/upcycle-was-here'\n"),
  latin("S'__proto__'\n"),
  latin("I99999999999\n"),
  // A short and a long text, bytes, a frame and a place in the memo, of lengths that are not there.
  [0x8c, 200],
  [0x58, ...u32(0x7fffffff)],
  [0x42, ...u32(0xffffffff)],
  [0x8d, ...u32(0xffffffff), ...u32(0x000fffff)],
  [0x95, ...u32(0xffffffff), ...u32(0x7fffffff)],
  [0x72, ...u32(0xfffffff0)],
  [0x6a, ...u32(0xfffffff0)],
  // Long integers, an empty tuple, dict, list and set, a mark, and what makes objects of them.
  [0x8b, ...u32(0x7fffffff)],
  [0x8a, 255],
  ...[0x29, 0x7d, 0x5d, 0x8f, 0x28, 0x74, 0x85, 0x86, 0x87, 0x52, 0x81, 0x62, 0x93, 0x75, 0x73, 0x65, 0x61, 0x90].map(
    (one) => [one],
  ),
  ...[0x94, 0x30, 0x31, 0x32, 0x51, 0x4e, 0x88].map((one) => [one]),
  [0x71, 0],
  [0x68, 0],
];

/** A pickle of such pieces, in front of a true one, behind it, or alone. */
function wickedPickle({ below, pick, chance }) {
  const made = Array.from({ length: 1 + below(40) }, () => pick(snippets)).flat();
  const nested = chance(0.1) ? new Array(1 + below(20000)).fill(pick([0x28, 0x5d, 0x7d, 0x29])) : [];
  const head = chance(0.8) ? [0x80, pick([2, 4, 5])] : [];
  const rest = chance(0.3) ? metadata.subarray(2) : Uint8Array.of(0x2e);
  return Uint8Array.from([...head, ...nested, ...made, ...rest]);
}

function megatronCase(random) {
  const { below, pick, chance } = random;
  const whole = pick([metadata, metadata, common, item]);
  const bytes = whole === metadata && chance(0.4) ? wickedPickle(random) : whole.slice();
  for (let i = 1 + below(6); i > 0; i--)
    bytes[below(bytes.length)] = chance(0.3)
      ? pick([0, 1, 0x52, 0x62, 0x81, 0x93, 0x94, 0x28, 0x2e, 0xff])
      : below(256);
  const file = chance(0.1) ? bytes.subarray(0, below(bytes.length)) : bytes;
  const source = {
    path: "case.distcp",
    size: file.length,
    close: async () => undefined,
    async read(from, count) {
      if (!(from >= 0 && count >= 0 && from + count <= file.length))
        throw new Error(`reads ${from} to ${from + count} of ${file.length}`);
      return file.slice(from, from + count);
    },
  };
  return {
    input: file,
    async run() {
      if (whole === metadata) {
        for (const [key, { shape, chunks }] of parseDcpMetadata(file, "case").tensors) {
          if (chunks.length > file.length) throw new Error(`${key} has ${chunks.length} chunks`);
          if (shape.some((size) => !(size >= 0))) throw new Error(`${key} has shape ${shape}`);
        }
        return;
      }
      const archive = await openTorchItem(source);
      const tensor = tensorOf(archive.value);
      if (tensor === null) return;
      const count = tensor.shape.reduce((a, b) => a * b, 1);
      if (count < 1e6) await archive.read(tensor, 0, count);
    },
  };
}

/** Whole saves: `common.pt` beside the shards, and as an object in them. */
const saves = ["dense-0.14/iter_0000012", "dense/iter_0000012", "superset-moe/release"].map((name) => {
  const files = Object.fromEntries(
    readdirSync(join(golden, "megatron", name)).map((file) => [
      file,
      new Uint8Array(readFileSync(join(golden, "megatron", name, file))),
    ]),
  );
  return { files, metadata: parseDcpMetadata(files[".metadata"], name) };
});
const work = mkdtempSync(join(existsSync("/dev/shm") ? "/dev/shm" : tmpdir(), "upcycle-fuzz-"));
process.on("exit", () => rmSync(work, { recursive: true, force: true }));

const names = [
  "../secret",
  "/etc/passwd",
  "..",
  "",
  ".metadata",
  "common.pt",
  "__0_0.distcp",
  "a\u0000b",
  "..\\secret",
  "%2e%2e/secret",
  "C:\\secret",
];
const sizes = [0, 1, 2, 3, 64, 2 ** 31, 2 ** 32, 2 ** 40, 2 ** 53];

/** An item of a checkpoint, somewhere else. */
function moved(item, { below, pick, chance }) {
  return {
    ...item,
    file: chance(0.5) ? pick(names) : item.file,
    offset: chance(0.3) ? pick(sizes) : item.offset + (chance(0.3) ? below(200) : 0),
    length: chance(0.3) ? pick(sizes) : item.length,
  };
}

/** What a tensor is said to be, otherwise. */
function misdescribed({ dtype, shape, chunks }, random) {
  const { below, pick, chance } = random;
  const other = (list) => list.map((size) => (chance(0.2) ? pick(sizes) : size));
  return {
    dtype: chance(0.2) ? pick(["F32", "BF16", "F16", "I64", "U8"]) : dtype,
    shape: chance(0.3) ? other(shape) : shape,
    chunks: chunks.flatMap((chunk) => {
      const one = chance(0.3) ? { ...chunk, offsets: other(chunk.offsets), sizes: other(chunk.sizes) } : chunk;
      return new Array(chance(0.1) ? below(4) : 1).fill(chance(0.2) ? moved(one, random) : one);
    }),
  };
}

/** A whole folder on the disk, of whose files one is wrong. */
function folderCase(random) {
  const { below, pick, chance } = random;
  const { files, metadata: whole } = pick(saves);
  const tensors = new Map(
    [...whole.tensors].map(([key, tensor]) => [key, chance(0.05) ? misdescribed(tensor, random) : tensor]),
  );
  const objects = new Map([...whole.objects].map(([key, item]) => [key, chance(0.05) ? moved(item, random) : item]));
  const written = writeDcpMetadata({ tensors, objects });
  const changed = {};
  if (chance(0.8)) changed[".metadata"] = chance(0.3) ? mutated(written, random) : written;
  if (files["common.pt"] !== undefined && chance(0.3)) {
    const wicked = archiveOf(new Map([["args", wickedArguments(random)]]), crc32);
    changed["common.pt"] = chance(0.5) ? wicked : mutated(files["common.pt"], random);
  }
  const [shard] = Object.keys(files).filter((name) => name.endsWith(".distcp"));
  if (chance(0.2)) changed[shard] = mutated(files[shard], random);
  if (chance(0.05)) changed[shard] = files[shard].subarray(0, below(files[shard].length));
  const folder = join(work, "release");
  return {
    input: changed[".metadata"] ?? written,
    async run() {
      mkdirSync(folder, { recursive: true });
      for (const [name, bytes] of Object.entries({ ...files, ...changed })) fs.writeFileSync(join(folder, name), bytes);
      allowed = folder;
      try {
        const checkpoint = await openCheckpoint(folder);
        try {
          // A few of its weights: every box of every tensor would be slow.
          for (const { key } of slotsOf(checkpoint.spec).slice(0, 12)) await checkpoint.readBytes(key);
        } finally {
          await checkpoint.close();
        }
      } finally {
        allowed = null;
      }
    },
  };
}

function mutated(bytes, { below, pick, chance }) {
  const out = bytes.slice();
  for (let i = 1 + below(6); i > 0; i--)
    out[below(out.length)] = chance(0.3) ? pick([0, 1, 0x52, 0x62, 0x81, 0x93, 0x94, 0x28, 0x2e, 0xff]) : below(256);
  return out;
}

/** Settings that ask for large or absurd models. */
function wickedArguments({ pick, chance }) {
  const numbers = [-1, 0, 1, 2, 7, 64, 2 ** 20, 2 ** 31 - 1, "x", null, true];
  const settings = [
    ["num_layers", 2],
    ["hidden_size", 64],
    ["num_attention_heads", 4],
    ["num_query_groups", 2],
    ["ffn_hidden_size", 96],
    ["max_position_embeddings", 64],
    ["padded_vocab_size", 128],
    ["num_experts", null],
    ["moe_layer_freq", 1],
    ["kv_channels", 16],
  ].map(([name, value]) => [name, chance(0.2) ? pick(numbers) : value]);
  const patterns = ["([1]*9999+[0]*9999)*9999", "__import__('os').system('x')", "[1]*2"];
  return new Map(
    /** @type {[string, any][]} */ ([
      ...settings,
      ["position_embedding_type", "rope"],
      ["moe_layer_freq", pick(patterns)],
    ]),
  );
}

const kinds = {
  safetensors: safetensorsCase,
  index: indexCase,
  config: configCase,
  archive: archiveCase,
  megatron: megatronCase,
  "megatron folder": folderCase,
};
const counts = Object.fromEntries(Object.keys(kinds).map((kind) => [kind, { cases: 0, values: 0, refused: 0 }]));
if (flags.only !== undefined && kinds[flags.only] === undefined)
  throw new Error(`--only ${flags.only} is none of ${Object.keys(kinds).join(", ")}`);
/** Cheap kinds and those with many branches oftener. */
const mixed = [
  "safetensors",
  "config",
  "index",
  "config",
  "safetensors",
  "config",
  "safetensors",
  "config",
  "index",
  "archive",
  "megatron",
];
/** Files of a checkpoint one by one, and whole folders. */
const ofMegatron = [...new Array(15).fill("megatron"), "megatron folder"];
const order = flags.only === undefined ? mixed : flags.only === "megatron" ? ofMegatron : [flags.only];
const total = Number(flags.cases);
const began = new Date();
let slowest = { ms: 0 };
let peak = 0;
let mostBuffers = 0;
watchSystem();
for (let number = 0; number < total; number++) {
  const kind = order[number % order.length];
  const one = kinds[kind](drawer(number));
  counts[kind].cases++;
  forbidden = null;
  const before = process.memoryUsage().arrayBuffers;
  const start = performance.now();
  let problem = null;
  try {
    await one.run();
    counts[kind].values++;
  } catch (error) {
    if (error instanceof UpcycleError && error.kind === "input" && !error.line.includes("\n")) counts[kind].refused++;
    else problem = error instanceof Error ? error.stack : String(error);
  }
  const ms = performance.now() - start;
  const buffers = process.memoryUsage().arrayBuffers - before;
  mostBuffers = Math.max(mostBuffers, buffers);
  if (buffers > MOST_BUFFERS) problem ??= `${(buffers / 1e6).toFixed(0)} MB of buffers`;
  problem = forbidden ?? problem;
  if (ms > slowest.ms) slowest = { ms, number, kind };
  if (ms > SLOWEST_MS) problem ??= `took ${ms.toFixed(0)} ms`;
  if (number % 500 === 0) {
    peak = Math.max(peak, process.memoryUsage().rss);
    if (peak > MOST_RSS) problem ??= `resident set of ${(peak / 1e6).toFixed(0)} MB`;
  }
  if (problem !== null) {
    console.error(
      `case ${number} of seed ${flags.seed} (${kind}): ${problem}\n${decoder.decode(one.input).slice(0, 4000)}`,
    );
    process.exit(1);
  }
  if (number % 50_000 === 49_999) process.stderr.write(`${number + 1} cases\n`);
}
const report = {
  date: began.toISOString(),
  seconds: (Date.now() - began.getTime()) / 1000,
  seed: flags.seed,
  hardware: {
    cpu: cpus()[0].model.trim(),
    cores: cpus().length,
    memoryBytes: totalmem(),
    system: `${platform()} ${release()}`,
  },
  versions: { upcycle: toolVersion, node: process.versions.node },
  cases: total,
  ...counts,
  slowest,
  peakRssBytes: peak,
  largestBuffersOfACase: mostBuffers,
  heapLimitMB: HEAP_MB,
  failures: 0,
};
console.log(JSON.stringify(report, null, 1));
const file =
  flags.out ??
  here(`results/${began.toISOString().slice(0, 10)}-fuzz${flags.only === undefined ? "" : `-${flags.only}`}.json`);
if (file !== "-") {
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, `${JSON.stringify(report, null, 1)}\n`);
}
