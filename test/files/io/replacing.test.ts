/**
 * What is replaced, and what is never: folders and files of somebody else's beside and in the place of ours. The file
 * is long because each kind of output is tried with each kind of foreign file.
 */
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, it } from "vitest";
import { UpcycleError } from "../../../src/base/errors.js";
import { isCheckpointFile, isModelFile } from "../../../src/files/formats/model-files.js";
import { previousName, restoreReplaced, stageDirectory, writeFileAtomic } from "../../../src/files/io/atomic.js";
import { removeModelFolder } from "../../../src/files/io/model-folder.js";
import { requirePlace, stageResumable, unfinishedName } from "../../../src/files/io/resumable-directory.js";
import { randomStream } from "../../../src/base/random.js";
import { isOwnPage, requireFilePlace } from "../../../src/files/io/named-file.js";
import { runScript, built } from "../../support/built.js";
import { hostMark } from "../../../src/files/io/lock-owner.js";
import { temporaryFolder } from "./temporary.js";

const root = temporaryFolder();
let counter = 0;
const fresh = (): string => {
  const dir = join(root, String(counter++));
  mkdirSync(dir);
  return dir;
};
/** Files by path, `null` for empty folders. */
function tree(dir: string, files: Readonly<Record<string, string>>): string {
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(dir, name)), { recursive: true });
    writeFileSync(join(dir, name), text);
  }
  return dir;
}
async function refusal(promise: Promise<unknown>): Promise<string> {
  const error: unknown = await promise.then(
    () => "not refused",
    (cause: unknown) => cause,
  );
  if (!(error instanceof UpcycleError)) throw new Error(`no UpcycleError: ${String(error)}`, { cause: error });
  expect(error.exitCode).toBe(2);
  return error.line.replaceAll(root, "ROOT");
}
const model = { "config.json": '{"model_type":"llama"}', "model.safetensors": "weights" };

describe("names of files of a model folder", () => {
  it.each([
    "config.json",
    "model.safetensors",
    "model-00001-of-00005.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model-00001-of-00002.bin",
    "pytorch_model.bin.index.json",
    "tokenizer.json",
    "tokenizer.model",
    "generation_config.json",
    "README.md",
    "LICENSE",
    "LICENSE.txt",
    "NOTICE",
    "upcycle.json",
    "merge.json",
    "multiply.json",
    "preservation.json",
    "modeling_llama.py",
    "configuration_llama.py",
    ".gitattributes",
    ".README.md.partial-123",
    ".config.json.partial-12-1",
    ".config.json.partial-12@0a1b2c3d-1",
  ])("%s is one that a model folder holds", (name) => expect(isModelFile(name)).toBe(true));

  it.each([
    "thesis.txt",
    "id_rsa",
    ".ssh",
    ".git",
    ".env",
    "train.py",
    "model.py",
    "photo.jpg",
    "card.png",
    "notes.md",
    "data.jsonl",
    "optimizer.safetensors",
    "training.json",
    "other.safetensors",
    "model",
    "models.safetensors",
    "config.json.bak",
    "config.yaml",
    "..",
    ".thesis.txt.partial-123",
    "x\nconfig.json",
    "config.json\n",
    "LICENSE\n",
  ])("%j is none that a model folder holds", (name) => expect(isModelFile(name)).toBe(false));

  it("those of a checkpoint include the state of its training", () => {
    expect(["training.json", "optimizer.safetensors", "config.json", "notes.txt"].filter(isCheckpointFile)).toEqual([
      "training.json",
      "optimizer.safetensors",
      "config.json",
    ]);
  });
});

