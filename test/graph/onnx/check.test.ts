import { describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { liveNodes, refuseRaces } from "../../../src/graph/onnx/check.js";
import type { OnnxNode } from "../../../src/graph/onnx/proto.js";

const scatter = (indices: string, reduction?: string): OnnxNode => ({
  op: "ScatterND",
  inputs: ["data", indices, "updates"],
  outputs: ["out"],
  attributes: reduction === undefined ? {} : { reduction },
});
const constant = (rows: readonly (readonly number[])[]) => ({
  name: "rows",
  type: "int64" as const,
  shape: [rows.length, at(rows, 0).length],
  data: BigInt64Array.from(rows.flat(), BigInt),
});

describe("ScatterND", () => {
  it("with a reduction over indices that may repeat is refused", () => {
    expect(() => refuseRaces([scatter("computed", "add")], [constant([[0], [1]])])).toThrow(
      "ScatterND out with reduction add: its indices are computed and may repeat",
    );
    expect(() =>
      refuseRaces(
        [scatter("rows", "mul")],
        [
          constant([
            [0, 1],
            [1, 0],
            [0, 1],
          ]),
        ],
      ),
    ).toThrow("its indices repeat");
  });

  it("passes where no two updates can meet, or where the last one wins by definition", () => {
    refuseRaces(
      [scatter("rows", "add")],
      [
        constant([
          [0, 1],
          [1, 0],
          [1, 1],
        ]),
      ],
    );
    refuseRaces([scatter("computed"), scatter("computed", "none")], []);
    refuseRaces([{ ...scatter("computed", "add"), op: "ScatterElements" }], []);
  });
});

it("nodes that no output needs are left out, in order", () => {
  const node = (op: string, inputs: string[], outputs: string[]): OnnxNode => ({ op, inputs, outputs });
  const nodes = [
    node("A", ["x"], ["a"]),
    node("B", ["a"], ["b"]),
    node("C", ["a"], ["c", "d"]),
    node("D", ["b"], ["e"]),
  ];
  expect(liveNodes(nodes, ["d"]).map(({ op }) => op)).toEqual(["A", "C"]);
  expect(liveNodes(nodes, ["e", "c"]).map(({ op }) => op)).toEqual(["A", "B", "C", "D"]);
});
