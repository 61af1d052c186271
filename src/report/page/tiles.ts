/** Key numbers as tiles. */
import { escapeHtml } from "./escape.js";

/** A key number: what it is, its value, and what is to be known of it; all plain text. */
export interface Tile {
  readonly name: string;
  readonly value: string;
  readonly note: string;
  /** Index into `armTones` of the dot in front of the name. */
  readonly tone?: number | undefined;
}

/** Tiles as the entries of a `<dl class="tiles">`. */
export const tileEntries = (tiles: readonly Tile[]): string =>
  tiles
    .map(({ name, value, note, tone }) => {
      const swatch = tone === undefined ? "" : `<i class="swatch tone-${tone}"></i>`;
      const text = `<b>${escapeHtml(value)}</b><span>${escapeHtml(note)}</span>`;
      return `<div><dt>${swatch}${escapeHtml(name)}</dt><dd>${text}</dd></div>`;
    })
    .join("");

/** The section of key numbers; `note` is plain text below them. */
export function tilesSection(tiles: readonly Tile[], note = ""): string {
  const below = note === "" ? "" : `\n<p class="muted small">${escapeHtml(note)}</p>`;
  return `<section aria-label="Key numbers"><dl class="tiles">${tileEntries(tiles)}</dl>${below}</section>`;
}
