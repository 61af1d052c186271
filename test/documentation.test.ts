/** Holds what the documents say of the code: files that they name exist, and functions stand in the files named. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";

const root = fileURLToPath(new URL("..", import.meta.url));
const documents = readdirSync(join(root, "docs"))
  .filter((name) => name.endsWith(".md"))
  .map((name) => `docs/${name}`);
const textOf = (document: string): string => readFileSync(join(root, document), "utf8");

/** Paths of this repository in code spans; src/ may be left out, as it is in docs/architecture.md. */
function pathsIn(text: string): string[] {
  const spans = [...text.matchAll(/`([\w.-]+(?:\/[\w.-]+)+\/?)`/g)].map(([, path = ""]) => path);
  return spans.filter((path) => /\.(?:ts|mjs|py|md|wat|ya?ml|json)$/.test(path));
}

const isThere = (path: string): boolean => [path, `src/${path}`].some((name) => existsSync(join(root, name)));

/** Rows of the table `Where to find what`: files, and the functions or tables that stand in them. */
function whereabouts(): { readonly files: readonly string[]; readonly names: readonly string[] }[] {
  const [, section = ""] = textOf("docs/architecture.md").split("## Where to find what\n");
  const [table = ""] = section.split("\n## ");
  const spans = (cell: string): string[] => [...cell.matchAll(/`([^`]+)`/g)].map(([, span = ""]) => span);
  return table
    .split("\n")
    .filter((line) => line.startsWith("|"))
    .slice(2)
    .map((line) => line.split("|").slice(2))
    .map(([files = "", names = ""]) => ({ files: spans(files), names: spans(names) }));
}

describe("documents", () => {
  it.each(documents)("%s names only files that exist", (document) => {
    // What a run or a benchmark writes is no file of the repository.
    const written = new Set(["last/optimizer.safetensors"]);
    expect(pathsIn(textOf(document)).filter((path) => !written.has(path) && !isThere(path))).toEqual([]);
  });

  it.each(["README.md", "bench/README.md", ...documents])("%s links only to files that exist", (document) => {
    const links = [...textOf(document).matchAll(/\]\((?!https?:)([^)#\s]+)/g)].map(([, link = ""]) => link);
    expect(links.filter((link) => !existsSync(join(root, dirname(document), link)))).toEqual([]);
  });

  it("docs/architecture.md says where functions are, and they are there", () => {
    const rows = whereabouts();
    expect(rows.length).toBeGreaterThan(10);
    for (const { files, names } of rows) {
      expect([files.length > 0, names.length > 0], files.join()).toEqual([true, true]);
      const code = files
        .filter((file) => file.endsWith(".ts"))
        .map((file) => textOf(`src/${file}`))
        .join("\n");
      for (const name of names) if (code !== "") expect(code, files.join()).toMatch(new RegExp(`\\b${name}\\b`));
    }
  });
});