describe("a folder that may be replaced", () => {
  const places: readonly [string, (dir: string) => void, string][] = [
    [
      "no model at all",
      (dir) => tree(dir, { "thesis.txt": "x", ".ssh/id_rsa": "x" }),
      "holds what is no file of a model: .ssh and thesis.txt; choose another folder, or move that away first",
    ],
    [
      "many files",
      (dir) => tree(dir, { a: "", b: "", c: "", d: "", e: "" }),
      "holds what is no file of a model: a, b, c and 2 more;",
    ],
    [
      "a model with a note beside it",
      (dir) => tree(dir, { ...model, "notes\n.txt": "x" }),
      "holds what is no file of a model: notes?.txt;",
    ],
    [
      "a model with a folder in it, even by a known name",
      (dir) => tree(dir, { ...model, "tokenizer.json/x": "" }),
      "holds what is no file of a model: tokenizer.json;",
    ],
    [
      "a clone with its history",
      (dir) => tree(dir, { ...model, ".git/HEAD": "x" }),
      "holds what is no file of a model: .git;",
    ],
    [
      "a checkpoint of a training",
      (dir) => tree(dir, { ...model, "optimizer.safetensors": "x", "training.json": "{}" }),
      "holds what is no file of a model: optimizer.safetensors and training.json;",
    ],
    [
      "a model of links, as in the Hub's cache",
      (dir) => (tree(dir, model), symlinkSync("model.safetensors", join(dir, "tokenizer.json"))),
      "holds what is no file of a model: tokenizer.json;",
    ],
    [
      "somebody else's config.json and README",
      (dir) => tree(dir, { "config.json": '{"port":80}', "README.md": "x" }),
      "nothing in it (README.md and config.json) says that it is a model",
    ],
    ["a licence alone", (dir) => tree(dir, { LICENSE: "x" }), "nothing in it (LICENSE) says that it is a model"],
    ["a record that is none", (dir) => tree(dir, { "upcycle.json": "[]" }), "says that it is a model"],
  ];
  it.each(places)("is not a folder with %s", async (_what, make, words) => {
    const dir = fresh();
    const out = join(dir, "out");
    mkdirSync(out);
    make(out);
    const before = readdirSync(out, { recursive: true });
    for (const ask of [
      requirePlace(out, true),
      stageDirectory(out, { overwrite: true }),
      stageResumable(out, { overwrite: true }),
    ].map(refusal))
      expect(await ask).toContain(words);
    expect(readdirSync(out, { recursive: true })).toEqual(before);
    expect(readdirSync(dir)).toEqual(["out"]);
  });

  it("is a model, or what we made of one, with all that belongs to it", async () => {
    const ours: readonly Readonly<Record<string, string>>[] = [
      model,
      { "upcycle.json": '{"upcycle":"0.1.0"}' },
      { ...model, LICENSE: "", "README.md": "", "modeling_x.py": "", ".README.md.partial-1": "" },
    ];
    for (const files of ours) {
      const dir = fresh();
      const out = tree(join(dir, "out"), files);
      const stage = await stageDirectory(out, { overwrite: true });
      tree(stage.path, { "config.json": "new" });
      expect(readdirSync(out).sort()).toEqual(Object.keys(files).sort());
      await stage.commit();
      expect(readdirSync(out)).toEqual(["config.json"]);
      expect(readdirSync(dir)).toEqual(["out"]);
    }
  });

  it("is no link, wherever it leads, and what it leads to stays", async () => {
    const dir = fresh();
    tree(join(dir, "real"), model);
    mkdirSync(join(dir, "empty"));
    const link = "this is a link, which a new folder would take the place of";
    for (const [name, to, message] of [
      ["full", "real", link],
      ["free", "empty", link],
      ["dangling", "nowhere", "this is a link to nowhere, which is not there"],
    ] as const) {
      symlinkSync(to, join(dir, name));
      for (const overwrite of [true, false])
        expect(await refusal(stageDirectory(join(dir, name), { overwrite }))).toContain(message);
    }
    expect(await refusal(requirePlace(join(dir, "full/"), true))).toContain("this is a link");
    expect(readdirSync(join(dir, "real")).sort()).toEqual(Object.keys(model));
  });

  it("that gets a file of somebody else's while the new one is made stays", async () => {
    const dir = fresh();
    const out = tree(join(dir, "out"), model);
    const stage = await stageDirectory(out, { overwrite: true });
    tree(stage.path, { "config.json": "new" });
    tree(out, { "thesis.txt": "x" });
    expect(await refusal(stage.commit())).toContain("thesis.txt");
    await stage.discard();
    expect(readdirSync(out).sort()).toEqual([...Object.keys(model), "thesis.txt"].sort());
    expect(readdirSync(dir)).toEqual(["out"]);
  });
});

it("what somebody put into a checkpoint moves along into the next one", async () => {
  const dir = fresh();
  const out = tree(join(dir, "last"), {
    ...model,
    "training.json": "1",
    "notes/why.txt": "mine",
    "thesis.txt": "mine",
  });
  const stage = await stageDirectory(out, { overwrite: "checkpoint" });
  tree(stage.path, { "config.json": "new", "training.json": "2" });
  await stage.commit();
  expect(readdirSync(out).sort()).toEqual(["config.json", "notes", "thesis.txt", "training.json"]);
  expect(readFileSync(join(out, "notes/why.txt"), "utf8")).toBe("mine");
  expect(readdirSync(dir)).toEqual(["last"]);
});

