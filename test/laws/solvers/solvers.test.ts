/** The local minimisers on linear problems, whose minima are known, inside a box and on its bounds. */
import { describe, expect, it } from "vitest";
import { dot, multiply, zeros } from "../../../src/base/vectors.js";
import { bfgs } from "../../../src/laws/solvers/bfgs.js";
import { isOnBound, isOutside, pointsOut, roomAhead, type Box } from "../../../src/laws/solvers/box.js";
import { levenberg } from "../../../src/laws/solvers/levenberg.js";
import { Objective } from "../../../src/laws/solvers/objective.js";

/** Points on a line: prediction = theta_0 + theta_1 x at x = 0, 1, 2, 3. */
function line(box: Box): ConstructorParameters<typeof Objective>[0] {
  const features = [Float64Array.of(1, 1, 1, 1), Float64Array.of(0, 1, 2, 3)];
  return {
    ...box,
    n: 4,
    p: 2,
    evaluate: (theta, out) =>
      out.forEach(
        (_, i) =>
          (out[i] = dot(
            theta,
            Float64Array.from(features, (f) => f[i] ?? 0),
          )),
      ),
    pullback: (slopes, gradient) => multiply(gradient, features, slopes),
    jacobian: (out) => features.forEach((feature, j) => out.set(feature, j * 4)),
  };
}

const wide: Box = { lower: Float64Array.of(-10, -10), upper: Float64Array.of(10, 10) };
const observed = Float64Array.of(1, 3, 5, 7);
const objectiveIn = (box: Box, loss: "huber" | "mse" = "mse"): Objective =>
  new Objective(line(box), observed, new Float64Array(4).fill(1), loss, 1e-3);
const start = Float64Array.of(-4, 5);

describe.each([
  ["levenberg", levenberg],
  ["bfgs", bfgs],
] as const)("%s", (_, minimise) => {
  it.each(["mse", "huber"] as const)("finds the line through points on a line by the loss %s", (loss) => {
    const { theta, converged } = minimise(objectiveIn(wide, loss), start);
    expect(converged).toBe(true);
    expect(theta[0]).toBeCloseTo(1, 6);
    expect(theta[1]).toBeCloseTo(2, 6);
  });

  it("ends on a bound, and its gradient there points out of the box", () => {
    const box = { lower: Float64Array.of(-10, -10), upper: Float64Array.of(10, 1.5) };
    const { theta, gradient, converged } = minimise(objectiveIn(box), Float64Array.of(0, 0));
    expect(converged).toBe(true);
    expect(theta[1]).toBe(1.5);
    // With the slope held at 1.5 the best offset is the mean of observed - 1.5 x.
    expect(theta[0]).toBeCloseTo(1.75, 9);
    expect(gradient[1]).toBeLessThan(0);
  });

  it("lets a parameter go that starts on a bound from which the objective falls", () => {
    const box = { lower: Float64Array.of(-10, 0), upper: Float64Array.of(10, 10) };
    const { theta } = minimise(objectiveIn(box), Float64Array.of(9, 0));
    expect(theta[0]).toBeCloseTo(1, 6);
    expect(theta[1]).toBeCloseTo(2, 6);
  });

  it("says that it has not converged at its iteration limit", () => {
    const result = minimise(objectiveIn(wide, "huber"), Float64Array.of(-9, 9), { iterations: 1, tolerance: 1e-14 });
    expect(result).toMatchObject({ converged: false, iterations: 1 });
  });
});

describe("a box", () => {
  const box: Box = { lower: Float64Array.of(0), upper: Float64Array.of(1) };
  it.each([
    [0, -1, true, 0],
    [0, 1, false, 1],
    [1, 1, true, 0],
    [0.25, -1, false, 0.25],
    [0.25, 1, false, 0.75],
  ])("at %d a step of %d points out: %s, with room %d", (value, step, isOut, room) => {
    const theta = Float64Array.of(value);
    expect(pointsOut(box, theta, 0, step)).toBe(isOut);
    expect(roomAhead(box, theta, 0, step)).toBeCloseTo(room, 15);
    expect(isOnBound(box, theta, 0)).toBe(value === 0 || value === 1);
    expect(isOutside(box, theta, 0)).toBe(false);
  });

  it("is left neither by a step of zero nor by one that is no number", () => {
    const theta = Float64Array.of(0);
    expect(pointsOut(box, theta, 0, 0)).toBe(false);
    expect(pointsOut(box, theta, 0, NaN)).toBe(false);
    expect(isOutside(box, Float64Array.of(1.5), 0)).toBe(true);
  });
});

describe("Gauss-Newton matrix", () => {
  it("is J^T W J, with residuals beyond Huber's threshold weighted down", () => {
    const objective = objectiveIn(wide);
    objective.value(Float64Array.of(0, 0), new Float64Array(2));
    const squares = zeros(2, 2);
    objective.curvature(squares.rows);
    expect([...squares.values]).toEqual([4, 6, 6, 14]);
    const huber = objectiveIn(wide, "huber");
    huber.value(Float64Array.of(0, 0), new Float64Array(2));
    const weighted = zeros(2, 2);
    huber.curvature(weighted.rows);
    // Scaled by 1 / delta, a residual r far out counts 1 / |r|.
    expect(weighted.values[0]).toBeCloseTo(1 + 1 / 3 + 1 / 5 + 1 / 7, 12);
  });
});
