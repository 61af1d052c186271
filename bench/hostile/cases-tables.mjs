/** Formulas, tables of losses and YAML files. */
import { gzipSync } from "node:zlib";
import { studyFile, trainFile } from "./box.mjs";

const fit = (b, law, ...more) => (b.copy("f.csv"), ["fit", "f.csv", "--law", law, ...more]);
const long = (n) => `E*N+${"N+".repeat(n)}N`;
const refused = [
  "E+A/(N-N)", "E+A*N^(-a)+1e999", "E+constructor*N^(-alpha)", "E+exp(exp(exp(exp(N))))", "__proto__+A*N^-a", "E+A*ln(0-N)", "A*N^-a-1e9", "E+A*ln(N-1e7)", "toString*N^-a+E", "hasOwnProperty^N+A", "E+A*N^-a+sqrt(-1)", "E/(A-A)+N", "E+A*valueOf(N)", "", " ", "N", "E", "A*B", "E+A*N^", "E+(A*N", "E+A*N^-a)",
  "E;process.exit()", "E+A*N^-a\nB", "E+A*N^-a\u001b[2J", "E + A*N^-a // x", "require('fs')", "E+A*N^--------", "E+sin(N)", "E+A×N", "1..2*N+A", "0x10*N+A", "E+A*N**2", "L=L=E+A*N^-a", "${E}+A*N^-a", "E+A*N^-a+Ω", "a".repeat(100_000), long(2000), long(60_000), `${"(".repeat(1000)}N${")".repeat(1000)}`, `${"(".repeat(100_000)}N+A`, `${"-".repeat(100_000)}N+A`,
  `E+${Array.from({ length: 500 }, (_, i) => `a${i}*N^-b${i}`).join("+")}`, `E+${Array.from({ length: 30 }, (_, i) => `a${i}*N^-b${i}`).join("+")}`, `N${"^N".repeat(1500)}+A`,
];
const accepted = ["E+A^N", "E+A*N^-a", "L = E + A * N^-alpha + B * D^-beta", "E+A*N^-a+0*D", "E+A*(0*N)^a", "E-A*ln(N)", long(300), "_+__*N^-___", "E+A*N^-a+1e-999"];
const formulas = [
  ...refused.map((law, i) => ({ name: `formulas: ${JSON.stringify(law).slice(0, 50)}${law.length > 48 ? ` (${i})` : ""}`, expect: [2], make: (b) => fit(b, law) })),
  ...accepted.map((law) => ({ name: `formulas: accepted ${JSON.stringify(law).slice(0, 50)}`, expect: [0], make: (b) => fit(b, law, "--json") })),
  ...[["--start", "A=1e999"], ["--start", "constructor=1"], ["--start", "__proto__=1"], ["--start", "A"], ["--start", "=5"], ["--predict", "constructor=1,N=1e9"], ["--predict", "__proto__=1"], ["--predict", "N=0"], ["--predict", "N=1e999"], ["--predict", "N=-5"], ["--predict", ""], ["--compare", "E+A/(N-N)"], ["--compare", "__proto__"], ["--columns", "constructor=N"],
    ["--columns", "__proto__=N"], ["--columns", "N=toString*2"], ["--columns", "N=N/(D-D)"], ["--columns", "N=1e999*N"], ["--columns", `N=${"(".repeat(5000)}N`], ["--columns", "N"], ["--columns", "N=N,N=D"], ["--cluster", "__proto__"], ["--cluster", "constructor"], ["--level", "1"], ["--delta", "0"], ["--max-loss", "1e-9"], ["--bootstrap", "1e9"], ["--loss", "__proto__"]].map(([option, value], i) => ({
    more: i % 2 === 1, name: `formulas: ${option} ${value.slice(0, 40)}`, expect: [0, 2], make: (b) => fit(b, "E+A*N^-a", option, value),
  })),
];

