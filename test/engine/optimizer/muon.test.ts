import { describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { randomStream } from "../../../src/base/random.js";
import { evaluate } from "../../../src/graph/ir/reference.js";
import { muonScale, newtonSchulz, takesMuon } from "../../../src/engine/optimizer/muon.js";
import { slotsOf } from "../../../src/model/tensors/slots.js";
import { moeSpec } from "../../support/runs.js";

type Matrix = number[][];
const multiply = (a: Matrix, b: Matrix): Matrix =>
  a.map((row) => at(b, 0).map((_, j) => row.reduce((sum, x, k) => sum + x * at(at(b, k), j), 0)));
const transpose = (a: Matrix): Matrix => at(a, 0).map((_, j) => a.map((row) => at(row, j)));
const combine = (a: Matrix, x: number, b: Matrix, y: number): Matrix =>
  a.map((row, i) => row.map((value, j) => x * value + y * at(at(b, i), j)));

/** torch/optim/_muon.py, _zeropower_via_newtonschulz, in float64: a tall matrix is turned first. */
function reference(g: Matrix): Matrix {
  let x = g.length > at(g, 0).length ? transpose(g) : g;
  for (let step = 0; step < 5; step++) {
    const gram = multiply(x, transpose(x));
    x = combine(x, 3.4445, multiply(combine(gram, -4.775, multiply(gram, gram), 2.0315), x), 1);
  }
  return g.length > at(g, 0).length ? transpose(x) : x;
}

function normalised(rows: number, columns: number): Matrix {
  const flat = new Float64Array(rows * columns);
  const noise = new Float32Array(rows * columns);
  randomStream(3, `${rows}x${columns}`).normals(noise, 0);
  const norm = Math.sqrt(noise.reduce((sum, x) => sum + x * x, 0));
  noise.forEach((x, i) => (flat[i] = x / norm));
  return Array.from({ length: rows }, (_, i) => [...flat.subarray(i * columns, (i + 1) * columns)]);
}

describe("Newton-Schulz", () => {
  it.each([
    [4, 4],
    [3, 7],
    [9, 5],
    [1, 6],
    [6, 1],
  ])("%i x %i is torch's iteration", (rows, columns) => {
    const g = normalised(rows, columns);
    const [iterate] = evaluate(newtonSchulz(rows, columns), [Float64Array.from(g.flat())]);
    reference(g)
      .flat()
      .forEach((value, i) => expect(at(iterate!.data, i)).toBeCloseTo(value, 12));
  });

  it("brings every singular value near 1", () => {
    const g = normalised(8, 24);
    const [iterate] = evaluate(newtonSchulz(8, 24), [Float64Array.from(g.flat())]);
    const x = Array.from({ length: 8 }, (_, i) => [...iterate!.data.subarray(i * 24, (i + 1) * 24)]);
    const gram = multiply(x, transpose(x));
    // Singular values between 0.6 and 1.25 or so: the trace is that of nearly the identity, and no row is far from unit
    // length.
    gram.forEach((row, i) => {
      expect(at(row, i)).toBeGreaterThan(0.4);
      expect(at(row, i)).toBeLessThan(1.6);
    });
  });
});

it("hidden matrices go to Muon, looked-up and compared rows do not", () => {
  const parts = new Set(
    slotsOf(moeSpec)
      .filter(takesMuon)
      .map((slot) => (slot.at.expert === undefined ? slot.at.part : `expert ${slot.at.part}`)),
  );
  expect([...parts]).toEqual(["q", "k", "v", "o", "expert gate", "expert up", "expert down"]);
});

it("scales as torch's match_rms_adamw and original", () => {
  expect(muonScale("rms", 100, 400)).toBeCloseTo(0.2 * 20, 12);
  expect(muonScale("spectral", 400, 100)).toBeCloseTo(2, 12);
  expect(muonScale("spectral", 100, 400)).toBe(1);
});
