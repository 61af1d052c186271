/** NVRTC: kernels from source to machine code of one architecture. */
import { stopError } from "../../base/errors.js";
import { handleFrom, host, i32, text, u64, type LibraryHandle, type StatusFunction } from "./native.js";

/** NVRTC: compiles CUDA sources to cubins. */
export interface Compiler {
  /** As NVIDIA writes it: "13.0". */
  readonly version: string;
  /**
   * Machine code for an architecture such as "sm_90", made in another thread: several sources compile at once. Throws
   * stopError with the compiler's first complaint.
   */
  compile(source: string, name: string, options: readonly string[]): Promise<Uint8Array>;
}

/** Binds the functions of NVRTC's library. */
export function bindCompiler(library: LibraryHandle): Compiler {
  const bind = (name: string, args: readonly string[]): StatusFunction => library.func(name, i32, [...args]);
  const [create, compile, destroy] = [
    bind("nvrtcCreateProgram", [host, text, text, i32, host, host]),
    bind("nvrtcCompileProgram", [u64, i32, "const char **"]),
    bind("nvrtcDestroyProgram", [host]),
  ];
  const log = [bind("nvrtcGetProgramLogSize", [u64, host]), bind("nvrtcGetProgramLog", [u64, host])] as const;
  const code = [bind("nvrtcGetCUBINSize", [u64, host]), bind("nvrtcGetCUBIN", [u64, host])] as const;
  const check = (status: number, what: string): void => {
    if (status !== 0) throw stopError(`NVRTC failed with status ${status}`, { where: what });
  };
  const bytesOf = ([sizeOf, fill]: readonly [StatusFunction, StatusFunction], program: bigint): Uint8Array => {
    const bytes = new Uint8Array(Number(handleFrom((into) => check(sizeOf(program, into), "nvrtcGet...Size"))));
    check(fill(program, bytes), "nvrtcGet...");
    return bytes;
  };
  const [major, minor] = [new Int32Array(1), new Int32Array(1)];
  check(bind("nvrtcVersion", [host, host])(major, minor), "nvrtcVersion");
  return {
    version: `${major[0]}.${minor[0]}`,
    async compile(source, name, options) {
      const program = handleFrom((into) => check(create(into, source, name, 0, null, null), "nvrtcCreateProgram"));
      try {
        const status = await new Promise<number>((resolve, reject) => {
          compile.async(program, options.length, options, (error: unknown, result: number) => {
            if (error === null || error === undefined) resolve(result);
            else reject(error instanceof Error ? error : new Error("a call failed"));
          });
        });
        if (status !== 0) throw complaint(name, bytesOf(log, program));
        return bytesOf(code, program);
      } finally {
        destroy(BigUint64Array.of(program));
      }
    },
  };
}

function complaint(name: string, log: Uint8Array): Error {
  const lines = Buffer.from(log).toString().replaceAll("\0", "").split("\n");
  const first = lines.find((line) => /error/.test(line)) ?? lines[0] ?? "it gives no reason";
  return stopError(`a kernel does not compile: ${first.trim()}`, { where: name });
}
