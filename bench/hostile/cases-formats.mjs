/** Configs, weights, pickles, tokenizers, adapters and mergekit files that lie, bomb, or are of another kind. */
import { readFileSync } from "node:fs";
import { deflateRawSync } from "node:zlib";
import { safetensors } from "./box.mjs";

const deep = (n, open = "[", close = "]") => open.repeat(n) + close.repeat(n);
const inspecting = (b, name = "m") => (b.copy("golden/dense/llama", name), ["inspect", name]);

const texts = {
  nothing: "",
  "a list": "[]",
  null: "null",
  "a string": '"x"',
  "a number": "1",
  "cut off": '{"model_type": "llama", "hidden_size": ',
  "nested a million deep": deep(1e6),
  "nested a million deep in a key": `{"model_type":"llama","x":${deep(1e6)}}`,
  "objects nested 100,000 deep": `${'{"a":'.repeat(1e5)}1${"}".repeat(1e5)}`,
  "UTF-16": Buffer.from('\ufeff{"model_type":"llama"}', "utf16le"),
  bytes: Buffer.from([0xff, 0xfe, 0, 1, 2, 0x1b]),
  zeros: Buffer.alloc(1000),
  "a key of 5 MB": `{"${"k".repeat(5e6)}":1,"model_type":"llama"}`,
  "a model type of 5 MB": `{"model_type":"${"k".repeat(5e6)}"}`,
  "60 MB of spaces": Buffer.alloc(60e6, " "),
  NaN: '{"model_type":"llama","hidden_size":NaN}',
  "a comment": '{/* x */"model_type":"llama"}',
};
const jsons = Object.entries(texts).map(([what, text]) => ({
  name: `json: config.json is ${what}`,
  expect: [2],
  make: (b) => (inspecting(b), b.file("m/config.json", text), ["inspect", "m"]),
}));
const doubled = [
  {
    name: "json: a byte order mark before config.json",
    expect: [0, 2],
    make: (b) => (inspecting(b), b.file("m/config.json", `\ufeff${b.read("m/config.json")}`), ["inspect", "m"]),
  },
  {
    name: "json: a key twice in config.json",
    expect: [0, 2],
    make: (b) => (
      inspecting(b),
      b.file("m/config.json", b.read("m/config.json").replace("{", '{"hidden_size": 7,')),
      ["inspect", "m"]
    ),
  },
];
const values = {
  hidden_size: [0, -1, 0.5, "32", null, 1e9, 1e308, 2 ** 53, [], {}, true],
  num_hidden_layers: [0, -1, 1e9, 1e15, "2", 1.5, null],
  num_attention_heads: [0, 3, 1e9, null],
  num_key_value_heads: [0, 3, 64],
  vocab_size: [0, 1e15, -5, "x"],
  intermediate_size: [0, 1e12],
  head_dim: [0, 7, -8],
  rms_norm_eps: ["x", -1, 1e308],
  rope_parameters: [
    [],
    "x",
    { rope_type: "yarn" },
    { rope_type: "\u001b[2J" },
    { rope_theta: 0, rope_type: "default" },
  ],
  max_position_embeddings: [0, -1, 1e300],
  model_type: [1, [], "", "__proto__", "constructor", "x".repeat(3000)],
  architectures: [1, ["x".repeat(3000)], []],
  hidden_act: ["__proto__", 1, "x\ny"],
  tie_word_embeddings: ["x", 1],
  dtype: ["x", 1, "__proto__"],
  layer_types: [["full_attention"], "x", [1, 2]],
  __proto__: [1],
  eos_token_id: ["x", 1e300, [[1]], -1],
};
const fields = Object.entries(values).flatMap(([key, list]) =>
  list.map((value, i) => ({
    more: i > 1,
    name: `json: ${key} is ${JSON.stringify(value).slice(0, 40)}`,
    expect: [0, 2],
    make: (b) => (
      inspecting(b),
      b.file(
        "m/config.json",
        b
          .read("m/config.json")
          .replace(new RegExp(`\\n  "${key}":[^\\n]*(?:\\n    [^\\n]*)*(?:\\n  [\\]}],?)?`), "")
          .replace("{", `{"${key}": ${JSON.stringify(value)},`)
          .replace(/,\s*}\s*$/, "}"),
      ),
      ["inspect", "m"]
    ),
  })),
);

