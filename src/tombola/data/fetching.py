"""Getting a published data set from its publisher: the only place that touches the network."""

import hashlib
import http.client
import io
import tarfile
import urllib.request
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from tombola.data import places
from tombola.data.published import CIFAR_ARCHIVE, CIFAR_ARCHIVE_MD5, CIFAR_BINARY_FILES, PUBLISHED, Published, named
from tombola.errors import CorruptData, DataMissing
from tombola.files import check_writable, write_all

Progress: TypeAlias = Callable[[str, int, int | None], None]
"""Called with a file's name, the bytes that came so far, and how many will come if the server said so."""

_CHUNK: Final = 1 << 18
_TIMEOUT: Final = 30.0  # Seconds without a byte, not for the whole file.
_MOST: Final = {"idx": 64 << 20, "archive": 256 << 20}  # Bytes; the largest published are 47,040,016 and 170,052,171.
_BATCH_BYTES: Final = 30_730_000


def fetch(name: str, dest: Path | None = None, *, progress: Progress | None = None) -> Path:
    """Get a published data set from its publisher or a mirror, check it, and store it.

    The IDX files are checked by the SHA-256 of their uncompressed content and stored gzipped, as they came. Of
    CIFAR-10's archive the publisher prints an MD5 only, which is no protection against forgery; both that and the
    SHA-256 that public tables list for the same archive are checked, and only the six batches are taken out of it.
    Either every file is stored or none. What is already there complete is checked the same way (CIFAR-10's batches by
    their size) and not asked for again; files of the same name that are something else are never overwritten.

    Args:
        name: ``mnist``, ``fashion-mnist`` or ``cifar-10``; ``digits`` comes with tombola, so nothing is done.
        dest: a folder for data sets, in which ``mnist/`` and so on will be made; the user's cache if absent. Put it
            into ``TOMBOLA_DATA`` to have it found.
        progress: called as bytes arrive.

    Returns:
        The folder that holds the files (for ``digits``: the package's).

    Raises:
        UnknownName: no published data set has this name.
        DataMissing: no address answered; the message says what each said and what else to do.
        CorruptData: an address answered with something else than the published files, and no other helped; or the
            folder already has something else under their names.
        CannotWrite: the folder cannot be written. Found out before anything is fetched.
    """
    published = named(name)
    if not published.layouts:
        return Path(__file__).parent
    root = places.cache() if dest is None else dest
    layout = published.layouts[0]
    folder = root / layout.folder
    _check_present(published, folder)
    if not places.lacking(folder, layout):
        return folder
    check_writable(root)
    show = progress or (lambda _name, _done, _total: None)
    if name == "cifar-10":
        archive = _first_good(published, CIFAR_ARCHIVE, _MOST["archive"], _check_archive, show)
        files = {folder / member: content for member, content in unpacked(archive).items()}
    else:

        def check(file: str, content: bytes) -> str | None:
            return _check_idx(published, file, content)

        files = {
            folder / f"{file}.gz": _first_good(published, f"{file}.gz", _MOST["idx"], check, show)
            for file in layout.files
        }
    write_all(files)
    return folder


def unpacked(archive: bytes) -> dict[str, bytes]:
    """Take the six batches out of CIFAR-10's binary archive; whatever else it holds is left alone.

    Members are matched by their full name, so that no path of the archive's is ever written to.

    Raises:
        CorruptData: not a gzipped tar archive, or a batch is absent, a link, or not of 30,730,000 bytes.
    """
    wanted = {f"cifar-10-batches-bin/{file}": file for file in CIFAR_BINARY_FILES}
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
            for member in tar:
                name = member.name.removeprefix("./")
                if name not in wanted or not member.isreg() or member.size != _BATCH_BYTES:
                    continue
                stream = tar.extractfile(member)
                found[wanted[name]] = stream.read() if stream is not None else b""
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise CorruptData(
            f"the archive of CIFAR-10 cannot be unpacked ({error}). A gzipped tar archive is expected; fetch it again."
        ) from error
    absent = [file for file in CIFAR_BINARY_FILES if file not in found]
    if absent:
        raise CorruptData(
            f"the archive of CIFAR-10 has no {', '.join(absent)} of {_BATCH_BYTES:,} bytes each. Six such files are "
            "expected in cifar-10-batches-bin/; fetch it again."
        )
    return found


