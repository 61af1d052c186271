/** Files that the page gives: made in the page, and sent nowhere. */

/** Saves text or bytes under a name. */
export function download(name: string, content: string | Blob, type = "text/plain"): void {
  const url = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name.replace(/[^\w.-]+/g, "-");
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

/** Saves a canvas as PNG, on the colour of the page. */
export function downloadCanvas(name: string, canvas: HTMLCanvasElement): void {
  const copy = document.createElement("canvas");
  [copy.width, copy.height] = [canvas.width, canvas.height];
  const context = copy.getContext("2d");
  if (context === null) return;
  context.fillStyle = variable("--page");
  context.fillRect(0, 0, copy.width, copy.height);
  context.drawImage(canvas, 0, 0);
  copy.toBlob((blob) => blob !== null && download(`${name}.png`, blob), "image/png");
}

/** A colour of the style sheet as it is now. */
export const variable = (name: string): string =>
  getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** The colours that an SVG file refers to, written into it: it has no style sheet to ask. */
export const withColours = (svg: string): string =>
  svg.replace(/var\((--[\w-]+)\)/g, (_, name: string) => variable(name));
