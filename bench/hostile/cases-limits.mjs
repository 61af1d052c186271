/** Full disks, closed streams, few open files, little memory, and signals in the middle of long work. */
import { rotated, safetensors, studyFile, trainFile } from "./box.mjs";

/** Every command that prints, at its shortest. */
const printing = {
  help: () => ["--help"],
  version: () => ["--version"],
  "help of a command": () => ["convert", "--help"],
  "no words": () => [],
  inspect: (b) => (b.copy("dense"), ["inspect", "dense", "--tensors"]),
  "inspect as JSON": (b) => (b.copy("dense"), ["inspect", "dense", "--json"]),
  targets: (b) => (b.copy("dense"), ["targets", "dense"]),
  diff: (b) => (b.copy("dense"), b.copy("dense", "other"), ["diff", "dense", "other"]),
  plan: () => ["plan", "--preset", "llama-2-7b", "--tokens", "1B", "--draws", "5"],
  fit: (b) => (b.copy("f.csv"), ["fit", "f.csv", "--law", "chinchilla"]),
  generate: (b) => (b.copy("dense"), ["generate", "dense", "--prompt", "the", "--max-new-tokens", "3"]),
  perplexity: (b) => (b.copy("dense"), b.copy("text.txt"), ["perplexity", "dense", "text.txt", "--sequence", "32"]),
  "convert --dry-run": (b) => (b.copy("dense"), ["convert", "dense", "--recipe", "E2G1T1", "--dry-run"]),
  convert: (b) => (b.copy("dense"), ["convert", "dense", "--recipe", "E2G1T1", "--out", "out", "--no-report"]),
  merge: (b) => (b.copy("moe"), ["merge", "moe", "--out", "out"]),
  verify: (b) => (b.copy("dense"), b.copy("moe"), ["verify", "dense", "moe", "--tokens", "64", "--sequence", "32"]),
  forward: (b) => (
    b.copy("dense"),
    b.copy("ids.safetensors"),
    ["forward", "dense", "--input-ids", "ids.safetensors", "--output", "out.safetensors"]
  ),
  "export-onnx": (b) => (b.copy("dense"), ["export-onnx", "dense", "--out", "out.onnx", "--sequence", "16"]),
  train: (b) => (b.copy("text.txt"), b.file("train.yaml", trainFile()), ["train", "train.yaml"]),
  study: (b) => (b.copy("text.txt"), b.file("study.yaml", studyFile()), ["study", "study.yaml", "--out", "run"]),
};
const quote = (args) => args.map((arg) => `'${arg}'`).join(" ");
const shell = (make, sh) => (b) => ({ sh: sh.replace("COMMAND", `upcycle ${quote(make(b))}`) });
const outputs = /^(\.?out|run|\.run)/;

const fullDisk = Object.entries(printing).map(([what, make]) => ({
  name: `limits: ${what} > /dev/full`,
  expect: [1],
  may: outputs,
  make: shell(make, "COMMAND > /dev/full"),
}));
const closed = Object.entries(printing)
  .filter(([what]) => ["inspect", "version", "help", "generate", "train", "fit", "diff"].includes(what))
  .flatMap(([what, make], row) =>
    [
      { name: `limits: ${what} with stdout closed`, expect: [0, 1], may: outputs, make: shell(make, "COMMAND >&-") },
      {
        name: `limits: ${what} with stderr on a full disk`,
        expect: [0, 1],
        silent: true,
        data: true,
        may: outputs,
        make: shell(make, "COMMAND 2> /dev/full"),
      },
      {
        name: `limits: ${what} with all streams closed`,
        expect: [0, 1],
        silent: true,
        may: outputs,
        make: shell(make, "COMMAND <&- >&- 2>&-"),
      },
      {
        name: `limits: ${what} into a reader that leaves`,
        expect: [0],
        data: true,
        may: outputs,
        make: (b) => ({ sh: `set -o pipefail; (upcycle ${quote(make(b))}) | true` }),
      },
    ].map((one, column, { length }) => ({ ...one, more: rotated(row, column, length) })),
  );

