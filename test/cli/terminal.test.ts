import { describe, expect, it } from "vitest";
import { at } from "../../src/base/at.js";
import { shownPath } from "../../src/cli/context.js";
import { byteSize, oneOf, realNumber, wholeNumber } from "../../src/cli/options.js";
import { conversionView, peakWords } from "../../src/cli/progress.js";
import { openTerminal, showError } from "../../src/cli/terminal.js";
import { displayWidth } from "../../src/base/width.js";
import { join, resolve } from "node:path";

/** Everything written, in order, to a terminal of the given kind; the clock moves when told. */
function recorded(isTTY: boolean, quiet = false, columns = 20) {
  const log: string[] = [];
  const clock = { now: 0 };
  const stream = (name: string) => ({ isTTY, columns, write: (text: string) => log.push(`${name} ${text}`) });
  const stderr = stream("err");
  return { log, clock, stderr, terminal: openTerminal({ stdout: stream("out"), stderr, now: () => clock.now }, quiet) };
}

describe("the speed of a training", () => {
  it("is given with its share of the GPU's peak where that is known", () => {
    expect(peakWords({ tokensPerSecond: 490_000, mfu: 0.342 })).toBe(
      "490,000 tok/s, 34 % of the GPU's peak (model FLOPs)",
    );
    expect(peakWords({ tokensPerSecond: 490_000, mfu: null })).toBe("490,000 tok/s");
  });
});

