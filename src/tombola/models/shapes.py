"""What a network asks of the shape of an example."""

from tombola.errors import InvalidValue


def check_shape(name: str, input_shape: tuple[int, ...], classes: int) -> None:
    """Refuse shapes and class counts that no network has.

    Args:
        name: the network, for the message.
        input_shape: shape of one example, without the batch.
        classes: number of classes.

    Raises:
        InvalidValue: an empty shape, a side below 1, or fewer than two classes.
    """
    if not input_shape or any(side < 1 for side in input_shape):
        raise InvalidValue(
            f"{name} was asked for with input shape {input_shape}. An example has at least one axis and every side is "
            "at least 1. Give the shape of one example without the batch, such as (1, 28, 28)."
        )
    if classes < 2:
        raise InvalidValue(f"{name} was asked for with {classes} classes; there are at least 2. Count the labels.")


def image_sides(name: str, input_shape: tuple[int, ...], smallest: int) -> tuple[int, int, int]:
    """Read an image's shape.

    Args:
        name: the network, for the message.
        input_shape: shape of one example, without the batch.
        smallest: the least height and width, in pixels, that the network's pooling leaves anything of.

    Returns:
        channels, height, width.

    Raises:
        InvalidValue: not three axes, or an image too small.
    """
    if len(input_shape) != 3:
        raise InvalidValue(
            f"{name} reads images of shape (channels, height, width) and got input shape {input_shape}. Give the data "
            "that shape, (1, height, width) for grey images, or use lenet-300-100, which takes any shape."
        )
    channels, height, width = input_shape
    if min(height, width) < smallest:
        raise InvalidValue(
            f"{name} halves the image until {smallest}x{smallest} pixels become one, and got {height}x{width}. Use "
            f"images of at least {smallest}x{smallest} pixels, or a network with fewer halvings."
        )
    return channels, height, width
