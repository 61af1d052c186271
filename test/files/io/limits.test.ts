import { describe, expect, it } from "vitest";
import { stopError } from "../../../src/base/errors.js";
import { fsError } from "../../../src/files/io/fs-errors.js";
import {
  filesToKeep,
  hasFewFiles,
  limitError,
  limitsOf,
  requireAddresses,
  requireThreadRoom,
  threadsThatFit,
} from "../../../src/files/io/limits.js";

const GB = 1e9;
const within = (openFiles: number, addresses = Infinity): { openFiles: number; addresses: number } => ({
  openFiles,
  addresses,
});

describe("limits of the process", () => {
  it("are read as Linux lists them; what is unlimited or missing is infinite", () => {
    const text =
      "Limit                     Soft Limit           Hard Limit           Units\n" +
      ("Max open files            64                   4096                 files\nMax address space         " +
        "unlimited            unlimited            bytes\n");
    expect(limitsOf(text)).toEqual(within(64));
    expect(limitsOf(text.replace("unlimited            unlimited ", "6000000000           6000000000"))).toEqual(
      within(64, 6 * GB),
    );
    expect(limitsOf("")).toEqual(within(Infinity));
  });

  it("of 64 files keep few of a kind open, and let few threads start", () => {
    expect([64, 128, 1024, Infinity].map((files) => filesToKeep(256, within(files)))).toEqual([2, 4, 32, 256]);
    expect([36, 64, 128, 2048, Infinity].map((files) => threadsThatFit(16, within(files), Infinity))).toEqual([
      0, 1, 3, 16, 16,
    ]);
    expect([64, 20_000].map((files) => hasFewFiles(within(files)))).toEqual([true, false]);
  });

  it("of addresses leave as many threads as V8 can reserve memory for", () => {
    expect([0.5, 2, 4, 40, Infinity].map((left) => threadsThatFit(8, within(Infinity), left * GB))).toEqual([
      0, 1, 3, 8, 8,
    ]);
  });

  it("that leave no room for a thread are said before V8 would end the process", () => {
    expect(() => requireThreadRoom("the engine", 0.9 * GB, Infinity)).toThrow(
      /cannot start the engine: its thread needs 1.1 GB of addresses, 900 MB are left/,
    );
    expect(() => requireThreadRoom("the engine", Infinity, 20)).toThrow(
      /too many open files: the engine needs 24, 20 are left/,
    );
    expect(() => requireAddresses(0.2 * GB)).toThrow(/cannot start: 537 MB of addresses are needed, 200 MB are left/);
    expect(() => (requireThreadRoom("the engine", 2 * GB, 40), requireAddresses(1 * GB))).not.toThrow();
  });
});

describe("what is thrown at a limit", () => {
  const coded = (message: string, code: string): Error => Object.assign(new Error(message), { code });
  it.each([
    ["a file too many", coded("EMFILE: too many open files, open 'x'", "EMFILE"), /^too many open files; .*ulimit -n/],
    [
      "a file too many for the system",
      coded("ENFILE: file table overflow, open 'x'", "ENFILE"),
      /^too many open files; the whole system/,
    ],
    [
      "a thread without files",
      coded("Worker initialization failure: EMFILE", "ERR_WORKER_INIT_FAILED"),
      /^too many open files/,
    ],
    [
      "a process too many",
      coded("spawn node EAGAIN", "EAGAIN"),
      /^the system lets no further thread or process start; .*ulimit -u/,
    ],
    [
      "an engine's thread too many",
      new Error("PosixThread pthread_create failed, error code: 11"),
      /^the system lets no further thread/,
    ],
    [
      "a WebAssembly memory",
      new RangeError("WebAssembly.Memory(): could not allocate memory"),
      /^not enough memory \(WebAssembly/,
    ],
    ["a buffer", new RangeError("Array buffer allocation failed"), /^not enough memory/],
    [
      "an array longer than there can be",
      new RangeError("Invalid typed array length: 1000000000001"),
      /^not enough memory/,
    ],
    [
      "a thread's heap",
      coded("Worker terminated due to reaching memory limit: JS heap out of memory", "ERR_WORKER_OUT_OF_MEMORY"),
      /^not enough memory/,
    ],
    ["the engine's memory", new Error("std::bad_alloc"), /^not enough memory \(std::bad_alloc\)/],
    [
      "the engine's buffer",
      new Error("BFCArena Failed to allocate memory for requested buffer of size 123"),
      /size 123\)/,
    ],
  ])("for %s is one line that ends a run with 1", (_, cause, line) => {
    const error = limitError(cause);
    expect(error?.line).toMatch(line);
    expect(error?.line).not.toContain("\n");
    expect(error?.exitCode).toBe(1);
  });

  it("stays what it is where it says so already, and is nothing for other errors", () => {
    const ownError = stopError("not enough memory for this");
    expect(limitError(ownError)).toBe(ownError);
    expect(limitError(new Error("a defect"))).toBeNull();
    expect(limitError("text")).toBeNull();
  });

  it("for a file beyond ulimit -f, or memory of the system, names the file", () => {
    expect(
      fsError(coded("EFBIG: file too large, write", "EFBIG"), "m/model.safetensors", "write weights").line,
    ).toMatch(/^m\/model.safetensors: cannot write weights: the file would be larger .*ulimit -f/);
    expect(fsError(coded("ENOMEM", "ENOMEM"), "m", "read file").line).toMatch(/no memory.*ulimit -v/);
  });
});
