/** Tag of embedded style sheets: the text as it is written, under the name by which Prettier knows CSS. */
export const css = String.raw;
