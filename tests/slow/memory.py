"""Networks compiled for many sizes of activation SRAM, from the least in which they run, and every objective: there is a plan, no
judge refuses one on the way to it, and sizes that are said to do where there is too little do.
"""

from harness import RELEASE, Failed, call, over_networks

SIZES = 12
# What is not looked at by then is left out, and the line says how much was.
SECONDS = 60
MEMORY = RELEASE / "examples/memory"
# Sizes of the zoo at which some dozens of plans take seconds each.
ZOO = {
    "yolov3": "64x64",
    "yolov3-tiny": "64x64",
    "yolov8n": "64x64",
    "efficientdet-d0": "128x128",
    "vgg16": "64x64",
    "squeezenet": "64x64",
    "inception-v3": "75x75",
    "densenet121": "32x32",
    "resnet50": "64x64",
    "regnetx-400mf": "32x32",
    "hrnet-w18-small": "64x64",
    "mobilenetv2": "96x96",
    "mobilenetv3-large": "96x96",
    "efficientnet-lite0": "96x96",
    "convnext-tiny": "96x96",
    "mobilevit-xxs": "64x64",
    "unet": "64x64",
    "deeplabv3-mobilenetv2": "64x64",
    "fsrcnn": "96x64",
}


def swept(network):
    """Compiles a network for all sizes and objectives."""
    flags = [*network.shape_flags(), "--sizes", SIZES, "--seconds", SECONDS]
    done = call([MEMORY, network.path, *flags], limit=10 * SECONDS)
    lines = done.stdout.splitlines()
    if done.returncode != 0 or not lines:
        raise Failed("; ".join(lines) or done.stderr.strip())
    return lines[-1]


CHECKS = over_networks("memory", ZOO, swept)
