/**
 * Where the modules of threads and processes are. They need compiled code, in tests too, which run the sources; and
 * they start from a bundle (`scripts/bundle.mjs`), because a thread loads hundreds of modules as slowly as a command.
 */

/** The bundled file of a module that a thread or process starts with; `path` is its path in `src/`, as compiled. */
export function threadModule(path: string): URL {
  return new URL(`../../../dist/bundle/threads/${path.replaceAll("/", "-")}`, import.meta.url);
}
