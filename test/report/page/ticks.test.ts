import { describe, expect, it } from "vitest";
import { logTicks, plainTick, tellingFormat, trimmedTicks, withoutZeros } from "../../../src/report/page/ticks.js";

describe("ticks", () => {
  it("of a logarithmic axis are 1, 2 and 5 of a decade, or 1 alone where there are many", () => {
    expect(logTicks(1, 12, 400)).toEqual([1, 2, 5, 10]);
    expect(logTicks(1, 1e4, 400)).toEqual([1, 10, 100, 1000, 1e4]);
    expect(logTicks(3, 90, 100)).toEqual([10]);
  });

  it("of a logarithmic axis of less than a decade are as many as it needs", () => {
    expect(logTicks(0.285, 1.05, 220)).toEqual([0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]);
    expect(logTicks(3.1e-7, 3.9e-7, 220)).toEqual([3.2e-7, 3.4e-7, 3.6e-7, 3.8e-7]);
  });

  it("have as many digits as tell them apart where they are plain numbers", () => {
    const ticks = [0.000998, 0.0009985, 0.000999, null];
    const three = (value: number): string => String(Number(value.toPrecision(3)));
    expect([0.000998, 0.0009985, 0.000999].map(tellingFormat(ticks, three))).toEqual([
      "0.0009980",
      "0.0009985",
      "0.0009990",
    ]);
    expect(tellingFormat([1, 2], three)).toBe(three);
    const percent = (value: number): string => `${Math.round(100 * value)} %`;
    expect(tellingFormat([0.001, 0.002], percent)).toBe(percent);
  });

  it("have the decimals of their step", () => {
    expect([0, 0.25, 0.5].map((value) => plainTick(value, 0.25))).toEqual(["0.00", "0.25", "0.50"]);
    expect(plainTick(3, 1)).toBe("3");
    expect(plainTick(1_500_000, 500_000)).toBe("1.5M");
    expect(plainTick(2e-8, 1e-8)).toBe("2.00e-8");
  });

  it("lose the zeros that all of them have, and no others", () => {
    expect(trimmedTicks(["3.2000", "3.2500", "3.3000"])).toEqual(["3.20", "3.25", "3.30"]);
    expect(trimmedTicks(["1.00×", "2.00×"])).toEqual(["1×", "2×"]);
    expect(trimmedTicks(["", "10", "20"])).toEqual(["", "10", "20"]);
    expect(trimmedTicks(["1.5K/s", "2.0K/s"])).toEqual(["1.5K/s", "2.0K/s"]);
    expect(["1.50M", "2.00", "10"].map(withoutZeros)).toEqual(["1.5M", "2", "10"]);
  });
});