def _check_present(published: Published, folder: Path) -> None:
    layout = published.layouts[0]
    for file in layout.files:
        path = places.present(folder, file, zipped=layout.zipped)
        complaint = None if path is None else _complaint(published, path)
        if complaint is not None:
            raise CorruptData(
                f"{path} is already there and {complaint}. The published file is expected; nothing was overwritten. "
                "Move that file away and fetch again, or fetch into another folder."
            )


def _complaint(published: Published, path: Path) -> str | None:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise places.unreadable(path, error) from error
    if path.suffix == ".gz":
        return _check_idx(published, path.name, content)
    if published.name == "cifar-10":
        expected, found = f"{_BATCH_BYTES:,} bytes", f"{len(content):,} bytes"
    else:
        expected, found = published.sha256[path.name], hashlib.sha256(content).hexdigest()
    return None if found == expected else f"has {found}, and {expected} is expected"


def _first_good(
    published: Published, file: str, most: int, check: Callable[[str, bytes], str | None], show: Progress
) -> bytes:
    """Ask one address after the other until one gives content that passes ``check``."""
    silent: list[str] = []
    wrong: list[str] = []
    for address in published.addresses:
        try:
            content = _download(address + file, file, most, show)
        except (OSError, http.client.HTTPException) as error:  # URLError and timeouts are OSErrors.
            silent.append(f"{address}{file}: {error}")
            continue
        complaint = check(file, content)
        if complaint is None:
            return content
        wrong.append(f"{address}{file} {complaint}")
    if wrong:
        raise CorruptData(
            f"what came for {published.name!r} is not what was published: {'; '.join((*wrong, *silent))}. Nothing was "
            "stored. Something on the way may answer in the publisher's place, as a login page does; try elsewhere."
        )
    raise DataMissing(
        f"{published.name!r} could not be fetched: {'; '.join(silent)}. Nothing was stored. Check the connection and "
        f"try again, or bring the files {_by_hand(published)} from another machine into a folder "
        f"{published.layouts[0].folder}/ and set TOMBOLA_DATA to the folder that holds it."
        f"{_alternatives(published.get[1:])}"
    )


def _download(address: str, file: str, most: int, show: Progress) -> bytes:
    content = bytearray()
    with urllib.request.urlopen(address, timeout=_TIMEOUT) as answer:
        stated = answer.headers.get("Content-Length", "")
        total = int(stated) if stated.isdecimal() else None
        show(file, 0, total)
        while piece := answer.read(_CHUNK):
            content += piece
            if len(content) > most:
                raise OSError(f"the answer goes on after {most:,} bytes")
            show(file, len(content), total)
    if total is not None and len(content) != total:
        raise OSError(f"the connection ended after {len(content):,} of {total:,} bytes")
    return bytes(content)


def _check_idx(published: Published, file: str, content: bytes) -> str | None:
    expected = published.sha256[file.removesuffix(".gz")]
    unzip = zlib.decompressobj(wbits=31)
    try:
        # Bounded, so that a small hostile file cannot fill the memory.
        plain = unzip.decompress(content, _MOST["idx"])
    except zlib.error as error:
        return f"is not gzipped ({error})"
    found = hashlib.sha256(plain).hexdigest()
    if not unzip.eof or unzip.unused_data or found != expected:
        return f"has the SHA-256 {found} uncompressed, and {expected} is expected"
    return None


def _check_archive(_file: str, content: bytes) -> str | None:
    found = (hashlib.md5(content, usedforsecurity=False).hexdigest(), hashlib.sha256(content).hexdigest())
    expected = (CIFAR_ARCHIVE_MD5, PUBLISHED["cifar-10"].sha256[CIFAR_ARCHIVE])
    if found != expected:
        return f"has the MD5 {found[0]} and SHA-256 {found[1]}, and {expected[0]} and {expected[1]} are expected"
    return None


def _by_hand(published: Published) -> str:
    return ", ".join(published.layouts[0].files)


def _alternatives(ways: Sequence[str]) -> str:
    return f" {' or '.join(ways)} brings it too." if ways else ""
