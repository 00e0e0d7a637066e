"""Makes the bytes of the benchmark's files.

Every function takes a random source and a size and returns exactly that many
bytes, so that a file depends on its own seed alone: the same on every machine,
whatever the order in which the files are made. The text has to be neither one
repeated block (a compressor with a large window would win by that alone) nor
noise: rows are put together from large pools of names, words, numbers and
times, as real dumps and logs are.
"""

from functools import lru_cache
from random import Random

SYLLABLES = (
    "an ar bel bran cor da del dor el en far fin gar gil hal han il in jor ka kel la lan lor mar mel mir na nel "
    "no or os pel per qui ra ren ri sal sen sol ta tel tor ul ur va ven vor wen wil xan ya yor za zel"
).split()
LEVELS = ["INFO", "INFO", "INFO", "INFO", "DEBUG", "DEBUG", "WARN", "ERROR"]
METHODS = ["GET", "GET", "GET", "POST", "PUT", "DELETE", "HEAD"]
STATUSES = ["200", "200", "200", "201", "204", "301", "304", "400", "403", "404", "500", "503"]
LOCALES = ["en_GB", "en_US", "de_DE", "fr_FR", "nl_NL", "pl_PL"]
TYPES = ["usize", "u64", "&str", "String", "Vec<u8>", "bool", "Option<i64>", "PathBuf"]
KEYWORDS = ["let", "if", "match", "return", "for", "while", "self", "Ok", "Err", "Some", "None", "pub fn", "mut"]


@lru_cache(maxsize=None)
def pools() -> dict[str, list[str]]:
    """What rows are made from. The seed is fixed: files differ by how they
    choose from the pools, and every process makes the same ones."""
    source = Random("pools of the benchmark")
    pick, number = source.choice, source.randint

    def word() -> str:
        return "".join(source.choices(SYLLABLES, k=pick((1, 2, 2, 3))))

    words = [word() for _ in range(6_000)]
    # the rank of a word in text: common ones are common, as Zipf found
    prose = [words[int(6_000 ** source.random()) - 1] for _ in range(30_000)]
    people = [(pick(words).title(), pick(words).title()) for _ in range(12_000)]
    return {
        "word": words,
        "phrase": [" ".join(source.choices(prose, k=number(3, 9))) for _ in range(20_000)],
        "person": [f"{a} {b}\t{a.lower()}.{b.lower()}{number(1, 999)}@{pick(words)}.example" for a, b in people],
        "amount": [f"{number(100, 99_999) / 100:.2f}" for _ in range(20_000)],
        "number": [str(number(1, 10 ** number(1, 5))) for _ in range(20_000)],
        "clock": sorted(f"{number(0, 23):02}:{number(0, 59):02}:{number(0, 59):02}.{number(0, 999):03}" for _ in range(40_000)),
        "hex": [f"{source.getrandbits(32):08x}" for _ in range(60_000)],
        "address": [f"10.{number(0, 31)}.{number(0, 255)}.{number(1, 254)}" for _ in range(9_000)],
        "path": ["/" + "/".join(source.choices(words[:400], k=number(1, 4))) for _ in range(6_000)],
        "profile": [
            f'{{"theme": "{theme}", "locale": "{pick(LOCALES)}", "newsletter": {pick(("true", "false"))}, '
            f'"pages": {number(1, 40)}, "two_factor": {pick(("true", "false"))}}}'
            for theme in source.choices(["dark", "light", "system"], k=600)
        ],
    }


