/**
 * Comparing large arrays of numbers number by number takes seconds. Those of the same bytes are equal; others are
 * compared as always, which says where they differ.
 */
import { expect } from "vitest";

const bytesOf = (view: ArrayBufferView): Uint8Array => new Uint8Array(view.buffer, view.byteOffset, view.byteLength);

function haveEqualBytes(a: unknown, b: unknown): true | undefined {
  if (!ArrayBuffer.isView(a) || !ArrayBuffer.isView(b) || a.constructor !== b.constructor) return undefined;
  return Buffer.compare(bytesOf(a), bytesOf(b)) === 0 ? true : undefined;
}

// Files that share a process share its testers.
const added = Symbol.for("upcycle.equality");
const state = globalThis as { [added]?: true };
if (state[added] === undefined) expect.addEqualityTesters([haveEqualBytes]);
state[added] = true;