/** Headers of model.safetensors, from the true one. */
const headers = {
  "longer than the file": (h) => safetensors(h, 100, 10n ** 9n),
  "of 2^63 bytes": (h) => safetensors(h, 100, 2n ** 63n),
  "of 2^64 - 1 bytes": (h) => safetensors(h, 100, 2n ** 64n - 1n),
  "of no bytes": (h) => safetensors(h, 100, 0),
  "cut off in its length": () => Buffer.from([1, 2, 3]),
  "of one byte": () => safetensors("x"),
  "no JSON": () => safetensors("not json", 100),
  "a list": () => safetensors("[]", 100),
  "nested 100,000 deep": () => safetensors(deep(1e5), 100),
  "of 100 MB of spaces": () => safetensors(" ".repeat(100_000_001), 0),
  empty: () => safetensors({}, 0),
  "metadata alone": () => safetensors({ __metadata__: { format: "pt" } }),
  "metadata of a number": (h) => safetensors({ __metadata__: 5, ...h }, 1e5),
  "with offsets that overlap": (h) => (
    each(h, (t) => (t.data_offsets = [0, t.data_offsets[1] - t.data_offsets[0]])),
    safetensors(h, 1e5)
  ),
  "with offsets beyond the end": (h) => (
    each(h, (t) => (t.data_offsets = t.data_offsets.map((x) => x + 1e9))),
    safetensors(h, 1e5)
  ),
  "with negative offsets": (h) => (each(h, (t) => (t.data_offsets = [-8, 8])), safetensors(h, 1e5)),
  "with offsets of 2^64": (h) =>
    safetensors(JSON.stringify(h).replace(/"data_offsets":\[\d+/, '"data_offsets":[18446744073709551616'), 1e5),
  "with offsets backwards": (h) => (each(h, (t) => t.data_offsets.reverse()), safetensors(h, 1e5)),
  "with offsets that are words": (h) => (each(h, (t) => (t.data_offsets = ["a", "b"])), safetensors(h, 1e5)),
  "with a shape that overflows": (h) => (each(h, (t) => (t.shape = [2 ** 32, 2 ** 32, 2 ** 32])), safetensors(h, 1e5)),
  "with negative sizes": (h) => (each(h, (t) => (t.shape = [-1, -4])), safetensors(h, 1e5)),
  "with sizes of 1e308": (h) => (each(h, (t) => (t.shape = [1e308, 1e308])), safetensors(h, 1e5)),
  "with no shapes": (h) => (each(h, (t) => delete t.shape), safetensors(h, 1e5)),
  "with unknown types": (h) => (each(h, (t) => (t.dtype = "Q9\u001b[31m")), safetensors(h, 1e5)),
  "with types of __proto__": (h) => (each(h, (t) => (t.dtype = "__proto__")), safetensors(h, 1e5)),
  "with a tensor twice": (h) =>
    safetensors(
      JSON.stringify(h).replace("{", '{"lm_head.weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'),
      1e5,
    ),
  "with a tensor of 100,000 sizes": (h) =>
    safetensors({ "a.weight": { dtype: "F32", shape: new Array(100_000).fill(1), data_offsets: [0, 4] }, ...h }, 1e5),
  "with a tensor that is null": (h) => safetensors({ ...h, "a.weight": null }, 1e5),
  "with a name of 1 MB": (h) =>
    safetensors({ ...h, ["n".repeat(1e6)]: { dtype: "F32", shape: [0], data_offsets: [0, 0] } }, 1e5),
  "with holes": (h) => (
    each(h, (t, i) => (t.data_offsets = t.data_offsets.map((x) => x + 64 * i))),
    safetensors(h, 1e6)
  ),
  "with nothing behind it": (h) => safetensors(h, 0),
  "with more behind it": (h) => safetensors(h, 1e6),
  "with a tensor of __proto__": (h) =>
    safetensors(JSON.stringify(h).replace("{", '{"__proto__":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},'), 1e5),
  "with tensors of another shape": (h) => (each(h, (t) => t.shape.push(1)), safetensors(h, 100_000)),
  "with an unknown tensor": (h, data) =>
    Buffer.concat([
      safetensors({ ...h, "lora.magic": { dtype: "F32", shape: [0], data_offsets: [data.length, data.length] } }),
      data,
    ]),
};
function each(header, change) {
  Object.entries(header)
    .filter(([name]) => name !== "__metadata__")
    .forEach(([, tensor], i) => change(tensor, i));
}
const split = (bytes) => {
  const length = Number(bytes.readBigUInt64LE(0));
  return [JSON.parse(bytes.subarray(8, 8 + length)), bytes.subarray(8 + length)];
};
const damaged = (b, make) => {
  const path = b.at("m/model.safetensors");
  b.file("m/model.safetensors", make(...split(readFileSync(path))));
};
const lies = Object.entries(headers).flatMap(([what, make], i) => [
  {
    name: `safetensors: a header ${what}`,
    expect: [0, 2],
    make: (b) => (inspecting(b), damaged(b, make), ["inspect", "m", "--tensors"]),
  },
  {
    more: i % 4 !== 0,
    name: `safetensors: converting a header ${what}`,
    expect: [0, 2],
    may: /^out/,
    make: (b) => (
      inspecting(b),
      damaged(b, make),
      ["convert", "m", "--recipe", "E2G1T1", "--out", "out", "--no-report"]
    ),
  },
]);
const ofWeights = { NaN: 0x7fc00000, infinity: 0x7f800000 };
const numbers = Object.entries(ofWeights).flatMap(([what, bits]) =>
  [
    "generate m --prompt the --max-new-tokens 2",
    "perplexity m text.txt --sequence 32",
    "verify dense m --tokens 64",
    "convert m --recipe E2G1T1 --out out",
    "diff dense m",
  ].map((words, i) => ({
    more: what === "infinity" && i > 0,
    name: `safetensors: weights of ${what}, ${words.split(" ")[0]}`,
    expect: [0, 1, 2],
    data: words.startsWith("generate"),
    may: /^out/,
    make: (b) => {
      b.copy("dense");
      b.copy("dense", "m");
      b.copy("text.txt");
      const bytes = readFileSync(b.at("m/model.safetensors"));
      for (let at = bytes.length - 4000; at < bytes.length; at += 4) bytes.writeUInt32LE(bits, at);
      b.file("m/model.safetensors", bytes);
      return words.split(" ");
    },
  })),
);

const index = (change) => (b) => (
  b.copy("golden/moe/mixtral", "m"),
  b.file("outside.safetensors", "mine"),
  b.edit("m/model.safetensors.index.json", (value) => change(value)),
  ["inspect", "m"]
);
const rename = (to) => (value) => ({
  ...value,
  weight_map: Object.fromEntries(
    Object.entries(value.weight_map).map(([name], i) => [name, i === 0 ? to : Object.values(value.weight_map)[i]]),
  ),
});
const indexes = [
  ...[
    "../outside.safetensors",
    "/etc/passwd",
    "..",
    ".",
    "",
    "a\u0000b",
    "\u001b[2J.safetensors",
    "x".repeat(5000),
    "con\nfig",
    "missing.safetensors",
    "config.json",
  ].map((to) => [`names ${JSON.stringify(to).slice(0, 40)}`, rename(to)]),
  ["names a number", rename(5)],
  ["is a list", () => []],
  ["has no map", () => ({})],
  ["has a map that is a list", () => ({ weight_map: [] })],
  ["has an empty map", () => ({ weight_map: {} })],
  ["names a tensor of __proto__", (value) => ({ weight_map: { ...value.weight_map, ["__proto__"]: "x" } })],
  [
    "puts a tensor into another shard",
    (value) => ({
      ...value,
      weight_map: { ...value.weight_map, "lm_head.weight": "model-00001-of-00003.safetensors" },
    }),
  ],
].map(([what, change]) => ({ name: `safetensors: an index that ${what}`, expect: [0, 2], make: index(change) }));

/**
 * A zip archive as torch.save writes one, around any bytes of pickle; `inflated` claims and holds as many zeros,
 * deflated.
 */
function archive(pickle, { inflated = 0 } = {}) {
  const entry = (name, bytes, method, size) => ({ name: Buffer.from(name), bytes, method, size });
  const zeros = inflated === 0 ? [] : [entry("archive/data/0", deflateRawSync(Buffer.alloc(inflated)), 8, inflated)];
  const entries = [
    entry("archive/data.pkl", pickle, 0, pickle.length),
    entry("archive/version", Buffer.from("3\n"), 0, 2),
    ...zeros,
  ];
  const parts = [];
  const central = [];
  let at = 0;
  for (const { name, bytes, method, size } of entries) {
    const local = Buffer.alloc(30);
    local.writeUInt32LE(0x04034b50, 0);
    local.writeUInt16LE(20, 4);
    local.writeUInt16LE(method, 8);
    local.writeUInt32LE(bytes.length, 18);
    local.writeUInt32LE(size, 22);
    local.writeUInt16LE(name.length, 26);
    const head = Buffer.alloc(46);
    head.writeUInt32LE(0x02014b50, 0);
    head.writeUInt16LE(20, 6);
    head.writeUInt16LE(method, 10);
    head.writeUInt32LE(bytes.length, 20);
    head.writeUInt32LE(size, 24);
    head.writeUInt16LE(name.length, 28);
    head.writeUInt32LE(at, 42);
    parts.push(local, name, bytes);
    central.push(head, name);
    at += local.length + name.length + bytes.length;
  }
  const tail = Buffer.alloc(22);
  const listed = Buffer.concat(central);
  tail.writeUInt32LE(0x06054b50, 0);
  tail.writeUInt16LE(entries.length, 8);
  tail.writeUInt16LE(entries.length, 10);
  tail.writeUInt32LE(listed.length, 12);
  tail.writeUInt32LE(at, 16);
  return Buffer.concat([...parts, listed, tail]);
}
const pickles = [
  ["calls a shell", () => archive(Buffer.from("cos\nsystem\n(S'touch owned'\ntR."))],
  ["calls eval", () => archive(Buffer.from("\x80\x02cbuiltins\neval\nX\x01\x00\x00\x001\x85R.", "latin1"))],
  ["calls a shell in the old form", () => Buffer.from("cos\nsystem\n(S'touch owned'\ntR.")],
  ["is nothing but marks", () => archive(Buffer.alloc(2_000_000, "("))],
  ["nests a million tuples", () => archive(Buffer.from(`\x80\x02)${"\x85".repeat(1e6)}.`, "latin1"))],
  ["doubles a list 60 times", () => archive(Buffer.from(`\x80\x02](${"2".repeat(60)}e.`, "latin1"))],
  ["has no end", () => archive(Buffer.from("\x80\x02}q\x00(", "latin1"))],
  ["asks for a long of 2 GB", () => archive(Buffer.from("\x80\x02\x8b\xff\xff\xff\x7f.", "latin1"))],
  [
    "asks for a text of 2^62 bytes",
    () => archive(Buffer.from("\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x3f.", "latin1")),
  ],
  ["is deflated to 1 GB", () => archive(Buffer.from("\x80\x02}.", "latin1"), { inflated: 1e9 })],
  ["is no archive", () => Buffer.from("hello")],
  ["is an archive of nothing", () => archive(Buffer.alloc(0))],
  ["refers to a memo that is not there", () => archive(Buffer.from("\x80\x02h\x05.", "latin1"))],
  ["is a script", () => Buffer.from("#!/bin/sh\ntouch owned\n")],
  ["is cut off", (golden) => golden.subarray(0, golden.length / 2)],
  ["ends in the middle of its list", (golden) => golden.subarray(0, golden.length - 100)],
].map(([what, make]) => ({
  name: `pickle: pytorch_model.bin that ${what}`,
  expect: [2],
  memory: 500,
  make: (b) => {
    b.copy("golden/dense/llama", "m");
    b.copy("golden/pickled/tensors.bin", "golden.bin");
    b.file("m/pytorch_model.bin", make(readFileSync(b.at("golden.bin"))));
    return { sh: "rm m/model.safetensors; upcycle inspect m", may: /^m\/model\.safetensors$/ };
  },
}));

const tokenizers = {
  "a pattern that backtracks for ever": (t) =>
    (t.pre_tokenizer = { type: "Split", pattern: { Regex: "(a+)+$" }, behavior: "Isolated", invert: false }),
  "a pattern that is none": (t) =>
    (t.pre_tokenizer = { type: "Split", pattern: { Regex: "(((" }, behavior: "Isolated", invert: false }),
  "a normalizer that backtracks for ever": (t) =>
    (t.normalizer = { type: "Replace", pattern: { Regex: "(a|a)+$" }, content: "b" }),
  "a normalizer that grows the text": (t) =>
    (t.normalizer = {
      type: "Sequence",
      normalizers: Array.from({ length: 30 }, () => ({ type: "Replace", pattern: { String: "a" }, content: "aaaa" })),
    }),
  "a sequence 1,000 deep": (t) =>
    (t.normalizer = Array.from({ length: 1000 }).reduce((inner) => ({ type: "Sequence", normalizers: [inner] }), {
      type: "Lowercase",
    })),
  "no model": (t) => delete t.model,
  "a model that is null": (t) => (t.model = null),
  "a model of an unknown kind": (t) => (t.model.type = "Nothing\u001b[2J"),
  "no words": (t) => ((t.model.vocab = {}), (t.model.merges = [])),
  "an id of 2^40": (t) => (t.model.vocab.zzz = 2 ** 40),
  "an id of 2^31": (t) => (t.model.vocab.zzz = 2 ** 31),
  "an id beyond the model's words": (t) => (t.model.vocab["!"] = 4_000_000),
  "a negative id": (t) => (t.model.vocab.zzz = -1),
  "two words with one id": (t) => (t.model.vocab.zzz = 5),
  "a merge of words that are not there": (t) => t.model.merges.unshift(["qqqq", "zzzz"]),
  "merges that are numbers": (t) => (t.model.merges = [1, 2]),
  "an added token of no text": (t) =>
    t.added_tokens.push({
      id: 299,
      content: "",
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    }),
  "an added token with escape sequences": (t) =>
    t.added_tokens.push({
      id: 299,
      content: "\u001b[2J\n",
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: false,
    }),
  "a template with an unknown token": (t) =>
    (t.post_processor = {
      type: "TemplateProcessing",
      single: [{ SpecialToken: { id: "[NO]", type_id: 0 } }],
      pair: [],
      special_tokens: {},
    }),
  "a precompiled table of garbage": (t) =>
    (t.normalizer = { type: "Precompiled", precompiled_charsmap: "AAAA/////w==" }),
  "a truncation to no tokens": (t) =>
    (t.truncation = { max_length: 0, stride: 0, strategy: "LongestFirst", direction: "Right" }),
  "a padding to 10^9": (t) =>
    (t.padding = { strategy: { Fixed: 1e9 }, direction: "Right", pad_id: 0, pad_type_id: 0, pad_token: "x" }),
  "a decoder that backtracks": (t) => (t.decoder = { type: "Replace", pattern: { Regex: "(.+)+x$" }, content: "" }),
  "a unigram of no pieces": (t) => (t.model = { type: "Unigram", unk_id: 5, vocab: [] }),
  "a unigram of NaN": (t) =>
    (t.model = {
      type: "Unigram",
      unk_id: 0,
      vocab: [
        ["a", -1e308],
        ["b", 1e308],
      ],
    }),
  "a dropout of 2": (t) => (t.model.dropout = 2),
  "a text": () => "hello",
  "a list": () => [],
};
const tokenizing = Object.entries(tokenizers).flatMap(([what, change], row) =>
  [
    ["generate", () => ["generate", "m", "--prompt", `${"a".repeat(40)}!`, "--max-new-tokens", "2"]],
    [
      "perplexity",
      (b) => (
        b.file("t.txt", `${"a".repeat(40)}! ${"the whale ".repeat(50)}`),
        ["perplexity", "m", "t.txt", "--sequence", "16"]
      ),
    ],
    ...(/backtracks|no words|beyond|no model/.test(what)
      ? [
          [
            "convert",
            (b) => (
              b.file("t.txt", `${"a".repeat(40)}! ${"the whale ".repeat(50)}`),
              ["convert", "m", "--recipe", "E2G1T1", "--out", "out", "--text", "t.txt"]
            ),
          ],
          [
            "train",
            (b) => (
              b.file("t.txt", `${"a".repeat(40)}! ${"the whale ".repeat(2000)}`),
              b.file("train.yaml", {
                out: "run",
                model: "m",
                threads: 1,
                text: { files: ["t.txt"] },
                training: { steps: 2, batch: 1, sequence: 16, lr: { peak: 0.001 } },
              }),
              ["train", "train.yaml"]
            ),
          ],
          [
            "verify",
            (b) => (
              b.copy("moe"),
              b.file("t.txt", `${"a".repeat(40)}! ${"the whale ".repeat(50)}`),
              ["verify", "m", "moe", "--text", "t.txt", "--tokens", "64", "--sequence", "32"]
            ),
          ],
        ]
      : []),
  ].map(([command, make], column) => ({
    more: row > 0 && column > 0,
    // What a tokenizer does to no text in hand may pass; the conversion stands without its report.
    name: `tokenizers: ${command} with ${what}`,
    expect: [0, 1, 2],
    data: command === "generate",
    // A text that grows without end meets the budget of the tokenizer's process, 2 GB, and not an earlier one.
    memory: /grows the text/.test(what) ? 2500 : 1200,
    may: /^(out|run)/,
    make: (b) => (
      b.copy("dense", "m"),
      b.edit("m/tokenizer.json", (t) => {
        const made = change(t);
        return typeof made === "string" || Array.isArray(made) ? made : t;
      }),
      make(b)
    ),
  })),
);
const tokenizerFiles = [
  ["nested a million deep", deep(1e6)],
  ["60 MB of spaces", Buffer.alloc(6e7, " ")],
  ["bytes", Buffer.from([0xff, 0xfe, 0])],
  ["cut off", '{"version":"1.0","model":{'],
].map(([what, text]) => ({
  name: `tokenizers: generate with tokenizer.json ${what}`,
  expect: [2],
  make: (b) => (b.copy("dense", "m"), b.file("m/tokenizer.json", text), ["generate", "m", "--prompt", "x"]),
}));
const specials = [
  ["a list", []],
  ["an eos of another kind", { eos_token: [1] }],
  ["an eos that is no token", { eos_token: "nothing" }],
  ["a template that is a loop", { chat_template: "{% for i in range(1000000000) %}x{% endfor %}" }],
  ["an eos with escape sequences", { eos_token: "\u001b[2J\nx" }],
].map(([what, value]) => ({
  name: `tokenizers: tokenizer_config.json is ${what}`,
  expect: [0, 2],
  data: true,
  make: (b) => (
    b.copy("dense", "m"),
    b.file("m/tokenizer_config.json", value),
    ["generate", "m", "--prompt", "x", "--max-new-tokens", "2"]
  ),
}));

const adapter = (change) => (b) => (
  b.copy("golden/dense/llama", "m"),
  b.copy("golden/adapters/llama", "a"),
  change(b),
  ["convert", "m+a", "--recipe", "E2G1T1", "--out", "out", "--no-report"]
);
const config = (changes) => adapter((b) => b.edit("a/adapter_config.json", (value) => ({ ...value, ...changes })));
const adapters = [
  ["a rank of 0", config({ r: 0 })],
  ["a rank of 1e9", config({ r: 1e9 })],
  ["a rank of half", config({ r: 0.5 })],
  ["an alpha that is a text", config({ lora_alpha: "x" })],
  ["an alpha of 1e308", config({ lora_alpha: 1e308 })],
  ["DoRA", config({ use_dora: true })],
  ["another kind", config({ peft_type: "IA3" })],
  ["a kind with escape sequences", config({ peft_type: "\u001b[2J" })],
  ["modules by a pattern that backtracks", config({ target_modules: "(a+)+$(.*)*x" })],
  ["patterns of ranks that backtrack", config({ rank_pattern: { "(.*)*x$": 3 }, alpha_pattern: { "((a+)+)+$": 2 } })],
  ["a pattern that is none", config({ rank_pattern: { "(((": 3 } })],
  ["modules to save", config({ modules_to_save: ["lm_head"] })],
  ["an unknown key", config({ new_magic: 5 })],
  ["biases", config({ bias: "all" })],
  ["a config that is a list", adapter((b) => b.file("a/adapter_config.json", []))],
  ["a config nested a million deep", adapter((b) => b.file("a/adapter_config.json", deep(1e6)))],
  ["no weights", adapter((b) => b.put("a/adapter_model.safetensors", "dangling link"))],
  [
    "the weights of a model",
    adapter((b) => b.copy("golden/dense/llama/model.safetensors", "a/adapter_model.safetensors")),
  ],
  [
    "weights of names with escape sequences",
    adapter((b) =>
      b.file(
        "a/adapter_model.safetensors",
        safetensors(
          { "base_model.model.\u001b[2Jx.lora_A.weight": { dtype: "F32", shape: [1], data_offsets: [0, 4] } },
          4,
        ),
      ),
    ),
  ],
  [
    "weights beyond the end",
    adapter((b) =>
      b.file("a/adapter_model.safetensors", safetensors({ x: { dtype: "F32", shape: [9], data_offsets: [0, 36] } }, 4)),
    ),
  ],
  [
    "a pickle that calls a shell",
    adapter(
      (b) => (
        b.file("a/adapter_model.bin", archive(Buffer.from("cos\nsystem\n(S'touch owned'\ntR."))),
        b.put("a/adapter_model.safetensors", "dangling link")
      ),
    ),
  ],
  [
    "an adapter of another family",
    (b) => (b.copy("golden/dense/llama", "m"), b.copy("golden/adapters/gpt2", "a"), ["inspect", "m+a"]),
  ],
  ["nothing", (b) => (b.copy("golden/dense/llama", "m"), ["inspect", "m+"])],
  ["no model", (b) => (b.copy("golden/adapters/llama", "a"), ["inspect", "+a"])],
  [
    "itself twice",
    (b) => (b.copy("golden/dense/llama", "m"), b.copy("golden/adapters/llama", "a"), ["inspect", "m+a+a"]),
  ],
  ["a model as an adapter", (b) => (b.copy("golden/dense/llama", "m"), ["inspect", "m+m"])],
  ["an adapter as a model", (b) => (b.copy("golden/adapters/llama", "a"), ["inspect", "a"])],
].map(([what, make]) => ({
  name: `adapters: ${what}`,
  expect: /alpha of 1e308|itself twice|backtrack/.test(what) ? [0, 1, 2] : [2],
  may: /^out/,
  make,
}));

const kit = (value) => (b) => (
  b.copy("dense", "a"),
  b.copy("dense", "b"),
  b.file(
    "k.yaml",
    typeof value === "string"
      ? value
      : JSON.stringify({
          base_model: "a",
          gate_mode: "random",
          experts: [{ source_model: "a" }, { source_model: "b" }],
          ...value,
        }),
  ),
  ["convert", "--mergekit", "k.yaml", "--out", "out", "--no-report"]
);
const mergekit = [
  ["a list", kit("[]")],
  ["nothing", kit("")],
  ["a word", kit("hello")],
  ["no experts", kit({ experts: [] })],
  ["experts that are words", kit({ experts: ["a", "b"] })],
  ["one expert", kit({ experts: [{ source_model: "a" }] })],
  ["a base that is a number", kit({ base_model: 5 })],
  ["a base that is not there", kit({ base_model: "nowhere" })],
  ["a base of /dev/zero", kit({ base_model: "/dev/zero" })],
  ["a gate that is unknown", kit({ gate_mode: "magic\u001b[2J" })],
  [
    "prompts that are numbers",
    kit({
      gate_mode: "hidden",
      experts: [
        { source_model: "a", positive_prompts: [1] },
        { source_model: "b", positive_prompts: {} },
      ],
    }),
  ],
  ["no prompts where they are needed", kit({ gate_mode: "hidden" })],
  [
    "an empty prompt",
    kit({
      gate_mode: "hidden",
      experts: [
        { source_model: "a", positive_prompts: [""] },
        { source_model: "b", positive_prompts: [""] },
      ],
    }),
  ],
  ["noise that is a word", kit({ experts: [{ source_model: "a", noise_scale: "x" }, { source_model: "b" }] })],
  [
    "a model of another shape",
    (b) => (
      kit({ experts: [{ source_model: "a" }, { source_model: "c" }] })(b),
      b.copy("golden/dense/llama", "c"),
      ["convert", "--mergekit", "k.yaml", "--out", "out"]
    ),
  ],
  ["an unknown key", kit({ magic: 5 })],
  ["a model of escape sequences", kit({ base_model: "\u001b]0;x\u0007" })],
  ["10,000 experts", kit({ experts: Array.from({ length: 10_000 }, () => ({ source_model: "a" })) })],
  [
    "a mixture as an expert",
    (b) => (b.copy("moe", "c"), kit({ experts: [{ source_model: "a" }, { source_model: "c" }] })(b)),
  ],
  ["a study file", kit("name: x\narms: {}")],
  ["a Python object", kit("!!python/object/apply:os.system ['touch owned']")],
].map(([what, make]) => ({
  name: `mergekit: ${what}`,
  expect: what === "10,000 experts" ? [0, 2] : what === "a base that is not there" ? [1, 2] : [2],
  memory: 1000,
  may: what === "10,000 experts" ? /^\.?out/ : undefined,
  make,
}));

const weights = [
  ["a list", []],
  ["a text", '"x"'],
  ["no numbers", ["a", "b", "c", "d"]],
  ["too few", [1]],
  ["negative", [-1, 1, 1, 1]],
  ["all zero", [0, 0, 0, 0]],
  ["1e308", [1e308, 1e308, 1e308, 1e308]],
  ["NaN", "[NaN,1,1,1]"],
  ["nested a million deep", deep(1e6)],
  ["an object", { __proto__: 1, a: 1 }],
  ["a list of nulls", [null]],
].map(([what, value]) => ({
  name: `json: merge --weights of ${what}`,
  expect: [0, 2],
  may: /^out/,
  make: (b) => (b.copy("moe", "m"), b.file("w.json", value), ["merge", "m", "--weights", "w.json", "--out", "out"]),
}));
const records = ["upcycle.json", "config.json"].flatMap((file) =>
  [
    ["a list", []],
    ["nested a million deep", deep(1e6)],
    ["absurd", { version: 2, recipe: { expansion: 1e15, granularity: -1, topK: "x" } }],
    ["of version 999", { version: 999 }],
    ["a text", '"x"'],
  ].map(([what, value], i) => ({
    more: i > 2,
    name: `json: merge with ${file === "config.json" ? "the key upcycle" : file} ${what}`,
    expect: [0, 2],
    may: /^out/,
    make: (b) => (
      b.copy("moe", "m"),
      file === "upcycle.json"
        ? b.file("m/upcycle.json", value)
        : b.edit("m/config.json", (c) => ({ ...c, upcycle: value })),
      ["merge", "m", "--out", "out"]
    ),
  })),
);
const ids = [
  ["no tensors", {}],
  ["another name", { ids: { dtype: "I32", shape: [1, 2], data_offsets: [0, 8] } }],
  ["floats", { input_ids: { dtype: "F32", shape: [1, 2], data_offsets: [0, 8] } }],
  ["one dimension", { input_ids: { dtype: "I32", shape: [2], data_offsets: [0, 8] } }],
  ["no tokens", { input_ids: { dtype: "I32", shape: [1, 0], data_offsets: [0, 0] } }],
  ["no rows", { input_ids: { dtype: "I32", shape: [0, 5], data_offsets: [0, 0] } }],
].map(([what, header]) => ({
  name: `safetensors: forward of ids with ${what}`,
  expect: [2],
  make: (b) => (
    b.copy("dense"),
    b.file("i.safetensors", safetensors(header, header.input_ids?.data_offsets[1] ?? header.ids?.data_offsets[1] ?? 0)),
    ["forward", "dense", "--input-ids", "i.safetensors", "--output", "o"]
  ),
}));
const absurdIds = [
  ["beyond the words", 0x0fffffff],
  ["negative", 0xffffffff],
].map(([what, id]) => ({
  name: `safetensors: forward of ids that are ${what}`,
  expect: [2],
  make: (b) => {
    const bytes = safetensors({ input_ids: { dtype: "I32", shape: [1, 2], data_offsets: [0, 8] } }, 8);
    bytes.writeUInt32LE(id, bytes.length - 4);
    b.copy("dense");
    b.file("i.safetensors", bytes);
    return ["forward", "dense", "--input-ids", "i.safetensors", "--output", "o"];
  },
}));

export const cases = [
  ...jsons,
  ...doubled,
  ...fields,
  ...lies,
  ...numbers,
  ...indexes,
  ...pickles,
  ...tokenizing,
  ...tokenizerFiles,
  ...specials,
  ...adapters,
  ...mergekit,
  ...weights,
  ...records,
  ...ids,
  ...absurdIds,
];
