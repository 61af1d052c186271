import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { floatBytes, fromFloat32, type FloatDtype } from "../../../src/files/numeric/dtype.js";
import { evaluateExpr, evaluateRectangle } from "../../../src/surgery/planning/evaluate.js";
import {
  columnsOf,
  concat,
  fill,
  meanExpr,
  normal,
  pad,
  offset,
  permuteRows,
  read,
  rowsOf,
  scale,
  sizeOf,
  type Expr,
} from "../../../src/surgery/planning/expr.js";
import { halvesTable, lookUp } from "../../../src/surgery/planning/table.js";
import { remembered, type EvaluationContext } from "../../../src/surgery/planning/evaluation.js";
import { eachRows } from "../../../src/surgery/planning/units.js";
import { valuesOf } from "../../../src/surgery/planning/values.js";
import { evaluateRows, rectanglesOfWhole } from "./fixtures.js";

const shapes = new Map([["w", [48, 20]]]);
const values = Float32Array.from({ length: 960 }, (_, i) => Math.sin(i) * 3);

function contextOf(dtype: FloatDtype, inMemoryGiven: boolean): EvaluationContext {
  const parents = [1, 2, 3].map((factor) =>
    rectanglesOfWhole(shapes, () =>
      Promise.resolve({
        dtype,
        bytes: fromFloat32(
          dtype,
          values.map((value) => value * factor),
        ),
      }),
    ),
  );
  const whole: EvaluationContext["readRectangle"] = (rectangle) => at(parents, rectangle.source ?? 0)(rectangle);
  return {
    shapes,
    seed: 11,
    data,
    cache: new Map(),
    dtypeOf: () => dtype,
    readRectangle: async (rectangle, into) => {
      const part = await whole(rectangle);
      if (!inMemoryGiven || into === undefined || into.byteLength < part.bytes.byteLength) return part;
      into.set(part.bytes);
      return { dtype, bytes: into.subarray(0, part.bytes.byteLength) };
    },
  };
}

const exprs: [Expr, number[]][] = [
  [read("w"), [48, 20]],
  [rowsOf(read("w"), 5, 30), [30, 20]],
  [columnsOf(read("w"), 3, 11), [48, 11]],
  [scale(columnsOf(rowsOf(read("w"), 2, 9), 1, 7), 1.7), [9, 7]],
  [normal(0.3, "router", 3), [48, 20]],
  [scale(normal(0.3, "b"), 2), [48]],
  [fill(0.25), [48, 20]],
  [offset(rowsOf(read("w"), 3, 8), 1), [8, 20]],
  [permuteRows(scale(read("w"), 3), [2, 0, 3, 1]), [48, 20]],
  [
    meanExpr([rowsOf(read("w"), 5, 12), scale(rowsOf(read("w"), 20, 12), 3), rowsOf(read("w"), 1, 12)], [1, 2, 0.3]),
    [12, 20],
  ],
  [
    concat([rowsOf(read("w"), 40, 8), meanExpr([rowsOf(read("w"), 3, 5), rowsOf(read("w"), 9, 5)], [1, 1])], "rows"),
    [13, 20],
  ],
  [
    scale(
      concat(
        [columnsOf(read("w"), 7, 3), columnsOf(read("w"), 2, 1), pad(columnsOf(read("w"), 0, 4), 48, 6)],
        "columns",
      ),
      0.7,
    ),
    [48, 10],
  ],
  [{ op: "shuffle", of: read("w"), axis: "columns", stream: "s", undo: true }, [48, 20]],
  [meanExpr([read("w"), scale(read("w", 1), 3), read("w", 2)], [1, 1, 1]), [48, 20]],
  [rowsOf(meanExpr([read("w"), read("w", 1)], [1, 1]), 4, 9), [9, 20]],
  [{ op: "data", name: "router", rowCount: 24, columnCount: 20, repeat: 2 }, [48, 20]],
];
const data = new Map([["router", values.subarray(480)]]);

