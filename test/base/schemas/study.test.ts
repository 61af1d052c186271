/** What a study file and a train file may say. The file is long because every key has its refusals. */
import { describe, expect, it } from "vitest";
import { UpcycleError } from "../../../src/base/errors.js";
import { parseStudyConfig, parseTrainConfig } from "../../../src/base/schemas/index.js";

const study = `name: small
text:
  builtin: [sotu]
parent: models/base
continue:
  steps: 100
  batch: 4
  sequence: 64
  lr:
    peak: 1e-3
arms:
  dense: { kind: dense }
  coarse:
    kind: upcycled
    recipe: E8G1T2
`;

const own = `model: { hidden: 32, layers: 2, heads: 4, inner: 64 }
tokenizer: { vocab: 300 }
pretrain: { steps: 10, batch: 2, sequence: 16, lr: { peak: 1e-3 } }
`;

const train = `out: runs/a
model:
  hidden: 32
  layers: 2
  heads: 4
  inner: 64
tokenizer: { vocab: 300 }
text: { files: [a.txt] }
training: { steps: 10, batch: 2, sequence: 16, lr: { peak: 1e-3 } }
`;

/** The one line that a user sees for `text` with `from` replaced by `to`. */
function lineOf(
  from: string,
  to: string,
  text = study,
  parse: (text: string, file: string) => unknown = parseStudyConfig,
): string {
  expect(text).toContain(from);
  try {
    parse(text.replace(from, to), "a.yaml");
  } catch (error) {
    if (error instanceof UpcycleError) return error.line;
    throw error;
  }
  return "no error";
}