class Place:
    """What one file talks about: a day, and a few of the names in the pools. A
    real log or dump repeats the same hosts, paths and sentences, and that
    locality is what compressors live on."""

    def __init__(self, source: Random, size: int):
        self.source, self.have = source, pools()
        self.day = f"2025-{source.randint(1, 12):02}-{source.randint(1, 28):02}"
        self.few = max(4, min(160, size // 150))
        self.known: dict[str, list[str]] = {}
        self.at = source.randrange(40_000)

    def all_of(self, name: str, rows: int) -> list[str]:
        """One value for each row, from the whole pool."""
        return self.source.choices(self.have[name], k=rows)

    def few_of(self, name: str, rows: int) -> list[str]:
        """One value for each row, from those that this file knows."""
        if name not in self.known:
            self.known[name] = self.source.choices(self.have[name], k=self.few)
        return self.source.choices(self.known[name], k=rows)

    def one_of(self, values: list[str], rows: int) -> list[str]:
        return self.source.choices(values, k=rows)

    def clock(self, rows: int) -> list[str]:
        """Times of day that go forward, around midnight when need be."""
        clock, found = self.have["clock"], []
        while len(found) < rows:
            self.at %= len(clock)
            found += clock[self.at : self.at + rows - len(found)]
            self.at += rows
        return found


def random_bytes(source: Random, size: int) -> bytes:
    """What is compressed already: pictures, archives, films."""
    return b"".join(source.randbytes(min(1 << 20, size - at)) for at in range(0, size, 1 << 20))


def sql(source: Random, size: int) -> bytes:
    """Rows as pg_dump writes them between COPY and the closing backslash and dot."""
    place, first = Place(source, size), source.randint(1, 10**8)
    form = (
        "{}\t{}\t{}\t{}\t{}\t" + place.day + " {}+00\t" + place.day + " 00:00:00+00\t{}\t{}\t"
        "https://files.example/avatars/{}.png\t{}"
    ).format

    def rows(count: int):
        nonlocal first
        first += count
        return map(
            form,
            range(first - count, first),
            place.all_of("person", count),
            place.all_of("amount", count),
            place.all_of("number", count),
            place.one_of(["active", "active", "active", "suspended", "closed"], count),
            place.clock(count),
            place.one_of(["t", "t", "f"], count),
            place.few_of("phrase", count),
            place.all_of("hex", count),
            place.all_of("profile", count),
        )

    head = "COPY public.account (id, name, email, amount, visits, state, seen, created, active, note, picture, profile) FROM stdin;"
    return gather(size, rows, 230, head)


def json_lines(source: Random, size: int) -> bytes:
    """Records of an application, one object on a line."""
    place = Place(source, size)
    form = (
        '{{"id": "{}", "kind": "{}", "created_at": "' + place.day + 'T{}Z", "actor": {{"address": "{}", "visits": {}}}, '
        '"amount": {}, "path": "{}", "text": "{}", "settings": {}}}'
    ).format
    few, every = place.few_of, place.all_of
    return gather(
        size,
        lambda count: map(
            form,
            every("hex", count),
            few("word", count),
            place.clock(count),
            few("address", count),
            every("number", count),
            every("amount", count),
            few("path", count),
            few("phrase", count),
            every("profile", count),
        ),
        300,
    )


def log(source: Random, size: int) -> bytes:
    """A server's log."""
    place = Place(source, size)
    form = (place.day + "T{}Z {} server.http: request_id={} client={} method={} path={} status={} took={}ms {}").format
    few, every = place.few_of, place.all_of
    return gather(
        size,
        lambda count: map(
            form,
            place.clock(count),
            place.one_of(LEVELS, count),
            every("hex", count),
            few("address", count),
            place.one_of(METHODS, count),
            few("path", count),
            place.one_of(STATUSES, count),
            every("number", count),
            few("phrase", count),
        ),
        150,
    )


def code(source: Random, size: int) -> bytes:
    """Text that looks like a program: indented, short words, few of them."""
    place = Place(source, size)
    word, indents = place.few_of, ["", "    ", "    ", "        ", "        ", "            "]
    return gather(
        size,
        lambda count: map(
            "{}{} {}_{}({}: {}) {}".format,
            place.one_of(indents, count),
            place.one_of(KEYWORDS, count),
            word("word", count),
            word("word", count),
            word("word", count),
            place.one_of(TYPES, count),
            place.one_of(["{", "{", "});", ";", ".await?;", "-> Result<()> {", "// " + place.day], count),
        ),
        50,
    )


def prose(source: Random, size: int) -> bytes:
    """Notes in Markdown: headings, lists and sentences."""
    place = Place(source, size)
    starts = ["# ", "## ", "- ", "- ", "- [ ] ", "", "", "", "\n", "> "]
    return gather(
        size,
        lambda count: map(
            "{}{} {}.".format, place.one_of(starts, count), place.all_of("phrase", count), place.few_of("phrase", count)
        ),
        75,
    )


def settings(source: Random, size: int) -> bytes:
    """A .env file: half of its lines are secrets, which do not compress."""
    place = Place(source, size)

    def rows(count: int):
        pairs = zip(place.all_of("word", count), place.all_of("word", count))
        return [
            f"{a.upper()}_{b.upper()}={source.getrandbits(192):048x}" if at % 2 else f"{a.upper()}_{b.upper()}={b}"
            for at, (a, b) in enumerate(pairs)
        ]

    return gather(size, rows, 40)


def gather(size: int, rows, row_size: int, head: str = "") -> bytes:
    """Asks for rows until there are `size` bytes, and cuts the last one. The
    estimated size of a row only decides how often it asks."""
    parts = [head + "\n"] if head else []
    done = sum(map(len, parts))
    while done < size:
        text = "\n".join(rows(max(2, min(20_000, (size - done) // row_size + 1)))) + "\n"
        parts.append(text)
        done += len(text)
    return "".join(parts).encode()[:size]


KINDS = {
    "media": random_bytes,
    "sql": sql,
    "json": json_lines,
    "log": log,
    "code": code,
    "prose": prose,
    "env": settings,
    "secret": random_bytes,
}