describe("a terminal", () => {
  it("rewrites progress in place, fitted to its width, and takes it away before anything else", () => {
    const { log, clock, terminal } = recorded(true);
    terminal.progress("step 1");
    terminal.progress("step 2, too soon");
    clock.now = 1000;
    terminal.progress("a line that is much too long");
    terminal.out("done");
    expect(log).toEqual([
      "err \r\u001b[2Kstep 1",
      "err \r\u001b[2Ka line th… too long",
      "err \r\u001b[2K",
      "out done\n",
    ]);
  });

  it("gets plain lines, rarely, where it is a file or a pipe", () => {
    const { log, clock, terminal } = recorded(false);
    for (clock.now = 0; clock.now < 10_000; clock.now += 1000) terminal.progress(`at ${clock.now}`);
    expect(log).toEqual(["err at 0\n", "err at 5000\n"]);
  });

  it("shows no control, format or bidi character of a name, whatever it is asked to say", () => {
    const hostile = "a\u001b[2J\u001b]0;title\u0007\r\nforged: line\u009b31m\u202edlrow\u200b\u2028\u{e0041}\ud800z";
    const visible =
      "a\\u001b[2J\\u001b]0;title\\u0007\\r\\nforged: line\\u009b31m\\u202edlrow\\u200b\\u2028\\udb40\\udc41\\ud800z";
    for (const isTTY of [true, false]) {
      const { log, stderr, terminal } = recorded(isTTY, false, 200);
      terminal.out(hostile);
      terminal.note(hostile);
      terminal.progress(hostile, hostile);
      showError([hostile], stderr);
      const clear = "\r\u001b[2K";
      expect(log).toEqual([
        `out ${visible}\n`,
        `err ${visible}\n`,
        // On a terminal the name behind two spaces is shortened.
        ...(isTTY
          ? [`err ${clear}${visible}  ${at(log, 2).slice(`err ${clear}${visible}  `.length)}`, "err \n"]
          : [`err ${visible}  ${visible}\n`]),
        `err ${visible}\n`,
      ]);
      expect(log.join("").replaceAll(clear, "").replaceAll("\n", "")).not.toMatch(
        // eslint-disable-next-line no-control-regex
        /[\u0000-\u001f\u007f-\u009f\u202e\u200b\u2028]/,
      );
    }
  });

  it("writes JSON that reads back as the same document and steers nothing", () => {
    const { log, terminal } = recorded(true);
    const document = { name: "\u001b[31m\u009b\u202e\u2028\u{e0041}👩‍🚀", text: "x".repeat(100_000) };
    terminal.json(document);
    const line = log.join("").slice("out ".length);
    expect(JSON.parse(line)).toEqual(document);
    expect(line).toMatch(/^[ -~👩🚀]*\n$/u);
  });

  it("leaves a model's text as it is in a pipe, and takes what steers out of it on a terminal", () => {
    const text = "line\n\tمرحبا 👩‍🚀 \u001b[31mred\u009b";
    const [terminal, pipe] = [recorded(true), recorded(false)];
    terminal.terminal.write(text);
    pipe.terminal.write(text);
    expect(pipe.log).toEqual([`out ${text}`]);
    expect(terminal.log).toEqual(["out line\n\tمرحبا 👩‍🚀 \\u001b[31mred\\u009b"]);
  });

  it("cuts lines without end and says how much it left out", () => {
    const { log, stderr, terminal } = recorded(false);
    for (const say of [
      (text: string) => terminal.out(text),
      (text: string) => terminal.note(text),
      (text: string) => showError([text], stderr),
    ]) {
      say(`[${"1, ".repeat(100_000)}1]`);
      expect(log.at(-1)?.length).toBeLessThan(4100);
      expect(log.at(-1)).toMatch(/… \[296\d\d\d more characters\]\n$/);
    }
  });

  it.each([40, 80, 200])("of %d columns breaks lines between words, and a pipe gets them whole", (columns) => {
    const line = `warning: ${"the router of these 日本語 layers gets no gradient ".repeat(8)}`;
    const { log, terminal, stderr } = recorded(true, false, columns);
    terminal.note(line);
    terminal.out(line);
    showError([line], stderr);
    for (const entry of log) {
      const lines = entry.slice(4, -1).split("\n");
      expect(lines.length).toBeGreaterThan(1);
      for (const one of lines) expect(displayWidth(one)).toBeLessThanOrEqual(columns);
      expect(lines.map((one) => one.trim()).join(" ")).toBe(line.trim());
    }
    const pipe = recorded(false, false, columns);
    pipe.terminal.note(line);
    expect(pipe.log).toEqual([`err ${line}\n`]);
  });

  it.each([
    [30, "25 %  ETA 1 min 20 s"],
    [50, "25 %  ETA 1 min 20 s  3,724 tok/s  model.…ght.bin"],
    [80, "25 %  ETA 1 min 20 s  3,724 tok/s  model.layers.0.weight.bin"],
  ])("of %d columns keeps a progress line's head and shortens the name in its middle", (columns, expectedLine) => {
    const { log, terminal } = recorded(true, false, columns);
    terminal.progress("25 %  ETA 1 min 20 s  3,724 tok/s", "model.layers.0.weight.bin");
    expect(log).toEqual([`err \r\u001b[2K${expectedLine}`]);
  });

  it("honours a new size, and begins an error on a line of its own below how far it had come", () => {
    const { log, clock, stderr, terminal } = recorded(true, false, 40);
    terminal.progress("one two three  four five six");
    stderr.columns = 20;
    clock.now = 1000;
    terminal.progress("one two three  four five six");
    showError(["upcycle: no"], stderr);
    expect(log.map((entry) => entry.replace("\r\u001b[2K", "<"))).toEqual([
      "err <one two three  four five six",
      "err <one two three",
      "err \n",
      "err upcycle: no\n",
    ]);
  });

  it("shows results and no notes or progress when it is quiet", () => {
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
    for (clock.now = 0; clock.now <= 5000; clock.now += 5000)
      view({ type: "progress", tensor: "a", done: 25e6 + clock.now, total: 100e6, bytesPerSecond: 25e6 });
    expect(log).toEqual([
      "err 25.0 % of 100 MB  converting  a\n",
      "err 25.0 % of 100 MB  25 MB/s  ETA 3.0 s  converting  a\n",
    ]);
  });
});

describe("the value of an option", () => {
  it("is read as a whole number, a number, a size or a word", () => {
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

describe("a path as it is shown", () => {
  it("is relative below the working folder only", () => {
    expect(shownPath(resolve("a", "b"))).toBe(join("a", "b"));
    expect(shownPath(".")).toBe(".");
    expect(shownPath(join("..", "x"))).toBe(join("..", "x"));
    expect(shownPath(resolve("..name"))).toBe("..name");
    expect(shownPath(resolve("/"))).toBe(resolve("/"));
  });
});
