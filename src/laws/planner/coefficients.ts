/**
 * The three laws of a plan: dense models, mixtures from scratch, upcycled ones; where they are from, what is known of
 * their error, and over which sizes and tokens they were fitted.
 */
import { at as elementAt } from "../../base/at.js";
import { inputError } from "../../base/errors.js";
import { randomStream } from "../../base/random.js";
import { lawById } from "../fitting/catalogue.js";
import { lossFunctions } from "../forms/evaluate.js";
import { publishedById } from "../forms/published.js";
import type { Params } from "../forms/types.js";

export const armKinds = ["dense", "scratch", "upcycled"] as const;
export type ArmKind = (typeof armKinds)[number];

export interface ArmLaw {
  /** Id in the catalogue. */
  readonly law: string;
  readonly params: Params;
  /** Group of a law over several groups. */
  readonly group?: string;
}

/**
 * Why the numbers are not exact. `rounding`: printed digits, half a unit in the last place by parameter. `draws`:
 * natural parameters of bootstrap draws. `none`: not known.
 */
type Uncertainty =
  | { readonly kind: "rounding"; readonly half: Readonly<Record<ArmKind, Params>> }
  | { readonly kind: "draws"; readonly draws: Readonly<Record<ArmKind, Readonly<Record<string, readonly number[]>>>> }
  | { readonly kind: "none" };

export interface Coefficients {
  readonly name: string;
  /** Where they are from, in a sentence. */
  readonly source: string;
  /** Not the user's own: data, tokenizer and architecture are others'. */
  readonly published: boolean;
  readonly arms: Readonly<Record<ArmKind, ArmLaw>>;
  readonly uncertainty: Uncertainty;
  /** Smallest and largest value among the fitted points, where known. Tokens: D, D1 and D2 together. */
  readonly ranges: {
    readonly size: readonly [number, number] | null;
    readonly tokens: readonly [number, number] | null;
  };
  /** Recipe of the fitted mixtures, such as E8G1T2; null: not known. */
  readonly recipe: string | null;
}

/** Losses in nats per token: N parameters of the dense model, D tokens. */
export interface Curves {
  readonly dense: (size: number, tokens: number) => number;
  readonly scratch: (size: number, tokens: number) => number;
  /** The law as it stands: at few tokens it may lie above the parent. */
  readonly upcycled: (size: number, seen: number, tokens: number) => number;
}

/**
 * Table 2 of Liew et al. 2025. The sizes and tokens of its fit are not known exactly: models up to 7B and a corpus of
 * 368B tokens, from notes about the paper; its mixtures have 8 experts of which 2 are chosen.
 */
export function publishedCoefficients(): Coefficients {
  const arm = (id: string): ArmLaw => ({ law: publishedById(id)!.law, params: publishedById(id)!.params });
  const half = (id: string): Params => publishedById(id)!.rounding!;
  return {
    name: "liew",
    published: true,
    source:
      "PUBLISHED coefficients, not measured on your data: Liew, Kato, Takase 2025 (arXiv 2502.03009), Table 2, " +
      "from an extract in notes about the paper",
    arms: { dense: arm("liew-dense"), scratch: arm("liew-moe"), upcycled: arm("liew-upcycled") },
    uncertainty: {
      kind: "rounding",
      half: { dense: half("liew-dense"), scratch: half("liew-moe"), upcycled: half("liew-upcycled") },
    },
    ranges: { size: [1e8, 7e9], tokens: [1e9, 3.68e11] },
    recipe: "E8G1T2",
  };
}

export function curvesOf(arms: Coefficients["arms"]): Curves {
  return curveMaker(arms)(mapArms((kind) => arms[kind].params));
}

function curveMaker(arms: Coefficients["arms"]): (params: Readonly<Record<ArmKind, Params>>) => Curves {
  const of = (kind: ArmKind, ...names: readonly string[]): ReturnType<typeof lossFunctions> =>
    lossFunctions(lawById(arms[kind].law)!, names, arms[kind].group);
  const [dense, scratch, upcycled] = [of("dense", "N", "D"), of("scratch", "N", "D"), of("upcycled", "N", "D1", "D2")];
  return (params) => ({
    dense: dense(params.dense),
    scratch: scratch(params.scratch),
    upcycled: upcycled(params.upcycled),
  });
}

/**
 * Curves under the known uncertainty, the same for a seed. Empty where none is known. E, which the published laws
 * share, is drawn once.
 */
