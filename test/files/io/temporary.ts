import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll } from "vitest";

/** A fresh folder for one test file, removed when the file is done. */
export function temporaryFolder(): string {
  const dir = mkdtempSync(join(tmpdir(), "upcycle-test-"));
  afterAll(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}
