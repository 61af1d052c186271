/**
 * Where results go: folders and files that hold something of the user's, that are not there, or that nobody can write.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { chmodSync, mkdirSync, symlinkSync } from "node:fs";
import { rotated, studyFile, trainFile } from "./box.mjs";

const convert = (b, ...more) => (b.copy("dense", "m"), ["convert", "m", "--recipe", "E2G1T1", "--no-report", ...more]);
const merge = (b, ...more) => (b.copy("moe", "m"), ["merge", "m", ...more]);
const multiply = (b, ...more) => (
  b.copy("moe", "m"),
  ["convert", "m", "--expert-multiply", "2", "--no-report", ...more]
);
const makers = { convert, merge, multiply };

/** Folders that a user would miss. Each makes `h`. */
const victims = {
  "a folder with a thesis": (b) => b.file("h/thesis.txt", "ten years"),
  "a folder with a key": (b) => (b.file("h/.ssh/id_ed25519", "secret"), b.file("h/notes/a.md", "x")),
  "a home": (b) =>
    [".bashrc", ".ssh/id_rsa", "Documents/tax.pdf", "models/x/config.json"].forEach((name) =>
      b.file(`h/${name}`, "mine"),
    ),
  "a git repository": (b) => execFileSync("git", ["init", "-q", b.at("h")]) && b.file("h/src/a.c", "int main;"),
  "config.json beside foreign files": (b) => (b.copy("dense", "h"), b.file("h/thesis.txt", "ten years")),
  "a foreign config.json": (b) => (b.file("h/config.json", { app: "editor" }), b.file("h/settings.db", "mine")),
  "a foreign config.json alone": (b) => b.file("h/config.json", { editor: { theme: "dark" } }),
  "a model with a foreign folder": (b) => (b.copy("dense", "h"), b.file("h/paper/main.tex", "mine")),
  "a model with a hidden key": (b) => (b.copy("moe", "h"), b.file("h/.ssh/id", "secret")),
  "our mark beside foreign files": (b) => (b.file("h/upcycle.json", {}), b.file("h/thesis.txt", "ten years")),
  "weights of another program": (b) => b.file("h/model.safetensors", "mine"),
  "a run folder": (b) => (b.copy("run", "h"), b.file("h/thesis.txt", "mine")),
  "a model in a git repository": (b) => (b.copy("dense", "h"), execFileSync("git", ["init", "-q", b.at("h")])),
};
const overwriting = Object.entries(makers).flatMap(([command, make], column) =>
  Object.entries(victims).map(([what, victim], row) => ({
    more: rotated(row, column, 3),
    name: `overwrite: ${command} --overwrite of ${what}`,
    expect: [2],
    make: (b) => (victim(b), make(b, "--out", "h", "--overwrite")),
  })),
);
const replaced = Object.entries(makers).flatMap(([command, make], column) =>
  [
    {
      name: `overwrite: ${command} --overwrite of a conversion of ours`,
      expect: [0],
      may: /^h/,
      make: (b) => (b.copy("moe", "h"), make(b, "--out", "h", "--overwrite")),
    },
    {
      name: `overwrite: ${command} without --overwrite`,
      expect: [2],
      make: (b) => (b.copy("moe", "h"), make(b, "--out", "h")),
    },
    {
      name: `overwrite: ${command} --overwrite through a link to a thesis`,
      expect: [2],
      make: (b) => (
        b.file("real/thesis.txt", "mine"),
        symlinkSync("real", b.at("h")),
        make(b, "--out", "h", "--overwrite")
      ),
    },
    {
      name: `overwrite: ${command} --overwrite of its own source`,
      expect: [2],
      make: (b) => make(b, "--out", "m", "--overwrite"),
    },
    {
      name: `overwrite: ${command} --overwrite of its source by another name`,
      expect: [2],
      make: (b) => (symlinkSync("m", b.at("alias")), make(b, "--out", "alias", "--overwrite")),
    },
    {
      name: `overwrite: ${command} --overwrite of the folder above its source`,
      expect: [2],
      make: (b) => make(b, "--out", ".", "--overwrite"),
    },
    {
      name: `overwrite: ${command} --overwrite of the folder two above`,
      expect: [2],
      make: (b) => (
        make(b),
        b.file("in/x", "mine"),
        { args: make(b, "--out", "..", "--overwrite").map((arg) => (arg === "m" ? "../m" : arg)), cwd: "in" }
      ),
    },
    {
      name: `overwrite: ${command} into its source`,
      expect: [0, 2],
      may: /^m\/out/,
      make: (b) => make(b, "--out", "m/out"),
    },
    {
      name: `overwrite: ${command} --overwrite of a file`,
      expect: [2],
      make: (b) => (b.file("h", "mine"), make(b, "--out", "h", "--overwrite")),
    },
    {
      name: `overwrite: ${command} --overwrite of a pipe`,
      expect: [2],
      make: (b) => (b.put("h", "fifo"), make(b, "--out", "h", "--overwrite")),
    },
    {
      name: `overwrite: ${command} to a link that leads nowhere`,
      expect: [0, 2],
      may: /^(h|nowhere)/,
      make: (b) => (b.put("h", "dangling link"), make(b, "--out", "h")),
    },
    {
      name: `overwrite: ${command} where the unfinished folder is the user's`,
      expect: [0, 2],
      may: /^h$|^h\//,
      make: (b) => (b.file(".h.unfinished/thesis.txt", "mine"), make(b, "--out", "h")),
    },
    {
      name: `overwrite: ${command} where the unfinished folder is a link`,
      expect: [0, 2],
      may: /^h$|^h\//,
      make: (b) => (
        b.file("real/thesis.txt", "mine"),
        symlinkSync("real", b.at(".h.unfinished")),
        make(b, "--out", "h")
      ),
    },
    {
      name: `overwrite: ${command} where the unfinished folder is a file`,
      expect: [0, 2],
      may: /^h$|^h\//,
      make: (b) => (b.file(".h.unfinished", "mine"), make(b, "--out", "h")),
    },
  ].map((one, row) => ({ ...one, more: rotated(row, column, 3) })),
);