describe("names that we use beside a folder", () => {
  it("are somebody else's where we have not made them: nothing in them is touched", async () => {
    const rooms: readonly [string, Readonly<Record<string, string>>, string][] = [
      [
        "unfinished",
        { "thesis.txt": "mine" },
        "this folder holds thesis.txt, so it is not what an unfinished conversion leaves",
      ],
      [
        "unfinished",
        { "folder/thesis.txt": "mine", "journal.jsonl": '{"begun":{}}\n' },
        "this folder holds folder/thesis.txt",
      ],
      ["unfinished", { "folder/config.json/x": "mine" }, "this folder holds folder/config.json"],
      ["unfinished", { "journal.jsonl": "Dear diary\n" }, "this folder holds journal.jsonl"],
      ["previous", model, "this name is needed while the folder beside it is replaced"],
      ["previous", { "thesis.txt": "mine" }, "this name is needed while the folder beside it is replaced"],
    ];
    for (const [name, files, words] of rooms) {
      const dir = fresh();
      const out = tree(join(dir, "out"), model);
      const beside = tree(join(dir, `.out.${name}`), files);
      for (const ask of [requirePlace(out, true), stageResumable(out, { overwrite: true })].map(refusal))
        expect(await ask).toContain(words);
      for (const [path, text] of Object.entries(files)) expect(readFileSync(join(beside, path), "utf8")).toBe(text);
      expect(readdirSync(out).sort()).toEqual(Object.keys(model));
    }
    const dir = fresh();
    writeFileSync(join(dir, ".out.unfinished"), "mine");
    expect(await refusal(stageResumable(join(dir, "out")))).toContain("this is no folder");
  });

  it("are tidied up where a kill has left them", async () => {
    const dir = fresh();
    const room = tree(unfinishedName(join(dir, "out")), {
      "folder/model.safetensors": "half",
      "journal.jsonl": "\0\0\0",
    });
    const stage = await stageResumable(join(dir, "out"));
    await stage.discard();
    expect(existsSync(room)).toBe(false);
    expect(readdirSync(dir)).toEqual([]);
  });

  it("an old version that somebody made a folder in the place of is kept", async () => {
    const dir = fresh();
    const out = join(dir, "out");
    tree(previousName(out), model);
    writeFileSync(join(dir, ".out.replacing"), "upcycle replaces the folder with number 1\n");
    tree(out, model);
    await restoreReplaced(out);
    expect(readdirSync(previousName(out)).sort()).toEqual(Object.keys(model));
    expect(await refusal(stageDirectory(out, { overwrite: true }))).toContain("this name is needed");
  });
});

/** Replaces a folder for ever with models of 40 files that all hold the same number. */
const replacer = `
  import fs from "node:fs";
  import { stageDirectory } from "${built("files/io/atomic.js")}";
  const out = process.argv[2];
  for (let round = 1; ; round++) {
    const stage = await stageDirectory(out, { overwrite: true });
    for (let i = 0; i < 40; i++) fs.writeFileSync(stage.path + "/model-" + i + ".safetensors", String(round));
    fs.writeFileSync(stage.path + "/config.json", JSON.stringify({ model_type: String(round) }));
    await stage.commit();
    if (round === 2) fs.writeSync(1, "begun");
  }`;

it("a kill while a folder is replaced leaves the old one or the new one, whole", async () => {
  const random = randomStream(Date.now(), "kill");
  const dir = fresh();
  const out = join(dir, "out");
  for (let kill = 0; kill < 6; kill++) {
    const { process: child, ended } = runScript(replacer, [out]);
    child.stdout?.once("data", () => setTimeout(() => child.kill("SIGKILL"), random.uniformAt(kill) * 60));
    expect(await ended).toMatchObject({ signal: "SIGKILL", stderr: "" });
    await restoreReplaced(out);
    const names = readdirSync(out);
    expect(names.length).toBe(41);
    const { model_type: round } = JSON.parse(readFileSync(join(out, "config.json"), "utf8")) as { model_type: string };
    for (const name of names) if (name !== "config.json") expect(readFileSync(join(out, name), "utf8")).toBe(round);
  }
  // What the kills have left is tidied up by the next replacement.
  const stage = await stageDirectory(out, { overwrite: true });
  await stage.discard();
  expect(readdirSync(dir)).toEqual(["out"]);
});