describe("rectangles of an output", () => {
  it("are the same however an output is cut, and wherever its bytes may lie", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...exprs),
        fc.constantFrom<FloatDtype>("F32", "BF16", "F16"),
        fc.constantFrom<FloatDtype>("F32", "BF16", "F64"),
        fc.array(fc.nat(47), { maxLength: 4 }),
        fc.boolean(),
        fc.nat(9),
        async ([expr, shape], dtype, from, cuts, inMemoryGiven, room) => {
          const context = contextOf(from, inMemoryGiven);
          const whole = await evaluateExpr(expr, shape, dtype, context);
          const rowBytes = (shape[1] ?? 1) * floatBytes[dtype];
          const bounds = [0, ...cuts.map((cut) => cut % at(shape, 0)).sort((a, b) => a - b), at(shape, 0)];
          const parts: Uint8Array[] = [];
          for (let i = 1; i < bounds.length; i++) {
            const count = at(bounds, i) - at(bounds, i - 1);
            const into = new Uint8Array(count * rowBytes + room);
            parts.push((await evaluateRows(expr, shape, at(bounds, i - 1), count, dtype, context, into)).slice());
          }
          expect(Buffer.concat(parts).equals(whole)).toBe(true);
        },
      ),
    );
  });

  it("are parts of the whole output", async () => {
    for (const [expr, shape] of exprs) {
      if (shape.length === 1) continue;
      const context = contextOf("F32", false);
      const whole = new Float32Array((await evaluateExpr(expr, shape, "F32", context)).slice().buffer);
      const area = { rowStart: 2, rowCount: 5, columnStart: 1, columnCount: 4 };
      const part = new Float32Array((await evaluateRectangle(expr, shape, area, "F32", context)).slice().buffer);
      expect([...part]).toEqual(
        Array.from({ length: 20 }, (_, i) => whole[(2 + Math.floor(i / 4)) * at(shape, 1) + 1 + (i % 4)]),
      );
    }
  });

  it("of a mean average the parents, and of data are the rows that the plan carries", async () => {
    const middleOf = async (expr: Expr): Promise<number[]> => [
      ...new Float32Array((await evaluateRows(expr, [48, 20], 5, 1, "F32", contextOf("F32", false))).slice().buffer),
    ];
    expect(await middleOf(meanExpr([read("w"), read("w", 2)], [1, 1]))).toEqual(
      [...values.subarray(100, 120)].map((value) => Math.fround((value + Math.fround(3 * value)) / 2)),
    );
    expect(await middleOf({ op: "data", name: "router", rowCount: 24, columnCount: 20, repeat: 2 })).toEqual([
      ...values.subarray(480 + 40, 480 + 60),
    ]);
    await expect(middleOf({ op: "data", name: "lost", rowCount: 24, columnCount: 20, repeat: 2 })).rejects.toThrow(
      "the plan carries no 24 x 20 matrix lost",
    );
  });

  it("of permuteRows are reordered within every run of rows", async () => {
    const result = new Float32Array(
      (await evaluateExpr(permuteRows(read("w"), [2, 0, 1]), [48, 20], "F32", contextOf("F32", false))).slice().buffer,
    );
    [2, 0, 1, 5, 3, 4].forEach((from, row) =>
      expect(result.subarray(row * 20, (row + 1) * 20)).toEqual(values.subarray(from * 20, (from + 1) * 20)),
    );
  });

  it("of an average are the weighted means, and exactly the operand where all are equal, down to the sign of a zero", async () => {
    const part = (start: number): Expr => rowsOf(read("w"), start, 4);
    const context = contextOf("F32", false);
    const result = new Float32Array(
      (await evaluateExpr(meanExpr([part(0), part(4), part(8)], [1, 2, 5]), [4, 20], "F32", context)).slice().buffer,
    );
    result.forEach((value, i) =>
      expect(value).toBe(Math.fround((at(values, i) + 2 * at(values, i + 80) + 5 * at(values, i + 160)) / 8)),
    );
    for (const count of [2, 3, 7, 60]) {
      const equal = meanExpr(
        Array.from({ length: count }, () => scale(part(0), -1)),
        Array.from({ length: count }, () => 1),
      );
      const bytes = await evaluateExpr(equal, [4, 20], "F32", context);
      expect(Buffer.compare(bytes, await evaluateExpr(scale(part(0), -1), [4, 20], "F32", context))).toBe(0);
    }
  });

  it("of parts joined again are the whole, and a shuffle that is undone changes nothing", async () => {
    const context = contextOf("F32", false);
    const whole = await evaluateExpr(read("w"), [48, 20], "F32", context);
    const same = async (expr: Expr): Promise<void> =>
      expect(Buffer.compare(await evaluateExpr(expr, [48, 20], "F32", context), whole)).toBe(0);
    await same(concat([rowsOf(read("w"), 0, 5), rowsOf(read("w"), 5, 1), rowsOf(read("w"), 6, 42)], "rows"));
    await same(concat([columnsOf(read("w"), 0, 19), columnsOf(read("w"), 19, 1)], "columns"));
    for (const axis of ["rows", "columns"] as const) {
      const there: Expr = { op: "shuffle", of: read("w"), axis, stream: "s" };
      expect(Buffer.compare(await evaluateExpr(there, [48, 20], "F32", context), whole)).not.toBe(0);
      await same({ op: "shuffle", of: there, axis, stream: "s", undo: true });
    }
  });

  it("throw a plain error for operands that do not fit together", async () => {
    const context = contextOf("F32", false);
    expect(() => sizeOf(meanExpr([rowsOf(read("w"), 0, 4), rowsOf(read("w"), 0, 5)], [1, 1]), shapes)).toThrow(
      "plan averages what has different sizes: mean(rows(w, 0..3), rows(w, 0..4))",
    );
    expect(() => sizeOf(concat([rowsOf(read("w"), 0, 4), read("w")], "columns"), shapes)).toThrow(
      "plan joins what does not fit together: concat(columns: rows(w, 0..3), w)",
    );
    await expect(evaluateExpr(concat([fill(1), read("w")], "rows"), [49, 20], "F32", context)).rejects.toThrow(
      "plan joins what does not fit together",
    );
  });

  it("throw a plain error outside the output", async () => {
    await expect(evaluateRows(read("w"), [48, 20], 40, 9, "F32", contextOf("F32", false))).rejects.toThrow(
      "rows 40+9, columns 0+20 of [48, 20]: w",
    );
  });
});

