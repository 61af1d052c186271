/** Names and texts that a terminal, a shell or a page would take for something else. */
import { spawnSync } from "node:child_process";
import { mkdirSync, renameSync } from "node:fs";
import { rotated, safetensors, trainFile } from "./box.mjs";

const ESC = "\u001b[2J\u001b[31m";
const OSC = "\u001b]0;owned\u0007";
/** Each says something that is not so, if it reaches a terminal raw. */
const dirty = {
  "escape sequences": `x${ESC}y`,
  "a title": `x${OSC}y`,
  "a newline": "x\nupcycle: all is well",
  "a carriage return": "x\rupcycle: fine",
  "C1 controls": "x\u009b2Jy",
  "a bidirectional override": "x\u202ey",
  "a backspace": "xxx\b\b\by",
  "a line of 100,000 characters": "x".repeat(100_000),
};

const withTensor = (b, name, copy = "m") => {
  b.copy("golden/dense/llama", copy);
  b.file(`${copy}/model.safetensors`, safetensors({ [name]: { dtype: "F32", shape: [1], data_offsets: [0, 4] } }, 4));
};
const places = {
  "a tensor's name, inspected": (b, text) => (withTensor(b, text), ["inspect", "m", "--tensors"]),
  "a tensor's name, converted": (b, text) => (
    withTensor(b, text),
    ["convert", "m", "--recipe", "E2G1T1", "--out", "out"]
  ),
  "a tensor's name, compared": (b, text) => (
    withTensor(b, text),
    withTensor(b, `${text}2`, "n"),
    ["diff", "m", "n", "--all"]
  ),
  "an extra tensor's name, converted": (b, text) => (
    b.copy("golden/dense/llama", "m"),
    b.file("m/model.safetensors", extra(b, text)),
    ["convert", "m", "--recipe", "E2G1T1", "--out", "out", "--no-report"]
  ),
  "an extra tensor's name, inspected": (b, text) => (
    b.copy("golden/dense/llama", "m"),
    b.file("m/model.safetensors", extra(b, text)),
    ["inspect", "m", "--tensors"]
  ),
  "a model type": (b, text) => (
    b.copy("dense", "m"),
    b.edit("m/config.json", (c) => ({ ...c, model_type: text })),
    ["inspect", "m"]
  ),
  "a config's key": (b, text) => (
    b.copy("dense", "m"),
    b.copy("dense", "n"),
    b.edit("m/config.json", (c) => ({ ...c, [text]: text })),
    ["diff", "m", "n"]
  ),
  "a config's key, converted": (b, text) => (
    b.copy("dense", "m"),
    b.edit("m/config.json", (c) => ({ ...c, [text]: text })),
    ["convert", "m", "--recipe", "E2G1T1", "--out", "out", "--no-report"]
  ),
  "an activation": (b, text) => (
    b.copy("dense", "m"),
    b.edit("m/config.json", (c) => ({ ...c, hidden_act: text })),
    ["inspect", "m"]
  ),
  "a name in config.json": (b, text) => (
    b.copy("dense", "m"),
    b.edit("m/config.json", (c) => ({ ...c, _name_or_path: text })),
    ["convert", "m", "--recipe", "E2G1T1", "--out", "out", "--no-report"]
  ),
  "a shard's name": (b, text) => (
    b.copy("golden/moe/mixtral", "m"),
    b.edit("m/model.safetensors.index.json", (i) => ({
      ...i,
      weight_map: { ...i.weight_map, "lm_head.weight": `${text}.safetensors` },
    })),
    ["inspect", "m"]
  ),
  "a column's name in CSV": (b, text) => (
    b.file("t.csv", `"${text}",D,loss\n1e8,1e9,3\n`),
    ["fit", "t.csv", "--law", "chinchilla"]
  ),
  "a column's name in JSON lines": (b, text) => (
    b.file("t.jsonl", `${JSON.stringify({ [text]: 1, D: 2, loss: 3 })}\n`),
    ["fit", "t.jsonl", "--law", "chinchilla"]
  ),
  "a cell": (b, text) => (
    b.file("t.csv", `N,D,loss,group\n1e8,1e9,3,"${text}"\n1e9,1e9,2,"${text}"\n`),
    ["fit", "t.csv", "--law", "upcycling-shared"]
  ),
  "a run's name": (b, text) => (
    b.file(
      "t.csv",
      // eslint-disable-next-line max-len
      `N,D,loss,run\n${Array.from({ length: 8 }, (_, i) => `${(i + 1) * 1e8},${(9 - i) * 1e9},${3 - i / 10},"${text}"`).join("\n")}\n`,
    ),
    ["fit", "t.csv", "--law", "kaplan", "--cluster", "run", "--bootstrap", "5"]
  ),
  "a formula": (b, text) => (b.copy("f.csv"), ["fit", "f.csv", "--law", `E+A*${text}`]),
  "a law": (b, text) => (b.copy("f.csv"), ["fit", "f.csv", "--law", text]),
  "a recipe": (b, text) => (b.copy("dense", "m"), ["convert", "m", "--recipe", text, "--out", "out"]),
  "a target": (b, text) => (
    b.copy("dense", "m"),
    ["convert", "m", "--recipe", "E2G1T1", "--target", text, "--out", "out"]
  ),
  "a command": (_, text) => [text],
  "an option": (_, text) => ["inspect", `--${text}`],
  "a model": (_, text) => ["inspect", text],
  "a preset": (_, text) => ["plan", "--preset", text],
  "a GPU": (_, text) => ["plan", "--preset", "llama-2-7b", "--gpu", text],
  "a text file": (b, text) => (b.copy("dense", "m"), ["perplexity", "m", text]),
  "a key of a train file": (b, text) => (b.file("t.yaml", { ...trainFile(), [text]: 1 }), ["train", "t.yaml"]),
  "a value of a train file": (b, text) => (
    b.file("t.yaml", trainFile({ training: { lr: { peak: 1, schedule: text } } })),
    ["train", "t.yaml"]
  ),
  "a text of a train file": (b, text) => (
    b.file("t.yaml", trainFile({ text: { files: [text] } })),
    ["train", "t.yaml"]
  ),
  "an architecture": (b, text) => (
    b.copy("dense", "m"),
    b.edit("m/config.json", (c) => (delete c.model_type, { ...c, architectures: [text] })),
    ["inspect", "m"]
  ),
  "a type of weights": (b, text) => (
    b.copy("dense", "m"),
    b.file("m/model.safetensors", safetensors({ a: { dtype: text, shape: [1], data_offsets: [0, 4] } }, 4)),
    ["inspect", "m"]
  ),
  "metadata of weights": (b, text) => (
    b.copy("dense", "m"),
    b.file("m/model.safetensors", safetensors({ __metadata__: { format: text, [text]: text } }, 0)),
    ["inspect", "m"]
  ),
  "an adapter's kind": (b, text) => (
    b.copy("golden/dense/llama", "m"),
    b.copy("golden/adapters/llama", "a"),
    b.edit("a/adapter_config.json", (c) => ({ ...c, peft_type: text, [text]: 1 })),
    ["inspect", "m+a"]
  ),
  "a GPU's name": (b, text) => (
    b.file("h.yaml", { gpus: { [text]: { title: text, peakTflops: { bf16: 1 }, memoryGB: 1 } } }),
    ["plan", "--preset", "llama-2-7b", "--tokens", "1B", "--draws", "5", "--hardware", "h.yaml", "--gpu", "nothing"]
  ),
  coefficients: (b, text) => (
    b.file("c.json", { law: text, [text]: text }),
    ["plan", "--preset", "llama-2-7b", "--tokens", "1B", "--draws", "5", "--coefficients", "c.json"]
  ),
  "a record of a conversion": (b, text) => (
    b.copy("moe", "m"),
    b.edit("m/upcycle.json", (u) => ({ ...u, name: text, parent: { name: text, family: text } })),
    ["inspect", "m"]
  ),
  "a record of a conversion, merged": (b, text) => (
    b.copy("moe", "m"),
    b.edit("m/upcycle.json", (u) => ({ ...u, name: text, parent: { ...u.parent, name: text } })),
    ["merge", "m", "--out", "out"]
  ),
  "a licence": (b, text) => (
    b.copy("dense", "m"),
    b.file("m/README.md", `---\nlicense: ${JSON.stringify(text)}\nlicense_name: ${JSON.stringify(text)}\n---\n`),
    ["convert", "m", "--recipe", "E2G1T1", "--out", "out", "--no-report"]
  ),
};
const kinds = Object.keys(dirty).length;
const shown = Object.entries(places).flatMap(([place, make], row) =>
  Object.entries(dirty).map(([what, text], column) => ({
    more: rotated(row, column, kinds),
    name: `escapes: ${what} as ${place}`,
    expect: [0, 1, 2],
    may: /^out/,
    make: (b) => make(b, text),
  })),
);

