"""A text of hundreds of megabytes for studies: documentation, source code and dictionaries of Debian.

    python3 bench/corpus.py --work /tmp/corpus --out corpus.jsonl [--bytes 200000000]

Needs `apt-get` of Debian 12 with its `main` component, whose packages are free software by Debian's guidelines, and
`dpkg-deb`. The packages are downloaded and unpacked below --work, where they stay, so that a second call downloads
nothing. Beside the text the script writes OUT.origin.json: for each package its version, the licences that its
copyright file names, and how much of the text comes from it. With --bytes every package gives the same share of its
text, spread evenly over its files.

Paragraphs (lines between blank lines) are kept once over all packages, so that licence headers and generated pages
count once. A document is the run of kept paragraphs of one file, cut at about 4,000 characters. Documents stay in the
order of packages and files; a training draws its batches in an order of its own. Other languages than English are
left out where a file's name or its letters say so.
"""

import argparse
import glob
import gzip
import hashlib
import html
import json
import os
import re
import subprocess
import tarfile
import zlib

DOCUMENT = 4000
SHORTEST = 400

# Package: the largest number of bytes of its text. Several large ones would else be most of the whole.
MANY, SOME, FEW = 16_000_000, 7_000_000, 4_000_000
PACKAGES = {
    # Manuals and books.
    "anarchism": SOME, "debian-handbook": FEW, "debian-reference-en": FEW, "debian-policy": FEW, "debian-faq": FEW,
    "developers-reference": FEW, "maint-guide": FEW, "aptitude-doc-en": FEW,
    "linux-doc-6.12": MANY, "git-doc": SOME, "perl-doc": SOME, "postgresql-doc-15": SOME, "python3.11-doc": SOME,
    "rust-doc": SOME, "llvm-19-doc": SOME, "sqlite3-doc": SOME, "apache2-doc": FEW, "bind9-doc": FEW,
    "exim4-doc-html": FEW, "gimp-help-en": FEW, "libreoffice-help-en-us": SOME, "octave-doc": FEW, "maxima-doc": FEW,
    "gnucash-docs": FEW, "lilypond-doc-html": SOME, "r-base-html": FEW, "r-doc-html": FEW, "erlang-doc": SOME,
    "ghc-doc": SOME, "zsh-doc": FEW, "manpages": FEW, "manpages-dev": SOME, "freebsd-manpages": SOME, "sbcl-doc": FEW,
    "python-numpy-doc": SOME, "python-scipy-doc": SOME, "python-pandas-doc": SOME,
    "python-sympy-doc": SOME, "python-sklearn-doc": SOME, "python-django-doc": SOME,
    "python-astropy-doc": SOME, "python-ipython-doc": FEW, "python-sqlalchemy-doc": SOME,
    "cmake-doc": FEW, "samba-doc": FEW,
    "mercurial-common": FEW, "subversion": FEW, "vim-runtime": FEW,
    # Dictionaries and jokes.
    "dict-gcide": SOME, "dict-foldoc": SOME, "dict-jargon": FEW, "dict-vera": FEW, "wordnet-base": SOME,
    "dict-devil": FEW, "dict-elements": FEW, "fortunes": FEW,
    # Source code.
    "libpython3.11-stdlib": SOME, "perl-modules-5.36": SOME, "golang-1.19-src": SOME,
    "rust-src": SOME, "glibc-source": SOME, "python3-django": SOME, "python3-sympy": SOME,
}

CODE = (".c", ".h", ".py", ".pl", ".pm", ".pod", ".go", ".rs", ".java", ".el", ".sh", ".sql", ".rb", ".js", ".cc")
PLAIN = (".txt", ".rst", ".md", ".texi", ".adoc", ".asciidoc", ".text")
# Names of languages in a file's name or as a folder of its own, as `index.html.fr` and `de/`.
FOREIGN = re.compile(
    r"(^|[/._-])(ar|bg|ca|cs|da|de|el|es|fi|fr|hu|id|it|ja|jp|ko|lt|nb|nl|nn|pl|pt|pt-br|ro|ru|sk|sl|sv|tr|uk|vi|zh)"
    r"([-_][A-Za-z]+)?([/.]|$)|translations/",
)
INDEX = re.compile(r"genindex|search\.html|searchindex|/changelog|copyright$|/NEWS|/_sources/|/ChangeLog|\.min\.js$")


# Expressions, since a parser of Python takes minutes for what they do in seconds.
HIDDEN = re.compile(r"<(script|style|nav|head|footer|button|form|svg)\b.*?</\1\s*>|<!--.*?-->", re.S | re.I)
BESIDE = re.compile(r'<(div|ul|table)[^>]*class="[^"]*(?:sphinxsidebar|toctree|related|navheader|navfooter)[^"]*".*?</\1>', re.S)
BLOCK = re.compile(r"</?(p|li|h[1-6]|div|blockquote|d[tdl]|tr|section|table|[uo]l|pre|article|br)\b[^>]*>", re.I)
TAG = re.compile(r"<[a-zA-Z/!?][^>]*>")


