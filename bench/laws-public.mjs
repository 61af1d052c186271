/**
 * Makes the tables that test/laws/published.test.ts compares with published numbers, from local clones of the public
 * repositories that hold the measurements:
 *
 *   git clone https://github.com/huggingface/datablations
 *   git clone https://github.com/mlfoundations/scaling
 *   git clone https://github.com/Open-Athena/scaling-law-analysis
 *   node bench/laws-public.mjs --datablations datablations --scaling scaling --isoflops scaling-law-analysis --out DIR
 *   UPCYCLE_LAW_DATA=$PWD/DIR npx vitest run test/laws/published.test.ts
 *
 * One clone is enough for its own table. Files are read as they were at the commits below, whatever is checked out, so
 * that the tables come out the same. They belong to their authors and are not part of this project.
 */
import { execFileSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";

const { values: flags } = parseArgs({
  options: {
    datablations: { type: "string" },
    scaling: { type: "string" },
    isoflops: { type: "string" },
    out: { type: "string" },
  },
});

/** A file, or the names in a folder, of a clone at a commit. */
const git = (clone, ...words) => execFileSync("git", ["-C", clone, ...words], { encoding: "utf8", maxBuffer: 2 ** 28 });
/** A number as Python writes a float. */
const float = (value) => (Number.isInteger(value) ? `${value}.0` : String(value));

/**
 * Muennighoff et al. 2023: the 182 runs that their final fit keeps. Names of runs hold parameters, tokens, and unique
 * tokens, such as 2b855b9b; dictionaries of the same notebook give their sizes, those of tokens in billions.
 */
function muennighoff(clone) {
  const commit = "13701315b163f1c54642b94ad237b2699187c3ee";
  const notebook = JSON.parse(git(clone, "show", `${commit}:utils/parametric_fit.ipynb`));
  const cell = notebook.cells[25].source.join("");
  const dictionary = (name) => {
    const body = cell.slice(cell.indexOf(`${name} = {`));
    const lines = body.slice(0, body.indexOf("\n}")).split("\n");
    return new Map(
      lines.flatMap((line) => {
        const entry = /^\s*"(\w+)":\s*([\d.eE+-]+)/.exec(line);
        return entry === null ? [] : [[entry[1], Number(entry[2])]];
      }),
    );
  };
  const [losses, tokens, sizes] = ["NAMES_TO_VAL_LOSSES", "TOKENS_MAP", "PARAMS_MAP"].map(dictionary);
  const count = (word) => (tokens.get(word) ?? Number(word.replaceAll("b", ".").replace(/^\.+|\.+$/g, ""))) * 1e9;
  const rows = [...losses].flatMap(([name, loss]) => {
    if (loss === 0 || name.endsWith("dedup")) return [];
    let from = 2;
    while (!sizes.has(name.slice(0, from))) from += 1;
    // The unique tokens are the last word that names one unit only.
    let unique = name.slice(/[bm]$/.test(name) || !/[bm].$/.test(name) ? -4 : -3);
    while ((unique.match(/b/g) ?? []).length > 1 || (unique.match(/m/g) ?? []).length > 1) unique = unique.slice(1);
    const trained = name.slice(from, name.length - unique.length);
    return [[sizes.get(name.slice(0, from)), count(trained), count(unique), loss].map(float)];
  });
  return ["muennighoff-182.csv", ["N", "D", "U", "loss"], rows];
}

/** Gadre et al. 2024: the loss on C4's validation set of every model of their grid. */
function gadre(clone) {
  const commit = "a003c4913793ac2ae7ef87b28ecb562955d026d5";
  const folder = "exp_data/models/";
  const names = git(clone, "ls-tree", "--name-only", commit, folder).trim().split("\n").sort();
  const rows = names.map((name) => {
    const text = git(clone, "show", `${commit}:${name}`);
    const { dataset_name: dataset, hyperparameters: settings, results } = JSON.parse(text);
    const { params, tokens, model } = settings;
    // As it stands: some are written 4, some 4.0.
    const [, multiplier] = /"chinchilla_multiplier": ([\d.]+)/.exec(text);
    const { loss } = results.find(({ val_data: [first] }) => first.includes("c4_val"));
    return [
      dataset,
      model
        .split("/")
        .at(-1)
        .replace(/\.json$/, ""),
      multiplier,
      params,
      tokens,
      float(loss),
    ];
  });
  return ["gadre-c4-eval.csv", ["dataset", "model", "multiplier", "N", "D", "loss"], rows];
}

/** Llama 3's IsoFLOP curves, as Open Athena read them off the figure of its report. */
function llama(clone) {
  const commit = "3e0656ee3dce1a2c89aa67691920f5eb9d30f0fc";
  const text = git(clone, "show", `${commit}:data/isoflops/extract/llama_3/isoflops.csv`);
  const [head, ...lines] = text
    .trim()
    .split("\n")
    .map((line) => line.split(","));
  const wanted = ["tokens", "params", "budget", "loss", "experiment"];
  const rows = lines.map((cells) => wanted.map((name) => cells[head.indexOf(name)]));
  return ["llama3-isoflops.csv", wanted, rows.filter((cells) => cells.at(-1) === "llama_3__raw_loss")];
}

const makers = { datablations: muennighoff, scaling: gadre, isoflops: llama };
const wanted = Object.keys(makers).filter((name) => flags[name] !== undefined);
if (flags.out === undefined || wanted.length === 0)
  throw new Error("say where a clone is (--datablations, --scaling, --isoflops), and --out FOLDER for the tables");
mkdirSync(flags.out, { recursive: true });
for (const name of wanted) {
  const [file, head, rows] = makers[name](flags[name]);
  writeFileSync(join(flags.out, file), [head, ...rows].map((cells) => `${cells.join(",")}\n`).join(""));
  console.log(`${file}: ${rows.length} rows`);
}