describe("study files", () => {
  it("fill in defaults", () => {
    expect(parseStudyConfig(study, "a.yaml")).toMatchInlineSnapshot(`
      {
        "arms": {
          "coarse": {
            "allowUnevenTopK": false,
            "auxLossCoef": 0.01,
            "correctionBias": false,
            "drop": 0,
            "engine": "upcycle",
            "experts": "copies",
            "kind": "upcycled",
            "layers": "all",
            "noise": 0,
            "noiseFraction": 1,
            "pad": false,
            "permute": false,
            "recipe": "E8G1T2",
            "router": "topk-softmax",
            "routerGroups": true,
            "routerStd": 0.02,
            "scaling": "exact",
            "split": "order",
          },
          "dense": {
            "engine": "upcycle",
            "kind": "dense",
          },
        },
        "calibration": {
          "tokens": 4096,
        },
        "continue": {
          "accumulate": 1,
          "auxLoss": 0.01,
          "batch": 4,
          "evalEvery": 50,
          "lr": {
            "final": 0.1,
            "peak": 0.001,
            "schedule": "cosine",
            "warmup": 0,
          },
          "optimizer": {
            "beta1": 0.9,
            "beta2": 0.95,
            "clip": 1,
            "eps": 1e-8,
            "weightDecay": 0.1,
          },
          "saveEvery": 200,
          "sequence": 64,
          "steps": 100,
          "zLoss": 0,
        },
        "evaluation": {
          "tokens": 20000,
        },
        "name": "small",
        "parent": "models/base",
        "questions": [],
        "scale": 1,
        "seeds": [
          0,
        ],
        "text": {
          "builtin": [
            "sotu",
          ],
          "field": "text",
          "heldOut": 0.05,
        },
      }
    `);
  });

  it("say of an unknown key which it is, where it stands and what was meant", () => {
    const lines = [
      lineOf("  steps: 100", "  stepz: 100"),
      lineOf("    peak: 1e-3", "    peak: 1e-3\n    warm_up: 5"),
      lineOf("    recipe: E8G1T2", "    recipe: E8G1T2\n    routerstd: 0"),
      lineOf("{ kind: dense }", "{ kind: dense, recipe: E8G1T2 }"),
      lineOf("name: small", "name: small\ncolour: red"),
      lineOf("  batch: 4", "  batch: 4\n  aux-loss: 0"),
    ];
    expect(lines).toMatchInlineSnapshot(`
      [
        "a.yaml:6 (continue.stepz): unknown key "stepz"; did you mean "steps"? valid keys: steps, batch, sequence, accumulate, lr, optimizer, groups, freeze, guard, average, checkpoints, recompute, resetAttention, auxLoss, zLoss, routing, evalEvery, saveEvery",
        "a.yaml:11 (continue.lr.warm_up): unknown key "warm_up"; did you mean "warmup"? valid keys: peak, schedule, warmup, final, decay, steps",
        "a.yaml:16 (arms.coarse.routerstd): unknown key "routerstd"; did you mean "routerStd"? valid keys: kind, label, parents, continue, match, engine, vary, recipe, router, scaling, routerStd, routerGroups, target, allowUnevenTopK, experts, noise, noiseFraction, drop, permute, shared, split, layers, pad, correctionBias, auxLossCoef",
        "a.yaml:12 (arms.dense.recipe): unknown key "recipe"; valid keys: kind, label, parents, continue, match, engine, vary",
        "a.yaml:2 (colour): unknown key "colour"; valid keys: name, seeds, scale, threads, text, parent, model, tokenizer, pretrain, parents, continue, evaluation, calibration, megatron, arms, questions",
        "a.yaml:8 (continue.aux-loss): unknown key "aux-loss"; did you mean "auxLoss"? valid keys: steps, batch, sequence, accumulate, lr, optimizer, groups, freeze, guard, average, checkpoints, recompute, resetAttention, auxLoss, zLoss, routing, evalEvery, saveEvery",
      ]
    `);
  });

  it("say of a wrong value its key, what was expected and what was found", () => {
    const lines = [
      lineOf("steps: 100", "steps: many"),
      lineOf("steps: 100", "steps: 1.5"),
      lineOf("steps: 100", "steps: 0"),
      lineOf("steps: 100", "steps:"),
      lineOf("peak: 1e-3", "peak: -1"),
      lineOf("peak: 1e-3", "peak: .nan"),
      lineOf("    peak: 1e-3", "    - 1e-3"),
      lineOf("lr:\n    peak: 1e-3", "lr: 1e-3"),
      lineOf("peak: 1e-3", "peak: 1e-3\n    schedule: cosin"),
      lineOf("[sotu]", "[soto]"),
      lineOf("[sotu]", "[]"),
      lineOf("[sotu]", "sotu"),
      lineOf("  builtin: [sotu]", "  heldOut: 0.1"),
      lineOf("  builtin: [sotu]", "  builtin: [sotu]\n  heldOut: 0"),
      lineOf("E8G1T2", "8x7"),
      lineOf("kind: upcycled", "kind: upcycle"),
      lineOf("kind: upcycled", "label: x"),
      lineOf("name: small", "name: a/b"),
      lineOf("name: small", "name: small\nseeds: [0, 1, 0]"),
      lineOf("name: small", "name: small\nseeds: [0, x]"),
      lineOf("  coarse:", "  Coarse arm:"),
      lineOf("steps: 100\n  batch: 4", "batch: [4"),
    ];
    expect(lines).toMatchInlineSnapshot(`
      [
        "a.yaml:6 (continue.steps): expected a whole number of at least 1, found text "many"",
        "a.yaml:6 (continue.steps): expected a whole number of at least 1, found 1.5",
        "a.yaml:6 (continue.steps): expected a whole number of at least 1, found 0",
        "a.yaml:6 (continue.steps): expected a whole number of at least 1, found nothing",
        "a.yaml:10 (continue.lr.peak): expected a number above 0 and at most 10, found -1",
        "a.yaml:10 (continue.lr.peak): expected a number above 0 and at most 10, found NaN",
        "a.yaml:9 (continue.lr): expected a block of keys, found a list; its keys: peak, schedule, warmup, final, decay, steps",
        "a.yaml:9 (continue.lr): expected a block of keys, found 0.001; its keys: peak, schedule, warmup, final, decay, steps",
        "a.yaml:11 (continue.lr.schedule): expected one of "constant", "linear", "cosine", "wsd", found text "cosin"; did you mean "cosine"?",
        "a.yaml:3 (text.builtin[0]): expected one of "sotu", "moby-dick", found text "soto"; did you mean "sotu"?",
        "a.yaml:3 (text.builtin): expected a list of at least 1, found an empty list",
        "a.yaml:3 (text.builtin): expected a list of at least 1, found text "sotu"",
        "a.yaml:2 (text): text names no source: give "builtin" or "files"",
        "a.yaml:4 (text.heldOut): expected a number above 0 and at most 0.5, found 0",
        "a.yaml:15 (arms.coarse.recipe): expected text (E<copies>G<parts>T<experts per token>, for example E8G1T2), found text "8x7"",
        "a.yaml:14 (arms.coarse.kind): expected one of "dense", "upcycled", "scratch", "multiplied", found text "upcycle"; did you mean "upcycled"?",
        "a.yaml:13 (arms.coarse): "kind" is missing, expected one of "dense", "upcycled", "scratch", "multiplied"",
        "a.yaml:1 (name): expected text (Letters, digits, dots, dashes and underscores; names the run folder), found text "a/b"",
        "a.yaml:2 (seeds): seeds has the same seed twice",
        "a.yaml:2 (seeds[1]): expected a whole number from 0 to 1000000000, found text "x"",
        "a.yaml:13 (arms.Coarse arm): "Coarse arm" cannot be a name here; use lower-case letters, digits, dashes and underscores",
        "a.yaml:7:3: this is not valid YAML: Flow sequence in block collection must be sufficiently indented and end with a ]",
      ]
    `);
  });

  it("say which keys do not fit together", () => {
    const scratch = "  scratch: { kind: scratch, like: LIKE }\n  again: { kind: scratch, like: coarse }\narms:";
    const lines = [
      lineOf("parent: models/base\n", ""),
      lineOf("parent: models/base", "parent: models/base\ntokenizer: { vocab: 300 }"),
      lineOf("parent: models/base\n", own.replace(/tokenizer.*\n/, "")),
      lineOf("parent: models/base\n", own.replace("sequence: 16", "sequence: 4096")),
      lineOf("parent: models/base\n", own.replace("heads: 4", "heads: 5")),
      lineOf("parent: models/base\n", own.replace("heads: 4", "heads: 4, kvHeads: 3")),
      lineOf("arms:", scratch.replace("LIKE", "coarze").replace(/^(.*)\narms:/s, "arms:\n$1")),
      lineOf("arms:", scratch.replace("LIKE", "again").replace(/^(.*)\narms:/s, "arms:\n$1")),
      lineOf("peak: 1e-3", "peak: 1e-3\n    warmup: 101"),
      lineOf("peak: 1e-3", "peak: 1e-3\n    decay: 10"),
      lineOf("peak: 1e-3", "peak: 1e-3\n    schedule: wsd\n    warmup: 60\n    decay: 50"),
      lineOf(study.slice(study.indexOf("  dense:")), "  {}\n"),
    ];
    expect(lines).toMatchInlineSnapshot(`
      [
        "a.yaml:1: there is no parent: give "parent" (a model folder) or "model" with "tokenizer" and "pretrain"",
        "a.yaml:5 (tokenizer): "tokenizer" makes a new parent, but "parent" already names one; remove one of them",
        "a.yaml:1: "tokenizer" is missing: a new model needs it",
        "a.yaml:6 (pretrain.sequence): sequence 4096 is longer than the model's maxPositions 2048",
        "a.yaml:4 (model.heads): heads 5 does not divide hidden 32; set headDim",
        "a.yaml:4 (model.kvHeads): kvHeads 3 does not divide heads 4",
        "a.yaml:12 (arms.scratch.like): there is no arm "coarze"",
        "a.yaml:12 (arms.scratch.like): arm "again" is itself a scratch arm",
        "a.yaml:11 (continue.lr.warmup): warmup 101 is longer than steps 100",
        "a.yaml:11 (continue.lr.decay): decay belongs to schedule wsd, the schedule is cosine",
        "a.yaml:13 (continue.lr.decay): warmup 60 and decay 50 are longer than steps 100",
        "a.yaml:11 (arms): arms is empty, expected at least one arm",
      ]
    `);
    expect(lineOf("parent: models/base\n", own)).toBe("no error");
  });

  it("refuse scratch arms that are like themselves or like what is no arm, whatever else they ask for", () => {
    const routed = study.replace("  batch: 4", "  batch: 4\n  routing: { jitter: 0.1 }");
    const only = (arms: string): string => lineOf(study.slice(study.indexOf("  dense:")), arms, study);
    const arms = routed.slice(routed.indexOf("  dense:"));
    expect([
      lineOf(arms, "  a: { kind: scratch, like: a }\n", routed),
      lineOf(arms, "  a: { kind: scratch, like: b }\n  b: { kind: scratch, like: a }\n", routed),
      only("  a: { kind: scratch, like: constructor }\n"),
    ]).toEqual([
      'a.yaml:13 (arms.a.like): arm "a" is itself a scratch arm',
      'a.yaml:13 (arms.a.like): arm "b" is itself a scratch arm (and 1 more problem)',
      'a.yaml:12 (arms.a.like): there is no arm "constructor"',
    ]);
  });

  it("say where a text is not YAML, empty, or several documents", () => {
    const lines = [
      lineOf("arms:", "arms: {"),
      lineOf("  batch: 4", "\tbatch: 4"),
      lineOf("  batch: 4", "  batch: 4\n  batch: 5"),
      lineOf("name: small", "name: *small"),
      lineOf(study, ""),
      lineOf(study, "# nothing\n"),
      lineOf(study, "just text"),
      lineOf("name: small", "name: small\n---\nname: b"),
    ];
    expect(lines).toMatchInlineSnapshot(`
      [
        "a.yaml:13:3: this is not valid YAML: Missing , between flow map items",
        "a.yaml:7:1: this is not valid YAML: Tabs are not allowed as indentation",
        "a.yaml:8:3: this is not valid YAML: Map keys must be unique",
        "a.yaml: this YAML cannot be resolved: Unresolved alias (the anchor must be set before the alias): small",
        "a.yaml: the file is empty",
        "a.yaml: the file is empty",
        "a.yaml:1: expected a block of keys, found text "just text"; its keys: name, seeds, scale, threads, text, parent, model, tokenizer, pretrain, parents, continue, evaluation, calibration, megatron, arms, questions",
        "a.yaml:2:1: this is not valid YAML: several documents in one file, expected one",
      ]
    `);
  });
});

