import { describe, expect, it } from "vitest";
import { shownPath } from "../../src/cli/context.js";
import { byteSize, oneOf, realNumber, wholeNumber } from "../../src/cli/options.js";
import { conversionView } from "../../src/cli/progress.js";
import { openTerminal } from "../../src/cli/terminal.js";
import { join, resolve } from "node:path";

/** Everything written, in order, to a terminal of the given kind; the clock moves when told. */
function recorded(isTTY: boolean, quiet = false) {
  const log: string[] = [];
  const clock = { now: 0 };
  const stream = (name: string) => ({ isTTY, columns: 20, write: (text: string) => log.push(`${name} ${text}`) });
  return { log, clock, terminal: openTerminal({ stdout: stream("out"), stderr: stream("err"), now: () => clock.now }, quiet) };
}

describe("a terminal", () => {
  it("rewrites progress in place, cut to its width, and ends it before anything else", () => {
    const { log, clock, terminal } = recorded(true);
    terminal.progress("step 1");
    terminal.progress("step 2, too soon");
    clock.now = 1000;
    terminal.progress("a line that is much too long");
    terminal.out("done");
    expect(log).toEqual(["err \r\u001b[2Kstep 1", "err \r\u001b[2Ka line that is muc…", "err \n", "out done\n"]);
  });

  it("gets plain lines, rarely, where it is a file or a pipe", () => {
    const { log, clock, terminal } = recorded(false);
    for (clock.now = 0; clock.now < 10_000; clock.now += 1000) terminal.progress(`at ${clock.now}`);
    expect(log).toEqual(["err at 0\n", "err at 5000\n"]);
  });

  it("keeps to results when quiet", () => {
    const { log, terminal } = recorded(true, true);
    terminal.note("opening");
    terminal.progress("step 1");
    terminal.out("{}");
    expect(log).toEqual(["out {}\n"]);
  });
});

describe("a conversion's progress", () => {
  it("says how fast and how long once there is something to go by", () => {
    const { log, clock, terminal } = recorded(false);
    const view = conversionView(terminal, "converting", () => clock.now);
    for (clock.now = 0; clock.now <= 5000; clock.now += 5000) view({ type: "progress", tensor: "a", done: 25e6 + clock.now, total: 100e6, bytesPerSecond: 25e6 });
    expect(log).toEqual(["err converting  25.0 % of 100 MB  a\n", "err converting  25.0 % of 100 MB  25 MB/s  ETA 3.0 s  a\n"]);
  });
});

describe("values of options", () => {
  it("are read", () => {
    expect(wholeNumber("--n", 1, 9)("7")).toBe(7);
    expect(realNumber("--x", 0)("2e-2")).toBe(0.02);
    expect(oneOf("--w", ["a", "b"])("b")).toBe("b");
    expect(["5GB", "1.5 kb", "2MiB", "7B"].map(byteSize("--s"))).toEqual([5e9, 1500, 2 ** 21, 7]);
  });

  it.each([
    ["1.5", wholeNumber("--n", 0)],
    ["1e3", wholeNumber("--n", 0)],
    ["10", wholeNumber("--n", 1, 9)],
    ["", realNumber("--n", 0)],
    ["NaN", realNumber("--n", 0)],
    ["Infinity", realNumber("--n", 0)],
    ["1e999", realNumber("--n", 0)],
    ["GB", byteSize("--n")],
    ["0GB", byteSize("--n")],
    ["5 parsec", byteSize("--n")],
  ])("%j is refused with the option's name", (text, read: (text: string) => number) => {
    expect(() => read(text)).toThrow(expect.objectContaining({ where: "--n" }));
  });
});

describe("shownPath", () => {
  it("is relative below the working folder only", () => {
    expect(shownPath(resolve("a", "b"))).toBe(join("a", "b"));
    expect(shownPath(".")).toBe(".");
    expect(shownPath(join("..", "x"))).toBe(join("..", "x"));
    expect(shownPath(resolve("..name"))).toBe("..name");
    expect(shownPath(resolve("/"))).toBe(resolve("/"));
  });
});
