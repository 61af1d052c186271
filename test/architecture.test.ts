/**
 * Holds the layout that docs/architecture.md describes: which room may import which, which rooms touch the world, and
 * which files know a model family by name.
 */
import { readdirSync, readFileSync } from "node:fs";
import { builtinModules } from "node:module";
import { dirname, join, posix } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { families, ownFamily } from "../src/model/decoder/types.js";

interface Room {
  readonly name: string;
  /** Sub-rooms in the order in which they may import each other; "." is the room's own folder. */
  readonly parts: readonly string[];
  /** Parts that do no IO: no `node:*`, no clock, no `Math.random`, no `process`. */
  readonly pure: readonly string[];
}

/** From the bottom to the top: a file imports from its own sub-room and from those listed before it. */
const rooms: readonly Room[] = [
  { name: "base", parts: [".", "schemas"], pure: [".", "schemas"] },
  {
    name: "model",
    parts: ["decoder", "tensors", "cost", "results"],
    pure: ["decoder", "tensors", "cost", "results"],
  },
  { name: "files", parts: ["numeric", "formats", "io", "checkpoint", "hub"], pure: ["numeric", "formats"] },
  { name: "text", parts: ["tokens", "documents", "tokenizer", "prepare"], pure: ["tokens"] },
  {
    name: "graph",
    parts: ["ir", "grad", "nn", "onnx", "programs"],
    pure: ["ir", "grad", "nn", "onnx", "programs"],
  },
  {
    name: "engine",
    parts: ["runtime", "optimizer", "routing", "cache", "onnxruntime", "interpreter", "cuda/lowering", "cuda"],
    pure: ["runtime", "optimizer", "routing", "cuda/lowering"],
  },
  { name: "evals", parts: ["tasks", ".", "scoring", "suite"], pure: ["tasks"] },
  { name: "surgery", parts: ["planning", "calibration", "convert"], pure: ["planning"] },
  { name: "train", parts: ["."], pure: [] },
  {
    name: "laws",
    parts: ["forms", "solvers", "fitting", "planner", "points"],
    pure: ["forms", "solvers", "fitting", "planner"],
  },
  { name: "experts", parts: ["measures", "."], pure: ["measures"] },
  {
    name: "report",
    parts: ["page", "study", "laws", "plan", "evals", "experts"],
    pure: ["page", "study", "laws", "plan", "evals", "experts"],
  },
  { name: "cluster", parts: ["plan", "logs", "run"], pure: ["plan", "logs"] },
  { name: "study", parts: ["."], pure: [] },
  { name: "studio", parts: ["data", "folders", "server", "page"], pure: ["data"] },
  { name: "cli", parts: ["."], pure: [] },
];
const order = rooms.flatMap(({ name, parts }) => parts.map((part) => (part === "." ? name : `${name}/${part}`)));
const pure = new Set(
  rooms.flatMap(({ name, pure: parts }) => parts.map((part) => (part === "." ? name : `${name}/${part}`))),
);

/** Packages that one sub-room alone may import, so that another can take their place. */
const onlyImporter: Readonly<Record<string, string>> = {
  "onnxruntime-node": "engine/onnxruntime",
  koffi: "engine/cuda",
  tokenizers: "text/tokenizer",
  "@huggingface/hub": "files/hub",
};
/** Backends are chosen above: everything else speaks to `engine/runtime`. A study names the engine's version. */
const backends = ["engine/onnxruntime", "engine/interpreter", "engine/cuda"];
const choosers = ["study", "cli"];
const impure = /\bDate\.now\b|\bnew Date\s*\(\s*\)|\bMath\.random\b|\bprocess\.\w|\bperformance\.now\b/;

/**
 * Files outside `model/decoder` and `model/tensors` that may name a family: everything else asks the decoder
 * description for a property. Our own format is left out, since its family has the project's name.
 */
const familyFiles: Readonly<Record<string, string>> = {
  "base/schemas/blocks.ts": "which families a new dense model can be of",
  "laws/planner/shape.ts": "a label on the description of a shape that is only counted",
  "surgery/planning/choose-dense.ts": "in which order dense families are tried for a merged model",
  "surgery/planning/mergekit.ts": "what mergekit calls the architectures that it writes",
  "surgery/planning/recipe.ts": "which families are targets, in order of preference",
  "surgery/planning/serving.ts": "which other programs load a target",
  "surgery/planning/survey.ts": "which families are no targets, and why",
  "surgery/planning/targets.ts": "how each target routes, and what brings a decoder into its form",
  "surgery/planning/trainers.ts": "which programs train from the folder of a target",
};

