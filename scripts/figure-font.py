"""
Writes src/report/page/figure-font.ts: the glyphs that figures as PNG are labelled with.

    pip install pillow; python scripts/figure-font.py > src/report/page/figure-font.ts

The font is Pillow's own, Aileron Regular by Sora Sagano (CC0). Each glyph is its coverage in 16 levels.
"""

import base64
import json

from PIL import ImageFont

SIZE = 26
CHARACTERS = "".join(map(chr, range(32, 127))) + "−–±×·…"

font = ImageFont.load_default(SIZE)
assert font.getname()[0] == "Aileron", font.getname()
ascent, _ = font.getmetrics()
nibbles = []
metrics = []
for character in CHARACTERS:
    mask, (left, top) = font.getmask2(character, mode="L", anchor="ls")
    width, height = mask.size
    metrics.append((round(font.getlength(character)), left, top, width, height))
    nibbles += [round(mask.getpixel((x, y)) / 17) for y in range(height) for x in range(width)]
if len(nibbles) % 2:
    nibbles.append(0)
data = base64.b64encode(bytes(a << 4 | b for a, b in zip(nibbles[::2], nibbles[1::2]))).decode()


def lines(items, width=112):
    line = ""
    for item in items:
        if len(line) + len(item) > width:
            yield line
            line = ""
        line += item
    yield line


print("/**")
print(" * Glyphs of Aileron Regular (Sora Sagano, CC0), drawn by scripts/figure-font.py. Each is a box of coverages in 16")
print(" * levels, row by row, four bits each; all boxes follow each other in `glyphData`, base64.")
print(" */")
print()
print("/** Pixels of the size that the glyphs are drawn at. */")
print(f"export const glyphSize = {SIZE};")
print()
print("/** The characters that there are, in the order of `glyphMetrics`. */")
print("export const glyphCharacters =")
print("  " + json.dumps(CHARACTERS, ensure_ascii=False) + ";")
print()
print("/** For each character: advance, left and top of its box from the pen on the baseline, width, height. */")
print("export const glyphMetrics: readonly (readonly [number, number, number, number, number])[] = [")
for metric in metrics:
    print(f"  [{', '.join(map(str, metric))}],")
print("];")
print()
print("/** The boxes. */")
print("export const glyphData =")
parts = [data[i : i + 112] for i in range(0, len(data), 112)]
print("\n".join(f'  "{part}"' + (" +" if i < len(parts) - 1 else ";") for i, part in enumerate(parts)))