describe("train files", () => {
  const of = (from: string, to: string): string => lineOf(from, to, train, parseTrainConfig);

  it("take a folder or a new model", () => {
    expect(parseTrainConfig(train, "a.yaml").model).toMatchObject({ hidden: 32, tiedHead: true });
    const folder = train.replace(/model:[^]*?tokenizer.*\n/, "model: runs/b\n");
    expect(parseTrainConfig(folder, "a.yaml").model).toBe("runs/b");
  });

  it("say in one line what is wrong with the model, the tokenizer or the text", () => {
    const [modelBlock = ""] = /model:[^]*?(?=tokenizer)/.exec(train) ?? [];
    const lines = [
      of("  hidden: 32", "  hiden: 32"),
      of("  hidden: 32", "  hidden: wide"),
      of("tokenizer: { vocab: 300 }\n", ""),
      of("tokenizer: { vocab: 300 }", "tokenizer: { vocab: 100 }"),
      of(modelBlock, "model: runs/b\n"),
      of(modelBlock, "model: 3\n"),
      of("sequence: 16", "sequence: 4096"),
      of("files", "file"),
    ];
    expect(lines).toMatchInlineSnapshot(`
      [
        "a.yaml:3 (model.hiden): unknown key "hiden"; did you mean "hidden"? valid keys: family, hidden, layers, heads, kvHeads, inner, headDim, tiedHead, ropeTheta, normEps, maxPositions, initStd",
        "a.yaml:3 (model.hidden): expected a whole number from 1 to 262144, found text "wide"",
        "a.yaml:1: "tokenizer" is missing: a new model needs it",
        "a.yaml:7 (tokenizer.vocab): expected a whole number from 260 to 1000000, found 100",
        "a.yaml:3 (tokenizer): a model folder brings its own tokenizer; remove this block",
        "a.yaml:2 (model): expected text or a block of keys, found 3",
        "a.yaml:9 (training.sequence): sequence 4096 is longer than the model's maxPositions 2048",
        "a.yaml:8 (text.file): unknown key "file"; did you mean "files"? valid keys: builtin, files, field, heldOut, mix",
      ]
    `);
  });
});

