/** The scripts of `upcycle completion`, run by the shell itself where it is installed. */
import { execFileSync, spawnSync } from "node:child_process";
import { describe, expect, it } from "vitest";
import { commandEntries } from "../../src/cli/commands.js";
import { upcycle, upcycleJson } from "./upcycle.js";

const scriptOf = async (shell: string): Promise<string> => (await upcycle("completion", shell)).stdout;
const installed = (shell: string): boolean => spawnSync(shell, ["-c", "true"]).status === 0;

/** What bash offers for the last of `words`. */
async function offered(...words: readonly string[]): Promise<string[]> {
  const line = `${await scriptOf("bash")}
COMP_WORDS=(upcycle "$@"); COMP_CWORD=$#; _upcycle; printf '%s\\n' "\${COMPREPLY[@]}"`;
  return execFileSync("bash", ["-c", line, "bash", ...words], { encoding: "utf8" })
    .trim()
    .split("\n");
}

describe("completion in bash", () => {
  it("offers the commands that begin so", async () => {
    expect(await offered("con")).toEqual(["convert"]);
    expect(await offered("")).toEqual(expect.arrayContaining(Object.keys(commandEntries)));
  });

  it("offers a command's own options, and those that all have", async () => {
    expect(await offered("convert", "--rout")).toEqual(["--router", "--router-init", "--router-std", "--router-dtype"]);
    expect(await offered("fit", "--")).toEqual(expect.arrayContaining(["--law", "--print-settings", "--json"]));
    expect(await offered("data", "--")).toEqual(expect.arrayContaining(["--tokenizer", "--print-settings"]));
  });

  it("leaves other words to bash's own completion of files", async () => {
    expect(await offered("convert", "mod")).toEqual([""]);
  });

  it("offers shells behind completion and commands behind help", async () => {
    expect(await offered("completion", "z")).toEqual(["zsh"]);
    expect(await offered("help", "tar")).toEqual(["targets"]);
  });
});

describe("completion in zsh and fish", () => {
  it.each(["zsh", "fish"])("%s: names every command and every option, and the shell can read it", async (shell) => {
    const script = await scriptOf(shell);
    for (const [name, { load }] of Object.entries(commandEntries)) {
      expect(script).toContain(name);
      for (const { long } of (await load()).options) expect(script).toContain(long?.slice(2));
    }
    if (installed(shell)) expect(spawnSync(shell, ["-n"], { input: script, encoding: "utf8" }).stderr).toBe("");
  });

  it("comes as JSON too", async () => {
    expect(await upcycleJson("completion", "fish")).toEqual({ shell: "fish", script: await scriptOf("fish") });
  });
});
