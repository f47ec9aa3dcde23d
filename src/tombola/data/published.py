"""The table of the published data sets: files, checksums, addresses, licences, sizes, margins.

Facts only, and neither torch nor numpy, so that a listing is fast.
"""

from dataclasses import dataclass
from typing import Final, final

from tombola.errors import UnknownName

DEFAULT_MARGIN: Final = 0.005
"""Non-inferiority margin, as a fraction of accuracy, of a data set that the table does not name."""


@final
@dataclass(frozen=True)
class Layout:
    """One way a data set lies in a folder of the search path.

    Attributes:
        folder: relative to the folder of the search path, with ``/``.
        files: names that must all be there.
        zipped: each file may also have ``.gz`` behind its name.
    """

    folder: str
    files: tuple[str, ...]
    zipped: bool = False


@final
@dataclass(frozen=True)
class Published:
    """What is known about a data set before it is read.

    Attributes:
        name: as given on the command line.
        what: one line for a person.
        licence: what its publisher allows.
        get: the commands that bring it here, each a sentence's object.
        layouts: where it may lie, the first found wins; the first is also what ``fetch`` writes. Empty: it comes with
            tombola.
        addresses: where ``fetch`` asks, in this order, each ending in ``/``.
        sha256: file name -> checksum of the uncompressed content (of the archive, for an archive).
        train, test: number of examples; ``test`` is 0 where the publisher has no test split.
        validation: how many training examples :func:`tombola.data.split` holds out; 0 for a data set without a
            published test split.
        margin: default non-inferiority margin, a fraction of accuracy.
    """

    name: str
    what: str
    licence: str
    get: tuple[str, ...]
    layouts: tuple[Layout, ...]
    addresses: tuple[str, ...]
    sha256: dict[str, str]
    train: int
    test: int
    validation: int
    margin: float


IDX_FILES: Final = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
"""Training images and labels, test images and labels: the names that MNIST and Fashion-MNIST share."""


def _idx_layouts(*folders: str) -> tuple[Layout, ...]:
    return tuple(Layout(folder, IDX_FILES, zipped=True) for folder in folders)


CIFAR_BINARY_FILES: Final = (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin")
CIFAR_PYTHON_FILES: Final = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")
CIFAR_ARCHIVE: Final = "cifar-10-binary.tar.gz"
CIFAR_ARCHIVE_MD5: Final = "c32a1d4ab5d03f1284b67883e8d87530"
"""As printed on the publisher's page."""

DIGITS: Final = Published(
    name="digits",
    what="1,797 handwritten digits, 8x8 gray, 10 classes; no published test split",
    licence="CC BY 4.0, Alpaydin & Kaynak, UCI, DOI 10.24432/C50P49",
    get=(),
    layouts=(),
    addresses=(),
    sha256={"digits.csv.gz": "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"},
    train=1_797,
    test=0,
    validation=0,
    # One image of a 539-image test split is .19 points of accuracy, so a tighter margin would ask for single images.
    margin=0.01,
)

MNIST: Final = Published(
    name="mnist",
    what="60,000 + 10,000 handwritten digits, 28x28 gray, 10 classes",
    licence="copyright Yann LeCun and Corinna Cortes; made available under CC BY-SA 3.0",
    get=("`tombola data fetch mnist`",),
    layouts=_idx_layouts("mnist", "MNIST/raw", "MNIST"),
    addresses=(
        "https://yann.lecun.com/exdb/mnist/",
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    sha256={
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
    train=60_000,
    test=10_000,
    validation=5_000,
    margin=0.002,
)

FASHION_MNIST: Final = Published(
    name="fashion-mnist",
    what="60,000 + 10,000 pictures of clothing, 28x28 gray, 10 classes",
    licence="MIT, Zalando SE",
    get=("`tombola data fetch fashion-mnist`", "`apt-get install dataset-fashion-mnist` (Debian, Ubuntu)"),
    layouts=_idx_layouts("fashion-mnist", "FashionMNIST/raw", "FashionMNIST"),
    addresses=(
        # Both are the publisher's; the second has no https.
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ),
    sha256={
        "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
    train=60_000,
    test=10_000,
    validation=5_000,
    margin=0.002,
)

CIFAR_10: Final = Published(
    name="cifar-10",
    what="50,000 + 10,000 photographs, 32x32 colour, 10 classes",
    licence="none stated; its publisher asks to cite Krizhevsky (2009), Learning Multiple Layers of Features",
    get=("`tombola data fetch cifar-10`",),
    layouts=(Layout("cifar-10-batches-bin", CIFAR_BINARY_FILES), Layout("cifar-10-batches-py", CIFAR_PYTHON_FILES)),
    addresses=("https://www.cs.toronto.edu/~kriz/",),
    # The publisher prints an MD5 only; this SHA-256 is of the archive with that MD5, as several public tables list it.
    sha256={CIFAR_ARCHIVE: "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"},
    train=50_000,
    test=10_000,
    validation=5_000,
    margin=0.005,
)

PUBLISHED: Final = {entry.name: entry for entry in (DIGITS, MNIST, FASHION_MNIST, CIFAR_10)}
"""Name -> what is known, in the order of a listing."""


def named(name: str, more: str = "") -> Published:
    """Look a published data set up.

    Args:
        name: as in the table.
        more: a sentence for the error message: what else could have been given.

    Raises:
        UnknownName: the table does not have it; the message names the nearest.
    """
    if name not in PUBLISHED:
        raise UnknownName.among("data set", name, PUBLISHED, more)
    return PUBLISHED[name]
