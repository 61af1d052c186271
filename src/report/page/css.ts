/**
 * Tag of embedded style sheets. It leaves the text as it is written; by its name Prettier knows that the text is CSS.
 */
export const css = String.raw;