describe("a table of 16-bit values", () => {
  it("gives the same bits as the arithmetic, for every pattern, factor and precision", () => {
    const patterns = new Uint8Array(Uint16Array.from({ length: 65536 }, (_, i) => i).buffer);
    for (const from of ["BF16", "F16"] as const) {
      // A copy into the same precision changes no bit, not even those of a NaN.
      const out = new Uint8Array(patterns.length);
      lookUp(halvesTable(from, from, 1), patterns, out);
      expect(Buffer.compare(out, patterns)).toBe(0);
    }
    const half = new Uint8Array(patterns.length);
    lookUp(halvesTable("BF16", "BF16", 0.1), patterns, half);
    const three = at(new Uint16Array(half.buffer), 0x4040);
    expect(three).toBe(new Uint16Array(fromFloat32("BF16", Float32Array.of(Math.fround(3 * 0.1))).slice().buffer)[0]);
  });

  it("converts values that begin at an odd byte", () => {
    const bytes = new Uint8Array(9).fill(1);
    const out = new Uint8Array(17);
    lookUp(halvesTable("BF16", "F32", 1), bytes.subarray(1), out.subarray(1));
    expect([...out]).toEqual([0, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1]);
  });
});

describe("sums over whole tensors", () => {
  it("visit every value once, in order, and are computed once for each context", async () => {
    const context = contextOf("F32", false);
    let sum = 0;
    await eachRows(
      scale(read("w"), 2),
      [48, 20],
      (...of) => valuesOf(...of, context),
      (part) => part.forEach((value) => (sum += value)),
    );
    expect(sum).toBeCloseTo(2 * values.reduce((a, b) => a + b, 0), 6);
    let computed = 0;
    const compute = (): Promise<number> => Promise.resolve(++computed);
    expect([await remembered(context, "mean w", compute), await remembered(context, "mean w", compute)]).toEqual([
      1, 1,
    ]);
  });
});