/** The true weights with one more tensor, which holds nothing. */
function extra(b, name) {
  const file = b.bytes("m/model.safetensors");
  const length = Number(file.readBigUInt64LE(0));
  const data = file.subarray(8 + length);
  return Buffer.concat([
    safetensors({
      ...JSON.parse(file.subarray(8, 8 + length)),
      [name]: { dtype: "F32", shape: [0], data_offsets: [data.length, data.length] },
    }),
    data,
  ]);
}

/**
 * Names of model folders. What is written into a card must be text there, and what is suggested must be one word to a
 * shell.
 */
const folders = {
  "<b>": "<b>bold<script>alert(1)</script>".replaceAll("/", "\u2215"),
  backticks: "a`touch owned`b",
  "a newline and a rule": "a\n---\nlicense: mit\n---\nb",
  "a dollar": "a$(touch owned)b",
  quotes: "a'b\"c",
  spaces: " a b ",
  "a leading dash": "-rf",
  "two leading dashes": "--out",
  "255 bytes": "x".repeat(240),
  emoji: "🐋日本é",
  "a bidirectional override": "a\u202eb",
  "a plus": "a+b",
  "a percent": "%2e%2e",
  "a hash": "a#b",
  "a semicolon": "a;touch owned;b",
  "a pipe character": "a|b",
  "table cells": "a|b|c\\|d",
  brackets: "[a](javascript:alert(1))",
  "a star": "*",
  "a tilde": "~",
  "escape sequences": `a${ESC}b`,
  "an equals sign": "a=b",
  "a colon": "a: b",
  "an ampersand": "a&amp;b",
};
/** Lines that are commands are given to a shell, in which upcycle shows the words it got. */
const commandsIn = (text) =>
  text
    .split("\n")
    .flatMap((line) => /(?:^|: |`)(upcycle (?:verify|convert|inspect|train|study) [^`]*)/.exec(line)?.[1] ?? []);
