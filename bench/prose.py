"""English prose for studies that want more text than comes along: HTML manuals as JSONL.

    apt-get download anarchism linux-doc-6.12; for d in *.deb; do dpkg -x "$d" unpacked; done
    python3 bench/prose.py unpacked/usr/share/doc/anarchism/html unpacked/usr/share/doc/linux-doc-6.12/html \
        --bytes 19000000 --out prose.jsonl

Paragraphs that are mostly letters, each once, in documents of about 4,000 characters and a fixed random order. Code,
tables, lists of functions and indexes are left out.
"""

import argparse
import json
import os
import random
import re
from html.parser import HTMLParser

DOCUMENT = 4000
SHORTEST = 800
SKIPPED = {"script", "style", "nav", "head", "pre", "table", "footer", "dl", "button", "form"}
SKIPPED_CLASSES = ("sphinxsidebar", "toctree", "headerlink", "related")
BLOCKS = {"p", "li", "h1", "h2", "h3", "h4", "div", "blockquote", "dt", "dd", "tr"}
VOID = {"br", "meta", "link", "img", "input", "hr"}


class Prose(HTMLParser):
    """Collects the text of blocks, a line each."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.parts = []
        self.depth = 0

    def handle_starttag(self, tag, attrs):
        if tag in VOID:
            if tag == "br" and self.depth == 0:
                self.parts.append("\n")
            return
        named = dict(attrs).get("class") or ""
        if self.depth or tag in SKIPPED or any(word in named for word in SKIPPED_CLASSES):
            self.depth += 1
        elif tag in BLOCKS:
            self.parts.append("\n")

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        if self.depth:
            self.depth -= 1
        elif tag in BLOCKS:
            self.parts.append("\n")

    def handle_data(self, data):
        if not self.depth:
            self.parts.append(data)


def paragraphs(path):
    parser = Prose()
    with open(path, encoding="utf8", errors="replace") as file:
        parser.feed(file.read())
    lines = (re.sub(r"\s+", " ", line).strip() for line in "".join(parser.parts).split("\n"))
    letters = lambda line: sum(c.isalpha() or c == " " for c in line)
    return [line for line in lines if len(line) > 40 and letters(line) > 0.85 * len(line)]


def documents(folders):
    seen = set()
    for folder in folders:
        for place, inner, names in os.walk(folder):
            inner[:] = sorted(name for name in inner if name not in ("translations", "_sources"))
            for name in sorted(names):
                if not name.endswith(".html") or re.search(r"genindex|search|maintainers\.html", name):
                    continue
                kept, size = [], 0
                for line in paragraphs(os.path.join(place, name)):
                    if line in seen:
                        continue
                    seen.add(line)
                    kept.append(line)
                    size += len(line)
                    if size > DOCUMENT:
                        yield "\n".join(kept)
                        kept, size = [], 0
                if size > SHORTEST:
                    yield "\n".join(kept)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--bytes", type=int, required=True)
    parser.add_argument("--out", required=True)
    options = parser.parse_args()
    found = list(documents(options.folders))
    random.Random(0).shuffle(found)
    total = 0
    with open(options.out, "w", encoding="utf8") as out:
        for text in found:
            line = json.dumps({"text": text}, ensure_ascii=False) + "\n"
            if total + len(line.encode()) > options.bytes:
                break
            out.write(line)
            total += len(line.encode())
    print(f"{len(found)} documents of {sum(map(len, found))} characters found, {total} bytes written")


if __name__ == "__main__":
    main()
