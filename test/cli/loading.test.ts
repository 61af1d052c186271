/** What starting the command line loads: a user who asks for a version waits for nothing else. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { commandEntries, commandNames, stub } from "../../src/cli/commands.js";
import { upcycle } from "./upcycle.js";

const root = fileURLToPath(new URL("../../", import.meta.url));

const main = join(root, "dist/cli/main.js");

/** The toolkit's modules and the packages that a script loads with its arguments, from the coverage that V8 takes. */
function loadedBy(...args: string[]): { readonly ours: string[]; readonly packages: string[] } {
  const dir = mkdtempSync(join(tmpdir(), "upcycle-loading-"));
  try {
    execFileSync(process.execPath, args, {
      env: { ...process.env, NODE_V8_COVERAGE: dir },
    });
    const urls = readdirSync(dir).flatMap((file) =>
      (JSON.parse(readFileSync(join(dir, file), "utf8")) as { result: { url: string }[] }).result.map(({ url }) => url),
    );
    const paths = urls.filter((url) => url.startsWith("file:")).map((url) => fileURLToPath(url));
    return {
      ours: paths
        .filter((path) => path.startsWith(join(root, "dist")))
        .map((path) => path.slice(join(root, "dist").length + 1).replaceAll("\\", "/")),
      packages: [
        ...new Set(paths.flatMap((path) => /node_modules[\\/]((?:@[^\\/]+[\\/])?[^\\/]+)/.exec(path)?.[1] ?? [])),
      ].sort(),
    };
  } finally {
    rmSync(dir, { recursive: true });
  }
}

describe("starting the command line", () => {
  it.each([["--version"], ["--help"], ["help"]])(
    "with %s loads no command, and of packages the parser of arguments alone",
    (arg) => {
      const { ours, packages } = loadedBy(main, arg);
      expect(packages).toEqual(["commander", "is-fullwidth-code-point"]);
      // Limits of the system are reported in one line, so the code that does so is loaded before anything else.
      const others = ours.filter((file) => !/^(base|cli)\//.test(file)).sort();
      expect(others).toEqual([
        "files/io/few-files.js",
        "files/io/fs-errors.js",
        "files/io/limits.js",
        "surgery/convert/version.js",
      ]);
      expect(ours.filter((file) => file.startsWith("cli/")).sort()).toEqual([
        "cli/commands.js",
        "cli/help.js",
        "cli/main.js",
        "cli/signals.js",
        "cli/terminal.js",
      ]);
    },
  );

  it("with the help of one command loads no other's code, and no engine", () => {
    const { ours, packages } = loadedBy(main, "inspect", "--help");
    const others = commandNames.filter((name) => name !== "inspect").map((name) => `cli/${name}.js`);
    expect(ours).toContain("cli/inspect.js");
    const isFar = (file: string): boolean => /^(engine\/onnxruntime|train|study|laws)\//.test(file);
    expect(ours.filter((file) => others.includes(file) || isFar(file))).toEqual([]);
    expect(packages).not.toContain("onnxruntime-node");
  });
});

describe("the bundle, from which users start it,", () => {
  it("is all that a command loads, beside the packages that npm has put beside it", () => {
    const { ours, packages } = loadedBy(join(root, "bin/upcycle.js"), "inspect", join(root, "models/tiny"));
    expect(ours.filter((file) => !file.startsWith("bundle/"))).toEqual([]);
    expect(ours.length).toBeLessThan(40);
    for (const name of ["commander", "yaml", "zod"]) expect(packages).not.toContain(name);
  });

  it("prints what the modules print that --debug starts", async () => {
    for (const args of [
      ["inspect", join(root, "models/tiny"), "--json"],
      ["help", "train"],
    ])
      expect(await upcycle(...args)).toEqual(await upcycle(...args, "--debug"));
  });
});

describe("what the program's help says of a command", () => {
  it.each(Object.entries(commandEntries))("is what %s says of itself", async (name, entry) => {
    const [listed, command] = [stub(name, entry), await entry.load()];
    expect([listed.name(), listed.description(), listed.usage()]).toEqual([
      command.name(),
      command.description(),
      command.usage(),
    ]);
  });
});