const worker = ["inspect", "convert", "merge", "verify", "train", "generate", "export-onnx", "diff", "fit", "study"];
const resources = worker.flatMap((what, row) =>
  [
    ...[64, 128, 32].map((n) => ({
      name: `limits: ${what} with ${n} open files`,
      expect: [0, 1],
      may: outputs,
      seconds: 60,
      data: what === "generate",
      make: shell(printing[what], `ulimit -n ${n}; COMMAND`),
    })),
    // V8 reserves address space by the gigabyte for every thread, and ends the process where there is none: 4 GB are
    // too few.
    ...[6e9, 8e9].map((bytes) => ({
      name: `limits: ${what} with ${bytes / 1e9} GB of address space`,
      expect: [0, 1],
      may: outputs,
      data: what === "generate",
      make: shell(printing[what], `ulimit -v ${bytes / 1000}; COMMAND`),
    })),
  ].map((one, column, { length }) => ({ ...one, more: what !== "convert" && rotated(row, column, length) })),
);
const smallFiles = ["convert", "merge", "train", "export-onnx", "forward", "study"].map((what) => ({
  name: `limits: ${what} with files of at most 2 kB`,
  expect: [1],
  may: outputs,
  make: shell(printing[what], "ulimit -f 2; COMMAND"),
}));
const core = [
  {
    name: "limits: convert with a stack of 512 kB",
    expect: [0, 1],
    may: outputs,
    make: shell(printing.convert, "ulimit -s 512; COMMAND"),
  },
  {
    name: "limits: a working folder that is gone",
    expect: [0, 1, 2],
    make: (b) => (b.file("gone/x", ""), { sh: "cd gone; rm -r ../gone; upcycle inspect ../dense", may: /^gone/ }),
  },
  {
    name: "limits: help in a working folder that is gone",
    expect: [0],
    make: (b) => (b.file("gone/x", ""), { sh: "cd gone; rm -r ../gone; upcycle --help", may: /^gone/ }),
  },
  {
    name: "limits: no HOME",
    expect: [0],
    data: true,
    make: shell(printing.generate, "unset HOME UPCYCLE_CACHE; COMMAND"),
  },
  {
    name: "limits: a cache that cannot be made",
    expect: [0],
    data: true,
    make: shell(printing.generate, "export UPCYCLE_CACHE=/proc/nothing; COMMAND"),
  },
  {
    name: "limits: a file in the place of the cache",
    expect: [0],
    data: true,
    make: (b) => (b.file("cache", "mine"), shell(printing.generate, "export UPCYCLE_CACHE=$PWD/cache; COMMAND")(b)),
  },
  {
    name: "limits: a pipe as the cache",
    expect: [0],
    data: true,
    make: (b) => (b.put("cache", "fifo"), shell(printing.generate, "export UPCYCLE_CACHE=$PWD/cache; COMMAND")(b)),
  },
  {
    name: "limits: TMPDIR that is not there",
    expect: [0, 1, 2],
    may: outputs,
    make: shell(printing.train, "export TMPDIR=/nowhere; COMMAND"),
  },
  {
    name: "limits: TERM=dumb, COLUMNS=1",
    expect: [0],
    make: shell(printing.inspect, "export TERM=dumb COLUMNS=1; COMMAND"),
  },
  {
    name: "limits: 500,000 threads",
    expect: [0, 1, 2],
    may: outputs,
    make: (b) => [...printing.convert(b), "--threads", "500000"],
  },
  {
    name: "limits: 1,024 threads",
    expect: [0, 1, 2],
    may: outputs,
    make: (b) => [...printing.convert(b), "--threads", "1024"],
  },
  {
    name: "limits: 1,024 threads to generate",
    expect: [0, 1, 2],
    data: true,
    make: (b) => [...printing.generate(b), "--threads", "1024"],
  },
];