/** Every state that a kill can leave between two steps of a replacement. */
it("the next start ends a replacement that was cut off after any of its steps", async () => {
  const steps = 4;
  for (let cut = 0; cut <= steps; cut++) {
    const dir = fresh();
    const out = tree(join(dir, "out"), model);
    const next = tree(join(dir, ".out.partial-4194305"), { "config.json": "new" });
    const number = lstatSync(next, { bigint: true }).ino;
    if (cut > 0) writeFileSync(join(dir, ".out.replacing"), `upcycle replaces the folder with number ${number}\n`);
    if (cut > 1) renameSync(out, previousName(out));
    if (cut > 2) renameSync(next, out);
    if (cut > 3) renameSync(join(previousName(out), "config.json"), join(dir, "gone"));
    await restoreReplaced(out);
    expect(readFileSync(join(out, "config.json"), "utf8")).toBe(cut > 2 ? "new" : model["config.json"]);
    expect(readdirSync(out).sort()).toEqual(cut > 2 ? ["config.json"] : Object.keys(model));
    expect(readdirSync(dir).filter((name) => name.includes("previous") || name.includes("replacing"))).toEqual([]);
  }
});

it.each(["", "upcycle repl", "upcycle replaces the folder with number 12"])(
  "a mark that was cut off after %j is removed by the next start",
  async (words) => {
    const dir = fresh();
    const out = tree(join(dir, "out"), model);
    writeFileSync(join(dir, ".out.replacing"), words);
    await restoreReplaced(out);
    expect(readdirSync(dir)).toEqual(["out"]);
  },
);

it("a file of somebody else's by the name of the mark stays", async () => {
  const dir = fresh();
  const out = tree(join(dir, "out"), model);
  writeFileSync(join(dir, ".out.replacing"), "my notes");
  await restoreReplaced(out);
  expect(readdirSync(dir).sort()).toEqual([".out.replacing", "out"]);
});

describe("a file that is written", () => {
  it("does not touch what has the name that it is written under first", async () => {
    const dir = fresh();
    const taken = `.a.partial-${process.pid}@${hostMark}`;
    writeFileSync(join(dir, "thesis.txt"), "mine");
    symlinkSync("thesis.txt", join(dir, taken));
    writeFileSync(join(dir, `${taken}-1`), "mine");
    await writeFileAtomic(join(dir, "a"), "new");
    expect(readFileSync(join(dir, "a"), "utf8")).toBe("new");
    expect(readFileSync(join(dir, "thesis.txt"), "utf8")).toBe("mine");
    expect(readdirSync(dir).sort()).toEqual([taken, `${taken}-1`, "a", "thesis.txt"]);
  });

  it("goes behind a link, which stays, and never in the place of a device", async () => {
    const dir = fresh();
    writeFileSync(join(dir, "real"), "old");
    symlinkSync("real", join(dir, "link"));
    await writeFileAtomic(join(dir, "link"), "new");
    expect(lstatSync(join(dir, "link")).isSymbolicLink()).toBe(true);
    expect(readFileSync(join(dir, "real"), "utf8")).toBe("new");
    if (existsSync("/dev/null")) {
      symlinkSync("/dev/null", join(dir, "null"));
      expect(await refusal(writeFileAtomic(join(dir, "null"), "x"))).toBe(
        `ROOT/${dir.slice(root.length + 1)}/null: this is a device, expected a file; name a file to be made; ` +
          "results on stdout can be redirected",
      );
    }
  });

  it("under a name that a user chose replaces what the command writes itself, and nothing else", async () => {
    const dir = fresh();
    const ask = (name: string): Promise<void> => requireFilePlace(join(dir, name), "page of this command", isOwnPage);
    tree(dir, {
      "page.html": '<!doctype html>\n<meta name="generator" content="upcycle 0.1.0">',
      empty: "",
      "thesis.txt": "mine",
      "site.html": "<!doctype html><p>mine",
    });
    for (const name of ["new.html", "page.html", "empty"]) await ask(name);
    for (const name of ["thesis.txt", "site.html"])
      expect(await refusal(ask(name))).toContain(
        `${name}: file exists and is no page of this command, so it is not replaced; choose another name, or ` +
          "move it away first",
      );
    expect(await refusal(ask("."))).toContain("this is a folder, expected a file");
    expect(await refusal(ask("nowhere/page.html"))).toContain("cannot write file: its folder does not exist");
    expect(await refusal(requireFilePlace("", "page", isOwnPage))).toContain("the name of the file to make is empty");
  });
});

it("several commands may remove one folder at the same time", async () => {
  const folder = join(fresh(), "left");
  tree(folder, model);
  for (let shard = 0; shard < 50; shard++) writeFileSync(join(folder, `model-${shard}-of-50.safetensors`), "");
  const removed = await Promise.all(Array.from({ length: 4 }, () => removeModelFolder(folder)));
  expect([removed, existsSync(folder)]).toEqual([[true, true, true, true], false]);
});
