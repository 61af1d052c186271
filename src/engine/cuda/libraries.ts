/**
 * Finding CUDA's libraries. The driver comes with the GPU; NVRTC (compiles kernels) and cuBLASLt (matrix products) come
 * with CUDA's toolkit, with PyTorch or by pip. They are looked for in this order: the folders of UPCYCLE_CUDA;
 * CUDA_HOME, CUDA_PATH and /usr/local/cuda; the system's loader; the nvidia packages of the Python on the PATH; conda.
 */
import { execFileSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { delimiter, join } from "node:path";
import { openLibrary, type LibraryHandle } from "./native.js";

type Environment = Readonly<Record<string, string | undefined>>;

/** The libraries that the backend looks for. */
export type LibraryName = "driver" | "nvrtc" | "cublasLt";

/** Stems of file names, before `.so`. */
const stems: Readonly<Record<LibraryName, string>> = { driver: "libcuda", nvrtc: "libnvrtc", cublasLt: "libcublasLt" };

/** Versions of CUDA that kernels and calls are written for, the newest first. */
export const cudaMajors = [13, 12] as const;

/** A library that was found. */
export interface FoundLibrary {
  readonly name: LibraryName;
  /** A path, or a name that the system's loader knows. */
  readonly path: string;
  /** Where it was found: an environment variable, "loader", "python", a folder. */
  readonly source: string;
  readonly handle: LibraryHandle;
}

/** A place to look in. */
interface Place {
  readonly source: string;
  /** Null: names alone, for the loader. */
  readonly folders: readonly string[] | null;
}

const within = (root: string): string[] =>
  ["", "lib64", "lib", join("targets", "x86_64-linux", "lib"), join("targets", "sbsa-linux", "lib")].map((part) =>
    join(root, part),
  );

const list = (folder: string): string[] => {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
};

let foldersOfPython: readonly string[] | undefined;

/** Folders of the nvidia packages of the Python on the PATH; none where there is no Python. It is asked once. */
const pythonFolders = (): readonly string[] => (foldersOfPython ??= askedPython());

function askedPython(): string[] {
  const program =
    "import site, sys; print('\\n'.join(site.getsitepackages() + [site.getusersitepackages()] + sys.path))";
  try {
    const printed = execFileSync("python3", ["-c", program], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
    return [...new Set(printed.split("\n"))]
      .filter((folder) => folder.length > 0)
      .flatMap((folder) => list(join(folder, "nvidia")).map((name) => join(folder, "nvidia", name, "lib")));
  } catch {
    return [];
  }
}

/**
 * Places in the order in which they are looked through; later ones cost more, so they are made when they are asked
 * for.
 */
function* placesOf(name: LibraryName, env: Environment): Generator<Place> {
  const own = env["UPCYCLE_CUDA"];
  if (own !== undefined && own !== "")
    yield { source: "UPCYCLE_CUDA", folders: own.split(delimiter).flatMap((folder) => within(folder)) };
  if (name === "driver") {
    yield { source: "loader", folders: null };
    yield { source: "driver's folder", folders: ["/usr/local/nvidia/lib64", "/usr/lib/wsl/lib"] };
    return;
  }
  for (const variable of ["CUDA_HOME", "CUDA_PATH"]) {
    const root = env[variable];
    if (root !== undefined && root !== "") yield { source: variable, folders: within(root) };
  }
  yield { source: "/usr/local/cuda", folders: within("/usr/local/cuda") };
  yield { source: "loader", folders: null };
  yield { source: "python", folders: pythonFolders() };
  const conda = env["CONDA_PREFIX"];
  if (conda !== undefined && conda !== "") yield { source: "conda", folders: within(conda) };
}

/** File names of a library, the best first; `most` is the newest version of CUDA that the driver runs. */
function namesOf(name: LibraryName, most: number): string[] {
  const stem = stems[name];
  if (name === "driver") return [`${stem}.so.1`];
  return cudaMajors.filter((major) => major <= most).map((major) => `${stem}.so.${major}`);
}

/** Opens NVRTC's second half first: it is looked for by its bare name, which the loader may not know. */
async function openBuiltins(folder: string): Promise<void> {
  for (const file of list(folder).filter((each) => /^libnvrtc-builtins\.so\.\d/.test(each)))
    await openLibrary(join(folder, file));
}

/**
 * A library in the first place that has it, or null. `most` is the newest version of CUDA that will do, of which the
 * newest is taken.
 */
export async function findLibrary(name: LibraryName, env: Environment, most = Infinity): Promise<FoundLibrary | null> {
  const names = namesOf(name, most);
  for (const { source, folders } of placesOf(name, env)) {
    for (const folder of folders ?? [null])
      for (const file of names) {
        if (folder !== null && !list(folder).includes(file)) continue;
        if (folder !== null && name === "nvrtc") await openBuiltins(folder);
        const path = folder === null ? file : join(folder, file);
        const handle = await openLibrary(path, { global: name === "cublasLt" });
        if (handle !== null) return { name, path, source, handle };
      }
  }
  return null;
}

/** The line that installs a library, for the newest version of CUDA that the driver runs. */
export function installLine(name: LibraryName, most: number): string {
  const major = cudaMajors.find((each) => each <= most) ?? cudaMajors[0];
  const suffix = major >= 13 ? "" : `-cu${major}`;
  switch (name) {
    case "driver":
      return "install NVIDIA's driver: https://www.nvidia.com/drivers";
    case "nvrtc":
      return `pip install 'nvidia-cuda-nvrtc${suffix}==${major}.*'`;
    case "cublasLt":
      return `pip install 'nvidia-cublas${suffix}==${major}.*'`;
  }
}
