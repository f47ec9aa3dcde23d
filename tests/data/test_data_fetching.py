"""``fetch`` against a server on this machine: checksums, mirrors, broken answers, archives with surprises."""

import gzip
import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tombola.data import fetch, fetching
from tombola.data.published import (
    CIFAR_10,
    CIFAR_ARCHIVE,
    CIFAR_BINARY_FILES,
    FASHION_MNIST,
    IDX_FILES,
    MNIST,
    PUBLISHED,
)
from tombola.errors import CannotWrite, CorruptData, DataMissing, UnknownName

CONTENT = {name: f"the content of {name}".encode() * 50_000 for name in IDX_FILES}
ZIPPED = {f"/good/{name}.gz": gzip.compress(content) for name, content in CONTENT.items()}
SUMS = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()}


class Server:
    """Answers from ``pages``, except that below ``/short/`` it promises more than it sends; keeps what was asked."""

    def __init__(self) -> None:
        self.pages: dict[str, bytes] = {}
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                page = outer.pages.get(self.path)
                if page is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                if not self.path.startswith("/unsized/"):
                    self.send_header("Content-Length", str(len(page) + 9 * self.path.startswith("/short/")))
                self.end_headers()
                self.wfile.write(page)

            def log_message(self, *_: object) -> None:
                """Stay silent."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.at = f"http://127.0.0.1:{self.http.server_address[1]}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    one = Server()
    one.pages.update(ZIPPED)
    thread = threading.Thread(target=one.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setitem(PUBLISHED, "mnist", replace(MNIST, addresses=(f"{one.at}/good/",), sha256=SUMS))
    yield one
    one.http.shutdown()
    thread.join()
    one.http.server_close()


def use(monkeypatch: pytest.MonkeyPatch, server: Server, *folders: str) -> None:
    addresses = tuple(f"{server.at}/{folder}/" for folder in folders)
    monkeypatch.setitem(PUBLISHED, "mnist", replace(PUBLISHED["mnist"], addresses=addresses))


def test_fetch_stores_what_was_published(tmp_path: Path, server: Server) -> None:
    seen: list[tuple[str, int, int | None]] = []
    folder = fetch("mnist", tmp_path, progress=lambda *step: seen.append(step))
    assert folder == tmp_path / "mnist"
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{name}.gz" for name in IDX_FILES)
    for name, content in CONTENT.items():
        assert gzip.decompress((folder / f"{name}.gz").read_bytes()) == content
    last = {name: (done, total) for name, done, total in seen}
    assert last == {name.rsplit("/", 1)[1]: (len(page), len(page)) for name, page in ZIPPED.items()}
    assert len(server.asked) == 4
    assert fetch("mnist", tmp_path) == folder
    assert len(server.asked) == 4  # Already there: nobody was asked again.


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_other_files_of_the_same_name_are_never_overwritten(tmp_path: Path, server: Server, suffix: str) -> None:
    other = gzip.compress(b"mine") if suffix else b"mine"
    (tmp_path / "mnist").mkdir()
    path = tmp_path / "mnist" / f"{IDX_FILES[1]}{suffix}"
    path.write_bytes(other)
    with pytest.raises(
        CorruptData, match=f"{path.name} is already there and has .*, and .* is expected.*Move that file"
    ):
        fetch("mnist", tmp_path)
    assert path.read_bytes() == other
    path.write_bytes(gzip.compress(CONTENT[IDX_FILES[1]]) if suffix else CONTENT[IDX_FILES[1]])
    assert server.asked == []
    fetch("mnist", tmp_path)
    assert len(server.asked) == 4


def test_without_dest_it_goes_to_the_cache(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert fetch("mnist") == tmp_path / "cache" / "tombola" / "mnist"
    assert len(server.asked) == 4


def test_a_size_that_the_server_does_not_state(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, server, "unsized")
    server.pages.update({path.replace("good", "unsized"): page for path, page in ZIPPED.items()})
    totals: set[int | None] = set()
    fetch("mnist", tmp_path, progress=lambda _name, _done, total: totals.add(total))
    assert totals == {None}


@pytest.mark.parametrize("first", ["gone", "bad", "short", "page", "flood", "tail"])
def test_a_mirror_stands_in(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, first: str) -> None:
    use(monkeypatch, server, first, "good")
    monkeypatch.setitem(fetching._MOST, "idx", 4 << 20)
    wrong = {
        "bad": gzip.compress(b"other content"),
        "short": next(iter(ZIPPED.values())),
        "page": b"<html>please log in</html>",
        "flood": bytes(5 << 20),
        "tail": next(iter(ZIPPED.values())) + b"more",
    }
    if first in wrong:
        server.pages.update({path.replace("good", first): wrong[first] for path in ZIPPED})
    folder = fetch("mnist", tmp_path)
    assert gzip.decompress((folder / f"{IDX_FILES[0]}.gz").read_bytes()) == CONTENT[IDX_FILES[0]]
    assert len(server.asked) == 8


def test_nothing_is_stored_when_one_file_is_wrong(tmp_path: Path, server: Server) -> None:
    server.pages[f"/good/{IDX_FILES[3]}.gz"] = gzip.compress(b"other content")
    found = hashlib.sha256(b"other content").hexdigest()
    with pytest.raises(CorruptData, match=f"has the SHA-256 {found} uncompressed, and {SUMS[IDX_FILES[3]]}"):
        fetch("mnist", tmp_path)
    assert list(tmp_path.rglob("*")) == []


def test_a_gzip_bomb_does_not_fill_the_memory(tmp_path: Path, server: Server) -> None:
    server.pages[f"/good/{IDX_FILES[0]}.gz"] = gzip.compress(bytes(80 << 20), 1)
    with pytest.raises(CorruptData, match="uncompressed, and"):
        fetch("mnist", tmp_path)


def test_no_connection_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    dead = ("http://127.0.0.1:1/a/", "http://127.0.0.1:1/b/")
    monkeypatch.setitem(PUBLISHED, "fashion-mnist", replace(FASHION_MNIST, addresses=dead))
    with pytest.raises(DataMissing) as caught:
        fetch("fashion-mnist", tmp_path)
    text = str(caught.value)
    for part in (
        "127.0.0.1:1/a/train",
        "127.0.0.1:1/b/train",
        "refused",
        "TOMBOLA_DATA",
        IDX_FILES[0],
        "apt-get install",
    ):
        assert part in text
    assert list(tmp_path.rglob("*")) == []


def test_names_and_places(tmp_path: Path, server: Server) -> None:
    with pytest.raises(UnknownName, match=r"Known: cifar-10, digits, fashion-mnist, mnist\.$"):
        fetch("mnits")
    assert (fetch("digits") / "digits.csv.gz").is_file()
    (tmp_path / "file").touch()
    with pytest.raises(CannotWrite):
        fetch("mnist", tmp_path / "file" / "below")
    assert server.asked == []


def test_the_real_table_is_https_wherever_there_is_https() -> None:
    plain = [address for published in PUBLISHED.values() for address in published.addresses if address[:6] != "https:"]
    assert plain == ["http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"]
    for published in (MNIST, FASHION_MNIST):
        assert set(published.sha256) == set(IDX_FILES)
        assert all(len(value) == 64 for value in published.sha256.values())


BATCH = 3073 * 2


def packed(members: dict[str, bytes], link: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            if name == link:
                info.type, info.linkname, info.size = tarfile.SYMTYPE, "/etc/passwd", 0
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


GOOD = {f"cifar-10-batches-bin/{name}": bytes([number]) * BATCH for number, name in enumerate(CIFAR_BINARY_FILES)}
HOSTILE = {
    "../escaped": b"x" * BATCH,
    "/tmp/tombola-escaped": b"x" * BATCH,
    "cifar-10-batches-bin/../../escaped": b"x" * BATCH,
    "elsewhere/test_batch.bin": b"x" * BATCH,
    "cifar-10-batches-bin/readme.html": b"hello",
}


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "_BATCH_BYTES", BATCH)


@pytest.mark.usefixtures("small_batches")
def test_only_the_batches_are_taken_out_of_the_archive(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = packed({**HOSTILE, **GOOD})
    sums = {CIFAR_ARCHIVE: hashlib.sha256(archive).hexdigest()}
    monkeypatch.setitem(PUBLISHED, "cifar-10", replace(CIFAR_10, addresses=(f"{server.at}/c/",), sha256=sums))
    monkeypatch.setattr(fetching, "CIFAR_ARCHIVE_MD5", hashlib.md5(archive).hexdigest())
    server.pages[f"/c/{CIFAR_ARCHIVE}"] = archive
    folder = fetch("cifar-10", tmp_path / "in")
    assert folder == tmp_path / "in" / "cifar-10-batches-bin"
    written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {f"in/{name}" for name in GOOD}
    for name, content in GOOD.items():
        assert (tmp_path / "in" / name).read_bytes() == content
    assert fetch("cifar-10", tmp_path / "in") == folder
    assert len(server.asked) == 1
    (folder / "test_batch.bin").write_bytes(b"x")
    with pytest.raises(CorruptData, match=r"test_batch\.bin is already there and has 1 bytes, and 6,146 bytes"):
        fetch("cifar-10", tmp_path / "in")
    monkeypatch.setattr(fetching, "CIFAR_ARCHIVE_MD5", "0" * 32)
    with pytest.raises(CorruptData, match=r"has the MD5 .* 00000000"):
        fetch("cifar-10", tmp_path / "other")


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("kind", ["absent", "short", "link"])
def test_an_archive_without_all_batches(kind: str) -> None:
    name = "cifar-10-batches-bin/data_batch_2.bin"
    members = {key: value for key, value in GOOD.items() if kind != "absent" or key != name}
    if kind == "short":
        members[name] = b"x"
    with pytest.raises(CorruptData, match=r"no data_batch_2\.bin of 6,146 bytes"):
        fetching.unpacked(packed(members, link=name if kind == "link" else ""))


@pytest.mark.usefixtures("small_batches")
def test_a_damaged_archive() -> None:
    whole = packed(GOOD)
    assert len(fetching.unpacked(whole)) == 6
    for content in (b"", b"text", whole[: len(whole) // 2], gzip.compress(b"no tar")):
        with pytest.raises(CorruptData, match="CIFAR-10"):
            fetching.unpacked(content)
