import { describe, expect, it } from "vitest";
import { at } from "../../src/base/at.js";
import type { ArrayData } from "../../src/engine/runtime/runtime.js";
import { openRowReader, rowsAtOnce, type RowReader } from "../../src/evals/weight-rows.js";
import { GraphBuilder } from "../../src/graph/ir/builder.js";
import type { ValueId } from "../../src/graph/ir/ir.js";

/** A router [2, 4] and two experts [3, 4], read at most two rows at a time. */
function block() {
  const b = new GraphBuilder();
  const x = b.input("x", "f32", [5, 4]);
  const router = b.input("router", "f32", [2, 4]);
  const experts = [b.input("expert 0", "f32", [3, 4]), b.input("expert 1", "f32", [3, 4])];
  const logits = b.linear(x, router);
  const [, chosen] = b.apply("routeTopK", [logits], {
    k: 1,
    rule: { score: "softmax", jitter: 0, renormalise: null, groups: null, corrected: false, scaling: 1 },
  });
  const [order, inverse, counts] = b.apply("expertSort", [chosen], { experts: 2, drops: false });
  const rows = b.op("dispatch", [x, order, inverse], { k: 1 });
  const graph = b.finish([b.op("groupedMatmul", [rows, counts, ...experts], { transB: true })]);
  const keys = new Map([router, ...experts].map((id) => [id, graph.values[id]?.name ?? ""]));
  return { graph, keys, counts };
}

/** A reader of the block, what it has read so far, and the values that the block has computed. */
function opened(): { reader: RowReader; reads: string[]; computed: Map<ValueId, ArrayData>; counts: ValueId } {
  const { graph, keys, counts } = block();
  const reads: string[] = [];
  const computed = new Map<ValueId, ArrayData>();
  const weights = {
    readFloat32: () => Promise.reject(new Error("weights are read in rows")),
    readRows: (key: string, start: number, count: number) => {
      reads.push(`${key} ${start}+${count}`);
      return Promise.resolve(new Float32Array(count * 4).fill(start));
    },
  };
  const operations = {
    run: () => Promise.reject(new Error("nothing runs here")),
    memory: (bytes: number) => new ArrayBuffer(bytes),
    close: () => Promise.resolve(),
  };
  return {
    reader: openRowReader(graph, keys, computed, { weights, operations, weightElements: 8 }),
    reads,
    computed,
    counts,
  };
}

describe("rowsAtOnce", () => {
  it.each([
    [{ size: 10, width: 4 }, 12, 3],
    [{ size: 10, width: 4 }, 1000, 10],
    [{ size: 10, width: 4 }, 1, 1],
  ])("of a weight %j with at most %i elements is %i", (weight, most, expected) => {
    expect(rowsAtOnce(weight, most)).toBe(expected);
  });
});

describe("a reader of a block's weights", () => {
  it("reads one run of rows ahead, and no expert before the counts of rows are known", async () => {
    const { reader, reads, computed, counts } = opened();
    expect(reads).toEqual([]);
    expect(at(await reader.take("router", 0), 0)).toBe(0);
    expect(reads).toEqual(["router 0+2"]);
    computed.set(counts, Int32Array.of(2, 3));
    await reader.take("expert 0", 0);
    expect(reads).toEqual(["router 0+2", "expert 0 0+2", "expert 0 2+1"]);
    expect(at(await reader.take("expert 0", 2), 0)).toBe(2);
    await reader.take("expert 1", 0);
    await reader.take("expert 1", 2);
    expect(reads.slice(3)).toEqual(["expert 1 0+2", "expert 1 2+1"]);
  });

  it("skips an expert that has no rows", async () => {
    const { reader, reads, computed, counts } = opened();
    await reader.take("router", 0);
    computed.set(counts, Int32Array.of(0, 5));
    await reader.take("expert 1", 0);
    expect(reads).toEqual(["router 0+2", "expert 1 0+2", "expert 1 2+1"]);
  });

  it("refuses rows out of order, and rows behind the last", async () => {
    const { reader, computed, counts } = opened();
    await expect(reader.take("expert 0", 0)).rejects.toThrow(
      "the next rows are from row 0 of router, not from row 0 of expert 0",
    );
    await reader.take("router", 0);
    computed.set(counts, Int32Array.of(5, 0));
    await reader.take("expert 0", 0);
    await reader.take("expert 0", 2);
    await expect(reader.take("expert 1", 0)).rejects.toThrow("there are no rows to read, not row 0 of expert 1 either");
  });
});