const rows = "1e8,1e9,3\n1e9,1e10,2.5\n";
const tables = {
  "nothing": "", "a heading alone": "N,D,loss\n", "no heading": rows, "a quote that is not closed": `N,D,loss\n"1e8,1e9,3\n${rows}`, "bytes of zero": Buffer.concat([Buffer.from("N,D,loss\n"), Buffer.alloc(5000), Buffer.from(rows)]), "Latin-1": Buffer.from("N,D,loss,né\n1,2,3,4\n", "latin1"), "UTF-16": Buffer.from("\ufeffN,D,loss\n", "utf16le"),
  "a line of 50 MB": `N,D,loss\n${"1".repeat(5e7)},1,2\n`, "a cell of 50 MB in quotes": `N,D,loss\n"${"x".repeat(5e7)}",1,2\n`, "a million columns": `${Array.from({ length: 1e6 }, (_, i) => `c${i}`).join(",")}\n`, "100,000 columns and a row": `N,D,loss,${Array.from({ length: 1e5 }, (_, i) => `c${i}`).join(",")}\n1,2,3${",1".repeat(1e5)}\n`,
  "a column twice": `N,N,loss\n${rows}`, "losses below zero": `N,D,loss\n1e8,1e9,-3\n${rows}`, "infinite losses": "N,D,loss\n1e8,1e9,inf\n1e9,1e9,Infinity\n1e7,1e9,1e999\n", "sizes of 1e308": `N,D,loss\n${"1e308,1e308,1e300\n2e307,1e308,1e301\n".repeat(5)}`, "sizes of 1e-308": `N,D,loss\n${"1e-308,1e-300,1e-300\n2e-307,1e-308,1e-301\n".repeat(5)}`, "the same row 100 times": `N,D,loss\n${"1e8,1e9,3\n".repeat(100)}`,
  "ragged rows": `N,D,loss\n1,2\n${rows}`, "names of Object": `N,D,loss,__proto__,constructor\n${rows.replaceAll("\n", ",1,2\n")}`, "formulas of spreadsheets": `N,D,loss\n=cmd|' /C calc'!A0,1,2\n${rows}`, "lines that end in \\r": `N,D,loss\r1,2,3\r${rows}`, "numbers with commas": "N;D;loss\n1,5;2,5;3,5\n2,5;1,5;3,1\n", "a byte order mark alone": "\ufeff",
  "JSON lines that are lists": "{\"N\":1}\n[1]\n", "JSON lines cut off": "{\"N\":1,\"D\":2,\"loss\":3}\n{\"N\":", "JSON nested a million deep": `{"N":${"[".repeat(1e6)}`, "a JSON list of nulls": "[null,null]", "a JSON list nested a million deep": "[".repeat(1e6), "JSON with __proto__": "{\"__proto__\":{\"N\":1},\"N\":1e8,\"D\":1e9,\"loss\":3}\n".repeat(6),
  "a gzip bomb": gzipSync(Buffer.alloc(400_000_000, "1,2,3\n")), "gzip cut off": gzipSync(Buffer.from(rows.repeat(100))).subarray(0, 60), "gzip in gzip": gzipSync(gzipSync(Buffer.from(`N,D,loss\n${rows}`))), "a Parquet file of nothing": "PAR1PAR1", "a Parquet file that lies": Buffer.concat([Buffer.from("PAR1"), Buffer.alloc(100, 0xff), Buffer.from([0xff, 0xff, 0xff, 0x7f]), Buffer.from("PAR1")]), "a picture": Buffer.from([0x89, 0x50, 0x4e, 0x47, 13, 10, 26, 10]),
};
const ofTables = Object.entries(tables).map(([what, content]) => ({ name: `tables: ${what}`, expect: /100 times|1e308|1e-308|names of Object|with __proto__|numbers with/.test(what) ? [0, 2] : [2], memory: 2000, make: (b) => (b.file("t.csv", content), ["fit", "t.csv", "--law", "chinchilla"]) }));

/** Files of YAML, whatever they should be. */
const bomb = ["a: &a0 [x,x,x,x,x,x,x,x,x]", ...Array.from({ length: 12 }, (_, i) => `b${i}: &a${i + 1} [${`*a${i},`.repeat(9)}]`)].join("\n");
const yamls = {
  "an anchor bomb": bomb, "an anchor of itself": "a: &x [*x]\ntraining: *x", "a tag of a function": "a: !!js/function 'function(){}'", "a tag of Python": "!!python/object/apply:os.system ['touch owned']", "merge keys": "base: &b {out: run}\n<<: *b\n", "an unknown anchor": "a: *nothing", "nothing": "", "a word": "hello", "a list": "- a\n- b", "null": "null", "two documents": "a: 1\n---\nb: 2\n", "tabs": "training:\n\tsteps: 5\n",
  "a key twice": "out: a\nout: b\n", "bytes of zero": Buffer.alloc(100), "Latin-1": Buffer.from("name: né\n", "latin1"), "nested 100,000 deep": "[".repeat(1e5), "nested 100,000 deep in blocks": Array.from({ length: 2000 }, (_, i) => `${" ".repeat(i)}a:`).join("\n"), "a key of __proto__": "__proto__: {out: run}\nconstructor: x\n", "a key with escape sequences": "\"\\e[2J\\nupcycle\": 1\n", "a value of 5 MB": `name: ${"x".repeat(5e6)}\n`, "20 MB of keys": Array.from({ length: 1e6 }, (_, i) => `k${i}: 1`).join("\n"),
  "a complex key": "? [a, b]\n: c\n", "binary": "a: !!binary AAAA\n", "a quote that is not closed": "a: \"x\n", "a directive": "%YAML 9.9\n---\na: 1\n", "JSON cut off": "{\"out\": ",
};
const readers = {
  train: ["train", "f.yaml"], study: ["study", "f.yaml", "--out", "run"], convert: ["convert", "m", "--recipe", "f.yaml", "--out", "out"], mergekit: ["convert", "--mergekit", "f.yaml", "--out", "out"], plan: ["plan", "--preset", "llama-2-7b", "--tokens", "1B", "--draws", "5", "--hardware", "f.yaml"],
};
const ofYaml = Object.entries(yamls).flatMap(([what, content], row) => Object.entries(readers).map(([command, args], column) => ({
  more: row > 0 && column !== row % 5,
  // An empty layer over the table of GPUs changes nothing.
  name: `yaml: ${what} for ${command}`, expect: command === "plan" && /nothing|null/.test(what) ? [0, 2] : [2], memory: 1000, make: (b) => (b.copy("dense", "m"), b.copy("text.txt"), b.file("f.yaml", content), args),
})));