/** A header of so many tensors, by text: it is long. */
const many = (count, line) => safetensors(`{${Array.from({ length: count }, (_, i) => line(i)).join(",")}}`);
const halfMillion = (b, name) => {
  b.copy("dense", name);
  b.shared(`${name}/model.safetensors`, "many.safetensors", () =>
    many(500_000, (i) => `"model.layers.${i}.empty.weight":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}`),
  );
};
const sizes = [
  {
    name: "size: inspect of 500,000 tensors",
    expect: [0, 2],
    seconds: 15,
    memory: 700,
    make: (b) => (halfMillion(b, "m"), ["inspect", "m"]),
  },
  {
    name: "size: inspect --tensors of 500,000",
    expect: [0, 2],
    seconds: 15,
    memory: 900,
    make: (b) => (halfMillion(b, "m"), ["inspect", "m", "--tensors"]),
  },
  {
    name: "size: convert of 500,000 tensors",
    expect: [0, 2],
    seconds: 20,
    memory: 900,
    may: outputs,
    make: (b) => (halfMillion(b, "m"), ["convert", "m", "--recipe", "E2G1T1", "--out", "out"]),
  },
  {
    name: "size: diff of 500,000 tensors",
    expect: [0, 2],
    seconds: 30,
    memory: 1500,
    make: (b) => (halfMillion(b, "m"), halfMillion(b, "n"), ["diff", "m", "n"]),
  },
  {
    name: "size: merge of 500,000 tensors",
    expect: [0, 2],
    seconds: 20,
    memory: 900,
    make: (b) => (halfMillion(b, "m"), ["merge", "m", "--out", "out"]),
  },
  {
    name: "size: generate with 500,000 tensors",
    expect: [0, 2],
    seconds: 20,
    memory: 900,
    make: (b) => (halfMillion(b, "m"), ["generate", "m", "--prompt", "x"]),
  },
  {
    name: "size: 100,000 files in a folder",
    expect: [0, 2],
    seconds: 60,
    make: (b) => {
      b.copy("dense", "m");
      return { sh: "cd m && seq -f 'x%.0f' 100000 | xargs touch && cd .. && upcycle inspect m", may: /^m\/x/ };
    },
  },
  {
    name: "size: E100000G1T2 --dry-run",
    expect: [0, 2],
    seconds: 30,
    memory: 1500,
    make: (b) => (b.copy("dense"), ["convert", "dense", "--recipe", "E100000G1T2", "--dry-run"]),
  },
  {
    name: "size: E100000G1T2 on a model of two layers",
    expect: [0, 2],
    seconds: 30,
    memory: 1500,
    make: (b) => (b.copy("golden/dense/llama", "m"), ["convert", "m", "--recipe", "E100000G1T2", "--dry-run"]),
  },
  ...["E8000G1T2", "E1000000G1T2", "E999999999999G1T1", "E2G1000000T2", "E9007199254740993G1T1"].map((recipe) => ({
    name: `size: ${recipe} --dry-run`,
    expect: [0, 2],
    seconds: 30,
    memory: 1500,
    make: (b) => (b.copy("dense"), ["convert", "dense", "--recipe", recipe, "--dry-run"]),
  })),
  ...["E100000G1T2", "E1000000000G1T1"].flatMap((recipe) => [
    {
      name: `size: targets --recipe ${recipe}`,
      expect: [0, 2],
      memory: 1500,
      make: (b) => (b.copy("dense"), ["targets", "dense", "--recipe", recipe]),
    },
    {
      name: `size: plan --recipe ${recipe}`,
      expect: [0, 2],
      memory: 1500,
      make: () => ["plan", "--preset", "llama-2-7b", "--tokens", "1B", "--recipe", recipe],
    },
  ]),
  {
    name: "size: --expert-multiply 100000",
    expect: [0, 2],
    memory: 1500,
    make: (b) => (b.copy("moe"), ["convert", "moe", "--expert-multiply", "100000", "--dry-run"]),
  },
  {
    name: "size: a text of one line of 20 MB",
    expect: [0, 1, 2],
    seconds: 60,
    // The tokenizer library holds up to 180 bytes for each character of the one call that a document is, and may hold
    // 600 (src/text/tokenizer/limits.ts) before it is ended.
    memory: 4500,
    make: (b) => (
      b.copy("dense"),
      b.shared("t.txt", "long.txt", () => "the whale ".repeat(2e6)),
      ["convert", "dense", "--recipe", "E2G1T1", "--out", "out", "--text", "t.txt"]
    ),
    may: outputs,
  },
];