/** `--out` that can be no folder; without --overwrite, so that nothing outside of the case's folder is at stake. */
const nowhere = [
  ["the root", "/"],
  ["this folder", "."],
  ["the folder above", ".."],
  ["nothing", ""],
  ["a space", " "],
  ["/proc", "/proc/nothing"],
  ["/dev/null below", "/dev/null/x"],
  ["a name of 256 bytes", "x".repeat(256)],
  ["a path of 5,000 bytes", "x/".repeat(2500)],
  ["a file as a folder", "text.txt/out"],
  ["the source", "m"],
  ["the source with a slash", "./m/"],
  ["a link to itself", "loop"],
];
const places = Object.entries(makers).flatMap(([command, make], column) =>
  nowhere.map(([what, out], row) => ({
    more: column !== row % 3,
    name: `outputs: ${command} to ${what}`,
    expect: what === "a space" ? [0, 2] : [1, 2],
    may: what === "a space" ? /^ / : undefined,
    make: (b) => (b.copy("text.txt"), b.put("loop", "link to itself"), make(b, "--out", out)),
  })),
);

/** Files that would replace something. */
const files = [
  [
    "forward --output of the weights",
    (b) => (
      b.copy("dense", "m"),
      b.copy("ids.safetensors"),
      ["forward", "m", "--input-ids", "ids.safetensors", "--output", "m/model.safetensors"]
    ),
  ],
  [
    "forward --output of its own input",
    (b) => (
      b.copy("dense", "m"),
      b.copy("ids.safetensors"),
      ["forward", "m", "--input-ids", "ids.safetensors", "--output", "ids.safetensors"]
    ),
  ],
  [
    "forward --output of a thesis",
    (b) => (
      b.copy("dense", "m"),
      b.copy("ids.safetensors"),
      b.file("thesis.txt", "mine"),
      ["forward", "m", "--input-ids", "ids.safetensors", "--output", "thesis.txt"]
    ),
  ],
  [
    "forward --output of a folder",
    (b) => (
      b.copy("dense", "m"),
      b.copy("ids.safetensors"),
      b.file("h/x", "mine"),
      ["forward", "m", "--input-ids", "ids.safetensors", "--output", "h"]
    ),
  ],
  [
    "forward --output of a pipe",
    (b) => (
      b.copy("dense", "m"),
      b.copy("ids.safetensors"),
      b.put("p", "fifo"),
      ["forward", "m", "--input-ids", "ids.safetensors", "--output", "p"]
    ),
  ],
  [
    "export-onnx --out of the weights",
    (b) => (b.copy("dense", "m"), ["export-onnx", "m", "--out", "m/model.safetensors"]),
  ],
  [
    "export-onnx --out of a thesis",
    (b) => (b.copy("dense", "m"), b.file("thesis.txt", "mine"), ["export-onnx", "m", "--out", "thesis.txt"]),
  ],
  [
    "export-onnx --out of a folder",
    (b) => (b.copy("dense", "m"), b.file("h/x", "mine"), ["export-onnx", "m", "--out", "h"]),
  ],
  [
    "export-onnx --out of a pipe",
    (b) => (b.copy("dense", "m"), b.put("p", "fifo"), ["export-onnx", "m", "--out", "p"]),
  ],
  ["fit --html of its own table", (b) => (b.copy("f.csv"), ["fit", "f.csv", "--law", "chinchilla", "--html", "f.csv"])],
  [
    "fit --html of a thesis",
    (b) => (
      b.copy("f.csv"),
      b.file("thesis.txt", "mine"),
      ["fit", "f.csv", "--law", "chinchilla", "--html", "thesis.txt"]
    ),
  ],
  [
    "fit --html of a folder",
    (b) => (b.copy("f.csv"), b.file("h/x", "mine"), ["fit", "f.csv", "--law", "chinchilla", "--html", "h"]),
  ],
  [
    "fit --html of a pipe",
    (b) => (b.copy("f.csv"), b.put("p", "fifo"), ["fit", "f.csv", "--law", "chinchilla", "--html", "p"]),
  ],
  [
    "plan --html of its own config",
    (b) => (b.copy("dense", "m"), ["plan", "m", "--tokens", "1B", "--draws", "5", "--html", "m/config.json"]),
  ],
  [
    "plan --html of a thesis",
    (b) => (
      b.file("thesis.txt", "mine"),
      ["plan", "--preset", "llama-2-7b", "--tokens", "1B", "--draws", "5", "--html", "thesis.txt"]
    ),
  ],
  [
    "plan --html of a pipe",
    (b) => (b.put("p", "fifo"), ["plan", "--preset", "llama-2-7b", "--tokens", "1B", "--draws", "5", "--html", "p"]),
  ],
  [
    "train into a folder with a thesis",
    (b) => (
      b.copy("text.txt"),
      b.file("run/thesis.txt", "mine"),
      b.file("train.yaml", trainFile()),
      ["train", "train.yaml"]
    ),
  ],
  [
    "train into its own model",
    (b) => (
      b.copy("text.txt"),
      b.copy("dense", "m"),
      b.file("train.yaml", trainFile({ model: "m", tokenizer: undefined, out: "m" })),
      ["train", "train.yaml"]
    ),
  ],
  [
    "train into this folder",
    (b) => (b.copy("text.txt"), b.file("train.yaml", trainFile({ out: "." })), ["train", "train.yaml"]),
  ],
  [
    "train into a file",
    (b) => (b.copy("text.txt"), b.file("run", "mine"), b.file("train.yaml", trainFile()), ["train", "train.yaml"]),
  ],
  [
    "train into a folder with a foreign last/",
    (b) => (
      b.copy("text.txt"),
      b.file("run/last/thesis.txt", "mine"),
      b.file("train.yaml", trainFile()),
      ["train", "train.yaml"]
    ),
  ],
  [
    "train into a folder with a foreign run.json",
    (b) => (
      b.copy("text.txt"),
      b.file("run/run.json", { mine: true }),
      b.file("train.yaml", trainFile()),
      ["train", "train.yaml"]
    ),
  ],
  [
    "study into a folder with a thesis",
    (b) => (
      b.copy("text.txt"),
      b.file("run/thesis.txt", "mine"),
      b.file("study.yaml", studyFile()),
      ["study", "study.yaml", "--out", "run"]
    ),
  ],
  [
    "study into this folder",
    (b) => (b.copy("text.txt"), b.file("study.yaml", studyFile()), ["study", "study.yaml", "--out", "."]),
  ],
  [
    "study into a folder with a foreign parent/",
    (b) => (
      b.copy("text.txt"),
      b.file("run/parent/thesis.txt", "mine"),
      b.file("study.yaml", studyFile()),
      ["study", "study.yaml", "--out", "run"]
    ),
  ],
  [
    "study into a folder with a foreign report.html",
    (b) => (
      b.copy("text.txt"),
      b.file("run/report.html", "mine"),
      b.file("study.yaml", studyFile()),
      ["study", "study.yaml", "--out", "run"]
    ),
  ],
].map(([what, make]) => ({
  // A run may take place beside other things, if it leaves them alone.
  name: `outputs: ${what}`,
  expect: /^(train|study)/.test(what) ? [0, 2] : [2],
  make,
}));

