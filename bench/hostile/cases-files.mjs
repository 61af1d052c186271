/**
 * Pipes, devices, folders, links that lead nowhere and sparse files in the place of every file that a command reads.
 */
import { rmSync } from "node:fs";
import { createServer } from "node:net";
import { rotated, strange, studyFile, trainFile } from "./box.mjs";

/**
 * One role for each file that is read: `file`, and `make(box)`, which prepares all and returns the arguments; then
 * something strange takes its place.
 */
const roles = [
  { role: "config.json", file: "m/config.json", make: (b) => (b.copy("dense", "m"), ["inspect", "m"]) },
  { role: "model.safetensors", file: "m/model.safetensors", make: (b) => (b.copy("dense", "m"), ["inspect", "m"]) },
  {
    role: "index of shards",
    file: "m/model.safetensors.index.json",
    make: (b) => (b.copy("golden/moe/mixtral", "m"), ["inspect", "m"]),
  },
  {
    role: "shard",
    file: "m/model-00002-of-00003.safetensors",
    make: (b) => (b.copy("golden/moe/mixtral", "m"), ["inspect", "m"]),
  },
  {
    role: "pickled weights",
    file: "m/pytorch_model.bin",
    make: (b) => (b.copy("golden/dense/llama", "m"), rmSync(b.at("m/model.safetensors")), ["inspect", "m"]),
  },
  {
    role: "tokenizer.json, inspected",
    file: "m/tokenizer.json",
    optional: true,
    make: (b) => (b.copy("dense", "m"), ["inspect", "m"]),
  },
  {
    role: "README.md, inspected",
    file: "m/README.md",
    optional: true,
    make: (b) => (b.copy("dense", "m"), ["inspect", "m"]),
  },
  {
    role: "generation_config.json, converted",
    file: "m/generation_config.json",
    optional: true,
    make: (b) => (b.copy("dense", "m"), ["convert", "m", "--recipe", "E2G1T1", "--out", "out"]),
  },
  {
    role: "README.md, converted",
    file: "m/README.md",
    optional: true,
    make: (b) => (b.copy("dense", "m"), ["convert", "m", "--recipe", "E2G1T1", "--out", "out", "--no-report"]),
  },
  {
    role: "tokenizer.json, converted",
    file: "m/tokenizer.json",
    optional: true,
    make: (b) => (b.copy("dense", "m"), ["convert", "m", "--recipe", "E2G1T1", "--out", "out"]),
  },
  {
    role: "tokenizer_config.json, converted",
    file: "m/tokenizer_config.json",
    optional: true,
    make: (b) => (b.copy("dense", "m"), ["convert", "m", "--recipe", "E2G1T1", "--out", "out", "--no-report"]),
  },
  {
    role: "upcycle.json, merged",
    file: "m/upcycle.json",
    optional: true,
    make: (b) => (b.copy("moe", "m"), ["merge", "m", "--out", "out"]),
  },
  {
    role: "text of convert",
    file: "t.txt",
    make: (b) => (b.copy("dense", "m"), ["convert", "m", "--recipe", "E2G1T1", "--out", "out", "--text", "t.txt"]),
    may: /^out/,
    expect: [0, 2],
  },
  {
    role: "recipe file",
    file: "r.yaml",
    make: (b) => (b.copy("dense", "m"), ["convert", "m", "--recipe", "r.yaml", "--out", "out"]),
  },
  { role: "mergekit file", file: "k.yaml", make: () => ["convert", "--mergekit", "k.yaml", "--out", "out"] },
  {
    role: "weights of merge",
    file: "w.json",
    make: (b) => (b.copy("moe", "m"), ["merge", "m", "--weights", "w.json", "--out", "out"]),
  },
  {
    role: "text of verify",
    file: "t.txt",
    make: (b) => (b.copy("dense"), b.copy("moe"), ["verify", "dense", "moe", "--text", "t.txt"]),
  },
  {
    role: "config.json, compared",
    file: "b/config.json",
    make: (b) => (b.copy("dense", "a"), b.copy("dense", "b"), ["diff", "a", "b"]),
  },
  {
    role: "weights, compared",
    file: "b/model.safetensors",
    make: (b) => (b.copy("dense", "a"), b.copy("dense", "b"), ["diff", "a", "b"]),
  },
  {
    role: "ids of forward",
    file: "i.safetensors",
    make: (b) => (b.copy("dense"), ["forward", "dense", "--input-ids", "i.safetensors", "--output", "o.safetensors"]),
  },
  {
    role: "weights, exported",
    file: "m/model.safetensors",
    make: (b) => (b.copy("dense", "m"), ["export-onnx", "m", "--out", "m.onnx"]),
  },
  {
    role: "tokenizer.json, generating",
    file: "m/tokenizer.json",
    make: (b) => (b.copy("dense", "m"), ["generate", "m", "--prompt", "the", "--max-new-tokens", "2"]),
  },
  {
    role: "tokenizer_config.json, generating",
    file: "m/tokenizer_config.json",
    optional: true,
    make: (b) => (b.copy("dense", "m"), ["generate", "m", "--prompt", "the", "--max-new-tokens", "2"]),
  },
  {
    role: "prompts of generate",
    file: "p.txt",
    make: (b) => (b.copy("dense"), ["generate", "dense", "--prompts", "p.txt", "--max-new-tokens", "2"]),
  },
  { role: "text of perplexity", file: "t.txt", make: (b) => (b.copy("dense"), ["perplexity", "dense", "t.txt"]) },
  { role: "table of fit", file: "t.csv", make: () => ["fit", "t.csv", "--law", "chinchilla"] },
  {
    role: "hardware of plan",
    file: "h.yaml",
    make: () => ["plan", "--preset", "llama-2-7b", "--tokens", "1B", "--hardware", "h.yaml"],
    okEmpty: true,
  },
  {
    role: "coefficients of plan",
    file: "c.json",
    make: () => ["plan", "--preset", "llama-2-7b", "--tokens", "1B", "--coefficients", "c.json"],
  },
  {
    role: "config.json, planned",
    file: "m/config.json",
    make: (b) => (b.copy("dense", "m"), ["plan", "m", "--tokens", "1B"]),
  },
  { role: "config.json of targets", file: "m/config.json", make: (b) => (b.copy("dense", "m"), ["targets", "m"]) },
  { role: "train file", file: "train.yaml", make: () => ["train", "train.yaml"] },
  {
    role: "text of train",
    file: "text.txt",
    make: (b) => (b.file("train.yaml", trainFile()), ["train", "train.yaml"]),
  },
  { role: "study file", file: "study.yaml", make: () => ["study", "study.yaml"] },
  {
    role: "text of study",
    file: "text.txt",
    make: (b) => (b.file("study.yaml", studyFile()), ["study", "study.yaml", "--out", "run"]),
  },
  {
    role: "adapter_config.json",
    file: "a/adapter_config.json",
    make: (b) => (b.copy("golden/dense/llama", "m"), b.copy("golden/adapters/llama", "a"), ["inspect", "m+a"]),
  },
  {
    role: "adapter_model.safetensors",
    file: "a/adapter_model.safetensors",
    make: (b) => (b.copy("golden/dense/llama", "m"), b.copy("golden/adapters/llama", "a"), ["inspect", "m+a"]),
  },
];