def page_text(text):
    """The text of a page: blocks with blank lines between them, code as it stands."""
    text = BESIDE.sub("\n\n", HIDDEN.sub("\n\n", text))
    pieces = []
    for place, part in enumerate(re.split(r"<pre\b[^>]*>(.*?)</pre>", text, flags=re.S | re.I)):
        is_code = place % 2 == 1
        pieces.append(TAG.sub("", part) if is_code else TAG.sub("", BLOCK.sub("\n\n", re.sub(r"\s+", " ", part))))
    return html.unescape("\n\n".join(pieces)).replace("\u00b6", "")


def manual_text(text):
    """A manual page without its marks."""
    text = re.sub(r'^\.\\".*$|^\'\\".*$', "", text, flags=re.M)
    text = re.sub(r"^\.(SH|SS|TH|Sh|Ss|Dt|TP|PP|P|LP|IP|Pp|It)\b ?", "\n", text, flags=re.M)
    text = re.sub(r"^\.[A-Za-z]+ ?", "", text, flags=re.M)
    return re.sub(r"\\f[A-Z]|\\&|\\\|", "", text).replace("\\-", "-").replace("\\(aq", "'").replace("\\e", "\\")


def wordnet_text(text):
    """`word, word: what they mean`, a paragraph for each line of WordNet's data."""
    entries = []
    for line in text.split("\n"):
        if line.startswith(" ") or "|" not in line:
            continue
        fields, meaning = line.split("|", 1)
        fields = fields.split()
        words = fields[4 : 4 + 2 * int(fields[3], 16) : 2]
        entries.append(f"{', '.join(words).replace('_', ' ')}: {meaning.strip()}")
    return "\n\n".join(entries)


def texts_of(name, data):
    """The text of a file by its name; None where it is none."""
    base = os.path.basename(name)
    if name.endswith(".gz") or name.endswith(".dz"):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error):
            return None
        if name.endswith(".dict.dz"):
            return re.sub(r"\n(?=\S)", "\n\n", data.decode("utf8", "replace"))
        name, base = name[:-3], base[:-3]
    if b"\0" in data[:4096]:
        return None
    text = data.decode("utf8", "replace").replace("\r\n", "\n")
    if re.search(r"\.x?html?(\.en)?$", base):
        return page_text(text)
    if base.startswith("data.") and "wordnet" in name:
        return wordnet_text(text)
    if re.search(r"/man/man\d", name) or re.search(r"\.[1-9]$", base):
        return manual_text(text)
    if "/fortunes/" in name:
        return text.replace("\n%\n", "\n\n")
    if base.endswith(CODE) or base.endswith(PLAIN) or ("/vim" in name and base.endswith(".txt")):
        return text
    return text if "bible" in name and "." not in base else None


# Bytes of files that are read for one byte of text that is wanted.
RAW = 10


def members(folder, package, limit):
    """
    Names and bytes of a package's files, those of an archive inside it too, in the order of their names: every file,
    or of a package that is far larger than `limit` files at even distances.
    """
    paths = []
    for place, inner, names in os.walk(folder):
        inner.sort()
        for name in sorted(names):
            path = os.path.join(place, name)
            shown = f"{package}/{os.path.relpath(path, folder)}"
            if os.path.isfile(path) and not os.path.islink(path) and is_wanted(shown, package):
                paths.append((shown, path, os.path.getsize(path)))
    archives = [one for one in paths if ARCHIVE.search(one[0])]
    plain = [one for one in paths if not ARCHIVE.search(one[0]) and (one[2] < 8_000_000 or one[0].endswith(".dz"))]
    for shown, path, _ in evenly(plain, RAW * limit, lambda one: one[2]):
        with open(path, "rb") as file:
            yield shown, file.read()
    for shown, path, _ in archives:
        yield from archived(path, shown)


# The archives of packages of source code.
ARCHIVE = re.compile(r"/usr/src/.*\.tar\.(xz|bz2|gz)$")


def is_wanted(name, package):
    return not FOREIGN.search(name[len(package) :]) and not INDEX.search(name)


def archived(path, shown):
    with tarfile.open(path) as archive:
        for member in archive:
            if member.isfile() and member.size < 400_000 and member.name.endswith(CODE + PLAIN):
                yield f"{shown}/{member.name}", archive.extractfile(member).read()


def is_english(text):
    """Nearly all letters are ASCII."""
    return len(text.encode()) < 1.03 * len(text)