describe("the training block of a train file", () => {
  const withTraining = (changes: string): string =>
    lineOf("training: { steps: 10, ", `training: { ${changes}`, train, parseTrainConfig);

  it("takes groups, frozen parts and budgets", () => {
    const { training } = parseTrainConfig(
      train.replace(
        "{ steps: 10, ",
        "{ budget: { tokens: 1e9, time: 90m, flops: 1e18 }, groups: { router: { lr: 2 }, experts: { freeze: " +
          'true } }, freeze: [embed, "layers.0.*"], ',
      ),
      "a.yaml",
    );
    expect(training).toMatchObject({
      budget: { tokens: 1e9, time: "90m", flops: 1e18 },
      groups: { router: { lr: 2 }, experts: { freeze: true } },
      freeze: ["embed", "layers.0.*"],
    });
    expect(training.steps).toBeUndefined();
  });

  it("refuses absurd sizes, naming key and value, before a tokenizer is learnt", () => {
    expect(withTraining("accumulate: 1000000000, ")).toContain(
      "(training.accumulate): expected a whole number from 1 to 65536, found 1000000000",
    );
    expect(lineOf("layers: ", "layers: 100000", train, parseTrainConfig)).toContain(
      "(model.layers): expected a whole number from 1 to 1000, found 100000",
    );
  });

  it("refuses what makes no sense, in one line", () => {
    const lines = [
      withTraining(""),
      withTraining("budget: { time: 90m }, "),
      withTraining("steps: 10, budget: { time: 90 }, "),
      withTraining("steps: 10, budget: { time: 90x }, "),
      withTraining("steps: 10, budget: { token: 5 }, "),
      withTraining("steps: 10, budget: { tokens: 0.5 }, "),
      withTraining("steps: 10, groups: { routers: { lr: 2 } }, "),
      withTraining("steps: 10, groups: { router: { lr: 0 } }, "),
      withTraining("steps: 10, freeze: [], "),
      withTraining('steps: 10, freeze: ["a b"], '),
      lineOf("  steps: 100", "  steps: 100\n  budget: { tokens: 5 }"),
    ];
    expect(lines).toMatchInlineSnapshot(`
      [
        "a.yaml:9 (training): the length of the training is missing: give "steps", or "tokens" or "flops" in "budget"",
        "a.yaml:9 (training): the length of the training is missing: give "steps", or "tokens" or "flops" in "budget"",
        "a.yaml:9 (training.budget.time): expected text (a number and s, m, h or d, such as 90m: time spent in steps after which the run ends in good order; may be raised later), found 90",
        "a.yaml:9 (training.budget.time): expected text (a number and s, m, h or d, such as 90m: time spent in steps after which the run ends in good order; may be raised later), found text "90x"",
        "a.yaml:9 (training.budget.token): unknown key "token"; did you mean "tokens"? valid keys: time, tokens, flops",
        "a.yaml:9 (training.budget.tokens): expected a whole number of at least 1, found 0.5",
        "a.yaml:9 (training.groups.routers): unknown key "routers"; did you mean "router"? valid keys: router, experts, rest",
        "a.yaml:9 (training.groups.router.lr): expected a number above 0 and at most 1000, found 0",
        "a.yaml:9 (training.freeze): expected a list of at least 1, found an empty list",
        "a.yaml:9 (training.freeze[0]): expected text (Letters, digits, dots and stars), found text "a b"",
        "a.yaml:7 (continue.budget): unknown key "budget"; valid keys: steps, batch, sequence, accumulate, lr, optimizer, groups, freeze, guard, average, checkpoints, recompute, resetAttention, auxLoss, zLoss, routing, evalEvery, saveEvery",
      ]
    `);
  });

  it("takes routing, and refuses what contradicts itself, is no number, or has no routers", () => {
    const lines = [
      "routing: { balance: sequence, bias: 0.001, capacity: { factor: 1.25 }, jitter: 0.01 }, ",
      "auxLoss: 0, routing: { sinkhorn: true, capacity: { factor: 1, drop: position } }, ",
      "routing: { sinkhorn: true }, ",
      "auxLoss: 0, routing: { sinkhorn: true, bias: 0.1 }, ",
      "auxLoss: 0, routing: { balance: global }, ",
      "routing: { balance: batch }, ",
      "routing: { jitter: 1 }, ",
      "routing: { capacity: 1.25 }, ",
      "routing: { capacity: { factor: 0 } }, ",
      "routing: { capacity: { factor: 1, drop: last } }, ",
      "routing: { capacityFactor: 1 }, ",
      "routing: { bias: 0 }, ",
    ].map((changes) => withTraining(`steps: 10, ${changes}`));
    expect([
      ...lines,
      lineOf("continue:\n", "continue:\n  routing: { sinkhorn: true }\n"),
      lineOf("parent: models/base\n", own.replace("steps: 10, ", "steps: 10, routing: { jitter: 0.1 }, ")),
    ]).toMatchInlineSnapshot(`
      [
        "no error",
        "no error",
        "a.yaml:9 (training.routing.sinkhorn): Sinkhorn routing balances by itself and takes no load-balancing loss; set auxLoss: 0 (it is 0.01)",
        "a.yaml:9 (training.routing.bias): Sinkhorn routing balances by itself; remove bias or sinkhorn",
        "a.yaml:9 (training.routing.balance): balance says what the load-balancing loss is taken over, but auxLoss is 0; remove one of them",
        "a.yaml:9 (training.routing.balance): expected one of "model", "layer", "sequence", "global", "running", found text "batch"",
        "a.yaml:9 (training.routing.jitter): expected a number above 0 and below 1, found 1",
        "a.yaml:9 (training.routing.capacity): expected a block of keys, found 1.25; its keys: factor, drop",
        "a.yaml:9 (training.routing.capacity.factor): expected a number above 0 and at most 1000, found 0",
        "a.yaml:9 (training.routing.capacity.drop): expected one of "probs", "position", found text "last"",
        "a.yaml:9 (training.routing.capacityFactor): unknown key "capacityFactor"; valid keys: balance, bias, sinkhorn, capacity, jitter",
        "a.yaml:9 (training.routing.bias): expected a number above 0 and at most 1, found 0",
        "a.yaml:6 (continue.routing.sinkhorn): Sinkhorn routing balances by itself and takes no load-balancing loss; set auxLoss: 0 (it is 0.01)",
        "a.yaml:6 (pretrain.routing): the parent is dense, it has no routers; remove routing",
      ]
    `);
    expect(
      parseTrainConfig(train.replace("{ steps: 10, ", "{ steps: 10, routing: { capacity: { factor: 2 } }, "), "a.yaml")
        .training.routing,
    ).toEqual({ capacity: { factor: 2, drop: "probs" } });
    const dense = study
      .replace(/\n {2}coarse:[\s\S]*$/, "\n")
      .replace("continue:\n", "continue:\n  routing: { jitter: 0.1 }\n");
    expect(() => parseStudyConfig(dense, "a.yaml")).toThrow("no arm is a mixture of experts");
  });

  it("takes Muon, a guard, averages and the precision of checkpoints, and refuses what does not belong together", () => {
    const lines = [
      "optimizer: { method: muon, momentum: 0.9, muonScale: spectral }, guard: {}, average: { decay: 0.99 }, " +
        "checkpoints: bfloat16, ",
      "optimizer: { momentum: 0.9 }, ",
      "optimizer: { method: moun }, ",
      "optimizer: { method: muon, momentum: 1 }, ",
      "guard: { window: 2 }, ",
      "guard: true, ",
      "average: {}, ",
      "average: { decay: 1 }, ",
      "average: 0.9, ",
      "checkpoints: bf16, ",
    ].map((changes) => withTraining(`steps: 10, ${changes}`));
    expect(lines).toMatchInlineSnapshot(`
      [
        "no error",
        "a.yaml:9 (training.optimizer.momentum): momentum belongs to method muon; set method: muon",
        "a.yaml:9 (training.optimizer.method): expected one of "adamw", "muon", found text "moun"; did you mean "muon"?",
        "a.yaml:9 (training.optimizer.momentum): expected a number of at least 0 and below 1, found 1",
        "a.yaml:9 (training.guard.window): expected a whole number from 8 to 10000, found 2",
        "a.yaml:9 (training.guard): expected a block of keys, found true; its keys: window, deviations, patience",
        "a.yaml:9 (training.average): "decay" is missing, expected a number above 0 and below 1",
        "a.yaml:9 (training.average.decay): expected a number above 0 and below 1, found 1",
        "a.yaml:9 (training.average): expected a block of keys, found 0.9; its keys: decay, evaluate",
        "a.yaml:9 (training.checkpoints): expected one of "float32", "bfloat16", found text "bf16"",
      ]
    `);
  });

  it("takes a data mix in place of files, and refuses a part without a weight or with two sources", () => {
    const textOf = (mix: string): string => lineOf("text: { files: [a.txt] }", `text: ${mix}`, train, parseTrainConfig);
    expect(
      textOf(
        "{ mix: [{ path: a.parquet, weight: 0.7, field: body }, { builtin: sotu, weight: 2 }, { path: b.bin, " +
          "weight: 1, name: b, heldOut: 0.01 }] }",
      ),
    ).toBe("no error");
    expect([
      textOf("{}"),
      textOf("{ mix: [] }"),
      textOf("{ mix: [{ path: a.txt, weight: 1 }], files: [b.txt] }"),
      textOf("{ mix: [{ weight: 1 }] }"),
      textOf("{ mix: [{ path: a.txt, builtin: sotu, weight: 1 }] }"),
      textOf("{ mix: [{ path: a.txt }] }"),
      textOf("{ mix: [{ path: a.txt, weight: 0 }] }"),
      textOf("{ mixture: [] }"),
      lineOf("  builtin: [sotu]", "  mix: [{ path: a.txt, weight: 1 }]"),
    ]).toMatchInlineSnapshot(`
      [
        "a.yaml:8 (text): text names no source: give "builtin", "files" or "mix"",
        "a.yaml:8 (text.mix): expected a list of at least 1, found an empty list",
        "a.yaml:8 (text.mix): "mix" stands alone; name the other texts as parts of it",
        "a.yaml:8 (text.mix[0]): a part of the data mix has one source: give either "path" or "builtin"",
        "a.yaml:8 (text.mix[0]): a part of the data mix has one source: give either "path" or "builtin"",
        "a.yaml:8 (text.mix[0]): "weight" is missing, expected a number above 0 and at most 1000000000000",
        "a.yaml:8 (text.mix[0].weight): expected a number above 0 and at most 1000000000000, found 0",
        "a.yaml:8 (text.mixture): unknown key "mixture" (and 1 more problem); valid keys: builtin, files, field, heldOut, mix",
        "a.yaml:2 (text): text names no source: give "builtin" or "files" (and 1 more problem)",
      ]
    `);
  });
});

