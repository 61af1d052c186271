/** Commands that folders have noted, as they may be gone on with. */
import { describe, expect, it } from "vitest";
import { checkedCommand } from "../../../src/studio/server/noted.js";

const found = (...words: string[]): Parameters<typeof checkedCommand>[0] => ({
  words: ["upcycle", ...words],
  folder: "/home/me",
  holder: "/runs/one",
});

describe("a noted command", () => {
  it("goes on in the folder in which it was noted, whatever its file names", () => {
    expect(checkedCommand(found("train", "t.yaml", "--threads=2", "--json"), "one")).toEqual({
      command: {
        words: ["upcycle", "train", "t.yaml", "--threads=2", "--json", "--out", "/runs/one"],
        folder: "/home/me",
      },
      writes: [],
    });
    expect(checkedCommand(found("quickstart", "--full"), "one").command.words.slice(-2)).toEqual([
      "--out",
      "/runs/one",
    ]);
  });

  it("says where it writes", () => {
    const { command, writes } = checkedCommand(found("study", "s.yaml", "--out", "a", "--store=../kept"), "one");
    expect([command.words.at(-1), writes]).toEqual(["--store=../kept", ["/home/me/a", "/home/kept"]]);
    expect(checkedCommand(found("train", "t.yaml", "--out", "a", "--out=b"), "one").writes).toEqual(["/home/me/b"]);
    expect(checkedCommand({ ...found("merge", "moe", "--out", "x"), holder: null }, "x").writes).toEqual([
      "/home/me/x",
    ]);
  });

  it.each([
    [["prune", "--all"], "upcycle prune is not gone on with"],
    [["__proto__"], "is not gone on with"],
    [[], "is not gone on with"],
    [["train", "t.yaml", "--webhook", "http://elsewhere"], '"--webhook"'],
    [["train", "t.yaml", "more.yaml"], '"more.yaml"'],
    [["train", "t.yaml", "-o", "x"], '"-o"'],
    [["train", "t.yaml", "--json=x"], '"--json=x"'],
    [["quickstart", "t.yaml"], '"t.yaml"'],
    [["study", "s\u001b[31m.yaml"], "cannot be seen"],
    [["study", "s".repeat(5000)], "too long"],
    [["convert", "dense", "--recipe", "E8G1T2"], "makes no folder"],
  ])("is refused where it is something else: %j", (words, why) => {
    expect(() => checkedCommand(found(...words), "one")).toThrow(why);
  });
});