export function curveDraws({ arms, uncertainty }: Coefficients, count: number, seed: number): readonly Curves[] {
  const make = curveMaker(arms);
  switch (uncertainty.kind) {
    case "none":
      return [];
    case "rounding": {
      const stream = randomStream(seed, "rounding");
      // E is one number in all three laws, so it has one deviation.
      const names = [
        ...new Set(
          armKinds.flatMap((kind) =>
            Object.keys(arms[kind].params).map((name) => (name === "E" ? name : `${kind}.${name}`)),
          ),
        ),
      ];
      const tables = mapArms((kind) =>
        Object.entries(arms[kind].params).map(([name, value]) => ({
          name,
          value,
          half: uncertainty.half[kind][name] ?? 0,
          at: names.indexOf(name === "E" ? name : `${kind}.${name}`),
        })),
      );
      return Array.from({ length: count }, (_, draw) =>
        make(
          mapArms((kind) => {
            const params: Record<string, number> = {};
            for (const { name, value, half, at } of tables[kind])
              params[name] = value + (2 * stream.uniformAt(draw * names.length + at) - 1) * half;
            return params;
          }),
        ),
      );
    }
    case "draws": {
      const { draws } = uncertainty;
      const most = Math.min(
        ...armKinds.map((kind) => Math.min(...Object.values(draws[kind]).map((values) => values.length))),
        count,
      );
      return Array.from({ length: most }, (_, draw) =>
        make(
          mapArms((kind) =>
            Object.fromEntries(Object.entries(draws[kind]).map(([name, values]) => [name, elementAt(values, draw)])),
          ),
        ),
      );
    }
  }
}

function mapArms<T>(make: (kind: ArmKind) => T): Record<ArmKind, T> {
  return { dense: make("dense"), scratch: make("scratch"), upcycled: make("upcycled") };
}

/** What `upcycle fit --json` prints, as far as a plan reads it. */
export interface FitDocument {
  readonly file: string;
  readonly law: string;
  readonly params: Params;
  readonly status?: string | undefined;
  readonly draws?: Readonly<Record<string, readonly number[]>> | undefined;
  readonly ranges?: Readonly<Record<string, readonly [number, number]>> | undefined;
}

const groupOf: Readonly<Record<ArmKind, string>> = { dense: "dense", scratch: "moe", upcycled: "upcycled" };
const columnsOf: Readonly<Record<ArmKind, readonly string[]>> = {
  dense: ["D", "N"],
  scratch: ["D", "N"],
  upcycled: ["D1", "D2", "N"],
};

/**
 * The user's own fits: one of the law upcycling-shared, or one per kind of model. Throws inputError for laws that do
 * not fit their place.
 */
export function fittedCoefficients(
  documents: { readonly shared: FitDocument } | Readonly<Record<ArmKind, FitDocument>>,
  recipe: string | null,
): Coefficients {
  const of = (kind: ArmKind): FitDocument => ("shared" in documents ? documents.shared : documents[kind]);
  const arms = mapArms((kind): ArmLaw => {
    const { law: id, params, file } = of(kind);
    const law = lawById(id);
    if (law === undefined)
      throw inputError(`"${id}" is not a law that a plan can use`, {
        where: file,
        hint: "fit dense and from-scratch models with joint or chinchilla, upcycled ones with upcycling",
      });
    const group = law.groups === undefined ? undefined : groupOf[kind];
    const known = law.groups?.find(({ name }) => name === group)?.columns ?? law.columns.map(({ name }) => name);
    const wanted = columnsOf[kind];
    if ([...known].sort().join() !== [...wanted].sort().join()) {
      throw inputError(`the law ${id} is in ${known.join(", ")}, but ${kind} models need one in ${wanted.join(", ")}`, {
        where: file,
        hint: kind === "upcycled" ? "use upcycling or one of its variants in N, D1, D2" : "use joint or chinchilla",
      });
    }
    for (const { name } of law.parameters) {
      if (!Number.isFinite(params[name]))
        throw inputError(`parameter ${name} of ${id} is ${params[name] ?? "missing"}`, {
          where: file,
          hint: "expected the output of upcycle fit --json",
        });
    }
    return { law: id, params, ...(group !== undefined && { group }) };
  });
  const drawn = armKinds.every((kind) => of(kind).draws !== undefined);
  const span = (names: readonly string[]): readonly [number, number] | null => {
    const found = armKinds.flatMap((kind) =>
      names.flatMap((name) => {
        const range = of(kind).ranges?.[name];
        return range === undefined ? [] : [range];
      }),
    );
    return found.length === 0
      ? null
      : [Math.min(...found.map(([low]) => low)), Math.max(...found.map(([, high]) => high))];
  };
  const files = [...new Set(armKinds.map((kind) => of(kind).file))];
  return {
    name: files.join(", "),
    published: false,
    source: `your own fits: ${files.join(", ")}`,
    arms,
    recipe,
    uncertainty: drawn ? { kind: "draws", draws: mapArms((kind) => of(kind).draws!) } : { kind: "none" },
    ranges: { size: span(["N"]), tokens: span(["D", "D1", "D2"]) },
  };
}
