/** What starting the command line loads: a user who asks for a version waits for nothing else. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { faces, stub } from "../../src/cli/commands.js";

const root = fileURLToPath(new URL("../../", import.meta.url));

/** Modules of ours and packages that `upcycle ...args` loads, from the coverage that V8 takes. */
function loaded(...args: string[]): { readonly ours: string[]; readonly packages: string[] } {
  const dir = mkdtempSync(join(tmpdir(), "upcycle-loading-"));
  try {
    execFileSync(process.execPath, [join(root, "dist/cli/main.js"), ...args], {
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

describe("starting", () => {
  it.each([["--version"], ["--help"], ["help"]])(
    "with %s loads no command, and of packages the parser of arguments alone",
    (arg) => {
      const { ours, packages } = loaded(arg);
      expect(packages).toEqual(["commander", "is-fullwidth-code-point"]);
      // What makes limits of the system one line has to be there before anything else is.
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
    const { ours, packages } = loaded("inspect", "--help");
    const others = Object.keys(faces)
      .filter((name) => name !== "inspect")
      .map((name) => `cli/${name}.js`);
    expect(ours).toContain("cli/inspect.js");
    expect(ours.filter((file) => others.includes(file) || /^(ort|train|study|laws|plan)\//.test(file))).toEqual([]);
    expect(packages).not.toContain("onnxruntime-node");
  });
});

describe("what the program's help says of a command", () => {
  it.each(Object.entries(faces))("is what %s says of itself", async (name, face) => {
    const [said, command] = [stub(name, face), await face.load()];
    expect([said.name(), said.description(), said.usage()]).toEqual([
      command.name(),
      command.description(),
      command.usage(),
    ]);
  });
});
