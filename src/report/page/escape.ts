/** Makes text of users safe for the three places it can stand in: markup, embedded JSON, inlined assets. */
import { valueAt } from "../../base/at.js";

const entities: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};

/** Text as markup that shows it, between tags or in a quoted attribute. */
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
