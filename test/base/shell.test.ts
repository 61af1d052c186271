import { spawnSync } from "node:child_process";
import { describe, expect, it } from "vitest";
import { shellPath, shellWord } from "../../src/base/shell.js";

const words = [
  "plain/path-1.0",
  "with space",
  "it's",
  'a"b',
  "$HOME",
  "`id`",
  "~root",
  "=ls",
  "a;b&c|d",
  "",
  "日本",
  "new\nline",
  "esc\u001b[2J",
  "rtl\u202ex",
  "back\\slash\n'",
  "*?[x]{1,2}",
  "!!",
];

describe("a suggested command", () => {
  it("gives a shell each word as it is", () => {
    const { stdout, status } = spawnSync("bash", ["-c", `printf '%s\\0' ${words.map(shellWord).join(" ")}`], {
      encoding: "utf8",
    });
    expect([status, stdout.split("\0").slice(0, -1)]).toEqual([0, words]);
  });

  it("holds nothing that cannot be seen, and quotes only what needs it", () => {
    expect(words.map(shellWord).join("")).toMatch(/^[^\p{C}]*$/u);
    expect(["models/my-moe", "hf://org/name@main", "a+b"].map(shellWord)).toEqual([
      "models/my-moe",
      "hf://org/name@main",
      "a+b",
    ]);
  });

  it("has no path that would be taken for an option", () => {
    expect([shellPath("-rf"), shellPath("--out dir"), shellPath("a-b")]).toEqual(["./-rf", "'./--out dir'", "a-b"]);
  });
});
