/** Pages and measurements that other commands have written: found by what they begin with, not by their names. */
import type { ExpertsReport } from "../../model/results/experts.js";
import type { ExpertFile } from "../data/expert-types.js";
import type { ReportRow } from "../data/types.js";
import type { StudioIndex } from "./index.js";
import { documentKind, sourceOf, sourceOfDocument, type ReportSource } from "./report-body.js";
import { beginningOf, readPlain, readPlainJson } from "./safe-file.js";

const beginningBytes = 4096;
/** Largest page that is shown, and largest file of measurements. */
const mostBytes = 64e6;

/** What a page's title ends with, by its kind. */
const kinds: readonly (readonly [ReportRow["kind"], RegExp])[] = [
  ["study", /· Upcycle study$/],
  ["plan", /· upcycling plan$/],
  ["law", /· scaling law$/],
  ["evaluation", /· evaluation$/],
  ["experts", /· Upcycle experts$/],
];

const entities: Readonly<Record<string, string>> = { amp: "&", lt: "<", gt: ">", quot: '"', "#39": "'" };

/** The title and kind of a page of ours; null for any other file. */
export function reportOf(beginning: string): Pick<ReportRow, "title" | "kind"> | null {
  const isOurs =
    beginning.toLowerCase().startsWith("<!doctype html>") &&
    beginning.includes('<meta name="generator" content="upcycle ');
  if (!isOurs) return null;
  const [, text = "page"] = /<title>([^<]*)<\/title>/.exec(beginning) ?? [];
  const title = text.replace(/&(amp|lt|gt|quot|#39);/g, (whole, name: string) => entities[name] ?? whole);
  return { title, kind: kinds.find(([, ending]) => ending.test(title))?.[0] ?? "other" };
}

interface Seen<T> {
  readonly size: number;
  readonly changed: number;
  readonly found: T | null;
}

/** What was found in files, by name, size and time: files are read again only when they have changed. */
export class ReportShelf {
  readonly #pages = new Map<string, Seen<ReportRow>>();
  readonly #documents = new Map<string, Seen<ReportRow>>();
  readonly #experts = new Map<string, Seen<{ readonly name: string; readonly model: string }>>();

  /** Data of the page that was looked at last: sliders ask for it again and again. */
  readonly #sources = new Map<string, { readonly changed: number; readonly source: ReportSource | null }>();

  constructor(private readonly index: StudioIndex) {}

  /** Whether a page of ours has this name. */
  async hasPage(name: string): Promise<boolean> {
    return (await this.pages()).some((page) => page.name === name);
  }

  /** All pages of ours, newest first. */
  async pages(): Promise<ReportRow[]> {
    const rows = await this.#all(this.index.found.pages, this.#pages, (name, text, { size, changed }) => {
      const found = reportOf(text);
      return found === null ? null : { name, ...found, bytes: size, changed };
    });
    return rows.sort((a, b) => b.changed - a.changed);
  }

  /** What `upcycle fit --json` and `upcycle plan --json` have printed, newest first. */
  async documents(): Promise<ReportRow[]> {
    const rows = await this.#all(this.index.found.documents, this.#documents, (name, text, { size, changed }) => {
      const kind = documentKind(text);
      return kind === null ? null : { name, title: name, kind, bytes: size, changed };
    });
    return rows.sort((a, b) => b.changed - a.changed);
  }

  /** A page's text; null for a name that is no page of ours. */
  async page(name: string): Promise<Buffer | null> {
    if (!(await this.hasPage(name))) return null;
    return readPlain(this.index.pathOf(name), mostBytes);
  }

  /** The data that a page is made of; null for a name that is no page of ours, and for one without data. */
  async source(name: string): Promise<ReportSource | null> {
    const page = [...(await this.pages()), ...(await this.documents())].find((one) => one.name === name);
    if (page === undefined) return null;
    const kept = this.#sources.get(name);
    if (kept?.changed === page.changed) return kept.source;
    const source = name.endsWith(".json")
      ? sourceOfDocument(name, page.kind as "law" | "plan", await readPlainJson(this.index.pathOf(name), mostBytes))
      : sourceOf((await this.page(name))?.toString("utf8") ?? "");
    this.#sources.clear();
    this.#sources.set(name, { changed: page.changed, source });
    return source;
  }

  /** Files of `upcycle experts --json`. */
  async expertFiles(): Promise<{ readonly name: string; readonly model: string }[]> {
    return this.#all(this.index.found.documents, this.#experts, (name, text) => {
      const [, model] = /^\s*\{"upcycle":"[^"]*","version":1,"model":("(?:[^"\\]|\\.)*"),"family":/.exec(text) ?? [];
      if (model === undefined) return null;
      try {
        return { name, model: JSON.parse(model) as string };
      } catch {
        // One such file must not take the start page away.
        return null;
      }
    });
  }

  /** One of those files, as far as it is shown; null for another name, and for a file that is damaged. */
  async experts(name: string): Promise<ExpertFile | null> {
    if (!(await this.expertFiles()).some((file) => file.name === name)) return null;
    const report = (await readPlainJson(this.index.pathOf(name), mostBytes)) as ExpertsReport | null;
    try {
      return report === null ? null : shownExperts(name, report);
    } catch {
      return null;
    }
  }

  async #all<T>(
    names: readonly string[],
    seen: Map<string, Seen<T>>,
    look: (name: string, text: string, file: { readonly size: number; readonly changed: number }) => T | null,
  ): Promise<T[]> {
    const rows: T[] = [];
    for (const name of names) {
      const file = await beginningOf(this.index.pathOf(name), beginningBytes);
      if (file === null) continue;
      const before = seen.get(name);
      const isSame = before !== undefined && before.size === file.size && before.changed === file.changed;
      const found = isSame ? before.found : look(name, file.bytes.toString("utf8"), file);
      seen.set(name, { size: file.size, changed: file.changed, found });
      if (found !== null) rows.push(found);
    }
    for (const name of seen.keys()) if (!names.includes(name)) seen.delete(name);
    return rows;
  }
}

function shownExperts(name: string, { model, tokens, texts, layers }: ExpertsReport): ExpertFile {
  const short = (value: number): number => Number(value.toPrecision(4));
  return {
    name,
    model,
    tokens,
    texts: texts.map((text) => text.name),
    layers: layers.map(({ layer, load, router, similarity, coactivation }) => ({
      layer,
      shares: load.shares.map(short),
      dead: load.dead,
      entropy: short(router.entropy),
      relativeEntropy: short(router.relativeEntropy),
      weights: similarity.weights.map((row) => row.map(short)),
      coactivation:
        coactivation?.ratios.map((row) => row.map((value) => (value === null ? null : short(value)))) ?? null,
      parent: similarity.parent?.weights.map(short) ?? null,
    })),
  };
}