const set = (value, path, to) => {
  const [head, ...rest] = path.split(".");
  return { ...value, [head]: rest.length === 0 ? to : set(value[head] ?? {}, rest.join("."), to) };
};
const absurd = {
  "training.steps": [0, -1, 0.5, "5", null, 1e18, [], {}], "training.batch": [0, -1, 1e9, "x"], "training.sequence": [0, 1, 1e9, 65], "training.lr": [null, 0.1, "x", { peak: -1 }, { peak: 1e300 }, { peak: 0.1, schedule: "__proto__" }], "training.evalEvery": [0, -1, 1e300], "training.saveEvery": [0, -1], threads: [0, -1, 1e9, "x"], "model.hidden": [0, -16, 15, 1e9, "x"], "model.layers": [0, 1e9], "model.heads": [0, 3, 1e9], "model.inner": [0, 1e12], model: [5, [], "nowhere", "", "text.txt", "/dev/zero"],
  "tokenizer.vocab": [0, 10, 1e12, "x"], tokenizer: [5, "nowhere"], "text.files": [[], "text.txt", ["nowhere.txt"], [5], ["*"], ["/dev/zero"], ["."], ["text.txt", "text.txt"]], "text.heldOut": [0, 1, -1, 2, "x"], text: [5, [], {}], out: [5, "", null, "/proc/x", "text.txt"], seed: [-1, 1e300, "x"], "evaluation.tokens": [0, -1, 1e300], unknown: [1],
};
const ofTrain = Object.entries(absurd).flatMap(([key, list]) => list.map((value, i) => ({
  more: i > 0 && i < list.length - 1,
  name: `yaml: train with ${key}: ${JSON.stringify(value)}`, expect: /heldOut|evalEvery|saveEvery|files|seed|tokens|threads|1e\+300|10$/.test(`${key} ${JSON.stringify(value)}`) ? [0, 1, 2] : [2], memory: 1500, may: /^run/,
  make: (b) => (b.copy("text.txt"), b.file("train.yaml", set(trainFile(), key, value)), ["train", "train.yaml"]),
})));
const ofStudy = [
  ["arms", {}], ["arms", []], ["arms", { a: { kind: "magic" } }], ["arms", { "../../x": { kind: "dense" } }], ["arms", { "a/b": { kind: "dense" } }], ["arms", { __proto__x: { kind: "dense" } }], ["arms", { a: { kind: "upcycled", recipe: "E0G0T0" } }], ["arms", { a: { kind: "upcycled", recipe: "E1000000G1T1" } }], ["arms", { a: { kind: "scratch", like: "a" } }], ["arms", { a: { kind: "scratch", like: "nowhere" } }],
  ["seeds", []], ["seeds", [0, 0]], ["seeds", "x"], ["seeds", [-1]], ["name", ""], ["name", "../../x"], ["name", "a\nb"], ["name", 5], ["parent", "nowhere"], ["parent", "text.txt"], ["parent", 5], ["continue", {}], ["continue", null], ["evaluation", { tokens: 0 }],
].map(([key, value], i) => ({
  more: i % 3 === 1, name: `yaml: study with ${key}: ${JSON.stringify(value)}`, expect: /name|evaluation|__proto__x|a\/b|tokens/.test(`${key}${JSON.stringify(value)}`) ? [0, 2] : [2], memory: 1500, may: /^run/, seconds: 60,
  make: (b) => (b.copy("text.txt"), b.file("study.yaml", set(studyFile(), key, value)), ["study", "study.yaml", "--out", "run"]),
}));

export const cases = [...formulas, ...ofTables, ...ofYaml, ...ofTrain, ...ofStudy];
