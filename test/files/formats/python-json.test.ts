import { describe, expect, it } from "vitest";
import { parsePythonJson } from "../../../src/files/formats/python-json.js";

describe("parsePythonJson", () => {
  it("reads what Python's json writes: NaN and infinities, outside of strings", () => {
    // json.dumps({"a": float("nan"), "b": [float("inf"), float("-inf")], "c": 'NaN "Infinity', "NaN": 1.0})
    const text = '{"a": NaN, "b": [Infinity, -Infinity], "c": "NaN \\"Infinity", "NaN": 1.0}';
    expect(parsePythonJson(text)).toEqual({ a: NaN, b: [Infinity, -Infinity], c: 'NaN "Infinity', NaN: 1 });
  });

  it("is JSON.parse for JSON, and fails with its message for anything else", () => {
    expect(parsePythonJson('{"a": [1, "\\u0000number:NaN"]}')).toEqual({ a: [1, "\u0000number:NaN"] });
    for (const text of ["{", "[nan]", "{a: NaN}", "[NaN,]", "NaNs", "--Infinity"]) {
      const message = ((): string => {
        try {
          return String(JSON.parse(text));
        } catch (cause) {
          return (cause as Error).message;
        }
      })();
      expect(() => parsePythonJson(text), text).toThrow(message);
    }
  });
});