/** Long work: how it is begun, what it says when it is under way, and the codes it ends with after each signal. */
const longTraining = (b, changes) => (
  b.copy("text.txt"),
  b.file(
    "train.yaml",
    trainFile({ training: { steps: 1_000_000, evalEvery: 1_000_000, saveEvery: 1_000_000, ...changes } }),
  ),
  ["train", "train.yaml"]
);
const longStudy = (b) => {
  const { training } = trainFile({ training: { steps: 1_000_000, evalEvery: 1_000_000, saveEvery: 1_000_000 } });
  b.copy("text.txt");
  b.file("study.yaml", studyFile({ pretrain: training, continue: training }));
  return ["study", "study.yaml", "--out", "run"];
};
const wide = (b) => {
  b.copy("golden/dense/llama", "m");
  return ["convert", "m"];
};
const long = {
  "a dry run of E100000G1T2": {
    when: 2500,
    make: (b) => [...wide(b), "--recipe", "E100000G1T2", "--dry-run"],
    early: true,
  },
  "a dry run of E8000G1T2": {
    when: 1500,
    make: (b) => [...wide(b), "--recipe", "E8000G1T2", "--dry-run"],
    early: true,
  },
  "a conversion to E8000G1T2": {
    when: 2500,
    make: (b) => [...wide(b), "--recipe", "E8000G1T2", "--out", "out", "--no-report"],
    early: true,
  },
  "a training": { when: /step 1\//, make: longTraining, saves: /sav|again|go on/ },
  "a study": { when: /step 1\//, make: longStudy, saves: /sav|again|go on/ },
  "the tokenizer of a training": {
    when: /learning the tokenizer/,
    make: (b) => {
      b.shared("text.txt", "words.txt", () =>
        Array.from({ length: 300_000 }, (_, i) => `${(i * 7919) % 100_003} ${Math.sin(i)}`).join("\n"),
      );
      b.file("train.yaml", trainFile({ tokenizer: { vocab: 30_000 } }));
      return ["train", "train.yaml"];
    },
    early: true,
  },
  "a generation": {
    when: 2500,
    make: (b) => (b.copy("dense"), ["generate", "dense", "--prompt", "the", "--max-new-tokens", "100000000"]),
    early: true,
    data: true,
  },
  "a bootstrap": {
    when: 3000,
    make: (b) => (b.copy("f.csv"), ["fit", "f.csv", "--law", "chinchilla", "--bootstrap", "1000000"]),
  },
  "a bootstrap on one thread": {
    when: 3000,
    make: (b) => (b.copy("f.csv"), ["fit", "f.csv", "--law", "chinchilla", "--bootstrap", "1000000", "--threads", "1"]),
  },
  "profiles of a fit": {
    when: 2000,
    make: (b) => (b.copy("f.csv"), ["fit", "f.csv", "--law", "A*N^-a+B*D^-b+E+F*N^-f*D^-g", "--profile", "--grid"]),
    early: true,
  },
  "a plan": {
    when: 2500,
    make: () => ["plan", "--preset", "llama-2-7b", "--tokens", "1B", "--draws", "1000000"],
    early: true,
  },
  "a perplexity": {
    when: 3000,
    make: (b) => (
      b.copy("dense"),
      b.shared("t.txt", "perplexity.txt", () => "the whale and the ship.\n".repeat(400_000)),
      ["perplexity", "dense", "t.txt", "--sequence", "32", "--stride", "1"]
    ),
  },
  "a verification": {
    when: 3000,
    make: (b) => (b.copy("dense"), b.copy("moe"), ["verify", "dense", "moe", "--tokens", "100000000"]),
    early: true,
  },
};
const numbers = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 };
const signalled = Object.entries(long).flatMap(([what, { when, make, early = false, saves, data = false }], row) =>
  Object.entries(numbers).map(([signal, code], column) => ({
    more: saves === undefined && row > 2 && column !== row % 3,
    name: `signals: ${signal} during ${what}`,
    seconds: 45,
    memory: 2000,
    data,
    may: outputs,
    // Where the work may be over, or refused, before the signal comes.
    expect: early ? [0, 1, 2, code] : [code],
    make: (b) => ({ args: make(b), signals: [{ when, signal }] }),
    ...(saves && {
      says: saves,
      after: (_, { signal: died }) => (died === null ? undefined : `${signal} killed it, and nothing was saved`),
    }),
  })),
);
const twice = [
  {
    name: "signals: SIGINT twice during a training",
    expect: [130],
    data: false,
    may: outputs,
    make: (b) => ({
      args: longTraining(b),
      signals: [
        { when: /step 1\//, signal: "SIGINT" },
        { when: /stopping/, signal: "SIGINT" },
      ],
    }),
  },
  {
    name: "signals: the terminal is gone during a training",
    expect: [0, 1, 129],
    silent: true,
    may: outputs,
    make: (b) => {
      longTraining(b, { steps: 3000 });
      return { sh: "(upcycle train train.yaml) 2>&1 | head -c 300 > /dev/null" };
    },
  },
];

/** What a run does with its own unfinished and finished work. */
const going = (name, expect, sh, options = {}) => ({
  name: `runs: ${name}`,
  expect,
  may: outputs,
  seconds: 60,
  ...options,
  make: (b) => {
    b.copy("text.txt");
    b.copy("dense");
    for (const [file, value] of Object.entries(options.files ?? {})) b.file(file, value);
    b.file("train.yaml", trainFile());
    b.file("more.yaml", trainFile({ training: { steps: 8 } }));
    b.file("other.yaml", trainFile({ training: { lr: { peak: 0.001 } } }));
    b.file("from.yaml", trainFile({ model: "dense", tokenizer: undefined }));
    return { sh };
  },
});
const first = '"$NODE" "$MAIN" train train.yaml > /dev/null 2>&1; ';
const runs = [
  going("a finished training again", [0], `${first}upcycle train train.yaml`, { shows: /already|finished/i }),
  // The rates of steps that are done depend on the length of a cosine, so it would be another run.
  going("a training whose steps grow under a cosine", [2], `${first}upcycle train more.yaml`, {
    says: /learning rate.*constant/,
  }),
  going(
    "a training whose steps grow at a constant rate",
    [0],
    '"$NODE" "$MAIN" train constant.yaml > /dev/null 2>&1; upcycle train longer.yaml',
    {
      files: Object.fromEntries(
        [
          ["constant.yaml", 5],
          ["longer.yaml", 8],
        ].map(([file, steps]) => [file, trainFile({ training: { steps, lr: { peak: 0.003, schedule: "constant" } } })]),
      ),
    },
  ),
  going("a training with another rate in the same folder", [2], `${first}upcycle train other.yaml`, {
    says: /lr|peak/,
  }),
  going(
    "a training whose parent was changed in place",
    [2],
    '"$NODE" "$MAIN" train from.yaml > /dev/null 2>&1; cp -r run/last/model.safetensors ' +
      "dense/model.safetensors; upcycle train from.yaml",
    { may: /^(run|dense)/ },
  ),
  going(
    "a training whose run.json is a pipe",
    [1, 2],
    `${first}rm run/run.json; mkfifo run/run.json; upcycle train train.yaml`,
  ),
  going(
    "a training whose run.json is cut off",
    [0, 1, 2],
    `${first}truncate -s 20 run/run.json; upcycle train train.yaml`,
  ),
  going(
    "a training whose metrics.jsonl is a pipe",
    [0, 1, 2],
    `${first}rm run/metrics.jsonl; mkfifo run/metrics.jsonl; upcycle train more.yaml`,
  ),
  going(
    "a training whose metrics.jsonl is garbage",
    [0, 1, 2],
    `${first}head -c 1000 /dev/urandom > run/metrics.jsonl; upcycle train more.yaml`,
  ),
  going(
    "a training whose checkpoint is cut off",
    [0, 1, 2],
    `${first}truncate -s 1000 run/last/model.safetensors; upcycle train more.yaml`,
  ),
  going(
    "a training whose optimizer is cut off",
    [0, 1, 2],
    `${first}truncate -s 1000 run/last/optimizer.safetensors; upcycle train more.yaml`,
  ),
  going(
    "a training whose last folder is a link",
    [0, 1, 2],
    `${first}mv run/last mine; ln -s ../mine run/last; upcycle train more.yaml`,
    { may: /^(run|mine)/ },
  ),
  going(
    "two trainings in one folder at once",
    [1, 2],
    'sed \'s/"steps":5/"steps":3000/\' train.yaml > long.yaml; "$NODE" "$MAIN" train long.yaml > /dev/null ' +
      "2>&1 & sleep 4; upcycle train long.yaml",
    { may: /^(run|long)/ },
  ),
  going(
    "fit of a folder of runs that is damaged",
    [0, 2],
    `${first}echo '{"x":' >> run/metrics.jsonl; upcycle fit . --law chinchilla`,
  ),
];

export const cases = [
  ...sizes,
  ...signalled,
  ...twice,
  ...fullDisk,
  ...closed,
  ...resources,
  ...smallFiles,
  ...core,
  ...runs,
];
