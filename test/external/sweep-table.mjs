/** The results of `sweep.mjs` as a page in Markdown. */

const table = (headers, rows) =>
  [headers, headers.map(() => "---"), ...rows].map((row) => `| ${row.join(" | ")} |`).join("\n");
const code = (names) => names.map((name) => `\`${name}\``).join(", ");
const cell = (text) => text.replaceAll("|", "\\|").replaceAll("<", "&lt;");
const small = (difference) => (difference === undefined ? "" : difference.toExponential(1));

/** Types by a fact about them, in the order of their first appearance. */
function grouped(entries, factOf) {
  const groups = new Map();
  for (const entry of entries) {
    const fact = factOf(entry);
    groups.set(fact, [...(groups.get(fact) ?? []), entry.type]);
  }
  return [...groups];
}

/** What is said of a refused type, without its name, so that one sentence stands for many. */
const withoutType = (words) =>
  words.replace(/"[a-z0-9_-]+": no family/, "...: no family").replace(/^a [a-z0-9_-]+ model/, "a ... model");

function variantRow(type, variants) {
  const own = variants.filter((entry) => entry.type === type);
  const count = (isOne) => own.filter(isOne).length;
  const largest = own.reduce(
    (most, { verdict, difference }) => (verdict === "same" ? Math.max(most, difference) : most),
    0,
  );
  return [
    `\`${type}\``,
    own.length,
    count(({ verdict }) => verdict === "same"),
    small(largest),
    count(({ verdict }) => verdict === "refused"),
    count(({ verdict }) => verdict === "unread"),
    count(({ verdict }) => verdict === undefined),
    count(({ verdict }) => verdict === "DIFFERENT" || verdict === "BROKEN"),
  ];
}

/** `facts` are date and versions; `known` says why a difference is meant. */
export function sweepPage({ types, variants, facts, known }) {
  const agree = types.filter(({ verdict }) => verdict === "same");
  const refused = types.filter(({ verdict }) => verdict === "refused");
  const failed = types.filter((entry) => entry.class === undefined);
  const wrong = types.filter(({ verdict }) => verdict === "DIFFERENT" || verdict === "BROKEN");
  const meant = variants.filter((entry) => known(entry) !== undefined && entry.verdict === "DIFFERENT");
  const families = agree.map(({ type }) => type).filter((type) => variants.some((entry) => entry.type === type));
  const untried = agree.map(({ type }) => type).filter((type) => !families.includes(type));
  const counts =
    `${agree.length} agree, ${refused.length} are refused, ${failed.length} could not be made, ` +
    `${wrong.length} are accepted and differ.`;
  return `# Every causal model type of transformers, on ${facts.date}

A tiny model of each of the ${types.length} types that \`AutoModelForCausalLM\` knows was made by transformers and
opened here, from the config.json as people write it and as transformers saves it. "Agrees" means the same logits to
1e-4 of the largest one. The page is made by \`test/external/sweep.mjs\`.

${facts.versions}

${counts}

## Agree

Difference from transformers' logits, as a fraction of the largest: from a written config.json, and from a saved one.

${table(
  ["type", "class", "written", "saved"],
  agree.map(({ type, class: name, difference, saved }) => [
    `\`${type}\``,
    name,
    small(difference),
    saved?.verdict === "same" ? small(saved.difference) : (saved?.words ?? ""),
  ]),
)}

## Refused

${table(
  ["what is said", "types"],
  grouped(refused, ({ words }) => withoutType(words)).map(([words, names]) => [cell(words), code(names)]),
)}

## Not made

Transformers makes no model of these from a config.json that runs on token ids alone.

${table(
  ["type", "why"],
  failed.map(({ type, failure }) => [`\`${type}\``, cell(failure)]),
)}
${
  families.length === 0
    ? ""
    : `
## One attribute changed

For each type that agrees, every attribute of its config was changed, left out and set to null in turn, and so were keys
that files carry for other types. A change that transformers' recorded reads and our reader both pass over was not run.

${table(
  [
    "type",
    "changes",
    "agree",
    "largest difference",
    "refused here",
    "read by nobody",
    "refused by transformers",
    "differ",
  ],
  families.map((type) => variantRow(type, variants)),
)}
${untried.length === 0 ? "" : `\nOf these types that agree no attribute was changed: ${code(untried)}.\n`}
${
  meant.length === 0
    ? ""
    : `Those that differ, on purpose:

${table(
  ["type", "change", "why"],
  meant.map((entry) => [`\`${entry.type}\``, `\`${cell(entry.change)}\``, known(entry).why]),
)}
`
}`
}`;
}
