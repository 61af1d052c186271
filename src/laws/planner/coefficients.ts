/**
 * The three laws of a plan: dense models, MoEs from scratch, upcycled ones; where they are from, what is known of
 * their error, and over which sizes and tokens they were fitted.
 */
import { inputError } from "../../base/errors.js";
import { lawById, lawOf } from "../fitting/catalogue.js";
import { lossFunctions } from "../forms/evaluate.js";
import { publishedById } from "../forms/published.js";
import type { Params } from "../forms/types.js";

/** The three kinds of models that a plan needs laws of. */
export const armKinds = ["dense", "scratch", "upcycled"] as const;
/** The three kinds of models that a plan compares. */
export type ArmKind = (typeof armKinds)[number];

/** The law of one kind of models, with its parameters. */
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
export type Uncertainty =
  | { readonly kind: "rounding"; readonly half: Readonly<Record<ArmKind, Params>> }
  | { readonly kind: "draws"; readonly draws: Readonly<Record<ArmKind, Readonly<Record<string, readonly number[]>>>> }
  | { readonly kind: "none" };

/** The three laws, and what is known about them. */
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
  /** Recipe of the fitted MoEs, such as E8G1T2; null: not known. */
  readonly recipe: string | null;
}

/** Losses in nats per token: N parameters of the dense model, D tokens. */
export interface Curves {
  readonly dense: (size: number, tokens: number) => number;
  /** A dense model after D1 and D2 tokens; left out: as one trained on D1 + D2. */
  readonly continued?: (size: number, seen: number, tokens: number) => number;
  readonly scratch: (size: number, tokens: number) => number;
  /** The law as it stands: at few tokens it may lie above the parent. */
  readonly upcycled: (size: number, seen: number, tokens: number) => number;
}

/**
 * Table 2 of Liew et al. 2025. The sizes and tokens of its fit are not known exactly: models up to 7B and a corpus of
 * 368B tokens, from notes about the paper; its MoEs have 8 experts of which 2 are chosen.
 */
export function publishedCoefficients(): Coefficients {
  const of = (id: string): { readonly arm: ArmLaw; readonly half: Params } => {
    const coefficients = publishedById(id);
    if (coefficients?.rounding === undefined) throw new Error(`no published coefficients ${id} with their rounding`);
    const { law, params, rounding } = coefficients;
    return { arm: { law, params }, half: rounding };
  };
  const [dense, scratch, upcycled] = [of("liew-dense"), of("liew-moe"), of("liew-upcycled")];
  return {
    name: "liew",
    published: true,
    source:
      "PUBLISHED coefficients, not measured on your data: Liew, Kato, Takase 2025 (arXiv 2502.03009), Table 2, " +
      "from an extract in notes about the paper",
    arms: { dense: dense.arm, scratch: scratch.arm, upcycled: upcycled.arm },
    uncertainty: {
      kind: "rounding",
      half: { dense: dense.half, scratch: scratch.half, upcycled: upcycled.half },
    },
    ranges: { size: [1e8, 7e9], tokens: [1e9, 3.68e11] },
    recipe: "E8G1T2",
  };
}

/** Losses by the laws as they are. Each law must be one of the catalogue. */
export function curvesOf(arms: Coefficients["arms"]): Curves {
  return curveMaker(arms)(mapArms((kind) => arms[kind].params));
}

/** Parameters of the three laws. */
export type ArmParams = Readonly<Record<ArmKind, Params>>;

/** The three laws as functions, for any parameters. Each law must be one of the catalogue. */
export function curveMaker(arms: Coefficients["arms"]): (params: ArmParams) => Curves {
  const of = (kind: ArmKind, ...names: readonly string[]): ReturnType<typeof lossFunctions> =>
    lossFunctions(lawOf({ id: arms[kind].law }), names, arms[kind].group);
  const [dense, scratch, upcycled] = [of("dense", "N", "D"), of("scratch", "N", "D"), of("upcycled", "N", "D1", "D2")];
  return (params) => ({
    dense: dense(params.dense),
    scratch: scratch(params.scratch),
    upcycled: upcycled(params.upcycled),
  });
}

