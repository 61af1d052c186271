import {
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  realpathSync,
  renameSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { UpcycleError } from "../../../src/base/errors.js";
import { previousName, stageDirectory, writeAll, writeFileAtomic, writeJson } from "../../../src/files/io/atomic.js";
import { stageResumable } from "../../../src/files/io/resumable-directory.js";
import { fsError, withFsErrors } from "../../../src/files/io/fs-errors.js";
import { temporaryFolder } from "./temporary.js";

const root = temporaryFolder();
let counter = 0;
const fresh = (): string => {
  const dir = join(root, String(counter++));
  mkdirSync(dir);
  return dir;
};
const failure = async (promise: Promise<unknown>): Promise<UpcycleError> => {
  const error: unknown = await promise.then(
    () => undefined,
    (cause: unknown) => cause,
  );
  expect(error).toBeInstanceOf(UpcycleError);
  return error as UpcycleError;
};

describe("writeFileAtomic", () => {
  it("creates and replaces, and leaves nothing beside", async () => {
    const dir = fresh();
    await writeFileAtomic(join(dir, "a"), "one");
    await writeFileAtomic(join(dir, "a"), Uint8Array.of(50));
    await writeJson(join(dir, "b.json"), { x: 1 });
    expect(readFileSync(join(dir, "a"), "utf8")).toBe("2");
    expect(readFileSync(join(dir, "b.json"), "utf8")).toBe('{\n  "x": 1\n}\n');
    expect(readdirSync(dir)).toEqual(["a", "b.json"]);
  });

  it("leaves the old content after a failure, and names the file", async () => {
    const dir = fresh();
    writeFileSync(join(dir, "file"), "");
    expect((await failure(writeFileAtomic(join(dir, "missing", "a"), "x"))).line).toBe(
      `${join(dir, "missing", "a")}: cannot write file: its folder does not exist; make it first`,
    );
    expect((await failure(writeFileAtomic(join(dir, "file", "a"), "x"))).line).toContain(
      "a part of this path is a file",
    );
    mkdirSync(join(dir, "folder", "inside"), { recursive: true });
    expect((await failure(writeFileAtomic(join(dir, "folder"), "x"))).kind).toBe("input");
    expect(readdirSync(dir).sort()).toEqual(["file", "folder"]);
  });
});

describe("stageResumable", () => {
  it("refuses what is no place for a new folder", async () => {
    const dir = realpathSync(fresh());
    mkdirSync(join(dir, "here", "inside"), { recursive: true });
    const before = process.cwd();
    process.chdir(join(dir, "here", "inside"));
    try {
      expect((await failure(stageResumable("", { overwrite: true }))).line).toContain(
        "the name of the folder to make is empty",
      );
      expect((await failure(stageResumable(".", { overwrite: true }))).line).toBe(
        ".: this is the working folder, which a new one would replace; choose a folder to be made, such as ./model",
      );
      expect((await failure(stageResumable("..", { overwrite: true }))).line).toContain(
        "the working folder lies inside this folder, which a new one would replace",
      );
      const beside = await stageResumable("../inside2");
      await beside.discard();
    } finally {
      process.chdir(before);
    }
    expect(readdirSync(join(dir, "here"))).toEqual(["inside"]);
  });

  // Node asks for ever there if it is asked for a whole path.
  it.skipIf(process.platform !== "linux")("ends where no folder can be made", async () => {
    expect((await failure(stageResumable("/proc/x"))).line).toBe(
      "/proc/x: cannot create folder: no such file or folder",
    );
  });
});

describe("stageDirectory", () => {
  it("makes the folder appear when it is committed, not before", async () => {
    const dir = fresh();
    const final = join(dir, "deep", "model");
    const stage = await stageDirectory(final);
    writeFileSync(join(stage.path, "a"), "1");
    expect(existsSync(final)).toBe(false);
    await stage.commit();
    expect(readdirSync(join(dir, "deep"))).toEqual(["model"]);
    expect(readdirSync(final)).toEqual(["a"]);
  });

  it("leaves nothing in the parent folder after discard", async () => {
    const dir = fresh();
    const stage = await stageDirectory(join(dir, "model"));
    writeFileSync(join(stage.path, "a"), "1");
    await stage.discard();
    await stage.discard();
    expect(readdirSync(dir)).toEqual([]);
  });

  it("takes an empty folder, refuses a full one unless it may be overwritten, and always refuses a file", async () => {
    const dir = fresh();
    mkdirSync(join(dir, "model"));
    const stage = await stageDirectory(join(dir, "model"));
    writeFileSync(join(stage.path, "config.json"), '{"model_type":"a"}');
    await stage.commit();
    const error = await failure(stageDirectory(join(dir, "model")));
    expect(error.line).toBe(
      `${join(dir, "model")}: folder exists and is not empty (1 entries, such as config.json); choose another ` +
        "folder, or replace this one (--overwrite)",
    );
    const second = await stageDirectory(join(dir, "model"), { overwrite: true });
    writeFileSync(join(second.path, "upcycle.json"), "2");
    expect(readdirSync(join(dir, "model"))).toEqual(["config.json"]);
    await second.commit();
    expect(readdirSync(join(dir, "model"))).toEqual(["upcycle.json"]);
    expect(readdirSync(dir)).toEqual(["model"]);
    writeFileSync(join(dir, "file"), "");
    for (const overwrite of [false, true])
      expect((await failure(stageDirectory(join(dir, "file"), { overwrite }))).message).toBe(
        "this is a file, expected a folder",
      );
    expect((await failure(stageDirectory(join(dir, "file", "model")))).kind).toBe("input");
  });

  it("does not overwrite a folder that fills up while it writes", async () => {
    const dir = fresh();
    const stage = await stageDirectory(join(dir, "model"));
    mkdirSync(join(dir, "model"));
    writeFileSync(join(dir, "model", "theirs"), "1");
    expect((await failure(stage.commit())).message).toContain("not empty");
    await stage.discard();
    expect(readdirSync(dir)).toEqual(["model"]);
  });

  it("removes partial folders of dead processes, and leaves those of living ones", async () => {
    const dir = fresh();
    const dead = ".model.partial-4194305"; // Above the largest pid Linux gives out.
    const alive = `.model.partial-${process.ppid}`;
    const theirs = ".model.partial-4194306";
    for (const name of [
      dead,
      `${dead}-1`,
      alive,
      ".model.partial-notes",
      ".other.partial-4194305",
      `.model.partial-${process.pid}`,
    ]) {
      mkdirSync(join(dir, name));
      writeFileSync(join(dir, name, "model.safetensors"), "1");
    }
    mkdirSync(join(dir, theirs));
    writeFileSync(join(dir, theirs, "thesis.txt"), "1");
    const stage = await stageDirectory(join(dir, "model"));
    expect(readdirSync(stage.path)).toEqual([]);
    await stage.commit();
    expect(readdirSync(dir).sort()).toEqual(
      [alive, theirs, ".model.partial-notes", ".other.partial-4194305", "model"].sort(),
    );
  });

  it("removes partial files of dead processes, and leaves those of living ones, folders and what is newer", async () => {
    const dir = fresh();
    const alive = `.log.json.partial-${process.ppid}`;
    const left = [alive, ".log.json.partial-notes", ".other.json.partial-4194305", ".log.json.partial-4194307"];
    const before = new Date(performance.timeOrigin - 60_000);
    for (const name of [".log.json.partial-4194305", ".log.json.partial-4194306-2", ...left]) {
      writeFileSync(join(dir, name), "{");
      if (!name.endsWith("7")) utimesSync(join(dir, name), before, before);
    }
    mkdirSync(join(dir, ".log.json.partial-4194308"));
    await writeFileAtomic(join(dir, "log.json"), "{}");
    await writeFileAtomic(join(dir, "log.json"), "[]");
    expect(readdirSync(dir).sort()).toEqual([...left, ".log.json.partial-4194308", "log.json"].sort());
    expect(readFileSync(join(dir, "log.json"), "utf8")).toBe("[]");
  });

  it("leaves partial files and folders of another machine, where a process of that number may be at work", async () => {
    const dir = fresh();
    const before = new Date(performance.timeOrigin - 60_000);
    const folder = ".model.partial-4194305@0a1b2c3d";
    const file = ".log.json.partial-4194305@0a1b2c3d-1";
    mkdirSync(join(dir, folder));
    writeFileSync(join(dir, file), "{");
    utimesSync(join(dir, file), before, before);
    const stage = await stageDirectory(join(dir, "model"));
    // A folder of this machine whose writer is gone does go, whose name ends as ours does.
    const left = stage.path.replace(`-${process.pid}@`, "-4194305@");
    expect(left).not.toBe(stage.path);
    mkdirSync(left);
    await stage.discard();
    const again = await stageDirectory(join(dir, "model"));
    await again.commit();
    await writeFileAtomic(join(dir, "log.json"), "{}");
    expect(readdirSync(dir).sort()).toEqual([folder, file, "log.json", "model"].sort());
  });

  it("undoes a replacement that was cut off between its two renames", async () => {
    const dir = fresh();
    const final = join(dir, "model");
    mkdirSync(final);
    writeFileSync(join(final, "config.json"), "1");
    renameSync(final, previousName(final));
    expect((await failure(stageDirectory(final))).message).toContain("not empty");
    expect(readdirSync(final)).toEqual(["config.json"]);
  });

  it("leaves the old folder where the new one has vanished", async () => {
    const dir = fresh();
    const final = join(dir, "model");
    mkdirSync(final);
    writeFileSync(join(final, "config.json"), '{"model_type":"old"}');
    const stage = await stageDirectory(final, { overwrite: true });
    renameSync(stage.path, join(dir, "stolen"));
    await failure(stage.commit());
    expect(readdirSync(final)).toEqual(["config.json"]);
    expect(readdirSync(dir).sort()).toEqual(["model", "stolen"]);
  });
});

describe("errors of the operating system", () => {
  it.skipIf(!existsSync("/dev/full"))("a full disk stops with a hint", async () => {
    const handle = await open("/dev/full", "w");
    const error = await failure(
      withFsErrors("w.safetensors", "write weights", () => writeAll(handle, new Uint8Array(4096), 0)),
    );
    await handle.close();
    expect(error.kind).toBe("stopped");
    expect(error.line).toBe(
      "w.safetensors: cannot write weights: the disk is full; free some space or write to another disk, then run again",
    );
  });

  it.each([
    ["EACCES", "input"],
    ["EROFS", "input"],
    ["EISDIR", "input"],
    ["EDQUOT", "stopped"],
    ["EMFILE", "stopped"],
    ["EIO", "stopped"],
  ])("an error with code %s is of kind %s", (code, kind) => {
    expect(fsError(Object.assign(new Error("boom"), { code }), "p", "read file")).toMatchObject({ kind, where: "p" });
  });
});
