/**
 * One prediction at a time, for searches that ask thousands of times: a law with its parameters as a plain function of
 * the columns.
 */
import { at as elementAt } from "../../base/at.js";
import type { Power, PowerSum, PowerTerm } from "./power-sum.js";
import { placesOf, predict, type Law, type Params } from "./types.js";

/** Loss in nats per token; the columns are those it was made for, in that order. */
export type LossFunction = (a: number, b?: number, c?: number) => number;

/**
 * The law as a function of up to three columns, in the order of `names`, for any parameters. Sums of powers are
 * evaluated directly, all other laws through `predict`; a law over groups needs its `group`.
 */
export function lossFunctions(law: Law, names: readonly string[], group?: string): (params: Params) => LossFunction {
  const { terms, derived } = law as Law & Partial<PowerSum>;
  if (terms === undefined) return (params) => predictionFunction(law, params, names, group);
  const applying = terms.filter(({ groups }) => groups === undefined || groups.includes(group ?? ""));
  const compiled = compileTerms(applying, names, Object.keys(derived ?? {}));
  const logs = logsOf(names, derived ?? {});
  return (params) => {
    const coefficients = Float64Array.from(applying, ({ coefficient }) => params[coefficient] ?? NaN);
    const factors = Float64Array.from(compiled.powers, ({ exponent, sign }) => sign * (params[exponent] ?? NaN));
    return (a, b = NaN, c = NaN) => sumOfTerms(compiled, coefficients, factors, logs(a, b, c));
  };
}

function predictionFunction(
  law: Law,
  params: Params,
  names: readonly string[],
  group: string | undefined,
): LossFunction {
  const groups = group === undefined ? undefined : [group];
  return (...values) => {
    const columns = Object.fromEntries(names.map((name, i) => [name, [values[i] ?? NaN]]));
    return elementAt(predict(law, params, placesOf(columns, groups)), 0);
  };
}

/** Terms as flat arrays. The powers of all terms follow each other; each refers to one or two logs by their index. */
interface CompiledTerms {
  readonly powers: readonly Power[];
  /** Where each term's powers end. */
  readonly ends: Int32Array;
  readonly first: Int32Array;
  /** -1: the power has one log only. */
  readonly second: Int32Array;
}

function compileTerms(
  terms: readonly PowerTerm[],
  columns: readonly string[],
  derived: readonly string[],
): CompiledTerms {
  const logNames = [...columns, ...derived];
  const powers = terms.flatMap((term) => term.powers);
  let count = 0;
  return {
    powers,
    ends: Int32Array.from(terms, (term) => (count += term.powers.length)),
    first: Int32Array.from(powers, ({ logs }) => logNames.indexOf(elementAt(logs, 0))),
    second: Int32Array.from(powers, ({ logs: [, other] }) => (other === undefined ? -1 : logNames.indexOf(other))),
  };
}

/** Logs of up to three columns, then of the derived quantities; every call writes into the same memory. */
function logsOf(
  names: readonly string[],
  derived: NonNullable<PowerSum["derived"]>,
): (a: number, b: number, c: number) => Float64Array {
  const makers = Object.values(derived);
  const values = new Float64Array(3);
  const logs = new Float64Array(names.length + makers.length);
  const column = (name: string): number => values[names.indexOf(name)] ?? NaN;
  return (a, b, c) => {
    [values[0], values[1], values[2]] = [a, b, c];
    for (let i = 0; i < names.length; i++) logs[i] = Math.log(values[i] ?? NaN);
    for (const [i, make] of makers.entries()) logs[names.length + i] = Math.log(make(column));
    return logs;
  };
}

function sumOfTerms(
  { ends, first, second }: CompiledTerms,
  coefficients: Float64Array,
  factors: Float64Array,
  logs: Float64Array,
): number {
  let loss = 0;
  let power = 0;
  for (let term = 0; term < coefficients.length; term++) {
    let exponent = 0;
    for (const end = ends[term]!; power < end; power++) {
      const product = factors[power]! * logs[first[power]!]!;
      const other = second[power]!;
      exponent += other < 0 ? product : product * logs[other]!;
    }
    loss += coefficients[term]! * Math.exp(exponent);
  }
  return loss;
}
