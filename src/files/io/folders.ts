/** Makes folders, with those above them. */
import { mkdir, stat } from "node:fs/promises";
import { dirname } from "node:path";

/**
 * Makes a folder and those above it that are missing. Node's recursive mkdir never ends where the system answers ENOENT
 * below a folder that exists, as in /proc. Throws what the system says of the folder that cannot be made.
 */
export async function makeFolders(path: string): Promise<void> {
  try {
    await mkdir(path);
  } catch (cause) {
    if (await isFolder(path)) return;
    const above = dirname(path);
    if ((cause as NodeJS.ErrnoException).code !== "ENOENT" || above === path) throw cause;
    await makeFolders(above);
    await makeFolderIn(path);
  }
}

/** Makes a folder whose parent exists; another process may have made it meanwhile. */
async function makeFolderIn(path: string): Promise<void> {
  try {
    await mkdir(path);
  } catch (cause) {
    if (!(await isFolder(path))) throw cause;
  }
}

function isFolder(path: string): Promise<boolean> {
  return stat(path).then(
    (info) => info.isDirectory(),
    () => false,
  );
}