/** The superuser may write anywhere, so that right is given up; null where this system has no way to. */
const unprivileged = () => {
  if (process.getuid() !== 0) return "";
  const drop = "setpriv --inh-caps=-all --bounding-set=-dac_override,-dac_read_search,-fowner ";
  return spawnSync("bash", ["-c", `${drop} true`]).status === 0 ? drop : null;
};
const readOnly = [
  ["convert", (b) => convert(b, "--out", "ro/out")],
  ["merge", (b) => merge(b, "--out", "ro/out")],
  [
    "forward",
    (b) => (
      b.copy("dense", "m"),
      b.copy("ids.safetensors"),
      ["forward", "m", "--input-ids", "ids.safetensors", "--output", "ro/o"]
    ),
  ],
  ["export-onnx", (b) => (b.copy("dense", "m"), ["export-onnx", "m", "--out", "ro/m.onnx"])],
  ["fit --html", (b) => (b.copy("f.csv"), ["fit", "f.csv", "--law", "chinchilla", "--html", "ro/x.html"])],
  ["train", (b) => (b.copy("text.txt"), b.file("train.yaml", trainFile({ out: "ro/run" })), ["train", "train.yaml"])],
  ["study", (b) => (b.copy("text.txt"), b.file("study.yaml", studyFile()), ["study", "study.yaml", "--out", "ro/run"])],
].map(([what, make]) => ({
  name: `outputs: ${what} in a read-only folder`,
  expect: [1, 2],
  make: (b) => {
    const drop = unprivileged();
    if (drop === null) return null;
    const args = make(b);
    mkdirSync(b.at("ro"));
    chmodSync(b.at("ro"), 0o555);
    return { sh: `exec ${drop}"$NODE" "$MAIN" ${args.map((arg) => `'${arg}'`).join(" ")}` };
  },
}));
const unreadable = ["config.json", "model.safetensors", "tokenizer.json"].map((file) => ({
  name: `outputs: ${file} that may not be read`,
  expect: [1, 2],
  make: (b) => {
    const drop = unprivileged();
    // Without the superuser nobody could look at the file afterwards.
    if (drop === null || drop === "") return null;
    b.copy("dense", "m");
    // Its size stays readable, its content does not.
    chmodSync(b.at(`m/${file}`), 0);
    return { sh: `exec ${drop}"$NODE" "$MAIN" generate m --prompt x` };
  },
}));

/** A result again, in the place of an older one: no case for a refusal. */
const again = [
  {
    name: "outputs: fit --html of an older page",
    expect: [0],
    may: /^x/,
    make: (b) => (
      b.copy("f.csv"),
      {
        sh:
          '"$NODE" "$MAIN" fit f.csv --law chinchilla --html x.html > /dev/null; upcycle fit f.csv --law kaplan ' +
          "--html x.html",
      }
    ),
  },
  {
    name: "outputs: forward --output of an older result",
    expect: [0],
    may: /^o/,
    make: (b) => (
      b.copy("dense"),
      b.copy("ids.safetensors"),
      {
        sh:
          '"$NODE" "$MAIN" forward dense --input-ids ids.safetensors --output o.safetensors > /dev/null; upcycle ' +
          "forward dense --input-ids ids.safetensors --output o.safetensors",
      }
    ),
  },
];

export const cases = [...overwriting, ...replaced, ...places, ...files, ...again, ...readOnly, ...unreadable];