/** Something for each kind of models. */
export function mapArms<T>(make: (kind: ArmKind) => T): Record<ArmKind, T> {
  return { dense: make("dense"), scratch: make("scratch"), upcycled: make("upcycled") };
}

/** Parameters of the upcycling law of an arm, by their own names; null where the law has another form. */
export function upcyclingParams({ law, group }: ArmLaw, params: Params): Params | null {
  if (law === "upcycling") return params;
  if (law !== "upcycling-shared" || group === undefined) return null;
  const prefix = `${group}.`;
  return Object.fromEntries(
    Object.entries(params).flatMap(([name, value]): [string, number][] => {
      if (name.startsWith(prefix)) return [[name.slice(prefix.length), value]];
      return name.includes(".") ? [] : [[name, value]];
    }),
  );
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
  const byKind = mapArms((kind) => ("shared" in documents ? documents.shared : documents[kind]));
  const all = Object.values(byKind);
  const files = [...new Set(all.map(({ file }) => file))].join(", ");
  return {
    name: files,
    published: false,
    source: `your own fits: ${files}`,
    arms: mapArms((kind) => armLawOf(kind, byKind[kind])),
    recipe,
    uncertainty: uncertaintyOf(byKind),
    ranges: { size: spanOf(all, ["N"]), tokens: spanOf(all, ["D", "D1", "D2"]) },
  };
}

/** The law of one kind of model. Throws inputError where it is about other columns, or a parameter is missing. */
function armLawOf(kind: ArmKind, { law: id, params, file }: FitDocument): ArmLaw {
  const law = lawById(id);
  if (law === undefined)
    throw inputError(`"${id}" is not a law that a plan can use`, {
      where: file,
      hint: "fit dense and from-scratch models with joint or chinchilla, upcycled ones with upcycling",
    });
  const group = law.groups === undefined ? undefined : groupOf[kind];
  const columns = law.groups?.find(({ name }) => name === group)?.columns ?? law.columns.map(({ name }) => name);
  const expectedColumns = columnsOf[kind];
  if (columns.toSorted().join() !== expectedColumns.toSorted().join()) {
    throw inputError(
      `the law ${id} is in ${columns.join(", ")}, but ${kind} models need one in ${expectedColumns.join(", ")}`,
      {
        where: file,
        hint: kind === "upcycled" ? "use upcycling or one of its variants in N, D1, D2" : "use joint or chinchilla",
      },
    );
  }
  for (const { name } of law.parameters) {
    if (!Number.isFinite(params[name]))
      throw inputError(`parameter ${name} of ${id} is ${params[name] ?? "missing"}`, {
        where: file,
        hint: "expected the output of upcycle fit --json",
      });
  }
  return { law: id, params, ...(group !== undefined && { group }) };
}

/** Draws where every fit carries them. */
function uncertaintyOf({ dense, scratch, upcycled }: Readonly<Record<ArmKind, FitDocument>>): Uncertainty {
  if (dense.draws === undefined || scratch.draws === undefined || upcycled.draws === undefined) return { kind: "none" };
  return { kind: "draws", draws: { dense: dense.draws, scratch: scratch.draws, upcycled: upcycled.draws } };
}

/** Smallest and largest value of these columns in any of the fits; null where no fit says. */
function spanOf(documents: readonly FitDocument[], names: readonly string[]): readonly [number, number] | null {
  const ranges = documents.flatMap((document) =>
    names.flatMap((name) => {
      const range = document.ranges?.[name];
      return range === undefined ? [] : [range];
    }),
  );
  if (ranges.length === 0) return null;
  return [Math.min(...ranges.map(([low]) => low)), Math.max(...ranges.map(([, high]) => high))];
}
