/**
 * Bundles what processes and threads start with, and all that it imports: dist/cli/main.js -> dist/bundle/, and the
 * modules of threads -> dist/bundle/threads/ (`threadModule` in src/files/io finds them). What several commands or
 * threads share is in files of its own. Node.js needs most of a short command's time for opening, linking and compiling
 * hundreds of small modules. zod, yaml and commander are bundled too, with their licences in LICENSES.txt beside them;
 * all other packages stay where npm has put them.
 *
 * Files that lie beside modules (kernels, modules of threads and processes, texts, recipes, package.json) stay where
 * they are: each module keeps the `import.meta.url` that it has in dist/.
 */
import { readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join, relative, resolve, sep } from "node:path";
import { rolldown } from "rolldown";

const dist = resolve("dist");
const out = join(dist, "bundle");
/** Written whole before it takes the place of the one before, from which a command may be starting. */
const fresh = join(dist, "bundle.new");
const bundled = ["commander", "yaml", "zod"];
const threads = [
  "engine/onnxruntime/worker.js",
  "laws/points/worker.js",
  "surgery/convert/worker.js",
  "text/tokenizer/child.js",
];
const packages = `${sep}node_modules${sep}`;

/** The package of an import or of a path in node_modules, such as `@a/b` for `@a/b/c.js`. */
const packageOf = (name) => name.split("/", name.startsWith("@") ? 2 : 1).join("/");
const isPath = (name) => /^(\.|\/|[A-Za-z]:\\)/.test(name);

/** Gives each module its own address; all bundled files lie in `folder`. */
const ownAddress = (folder) => ({
  name: "own-address",
  transform(code, id) {
    if (!id.startsWith(dist + sep) || !code.includes("import.meta.url")) return null;
    const path = JSON.stringify(relative(folder, id).replaceAll(sep, "/"));
    return { code: code.replaceAll("import.meta.url", `new URL(${path}, import.meta.url).href`), map: null };
  },
});

/** Bundles modules, given by the names of their files in `folder`; gives what was written. */
async function bundle(folder, input) {
  const made = await rolldown({
    input,
    platform: "node",
    external: (name) => !isPath(name) && !bundled.includes(packageOf(name)),
    plugins: [ownAddress(folder)],
    logLevel: "warn",
  });
  const { output } = await made.write({
    dir: folder.replace(out, fresh),
    entryFileNames: "[name].js",
    chunkFileNames: "[name].js",
  });
  await made.close();
  return output;
}

/** The folder of the package that a file in node_modules belongs to. */
function packageFolder(file) {
  const at = file.lastIndexOf(packages) + packages.length;
  return join(file.slice(0, at), packageOf(file.slice(at).replaceAll(sep, "/")));
}

/** Name, version, licence and the licence's text of the package in a folder. Throws where the text is not there. */
function licence(folder) {
  const { name, version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  const file = readdirSync(folder).find((entry) => /^licen[cs]e(\.|$)/i.test(entry));
  if (file === undefined) throw new Error(`${name} comes without the text of its licence`);
  return `${name} ${version} (${license})\n\n${readFileSync(join(folder, file), "utf8").trim()}\n`;
}

rmSync(fresh, { recursive: true, force: true });
const commands = await bundle(out, { main: join(dist, "cli/main.js") });
const names = threads.map((path) => [path.replaceAll("/", "-").replace(/\.js$/, ""), join(dist, path)]);
const output = [...commands, ...(await bundle(join(out, "threads"), Object.fromEntries(names)))];

// The entry waits for the command, and the command's files would wait for the entry.
const waiting = commands.filter(({ imports = [] }) => imports.includes("main.js")).map(({ fileName }) => fileName);
if (waiting.length > 0) throw new Error(`main.js is imported by ${waiting.join(", ")}`);

const folders = new Set(
  output.flatMap(({ moduleIds = [] }) => moduleIds.filter((id) => id.includes(packages)).map(packageFolder)),
);
writeFileSync(
  join(fresh, "LICENSES.txt"),
  ["The files in this folder contain code of these packages.\n", ...[...folders].sort().map(licence)].join("\n\n"),
);
rmSync(out, { recursive: true, force: true });
renameSync(fresh, out);