const named = Object.entries(folders).flatMap(([what, name], row) => {
  const place = (b) => (b.copy("dense", "x"), renameSync(b.at("x"), b.at(`./${name}`)), `./${name}`);
  return [
    {
      name: `names: convert of a folder with ${what}`,
      expect: [0],
      make: (b) => ({
        args: ["convert", place(b), "--recipe", "E2G1T1", "--out", "out", "--no-report"],
        after: (_, { code, stdout }) =>
          code !== 0 ? [] : [...card(b.read("out/README.md")), ...wordsAreFiles(b, stdout)],
      }),
    },
    {
      name: `names: convert into a folder with ${what}`,
      expect: [0],
      make: (b) => {
        b.copy("dense", "m");
        return {
          args: ["convert", "m", "--recipe", "E2G1T1", "--out", `./${name}`, "--no-report"],
          after: (_, { code, stdout }) =>
            code !== 0 ? [] : [...card(b.read(`./${name}/README.md`)), ...wordsAreFiles(b, stdout)],
        };
      },
    },
    { name: `names: inspect of a folder with ${what}`, expect: [0], make: (b) => ["inspect", place(b)] },
    {
      name: `names: merge of a folder with ${what}`,
      expect: [0],
      make: (b) => {
        b.copy("moe", "x");
        renameSync(b.at("x"), b.at(`./${name}`));
        return {
          args: ["merge", `./${name}`, "--out", "out"],
          after: (_, { code }) => (code !== 0 ? [] : card(b.read("out/README.md"))),
        };
      },
    },
    {
      name: `names: train of a folder with ${what}`,
      expect: [0],
      make: (b) => {
        b.copy("text.txt");
        b.file("t.yaml", trainFile({ model: place(b), tokenizer: undefined, out: `run/${name}` }));
        return ["train", "t.yaml"];
      },
    },
  ].map((one, column, { length }) => ({ ...one, more: rotated(row, column, length) }));
});
/** Headings, tags and links that the names above would make in a card. */
function card(text) {
  const [, front = "", body = ""] = /^---\n([^]*?)\n---\n([^]*)$/.exec(text) ?? [];
  return [
    ...(front === "" ? ["the card has no front matter"] : []),
    ...(/^license: mit$/m.test(front) ? ["a name has become the card's licence"] : []),
    ...(/^---$/m.test(body) ? ["a name has become a rule of the card"] : []),
    ...(/<(b|script)>/.test(body.replace(/`[^`]*`/g, "")) ? ["a name has become markup of the card"] : []),
    ...(/(?<!\\)\]\(javascript:/.test(body) ? ["a name has become a link of the card"] : []),
  ];
}
function wordsAreFiles(b, stdout) {
  return commandsIn(stdout.replace(/\n {2}/g, " ")).flatMap((line) => {
    const { stdout: words } = spawnSync("bash", ["-c", `upcycle() { printf '%s\\0' "$@"; }\n${line}`], {
      cwd: b.dir,
      encoding: "utf8",
    });
    const missing = words
      .split("\0")
      .slice(1, 3)
      .find((word) => word !== "" && !b.has(word));
    return [
      ...(missing === undefined
        ? []
        : [`a suggested command names ${JSON.stringify(missing)}, which is not there: ${JSON.stringify(line)}`]),
      ...(b.has("owned") ? [`a suggested command runs another: ${JSON.stringify(line)}`] : []),
    ];
  });
}
const bytes = [
  {
    name: "names: inspect of a folder that is no UTF-8",
    expect: [0, 2],
    make: (b) => (b.copy("dense", "m"), { sh: "mv m $'a\\xff\\xfeb'; upcycle inspect $'a\\xff\\xfeb'", may: /./ }),
  },
  {
    name: "names: convert of a folder that is no UTF-8",
    expect: [0, 2],
    make: (b) => (
      b.copy("dense", "m"),
      { sh: "mv m $'a\\xff\\xfeb'; upcycle convert $'a\\xff\\xfeb' --recipe E2G1T1 --out out --no-report", may: /./ }
    ),
  },
  {
    name: "names: a working folder that is no UTF-8",
    expect: [0, 2],
    make: (b) => (
      b.copy("dense", "m"),
      { sh: "mkdir $'a\\xff\\xfeb'; cd $'a\\xff\\xfeb'; upcycle inspect ../m", may: /./ }
    ),
  },
  {
    name: "names: a model 200 folders down",
    expect: [0],
    make: (b) => {
      const down = "folder/".repeat(200);
      mkdirSync(b.at(down), { recursive: true });
      return ["inspect", b.copy("dense", `${down}m`)];
    },
  },
];
const cards = [
  ["license_link: javascript", 'license: other\nlicense_name: x\nlicense_link: "javascript:alert(1)"', /javascript:/],
  ["license: <script>", 'license: "<script>alert(1)</script>"', /<script>/],
  ["license with a rule", 'license: "mit\\n---\\n# owned"', /^# owned/m],
  ["license_name with a link", 'license_name: "[x](javascript:alert(1))"', /(?<!\\)\]\(javascript:/],
  [
    "license_link: data",
    'license: other\nlicense_name: x\nlicense_link: "data:text/html,<script>alert(1)</script>"',
    /data:text/,
  ],
  [
    "license_link with quotes",
    "license: other\nlicense_name: x\nlicense_link: 'https://x/\" onload=\"alert(1)'",
    /\]\([^)]*" onload/,
  ],
  ["license of 1 MB", `license: ${"x".repeat(1e6)}`, /x{5000}/],
  ["front matter that never ends", "license: mit\n".repeat(10), /^# owned/m],
  [
    "an anchor bomb",
    `a: &a [x,x,x]\n${Array.from({ length: 20 }, (_, i) => `b${i}: &a${i} [${"*a,".repeat(9)}]`).join("\n")}`,
    /x,x,x/,
  ],
  [
    "tags that are markup",
    'license: other\ntags: ["<img src=x onerror=alert(1)>"]\nlanguage: "en\\nlicense: mit"',
    /<img/,
  ],
].flatMap(([what, front, never]) =>
  ["convert m --recipe E2G1T1 --out out --no-report", "merge m --out out"].map((words) => ({
    name: `names: ${words.split(" ")[0]} of a card with ${what}`,
    expect: [0],
    make: (b) => {
      b.copy(words.startsWith("merge") ? "moe" : "dense", "m");
      b.file("m/README.md", `---\n${front}\n---\n# x\n`);
      return {
        args: words.split(" "),
        after: (_, { code }) =>
          code === 0 && b.has("out/README.md") && never.test(b.read("out/README.md"))
            ? `the card has ${never}`
            : undefined,
      };
    },
  })),
);
const pages = [
  ["fit", ["fit", "t.csv", "--law", "E+A*N^-a", "--html", "out.html"]],
  ["plan", ["plan", "m<b>", "--tokens", "1B", "--draws", "5", "--html", "out.html"]],
].map(([what, args]) => ({
  name: `names: markup on the page of ${what}`,
  expect: [0, 2],
  make: (b) => {
    b.file(
      "t.csv",
      `${
        b.copy("f.csv") &&
        b
          .read("f.csv")
          .replace("loss", 'loss,"<script>alert(1)</script>"')
          .replace(/(\d)\n/g, "$1,1\n")
      },1\n`,
    );
    b.copy("dense", "m<b>");
    return {
      args,
      after: (_, { code }) =>
        code === 0 && /<script>alert\(1\)|m<b>/.test(b.read("out.html")) ? "markup of a name on the page" : undefined,
    };
  },
}));

export const cases = [...shown, ...named, ...bytes, ...cards, ...pages];