def documents(folder, package, seen, limit):
    """Documents of a package: new paragraphs of each file, at most `limit` bytes spread evenly over the files."""
    found = []
    for name, data in members(folder, package, limit):
        if not is_wanted(name, package) or len(data) < SHORTEST:
            continue
        text = texts_of(name, data)
        if text is None:
            continue
        kept, size = [], 0
        for paragraph in re.split(r"\n[ \t]*\n", text):
            paragraph = "\n".join(line.rstrip() for line in paragraph.strip("\n").split("\n") if line.strip())
            if len(paragraph) < 2 or len(paragraph) > 20_000:
                continue
            key = hashlib.blake2b(re.sub(r"\W+", " ", paragraph).encode(), digest_size=8).digest()
            if len(paragraph) > 30:
                if key in seen:
                    continue
                seen.add(key)
            kept.append(paragraph)
            size += len(paragraph) + 2
            if size > DOCUMENT:
                found.append("\n\n".join(kept))
                kept, size = [], 0
        if size > SHORTEST:
            found.append("\n\n".join(kept))
    found = [text for text in found if is_english(text)]
    return evenly(found, limit)


def bytes_of(text):
    return len(text.encode())


def evenly(found, limit, size=bytes_of):
    """As many of what was found as `limit` bytes hold, at even distances."""
    total = sum(map(size, found))
    if total <= limit or total == 0:
        return found
    share, taken, kept = limit / total, 0.0, []
    for one in found:
        taken += share
        if taken >= 1:
            taken -= 1
            kept.append(one)
    return kept


def fetch(package, work):
    """The unpacked package's folder; None where Debian has no such package."""
    folder = os.path.join(work, "unpacked", package)
    if os.path.isdir(folder):
        return folder
    debs = os.path.join(work, "debs")
    os.makedirs(debs, exist_ok=True)
    done = subprocess.run(["apt-get", "download", package], cwd=debs, capture_output=True)
    files = sorted(glob.glob(os.path.join(debs, f"{glob.escape(package)}_*.deb")))
    if done.returncode != 0 or not files:
        return None
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    subprocess.run(["dpkg-deb", "-x", files[-1], f"{folder}.part"], check=True)
    os.rename(f"{folder}.part", folder)
    return folder


def version_of(package, work):
    files = sorted(glob.glob(os.path.join(work, "debs", f"{glob.escape(package)}_*.deb")))
    return os.path.basename(files[-1]).split("_")[1].replace("%3a", ":") if files else None


# Longer names of licences are their first sentences.
NAME = 50


def licences(folder, package, work):
    """The licences that a package's copyright file names, in their order; it may be that of another package."""
    place = os.path.join(folder, "usr/share/doc", package)
    while os.path.islink(place):
        package = os.path.basename(os.readlink(place))
        folder = fetch(package, work)
        if folder is None:
            return [f"as {package}"]
        place = os.path.join(folder, "usr/share/doc", package)
    path = os.path.join(place, "copyright")
    if not os.path.isfile(path):
        return ["as its source package"]
    with open(path, encoding="utf8", errors="replace") as file:
        text = file.read()
    short = [name.strip() for name in re.findall(r"^License:[ \t]*(\S.*)$", text, flags=re.M)]
    free = re.findall(r"/usr/share/common-licenses/([A-Za-z0-9.+-]*[A-Za-z0-9])", text)
    named = [name for name in short if len(name) <= NAME] if short else free
    return list(dict.fromkeys(named)) or ["as its copyright file says"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--bytes", type=int, default=None)
    options = parser.parse_args()
    seen, packages = set(), []
    for package, limit in PACKAGES.items():
        folder = fetch(package, options.work)
        if folder is None:
            print(f"{package}: not in this Debian, left out", flush=True)
            continue
        found = documents(folder, package, seen, limit)
        size = sum(len(text.encode()) for text in found)
        print(f"{package}: {len(found)} documents, {size} bytes", flush=True)
        packages.append((package, folder, found, size))
    total = sum(size for *_, size in packages)
    share = 1 if options.bytes is None else min(1, options.bytes / total)
    origin = []
    with open(options.out, "w", encoding="utf8") as out:
        for package, folder, found, size in packages:
            kept = evenly(found, int(size * share)) if share < 1 else found
            for text in kept:
                out.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
            facts = {"package": package, "version": version_of(package, options.work), "documents": len(kept)}
            origin.append({**facts, "bytes": sum(len(t.encode()) for t in kept), "licences": licences(folder, package, options.work)})
    written = {"documents": sum(o["documents"] for o in origin), "bytes": sum(o["bytes"] for o in origin)}
    statement = {"origin": "Debian, component main", **written, "packages": origin}
    with open(f"{options.out}.origin.json", "w", encoding="utf8") as out:
        json.dump(statement, out, indent=1, ensure_ascii=False)
    print(f"{written['documents']} documents, {written['bytes']} bytes")


if __name__ == "__main__":
    main()