const root = fileURLToPath(new URL("../src", import.meta.url));
const files = readdirSync(root, { recursive: true, encoding: "utf8" })
  .map((file) => file.replaceAll("\\", "/"))
  .filter((file) => /\.tsx?$/.test(file));
const isNode = (name: string): boolean => name.startsWith("node:") || builtinModules.includes(name);

/** The sub-room that a file lies in, folders within it included; undefined for `index.ts`, which is outside of all. */
function roomOf(file: string): string | undefined {
  const folder = dirname(file);
  if (folder === ".") return undefined;
  return (
    order.filter((name) => folder === name || folder.startsWith(`${name}/`)).sort((a, b) => b.length - a.length)[0] ??
    folder
  );
}

function codeOf(file: string): string {
  return readFileSync(join(root, file), "utf8").replace(/\/\*[\s\S]*?\*\/|^\s*\/\/.*$/gm, "");
}

/** Module names that the code imports, types included. */
function importsOf(code: string): string[] {
  return [...code.matchAll(/(?:\bfrom|\bimport|\brequire)\s*\(?\s*["']([^"']+)["']/g)].map(([, name]) => name ?? "");
}

/** What is wrong with an import of another file of ours. */
function ownBreaches(file: string, name: string): string[] {
  const room = roomOf(file);
  const other = roomOf(posix.join(dirname(file), name));
  if (!name.endsWith(".js")) return [`imports ${name} without .js`];
  if (room === undefined) return other === "cli" ? [`imports ${name} of the command line`] : [];
  if (other === undefined) return [`imports ${name}, the library's surface`];
  if (room === other) return [];
  const breaches = order.indexOf(other) < order.indexOf(room) ? [] : [`imports ${name}, which is not below ${room}`];
  return backends.includes(other) && !choosers.includes(room) ? [...breaches, `imports ${name}, a backend`] : breaches;
}

/** What is wrong with an import of a package or of Node's own modules. */
function foreignBreaches(file: string, name: string): string[] {
  const room = roomOf(file);
  const only = onlyImporter[name];
  return [
    ...(room !== undefined && pure.has(room) && isNode(name) ? [`imports ${name}, which ${room} may not`] : []),
    ...(only !== undefined && only !== room ? [`imports ${name}, which only src/${only} may`] : []),
  ];
}

/** Families that the code names, as a string or as the key of an object. */
function familiesIn(code: string): string[] {
  const names = families.filter((family) => family !== ownFamily).join("|");
  const literals = new RegExp(`["'\`](${names})["'\`]|^\\s*(${names}):`, "gm");
  return [...new Set([...code.matchAll(literals)].map(([, literal, key]) => literal ?? key ?? ""))];
}

/** What is wrong with one file, in words. */
function breaches(file: string): string[] {
  const room = roomOf(file);
  if (room !== undefined && !order.includes(room)) return [`${room} is no room`];
  const code = codeOf(file);
  const touched = impure.exec(code)?.[0];
  return [
    ...(touched !== undefined && room !== undefined && pure.has(room)
      ? [`uses ${touched}, which ${room} may not`]
      : []),
    ...importsOf(code).flatMap((name) =>
      name.startsWith(".") ? ownBreaches(file, name) : foreignBreaches(file, name),
    ),
  ];
}

/** Files that import each other in a circle, as one of its paths; types count too: a reader follows them alike. */
function circles(): string[] {
  const imports = new Map(
    files.map((file) => [
      file,
      importsOf(codeOf(file))
        .filter((name) => name.startsWith("."))
        .map((name) => posix.join(dirname(file), name).replace(/\.js$/, ".ts"))
        .map((name) => (files.includes(name) ? name : `${name}x`)),
    ]),
  );
  const found: string[] = [];
  const done = new Set<string>();
  const visit = (file: string, path: readonly string[]): void => {
    if (path.includes(file)) found.push([...path.slice(path.indexOf(file)), file].join(" -> "));
    if (path.includes(file) || done.has(file)) return;
    for (const next of imports.get(file) ?? []) visit(next, [...path, file]);
    done.add(file);
  };
  for (const file of files) visit(file, []);
  return found;
}

describe("architecture", () => {
  it.each(files)("src/%s imports only what lies below its room", (file) => {
    expect(breaches(file)).toEqual([]);
  });

  it("no files import each other in a circle", () => {
    expect(circles()).toEqual([]);
  });

  it("only the listed files outside model/decoder and model/tensors name a family", () => {
    const naming = files.filter(
      (file) => !["model/decoder", "model/tensors"].includes(roomOf(file) ?? "") && familiesIn(codeOf(file)).length > 0,
    );
    expect(naming.sort()).toEqual(Object.keys(familyFiles));
  });
});
