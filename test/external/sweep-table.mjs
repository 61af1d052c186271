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
  words.replace(/"[a-z0-9._-]+": no family/, "...: no family").replace(/^a [a-z0-9_-]+ model/, "a ... model");

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

/** How many agree, are refused, could not be made, and differ. */
function countsOf(types) {
  const count = (...verdicts) => types.filter(({ verdict }) => verdicts.includes(verdict)).length;
  const unmade = types.filter((entry) => entry.class === undefined).length;
  return (
    `${count("same")} agree, ${count("refused")} are refused, ${unmade} ` +
    `could not be made, ${count("DIFFERENT", "BROKEN")} are accepted and differ.`
  );
}

const savedCell = (saved) => (saved?.verdict === "same" ? small(saved.difference) : (saved?.words ?? ""));

function refusedTable(types) {
  const refused = types.filter(({ verdict }) => verdict === "refused");
  return table(
    ["what is said", "types"],
    grouped(refused, ({ words }) => withoutType(words)).map(([words, names]) => [cell(words), code(names)]),
  );
}

function unmadeTable(types) {
  return table(
    ["type", "why"],
    types.filter((entry) => entry.class === undefined).map(({ type, failure }) => [`\`${type}\``, cell(failure)]),
  );
}

/** Classes that hold a text model beside towers, on token ids alone. */
function multimodalPart(types) {
  if (types.length === 0) return "";
  return `
## Multimodal types

The ${types.length} types that \`AutoModelForMultimodalLM\` knows and \`AutoModelForCausalLM\` does not, on token
ids alone:
${countsOf(types)}

${table(
  ["type", "read as", "class", "written", "saved"],
  types
    .filter(({ verdict }) => verdict === "same")
    .map(({ type, family, class: name, difference, saved }) => [
      `\`${type}\``,
      `\`${family}\``,
      name,
      small(difference),
      savedCell(saved),
    ]),
)}

Refused:

${refusedTable(types)}

Of these transformers makes no model out of defaults with smaller sizes (which do not fit each other, or ask for a
package or a picture): ${code(types.filter((entry) => entry.class === undefined).map(({ type }) => type))}.
`;
}

/** `facts` are date and versions; `known` says why a difference is meant. */
export function sweepPage({ types: all, variants, facts, known }) {
  const types = all.filter(({ multimodal }) => !multimodal);
  const agree = types.filter(({ verdict }) => verdict === "same");
  const meant = variants.filter((entry) => known(entry) !== undefined && entry.verdict === "DIFFERENT");
  const families = agree.map(({ type }) => type).filter((type) => variants.some((entry) => entry.type === type));
  const untried = agree.map(({ type }) => type).filter((type) => !families.includes(type));
  return `# Every causal model type of transformers, on ${facts.date}

A tiny model of each of the ${types.length} types that \`AutoModelForCausalLM\` knows was made by transformers and
opened here, from the config.json as people write it and as transformers saves it. "Agrees" means the same logits to
1e-4 of the largest one. The page is made by \`test/external/sweep.mjs\`.

${facts.versions}

${countsOf(types)}

## Agree

Difference from transformers' logits, as a fraction of the largest: from a written config.json, and from a saved one.

${table(
  ["type", "class", "written", "saved"],
  agree.map(({ type, class: name, difference, saved }) => [`\`${type}\``, name, small(difference), savedCell(saved)]),
)}

## Refused

${refusedTable(types)}

## Not made

Transformers makes no model of these from a config.json that runs on token ids alone.

${unmadeTable(types)}
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
}${multimodalPart(all.filter(({ multimodal }) => multimodal))}`;
}
