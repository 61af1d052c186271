/**
 * Measures what it costs that every tokenizer runs in a process of its own: `node bench/tokenizer.mjs [ROUNDS]` (after
 * npm run build).
 *
 * The corpora that the package includes are encoded in turns by such a process and by the library in this process. The
 * script also times opening a tokenizer and encoding a first short text. It prints medians of ROUNDS rounds (5 if not
 * given) and their ratio as JSON.
 */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { cpus, loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { Tokenizer } from "tokenizers";
import { builtinCorpora, readDocuments } from "../dist/text/documents/corpus.js";
import { openTokenizer } from "../dist/text/tokenizer/load.js";
import { trainByteLevelBpe } from "../dist/text/tokenizer/train.js";

const rounds = Number(process.argv[2] ?? 5);
const BATCH_UNITS = 1 << 20;

const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];

async function timed(work) {
  const start = performance.now();
  const tokens = await work();
  return { ms: performance.now() - start, tokens };
}

async function readTexts() {
  const texts = [];
  for (const builtin of builtinCorpora) for await (const { text } of readDocuments({ builtin })) texts.push(text);
  return texts;
}

/** As `encodeAll` did it before there was a process: a batch of about a megabyte at a time. */
async function encodeHere(tokenizer, texts) {
  let [tokens, batch, units] = [0, [], 0];
  const flush = async () => {
    const found = await tokenizer.encodeBatch(batch, { addSpecialTokens: false });
    for (const encoding of found) tokens += Int32Array.from(encoding.getIds()).length;
    [batch, units] = [[], 0];
  };
  for (const text of texts) {
    batch.push(text);
    units += text.length;
    if (units >= BATCH_UNITS) await flush();
  }
  if (batch.length > 0) await flush();
  return tokens;
}

async function encodeThere(tokenizer, texts) {
  let tokens = 0;
  for await (const ids of tokenizer.encodeAll(texts)) tokens += ids.length;
  return tokens;
}

async function openHere(folder) {
  const json = await readFile(join(folder, "tokenizer.json"), "utf8");
  return encodeHere(Tokenizer.fromString(json), ["hello"]);
}

async function openThere(folder) {
  const tokenizer = await openTokenizer(folder);
  const tokens = await encodeThere(tokenizer, ["hello"]);
  return { tokens, close: () => tokenizer.close() };
}

const folder = await mkdtemp(join(tmpdir(), "upcycle-bench-"));
const texts = await readTexts();
try {
  await writeFile(join(folder, "tokenizer.json"), await trainByteLevelBpe(texts, { vocab: 8192 }));
  const here = Tokenizer.fromString(await readFile(join(folder, "tokenizer.json"), "utf8"));
  const there = await openTokenizer(folder);
  const ms = { corpusHere: [], corpusThere: [], openHere: [], openThere: [] };
  // The first round is left out: both fill their caches in it.
  for (let round = 0; round <= rounds; round++) {
    const a = await timed(() => encodeHere(here, texts));
    const b = await timed(() => encodeThere(there, texts));
    if (a.tokens !== b.tokens) throw new Error(`${a.tokens} tokens here, ${b.tokens} there`);
    const c = await timed(() => openHere(folder));
    const d = await timed(() => openThere(folder));
    await d.tokens.close();
    if (round === 0) continue;
    Object.entries({ corpusHere: a, corpusThere: b, openHere: c, openThere: d }).forEach(([k, v]) => ms[k].push(v.ms));
  }
  await there.close();
  const medians = Object.fromEntries(Object.entries(ms).map(([name, values]) => [name, median(values)]));
  const system = { cpu: cpus()[0].model, cores: cpus().length, load: loadavg()[0] };
  const ratio = medians.corpusThere / medians.corpusHere;
  const characters = texts.reduce((sum, text) => sum + text.length, 0);
  const found = {
    date: new Date().toISOString(),
    system,
    node: process.versions.node,
    characters,
    rounds,
    medians,
    ratio,
    ms,
  };
  console.log(JSON.stringify(found, null, 1));
} finally {
  await rm(folder, { recursive: true, force: true });
}
