/**
 * Documents in the formats of the data sets that tasks name, made of sentences of the text that comes along: what they
 * ask makes little sense, but every field is there, with its types, and with text of many lengths.
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";

/** A small generator with a seed (mulberry32): the data are the same wherever the script runs. */
function generator(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

const lines = gunzipSync(readFileSync(new URL("../../texts/moby-dick.jsonl.gz", import.meta.url)))
  .toString("utf8")
  .split("\n")
  .filter((line) => line !== "")
  .map((line) => JSON.parse(line).text);
const allSentences = lines.flatMap((text) => text.replace(/\s+/g, " ").split(/(?<=[.!?]) /));

/**
 * Writes the data sets into `folder`, `ORG--NAME/CONFIG/SPLIT.jsonl`, of sentences of up to `longest` characters;
 * `ascii` leaves all other characters out.
 */
export function writeEvaluationData(folder, { count, ascii = false, longest = 160, seed = 1 }) {
  const sentences = allSentences.filter((sentence) => sentence.length > 30 && sentence.length < longest);
  const random = generator(seed);
  const below = (n) => Math.floor(random() * n);
  const clean = (text) => (ascii ? text.replace(/[^\x20-\x7e]/g, "") : text);
  const sentence = () => clean(sentences[below(sentences.length)]);
  const words = (n) => sentence().split(" ").slice(0, n).join(" ");
  const write = (path, name, split, docs) => {
    const place = join(folder, path.replaceAll("/", "--"), name);
    mkdirSync(place, { recursive: true });
    writeFileSync(join(place, `${split}.jsonl`), docs.map((doc) => `${JSON.stringify(doc)}\n`).join(""));
  };
  const list = (n, make) => Array.from({ length: n }, (_, i) => make(i));
  const choices = (n) => list(n, () => words(2 + below(6)));
  const splits = (path, name, sizes, make) => {
    for (const [split, size] of Object.entries(sizes)) write(path, name, split, list(size, make));
  };
  const all = { train: 20, validation: count, test: count };

  const subjects = [
    "econometrics",
    "high_school_geography",
    "high_school_government_and_politics",
    "high_school_macroeconomics",
    "high_school_microeconomics",
    "high_school_psychology",
    "human_sexuality",
    "professional_psychology",
    "public_relations",
    "security_studies",
    "sociology",
    "us_foreign_policy",
  ];
  subjects.forEach((subject, i) =>
    splits("cais/mmlu", subject, { dev: 5, test: 3 + ((i * 5) % 11) }, () => ({
      question: ` ${sentence()} `,
      subject,
      choices: choices(4),
      answer: below(4),
    })),
  );
  for (const name of ["ARC-Easy", "ARC-Challenge"])
    splits("allenai/ai2_arc", name, all, (i) => {
      const labels = i % 3 === 0 ? ["1", "2", "3", "4"] : ["A", "B", "C", "D"];
      return {
        id: `Q${i}`,
        question: sentence(),
        choices: { text: choices(4), label: labels },
        answerKey: labels[below(4)],
      };
    });
  splits("allenai/openbookqa", "main", all, (i) => ({
    id: String(i),
    question_stem: sentence(),
    choices: { text: choices(4), label: ["A", "B", "C", "D"] },
    answerKey: "ABCD"[below(4)],
  }));
  splits("Rowan/hellaswag", "default", { train: 20, validation: count }, (i) => ({
    ind: i,
    activity_label: words(2),
    ctx_a: sentence(),
    ctx_b: words(3),
    ctx: "",
    endings: list(4, () => (i % 4 === 0 ? `[substeps] ${words(6)} [title] ${words(4)}` : words(8))),
    label: String(below(4)),
  }));
  splits("baber/piqa", "default", { train: 20, validation: count }, () => ({
    goal: sentence(),
    sol1: words(7),
    sol2: words(9),
    label: below(2),
  }));
  splits("allenai/winogrande", "winogrande_xl", { train: 20, validation: count }, () => {
    const parts = sentence().split(" ");
    const place = 1 + below(parts.length - 2);
    return {
      sentence: [...parts.slice(0, place), "_", ...parts.slice(place + 1)].join(" "),
      option1: parts[place],
      option2: words(1),
      answer: String(1 + below(2)),
    };
  });
  splits("allenai/sciq", "default", all, (i) => ({
    question: sentence(),
    distractor3: words(2),
    distractor1: words(3),
    distractor2: words(1),
    correct_answer: words(2),
    support: i % 5 === 0 ? "" : ` ${sentence()}`,
  }));
  splits("aps/super_glue", "boolq", { train: 20, validation: count }, (i) => ({
    question: words(6),
    passage: `${sentence()} ${sentence()}`,
    idx: i,
    label: below(2),
  }));
  splits("EleutherAI/lambada_openai", "default", { test: count }, () => ({ text: `${sentence()} ${words(6)}` }));
  for (const name of ["adjunct_island", "wh_island"])
    splits("nyu-mll/blimp", name, { train: count }, () => {
      const parts = sentence().split(" ");
      const place = below(parts.length - 1);
      const bad = [...parts];
      [bad[place], bad[place + 1]] = [bad[place + 1], bad[place]];
      return { sentence_good: parts.join(" "), sentence_bad: `${bad.join(" ")}!` };
    });
  const page = () =>
    ` = ${words(2)} = \n ${list(6, sentence).join(" ")} It was 10 @,@ 000 @.@ 5 , or ( so ) " they said " . ` +
    "\n the captain 's\n";
  splits("EleutherAI/wikitext_document_level", "wikitext-2-raw-v1", { train: 8, test: Math.ceil(count / 4) }, () => ({
    page: page() + page(),
  }));
  splits("allenai/c4", "en", { train: 8, validation: Math.ceil(count / 4) }, () => ({
    text: list(1 + below(12), sentence).join(" "),
    timestamp: "2019-04-25T12:57:54Z",
    url: "https://example.org",
  }));
  splits("allenai/paloma", "c4_en", { val: 8, test: Math.ceil(count / 4) }, () => ({
    text: list(1 + below(9), sentence).join("\n"),
  }));
  splits("openai/gsm8k", "main", { train: 20, test: Math.ceil(count / 2) }, () => {
    const [a, b] = [below(90), below(90)];
    return { question: `${sentence()} ${a} and ${b}?`, answer: `${words(4)} <<${a}+${b}=${a + b}>>\n#### ${a + b}` };
  });
  const subjectsOfPro = ["biology", "computer science", "law"];
  for (const [split, size] of [
    ["validation", 18],
    ["test", 6],
  ])
    write(
      "TIGER-Lab/MMLU-Pro",
      "default",
      split,
      list(size, (i) => {
        const options = list(3 + below(8), () => words(1 + below(4)));
        const answer = below(options.length);
        return {
          question_id: i,
          question: sentence(),
          options: i % 4 === 0 ? options.map((option) => ` ${option} `) : options,
          answer: "ABCDEFGHIJ"[answer],
          answer_index: answer,
          cot_content: `A: Let's think step by step. ${sentence()} The answer is (${"ABCDEFGHIJ"[answer]}).`,
          category: subjectsOfPro[i % subjectsOfPro.length],
          src: "made",
        };
      }),
    );
  splits("mandarjoshi/trivia_qa", "rc.nocontext", { train: 20, validation: Math.ceil(count / 2) }, () => ({
    question: words(6),
    answer: { aliases: list(1 + below(3), () => words(1)), value: words(1) },
  }));
  splits("google-research-datasets/nq_open", "default", { train: 20, validation: Math.ceil(count / 2) }, () => ({
    question: words(6),
    answer: list(1 + below(3), () => words(1)),
  }));
}

/** Questions in the forms of MMLU and ARC, as long as theirs, for measuring speed. */
export function writeSpeedData(folder, count) {
  const random = generator(7);
  const below = (n) => Math.floor(random() * n);
  const sentences = allSentences.filter((sentence) => sentence.length > 30 && sentence.length < 200);
  const sentence = () => sentences[below(sentences.length)];
  const words = (n) => sentence().split(" ").slice(0, n).join(" ");
  const write = (path, name, split, docs) => {
    const place = join(folder, path.replaceAll("/", "--"), name);
    mkdirSync(place, { recursive: true });
    writeFileSync(join(place, `${split}.jsonl`), docs.map((doc) => `${JSON.stringify(doc)}\n`).join(""));
  };
  const list = (n, make) => Array.from({ length: n }, (_, i) => make(i));
  const choices = () => list(4, () => words(2 + below(8)));
  const mmlu = () => ({ question: sentence(), subject: "anatomy", choices: choices(), answer: below(4) });
  write("cais/mmlu", "anatomy", "dev", list(5, mmlu));
  write("cais/mmlu", "anatomy", "test", list(count, mmlu));
  const arc = (i) => ({
    id: String(i),
    question: sentence(),
    choices: { text: choices(), label: ["A", "B", "C", "D"] },
    answerKey: "ABCD"[below(4)],
  });
  for (const [split, size] of [
    ["train", 100],
    ["validation", 10],
    ["test", count],
  ])
    write("allenai/ai2_arc", "ARC-Easy", split, list(size, arc));
}
