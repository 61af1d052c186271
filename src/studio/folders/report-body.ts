/**
 * Reports that other commands have written, made again from the data in their files: what stands in the studio comes
 * from the same sections as the file, and nothing of the file's own markup is used.
 */
import { UpcycleError } from "../../base/errors.js";
import { evaluationBody, type EvaluationSource } from "../../report/evals/eval-page.js";
import { expertsBody, type ExpertsSource } from "../../report/experts/experts-page.js";
import { lawSourceOf, type LawDocument } from "../../report/laws/law-document.js";
import { lawBody } from "../../report/laws/law-page.js";
import type { LawSource } from "../../report/laws/law-source.js";
import type { ReportBody } from "../../report/page/shell.js";
import { controlsOf, render, type Rendered } from "../../report/plan/plan-live.js";
import { planBody, type PlanSource } from "../../report/plan/plan-page.js";

/** What a report's file says that it is made of. */
export interface ReportSource {
  readonly kind: string;
  /** What the report's parts draw, and what else it is made of. */
  readonly data: unknown;
  readonly source: unknown;
}

/** The data in the text of a report; null for a file without any, as of an earlier version. */
export function sourceOf(text: string): ReportSource | null {
  const [, json] = /<script type="application\/json" id="report-data">([^<]*)<\/script>/.exec(text) ?? [];
  if (json === undefined) return null;
  try {
    const { kind, data = null, source = null } = JSON.parse(json) as Partial<ReportSource>;
    return typeof kind === "string" ? { kind, data, source } : null;
  } catch {
    return null;
  }
}

/** What is made of a file's data; null for data that it cannot be made of, whoever has written them. */
export function orNull<T>(make: () => T): T | null {
  try {
    return make();
  } catch (cause) {
    // Data of another version, or damaged ones, lack what a section reads.
    if (cause instanceof TypeError || cause instanceof RangeError || cause instanceof UpcycleError) return null;
    throw cause;
  }
}

/** The report of a file's data; null for data that it cannot be made of. */
export const bodyOf = ({ kind, data, source }: ReportSource): ReportBody | null =>
  orNull(() => {
    switch (kind) {
      case "law":
        return lawBody({ ...(source as LawSource), charts: (data as Pick<LawSource, "charts">).charts });
      case "plan":
        return planBody(data as PlanSource);
      case "evaluation":
        return evaluationBody(source as EvaluationSource);
      case "experts":
        return expertsBody(source as ExpertsSource);
      default:
        return null;
    }
  });

/** What a JSON file of ours is made of, by how it begins; null for any other file. */
export function documentKind(beginning: string): "law" | "plan" | null {
  if (/^\s*\{"law":"(?:[^"\\]|\\.)*","formula":"(?:[^"\\]|\\.)*","source":/.test(beginning)) return "law";
  return /^\s*\{"upcycle":"[^"]*","words":\[/.test(beginning) ? "plan" : null;
}

/** The data of a document that `upcycle fit --json` or `upcycle plan --json` has printed; null for a damaged one. */
export function sourceOfDocument(name: string, kind: "law" | "plan", document: unknown): ReportSource | null {
  if (typeof document !== "object" || document === null) return null;
  if (kind === "plan") return { kind, data: document, source: null };
  try {
    const { charts, ...source } = lawSourceOf(document as LawDocument, name);
    return { kind, data: { charts }, source };
  } catch (cause) {
    if (cause instanceof TypeError) return null;
    throw cause;
  }
}

/** The plan of a file's data with what sliders change; null for data of something else. */
export function planOf({ kind, data }: ReportSource, settings: URLSearchParams): Rendered | null {
  if (kind !== "plan") return null;
  return orNull(() => {
    const { request, words } = data as PlanSource;
    const keys = controlsOf(request).map(({ key }) => key);
    const changes = keys.flatMap((key) => {
      const value = Number(settings.get(key));
      return value > 0 && Number.isFinite(value) ? [[key, value] as const] : [];
    });
    return render(request, Object.fromEntries(changes), words);
  });
}