describe("several problems of one file", () => {
  const problemsOf = (text: string, parse: (text: string, file: string) => unknown): readonly string[] => {
    try {
      parse(text, "a.yaml");
    } catch (error) {
      if (error instanceof UpcycleError) return error.lines;
    }
    return ["no error"];
  };

  it("are all told, a line each, from the file's beginning to its end", () => {
    const text = study
      .replace("steps: 100", "stepz: 100")
      .replace("batch: 4", "batch: many")
      .replace("kind: dense", "kind: dens")
      .replace("peak: 1e-3", "peek: -1");
    expect(problemsOf(text, parseStudyConfig)).toEqual([
      "a.yaml: 5 problems",
      expect.stringMatching(/^ {2}a\.yaml:6 \(continue\.stepz\): unknown key "stepz"; did you mean "steps"\?/),
      '  a.yaml:7 (continue.batch): expected a whole number of at least 1, found text "many"',
      expect.stringMatching(/^ {2}a\.yaml:10 \(continue\.lr\.peek\): unknown key "peek"; did you mean "peak"\?/),
      expect.stringMatching(/^ {2}a\.yaml:10 \(continue\.lr\.peak\): expected a number .*, found -1$/),
      expect.stringMatching(
        /^ {2}a\.yaml:12 \(arms\.dense\.kind\): expected one of "dense", "upcycled", "scratch", "multiplied", found text "dens"; did you mean "dense"\?/,
      ),
    ]);
  });

  it("include those of several keys together, and no key that is missing because it was mistyped", () => {
    const text = train.replace("hidden: 32", "hiden: 32").replace("sequence: 16", "sequence: 4096");
    expect(problemsOf(text, parseTrainConfig)).toEqual([
      "a.yaml: 2 problems",
      expect.stringMatching(/^ {2}a\.yaml:3 \(model\.hiden\): unknown key "hiden"; did you mean "hidden"\?/),
      "  a.yaml:9 (training.sequence): sequence 4096 is longer than the model's maxPositions 2048",
    ]);
  });

  it("are bounded, and one alone is one line", () => {
    const many = Array.from({ length: 80 }, (_, n) => `qqq${n}qqq: 1`).join("\n");
    expect(problemsOf(`${study}${many}\n`, parseStudyConfig)).toHaveLength(52);
    expect(problemsOf(`${study}${many}\n`, parseStudyConfig).at(-1)).toBe("  and 30 more");
    expect(problemsOf(study.replace("batch: 4", "batch: 0"), parseStudyConfig)).toEqual([
      expect.stringMatching(/^a\.yaml:7 \(continue\.batch\): /),
    ]);
  });
});
