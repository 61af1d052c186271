/** Text that came from users, made safe for the three places it can land in: markup, embedded JSON, inlined assets. */

const entities: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};

export function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (character) => valueAt(entities, character));
}

/**
 * JSON for a `<script type="application/json">`: without `<`, nothing in it can close the element or open a comment.
 */
export function embedJson(value: unknown): string {
  return JSON.stringify(value)
    .replace(/</g, "\\u003c")
    .replace(/\u2028/g, "\\u2028")
    .replace(/\u2029/g, "\\u2029");
}

/** A library's text inside `<script>` or `<style>`: its own closing tag is the only thing that could end it early. */
export function embedAsset(text: string): string {
  return text.replace(/<\/(script|style)/gi, "<\\/$1");
}
import { valueAt } from "../../base/at.js";