/** A pipe is read to its end, and waits for whoever writes: it says so after two seconds, and Ctrl-C ends it. */
const streamed = ["prompts of generate", "text of perplexity", "table of fit"];
const waits = {
  expect: [130],
  says: /^reading \S+ to its end$/m,
  signals: [{ when: /reading \S+ to its end/, signal: "SIGINT" }],
};

const fileCases = roles.flatMap(({ role, file, make, optional = false, okEmpty = false, may, expect }, row) =>
  strange.map((kind, column) => ({
    name: `files: ${kind} as ${role}`,
    more: rotated(row, column, strange.length),
    // What a model can do without is left out with a warning, or refused.
    expect: expect ?? (optional || (okEmpty && kind === "empty") ? [0, 2] : [2]),
    may: may ?? (optional ? /^out|^\.out/ : /^run/),
    make(b) {
      const args = make(b);
      b.put(file, kind);
      return args;
    },
    ...(kind === "fifo" && streamed.includes(role) && waits),
  })),
);

/** Streams where they make sense, given as a shell gives them. */
const streamCases = [
  {
    name: "streams: fit of a substituted process",
    expect: [0],
    make: (b) => (b.copy("f.csv"), { sh: "upcycle fit <(cat f.csv) --law chinchilla" }),
  },
  {
    name: "streams: fit of a pipe on standard input",
    expect: [0],
    make: (b) => (b.copy("f.csv"), { sh: "cat f.csv | (upcycle fit /dev/stdin --law chinchilla)" }),
  },
  {
    name: "streams: fit of standard input as -",
    expect: [0],
    make: (b) => (b.copy("f.csv"), { sh: "cat f.csv | (upcycle fit - --law chinchilla)" }),
  },
  {
    name: "streams: perplexity of a substituted process",
    expect: [0],
    make: (b) => (
      b.copy("dense"),
      b.copy("text.txt"),
      { sh: "upcycle perplexity dense <(cat text.txt) --sequence 32" }
    ),
  },
  {
    name: "streams: perplexity of standard input as -",
    expect: [0],
    make: (b) => (
      b.copy("dense"),
      b.copy("text.txt"),
      { sh: "cat text.txt | (upcycle perplexity dense - --sequence 32)" }
    ),
  },
  {
    name: "streams: prompts from a substituted process",
    expect: [0],
    data: true,
    make: (b) => (b.copy("dense"), { sh: "upcycle generate dense --prompts <(echo the whale) --max-new-tokens 2" }),
  },
  {
    name: "streams: prompts from standard input as -",
    expect: [0],
    data: true,
    make: (b) => (b.copy("dense"), { sh: "echo the whale | (upcycle generate dense --prompts - --max-new-tokens 2)" }),
  },
  {
    name: "streams: fit of /dev/zero",
    expect: [2],
    memory: 400,
    make: () => ["fit", "/dev/zero", "--law", "chinchilla"],
  },
  {
    name: "streams: fit of an endless pipe",
    expect: [2],
    seconds: 60,
    memory: 1500,
    make: () => ({ sh: "upcycle fit <(yes 1,2,3) --law chinchilla" }),
  },
  {
    name: "streams: perplexity of an endless pipe",
    expect: [2],
    seconds: 60,
    memory: 2500,
    make: (b) => (b.copy("dense"), { sh: "upcycle perplexity dense <(yes the whale)" }),
  },
  {
    name: "streams: prompts from an endless pipe",
    expect: [2],
    seconds: 60,
    memory: 1500,
    make: (b) => (b.copy("dense"), { sh: "upcycle generate dense --prompts <(yes the whale) --max-new-tokens 2" }),
  },
  {
    name: "streams: perplexity of /dev/null",
    expect: [2],
    make: (b) => (b.copy("dense"), ["perplexity", "dense", "/dev/null"]),
  },
  { name: "streams: fit of /dev/null", expect: [2], make: () => ["fit", "/dev/null", "--law", "chinchilla"] },
  { name: "streams: a device as a model", expect: [2], make: () => ["inspect", "/dev/zero"] },
  {
    name: "streams: a file of /proc as a text",
    expect: [0, 2],
    make: (b) => (b.copy("dense"), ["perplexity", "dense", "/proc/self/maps"]),
  },
  {
    name: "streams: a socket as a table",
    expect: [2],
    make: async (b) => {
      const server = createServer();
      await new Promise((done) => server.listen(b.at("s.sock"), done));
      b.closers.push(() => new Promise((done) => server.close(done)));
      return ["fit", "s.sock", "--law", "chinchilla"];
    },
  },
];

export const cases = [...fileCases, ...streamCases];
